"""How far each table was loaded and staged, and that two steps from one position do not both commit."""

import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial

import pytest
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import ConcurrentStepError, commit

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def advance(
    lake: Lakehouse, head: ledger.Head, position: Mapping[str, str], forget: Collection[str] = ()
) -> ledger.Head:
    return commit(lake, partial(ledger.advance, head=head, position=position, at=NOW, forget=forget))


def read(lake: Lakehouse, table: str = "orders", layer: str = "raw") -> ledger.Head:
    return ledger.head(lake, layer, "shop", table)


def test_a_head_counts_steps_and_keeps_what_a_step_does_not_name(lake: Lakehouse) -> None:
    head = read(lake)
    assert (head.number, head.position) == (0, {})
    for position in ({"a": "1", "b": "1"}, {"b": "2"}, {}):
        head = advance(lake, head, position)
    assert head == read(lake)
    assert (head.number, head.position) == (3, {"a": "1", "b": "2"})
    assert (read(lake, layer="staged").number, read(lake, "refunds").number) == (0, 0)


def test_what_is_read_at_one_moment_is_of_that_moment_and_of_a_ledger_that_is_made_if_need_be(lake: Lakehouse) -> None:
    with ledger.reading(lake) as at_once:
        start = read(at_once)
    assert ledger.exists(lake)
    first = advance(lake, start, {"a": "1"})
    other = lake.duplicate()
    with ledger.reading(lake) as at_once:
        assert read(at_once) == first
        second = advance(other, first, {"a": "2"})
        assert read(at_once) == first
        assert ledger.recent_loads(at_once, "shop", "orders", 1) == []
    assert read(lake) == second
    with pytest.raises(ConcurrentStepError, match="stands at step 2, this run started from 1"):
        advance(lake, first, {"a": "3"})


def test_a_newer_ledger_is_not_read_and_the_transaction_is_over(lake: Lakehouse) -> None:
    ledger.ensure_ledger(lake)
    lake.connection.execute("INSERT INTO lake.platform.schema_version VALUES (99, now())")
    with pytest.raises(PlatformError, match="newer release: its ledger has version 99"), ledger.reading(lake):
        raise AssertionError("not reached")
    with lake.reading():
        assert lake.connection.execute("SELECT max(version) FROM lake.platform.schema_version").fetchall() == [(99,)]


def test_of_two_steps_from_one_position_the_second_is_refused_and_changes_nothing(lake: Lakehouse) -> None:
    start = read(lake)
    first = advance(lake, start, {"a": "1"})
    with pytest.raises(ConcurrentStepError, match=r"raw shop/orders stands at step 1, this run started from 0"):
        advance(lake, start, {"a": "2"})
    advance(lake, first, {"a": "3"})
    with pytest.raises(ConcurrentStepError, match=r"stands at step 2, this run started from 1"):
        advance(lake, first, {"a": "4", "b": "1"}, forget=["a"])
    assert (read(lake).number, read(lake).position) == (2, {"a": "3"})


def test_what_is_forgotten_is_gone_and_what_is_unknown_is_no_mistake(lake: Lakehouse) -> None:
    head = advance(lake, read(lake), {"a.csv": "1", "b.csv": "1", "c.csv": "1"})
    head = advance(lake, head, {"c.csv": "2"}, forget=["a.csv", "never.csv", "c.csv"])
    assert head.position == {"b.csv": "1", "c.csv": "2"}
    assert head == read(lake)


@ON_SQLITE
def test_partitions_of_any_name_are_kept_apart(lake: Lakehouse) -> None:
    names = ["#step", "", 'it\'s "quoted"', "日本", "#sha256", "a", "A"]
    head = advance(lake, read(lake), {name: str(number) for number, name in enumerate(names)})
    assert read(lake).position == {name: str(number) for number, name in enumerate(names)}
    head = advance(lake, head, {"#step": "x", "a": "y"})
    assert read(lake) == head
    assert (head.position["a"], head.position["A"], head.position[""]) == ("y", "6", "1")


@ON_SQLITE
def test_a_hundred_thousand_files_are_a_position_like_any_other(lake: Lakehouse) -> None:
    files = {f"folder/{number}.csv": f"1:{number}:{number:064x}" for number in range(100_000)}
    began = time.monotonic()
    head = advance(lake, read(lake), files)
    head = advance(lake, head, {"folder/new.csv": "1:1:1", "folder/7.csv": "2:2:2"})
    assert read(lake) == head
    # A second here; bound as lists the entries took half a minute.
    assert time.monotonic() - began < 15
    assert len(head.position) == 100_001
