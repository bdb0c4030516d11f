"""Rows that the source marks as deleted (`soft_delete`) leave the staged table, whatever is staged again, and stay in
raw."""

from dataclasses import replace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.staging.steps import ON_SQLITE, figures_add_up, load, query, stage, staged

from data_platform.contracts import Contract, Field
from data_platform.contracts.audit import ContractError
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe

pytestmark = ON_SQLITE


class Thing(Contract):
    """A thing with a value that may not be negative."""

    key: int
    value: int = Field(ge=0, nullable=True)
    at: int = Field(nullable=True)


THINGS = Recipe("shop", "orders", ("key",), Thing, refuse_above=1.0, soft_delete="_deleted")

FLAG = pa.bool_()

Row = tuple[int, int | None, object, int]
"""Key, value, the mark, and a time."""


def things(*rows: Row, mark: Any = FLAG) -> pa.Table:
    key, value, deleted, at = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "key": pa.array(key, pa.int64()),
            "value": pa.array(value, pa.int64()),
            "_deleted": pa.array(deleted, mark),
            "at": pa.array(at, pa.int64()),
        }
    )


def apply(lake: Lakehouse, *rows: Row, recipe: Recipe = THINGS, mark: Any = FLAG) -> Any:
    load(lake, things(*rows, mark=mark))
    return stage(lake, recipe)


def there(lake: Lakehouse) -> list[Any]:
    return staged(lake, "key, value")


def test_a_marked_row_leaves_the_table_and_one_that_is_marked_no_more_is_there_again(lake: Lakehouse) -> None:
    apply(lake, (1, 10, False, 1), (2, 20, None, 1), (3, 30, True, 1))
    assert there(lake) == [(1, 10), (2, 20)]
    result = apply(lake, (1, 10, True, 2), (7, 70, True, 2))
    assert (result.rows_removals, result.rows_deleted, result.rows_inserted) == (2, 1, 0)
    assert there(lake) == [(2, 20)]
    assert apply(lake, (1, 11, False, 3)).rows_inserted == 1
    assert there(lake) == [(1, 11), (2, 20)]
    assert query(lake, "SELECT count(*) FROM raw_shop.orders WHERE _deleted") == [(3,)]
    assert figures_add_up(lake)


@pytest.mark.parametrize(
    ("mark", "gone", "kept"),
    [
        (pa.string(), ["true", "T", "1", "2026-01-01T00:00:00Z", "yes"], ["false", "F", "", "0", None, "No"]),
        (pa.int64(), [1, 2], [0, None]),
        (pa.float64(), [1.0], [0.0, None]),
        (pa.timestamp("us", "UTC"), [0], [None]),
    ],
)
def test_a_mark_may_be_of_any_type(lake: Lakehouse, mark: pa.DataType, gone: list[Any], kept: list[Any]) -> None:
    load(lake, things(*((number, 1, None, 1) for number in range(20)), mark=mark))
    stage(lake, THINGS)
    load(lake, things(*((number, 1, value, 2) for number, value in enumerate([*gone, *kept])), mark=mark))
    stage(lake, THINGS)
    expected = [number for number in range(20) if number >= len(gone)]
    assert [key for key, _ in there(lake)] == expected
    stage(lake, THINGS, loads=(1, 1))
    assert [key for key, _ in there(lake)] == expected


def test_of_a_marked_row_only_the_key_matters(lake: Lakehouse) -> None:
    apply(lake, (1, 10, False, 1))
    result = apply(lake, (1, -5, True, 2))
    assert there(lake) == []
    assert result.rows_quarantined == 0


def test_staging_again_what_came_before_brings_no_row_back(lake: Lakehouse) -> None:
    apply(lake, (1, 10, False, 1), (2, 20, False, 1))
    apply(lake, (1, 11, False, 2))
    apply(lake, (1, 11, True, 3))
    for loads in [(1, 1), (2, 2), (1, 2), (3, 3), (1, 3)]:
        stage(lake, THINGS, loads=loads)
        assert there(lake) == [(2, 20)], loads
    stage(lake, THINGS, rebuild=True)
    assert there(lake) == [(2, 20)]


