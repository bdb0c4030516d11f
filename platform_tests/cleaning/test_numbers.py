"""Numbers in many formats. What is read must be right, what is not must still be there."""

from decimal import Decimal
from typing import get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import number, number_text
from data_platform.cleaning.numbers import DecimalMark


def column(expr: pl.Expr, *texts: str | None) -> list[object]:
    return pl.DataFrame({"n": pl.Series(texts, dtype=pl.String)}).lazy().select(expr).collect()["n"].to_list()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1,234.50", "1234.50"),
        ("1.234,50", "1234.50"),
        ("1 234,50", "1234.50"),
        ("1\u00a0234\u202f567.5", "1234567.5"),
        ("1'234.50", "1234.50"),
        ("1’234,50", "1234.50"),
        ("12,34,567.8", "1234567.8"),
        ("1.234.567", "1234567"),
        ("$ 99", "99"),
        ("$-5.00", "-5.00"),
        ("-$5.00", "-5.00"),
        ("99 USD", "99"),
        ("99usd", "99"),
        ("($1,000.00)", "-1000.00"),
        ("12.00-", "-12.00"),
        ("\u2212 7", "-7"),
        ("+7", "7"),
        ("99.5", "99.5"),
        ("234,50", "234.50"),
        ("0,234", "0.234"),
        ("1234,567", "1234.567"),
        (".5", "0.5"),
        ("5.", "5"),
        ("007", "7"),
        ("1.2e3", "1.2e3"),
        ("12.5%", "0.125"),
        ("-5 %", "-0.05"),
        ("0.004 %", "0.00004"),
        (" 42\n", "42"),
    ],
)
def test_a_number_is_read_in_any_common_format(text: str, plain: str) -> None:
    assert column(number_text("n", units=["$", "USD"]), text) == [plain]
    assert column(number("n", units=["$", "USD"]), text) == [float(plain)]


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "abc", "12 34", "1,23,4", "1,,234", "1.2.3", "--5", "(-5)", "()", "€ 99", "99 km", "5 5", "1e5%",
        "0x1F", "1_000", "٣", "1,234.50.1", "5 $ 5", "2013-01-02",
    ],
)  # fmt: skip
def test_what_is_no_number_stays_as_it_is_and_is_null_as_a_number(text: str) -> None:
    assert column(number_text("n", units=["$"]), text) == [text]
    assert column(number_text("n", units=["$"]).cast(pl.Float64, strict=False), text) == [None]
    assert column(number("n", units=["$"]), text) == [None]


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400", "1e-999"])
def test_what_polars_would_cast_to_infinity_is_marked_unreadable(text: str) -> None:
    assert column(number_text("n"), text) == [f"unreadable: {text}"]
    assert column(number_text("n").cast(pl.Float64, strict=False), text) == [None]
    assert column(number("n"), text) == [None]


def test_not_a_number_is_a_missing_number() -> None:
    assert column(number_text("n"), "NaN", "nan", None) == [None, None, None]


def test_the_decimal_mark_decides_what_the_shape_leaves_open_and_nothing_else() -> None:
    ambiguous, clear = ["1,234", "1.234"], ["1,5", "1.5", "1,234.5", "1.234,5"]
    assert column(number_text("n", decimal="."), *ambiguous) == ["1234", "1.234"]
    assert column(number_text("n", decimal=","), *ambiguous) == ["1.234", "1234"]
    for decimal in get_args(DecimalMark):
        assert column(number_text("n", decimal=decimal), *clear) == ["1.5", "1.5", "1234.5", "1234.5"]


def test_a_unit_is_dropped_only_when_it_was_named() -> None:
    assert column(number_text("n", units=["%"]), "45 %") == ["45"]
    assert column(number_text("n", units=["US$", "$"]), "US$ 5", "$5", "USD 5") == ["5", "5", "USD 5"]


def test_money_is_read_exactly() -> None:
    money = number("n", units=["$"], dtype=pl.Decimal(18, 2))
    assert column(money, "$ 1,234.50", "0.10", "x") == [Decimal("1234.50"), Decimal("0.10"), None]


AMOUNT = st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, places=2)
FORMATS = {"us": (",", "."), "de": (".", ","), "fr": ("\u202f", ","), "ch": ("'", "."), "plain": ("", ".")}


@given(AMOUNT, st.sampled_from(sorted(FORMATS)), st.sampled_from([".", ","]), st.sampled_from(["", "$", "EUR "]))
def test_every_format_of_an_amount_reads_as_the_amount(
    amount: Decimal, form: str, decimal: DecimalMark, unit: str
) -> None:
    """With two decimals no format is ambiguous, so either mark will do."""
    group, mark = FORMATS[form]
    digits = f"{abs(amount):,.2f}".translate({ord(","): group, ord("."): mark})
    sign = "-" if amount < 0 else ""
    for text in (f"{sign}{unit}{digits}", f"{unit}{digits}{sign}", f"({unit}{digits})" if sign else f"{digits} {unit}"):
        (found,) = column(number_text("n", decimal=decimal, units=["$", "EUR"]), text)
        assert isinstance(found, str)
        assert Decimal(found) == amount


@given(st.text(alphabet="0123456789.,'()-+ e%$"))
def test_what_is_read_reads_as_itself_and_what_is_not_casts_to_nothing(text: str) -> None:
    (found,) = column(number_text("n", units=["$"]), text)
    (value,) = column(number("n", units=["$"]), text)
    assert column(pl.col("n").cast(pl.Float64, strict=False), str(found)) == [value]
    if value is not None:
        assert column(number_text("n"), str(found)) == [found]
    else:
        assert found in (text, f"unreadable: {text}")
