"""What is refused of a query before it is run, with the line of its file, and what it is said to read."""

from pathlib import Path

import pytest
from platform_tests.dashboards.declaring import query_of

from data_platform.dashboards.pages import read_page
from data_platform.dashboards.queries import named, require_known, require_public
from data_platform.errors import PlatformError
from data_platform.lakehouse.tables import Table

KNOWN = {"modelled": ["mart_sales", "dim_shop"], "staged_shop": ["orders"], "platform": ["loads"]}
SALES, ORDERS = Table("modelled", "mart_sales"), Table("staged_shop", "orders")


def test_a_query_reads_the_tables_that_it_names_and_not_its_own_parts(tmp_path: Path) -> None:
    query = query_of(
        tmp_path,
        "with sales as (from Modelled.mart_sales)\n"
        "select day, n from sales join lake.staged_shop.orders using (id) cross join range(3) as r(n)\n"
        "where id in (select id from modelled.dim_shop)",
    )
    found = named(query)
    assert found.tables == {SALES: 6, ORDERS: 7, Table("modelled", "dim_shop"): 8}
    assert {"day", "id"} <= found.columns
    require_known(query, KNOWN)


@pytest.mark.parametrize(
    ("sql", "line", "said"),
    [
        ("select 1\nfrom modelled.mart_sale", 7, "no table modelled.mart_sale. Did you mean mart_sales? There is:"),
        ("from modeled.mart_sales", 6, "no schema modeled. Did you mean modelled?"),
        ("select *\nfrom\n  mart_sales", 8, "mart_sales is no table of the lakehouse. Write schema and table"),
        ("from other.modelled.mart_sales", 6, "is no table of the lakehouse"),
        ("from 'orders.csv'", 6, "is no table of the lakehouse"),
        (
            "select 1\nfrom read_csv('orders.csv')",
            7,
            "which is no table of the lakehouse. Such a query reads tables alone",
        ),
        ("from sqlite_scan('a.db', 'b')", 6, "Such a query reads tables alone"),
        ("select 1; select 2", 6, "these are 2 statements"),
        ("drop table modelled.mart_sales", 6, "not DROP"),
        ("select a\nfrom modelled.mart_sales where (", 7, "cannot be read at '('"),
    ],
)
def test_what_is_no_query_of_known_tables_is_refused_with_its_line(
    tmp_path: Path, sql: str, line: int, said: str
) -> None:
    query = query_of(tmp_path, sql)
    with pytest.raises(PlatformError) as refused:
        require_known(query, KNOWN)
    # The text of a block scalar begins below its key.
    assert str(refused.value).startswith(f"{query.file}:{line}: "), refused.value
    assert said in str(refused.value)


def test_a_private_column_is_only_shown_where_the_page_says_so(tmp_path: Path) -> None:
    private = {ORDERS: frozenset({"email"})}
    with pytest.raises(PlatformError, match=r"names email, which is private or masked in staged_shop\.orders"):
        require_public(query_of(tmp_path, "select count(distinct o.Email) from staged_shop.orders as o"), private)
    require_public(query_of(tmp_path, "select email from modelled.mart_sales"), private)
    allowed = query_of(tmp_path, "select email from staged_shop.orders")
    allowed.file.write_text(allowed.file.read_text() + "  private: [email]\n")
    require_public(read_page(allowed.file).queries[0], private)
