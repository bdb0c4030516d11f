"""What becomes of rows between the source and the raw table, whatever the source does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.landing import (
    DAY,
    ON_SQLITE,
    additions,
    data_files,
    known_files,
    load,
    numbered,
    position,
    rows,
)
from platform_tests.tables import TABLE, MemoryReading, MemorySource, batch_of, orders, rejects

from data_platform.contracts.quarantine import summary
from data_platform.errors import PlatformError
from data_platform.ingestion import landing as landing_module
from data_platform.ingestion import load as load_module
from data_platform.ingestion import rejects as rejects_module
from data_platform.ingestion.load import LoadRefusedError, load_table
from data_platform.ingestion.source import Batch, Budget, Overlap, Position
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import column_types, raw_table
from data_platform.lakehouse.transaction import CommitError, ConcurrentStepError, commit, write_file


def test_a_load_lands_rows_position_and_figures_together(lake: Lakehouse) -> None:
    result = load(lake, additions(1, 2, 3, upto="3"))
    assert (result.loads, result.rows_read, result.rows_landed, result.position) == ((1,), 3, 3, {"cursor": "3"})
    assert result.bytes > 0
    assert rows(lake, "order_id, _load_id, _row") == [("1", 1, 0), ("2", 1, 1), ("3", 1, 2)]
    ledger = rows(lake, "load_id, kind, status, rows_read, rows_landed, run_id", "platform.loads")
    assert ledger == [(1, "rows", "landed", 3, 3, "run-1")]


@ON_SQLITE
def test_chunks_of_one_load_follow_each_other_in_time(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    load(lake, MemorySource([batch_of(numbered(n), {"cursor": str(n)}) for n in (1, 2, 3)]))
    times = rows(lake, "started_at, ended_at", "platform.loads")
    assert len(times) == 3
    assert [started for started, _ in times[1:]] == [ended for _, ended in times[:-1]]
    assert all(started < ended for started, ended in times)
    assert rows(lake, "_loaded_at", "raw_shop.orders") == [started for started, _ in times]


@ON_SQLITE
def test_the_next_load_starts_where_the_last_one_ended(lake: Lakehouse) -> None:
    load(lake, additions(1, upto="1"))
    source = additions(2, upto="2")
    load(lake, source)
    assert source.asked == [{"cursor": "1"}]
    assert rows(lake) == ["1", "2"]
    assert position(lake) == {"cursor": "2"}


def test_a_batch_moves_only_the_partitions_that_it_names(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(1), {"a": "1"}), batch_of(numbered(2), {"b": "1"})]))
    load(lake, MemorySource([batch_of(numbered(3), {"b": "2"})]))
    assert position(lake) == {"a": "1", "b": "2"}


@ON_SQLITE
def test_nothing_new_is_no_step_at_all(lake: Lakehouse) -> None:
    load(lake, additions(1, upto="1"))
    result = load(lake, MemorySource([batch_of(numbered(), {"cursor": "1"})]))
    assert (result.loads, result.rows_read, result.position) == ((), 0, {"cursor": "1"})
    assert load(lake, MemorySource([])).loads == ()
    assert len(rows(lake, "load_id", "platform.loads")) == 1


@ON_SQLITE
def test_a_position_can_move_without_rows(lake: Lakehouse) -> None:
    load(lake, additions(1, upto="1"))
    assert load(lake, MemorySource([batch_of(numbered(), {"cursor": "5"})])).loads == (2,)
    assert position(lake) == {"cursor": "5"}


@ON_SQLITE
def test_a_table_without_rows_is_created_with_its_columns(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(), {"cursor": "0"})]))
    assert rows(lake) == []
    columns = column_types(lake.connection, raw_table("shop", "orders"))
    assert list(columns) == ["order_id", "amount", "status", "changed_at", "_load_id", "_loaded_at", "_row"]


def test_when_the_source_fails_midway_what_reached_a_position_lands_and_the_rest_is_dropped(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 2)
    batches = [batch_of(numbered(1), {"cursor": "1"}), batch_of(numbered(2, 3), None), batch_of(numbered(4), None)]
    with pytest.raises(PlatformError, match="the line went dead"):
        load(lake, MemorySource(batches, fails=PlatformError("the line went dead")))
    assert rows(lake) == ["1"]
    assert position(lake) == {"cursor": "1"}
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
@pytest.mark.parametrize("failing", range(1, 5))
@pytest.mark.parametrize("lasts", [1, 99])
def test_rows_that_could_not_be_written_are_never_said_to_have_landed(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, failing: int, lasts: int
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 8)
    written, write = 0, write_file

    def full(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if failing <= written < failing + lasts:
            raise PlatformError("the disk is full")
        return write(*arguments)

    monkeypatch.setattr(landing_module, "write_file", full)
    batches = [batch_of(numbered(2 * n, 2 * n + 1), None if n % 3 == 2 else {"cursor": str(n)}) for n in range(6)]
    with pytest.raises(PlatformError, match="the disk is full"):
        load(lake, MemorySource([*batches, batch_of(numbered(99), {"cursor": "6"})]))
    upto = int(position(lake).get("cursor", "-1"))
    assert [row for (row,) in landed(lake)] == sorted(str(row) for row in range(2 * (upto + 1)))
    assert sum(rows(lake, "rows_landed", "platform.loads")) == 2 * (upto + 1)
    assert data_files(settings) == known_files(lake)


def landed(lake: Lakehouse) -> list[tuple[str]]:
    raw = raw_table("shop", "orders")
    if not column_types(lake.connection, raw):
        return []
    return lake.connection.execute(f"SELECT order_id FROM {raw.sql} ORDER BY ALL").fetchall()


@ON_SQLITE
def test_records_that_could_not_be_written_to_quarantine_are_never_said_to_be_there(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [rejects((f"file {n}", 1, "x", "no row")) for n in range(3)]
    # What is ready is written when the third batch comes.
    monkeypatch.setattr(landing_module, "SPILL_BYTES", bad[0].nbytes + 1)
    failed: list[str] = []
    write = rejects_module.Rejects._written

    def full(self: rejects_module.Rejects, records: list[pa.Table]) -> Any:
        if not failed:
            failed.append("once")
            raise PlatformError("the disk is full")
        return write(self, records)

    monkeypatch.setattr(rejects_module.Rejects, "_written", full)
    batches = [batch_of(numbered(*range(n * 100, n * 100 + 100)), {"cursor": str(n)}, bad[n]) for n in range(3)]
    with pytest.raises(PlatformError, match="the disk is full"):
        load(lake, MemorySource(batches))
    assert (failed, position(lake)) == (["once"], {"cursor": "1"})
    assert rows(lake, "file", "quarantine_shop.orders") == ["file 0", "file 1"]
    assert rows(lake, "rows_quarantined", "platform.loads") == [2]


@ON_SQLITE
def test_a_bug_in_a_source_lands_nothing_and_leaves_no_file(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    with pytest.raises(ZeroDivisionError):
        load(lake, MemorySource([batch_of(numbered(1), None)], fails=ZeroDivisionError("bug")))
    assert data_files(settings) == known_files(lake)
    assert position(lake) == {}


@ON_SQLITE
def test_a_long_load_commits_on_its_way_and_resumes_where_it_died(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 2)
    batches = [batch_of(numbered(n), {"cursor": str(n)}) for n in range(1, 6)]
    with pytest.raises(ZeroDivisionError):
        load(lake, MemorySource(batches, fails=ZeroDivisionError("bug")))
    assert (rows(lake), position(lake)) == (["1", "2", "3", "4"], {"cursor": "4"})
    assert load(lake, additions(5, 6, upto="6")).loads == (3,)
    assert rows(lake, "order_id, _load_id, _row") == [
        ("1", 1, 0),
        ("2", 1, 1),
        ("3", 2, 0),
        ("4", 2, 1),
        ("5", 3, 0),
        ("6", 3, 1),
    ]


@ON_SQLITE
def test_records_that_cannot_be_read_are_quarantined_with_file_line_and_reason(lake: Lakehouse) -> None:
    bad = rejects(("a.csv", 7, "x;y;z", "3 fields where 2 are expected"))
    result = load(lake, MemorySource([batch_of(numbered(*range(50)), {"a.csv": "1"}, bad)]))
    assert (result.rows_read, result.rows_landed, result.rows_quarantined) == (51, 50, 1)
    columns = 'layer, file, line, record, reasons[1]."check", status, run_id'
    assert rows(lake, columns, "quarantine_shop.orders") == [
        ("raw", "a.csv", 7, "x;y;z", "3 fields where 2 are expected", "open", "run-1")
    ]


def test_too_many_unreadable_records_refuse_the_load_and_are_all_kept(lake: Lakehouse, settings: Settings) -> None:
    load(lake, additions(1, upto="1"))
    bad = rejects(*(("a.csv", line, "junk", "no") for line in range(10)))
    source = MemorySource([batch_of(numbered(*range(2, 12)), {"cursor": "2"}, bad)])
    for _ in range(2):
        with pytest.raises(LoadRefusedError, match=r"10 of 20 records could not be read, more than the 5% that"):
            load(lake, source)
    assert (rows(lake), position(lake)) == (["1"], {"cursor": "1"})
    assert [(entry["rows"], entry["check"]) for entry in summary(lake.connection)] == [(10, "no")]
    refused = rows(lake, "load_id, status, rows_landed, rows_quarantined, bytes", "platform.loads")[1:]
    assert refused == [(2, "refused", 0, 10, 0), (3, "refused", 0, 10, 0)]
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_records_without_a_place_are_each_kept(lake: Lakehouse) -> None:
    none: Any = None
    bad = rejects((none, none, "one", "no"), (none, none, "two", "no"))
    table = TABLE.model_copy(update={"refuse_above": 1.0})
    load(lake, MemorySource([batch_of(numbered(1), {"page": "1"}, bad)]), table)
    assert rows(lake, "record", "quarantine_shop.orders") == ["one", "two"]


def test_rows_that_are_delivered_again_are_dropped_if_they_are_what_landed_last_of_their_key(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(orders((1, 1, "open", DAY), (2, 2, "open", None)), {"cursor": DAY})]))
    again = orders((1, 1, "open", DAY), (2, 2, "open", None), (3, 3, "open", DAY))
    overlap = Overlap("changed_at", DAY)
    result = load(lake, MemorySource([batch_of(again, {"cursor": "2020-01-02"})], again=overlap))
    assert (result.rows_read, result.rows_landed, result.rows_repeated) == (3, 1, 2)
    assert rows(lake, "order_id, amount") == [("1", "1"), ("2", "2"), ("3", "3")]


@ON_SQLITE
def test_when_all_rows_were_there_already_the_position_still_moves(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(1), {"cursor": DAY})]))
    again = MemorySource([batch_of(numbered(1), {"cursor": "x"})], again=Overlap("changed_at", DAY))
    assert load(lake, again).rows_repeated == 1
    assert (rows(lake), position(lake)) == (["1"], {"cursor": "x"})


def test_two_loads_from_the_same_position_land_once(lake: Lakehouse, settings: Settings) -> None:
    load(lake, additions(1, upto="1"))

    class Slow(MemorySource):
        @contextmanager
        def reading(self, tables: Sequence[str], after: Position) -> Iterator[MemoryReading]:
            load(lake.duplicate(), additions(2, upto="2"))
            with super().reading(tables, after) as reading:
                yield reading

    with pytest.raises(ConcurrentStepError, match="stands at step 2, this run started from 1"):
        load(lake, Slow([batch_of(numbered(2), {"cursor": "2"})]))
    assert rows(lake) == ["1", "2"]
    assert rows(lake, "load_id", "platform.loads") == [1, 2]
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_progress_tells_the_rows_read_so_far(lake: Lakehouse) -> None:
    told: list[int] = []
    batches = [batch_of(numbered(1, 2), {"cursor": "2"}), batch_of(numbered(3), {"cursor": "3"})]
    load(lake, MemorySource(batches), progress=told.append)
    assert told == [2, 3]


def test_names_and_values_full_of_quotes_go_through(lake: Lakehouse) -> None:
    odd = pa.table({'a"b; DROP TABLE x': ["it's"], "select": ['"']})
    result = load_table(lake, "o'd\"d", MemorySource([batch_of(odd, {"p'q": "r's"})]), "t'\"", TABLE, run_id="r'1")
    assert result.rows_landed == 1
    assert lake.connection.execute("""SELECT * EXCLUDE (_loaded_at) FROM "raw_o'd""d"."t'""\" """).fetchall() == [
        ("it's", '"', 1, 0)
    ]


