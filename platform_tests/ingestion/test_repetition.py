"""Rows that a source delivers again are known for what they are, whatever became of its columns since they landed."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.histories import histories
from platform_tests.ingestion.landing import ON_SQLITE, load, rows
from platform_tests.tables import TABLE, MemorySource, batch_of

from data_platform.ingestion import load as load_module
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.source import Overlap
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

KEYLESS = TABLE.model_copy(update={"key": []})
BY_ID = TABLE.model_copy(update={"key": ["id"]})

FLOAT, DOUBLE = pa.float32(), pa.float64()


def again(lake: Lakehouse, number: int, *parts: pa.Table, table: Any = KEYLESS) -> LoadResult:
    """A load that delivers the whole stretch, all from `at` 1 on, in one batch or several."""
    batches = [batch_of(part, {"cursor": f"{number}:{place}"}) for place, part in enumerate(parts)]
    return load(lake, MemorySource(batches, again=Overlap("at", 1)), table)


def table(ids: list[int], at: list[int] | None = None, **columns: Any) -> pa.Table:
    return pa.table({"id": ids, "at": at or [1] * len(ids), **columns})


@ON_SQLITE
@pytest.mark.parametrize(
    ("deliveries", "landed"),
    [
        pytest.param([table([1, 2]), table([1, 2, 3], note=pa.nulls(3, pa.string()))], [2, 1], id="new, null"),
        pytest.param([table([1, 2]), table([1, 2, 3], note=["a", "b", "c"])], [2, 1], id="new, filled"),
        pytest.param(
            [table([1, 2]), table([1, 2, 3], note=["a", "b", "c"]), table([1, 2, 3, 4], note=["a", "b", "c", "d"])],
            [2, 1, 1],
            id="new, and there from then on",
        ),
        pytest.param([table([1, 2], x=["a", "b"]), table([1, 2, 3])], [2, 1], id="lost"),
        pytest.param(
            [table([1], x=["a"]), table([1, 2]), table([1, 2, 3], x=["a", "b", "c"])], [1, 1, 1], id="lost and back"
        ),
        pytest.param([table([1], x=["a"]), table([1, 2], y=["a", "b"])], [1, 1], id="another name"),
        pytest.param([table([1], x=["a"]), table([1, 2], X=["a", "b"])], [1, 1], id="another case"),
        pytest.param([table([7, 7]), table([7, 7, 7], note=["a", "b", "c"])], [2, 1], id="as many copies as before"),
        pytest.param([table([1, 2], x=["a", "b"]), table([1, 9], y=["a", "b"])], [2, 1], id="other rows are news"),
        pytest.param(
            [table([1], x=pa.array([0.1], FLOAT)), table([1, 2], x=pa.array([0.1, 0.2], DOUBLE))], [1, 1], id="wider"
        ),
        pytest.param(
            [table([1], x=pa.array([0.1], FLOAT))] + [table([1, 2], x=pa.array([0.1, 0.2], DOUBLE))] * 2,
            [1, 1, 0],
            id="wider since an earlier load",
        ),
    ],
)
def test_a_row_without_a_key_is_known_by_the_columns_that_both_of_its_deliveries_have(
    lake: Lakehouse, deliveries: list[pa.Table], landed: list[int]
) -> None:
    assert [again(lake, number, each).rows_landed for number, each in enumerate(deliveries)] == landed
    # Once more, in parts: the number of copies counts over the whole load.
    last = deliveries[-1]
    assert again(lake, 99, *(last.slice(place, 1) for place in range(last.num_rows))).rows_landed == 0
    assert len(rows(lake, "id")) == sum(landed)


@ON_SQLITE
def test_what_was_met_once_is_not_met_again_when_columns_change_within_a_load(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    again(lake, 1, table([1, 2], x=pa.array([1, 2], pa.int32())))
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    wide = pa.array([1], pa.decimal128(22, 2))
    result = again(lake, 2, table([1], x=[1]), table([1], x=wide), table([1], x=wide, note=["a"]))
    assert (result.rows_repeated, result.rows_landed) == (1, 2)
    assert rows(lake, "id, _load_id, note") == [(1, 1, None), (1, 3, None), (1, 4, "a"), (2, 1, None)]


@ON_SQLITE
def test_a_new_column_makes_a_new_version_of_each_row_that_has_a_key_once(lake: Lakehouse) -> None:
    again(lake, 1, table([1, 2]), table=BY_ID)
    with_note = table([1, 2, 3], note=["a", None, "c"])
    assert again(lake, 2, with_note, table=BY_ID).rows_landed == 3
    assert again(lake, 3, with_note, table=BY_ID).rows_landed == 0
    assert again(lake, 4, table([1, 2, 3]), table=BY_ID).rows_landed == 2  # those that had a note
    assert again(lake, 5, table([1, 2, 3]), table=BY_ID).rows_landed == 0


@ON_SQLITE
def test_a_row_that_goes_back_within_a_load_is_news_though_a_column_became_wider_between(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    again(lake, 1, table([1], x=pa.array([1], pa.int32())), table=BY_ID)
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    parts = [table([1], x=[2]), table([5], x=pa.array([5], pa.decimal128(22, 2))), table([1], x=[1])]
    batches = [batch_of(part, {"cursor": "2"} if part is parts[-1] else None) for part in parts]
    assert load(lake, MemorySource(batches, again=Overlap("at", 1)), BY_ID).rows_landed == 3


@ON_SQLITE
def test_where_the_cursor_is_a_new_column_every_row_may_have_landed_before(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(pa.table({"id": [1, 2]}), {"cursor": "1"})]), KEYLESS)
    assert again(lake, 2, table([1, 2, 3])).rows_landed == 1
    assert rows(lake, "id") == [1, 2, 3]


@ON_SQLITE
def test_nothing_is_left_out_of_a_whole_table(lake: Lakehouse) -> None:
    again(lake, 1, table([1, 2]))
    whole = MemorySource([batch_of(table([1, 2]), {"cursor": "2"})], whole=True, again=Overlap("at", 1))
    assert load(lake, whole, KEYLESS).rows_landed == 2


LAG = 3
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, LAG + 2), max_size=4),  # how late or early new events are
        st.sampled_from(["as it is", "add", "add empty", "lose", "widen"]),
        st.integers(0, 6),  # rows of the first of two batches
    ),
    min_size=2,
    max_size=4,
)


@pytest.fixture(scope="module")
def small_lake(home: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        yield Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data")


NUMBERS = count()


def delivered(events: list[int], columns: dict[str, str], type_of_x: pa.DataType) -> pa.Table:
    """Events, each known by its time alone, with the columns that the source has now."""
    values = {name: [f"{name}{at}" if how == "add" else None for at in events] for name, how in columns.items()}
    return pa.table(
        {
            "at": pa.array(events, pa.int64()),
            "x": pa.array([at / 10 for at in events], type_of_x),
            **{name: pa.array(texts, pa.string()) for name, texts in values.items()},
        }
    )


@histories(4)
@given(steps=STEPS)
def test_however_columns_come_and_go_every_event_within_the_lag_lands_as_often_as_it_is(
    small_lake: Settings, steps: list[tuple[list[int], str, int]]
) -> None:
    name, events, columns, type_of_x, position = f"t{next(NUMBERS)}", list[int](), dict[str, str](), FLOAT, 0
    with open_lakehouse(small_lake) as lake, pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_module, "CHUNK_ROWS", 1)
        for number, (new, change, first) in enumerate(steps):
            since = max(1, position - LAG)
            events += [since + early for early in new]
            if change.startswith("add"):
                columns[f"c{number}"] = change
            elif change == "lose" and columns:
                columns.pop(next(iter(columns)))
            type_of_x = DOUBLE if change == "widen" else type_of_x
            stretch = sorted(at for at in events if at >= since)
            position = max(stretch, default=position)
            parts = [part for part in (stretch[:first], stretch[first:]) if part] or [[]]
            batches = [
                batch_of(delivered(part, columns, type_of_x), {"cursor": f"{number}:{place}"})
                for place, part in enumerate(parts)
            ]
            source = MemorySource(batches, again=Overlap("at", since) if number else None)
            load_table(lake, "shop", source, name, KEYLESS, run_id="r")
            found = [at for (at,) in lake.connection.execute(f'SELECT "at" FROM raw_shop.{name}').fetchall()]
            assert Counter(found) == Counter(events)
