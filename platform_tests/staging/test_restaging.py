"""Raw rows that are staged again, by a backfill or a replay: what they make now replaces what they made before, and the
keys that they leave show what a rebuild would show."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.staging.steps import (
    DAY,
    ON_SQLITE,
    TOLERANT,
    figures_add_up,
    load,
    quarantined,
    query,
    stage,
    staged,
)
from platform_tests.staging.test_changes import (
    ITEMS,
    Change,
    apply,
    changes,
    delete,
    insert,
    truncate,
    update,
)
from platform_tests.tables import TABLE, MemorySource, Order, batch_of, orders

from data_platform.contracts import Contract, Field
from data_platform.contracts.quarantine import Selection
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import StagingRefusedError, replay, stage_table


class Line(Contract):
    order_id: int
    line: int = Field(ge=0)


class AnyLine(Contract):
    order_id: int
    line: int


def lines(raw: pl.LazyFrame) -> pl.LazyFrame:
    """A row for each line of an order."""
    return raw.with_columns(pl.col("lines").str.split(",")).explode("lines").with_columns(line="lines")


def doubled_lines(raw: pl.LazyFrame) -> pl.LazyFrame:
    return lines(raw).with_columns(pl.col("line").cast(pl.Int64) * 2)


EXPLODED = Recipe("shop", "orders", (), Line, lines, refuse_above=1.0)


@ON_SQLITE
@pytest.mark.parametrize("key", [(), ("order_id", "line")])
@pytest.mark.parametrize(
    ("change", "rows", "status"),
    [
        ({}, [(1, 1), (1, 3), (2, 5)], "open"),
        ({"contract": AnyLine}, [(1, -2), (1, 1), (1, 3), (2, 5)], "replayed"),
        ({"function": doubled_lines}, [(1, 2), (1, 6), (2, 5)], "open"),
        ({"function": lambda raw: lines(raw).filter(pl.col("line") == "7")}, [(2, 5)], "replayed"),
    ],
    ids=["still bad", "good", "made otherwise", "left out"],
)
def test_what_a_replayed_row_makes_replaces_what_it_made_before(
    lake: Lakehouse, key: tuple[str, ...], change: dict[str, Any], rows: list[Any], status: str
) -> None:
    recipe = replace(EXPLODED, key=key, history=bool(key))
    load(lake, pa.table({"order_id": [1, 2], "lines": ["1,-2,3", "5"]}))
    stage(lake, recipe)
    assert staged(lake, "order_id, line") == [(1, 1), (1, 3), (2, 5)]
    for _ in range(2):
        replay(lake, replace(recipe, **change), Selection(), run_id="r")
        assert staged(lake, "order_id, line") == rows
        assert quarantined(lake) == [("1:0", status)]
    if key:
        assert query(lake, "SELECT order_id, line FROM staged_shop.orders_versions ORDER BY ALL") == rows


@ON_SQLITE
def test_rows_of_a_refused_load_are_staged_by_the_next_step_and_not_by_a_replay(lake: Lakehouse) -> None:
    recipe = replace(EXPLODED, refuse_above=0.4)
    load(lake, pa.table({"order_id": [1, 2], "lines": ["1", "5"]}))
    stage(lake, recipe)
    load(lake, pa.table({"order_id": [3, 4], "lines": ["1,-2,3", "5"]}))
    with pytest.raises(StagingRefusedError):
        stage(lake, recipe)
    assert replay(lake, replace(recipe, contract=AnyLine), Selection(), run_id="r").rows_read == 0
    assert quarantined(lake) == [("2:0", "open")]
    stage(lake, replace(recipe, contract=AnyLine))
    assert staged(lake, "order_id, line") == [(1, 1), (2, 5), (3, -2), (3, 1), (3, 3), (4, 5)]
    assert quarantined(lake) == [("2:0", "replayed")]


class UpTo100(Order):
    amount: float = Field(ge=0, le=100)


def without(*ids: str) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A staging function that leaves orders out."""
    return lambda raw: raw.filter(~pl.col("order_id").is_in(list(ids)))


