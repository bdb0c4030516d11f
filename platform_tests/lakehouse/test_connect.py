"""One open lakehouse for a process, and reads that see one snapshot."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Barrier

import duckdb
import pytest

from data_platform.errors import PlatformError
from data_platform.lakehouse import connect
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import Settings

THREADS = 4


def setting(lake: Lakehouse, name: str) -> object:
    return lake.connection.execute("SELECT current_setting(?)", [name]).fetchall()[0][0]


def is_open_elsewhere(lake: Lakehouse) -> bool:
    """Whether another block uses the same database, as `mark` tells."""
    return bool(setting(lake, "default_null_order") == "NULLS_FIRST")


def mark(lake: Lakehouse) -> None:
    lake.connection.execute("SET GLOBAL default_null_order = 'nulls_first'")


def test_blocks_at_the_same_time_share_a_database_and_no_temporary_tables(settings: Settings) -> None:
    with shared_lakehouse(settings) as first:
        mark(first)
        first.connection.execute("CREATE TEMP TABLE own AS SELECT 1 AS a")
        with shared_lakehouse(settings) as second:
            assert is_open_elsewhere(second)
            with pytest.raises(duckdb.CatalogException):
                second.connection.execute("FROM own")
            second.connection.execute("CREATE TABLE lake.main.seen AS SELECT 7 AS number")
        assert first.connection.execute("FROM lake.main.seen").fetchall() == [(7,)]
    with shared_lakehouse(settings) as third:
        assert not is_open_elsewhere(third)


def test_it_stays_open_for_the_block_that_began_last(settings: Settings) -> None:
    with ExitStack() as second:
        with shared_lakehouse(settings) as first:
            mark(first)
            lake = second.enter_context(shared_lakehouse(settings))
        assert is_open_elsewhere(lake)


def test_a_block_that_fails_closes_what_it_opened_and_nothing_of_others(settings: Settings) -> None:
    def fail() -> None:
        with shared_lakehouse(settings):
            raise ValueError("in the block")

    with shared_lakehouse(settings) as lake:
        mark(lake)
        with pytest.raises(ValueError, match="in the block"):
            fail()
        assert is_open_elsewhere(lake)
    with pytest.raises(ValueError, match="in the block"):
        fail()
    with shared_lakehouse(settings) as lake:
        assert not is_open_elsewhere(lake)


def test_a_catalog_that_did_not_answer_is_asked_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise PlatformError("it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(connect, "_attach", unreachable)
        with pytest.raises(PlatformError, match="does not answer"), shared_lakehouse(settings):
            raise AssertionError("never entered")
    with shared_lakehouse(settings) as lake:
        assert lake.connection.execute("SELECT 1").fetchall() == [(1,)]


def test_threads_that_open_it_at_once_share_it_and_leave_nothing_open(settings: Settings) -> None:
    together = Barrier(THREADS, timeout=60)

    def use(number: int) -> bool:
        together.wait()
        with shared_lakehouse(settings) as lake:
            if not number:
                mark(lake)
            together.wait()
            return is_open_elsewhere(lake)

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(use, range(THREADS)))
    with shared_lakehouse(settings) as lake:
        assert not is_open_elsewhere(lake)


def test_two_lakehouses_are_two_databases(settings: Settings) -> None:
    other = replace(settings, catalog=f"{settings.data}/other.sqlite", data=f"{settings.data}/other")
    with shared_lakehouse(settings) as one, shared_lakehouse(other) as two:
        mark(one)
        assert not is_open_elsewhere(two)


def test_a_cursor_tells_times_in_utc_wherever_the_machine_stands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        with open_lakehouse(settings) as lake:
            assert setting(lake, "TimeZone") == setting(lake.duplicate(), "TimeZone") == "UTC"
    time.tzset()


def test_a_cursor_names_tables_in_full(lake: Lakehouse) -> None:
    cursor = lake.duplicate()
    lake.connection.execute("CREATE TABLE entries AS SELECT 1 AS number")
    assert cursor.connection.execute("FROM lake.main.entries").fetchall() == [(1,)]
    with pytest.raises(duckdb.CatalogException):
        cursor.connection.execute("FROM entries")


def test_what_is_read_together_is_of_one_snapshot(lake: Lakehouse, settings: Settings) -> None:
    lake.connection.execute("CREATE TABLE entries AS SELECT 1 AS number")
    counted = "SELECT count(*) FROM lake.main.entries"
    with open_lakehouse(settings) as other:
        with lake.reading():
            before = lake.connection.execute(counted).fetchall()
            other.connection.execute("INSERT INTO entries VALUES (2)")
            assert lake.connection.execute(counted).fetchall() == before == [(1,)]
        assert lake.connection.execute(counted).fetchall() == [(2,)]


def test_a_read_that_fails_ends_its_transaction(lake: Lakehouse) -> None:
    with pytest.raises(duckdb.Error), lake.reading():
        lake.connection.execute("SELECT error('no')")
    with lake.reading():
        assert lake.connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "commits",
    [
        ["DELETE FROM entries WHERE number % 10 = 1"],
        ["CALL ducklake_merge_adjacent_files('lake')"],
        ["CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.0)"],
        ["CALL ducklake_flush_inlined_data('lake')"],
        [
            "DELETE FROM entries WHERE number > 4000",
            "CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.0)",
        ],
    ],
    ids=["a second deletion", "merged", "rewritten", "written to files", "narrower statistics"],
)
def test_what_is_read_together_is_of_one_moment_though_rows_leave_the_catalog(
    lake: Lakehouse, settings: Settings, commits: list[str]
) -> None:
    for table in ("entries", "whole", "others"):
        lake.connection.execute(f"CREATE TABLE {table} (number BIGINT)")
        for first in range(0, 5_000, 1_000):
            lake.connection.execute(f"INSERT INTO {table} SELECT range FROM range({first}, {first + 1000})")
        if table != "whole":
            lake.connection.execute(f"DELETE FROM {table} WHERE number % 10 = 0")
        lake.connection.execute(f"INSERT INTO {table} VALUES (-1), (-2)")
    summed = [
        f"SELECT count(*), sum(number), count(*) FILTER (number = 4999) FROM lake.main.{table} WHERE number > -5"
        for table in ("entries", "whole")
    ]
    with open_lakehouse(settings) as other:
        expected = [other.connection.execute(query).fetchall() for query in summed]
        with lake.reading():
            # The transaction has begun, but has not read of these tables yet.
            lake.connection.execute("SELECT count(*) FROM lake.main.others").fetchall()
            for statement in commits:
                other.connection.execute(statement).fetchall()
            for query, before in zip(summed, expected, strict=True):
                assert lake.connection.execute(query).fetchall() == before
                assert lake.connection.execute(query).fetchall() == before