@ON_SQLITE
def test_a_load_commits_by_time_and_by_entries_of_the_position_too(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [batch_of(numbered(n), {f"f{n}": "1"}) for n in range(6)]
    with monkeypatch.context() as patch:
        patch.setattr(load_module, "CHUNK_ENTRIES", 2)
        assert len(load(lake, MemorySource(batches)).loads) == 3
    monkeypatch.setattr(load_module, "CHUNK_SECONDS", 0.0)
    batches = [batch_of(numbered(n), {f"g{n}": "1"}) for n in range(3)]
    assert len(load(lake, MemorySource(batches)).loads) == 3


@ON_SQLITE
@pytest.mark.parametrize("budget", [Budget(rows=2), Budget(bytes=1), Budget(time=timedelta(0))])
def test_a_budget_ends_a_load_at_a_position_and_the_next_goes_on(lake: Lakehouse, budget: Budget) -> None:
    batches = [batch_of(numbered(1), None), batch_of(numbered(2), {"at": "1"}), batch_of(numbered(3), {"at": "2"})]
    assert load(lake, MemorySource(batches), budget=budget).position == {"at": "1"}
    assert rows(lake) == ["1", "2"]


@ON_SQLITE
def test_entries_of_a_position_are_forgotten_when_the_source_says_so(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(1), {"a": "1", "b": "1"})]))
    load(lake, MemorySource([Batch("orders", pa.table({}), "rows", {}, forget=["a"])]))
    assert position(lake) == {"b": "1"}


