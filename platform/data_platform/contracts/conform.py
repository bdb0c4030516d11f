"""Casts: a column as the type that its contract wants, null where a value does not fit without loss. What becomes of
such a value is `audit`'s work; texts that need repair first are `cleaning`'s.
"""

import polars as pl

from data_platform.cleaning.time import parse_instant
from data_platform.contracts.texts import UNITS, as_text, in_calendar

TRUE = ["true", "t", "yes", "y", "1"]
FALSE = ["false", "f", "no", "n", "0"]

EXACT_IN_FLOAT = 2**53
"""Below this a float tells one whole number from the next."""


def conform(name: str, dtype: pl.DataType, wanted: pl.DataType, *, infinite: bool = False) -> pl.Expr:
    """Column `name` of type `dtype` as `wanted`; null where a value does not fit without loss.

    Numbers as text may have blanks around them and an exponent (`1e3` is 1000). A decimal may have zeros behind its
    scale, but no other digit. A float takes every fraction, to its own precision, but whole numbers only if it holds
    them exactly; never not-a-number, and infinity only if `infinite`. True and false are 1 and 0, or texts of TRUE and
    FALSE. A date is `YYYY-MM-DD`, or an instant at midnight; dates and instants are of the years 1 to 9999. A time is
    `HH:MM`, with seconds and their fraction if given. Bytes as text are UTF-8; lists and structs as text are JSON.
    Types that say nothing of each other (a date as a number) give null.
    """
    column = pl.col(name)
    if dtype == pl.Null:
        return column.cast(wanted)
    if wanted.is_float():
        number = column if dtype == wanted else _number(column, dtype, wanted)
        return number.map_batches(_with_infinity if infinite else _finite, return_dtype=wanted).alias(name)
    if isinstance(wanted, pl.Datetime):
        return _instant(column, dtype, wanted).alias(name)
    if wanted == pl.Date:
        return _date(column, dtype).alias(name)
    if dtype == wanted:
        return column
    return _other(column, dtype, wanted).alias(name)


def _with_infinity(number: pl.Series) -> pl.Series:
    """NaN is greater than every bound, and spoils every sum."""
    return number.fill_nan(None) if number.is_nan().any() else number


def _finite(number: pl.Series) -> pl.Series:
    if number.is_finite().all():
        return number
    return number.to_frame("v").select(pl.when(pl.col("v").is_finite()).then(pl.col("v")))["v"]


def _null(column: pl.Expr, wanted: pl.DataType) -> pl.Expr:
    """Null in every row: a literal would have one row only."""
    return pl.when(column.is_null()).then(pl.lit(None, dtype=wanted))


