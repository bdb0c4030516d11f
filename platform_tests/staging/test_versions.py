"""Which version of a row the staged table shows, however its versions arrive."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.staging.steps import (
    DAY,
    ON_SQLITE,
    TOLERANT,
    figures_add_up,
    load,
    numbered,
    quarantined,
    stage,
    staged,
)
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders

from data_platform.contracts import Contract, Field, Instant
from data_platform.contracts.audit import ContractError
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table


def test_the_newest_version_wins_within_a_step_and_between_steps(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", "2020-01-01"), (1, 3, "open", "2020-01-03"), (1, 2, "open", "2020-01-02")))
    assert stage(lake).rows_superseded == 2
    assert staged(lake) == [(1, 3.0)]
    load(lake, orders((1, 4, "open", "2020-01-04")))
    assert stage(lake).rows_updated == 1
    assert staged(lake) == [(1, 4.0)]


@ON_SQLITE
def test_a_late_row_that_is_older_does_not_win(lake: Lakehouse) -> None:
    load(lake, orders((1, 3, "open", "2020-01-03")))
    stage(lake)
    load(lake, orders((1, 1, "open", "2020-01-01"), (2, 1, "open", "2020-01-01")))
    result = stage(lake)
    assert (result.rows_inserted, result.rows_superseded) == (1, 1)
    assert staged(lake) == [(1, 3.0), (2, 1.0)]


@ON_SQLITE
def test_versions_are_compared_as_the_contract_types_them_and_not_as_text(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", "2020-01-01T00:30:00+02:00")))
    stage(lake)
    load(lake, orders((1, 2, "open", "2019-12-31T23:00:00Z")))
    stage(lake)
    assert staged(lake) == [(1, 2.0)]


@ON_SQLITE
def test_an_unknown_version_is_the_oldest_and_of_equal_ones_the_last_to_arrive_wins(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", None), (1, 2, "open", None)))
    stage(lake)
    assert staged(lake) == [(1, 2.0)]
    load(lake, orders((1, 3, "open", DAY)))
    stage(lake)
    load(lake, orders((1, 4, "open", None)))
    stage(lake)
    assert staged(lake) == [(1, 3.0)]
    load(lake, orders((1, 5, "open", DAY)))
    stage(lake)
    assert staged(lake) == [(1, 5.0)]


@ON_SQLITE
def test_a_version_that_the_contract_does_not_have_is_carried_along_in_its_own_type(lake: Lakehouse) -> None:
    class Item(Contract):
        item: int
        price: int

    recipe = Recipe("shop", "orders", ("item",), Item, newest_by="sequence")
    for version, price in ((9, 1), (10, 2), (1, 3)):
        load(lake, pa.table({"item": [1], "price": [price], "sequence": [version]}))
        stage(lake, recipe)
    assert staged(lake, "item, price, _version") == [(1, 2, 10)]


@ON_SQLITE
def test_a_version_column_that_nobody_has_is_an_error_that_lists_the_columns(lake: Lakehouse) -> None:
    load(lake, numbered(1))
    with pytest.raises(ContractError, match=r"names the column nope, .*The raw table has: order_id, amount"):
        stage(lake, replace(RECIPE, newest_by="nope"))


def test_a_full_refresh_removes_what_is_gone_and_closes_what_it_replaces(lake: Lakehouse) -> None:
    load(lake, orders((1, 1, "open", DAY), (2, 2, "open", DAY), (3, "abc", "open", DAY)), whole=True)
    stage(lake, TOLERANT)
    load(lake, orders((2, 5, "open", "2010-01-01"), (4, 4, "open", DAY)), whole=True)
    result = stage(lake, TOLERANT)
    assert (result.rows_deleted, result.rows_inserted) == (2, 2)
    assert staged(lake) == [(2, 5.0), (4, 4.0)]
    assert quarantined(lake) == [("1:2", "superseded")]


@ON_SQLITE
def test_full_refreshes_that_were_never_staged_are_history(lake: Lakehouse) -> None:
    load(lake, numbered(1, 2), whole=True)
    load(lake, numbered(2, 3), whole=True)
    assert stage(lake).load_from == 2
    assert [key for key, _ in staged(lake)] == [2, 3]


@ON_SQLITE
def test_an_emptied_full_refresh_empties_the_staged_table(lake: Lakehouse) -> None:
    load(lake, numbered(1), whole=True)
    stage(lake)
    source = MemorySource([batch_of(numbered(), {"cursor": "x"})], whole=True)
    load_table(lake, "shop", source, "orders", TABLE, run_id="run-1", full_refresh=True)
    assert stage(lake).rows_deleted == 1
    assert staged(lake) == []


def test_a_backfill_stages_a_range_again_and_newest_still_wins(lake: Lakehouse) -> None:
    for number, amount, at in ((1, 1, "2020-01-01"), (1, 2, "2020-01-02"), (2, 3, "2020-01-03")):
        load(lake, numbered(number, amount=amount, at=at))
        stage(lake)

    def doubled(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns(pl.col("amount").cast(pl.Float64) * 2)

    recipe = replace(RECIPE, function=doubled)
    assert stage(lake, recipe, loads=(1, 2)).rows_updated == 1
    assert staged(lake) == [(1, 4.0), (2, 3.0)]
    assert stage(lake).rows_read == 0
    with pytest.raises(PlatformError, match="loads 2 to 9 cannot be staged again; loads 1 to 3 have been staged"):
        stage(lake, recipe, loads=(2, 9))


@ON_SQLITE
def test_a_backfill_of_loads_that_a_full_refresh_replaced_is_refused(lake: Lakehouse) -> None:
    load(lake, numbered(1), whole=True)
    load(lake, numbered(2), whole=True)
    stage(lake)
    with pytest.raises(PlatformError, match="loads 1 to 1 were replaced by the full refresh of load 2"):
        stage(lake, loads=(1, 1))


@ON_SQLITE
def test_a_rebuild_gives_what_the_increments_gave(lake: Lakehouse) -> None:
    for i in range(4):
        load(lake, numbered(*range(i, i + 5), amount=i, at=f"2020-01-0{5 - i}"))
        stage(lake)
    before = staged(lake, "* EXCLUDE (_staging_id, _staged_at)")
    result = stage(lake, rebuild=True)
    assert (result.rows_deleted, result.rows_inserted) == (8, 8)
    assert staged(lake, "* EXCLUDE (_staging_id, _staged_at)") == before


class Thing(Contract):
    key: int
    value: int = Field(ge=0)
    at: Instant = Field(nullable=True)


THINGS = Recipe("shop", "orders", ("key",), Thing, newest_by="at", refuse_above=1.0)
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-1, 9), st.one_of(st.none(), st.integers(0, 3))), min_size=1, max_size=12
)
LOADS = st.lists(st.tuples(ROWS, st.sampled_from(["load", "load", "stage", "snapshot"])), min_size=1, max_size=5)


def oracle(loads: list[tuple[list[Any], str]]) -> list[tuple[int, int]]:
    """The last full refresh and what came after it: of each key the newest good row, the last of equals."""
    newest: dict[int, tuple[tuple[bool, int], int]] = {}
    for rows, what in loads:
        if what == "snapshot":
            newest = {}
        for key, value, at in rows:
            version = (at is not None, at or 0)
            if value >= 0 and (key not in newest or version >= newest[key][0]):
                newest[key] = (version, value)
    return sorted((key, value) for key, (_, value) in newest.items())


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


@histories(5)
@given(loads=LOADS)
def test_however_rows_are_split_into_loads_and_steps_the_outcome_is_the_oracles(
    small_lake: Settings, loads: list[tuple[list[Any], str]]
) -> None:
    with open_lakehouse(small_lake) as lake:
        connection = lake.connection
        source = f"s{datetime.now(UTC).timestamp():.6f}".replace(".", "_")
        recipe = replace(THINGS, source=source)
        start = datetime(2020, 1, 1, tzinfo=UTC)
        table = TABLE.model_copy(update={"shrink_limit": 0.0})
        for number, (rows, what) in enumerate(loads):
            batch = pa.table(
                {
                    "key": pa.array([row[0] for row in rows]),
                    "value": pa.array([row[1] for row in rows]),
                    "at": pa.array(
                        [None if row[2] is None else start + timedelta(days=row[2]) for row in rows],
                        pa.timestamp("us", "UTC"),
                    ),
                }
            )
            memory = MemorySource([batch_of(batch, {"cursor": str(number)})], whole=what == "snapshot")
            load_table(lake, source, memory, "orders", table, run_id="r")
            if what != "load":
                stage_table(lake, recipe, run_id="r")
        stage_table(lake, recipe, run_id="r")
        found = f"SELECT key, value FROM {recipe.staged.sql} ORDER BY ALL"
        expected = oracle(loads)
        assert connection.execute(found).fetchall() == expected
        stage_table(lake, recipe, run_id="r", rebuild=True)
        assert connection.execute(found).fetchall() == expected
        assert figures_add_up(lake)
