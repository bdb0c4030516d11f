"""Drafts of pages: what is shown of a table, by what its columns hold, and that each draft can be drawn at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.prepared import copy

from data_platform.dashboards.build import build_page, require_drawable
from data_platform.dashboards.drafts import draft_table_page, overview_page
from data_platform.dashboards.options import ChartBlock
from data_platform.dashboards.pages import Page, page_from
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table

ORDERS = """
    SELECT i AS order_id, 'c' || i AS customer, i % 7 AS quantity, i / 10 AS total, i % 10 / 10 AS paid_share,
        ['north', 'south', 'west', NULL][i % 4 + 1] AS shop, i % 3 = 0 AS is_late, 'same' AS country,
        TIMESTAMPTZ '2013-01-01 12:00:00+00' + INTERVAL (i * 6) HOUR AS ordered_at, [i] AS lines,
        CASE WHEN i = 5 THEN 'infinity'::date END AS paid_on, i AS _load_id, 2013 AS year
    FROM range(200) AS t(i)"""

ODD = """
    SELECT DATE '2013-01-01' + i::int AS "Order", i / 3 AS "a ""b"" <x>", 'x' || i % 2 AS "select", NULL AS void
    FROM range(9) AS t(i)"""


@pytest.fixture(scope="module")
def shared(prepared_sqlite: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    folder = tmp_path_factory.mktemp("lakehouse")
    (folder / "extensions").symlink_to(prepared_sqlite.home / "extensions")
    with open_lakehouse(copy(prepared_sqlite, Settings(folder, str(folder / "c.sqlite"), str(folder / "d")))) as lake:
        lake.connection.execute("CREATE SCHEMA lake.modelled")
        for name, query in (("orders", ORDERS), ("odd", ODD), ("empty", f"{ORDERS} LIMIT 0")):
            lake.connection.execute(f"CREATE TABLE lake.modelled.{name} AS {query}")
        yield lake


def drafted(lake: Lakehouse, name: str, *private: str) -> Page:
    text = draft_table_page(lake, Table("modelled", name), "Orders & <more>", private)
    page = page_from(text, Path("orders.yaml"))
    require_drawable(lake, page, {})
    return page


def charts(page: Page) -> list[tuple[str, str, str]]:
    return [(one.chart, one.x, one.y) for one in page.options.blocks if isinstance(one, ChartBlock)]


def test_a_table_is_shown_by_what_its_columns_hold(shared: Lakehouse) -> None:
    page = drafted(shared, "orders")
    assert charts(page) == [
        ("line", "day", "number"),
        ("line", "day", "mean_quantity"),
        ("line", "day", "mean_total"),
        ("bar", "number_of_rows", "shop"),
    ]
    figures, *_, latest = page.options.blocks
    assert figures.type == "figures"
    assert {name: one.unit for name, one in figures.columns.items()} == {"mean_paid_share": "%", "share_is_late": "%"}
    assert latest.type == "table"
    for left_out in ("lines", "_load_id"):
        assert left_out not in latest.sql
    built = build_page(shared, page, [page], "dashboards/orders", "http://127.0.0.1:3000")
    text = built.file.read_text()
    assert ">200<" in text
    assert "<span>2013-02-20</span>" in text
    assert built.empty == ()


def test_private_columns_are_in_no_part_of_a_draft(shared: Lakehouse) -> None:
    page = drafted(shared, "orders", "Total", "shop", "customer", "ordered_at")
    said = " ".join(query.block.sql for query in page.queries)
    for name in ("total", "shop", "customer", "ordered_at"):
        assert name not in said
    assert charts(page)[0] == ("line", "day", "number")  # by the other date


def test_names_that_are_no_plain_words_are_quoted(shared: Lakehouse) -> None:
    page = drafted(shared, "odd")
    assert charts(page)[0] == ("line", "day", "number")
    assert charts(page)[-1] == ("bar", "number_of_rows", "select")


def test_a_table_without_rows_says_that_it_has_to_be_filled_first(shared: Lakehouse) -> None:
    with pytest.raises(PlatformError, match=r"modelled.empty has no rows yet, .* Have it filled \(`dp run`\)"):
        drafted(shared, "empty")


def test_the_overview_can_be_drawn_before_anything_is_loaded(shared: Lakehouse, tmp_path: Path) -> None:
    page = page_from(overview_page("Tables"), tmp_path / "tables.yaml")
    built = build_page(shared, page, [page], "dashboards/tables", "http://127.0.0.1:3000")
    assert len(built.empty) == len(page.queries) == 5