def renumbered(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("order_id").replace("1", "7"))


@ON_SQLITE
@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize(
    ("change", "loads", "rows", "figures"),
    [
        # Loads: order 1 is 10, 500, 30 in turn; order 2 is 20, then 200; order 3 is 300 in the third.
        ({"contract": UpTo100}, (3, 3), [(1, 30.0), (2, 200.0)], (0, 1, 1)),
        ({"contract": UpTo100}, (2, 2), [(1, 30.0), (2, 20.0), (3, 300.0)], (0, 0, 0)),
        ({"contract": UpTo100}, (2, 3), [(1, 30.0), (2, 20.0)], (0, 1, 1)),
        ({"function": without("1", "3")}, (3, 3), [(1, None), (2, 200.0)], (0, 0, 1)),
        ({"function": without("2")}, (1, 1), [(1, 30.0), (2, 200.0), (3, 300.0)], (0, 0, 0)),
        ({"function": without("2")}, (1, 3), [(1, 30.0), (3, 300.0)], (0, 2, 1)),
        ({"function": renumbered}, (3, 3), [(1, None), (2, 200.0), (3, 300.0), (7, 30.0)], (1, 1, 0)),
        ({"function": renumbered}, (1, 3), [(2, 200.0), (3, 300.0), (7, 30.0)], (1, 2, 1)),
    ],
)
def test_after_a_backfill_no_row_of_its_loads_is_left_that_they_do_not_make_now(
    lake: Lakehouse,
    history: bool,
    change: dict[str, Any],
    loads: tuple[int, int],
    rows: list[Any],
    figures: tuple[int, int, int],
) -> None:
    recipe = replace(TOLERANT, history=history)
    for number, amounts in enumerate([((1, 10), (2, 20)), ((1, 500), (2, 200)), ((1, 30), (3, 300))], 1):
        load(lake, orders(*((order, amount, "open", f"2020-01-0{number}") for order, amount in amounts)))
        stage(lake, recipe)
    result = stage(lake, replace(recipe, **change), loads=loads)
    # What comes back for a key: a history has it as it was accepted, raw rows are staged by what holds today, by which
    # order 1 does not exist where it is left out or has another number.
    backs = {"contract": 500.0, "function": 500.0 if history else None}
    back = backs["contract" if "contract" in change else "function"]
    expected = [(order, back if amount is None else amount) for order, amount in rows]
    assert staged(lake) == [row for row in expected if row[1] is not None]
    gone = sum(amount is None for _, amount in expected)
    inserted, updated, deleted = figures
    assert (result.rows_inserted, result.rows_updated, result.rows_deleted) == (inserted, updated, deleted + gone)
    assert figures_add_up(lake)
    if history:
        current = "SELECT order_id, amount FROM staged_shop.orders_history WHERE is_current ORDER BY ALL"
        assert query(lake, current) == staged(lake)


@ON_SQLITE
@pytest.mark.parametrize(
    ("spelt", "function"),
    [
        (["1", "1"], None),
        ([" 01 ", "1"], None),
        (["x1", "x1"], lambda raw: raw.with_columns(pl.col("order_id").str.strip_prefix("x"))),
        (["x1", "1"], lambda raw: raw.with_columns(pl.col("order_id").str.strip_prefix("x"))),
        ([None, "1"], lambda raw: raw.with_columns(pl.col("order_id").fill_null("1"))),
    ],
)
def test_the_version_that_comes_back_is_found_by_the_key_as_its_raw_row_spells_it(
    lake: Lakehouse, spelt: list[str | None], function: Any
) -> None:
    recipe = replace(TOLERANT, function=function)
    newer, older = spelt
    load(lake, orders((older, 10, "open", "2020-01-01"), ("2", 20, "open", "2020-01-01")))
    load(lake, orders((newer, 500, "open", "2020-01-02")))
    stage(lake, recipe)
    stage(lake, replace(recipe, contract=UpTo100), loads=(2, 2))
    assert staged(lake) == [(1, 10.0), (2, 20.0)]