def _other(column: pl.Expr, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if wanted == pl.String:
        return _text(column, dtype)
    if wanted.is_numeric():
        return _number(column, dtype, wanted)
    if wanted == pl.Boolean:
        return _boolean(column, dtype)
    if wanted == pl.Time and dtype == pl.String:
        text = column.str.strip_chars()
        short = pl.when(text.str.len_bytes() == len("HH:MM")).then(text + ":00").otherwise(text)
        return short.str.to_time("%H:%M:%S%.f", strict=False)
    if wanted == pl.Binary and dtype == pl.String:
        return column.cast(pl.Binary)
    if isinstance(wanted, pl.Duration) and isinstance(dtype, pl.Duration):
        cast = column.cast(wanted, strict=False)
        return pl.when(cast.cast(dtype, strict=False) == column).then(cast)
    if wanted.is_nested() and dtype.is_nested():
        return column.cast(wanted, strict=False)
    if isinstance(wanted, pl.Enum | pl.Categorical) and dtype == pl.String:
        return column.cast(wanted, strict=False)
    return _null(column, wanted)


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Binary:
        return column.map_batches(_decoded, return_dtype=pl.String)
    if dtype.is_nested() or dtype.is_temporal():
        return column.map_batches(as_text, return_dtype=pl.String)
    return column.cast(pl.String, strict=False)


def _decoded(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series([_utf8(value) for value in values], dtype=pl.String)


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _boolean(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        lower = column.str.strip_chars().str.to_lowercase()
        return pl.when(lower.is_in(TRUE)).then(True).when(lower.is_in(FALSE)).then(False)
    if dtype.is_numeric():
        return pl.when(column == 1).then(True).when(column == 0).then(False)
    return _null(column, pl.Boolean())


def _number(column: pl.Expr, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if dtype == pl.Boolean:
        return column.cast(pl.Int8).cast(wanted, strict=False)
    if dtype == pl.String:
        return _number_of_text(column.str.strip_chars(), wanted)
    if not dtype.is_numeric():
        return _null(column, wanted)
    if isinstance(wanted, pl.Decimal):
        fits = column.abs() < 10 ** (wanted.precision - wanted.scale) if dtype.is_float() else pl.lit(True)
        cast = pl.when(fits).then(column).cast(wanted, strict=False)
        return pl.when(cast.cast(dtype, strict=False) == column).then(cast)
    cast = column.cast(wanted, strict=False)
    if wanted.is_float():
        if dtype.is_float():
            return cast
        # A float that is too great for the type becomes null on its way back.
        return pl.when(cast.cast(dtype, strict=False) == column).then(cast)
    if dtype.is_integer():
        return cast
    return pl.when(column == column.floor()).then(cast)


def _number_of_text(text: pl.Expr, wanted: pl.DataType) -> pl.Expr:
    if isinstance(wanted, pl.Decimal):
        exact = text.str.contains(rf"^[+-]?(\d+\.?|\d*\.\d{{1,{max(wanted.scale, 1)}}}0*)$")
        zeros = text.str.contains(r"^[+-]?\d+\.0*$")
        return (
            pl.when(exact if wanted.scale else exact & ~text.str.contains(r"\.0*[1-9]") | zeros)
            .then(text)
            .cast(wanted, strict=False)
        )
    if wanted.is_float():
        return text.map_batches(_float_of_text, return_dtype=pl.Float64).cast(wanted, strict=False)
    number = text.cast(pl.Float64, strict=False)
    exact = (number == number.floor()) & (number.abs() < EXACT_IN_FLOAT)
    whole = pl.when(exact).then(number.cast(wanted, strict=False))
    return pl.coalesce(text.cast(wanted, strict=False), whole)


def _float_of_text(text: pl.Series) -> pl.Series:
    number = text.cast(pl.Float64, strict=False)
    least, most = number.min(), number.max()
    if least is None or (least > -EXACT_IN_FLOAT and most < EXACT_IN_FLOAT):  # type: ignore[operator]
        return number
    long = text.cast(pl.Int128, strict=False)
    exact = long.is_null() | (number.cast(pl.Int128, strict=False) == long)
    return number.to_frame("v").select(pl.when(exact).then(pl.col("v"))).to_series()


def _date(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Date:
        return pl.when(in_calendar(column, dtype)).then(column)
    if dtype == pl.String:
        text = column.str.strip_chars()
        date = text.str.to_date("%Y-%m-%d", strict=False)
        # Of ten characters, only a sign or a year of five digits would still be read otherwise.
        return pl.when(
            text.str.len_bytes() == len("YYYY-MM-DD"), ~text.str.starts_with("+"), in_calendar(date, pl.Date())
        ).then(date)
    if isinstance(dtype, pl.Datetime):
        at: pl.Expr = pl.when(in_calendar(column, dtype)).then(column)
        at = at.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone is not None else at
        return pl.when(at.dt.truncate("1d") == at).then(at.cast(pl.Date))
    return _null(column, pl.Date())


def _instant(column: pl.Expr, dtype: pl.DataType, wanted: pl.Datetime) -> pl.Expr:
    if isinstance(dtype, pl.Date | pl.Datetime):
        column = pl.when(in_calendar(column, dtype)).then(column)
    if dtype == wanted:
        return column
    if dtype == pl.String:
        instant = parse_instant(column)
    elif dtype == pl.Date:
        instant = column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif isinstance(dtype, pl.Datetime):
        instant = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column
    else:
        return _null(column, wanted)
    if wanted.time_zone is None:
        cast = instant.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(wanted)
    else:
        cast = instant.dt.convert_time_zone(wanted.time_zone).cast(wanted)
    if isinstance(dtype, pl.Datetime) and UNITS[dtype.time_unit] > UNITS[wanted.time_unit]:
        return pl.when(
            cast.to_physical() * (UNITS[dtype.time_unit] // UNITS[wanted.time_unit]) == column.to_physical()
        ).then(cast)
    return cast
