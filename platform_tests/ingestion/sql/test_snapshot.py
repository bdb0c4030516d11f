"""All tables of a source in one snapshot: no row without the rows that it refers to, in the source and in raw."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from platform_tests.databases import Database, with_mariadb
from platform_tests.servers import running_mariadb

from data_platform.errors import PlatformError
from data_platform.ingestion.drift import LoadRefusedError
from data_platform.ingestion.load import LoadResult, load_table, load_tables
from data_platform.ingestion.source import HINT, Batch, Position, SourceUse, entries_of_table
from data_platform.ingestion.sql.options import SqlTable
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

CUSTOMERS = SqlTable(contract="x", key=["id"])
ORDERS = SqlTable(contract="x", key=["id"], cursor={"column": "id"})  # type: ignore[arg-type]
TABLES = {"customers": CUSTOMERS, "orders": ORDERS}
SCHEMA = (
    "create table customers (id integer primary key, name text)",
    "create table orders (id integer primary key, customer_id integer not null)",
)
ORPHANS = "SELECT count(*) FROM raw_shop.orders WHERE customer_id NOT IN (SELECT id FROM raw_shop.customers)"


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lakehouse]:
    with open_lakehouse(settings) as lake:
        yield lake


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Database:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else str(tmp_path / "source.sqlite")
    database = Database(url, settings)
    database.run(*SCHEMA)
    if request.param == "sqlite":
        database.run("pragma journal_mode = wal")
    return database


def order(database: Database, *numbers: int) -> None:
    """A customer and their order, in one transaction."""
    for number in numbers:
        database.run(f"insert into customers values ({number}, 'c')", f"insert into orders values ({number}, {number})")


def source(database: Database, **tables: SqlTable) -> Relational:
    return Relational(database.url, tables or TABLES, snapshot=True)


def load(lake: Lakehouse, database: Database, tables: dict[str, SqlTable] = TABLES, **options: Any) -> Any:
    found = source(database, **tables)
    return load_tables(lake, "shop", found, "snapshot", tables, run_id="run", **options)


def rows(lake: Lakehouse, table: str) -> list[int]:
    return [row[0] for row in lake.connection.execute(f"SELECT id FROM raw_shop.{table} ORDER BY ALL").fetchall()]


def landed(results: dict[str, LoadResult]) -> dict[str, int]:
    return {name: result.rows_landed for name, result in results.items()}


def read(found: list[Batch]) -> dict[str, list[int]]:
    return {name: [r["id"] for b in found if b.table == name for r in b.rows.to_pylist()] for name in TABLES}


def test_what_is_committed_between_two_tables_is_in_neither(database: Database) -> None:
    order(database, 1, 2)
    with source(database).reading(["customers", "orders"], {}) as reading:
        batches = iter(reading)
        found = [next(batches)]
        order(database, 3)
        found += batches
    assert read(found) == {"customers": [1, 2], "orders": [1, 2]}


def test_only_the_last_batch_has_a_position_and_it_has_those_of_all_tables(database: Database) -> None:
    order(database, 1)
    with source(database).reading(["customers", "orders"], {}) as reading:
        found = list(reading)
    assert [batch.position is None for batch in found] == [True] * (len(found) - 1) + [False]
    position: Position = found[-1].position or {}
    assert entries_of_table(position, "orders")["cursor"] == "1"
    assert entries_of_table(position, "customers")["rows"] == "1"


def test_while_orders_come_with_their_customers_no_load_has_one_without(lake: Lakehouse, postgres_url: str) -> None:
    database = Database(postgres_url, lake.settings)
    database.run(*SCHEMA)
    stopped, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        with psycopg.connect(postgres_url) as connection:
            while not stopped.is_set():
                written += 1
                connection.execute("insert into customers values (%s, 'c')", [written])
                connection.execute("insert into orders values (%s, %s)", [written, written])
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            before = written
            load(lake, database)
            assert lake.connection.execute(ORPHANS).fetchone() == (0,)
            assert written > before
            assert rows(lake, "orders") == list(range(1, len(rows(lake, "orders")) + 1))
    finally:
        stopped.set()
        writer.join()
    load(lake, database)
    assert len(rows(lake, "orders")) == written


def test_the_next_load_goes_on_by_each_cursor_and_lands_no_whole_table_that_is_as_it_was(
    lake: Lakehouse, database: Database
) -> None:
    order(database, 1, 2)
    assert landed(load(lake, database)) == {"customers": 2, "orders": 2}
    database.run("insert into orders values (3, 1)")
    results = load(lake, database)
    assert landed(results) == {"customers": 0, "orders": 1}
    assert (results["customers"].loads, len(results["orders"].loads)) == ((), 1)
    results = load(lake, database)
    assert landed(results) == {"customers": 0, "orders": 0}
    assert rows(lake, "orders") == [1, 2, 3]
    database.run("insert into customers values (9, 'c')")
    assert landed(load(lake, database)) == {"customers": 3, "orders": 0}
    assert rows(lake, "customers") == [1, 1, 2, 2, 9]


def test_tables_that_were_loaded_one_by_one_before_have_no_row_twice(lake: Lakehouse, database: Database) -> None:
    order(database, 1, 2)
    alone = Relational(database.url, TABLES)
    for name, table in TABLES.items():
        load_table(lake, "shop", alone, name, table, run_id="run")
    load(lake, database)
    query = "SELECT kind FROM platform.loads WHERE table_name = 'orders' ORDER BY load_id"
    assert [kind for (kind,) in lake.connection.execute(query).fetchall()] == ["rows", "whole"]
    order(database, 3)
    assert landed(load(lake, database))["orders"] == 1


def test_a_table_that_is_named_later_is_read_from_its_beginning_and_one_that_is_named_no_more_is_forgotten(
    lake: Lakehouse, database: Database
) -> None:
    order(database, 1, 2)
    load(lake, database, {"orders": ORDERS})
    order(database, 3)
    assert landed(load(lake, database)) == {"customers": 3, "orders": 1}
    position = load(lake, database, {"customers": CUSTOMERS})["customers"].position
    assert not entries_of_table(position, "orders")


def test_a_full_refresh_reads_all_tables_again(lake: Lakehouse, database: Database) -> None:
    order(database, 1, 2)
    load(lake, database)
    assert landed(load(lake, database, full_refresh=True)) == {"customers": 2, "orders": 2}


def test_if_one_table_is_refused_none_lands(lake: Lakehouse, database: Database) -> None:
    order(database, *range(1, 11))
    load(lake, database)
    order(database, 11)
    database.run("delete from customers where id > 2")
    with pytest.raises(LoadRefusedError, match=r"shop/customers: .* where the last one held 10.*share a position"):
        load(lake, database)
    assert rows(lake, "orders") == list(range(1, 11))


def test_a_probe_sees_each_table_by_its_own_part_of_the_position(lake: Lakehouse, database: Database) -> None:
    order(database, 1)
    position = load(lake, database)["orders"].position
    reader = source(database)
    found = reader.probe(list(TABLES), dict.fromkeys(TABLES, position))
    if database.kind == "sqlite":
        assert not any(probe.changes for probe in found.values())
    database.run("insert into orders values (2, 1)")
    found = reader.probe(list(TABLES), dict.fromkeys(TABLES, position))
    assert found["orders"].changes == {"cursor": "2"}
    assert set(found["customers"].changes) <= {HINT}


def test_a_table_cannot_be_emptied_under_the_reading(postgres_url: str, settings: Settings) -> None:
    """TRUNCATE is seen by older snapshots: it has to wait."""
    database = Database(postgres_url, settings)
    database.run(*SCHEMA)
    order(database, 1)
    with source(database).reading(["customers", "orders"], {}) as reading, psycopg.connect(postgres_url) as other:
        other.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("truncate orders")
        assert read(list(reading))["orders"] == [1]


def test_tables_of_it_may_be_read_in_parallel(database: Database) -> None:
    order(database, *range(1, 40))
    tables = {"customers": SqlTable(contract="x", parallel=3), "orders": ORDERS}  # type: ignore[arg-type]
    with source(database, **tables).reading(list(tables), {}) as reading:
        batches = iter(reading)
        found = [next(batches)]
        order(database, 40)
        found += batches
        uses = [reading.use(name) for name in tables]
    assert {name: sorted(ids) for name, ids in read(found).items()} == {name: list(range(1, 40)) for name in TABLES}
    assert all(use.rows >= 39 for use in uses)
    assert uses[1].rows < 39 * 2


def test_each_table_is_told_what_it_took_at_the_source(lake: Lakehouse, database: Database) -> None:
    order(database, 1, 2, 3)
    results = load(lake, database)
    for result in results.values():
        assert isinstance(result.use, SourceUse)
        assert result.use.rows >= 3
        assert result.use.statements >= 2


@with_mariadb
@pytest.mark.servers
def test_mysql_is_refused_with_what_it_has_instead() -> None:
    with running_mariadb() as url:
        reader = Relational(f"{url}/mysql", {"help_topic": CUSTOMERS}, snapshot=True)
        with pytest.raises(PlatformError, match=r"`snapshot` cannot be had of MySQL.*`changes: true`"):  # noqa: SIM117
            with reader.reading(["help_topic"], {}):
                raise AssertionError("it was opened")