@ON_SQLITE
def test_a_refused_load_keeps_a_sample_of_each_reason_and_names_the_commonest(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects_module, "SPILL_BYTES", 10_000)
    many = [("a.csv", line, f"junk {line}", f"{line} fields instead of 2") for line in range(500)]
    few = [("a.csv", 1000 + line, "\\xff", "not utf-8") for line in range(7)]
    with pytest.raises(LoadRefusedError) as refused:
        load(lake, MemorySource([batch_of(numbered(1), {"a.csv": "1"}, rejects(*many, *few))]))
    assert "507 of 508 records could not be read" in str(refused.value)
    assert "(500, such as a.csv:0: 'junk 0'); not utf-8 (7, such as a.csv:1000:" in str(refused.value)
    kept = rows(lake, "file, line", "quarantine_shop.orders")
    assert len(kept) == 100 + 7
    assert rows(lake, "rows_quarantined", "platform.loads") == [507]
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_a_hopeless_file_is_refused_before_its_end_and_what_came_before_it_lands(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "HOPELESS_RECORDS", 50)
    junk = rejects(*(("b.csv", line, "junk", "no") for line in range(60)))
    read: list[int] = []
    batches = [batch_of(numbered(1), {"a.csv": "1"}), *(batch_of(numbered(), None, junk) for _ in range(30))]
    with pytest.raises(LoadRefusedError, match="60 of 60 records could not be read"):
        load(lake, MemorySource(batches), progress=read.append)
    assert rows(lake) == ["1"]
    assert position(lake) == {"a.csv": "1"}
    assert rows(lake, "load_id, status", "platform.loads") == [(1, "landed"), (2, "refused")]
    assert max(read) < 30 * 60
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_rejects_within_tolerance_are_all_kept_however_many_files_they_take(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects_module, "SPILL_BYTES", 100)
    none: Any = None
    table = TABLE.model_copy(update={"refuse_above": 0.9})
    batches = [
        batch_of(numbered(n), {"at": str(n)}, rejects(("a.csv", n, "junk", "no"), (none, none, f"x{n}", "no")))
        for n in range(20)
    ]
    result = load(lake, MemorySource(batches), table)
    assert (result.rows_landed, result.rows_quarantined) == (20, 40)
    assert len(rows(lake, "quarantine_id", "quarantine_shop.orders")) == 40


