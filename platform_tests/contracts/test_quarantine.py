"""Rows that failed: kept once, counted by reason, picked and closed."""

from datetime import UTC, datetime

import polars as pl
import pyarrow.parquet as pq
import pytest
from platform_tests.tables import rejects

from data_platform.contracts.quarantine import (
    Selection,
    close_entries,
    ensure_quarantine,
    quarantine_tables,
    rejects_frame,
    require_quarantine,
    spooled_entries,
    summary,
    write_quarantine,
)
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import quarantine_table
from data_platform.lakehouse.transaction import commit, register

TABLE = quarantine_table("shop", "orders")
NOW = datetime(2020, 1, 1, tzinfo=UTC)


def put(lake: Lakehouse, *entries: pl.DataFrame, run_id: str = "run-1") -> int:
    """Write entries and register their file; how many were new."""
    file = write_quarantine(lake, TABLE, entries, run_id, NOW)
    if file is None:
        return 0

    def work(connection: object) -> None:
        ensure_quarantine(lake.connection, TABLE)
        register(lake.connection, TABLE, [file])

    commit(lake, work)
    return file.rows


def entries(*rows: tuple[str, int, str, str], withhold: bool = False) -> pl.DataFrame:
    return rejects_frame(rejects(*rows), 1, withhold=withhold)


def close(lake: Lakehouse, status: str, selection: Selection) -> int:
    return commit(lake, lambda connection: close_entries(connection, TABLE, status, NOW, selection))


A = ("a.csv", 1, "x", "too short")
B = ("a.csv", 2, "y", "too long")


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("out of order"), KeyboardInterrupt()])
def test_the_spool_file_of_entries_is_removed_whatever_keeps_it_from_being_finished(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(writer: object) -> None:
        raise error

    def spool() -> None:
        with spooled_entries(lake) as spooled:
            spooled.add(entries(A))
            assert len(set(lake.settings.spool.iterdir()) - before) == 1
            monkeypatch.setattr(pq.ParquetWriter, "close", failing)
            spooled.close()

    before = set(lake.settings.spool.iterdir())
    with pytest.raises((PlatformError, RuntimeError, KeyboardInterrupt)):
        spool()
    assert set(lake.settings.spool.iterdir()) == before


def test_nothing_to_quarantine_makes_no_table_and_no_file(lake: Lakehouse) -> None:
    assert put(lake) == 0
    assert put(lake, entries()) == 0
    assert quarantine_tables(lake.connection) == []
    assert summary(lake.connection) == []


def test_an_entry_is_kept_once_while_it_is_open_or_discarded_and_again_after_it_was_replayed(lake: Lakehouse) -> None:
    assert put(lake, entries(A, B), entries(A)) == 2
    assert put(lake, entries(A, B), run_id="run-2") == 0
    close(lake, "discarded", Selection())
    assert put(lake, entries(A)) == 0
    assert put(lake, entries(("a.csv", 3, "z", "too odd"))) == 1
    close(lake, "replayed", Selection())
    assert put(lake, entries(("a.csv", 3, "z", "too odd"))) == 1


def test_another_record_in_the_same_place_is_another_entry(lake: Lakehouse) -> None:
    assert put(lake, entries(A)) == 1
    assert put(lake, entries(("a.csv", 1, "another", "too short"))) == 1


def test_withheld_records_leave_no_trace_but_their_place(lake: Lakehouse) -> None:
    frame = entries(A, withhold=True)
    assert frame["quarantine_id"].to_list() == ["a.csv:1:withheld"]
    assert frame["record"].to_list() == ["(withheld: this table masks columns; see file and line)"]


def test_open_entries_are_counted_by_reason_with_an_example_and_a_date(lake: Lakehouse) -> None:
    put(lake, entries(A, B, ("a.csv", 3, "z", "too long")))
    assert [(entry["check"], entry["rows"], entry["layer"], entry["since"]) for entry in summary(lake.connection)] == [
        ("too long", 2, "raw", NOW),
        ("too short", 1, "raw", NOW),
    ]


def test_entries_are_picked_by_id_and_by_the_column_of_a_reason(lake: Lakehouse) -> None:
    frame = entries(A, B)
    put(lake, frame)
    assert close(lake, "discarded", Selection(column="amount")) == 0
    assert close(lake, "discarded", Selection(ids=[frame["quarantine_id"][0]])) == 1
    assert close(lake, "replayed", Selection(column="")) == 1
    assert close(lake, "discarded", Selection()) == 0
    statuses = lake.connection.execute(f"SELECT line, status, resolved_at FROM {TABLE.sql} ORDER BY line").fetchall()
    assert statuses == [(1, "discarded", NOW), (2, "replayed", NOW)]


def test_a_run_id_full_of_quotes_is_only_a_text(lake: Lakehouse) -> None:
    put(lake, entries(A), run_id="'; DROP TABLE x; --")
    assert lake.connection.execute(f"SELECT run_id FROM {TABLE.sql}").fetchall() == [("'; DROP TABLE x; --",)]


def test_a_table_without_quarantine_is_an_error_that_lists_those_with_one(lake: Lakehouse) -> None:
    put(lake, entries(A))
    assert require_quarantine(lake.connection, "shop", "orders") == TABLE
    with pytest.raises(PlatformError, match=r"shop/items has no quarantine\. Tables with one: shop/orders"):
        require_quarantine(lake.connection, "shop", "items")
