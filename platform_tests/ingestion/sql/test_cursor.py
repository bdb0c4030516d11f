"""Cursor values as text: whatever is written must be read back as it was."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.cursor import last_position, less, parse
from data_platform.ingestion.sql.dialects.session import Kind

VALUES: dict[Kind, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "integer": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "decimal": (pa.decimal128(38, 6), st.decimals(-(10**30), 10**30, places=6)),
    "float": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "timestamptz": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(dt.UTC))),
    "text": (pa.string(), st.text(min_size=1, alphabet=st.characters(codec="utf-8"))),
}


@given(st.data())
@pytest.mark.parametrize("kind", list(VALUES))
def test_a_position_reads_back_as_the_value_it_was_written_from(kind: Kind, data: st.DataObject) -> None:
    arrow, strategy = VALUES[kind]
    value = data.draw(strategy)
    text = last_position(pa.chunked_array([[value, None]], arrow), kind)
    assert text is not None
    assert parse(text, kind, "t") == value


@pytest.mark.parametrize("kind", ["integer", "date", "timestamp", "timestamptz", "float", "decimal"])
def test_a_position_of_another_kind_is_refused_with_what_to_do(kind: Kind) -> None:
    with pytest.raises(PlatformError, match="--full-refresh"):
        parse("yesterday", kind, "Table t")


@pytest.mark.parametrize(
    ("kind", "text"), [("timestamp", "2013-01-01T00:00:00.000000+00:00"), ("timestamptz", "2013-01-01T00:00:00.000000")]
)
def test_a_cursor_that_got_or_lost_its_time_zone_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(PlatformError, match="the type of the cursor column has changed"):
        parse(text, kind, "Table t")


HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("kind", "text", "lag", "expected"),
    [
        ("integer", "10", 3, "7"),
        ("integer", "10", 2.5, "7"),
        ("decimal", "10.50", 1, "9.50"),
        ("float", "1.5", 1, "0.5"),
        ("date", "2013-01-01", HOUR, "2012-12-31"),
        ("timestamp", "2013-01-01T00:30:00.000001", HOUR, "2012-12-31T23:30:00.000001"),
        ("timestamptz", "2013-01-01T00:30:00.000000+00:00", HOUR, "2012-12-31T23:30:00.000000+00:00"),
        ("timestamp", "0001-01-01T00:30:00.000000", HOUR, ""),
        ("text", "2013-01-01T00:30:00Z", HOUR, "2012-12-31T23:30:00Z"),
        ("text", "2013-01-01 00:30:00.123456789", HOUR, "2012-12-31 23:30:00.123456789"),
        ("text", "2013-01-01 00:30", HOUR, "2012-12-31 23:30"),
        ("text", "2013-01-01T00:30:00.5+02:00", HOUR, "2012-12-31T23:30:00.5+02:00"),
        ("text", "2013-01-01", HOUR, "2012-12-31"),
        ("text", "0001-01-01", HOUR, ""),
        ("text", "anything", None, "anything"),
        ("text", "2013-02-30T00:00:00Z", None, "2013-02-30T00:00:00Z"),
        ("integer", "10", None, "10"),
        ("timestamp", "2013-01-01T00:10:00.000000", None, "2012-12-31T23:55:00.000000"),
        ("timestamptz", "2013-01-01T00:10:00.000000+00:00", None, "2012-12-31T23:55:00.000000+00:00"),
        ("date", "2013-01-01", None, "2012-12-31"),
        ("text", "2013-01-01T00:10:00Z", None, "2012-12-31T23:55:00Z"),
        ("timestamp", "2013-01-01T00:10:00.000000", dt.timedelta(), "2013-01-01T00:10:00.000000"),
        ("text", "2013-01-01T00:10:00Z", 0, "2013-01-01T00:10:00Z"),
        ("timestamp", "", HOUR, ""),
    ],
)
def test_a_lag_is_taken_off_in_the_shape_of_the_value(kind: Kind, text: str, lag: Any, expected: str) -> None:
    assert less(text, kind, lag, "Table t") == expected


@pytest.mark.parametrize("text", ["2013-1-1", "01/02/2013", "2013-01-01T25", "20130101", "x"])
def test_a_lag_on_text_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="is no time such as"):
        less(text, "text", HOUR, "Table t")


@pytest.mark.parametrize("text", ["2013-02-30T00:00:00Z", "2013-01-01T25:00:00Z"])
def test_a_lag_on_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="is no time such as"):
        less(text, "text", HOUR, "Table t")


@pytest.mark.parametrize(("kind", "lag"), [("integer", HOUR), ("timestamptz", 5), ("text", 5)])
def test_a_lag_of_the_wrong_kind_is_refused(kind: Kind, lag: Any) -> None:
    with pytest.raises(PlatformError, match="its lag must be"):
        less({"integer": "1", "text": "x"}.get(kind, "2013-01-01T00:00:00.000000+00:00"), kind, lag, "Table t")


@pytest.mark.parametrize(
    ("kind", "arrow", "value"),
    [
        ("float", pa.float64(), float("inf")),
        ("float", pa.float64(), float("nan")),
        ("decimal", pa.string(), "NaN"),
        ("decimal", pa.string(), "Infinity"),
    ],
)
def test_values_that_would_keep_all_others_out_move_no_position(kind: Kind, arrow: pa.DataType, value: Any) -> None:
    assert last_position(pa.chunked_array([[value]], arrow), kind) is None
    assert last_position(pa.chunked_array([], arrow), kind) is None


def test_the_lowest_position_of_a_decimal_is_below_any_decimal() -> None:
    assert parse("", "decimal", "t") <= Decimal(-(10**37))