@pytest.mark.parametrize("failure", [CommitError("no answer"), KeyboardInterrupt()], ids=["no answer", "interrupted"])
def test_the_rows_of_a_commit_that_took_place_unheard_are_there_and_landed_once(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def unheard(*arguments: object, **options: object) -> None:
        commit(*arguments, **options)  # type: ignore[arg-type]
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("data_platform.ingestion.commit.commit", unheard)
        with pytest.raises(type(failure)):
            load(lake, additions(1, 2, upto="2"))
    assert rows(lake) == ["1", "2"]
    load(lake, additions(2, 3, upto="3"))
    assert sorted(set(rows(lake))) == ["1", "2", "3"]


class InterruptedAfter:
    """A connection on which DuckDB is interrupted once a statement is done, as by Ctrl-C."""

    def __init__(self, connection: Any, part: str) -> None:
        self._connection, self._part = connection, part

    def execute(self, statement: str, *arguments: Any) -> Any:
        done = self._connection.execute(statement, *arguments)
        if self._part in statement:
            raise RuntimeError("Query interrupted") from KeyboardInterrupt()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize(("part", "landed"), [("COMMIT", ["1", "2"]), ("ducklake_add_data_files", [])])
def test_what_duckdb_raises_when_it_is_interrupted_is_an_interruption_and_takes_no_committed_file_away(
    lake: Lakehouse, part: str, landed: list[str]
) -> None:
    load(lake, additions(0, upto="0"))
    interrupted: Any = InterruptedAfter(lake.connection, part)
    with pytest.raises(KeyboardInterrupt):
        load(replace(lake, connection=interrupted), additions(1, 2, upto="2"))
    assert rows(lake) == ["0", *landed]
    assert known_files(lake) <= data_files(lake.settings)
    load(lake, additions(3, upto="3"))
    assert rows(lake) == ["0", *landed, "3"]
