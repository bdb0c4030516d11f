"""Which quarantine entries a later version of the row closes, and which it does not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import DAY, ON_SQLITE, TOLERANT, load, numbered, quarantined, stage, staged
from platform_tests.tables import Order, orders

from data_platform.contracts import Contract, Field, Instant
from data_platform.contracts.quarantine import Selection, close_entries, summary
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import ConcurrentStepError, commit
from data_platform.staging import step as step_module
from data_platform.staging.step import StagingRefusedError, replay

LATER, LATEST = "2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z"


def statuses(lake: Lakehouse) -> list[Any]:
    return quarantined(lake, "quarantine_id, status, resolved_at IS NULL")


def test_a_row_that_a_later_version_corrected_leaves_quarantine(lake: Lakehouse) -> None:
    load(lake, orders((1, "abc", "open", LATER), (2, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    assert quarantined(lake, "key, version") == [
        (["1"], "2020-01-02T00:00:00.000000Z"),
        (["2"], "2020-01-01T00:00:00.000000Z"),
    ]
    # An earlier version of a row corrects nothing, nor does another row.
    load(lake, numbered(1, 3))
    stage(lake, TOLERANT)
    assert statuses(lake) == [("1:0", "open", True), ("1:1", "open", True)]
    load(lake, numbered(1, at=LATEST))
    stage(lake, TOLERANT)
    assert statuses(lake) == [("1:0", "superseded", False), ("1:1", "open", True)]
    assert [one["rows"] for one in summary(lake.connection)] == [1]


@ON_SQLITE
def test_among_versions_that_are_equal_or_unknown_the_later_delivery_corrects(lake: Lakehouse) -> None:
    load(lake, orders((1, "abc", "open", DAY), (2, 1, "open", "soon"), (3, 1, "open", DAY), (3, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    load(lake, orders((1, 5, "open", DAY), (2, 5, "open", DAY)))
    stage(lake, TOLERANT)
    assert statuses(lake) == [("1:0", "superseded", False), ("1:1", "superseded", False), ("1:3", "open", True)]


@ON_SQLITE
def test_a_row_that_is_corrected_along_with_it_is_superseded_at_once(lake: Lakehouse) -> None:
    load(lake, orders((1, "abc", "open", DAY), (1, 5, "open", DAY), (None, 5, "open", DAY), (None, 5, "open", DAY)))
    stage(lake, TOLERANT)
    assert statuses(lake) == [("1:0", "superseded", False), ("1:2", "open", True), ("1:3", "open", True)]
    assert quarantined(lake, "key") == [(["1"],), (None,), (None,)]


@ON_SQLITE
def test_a_refused_step_corrects_nothing(lake: Lakehouse) -> None:
    load(lake, orders((1, "abc", "open", DAY), (1, 5, "open", DAY)))
    with pytest.raises(StagingRefusedError):
        stage(lake)
    assert statuses(lake) == [("1:0", "open", True)]


@ON_SQLITE
@pytest.mark.parametrize("late", [False, True], ids=["while rows are staged", "before the commit"])
@pytest.mark.parametrize("contract", ["Generous", "Order"])
def test_a_row_that_is_discarded_while_it_is_replayed_is_not_staged(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, late: bool, contract: str
) -> None:
    load(lake, orders((1, 5000, "open", DAY), (2, 1, "open", DAY), (3, 6000, "open", DAY)))
    stage(lake, TOLERANT)
    other = lake.duplicate()

    def discarding(raw: pl.LazyFrame) -> pl.LazyFrame:
        discard(other, "1:0")
        return raw

    def committing(to: Lakehouse, work: Callable[[Any], Any]) -> Any:
        discard(other, "1:0")
        return commit(to, work)

    recipe = replace(TOLERANT, contract=globals()[contract])
    if late:
        monkeypatch.setattr(step_module, "commit", committing)
    with pytest.raises(ConcurrentStepError, match=r"1 row of quarantine_shop\.orders .* left quarantine meanwhile"):
        replay(lake, recipe if late else replace(recipe, function=discarding), Selection(), run_id="r")
    assert staged(lake) == [(2, 1.0)]
    assert quarantined(lake) == [("1:0", "discarded"), ("1:2", "open")]
    monkeypatch.undo()
    replay(lake, replace(recipe, contract=Generous), Selection(), run_id="r")
    assert staged(lake) == [(2, 1.0), (3, 6000.0)]
    assert quarantined(lake) == [("1:0", "discarded"), ("1:2", "replayed")]


@ON_SQLITE
def test_a_row_that_is_discarded_while_a_later_version_is_staged_stays_discarded(lake: Lakehouse) -> None:
    load(lake, orders((1, 5000, "open", DAY)))
    stage(lake, TOLERANT)
    load(lake, numbered(1, amount=7, at=LATEST))
    other = lake.duplicate()

    def discarding(raw: pl.LazyFrame) -> pl.LazyFrame:
        discard(other, "1:0")
        return raw

    stage(lake, replace(TOLERANT, function=discarding))
    assert staged(lake) == [(1, 7.0)]
    assert quarantined(lake) == [("1:0", "discarded")]


@ON_SQLITE
def test_a_row_that_was_replayed_is_not_discarded_after_it(lake: Lakehouse) -> None:
    load(lake, orders((1, 5000, "open", DAY), (2, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    replay(lake, replace(TOLERANT, contract=Generous), Selection(), run_id="r")
    assert discard(lake) == 1
    assert quarantined(lake) == [("1:0", "replayed"), ("1:1", "discarded")]
    assert staged(lake) == [(1, 5000.0)]


def discard(lake: Lakehouse, *ids: str) -> int:
    at = datetime.now(UTC)
    return commit(lake, lambda c: close_entries(c, TOLERANT.quarantine, "discarded", at, Selection(ids)))


@ON_SQLITE
def test_order_of_delivery_decides_where_nothing_else_does(lake: Lakehouse) -> None:
    plain = replace(TOLERANT, newest_by=None)
    load(lake, orders((1, "abc", "open", LATER)))
    stage(lake, plain)
    assert quarantined(lake, "key, version") == [(["1"], None)]
    load(lake, numbered(1))
    stage(lake, plain)
    assert statuses(lake) == [("1:0", "superseded", False)]


@ON_SQLITE
def test_raw_columns_may_be_called_as_quarantine_s_own(lake: Lakehouse) -> None:
    rows = orders((1, "abc", "open", DAY))
    for name in ("key", "version", "reasons", "n", "e", "closed"):
        rows = rows.append_column(name, pa.array([7]))
    load(lake, rows)
    stage(lake, TOLERANT)
    ((key, record),) = quarantined(lake, "key, record")
    assert key == ["1"]
    assert '"reasons":7' in record


def test_a_quarantine_of_an_earlier_release_gains_its_columns(lake: Lakehouse) -> None:
    load(lake, orders((1, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    for column in ("key", "version"):
        lake.connection.execute(f"ALTER TABLE quarantine_shop.orders DROP COLUMN {column}")
    load(lake, orders((2, "abc", "open", DAY)))
    stage(lake, TOLERANT)
    assert quarantined(lake, "quarantine_id, key") == [("1:0", None), ("2:0", ["2"])]


@ON_SQLITE
def test_rows_of_an_earlier_release_s_quarantine_that_pass_now_are_closed(lake: Lakehouse) -> None:
    load(lake, orders((1, 1001, "open", DAY)))
    stage(lake, TOLERANT)
    for column in ("key", "version"):
        lake.connection.execute(f"ALTER TABLE quarantine_shop.orders DROP COLUMN {column}")
    stage(lake, replace(TOLERANT, contract=Generous), rebuild=True)
    assert statuses(lake) == [("1:0", "replayed", False)]


class Generous(Order):
    """An order of any amount."""

    amount: float = Field(ge=0)


class Sighting(Contract):
    """A row whose key has a column of every kind that a key may have."""

    at: Instant = Field()
    day: date = Field()
    place: str = Field()
    number: int = Field()
    inside: bool = Field()
    seen: int = Field(ge=0)


@ON_SQLITE
def test_a_key_of_any_type_is_found_again(lake: Lakehouse) -> None:
    keys = ("at", "day", "place", "number", "inside")
    recipe = replace(TOLERANT, contract=Sighting, key=keys, newest_by=None)
    one = {
        "at": "2013-03-10T07:30:00.123456+01:00",
        "day": "2013-03-10",
        "place": 'Zürich\'s "old" [town], {1}',
        "number": "-12",
        "inside": "true",
    }

    def seen(times: str, **other: str) -> pa.Table:
        return pa.table({name: [value] for name, value in {**one, "seen": times, **other}.items()})

    load(lake, seen("-1"))
    stage(lake, recipe)
    for name, value in (("at", "2013-03-10T07:30:00.123457+01:00"), ("place", "Zürich"), ("number", "12")):
        load(lake, seen("1", **{name: value}))
        stage(lake, recipe)
    assert statuses(lake) == [("1:0", "open", True)]
    load(lake, seen("1"))
    stage(lake, recipe)
    assert statuses(lake) == [("1:0", "superseded", False)]
