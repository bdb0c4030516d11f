"""What a step asks of the catalog stays the same, however many tables and versions the lakehouse has."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from platform_tests.grown import grow, load_and_stage, versions
from platform_tests.servers import Postgres, fresh_database

from data_platform.lakehouse import ledger
from data_platform.lakehouse.catalog_tables import tables_in_catalog
from data_platform.lakehouse.connect import METADATA, Lakehouse, open_lakehouse, shared_lakehouse
from data_platform.lakehouse.indexes import INDEXES, create_indexes
from data_platform.lakehouse.maintenance import maintain, update_catalog
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table, all_tables

KINDS: dict[str, Callable[[Lakehouse], object]] = {
    "rows": lambda lake: load_and_stage(lake, "shop"),
    "whole": lambda lake: load_and_stage(lake, "shop", kind="whole"),
    "nothing": lambda lake: load_and_stage(lake, "shop", rows=0),
}

TRANSACTIONS = {"rows": 6, "whole": 7, "nothing": 2}
"""For a load: what is asked, and the commit. For a staging: what is asked, the raw rows, what is staged of them, and
the commit. A full refresh is compared with the last one, and with what is open in quarantine, instead."""


@pytest.fixture
def small(home: Path, tmp_path: Path) -> Iterator[Lakehouse]:
    with shared_lakehouse(Settings(home, str(tmp_path / "small.sqlite"), str(tmp_path / "small"))) as lake:
        yield lake


@pytest.fixture
def large(home: Path, tmp_path: Path) -> Iterator[Lakehouse]:
    with shared_lakehouse(Settings(home, str(tmp_path / "large.sqlite"), str(tmp_path / "large"))) as lake:
        grow(lake, tables=40, snapshots=300)
        assert versions(lake) >= 300
        yield lake


def run(lake: Lakehouse, sql: str) -> list[Any]:
    return lake.connection.execute(sql).fetchall()


def statements(lake: Lakehouse, work: Callable[[Lakehouse], object]) -> list[str]:
    """The statements that some work runs, among them those of DuckLake on its catalog."""
    run(lake, "CALL enable_logging('QueryLog')")
    try:
        work(lake)
    finally:
        run(lake, "CALL disable_logging()")
    logged = run(lake, "SELECT message FROM duckdb_logs WHERE type = 'QueryLog' ORDER BY timestamp")
    run(lake, "CALL truncate_duckdb_logs()")
    return [" ".join(message.split()) for (message,) in logged]


def asked(lake: Lakehouse, kind: str) -> list[str]:
    """What a step of a table asks that was loaded and staged before."""
    for _ in range(2):
        load_and_stage(lake, "shop")
    KINDS[kind](lake)
    return statements(lake, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_runs_as_many_statements_among_many_tables_as_among_few(
    small: Lakehouse, large: Lakehouse, kind: str
) -> None:
    def shapes(lake: Lakehouse) -> list[str]:
        return [re.sub(r"\d+", "#", statement)[:60] for statement in asked(lake, kind) if METADATA in statement]

    assert shapes(large) == shapes(small)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_takes_few_transactions_of_which_each_asks_the_catalog_anew(small: Lakehouse, kind: str) -> None:
    snapshots = [one for one in asked(small, kind) if one.startswith("SELECT snapshot_id, schema_version")]
    assert len(snapshots) == TRANSACTIONS[kind]


def test_what_files_hold_is_not_looked_up_for_the_ledger(small: Lakehouse) -> None:
    numbers = run(
        small,
        f"SELECT table_id FROM {METADATA}.ducklake_table JOIN {METADATA}.ducklake_schema USING (schema_id) "
        "WHERE schema_name = 'platform'",
    )
    found = [one for one in asked(small, "rows") if "FROM" in one and "ducklake_file_column_stats WHERE" in one]
    tables = [re.search(r"table_id = (\d+)", one) for one in found]
    assert found
    assert not {int(match[1]) for match in tables if match} & {number for (number,) in numbers}


def test_a_table_of_the_lakehouse_is_none_in_the_database_of_its_catalog(lake: Lakehouse) -> None:
    load_and_stage(lake, "shop", kind="whole")
    of_ledger = tables_in_catalog(lake)
    assert len(of_ledger) == len(ledger.schema.TABLES)
    for source in ("depot", "harbour"):
        for rows in (5, 20, 5):
            load_and_stage(lake, source, rows=rows)
    run(lake, "CREATE SCHEMA lake.build")
    run(lake, "CREATE TABLE lake.build.sums AS SELECT 1 AS a")
    run(lake, "INSERT INTO lake.build.sums VALUES (2)")
    assert tables_in_catalog(lake) == of_ledger


def test_listing_the_tables_asks_as_much_among_many_as_among_few(small: Lakehouse, large: Lakehouse) -> None:
    load_and_stage(small, "shop")
    load_and_stage(large, "shop")
    assert len(all_tables(large.connection)) == len(all_tables(small.connection)) + 40
    of_small, of_large = (statements(lake, lambda lake: all_tables(lake.connection)) for lake in (small, large))
    assert len(of_large) == len(of_small)


def test_tables_are_listed_with_views_even_of_what_is_gone(lake: Lakehouse) -> None:
    run(lake, "CREATE TABLE lake.main.t (a BIGINT)")
    run(lake, "CREATE VIEW lake.main.v AS SELECT a FROM lake.main.t")
    run(lake, "DROP TABLE lake.main.t")
    run(lake, "CREATE VIEW lake.main.w AS SELECT 1 AS a")
    assert all_tables(lake.connection) == [Table("main", "v"), Table("main", "w")]


def as_of_an_earlier_release(lake: Lakehouse) -> None:
    """DuckLake keeps few rows of any table in the catalog, and a PostgreSQL catalog has no indexes."""
    ledger.ensure_ledger(lake)
    run(lake, "CALL lake.set_option('data_inlining_row_limit', 10)")
    if not lake.settings.catalog_is_sqlite:
        drops = "; ".join(f"DROP INDEX data_platform_{table}" for table in INDEXES)
        run(lake, f"CALL postgres_execute('{METADATA}', '{drops}')")
    load_and_stage(lake, "shop")
    for sql in ("CREATE TABLE lake.main.t (a BIGINT)", "INSERT INTO lake.main.t VALUES (1), (2)"):
        run(lake, sql)
    run(lake, "DELETE FROM lake.main.t WHERE a = 1")
    run(lake, "INSERT INTO lake.main.t VALUES (3)")


def every_version(lake: Lakehouse) -> list[list[Any]]:
    last = run(lake, "FROM ducklake_current_snapshot('lake')")[0][0]
    return [
        run(lake, f"FROM lake.main.t AT (VERSION => {version}) ORDER BY a") for version in range(last - 2, last + 1)
    ]


def test_maintenance_keeps_new_tables_of_an_earlier_releases_lakehouse_out_of_its_catalog(lake: Lakehouse) -> None:
    as_of_an_earlier_release(lake)
    before, known = every_version(lake), tables_in_catalog(lake)
    assert len(known) > len(ledger.schema.TABLES)
    assert before == [[(1,), (2,)], [(2,)], [(2,), (3,)]]
    last = run(lake, "FROM ducklake_current_snapshot('lake')")[0][0]
    maintain(lake)
    load_and_stage(lake, "depot")
    assert tables_in_catalog(lake) <= known
    # Whoever has seen a version may read it again.
    assert run(lake, f"FROM lake.main.t AT (VERSION => {last}) ORDER BY a") == before[-1]
    assert run(lake, "FROM lake.main.t ORDER BY a") == before[-1]


def test_a_catalog_of_an_earlier_release_loses_the_tables_that_nothing_is_kept_in_and_no_version_of_a_row(
    settings: Settings,
) -> None:
    with open_lakehouse(settings) as lake:
        as_of_an_earlier_release(lake)
        before = every_version(lake)
        last = run(lake, "FROM ducklake_current_snapshot('lake')")[0][0]
    with open_lakehouse(settings) as lake:
        assert update_catalog(lake) == 3  # of the raw, the staged and the other table
        assert update_catalog(lake) == 0
    with open_lakehouse(settings) as lake:
        versions = range(last - 2, last + 1)
        assert [run(lake, f"FROM lake.main.t AT (VERSION => {one}) ORDER BY a") for one in versions] == before
        assert run(lake, "FROM lake.main.t ORDER BY a") == before[-1]
        load_and_stage(lake, "shop", rows=20)
        assert run(lake, "SELECT count(*) FROM lake.staged_shop.orders") == [(20,)]


def test_a_lakehouse_of_an_earlier_release_takes_a_column_with_a_name_that_ducklake_keeps_for_itself(
    small: Lakehouse,
) -> None:
    as_of_an_earlier_release(small)
    table = Table("raw_depot", "crates")
    allow_names(small, table, ["id"])
    run(small, "CREATE SCHEMA IF NOT EXISTS lake.raw_depot")
    with pytest.raises(duckdb.Error, match="row_id"):
        run(small, f"CREATE TABLE {table.sql} (row_id BIGINT)")
    allow_names(small, table, ["Row_Id"])
    run(small, f"CREATE TABLE {table.sql} (row_id BIGINT)")
    assert small.connection.sql(f"FROM {table.sql}").columns == ["row_id"]


def test_a_postgresql_catalog_has_indexes_for_what_is_looked_for(
    postgres: Postgres, home: Path, tmp_path: Path
) -> None:
    query = f"SELECT name FROM postgres_query('{METADATA}', 'SELECT indexname AS name FROM pg_catalog.pg_indexes')"

    def indexes(lake: Lakehouse) -> set[str]:
        return {name for (name,) in run(lake, query) if name.startswith("data_platform_")}

    with fresh_database(postgres) as url, open_lakehouse(Settings(home, url, str(tmp_path / "data"))) as lake:
        ledger.ensure_ledger(lake)
        assert indexes(lake) == {f"data_platform_{table}" for table in INDEXES}
        as_of_an_earlier_release(lake)
        assert indexes(lake) == set()
        maintain(lake)
        create_indexes(lake)
        assert indexes(lake) == {f"data_platform_{table}" for table in INDEXES}
