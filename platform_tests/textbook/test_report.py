"""The DAG of the textbooks as this platform has it: a script, a file, another file, a table, each an asset."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from platform_tests.servers import Postgres, fresh_database

from data_platform.components import platform_definitions
from data_platform.components.execution import executable_keys, select

SHOP = """
create table customers (customer_id int primary key, country text);
create table orders (order_id int primary key, customer_id int, ordered_at timestamptz, cancelled boolean);
create table order_lines (order_id int, quantity int, price numeric(10, 2));
insert into customers values (1, 'NL'), (2, 'Côte d''Ivoire, "CI"'), (3, null);
insert into orders values (10, 1, '2024-03-02 23:30:00+00', false), (11, 1, '2024-03-01 01:00:00+00', false),
    (12, 2, '2024-03-02 12:00:00+00', false), (13, 2, '2024-03-02 12:00:00+00', true), (14, 3, '2024-03-01+00', false);
insert into order_lines values (10, 2, 1.10), (10, 1, 0.20), (11, 3, 5.00), (12, 1, 7.77), (13, 9, 9.99), (14, 1, 0.01);
"""
DAYS = [
    ("2024-03-01", "NL", 1, "15.00"),
    ("2024-03-01", None, 1, "0.01"),
    ("2024-03-02", 'Côte d\'Ivoire, "CI"', 1, "7.77"),
    ("2024-03-02", "NL", 1, "2.40"),
]
NAMES = ["report/lines", "report/revenue", "report/revenue_by_day"]


@pytest.fixture
def urls(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    with fresh_database(postgres) as shop, fresh_database(postgres) as warehouse:
        monkeypatch.setenv("SHOP_URL", shop)
        monkeypatch.setenv("WAREHOUSE_URL", warehouse)
        with psycopg.connect(shop) as connection:
            connection.execute(SHOP)
        yield shop, warehouse


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """A platform with the folder `report` alone."""
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / f"office_{uuid.uuid4().hex[:8]}"
    shutil.copytree(Path(__file__).parent / "report", package / "defs" / "report")
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    return platform_definitions(package)


def run(definitions: dg.Definitions) -> dg.ExecuteInProcessResult:
    keys = select(executable_keys(definitions), ["report"])
    assert ["/".join(key.path) for key in keys] == NAMES
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(asset_selection=keys, raise_on_error=False)


def table(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select day::text, country, orders, amount::text from revenue").fetchall()
    return sorted(rows, key=lambda row: (row[0], row[1] or "~"))


def test_the_table_holds_what_the_script_gives_by_day_and_a_second_run_changes_nothing(
    definitions: dg.Definitions, urls: tuple[str, str], tmp_path: Path
) -> None:
    for _ in range(2):
        result = run(definitions)
        assert result.success
        assert [one.passed for one in result.get_asset_check_evaluations()] == [True]
        assert table(urls[1]) == DAYS
    lines = (tmp_path / "home" / "report" / "revenue_by_day.csv").read_text().splitlines()
    assert lines[0] == "day,country,orders,amount"
    assert [line.partition(",")[0] for line in lines[1:]] == sorted(line.partition(",")[0] for line in lines[1:])


def test_a_script_that_fails_half_way_leaves_files_and_table_as_they_were(
    definitions: dg.Definitions, urls: tuple[str, str], tmp_path: Path
) -> None:
    assert run(definitions).success
    before = (tmp_path / "home" / "report" / "lines.csv").read_text()
    with psycopg.connect(urls[0]) as connection:
        connection.execute("alter table order_lines rename to lines")
        connection.execute(
            "create view order_lines as select order_id, quantity, price / (14 - order_id) as price from lines"
        )
    assert not run(definitions).success
    assert (tmp_path / "home" / "report" / "lines.csv").read_text() == before
    assert table(urls[1]) == DAYS


def test_rows_that_the_warehouse_does_not_take_leave_the_old_ones(
    definitions: dg.Definitions, urls: tuple[str, str]
) -> None:
    assert run(definitions).success
    with psycopg.connect(urls[1]) as connection:
        connection.execute("alter table revenue add check (amount < 10) not valid")
    assert not run(definitions).success
    assert table(urls[1]) == DAYS