def test_a_version_that_comes_late_does_not_bring_a_row_back_where_a_column_orders_them(lake: Lakehouse) -> None:
    recipe = replace(THINGS, newest_by="at")
    apply(lake, (1, 10, False, 1), recipe=recipe)
    apply(lake, (1, 12, True, 9), recipe=recipe)
    apply(lake, (1, 11, False, 5), recipe=recipe)
    assert there(lake) == []
    apply(lake, (1, 13, False, 10), recipe=recipe)
    assert there(lake) == [(1, 13)]


def test_the_history_ends_with_the_mark(lake: Lakehouse) -> None:
    recipe = replace(THINGS, history=True)
    apply(lake, (1, 10, False, 1), (2, 20, False, 1), recipe=recipe)
    apply(lake, (1, 10, True, 2), recipe=recipe)
    history = "SELECT key, value, is_current FROM staged_shop.orders_history ORDER BY key"
    assert query(lake, history) == [(1, 10, False), (2, 20, True)]


def test_a_table_that_never_had_the_column_has_no_marked_rows(lake: Lakehouse) -> None:
    load(lake, things((1, 10, None, 1)).drop_columns(["_deleted"]))
    stage(lake, THINGS)
    apply(lake, (1, 10, True, 2), (2, 20, False, 2))
    assert there(lake) == [(2, 20)]


def test_a_mark_that_is_named_or_dropped_later_is_refused_until_a_rebuild(lake: Lakehouse) -> None:
    plain = replace(THINGS, soft_delete=None)
    apply(lake, (1, 10, True, 1), recipe=plain)
    assert there(lake) == [(1, 10)]
    load(lake, things((2, 20, False, 2)))
    with pytest.raises(ContractError, match=r"`soft_delete` was not given, now it is _deleted.*--rebuild"):
        stage(lake, THINGS)
    stage(lake, THINGS, rebuild=True)
    assert there(lake) == [(2, 20)]
    load(lake, things((3, 30, False, 3)))
    with pytest.raises(ContractError, match="`soft_delete` was _deleted, now it is not given"):
        stage(lake, plain)
    stage(lake, plain, rebuild=True)
    load(lake, things((4, 40, True, 4)))
    stage(lake, plain)
    assert [key for key, _ in there(lake)] == [1, 2, 3, 4]


def test_a_staging_function_may_rename_the_key(lake: Lakehouse) -> None:
    def renamed(raw: pl.LazyFrame) -> pl.LazyFrame:
        return raw.with_columns((pl.col("key") * 10).alias("key"))

    recipe = replace(THINGS, function=renamed)
    apply(lake, (1, 10, False, 1), (2, 20, False, 1), recipe=recipe)
    apply(lake, (2, 20, True, 2), recipe=recipe)
    assert there(lake) == [(10, 10)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "mark", "load", "load", "again"]), st.integers(0, 3), st.integers(0, 9)),
    max_size=25,
)


@histories(8)
@given(steps=STEPS)
def test_staged_rows_are_those_that_the_source_does_not_mark(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    own = Settings(settings.home, str(folder / "catalog.sqlite"), str(folder / "data"))
    source: dict[int, tuple[int | None, bool]] = {}
    waiting: list[Row] = []
    loads = 0
    with open_lakehouse(own) as lake:
        for at, (what, key, value) in enumerate([*steps, ("load", 0, 0)]):
            if what == "put":
                source[key] = (value, False)
                waiting.append((key, value, False, at))
            elif what == "mark":
                source[key] = (None, True)
                waiting.append((key, None, True, at))
            elif what == "load" and waiting:
                apply(lake, *waiting)
                waiting, loads = [], loads + 1
            elif what == "again" and loads:
                first = 1 + key % loads
                stage(lake, THINGS, loads=(first, max(first, loads - value % loads)))
            if what != "put" and what != "mark" and loads and not waiting:
                assert there(lake) == sorted((k, v) for k, (v, gone) in source.items() if not gone)
