"""Casts give null, or a value that converts back to the one that was given."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.contracts.conform import conform
from data_platform.contracts.texts import as_json, as_text

INSTANT = pl.Datetime("us", "UTC")
MONEY = pl.Decimal(18, 2)
FAR_DAYS = pl.Series([2**31 - 1, -(2**31) + 1, 107_000_000, -800_000], dtype=pl.Int32).cast(pl.Date)
FAR_INSTANTS = pl.Series([2**63 - 1, -(2**63) + 1, 9_000_000_000_000_000_000], dtype=pl.Int64).cast(INSTANT)


def conformed(values: pl.Series, wanted: Any, *, infinite: bool = False) -> list[Any]:
    frame = values.to_frame("v")
    return frame.select(conform("v", values.dtype, wanted, infinite=infinite)).to_series().to_list()


@pytest.mark.parametrize(
    ("given_", "wanted", "right"),
    [
        (["19.999", "0.005", "1.10", "1.100", "-3", "1.", ".5", "x", "", "9" * 30], MONEY,
         [None, None, Decimal("1.10"), Decimal("1.10"), Decimal(-3), Decimal(1), Decimal("0.5"), None, None, None]),
        (["2.0", "2.5", "2", "2."], pl.Decimal(18, 0), [Decimal(2), None, Decimal(2), Decimal(2)]),
        ([19.999, 0.1, 1e15, 1e300, float("inf"), float("nan")], MONEY,
         [None, Decimal("0.10"), Decimal(10**15), None, None, None]),
        ([1e15, 2.5], pl.Decimal(18, 4), [None, Decimal("2.5")]),
        ([10**17, 1], MONEY, [None, Decimal(1)]),
        ([Decimal("1.25"), Decimal("1.20")], pl.Decimal(10, 1), [None, Decimal("1.2")]),
        (["24-01-05", "99-12-31", "-2013-01-02", "12013-01-02", "2013-1-2", " 2013-01-02 ", "+013-01-02"], pl.Date(),
         [None, None, None, None, None, date(2013, 1, 2), None]),
        (["1e999", "Infinity", "inf", "-inf", "nan", "1e3"], pl.Float64(), [None, None, None, None, None, 1000.0]),
        ([float("inf"), float("-inf"), float("nan"), 0.5], pl.Float64(), [None, None, None, 0.5]),
        ([1e39, 0.5], pl.Float32(), [None, 0.5]),
        (["1e39", "0.5"], pl.Float32(), [None, 0.5]),
        (["9007199254740993", "9007199254740992"], pl.Float64(), [None, float(2**53)]),
        ([2**53 + 1, 2**53, 2**63 - 1], pl.Float64(), [None, float(2**53), None]),
        ([2, -1, 0, 1], pl.Boolean(), [None, None, False, True]),
        ([0.5, 0.0, 1.0], pl.Boolean(), [None, False, True]),
        (["perhaps", "T", "0"], pl.Boolean(), [None, True, False]),
        ([datetime(2024, 5, 1, 13, 5), datetime(2024, 5, 1)], pl.Date(), [None, date(2024, 5, 1)]),
        ([datetime(2024, 5, 1, 13, 5, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)], pl.Date(),
         [None, date(2024, 5, 1)]),
        ([date(2024, 5, 1)], INSTANT, [datetime(2024, 5, 1, tzinfo=UTC)]),
        ([2.0**63, 1.5, 3.0], pl.Int64(), [None, None, 3]),
        (["1e3", "1.5", str(2**63)], pl.Int64(), [1000, None, None]),
        (["17:30", "17:30:01.5", "24:00:00", "7:30 pm", "17:30:00"], pl.Time(),
         [time(17, 30), time(17, 30, 1, 500_000), None, None, time(17, 30)]),
        (["17:30:60", "23:59:60", "7:30:00", "17:3:00", "00:00:00.123456789", "00:00:00.0000001", "-01:00:00"],
         pl.Time(), [None] * 7),
        (["2013- 1- 2", " 2013-1-02", "+2013-1-02", "2013-02-30", "2013-01-02\n", "0000-00-00", "infinity"], pl.Date(),
         [None, None, None, None, date(2013, 1, 2), None, None]),
        (["2013-01-02T13:05:00.123456Z", "2013-01-02T13:05:00.123456000Z", "2013-01-02T13:05:00.123456789Z", "24-01-05",
          "2013-01-02 24:00:00", "0000-00-00 00:00:00", "infinity", "294276-12-31 00:00:00", "0044-03-15 00:00:00 BC"],
         INSTANT, [datetime(2013, 1, 2, 13, 5, 0, 123_456, UTC)] * 2 + [None] * 7),
        (["1e3", "1e-3", "1E2", "+1.5", "-.5", "1_0", "1,5", "1.5.0", "NaN", "１"], MONEY,
         [None, None, None, Decimal("1.5"), Decimal("-0.5"), None, None, None, None, None]),
        (["12345678901234567890123456789012345678", "0." + "0" * 37 + "1"], pl.Decimal(38, 0),
         [Decimal("12345678901234567890123456789012345678"), None]),
        (["0." + "0" * 37 + "1", "1"], pl.Decimal(38, 38), [Decimal("1e-38"), None]),
        ([0.07, 0.29, 1.005, -0.07, 2.0**60], MONEY,
         [Decimal("0.07"), Decimal("0.29"), None, Decimal("-0.07"), None]),
        (["16777217", "16777216", "0.1"], pl.Float32(), [None, 16777216.0, pytest.approx(0.1)]),
        ([16777217.0, 16777216.0, 0.1], pl.Float32(), [None, 16777216.0, pytest.approx(0.1)]),
        ([16777217, 16777216], pl.Float32(), [None, 16777216.0]),
        (["1e-400", "-2.4e-324", "4.9e-324", "0e-400", "-0.0", " 0 "], pl.Float64(),
         [None, None, 5e-324, 0.0, 0.0, 0.0]),
        (["1e-46", "1e-45", "0"], pl.Float32(), [None, pytest.approx(1e-45), 0.0]),
        ([1e-46, -1e-300, 0.0, 0.5], pl.Float32(), [None, None, 0.0, 0.5]),
        (["7.00000000000000000001", "0.99999999999999999999", "4503599627370496.3", "7.0000000000000000000", "1.5e1",
          "15.0", "1.00000000000000000001e0", "9007199254740991.0"], pl.Int64(),
         [None, None, None, 7, 15, 15, None, 2**53 - 1]),
        (["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "0001-01-01T01:00:00+01:00"], INSTANT,
         [None, None, datetime(1, 1, 1, tzinfo=UTC)]),
        ([128, -129, 127], pl.Int8(), [None, None, 127]),
        ([-1, 0], pl.UInt8(), [None, 0]),
        ([float("nan"), 1.0], pl.Int64(), [None, 1]),
        ([True, False], MONEY, [Decimal(1), Decimal(0)]),
        ([datetime(2300, 1, 1), datetime(2200, 1, 1)], pl.Datetime("ns", "UTC"),
         [None, datetime(2200, 1, 1, tzinfo=UTC)]),
        ([["1", "x"], ["2"], [], None, [None]], pl.List(pl.Int64()), [None, [2], [], None, [None]]),
        ([["19.999"], ["1.10"]], pl.List(MONEY), [None, [Decimal("1.10")]]),
        ([[float("inf")], [1.5, None]], pl.List(pl.Float64()), [None, [1.5, None]]),
        ([[1, 2], [1]], pl.Array(pl.Int64(), 2), [[1, 2], None]),
        ([[["2013-01-02"], None], [["24-01-05"]]], pl.List(pl.List(pl.Date())), [[[date(2013, 1, 2)], None], None]),
        ([{"a": "1", "b": "x"}, {"a": "x", "b": "y"}, {"a": None, "b": "y"}, None],
         pl.Struct({"a": pl.Int64(), "c": pl.String()}),
         [{"a": 1, "c": None}, None, {"a": None, "c": None}, None]),
        ([{"a": 1}], pl.List(pl.Int64()), [None]),
        ([1, 2], pl.List(pl.Int64()), [None, None]),
        (["open", "gone"], pl.Enum(["open"]), ["open", None]),
        ([b"\xff", b"caf\xc3\xa9"], pl.String(), [None, "café"]),
        (["é"], pl.Binary(), ["é".encode()]),
        ([[1, 2], []], pl.String(), ["[1,2]", "[]"]),
        ([{"a": b"\xff"}, None], pl.String(), ['{"a":"\\\\xff"}', None]),
        ([date(2024, 5, 1)], pl.Boolean(), [None]),
        ([[1]], pl.Int64(), [None]),
        ([b"1"], pl.Int64(), [None]),
        ([timedelta(days=1)], pl.Int64(), [None]),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_without_loss_is_null(given_: list[Any], wanted: Any, right: list[Any]) -> None:
    values = pl.Series([{"v": v} for v in given_]).struct.field("v")
    assert conformed(values, wanted) == right
    # The same beside a value that fits, and of a slice: what is checked of a column is not what is checked of a value.
    assert [conformed(values[at : at + 1], wanted)[0] for at in range(len(values))] == right


def test_infinity_passes_where_the_contract_allows_it() -> None:
    assert conformed(pl.Series([float("inf"), float("nan")]), pl.Float64(), infinite=True) == [float("inf"), None]


def test_nanoseconds_that_an_instant_has_no_place_for_are_not_cut() -> None:
    nanoseconds = pl.Series([1_500, 2_000], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    assert conformed(nanoseconds, INSTANT) == [None, datetime(1970, 1, 1, 0, 0, 0, 2, UTC)]
    assert conformed(nanoseconds, pl.Datetime("ns", "UTC")) == nanoseconds.to_list()


def test_an_empty_column_of_any_type_becomes_an_empty_column_of_any_other() -> None:
    for dtype in VALUES:
        for wanted in VALUES:
            assert conformed(pl.Series([], dtype=dtype), wanted) == []
            assert conformed(pl.Series([None], dtype=dtype), wanted) == [None]


@pytest.mark.parametrize("far", [FAR_DAYS, FAR_INSTANTS], ids=["days", "instants"])
@pytest.mark.parametrize("wanted", [pl.Date(), INSTANT, pl.Datetime("us"), pl.Int64(), pl.Boolean(), pl.Time()])
def test_dates_beyond_the_calendar_are_null_and_never_a_panic(far: pl.Series, wanted: Any) -> None:
    assert conformed(far, wanted) == [None] * len(far)


def test_values_that_polars_cannot_write_are_text_all_the_same() -> None:
    assert as_text(FAR_DAYS).to_list()[:2] == ["infinity", "-infinity"]
    assert as_text(FAR_DAYS).to_list()[2:] == ["294926-01-19", "-221-09-04"]
    assert as_text(FAR_INSTANTS).to_list()[:2] == ["infinity", "-infinity"]
    frame = pl.DataFrame({"b": [b"\x00\xff"], "l": [[b"a", None]], "d": FAR_DAYS[:1], "s": [{"x": [b""]}]})
    assert as_json(frame).item() == r'{"b":"\\x00ff","l":["\\x61",null],"d":"infinity","s":{"x":["\\x"]}}'


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pl.Int8(): st.integers(-128, 127),
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.UInt64(): st.integers(0, 2**64 - 1),
    pl.Float64(): st.floats(allow_nan=False) | st.integers(-9, 9).map(float),
    pl.Decimal(18, 2): st.decimals(-(10**15), 10**15, places=2),
    pl.Decimal(38, 9): st.decimals(-(10**28), 10**28, places=9),
    pl.Boolean(): st.booleans(),
    pl.Date(): st.dates(),
    INSTANT: st.datetimes(timezones=st.just(UTC)),
    pl.Datetime("us"): st.datetimes(),
    pl.Datetime("ms"): st.datetimes().map(lambda at: at.replace(microsecond=0)),
    pl.Time(): st.times(),
    pl.Duration("us"): st.timedeltas(timedelta(days=-99), timedelta(days=99)),
    pl.Binary(): st.binary(max_size=8),
    pl.String(): st.text(max_size=8),
}


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize("wanted", VALUES, ids=str)
def test_a_cast_is_null_or_converts_back_to_an_equal_value(dtype: Any, wanted: Any) -> None:
    @settings(max_examples=20, deadline=None, database=None)
    @given(st.lists(VALUES[dtype], min_size=1, max_size=20))
    def holds(values: list[Any]) -> None:
        series = pl.Series("v", values, dtype=dtype)
        there = series.to_frame().select(conform("v", dtype, wanted)).to_series()
        assert there.dtype == wanted
        if dtype == pl.String:
            return  # several texts are one value
        back = there.to_frame().select(conform("v", wanted, dtype, infinite=True)).to_series()
        for before, through, after in zip(series, there, back, strict=True):
            if wanted == pl.String and isinstance(dtype, pl.Duration | pl.Binary):
                assert through is None or dtype != pl.Binary or through.encode() == before
            else:
                assert through is None or before == after

    holds()
