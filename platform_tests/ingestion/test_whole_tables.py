"""Whole tables and full refreshes: they land whole or not at all, and replace what came before them."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.landing import (
    ON_SQLITE,
    additions,
    data_files,
    known_files,
    load,
    numbered,
    position,
    rows,
    snapshot,
)
from platform_tests.tables import MemorySource, batch_of, rejects

from data_platform.errors import PlatformError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.load import LoadRefusedError
from data_platform.ingestion.source import DIGEST, HINT, Batch, Budget
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings


@ON_SQLITE
def test_when_a_full_refresh_fails_midway_nothing_lands(lake: Lakehouse, settings: Settings) -> None:
    load(lake, snapshot(1, 2, version="a"))
    source = MemorySource([batch_of(numbered(3), None)], whole=True, fails=PlatformError("timeout"))
    with pytest.raises(PlatformError, match="timeout"):
        load(lake, source)
    assert rows(lake) == ["1", "2"]
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_a_full_refresh_closes_what_could_not_be_read_of_the_one_before(lake: Lakehouse) -> None:
    def whole(number: int, *lines: int) -> MemorySource:
        bad = rejects(*(("a.csv", line, f"junk {number}", "no") for line in lines))
        return MemorySource([batch_of(numbered(*range(50)), {DIGEST: str(number)}, bad)], whole=True)

    def statuses() -> list[Any]:
        return rows(lake, "load_id, line, status, resolved_at IS NULL", "quarantine_shop.orders")

    load(lake, whole(1, 7, 8))
    load(lake, whole(2, 9))
    assert statuses() == [(1, 7, "superseded", False), (1, 8, "superseded", False), (2, 9, "open", True)]
    # One that is refused replaces nothing.
    with pytest.raises(LoadRefusedError):
        load(lake, whole(3, *range(10, 30)))
    assert (2, 9, "open", True) in statuses()
    load(lake, whole(4))
    assert [status for _, _, status, _ in statuses()] == ["superseded"] * len(statuses())


@ON_SQLITE
def test_a_refused_full_refresh_is_refused_once(lake: Lakehouse) -> None:
    bad = rejects(("a.csv", 1, "junk", "no"))
    with pytest.raises(LoadRefusedError):
        load(lake, MemorySource([batch_of(numbered(1), {"version": "a"}, bad)], whole=True))
    assert rows(lake, "status", "platform.loads") == ["refused"]


def test_a_full_refresh_that_shrank_too_much_is_refused_until_it_is_forced(lake: Lakehouse, settings: Settings) -> None:
    load(lake, snapshot(*range(10), version="a"))
    with pytest.raises(LoadRefusedError, match=r"4 rows where the last one held 10: less than the 50%.*--full-refresh"):
        load(lake, snapshot(*range(4), version="b"))
    assert position(lake) == {"version": "a"}
    assert data_files(settings) == known_files(lake)
    assert load(lake, snapshot(*range(4), version="b"), full_refresh=True).rows_landed == 4
    assert load(lake, snapshot(*range(2), version="c")).rows_landed == 2


@ON_SQLITE
def test_an_empty_full_refresh_is_refused_and_can_be_forced(lake: Lakehouse) -> None:
    load(lake, snapshot(1, version="a"))
    with pytest.raises(LoadRefusedError, match="0 rows where the last one held 1"):
        load(lake, snapshot(version="b"))
    assert load(lake, snapshot(version="b"), full_refresh=True).loads == (3,)


def test_an_unchanged_full_refresh_lands_nothing(lake: Lakehouse, settings: Settings) -> None:
    load(lake, snapshot(1, 2, version="a"))
    result = load(lake, snapshot(1, 2, version="a"))
    assert (result.loads, result.rows_landed) == ((), 0)
    assert rows(lake) == ["1", "2"]
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
def test_a_forced_refresh_reads_from_the_beginning_and_counts_as_the_whole_table(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 2)
    load(lake, additions(1, upto="1"))
    source = MemorySource([batch_of(numbered(n), {"cursor": str(n)}) for n in range(1, 8)])
    result = load(lake, source, full_refresh=True)
    assert source.asked == [{}]
    assert (result.loads, result.rows_landed) == ((2,), 7)
    assert rows(lake, "kind, rows_landed", "platform.loads") == [("rows", 1), ("whole", 7)]


@ON_SQLITE
def test_a_forced_refresh_that_fails_midway_changes_nothing(lake: Lakehouse, settings: Settings) -> None:
    load(lake, additions(1, upto="1"))
    failing = MemorySource([batch_of(numbered(1), {"cursor": "0"})], fails=PlatformError("gone"))
    with pytest.raises(PlatformError, match="gone"):
        load(lake, failing, full_refresh=True)
    assert (rows(lake), position(lake)) == (["1"], {"cursor": "1"})
    assert data_files(settings) == known_files(lake)


@ON_SQLITE
@pytest.mark.parametrize("budget", [Budget(rows=1), Budget(bytes=1), Budget(time=timedelta(0))])
def test_a_full_refresh_is_read_to_its_end_whatever_the_budget(lake: Lakehouse, budget: Budget) -> None:
    batches = [batch_of(numbered(n), {"at": str(n)}) for n in (1, 2, 3)]
    assert load(lake, MemorySource(batches), budget=budget, full_refresh=True).rows_landed == 3
    assert rows(lake, "kind, rows_landed", "platform.loads") == [("whole", 3)]


@ON_SQLITE
def test_a_full_refresh_forgets_what_it_did_not_reach_again(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(1), {"a.csv": "1", "b.csv": "1"})]))
    load(lake, MemorySource([batch_of(numbered(1), {"b.csv": "1"})]), full_refresh=True)
    assert position(lake) == {"b.csv": "1"}


@ON_SQLITE
def test_a_whole_table_is_not_taken_for_unchanged_if_rows_came_to_it_meanwhile(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(numbered(1, 2), {DIGEST: "d"})], whole=True))
    load(lake, MemorySource([batch_of(numbered(3), {"cursor": "3"})]))
    assert load(lake, MemorySource([batch_of(numbered(1, 2), {DIGEST: "d"})], whole=True)).rows_landed == 2
    assert rows(lake, "kind", "platform.loads") == ["rows", "whole", "whole"]


NOTHING = pa.table({})


@ON_SQLITE
@pytest.mark.parametrize(
    "batches",
    [
        [batch_of(numbered(3), None, kind="whole"), batch_of(numbered(4), {"at": "9"})],
        [batch_of(numbered(3), None, kind="whole"), batch_of(NOTHING, {"at": "9"})],
        [batch_of(numbered(3), None, kind="whole"), batch_of(NOTHING, {"at": "9"}, kind="changes")],
        [batch_of(numbered(3), None, kind="whole"), batch_of(NOTHING, None), batch_of(NOTHING, {"at": "9"})],
        [batch_of(NOTHING, None, kind="whole"), batch_of(numbered(3), {"at": "9"})],
    ],
)
def test_a_whole_table_stays_one_whatever_follows_it_before_a_position(lake: Lakehouse, batches: list[Batch]) -> None:
    load(lake, additions(1, 2, upto="1"))
    load(lake, MemorySource(batches))
    assert rows(lake, "load_id, kind", "platform.loads") == [(1, "rows"), (2, "whole")]


@ON_SQLITE
def test_a_whole_table_of_the_same_content_lands_nothing_though_its_position_moves(lake: Lakehouse) -> None:
    def whole(hint: str, *numbers: int) -> MemorySource:
        return MemorySource([batch_of(numbered(*numbers), {DIGEST: str(numbers), HINT: hint})], whole=True)

    load(lake, whole("a", 1, 2))
    result = load(lake, whole("b", 1, 2))
    assert (result.rows_read, result.rows_landed, result.rows_repeated) == (2, 0, 2)
    assert position(lake) == {DIGEST: "(1, 2)", HINT: "b"}
    assert rows(lake, "load_id, kind, rows_landed", "platform.loads") == [(1, "whole", 2), (2, "rows", 0)]
    assert load(lake, whole("c", 3, 4)).rows_landed == 2
