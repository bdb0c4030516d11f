"""The newest row for each key, against the same rule in plain Python."""

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import newest
from data_platform.errors import PlatformError

Row = tuple[str | None, int | None, int | None, int | None]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.none() | st.integers(0, 1),
        st.none() | st.integers(0, 2),
        st.none() | st.integers(0, 2),
    ),
    max_size=25,
)


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    schema = {"k1": pl.String, "k2": pl.Int64, "by1": pl.Int64, "by2": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("arrival")


def naive(rows: Sequence[Row]) -> list[int]:
    """Positions of the rows kept: greatest (by1, by2), nulls least, then the last; all those without a whole key."""
    best: dict[tuple[object, object], int] = {}
    without_key = []
    for position, (k1, k2, *_) in enumerate(rows):
        if k1 is None or k2 is None:
            without_key.append(position)
            continue
        held = best.get((k1, k2))
        if held is None or order(rows[position]) >= order(rows[held]):
            best[k1, k2] = position
    return sorted([*best.values(), *without_key])


def order(row: Row) -> tuple[int, int]:
    return (-1 if row[2] is None else row[2], -1 if row[3] is None else row[3])


@given(ROWS)
def test_it_keeps_what_plain_python_keeps_in_order_of_arrival(rows: list[Row]) -> None:
    frame = frame_of(rows)
    kept = newest(frame, ["k1", "k2"], ["by1", "by2"])
    assert kept["arrival"].to_list() == naive(rows)
    assert kept.columns == frame.columns
    assert newest(frame.lazy(), ["k1", "k2"], ["by1", "by2"]).collect().equals(kept)
    assert newest(frame.lazy(), ["k1", "k2"], ["by1", "by2"]).collect(engine="streaming").equals(kept)
    assert newest(kept, ["k1", "k2"], ["by1", "by2"]).equals(kept)


def test_without_an_order_the_last_to_arrive_wins() -> None:
    frame = pl.DataFrame({"k": ["a", "b", "a"], "v": [1, 2, 3]})
    assert newest(frame, "k").rows() == [("b", 2), ("a", 3)]


def test_a_null_is_older_than_any_value_and_among_nulls_the_last_wins() -> None:
    frame = pl.DataFrame({"k": ["a", "a", "b", "b"], "by": [1, None, None, None], "v": [1, 2, 3, 4]})
    assert newest(frame, "k", "by")["v"].to_list() == [1, 4]


def test_rows_without_a_key_are_all_kept_for_the_contract_to_refuse() -> None:
    frame = pl.DataFrame({"k": [None, None, "a"], "v": [1, 2, 3]}, schema_overrides={"k": pl.String})
    assert newest(frame, "k")["v"].to_list() == [1, 2, 3]


def test_instants_as_text_and_as_instants_give_the_same_rows() -> None:
    texts = ["2013-01-02T00:00:00Z", "2013-01-10T00:00:00Z", None]
    frame = pl.DataFrame({"k": ["a"] * 3, "t": texts, "v": [1, 2, 3]})
    typed = frame.with_columns(pl.col("t").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"))
    assert newest(frame, "k", "t")["v"].to_list() == newest(typed, "k", "t")["v"].to_list() == [2]


def test_a_column_that_does_not_exist_is_reported_with_those_that_do() -> None:
    frame = pl.DataFrame({"k": [1], "v": [1]})
    with pytest.raises(PlatformError, match=r"updated_at.*The columns are k, v"):
        newest(frame, "k", "updated_at")
    with pytest.raises(PlatformError, match="No key"):
        newest(frame, [])
