"""What becomes of the versions of a table when its contract, key, order or types change, when a full refresh has a key
twice, and when raw rows are staged again."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import ON_SQLITE, load, query, stage
from platform_tests.staging.test_changes import ITEMS, Anything, apply, changes, delete, insert, truncate, update
from platform_tests.tables import orders

from data_platform.contracts import Contract, Field, Instant
from data_platform.contracts.audit import ContractError
from data_platform.contracts.quarantine import Selection
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay


class Thing(Contract):
    id: int
    value: float


class WholeThing(Thing):
    value: int


class NotedThing(Thing):
    note: str = Field(nullable=True)


class BareThing(Contract):
    id: int


class SecretThing(Contract):
    id: int
    value: int = Field(private=True)


class DatedThing(Thing):
    changed: Instant


THINGS = Recipe("shop", "things", ("id",), Thing, refuse_above=1.0, history=True)

Row = tuple[int, float] | tuple[int, float, Any]


def table(*rows: Row, of: pa.DataType | None = None) -> pa.Table:
    """Raw things: number, value and revision, which is of the type `of`, or text."""
    revisions = [row[2] if len(row) > 2 else None for row in rows]
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "value": pa.array([row[1] for row in rows], pa.float64()),
            "revision": pa.array(revisions, of or pa.string()),
            "changed": pa.array(["2020-01-01"] * len(rows)),
            "note": pa.array(["n"] * len(rows)),
        }
    )


def land(lake: Lakehouse, recipe: Recipe, *rows: Row, of: pa.DataType | None = None, whole: bool = False) -> None:
    load(lake, table(*rows, of=of), name=recipe.table, whole=whole)


def versions(lake: Lakehouse, recipe: Recipe, columns: str = "id, value, is_current") -> list[Any]:
    return query(lake, f"SELECT {columns} FROM {recipe.history_view.sql} ORDER BY ALL")


def current_is_staged(lake: Lakehouse, recipe: Recipe) -> bool:
    columns = ", ".join(column.name for column in recipe.columns)
    staged = query(lake, f"SELECT {columns} FROM {recipe.staged.sql} ORDER BY ALL")
    return query(lake, f"SELECT {columns} FROM {recipe.history_view.sql} WHERE is_current ORDER BY ALL") == staged


CONTRACTS = {"type": WholeThing, "column": NotedThing, "fewer": BareThing}


def outlives(lake: Lakehouse, change: str, how: str) -> None:
    recipe = replace(THINGS, table=f"{change}_{how}")
    for rows in ([(1, 1), (2, 2)], [(1, 1), (2, 3)]):
        land(lake, recipe, *rows, whole=True)
        stage(lake, recipe)
    before = [row[:2] for row in versions(lake, recipe)]
    later = replace(recipe, contract=CONTRACTS[change])
    if how == "refresh":
        land(lake, recipe, (1, 1), (2, 3), (4, 4), whole=True)
    stage(lake, later, rebuild=how == "rebuild")
    assert set(before) <= {row[:2] for row in versions(lake, later)}
    assert current_is_staged(lake, later)
    ended = [row for row in versions(lake, later) if not row[2]]
    # What was null before has a value now, so every row is another one; a type and a column less change none.
    assert ((1, 1, False) in ended and (2, 2, False) in ended) if change == "column" else ended == [(2, 2, False)]


def test_versions_outlive_a_change_of_type_by_a_full_refresh(lake: Lakehouse) -> None:
    outlives(lake, "type", "refresh")


@ON_SQLITE
def test_versions_outlive_every_change_of_the_contract_by_a_full_refresh_and_by_a_rebuild(lake: Lakehouse) -> None:
    for change, how in (("type", "rebuild"), ("column", "refresh"), ("column", "rebuild"), ("fewer", "refresh")):
        outlives(lake, change, how)
    # And back: the column that the contract had left out goes on where it was.
    recipe = replace(THINGS, table="fewer_refresh")
    land(lake, recipe, (1, 7), (2, 3), (4, 4), whole=True)
    stage(lake, recipe)
    assert versions(lake, recipe)[:2] == [(1, 1, False), (1, 7, True)]
    assert current_is_staged(lake, recipe)


@ON_SQLITE
def test_versions_that_the_new_type_does_not_hold_stop_the_step_and_stay(lake: Lakehouse) -> None:
    for value in (2.5, 2):
        land(lake, THINGS, (1, value), whole=True)
        stage(lake, THINGS)
    before = versions(lake, THINGS)
    land(lake, THINGS, (1, 3), whole=True)
    message = (
        r"WholeThing has another type than the versions in staged_shop\.things_versions, and 1 value of value "
        r"\(DOUBLE\) cannot be stored as BIGINT unchanged, such as '2\.5'\. Nothing was staged and every version is"
    )
    for options in ({}, {"rebuild": True}):
        with pytest.raises(ContractError, match=message):
            stage(lake, replace(THINGS, contract=WholeThing), **options)
    with pytest.raises(ContractError, match=r"unchanged\. Nothing was staged"):
        stage(lake, replace(THINGS, contract=SecretThing))
    assert versions(lake, THINGS) == before
    stage(lake, THINGS)
    assert versions(lake, THINGS) == [(1, 2.0, False), (1, 2.5, False), (1, 3.0, True)]
    # As the message says: the history begins anew with what raw still has.
    stage(lake, replace(THINGS, history=False), rebuild=True)
    stage(lake, replace(THINGS, contract=WholeThing), rebuild=True)
    assert versions(lake, THINGS) == [(1, 3, True)]


REVISIONS: dict[str, tuple[pa.DataType, pa.DataType, Callable[[int], Any]]] = {
    "decimal": (pa.decimal128(4, 2), pa.decimal128(14, 2), Decimal),
    "float": (pa.float32(), pa.float64(), lambda number: number + 0.1),
    "integer": (pa.int64(), pa.decimal128(21, 2), lambda number: number),
}


@ON_SQLITE
@pytest.mark.parametrize("kind", REVISIONS)
def test_the_order_of_versions_may_become_wider_in_the_source(lake: Lakehouse, kind: str) -> None:
    narrow, wide, at = REVISIONS[kind]
    for history in (False, True):
        recipe = replace(THINGS, table=f"things_{history}", newest_by="revision", history=history)
        land(lake, recipe, (1, 10, at(5)), (2, 20, at(5)), (3, 30, at(5)), of=narrow)
        stage(lake, recipe)
        # An older version, a newer one and a new row meet the rows that were staged with the narrower type.
        land(lake, recipe, (1, 9, at(4)), (2, 21, at(6)), (4, 40, at(1)), of=wide)
        result = stage(lake, recipe)
        assert (result.rows_inserted, result.rows_updated, result.rows_superseded) == (1, 1, 1)
        rows = query(lake, f"SELECT id, value FROM {recipe.staged.sql} ORDER BY ALL")
        assert rows == [(1, 10), (2, 21), (3, 30), (4, 40)]
        types = query(
            lake,
            f"SELECT DISTINCT typeof(_version), typeof(r.revision) FROM {recipe.staged.sql}, {recipe.raw.sql} AS r",
        )
        assert len(types) == 1
        assert types[0][0] == types[0][1]
        if history:
            assert current_is_staged(lake, recipe)
            assert len(versions(lake, recipe)) == 6


@ON_SQLITE
def test_a_wider_order_of_versions_keeps_those_of_earlier_full_refreshes(lake: Lakehouse) -> None:
    recipe = replace(THINGS, newest_by="revision")
    for value in (1, 2):
        land(lake, recipe, (1, value, Decimal(1)), (2, 1, Decimal(1)), of=pa.decimal128(4, 2), whole=True)
        stage(lake, recipe)
    before = versions(lake, recipe)
    land(lake, recipe, (1, 2, Decimal(1)), (2, 1, Decimal(1)), of=pa.decimal128(14, 2), whole=True)
    stage(lake, recipe)
    assert versions(lake, recipe) == before == [(1, 1, False), (1, 2, True), (2, 1, True)]


@ON_SQLITE
def test_an_order_that_cannot_be_compared_with_the_one_before_says_what_to_do(lake: Lakehouse) -> None:
    recipe = replace(THINGS, newest_by="revision")
    for value in (1, 2):
        land(lake, recipe, (1, value, value), of=pa.int64(), whole=True)
        stage(lake, recipe)
    dated = replace(recipe, newest_by="_loaded_at")
    land(lake, recipe, (1, 3, 3), of=pa.int64())
    with pytest.raises(ContractError, match=r"`newest_by` was revision, now it is _loaded_at.*--rebuild"):
        stage(lake, dated)
    with pytest.raises(ContractError, match=r"cannot be compared .* Give the contract a column _loaded_at"):
        stage(lake, dated, rebuild=True)
    assert versions(lake, recipe) == [(1, 1, False), (1, 2, True)]
    # With a column of the contract both orders have their place.
    named = replace(recipe, newest_by="changed", contract=DatedThing)
    stage(lake, named, rebuild=True)
    assert [row[1] for row in versions(lake, recipe)] == [1, 2, 3]
    assert current_is_staged(lake, named)


@ON_SQLITE
@pytest.mark.parametrize("newest_by", [None, "changed_at"])
def test_of_a_key_that_a_full_refresh_has_twice_the_staged_row_is_current(
    lake: Lakehouse, newest_by: str | None
) -> None:
    recipe = Recipe("shop", "orders", ("order_id",), OrderThing, newest_by=newest_by, refuse_above=1.0, history=True)
    twice = [(1, 1, "open", "2020-01-01"), (1, 2, "open", "2020-01-02")]
    for rows in (twice, twice, [*twice, (1, 3, "open", "2020-01-03")], twice):
        load(lake, orders(*rows), whole=True)
        stage(lake, recipe)
        assert current_is_staged(lake, recipe)
    found = query(lake, f"SELECT amount, _load_id FROM {recipe.versions.sql} ORDER BY _load_id, _row")
    # The same again adds nothing, one more is one; of what is older again all is new.
    assert found == [(1, 1), (2, 1), (3, 3), (1, 4), (2, 4)]


class OrderThing(Contract):
    order_id: int
    amount: float
    changed_at: Instant = Field(nullable=True)


KEYS: list[tuple[dict[str, Any], dict[str, Any], list[float]]] = [
    ({"key": ("id",)}, {"key": ("id", "value")}, [1, 2, 5]),
    ({"key": ("id", "value")}, {"key": ("id",)}, [2]),
    ({"newest_by": None}, {"newest_by": "value"}, [5]),
    ({"newest_by": "revision"}, {"newest_by": "value"}, [5]),
    ({"newest_by": "value"}, {"newest_by": None}, [2]),
]
"""What a recipe said, what it says then, and the values that are current by that."""


@ON_SQLITE
def test_a_rebuild_with_another_key_or_order_tells_the_versions_apart_by_it(lake: Lakehouse) -> None:
    for number, (before, after, shown) in enumerate(KEYS):
        recipe = replace(THINGS, table=f"things_{number}", **before)
        land(lake, recipe, (1, 5, 2), (1, 1, 3), (1, 2, 1), of=pa.int64(), whole=number == 0)
        stage(lake, recipe)
        assert current_is_staged(lake, recipe)
        changed = replace(recipe, **after)
        stage(lake, changed, rebuild=True)
        assert current_is_staged(lake, changed), (before, after)
        assert [row[1] for row in versions(lake, changed) if row[2]] == shown


@ON_SQLITE
def test_a_late_version_after_a_full_refresh_does_not_outlive_the_row_that_the_refresh_left_as_it_was(
    lake: Lakehouse,
) -> None:
    recipe = replace(THINGS, newest_by="revision")
    for _ in range(2):
        land(lake, recipe, (1, 10, 5), (2, 20, 5), of=pa.int64(), whole=True)
        stage(lake, recipe)
    assert len(versions(lake, recipe)) == 2
    for value in (8, 9):
        land(lake, recipe, (1, value, 4), of=pa.int64())
        stage(lake, recipe)
        assert current_is_staged(lake, recipe)
    for options in ({"rebuild": True}, {"loads": (2, 3)}, {"loads": (4, 4)}):
        stage(lake, recipe, **options)
        assert current_is_staged(lake, recipe)
        assert len([row for row in versions(lake, recipe) if row[0] == 2]) == 1
    # The same, with the late version in the step that stages the full refresh.
    land(lake, recipe, (1, 10, 5), (2, 20, 5), of=pa.int64(), whole=True)
    land(lake, recipe, (2, 19, 4), of=pa.int64())
    stage(lake, recipe)
    assert current_is_staged(lake, recipe)


@ON_SQLITE
def test_a_late_truncate_or_delete_after_a_full_copy_leaves_what_came_after_it(lake: Lakehouse) -> None:
    logged = replace(ITEMS, history=True)
    for _ in range(2):
        load(lake, changes(insert(1, 10, 20), insert(2, 20, 20), insert(3, 30, 10)), whole=True)
        stage(lake, logged)
    for late in (delete(2, 5), truncate(15), update(1, 9, 12), delete(3, 30)):
        apply(lake, late, recipe=logged)
        assert current_is_staged(lake, logged)
    assert query(lake, f"SELECT key, value FROM {logged.staged.sql} ORDER BY ALL") == [(1, 10), (2, 20)]
    stage(lake, logged, rebuild=True)
    assert current_is_staged(lake, logged)


class Line(Contract):
    order_id: int
    line: int = Field(ge=0)


class AnyLine(Line):
    line: int


def lines(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("lines").str.split(",").alias("line")).explode("line")


@ON_SQLITE
@pytest.mark.parametrize("whole", [False, True])
def test_what_passed_of_a_raw_row_has_one_version_when_the_rest_of_it_is_replayed(lake: Lakehouse, whole: bool) -> None:
    recipe = Recipe("shop", "orders", ("order_id", "line"), Line, lines, refuse_above=1.0, history=True)
    for _ in range(2 if whole else 1):
        load(lake, pa.table({"order_id": [1], "lines": ["1,-2,3"]}), whole=whole)
        stage(lake, recipe)
    for contract in (Line, AnyLine, AnyLine):
        replay(lake, replace(recipe, contract=contract), Selection(), run_id="r")
        assert current_is_staged(lake, recipe)
    assert query(lake, f"SELECT line FROM {recipe.versions.sql} ORDER BY ALL") == [(-2,), (1,), (3,)]


@ON_SQLITE
def test_of_several_rows_that_a_raw_row_gives_for_one_key_the_staged_one_is_a_version(lake: Lakehouse) -> None:
    recipe = Recipe("shop", "orders", ("order_id",), AnyLine, lines, refuse_above=1.0, history=True)
    for _ in range(2):
        load(lake, pa.table({"order_id": [1, 2], "lines": ["1,2,3", "7"]}))
        stage(lake, recipe)
        assert current_is_staged(lake, recipe)
    assert query(lake, f"SELECT count(*) FROM {recipe.versions.sql}") == [(4,)]


@ON_SQLITE
def test_a_row_of_before_that_is_replayed_while_a_full_refresh_awaits_staging_ends_with_it(lake: Lakehouse) -> None:
    logged = replace(ITEMS, history=True)
    apply(lake, insert(1, 10, 1), insert(2, -2, 2), recipe=logged)
    load(lake, changes(insert(1, 10, 5)), whole=True)
    lenient = replace(logged, contract=Anything)
    replay(lake, lenient, Selection(), run_id="r")
    assert versions(lake, logged, "key, value, is_current") == [(1, 10, True), (2, -2, True)]
    stage(lake, lenient)
    assert versions(lake, logged, "key, value, is_current") == [(1, 10, True), (2, -2, False)]
    assert current_is_staged(lake, lenient)


@ON_SQLITE
@pytest.mark.parametrize("whole", [False, True])
def test_what_a_backfill_makes_no_more_leaves_the_history_with_the_staged_row(lake: Lakehouse, whole: bool) -> None:
    for number, kind in enumerate(("filtered", "bad")):
        recipe = replace(THINGS, table=kind)
        for _ in range(2 if whole else 1):
            land(lake, recipe, (1, 500), (2, 5), whole=whole)
            stage(lake, recipe)
        low = replace(recipe, contract=LowThing) if number else replace(recipe, function=only_low)
        stage(lake, low, loads=(2, 2) if whole else (1, 1))
        assert query(lake, f"SELECT id FROM {recipe.staged.sql}") == [(2,)]
        assert current_is_staged(lake, recipe)
        assert [row for row in versions(lake, recipe) if row[0] == 1] == ([(1, 500, False)] if whole else [])


class LowThing(Thing):
    value: float = Field(le=100)


def only_low(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.filter(pl.col("value") < 100)