@ON_SQLITE
def test_the_version_that_comes_back_is_found_though_only_the_staging_function_makes_the_key(lake: Lakehouse) -> None:
    class Tag(Contract):
        tag: str
        amount: int = Field(ge=0)

    def tagged(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns(pl.format("{}-{}", "kind", "number").alias("tag"))

    recipe = Recipe("shop", "orders", ("tag",), Tag, tagged, refuse_above=1.0)
    for amount in (1, 2, 3):
        load(lake, pa.table({"kind": ["a", "b"], "number": [1, 1], "amount": [amount, amount * 10]}))
        stage(lake, recipe)
    only_b = replace(recipe, function=lambda raw: tagged(raw).filter(~pl.col("amount").is_in([3])))
    result = stage(lake, only_b, loads=(3, 3))
    assert staged(lake, "tag, amount, _load_id") == [("a-1", 2, 2), ("b-1", 30, 3)]
    assert (result.rows_updated, result.rows_filtered, result.rows_deleted) == (1, 1, 0)
    assert figures_add_up(lake)


@ON_SQLITE
def test_a_row_that_comes_back_leaves_quarantine_and_one_that_fails_instead_enters_it(lake: Lakehouse) -> None:
    load(lake, orders((1, 5000, "open", "2020-01-09"), (2, 200, "open", DAY)))
    stage(lake, TOLERANT)
    load(lake, orders((1, 1, "open", DAY), (2, 50, "open", "2020-01-02")))
    stage(lake, TOLERANT)
    assert quarantined(lake) == [("1:0", "open")]

    class UpTo9000(Order):
        amount: float = Field(ge=0, le=9000)

    # The rows of the second load go; of the first, 5000 passes now.
    left_out = replace(
        TOLERANT, contract=UpTo9000, function=lambda raw: raw.filter(~pl.col("amount").is_in(["1", "50"]))
    )
    stage(lake, left_out, loads=(2, 2))
    assert staged(lake) == [(1, 5000.0), (2, 200.0)]
    assert quarantined(lake) == [("1:0", "replayed")]
    # Staged again, both are too large; there is no other version.
    stage(lake, replace(TOLERANT, contract=UpTo100), loads=(1, 1))
    assert staged(lake) == [(1, 1.0), (2, 50.0)]
    # Of order 1 the version that failed is newer than the one that came back, of order 2 it is older.
    assert quarantined(lake) == [("1:0", "open"), ("1:0", "replayed"), ("1:1", "superseded")]
    assert stage(lake, replace(TOLERANT, function=without("1", "2")), loads=(1, 2)).rows_deleted == 2
    assert figures_add_up(lake)


@ON_SQLITE
def test_of_a_log_nothing_comes_back_that_was_deleted_or_truncated(lake: Lakehouse) -> None:
    apply(lake, insert(1, 10, 1), insert(2, 20, 2), insert(3, 30, 3))
    apply(lake, delete(1, 4), update(3, 31, 5))
    apply(lake, insert(1, 600, 6), update(2, 601, 7), update(3, 602, 8))
    only = replace(ITEMS, function=lambda raw: raw.filter(pl.col("value") < 600))
    stage(lake, only, loads=(3, 3))
    assert staged(lake, "key, value") == [(2, 20), (3, 31)]
    stage(lake, ITEMS, loads=(3, 3))
    apply(lake, truncate(9), insert(2, 21, 10))
    apply(lake, update(2, 603, 11), insert(1, 604, 12))
    stage(lake, only, loads=(5, 5))
    assert staged(lake, "key, value") == [(2, 21)]
    stage(lake, only, rebuild=True)
    assert staged(lake, "key, value") == [(2, 21)]
    assert figures_add_up(lake)


class Thing(Contract):
    key: int
    value: int = Field(ge=0)


def otherwise(first: int, last: int) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A staging function that leaves out rows of some loads, spoils others and gives yet others another key."""
    inside = pl.col("_load_id").is_between(first, last)
    kind = pl.col("value") % 4

    def function(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.filter((inside & (kind == 0)).fill_null(False).not_()).with_columns(
            value=pl.when(inside & (kind == 1)).then(-1).otherwise("value"),
            key=pl.when(inside & (kind == 2)).then(pl.lit("2")).otherwise("key"),
        )

    return function


KEYS, VALUES, ORDERS = st.integers(0, 2), st.integers(-1, 9), st.integers(0, 9)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(["insert", "update"]), KEYS, VALUES, ORDERS),
    st.tuples(st.just("delete"), KEYS, st.none(), ORDERS),
    st.tuples(st.just("truncate"), st.none(), st.none(), ORDERS),
)
LOADS = st.lists(st.lists(CHANGES, min_size=1, max_size=6), min_size=2, max_size=4)
KINDS = ["log", "log with history", "newest_by", "newest_by with history", "delivery", "delivery without key"]


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


def raw_rows(changed: list[Change], kind: str) -> pa.Table:
    if kind.startswith("log"):
        return changes(*changed)
    rows = [(str(key or 0), value or 0, order) for _, key, value, order in changed]
    return pa.table({name: [row[place] for row in rows] for place, name in enumerate(("key", "value", "at"))})


BEATEN = [[insert(1, 3, 1), insert(0, 7, 2)], [update(1, 4, 3), update(0, 5, 4)], [update(0, 6, 5), delete(2, 6)]]


@histories(4)
@given(loads=LOADS, kind=st.sampled_from(KINDS), bounds=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@example(loads=BEATEN, kind="log", bounds=(2, 2))
@example(loads=BEATEN, kind="log with history", bounds=(2, 3))
@example(loads=BEATEN, kind="newest_by", bounds=(2, 2))
@example(loads=BEATEN, kind="newest_by with history", bounds=(2, 3))
@example(loads=BEATEN, kind="delivery", bounds=(2, 3))
def test_a_backfill_gives_what_a_rebuild_gives(
    small_lake: Settings, loads: list[list[Change]], kind: str, bounds: tuple[int, int]
) -> None:
    first, last = sorted(min(bound, len(loads)) for bound in bounds)
    recipe = Recipe(
        f"s{datetime.now(UTC).timestamp():.6f}".replace(".", "_"),
        "orders",
        () if "without" in kind else ("key",),
        Thing,
        newest_by="at" if kind.startswith("newest_by") else None,
        refuse_above=1.0,
        history="history" in kind,
    )
    with open_lakehouse(small_lake) as lake:
        for number, changed in enumerate(loads):
            batch = batch_of(
                raw_rows(changed, kind), {"cursor": str(number)}, kind="changes" if "log" in kind else "rows"
            )
            load_table(lake, recipe.source, MemorySource([batch]), "orders", TABLE, run_id="r")

        def found(relation: str = recipe.staged.sql) -> list[Any]:
            return query(lake, f"SELECT key, value, _load_id, _row FROM {relation} ORDER BY ALL")

        stage_table(lake, recipe, run_id="r")
        as_it_was = found()
        changed_recipe = replace(recipe, function=otherwise(first, last))
        for one in (changed_recipe, recipe):
            before = found()
            result = stage_table(lake, one, run_id="r", loads=(first, last))
            after = found()
            assert len(after) == len(before) + result.rows_inserted - result.rows_deleted
            if recipe.history:
                assert found(f"(FROM {recipe.history_view.sql} WHERE is_current)") == after
            if one is changed_recipe:
                stage_table(lake, one, run_id="r", rebuild=True)
                assert found() == after
        assert found() == as_it_was
        assert figures_add_up(lake)
