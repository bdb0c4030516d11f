"""Casts: a column as the type that its contract wants, null where a value does not fit without loss. What becomes of
such a value is `audit`'s work; texts that need repair first are `cleaning`'s.

A whole column is cast first, in the quickest way. Only values of which that says too little (most often none) are
looked at one by one, or cast back and compared.
"""

from collections.abc import Callable
from typing import cast

import polars as pl

from data_platform.cleaning.time import parse_instant
from data_platform.contracts.texts import SECONDS, UNITS, as_text, in_calendar, is_in_calendar

TRUE = ["true", "t", "yes", "y", "1"]
FALSE = ["false", "f", "no", "n", "0"]

EXACT_DIGITS = 15
"""A float of 64 bits keeps every number of so many decimal digits apart from the next one (IEEE 754: DBL_DIG)."""

MICROSECONDS = len("2013-01-02T13:05:00.000000")
"""Text of an instant that is no longer than this has no digits beyond."""


def conform(name: str, dtype: pl.DataType, wanted: pl.DataType, *, infinite: bool = False) -> pl.Expr:
    """Column `name` of type `dtype` as `wanted`; null where a value does not fit without loss.

    Numbers as text may have blanks around them and an exponent (`1e3` is 1000), but decimals no exponent. A decimal may
    have zeros behind its scale, and no other digit. A float takes every fraction, to its own precision, that is not so
    small as to become zero, and whole numbers only if it holds them exactly; never not-a-number, and infinity only if
    `infinite`. True and false are 1 and 0, or texts of TRUE and FALSE. A date is `YYYY-MM-DD`, or an instant at
    midnight; dates and instants are of the years 1 to 9999. An instant as text is what `parse_instant` reads, with no
    more than microseconds. A time is `HH:MM`, with seconds and their fraction to the microsecond if given. Bytes as
    text are UTF-8; lists and structs as text are JSON. A list or a struct is null as a whole if a value in it does not
    fit; fields of a struct that `wanted` does not name are left out. Types that say nothing of each other (a date as a
    number) give null.
    """
    column = pl.col(name)
    if dtype == wanted and not (wanted.is_float() or wanted.is_temporal() or wanted.is_nested()):
        return column
    return column.map_batches(lambda values: converted(values, wanted, infinite=infinite), return_dtype=wanted)


def converted(values: pl.Series, wanted: pl.DataType, *, infinite: bool = False) -> pl.Series:
    """As `conform`, of a series."""
    dtype = values.dtype
    if dtype == pl.Null:
        return values.cast(wanted)
    if isinstance(wanted, pl.List | pl.Array | pl.Struct):
        return _nested(values, wanted, infinite=infinite)
    if wanted.is_float():
        return _finite(_float(values, wanted), infinite=infinite)
    if isinstance(wanted, pl.Datetime):
        return _instant(values, wanted)
    if wanted == pl.Date:
        return _date(values)
    if wanted == pl.Time and dtype == pl.Time:
        return _kept(values, values.to_physical() % 1000 == 0)
    if dtype == wanted:
        return values
    if wanted == pl.String:
        return _text(values)
    if isinstance(wanted, pl.Decimal):
        return _decimal(values, wanted)
    if wanted.is_integer():
        return _integer(values, wanted)
    if wanted == pl.Boolean:
        return _boolean(values)
    if wanted == pl.Time and dtype == pl.String:
        return _time(values)
    if wanted == pl.Binary and dtype == pl.String:
        return values.cast(pl.Binary)
    if isinstance(wanted, pl.Duration) and isinstance(dtype, pl.Duration):
        there = values.cast(wanted, strict=False)
        return _kept(there, there.cast(dtype, strict=False) == values)
    if isinstance(wanted, pl.Enum | pl.Categorical) and isinstance(dtype, pl.String | pl.Enum | pl.Categorical):
        return values.cast(pl.String).cast(wanted, strict=False)
    return _nulls(values, wanted)


def _nulls(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    return pl.Series(values.name, [None], dtype=wanted).new_from_index(0, len(values))


def _kept(values: pl.Series, fit: pl.Series) -> pl.Series:
    """The values where they fit, else null."""
    if fit.all() and fit.null_count() == values.null_count():
        return values
    return values.zip_with(fit.fill_null(False), _nulls(values.head(1), values.dtype))


def _mended(
    given: pl.Series, quick: pl.Series, carefully: Callable[[pl.Series], pl.Series], doubt: pl.Series | None = None
) -> pl.Series:
    """`quick`, but cast `carefully` where it is null and `given` is not, or where there is `doubt`."""
    if quick.null_count() == given.null_count() and doubt is None:
        return quick
    doubtful = quick.is_null() & given.is_not_null()
    rows = (doubtful if doubt is None else doubtful | doubt.fill_null(False)).arg_true()
    return quick if rows.is_empty() else quick.scatter(rows, carefully(given.gather(rows)))


def _within(values: pl.Series, limit: int) -> bool:
    """Whether all values are between -limit and limit."""
    least, most = cast("int | None", values.min()), cast("int | None", values.max())
    return least is None or most is None or bool(least >= -limit and most <= limit)


def _finite(number: pl.Series, *, infinite: bool) -> pl.Series:
    """Without NaN, which is greater than every bound and spoils every sum, and unless `infinite`, without infinity."""
    total = cast("float", number.sum())
    if total - total == 0:  # neither is among what was added
        return number
    return _kept(number, number.is_not_nan() if infinite else number.is_finite())


def _float(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    dtype = values.dtype
    if dtype == wanted:
        return values
    if dtype == pl.Boolean:
        return values.cast(wanted)
    if not (dtype.is_numeric() or dtype == pl.String):
        return _nulls(values, wanted)
    whole = 2**53 if wanted == pl.Float64 else 2**24
    if dtype == pl.String:
        number = values.cast(pl.Float64, strict=False)
        number = _mended(values, number, lambda text: text.str.strip_chars().cast(pl.Float64, strict=False))
        there = _no_vanished(number.cast(wanted), lambda: ~values.str.contains("^[^eE]*[1-9]"))
        if _within(number, whole - 1):
            return there
        long = values.str.strip_chars().cast(pl.Int128, strict=False)
        return _kept(_exact(there, number), long.is_null() | (number.cast(pl.Int128, strict=False) == long))
    there = values.cast(wanted, strict=False)
    if dtype.is_float():
        there = _no_vanished(there, lambda: values == 0)
        return there if _within(values, whole) else _exact(there, values)
    if isinstance(dtype, pl.Decimal):
        digits = EXACT_DIGITS if wanted == pl.Float64 else 6
        if _within(values, 10 ** max(digits - dtype.scale, 0)) and digits >= dtype.scale:
            return there
    elif _within(values, whole):
        return there
    # What is too great for the type becomes null on its way back.
    return _kept(there, there.cast(dtype, strict=False) == values)


def _no_vanished(there: pl.Series, was_zero: Callable[[], pl.Series]) -> pl.Series:
    """Floats, null where a number too small for the type became zero."""
    zero = there == 0
    return _kept(there, ~zero | was_zero()) if zero.any() else there


def _exact(there: pl.Series, number: pl.Series) -> pl.Series:
    """Floats in a narrower type, null where a whole number is another one there."""
    if there.dtype == number.dtype:
        return there
    return _kept(there, (number != number.floor()) | (there.cast(number.dtype) == number))


def _decimal(values: pl.Series, wanted: pl.Decimal) -> pl.Series:
    dtype = values.dtype
    if dtype == pl.String:
        # A digit other than 0 behind the scale, or an exponent.
        doubt = values.str.contains(rf"[eE]|\.[0-9]{{{wanted.scale}}}[0-9]*[1-9]")
        quick = values.cast(wanted, strict=False)
        return _mended(values, quick, lambda text: _decimal_of_text(text, wanted), doubt if doubt.any() else None)
    if dtype == pl.Boolean:
        return values.cast(pl.Int8).cast(wanted, strict=False)
    if dtype.is_float():
        limit = 10 ** (wanted.precision - wanted.scale)
        fitting = values if _within(values, limit - 1) else _kept(values, values.abs() < limit)
        there = fitting.cast(wanted, strict=False)
        if wanted.scale <= EXACT_DIGITS and _within(values, 10 ** (EXACT_DIGITS - wanted.scale)):
            # Divided by a single number, Polars multiplies by its inverse, which is another result.
            unit = pl.Series([10.0**wanted.scale]).new_from_index(0, len(values))
            return _kept(there, (values * unit).round() / unit == values)
        return _kept(there, there.cast(dtype, strict=False) == values)
    if not dtype.is_numeric():
        return _nulls(values, wanted)
    there = values.cast(wanted, strict=False)
    if isinstance(dtype, pl.Decimal) and dtype.scale > wanted.scale:
        return _kept(there, there.cast(dtype, strict=False) == values)
    return there


def _decimal_of_text(text: pl.Series, wanted: pl.Decimal) -> pl.Series:
    text = text.str.strip_chars()
    fits = text.str.contains(rf"^[+-]?([0-9]+\.?|[0-9]*\.[0-9]{{1,{max(wanted.scale, 1)}}}0*)$")
    if not wanted.scale:
        fits &= text.str.contains(r"^[^.]*\.?0*$")
    return _kept(text, fits).cast(wanted, strict=False)


def _integer(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    dtype = values.dtype
    if dtype == pl.String:
        return _mended(values, values.cast(wanted, strict=False), lambda text: _integer_of_text(text, wanted))
    if dtype == pl.Boolean:
        return values.cast(wanted)
    if not dtype.is_numeric():
        return _nulls(values, wanted)
    there = values.cast(wanted, strict=False)
    return there if dtype.is_integer() else _kept(there, values == values.floor())


def _integer_of_text(text: pl.Series, wanted: pl.DataType) -> pl.Series:
    text = text.str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    # Behind so many digits a float does not tell a fraction from none.
    few = text.str.extract("^[+-]?([0-9.]*)").str.len_bytes() <= EXACT_DIGITS + 1
    exact = (number == number.floor()) & (number.abs() < 2**53) & (few | ~text.str.contains(r"\.[0-9]*[1-9]"))
    whole = _kept(number, exact).cast(wanted, strict=False)
    plain = text.cast(wanted, strict=False)
    return plain.zip_with(plain.is_not_null(), whole)


def _boolean(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        lower = values.str.strip_chars().str.to_lowercase()
        return _kept(lower.is_in(TRUE), lower.is_in([*TRUE, *FALSE]))
    if values.dtype.is_numeric():
        return _kept(values == 1, (values == 1) | (values == 0))
    return _nulls(values, pl.Boolean())


def _text(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Binary:
        try:
            return values.cast(pl.String)
        except pl.exceptions.ComputeError:
            return pl.Series(values.name, [_utf8(value) for value in values], dtype=pl.String)
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return as_text(values)
    return values.cast(pl.String, strict=False)


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _time(values: pl.Series) -> pl.Series:
    text = values.str.strip_chars()
    fits = text.str.contains(r"^[0-9]{2}:[0-9]{2}(:[0-5][0-9](\.[0-9]{1,6}0*)?)?$")
    text = _kept(text, fits)
    short = text.str.len_bytes() == len("HH:MM")
    if short.any():
        text = text.zip_with(~short.fill_null(False), text + ":00")
    return text.str.to_time("%H:%M:%S%.f", strict=False)


def _date(values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if dtype == pl.Date:
        return _in_calendar(values)
    if dtype == pl.String:
        # Polars reads more than it says: a year with a sign, a month of one digit behind a blank.
        quick = values.str.to_date("%Y-%m-%d", strict=False)
        sound = (values.str.len_bytes() == len("YYYY-MM-DD")).all() and not values.str.contains("[+ ]").any()
        doubt = None if sound else values.is_not_null()
        return _in_calendar(_mended(values, quick, _date_of_text, doubt))
    if isinstance(dtype, pl.Datetime):
        at = _in_calendar(values)
        at = at.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone is not None else at
        return _kept(at.cast(pl.Date), at.to_physical() % (UNITS[dtype.time_unit] * SECONDS) == 0)
    return _nulls(values, pl.Date())


def _date_of_text(text: pl.Series) -> pl.Series:
    text = text.str.strip_chars()
    return _kept(text, text.str.contains("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")).str.to_date("%Y-%m-%d", strict=False)


def _in_calendar(values: pl.Series) -> pl.Series:
    if is_in_calendar(values):
        return values
    return _kept(values, values.to_frame("v").select(in_calendar(pl.col("v"), values.dtype)).to_series())


def _instant(values: pl.Series, wanted: pl.Datetime) -> pl.Series:
    dtype = values.dtype
    if dtype == pl.String:
        instant = _in_calendar(_instant_of_text(values))  # an offset may lead out of it
    elif dtype == pl.Date:
        instant = _in_calendar(values).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif isinstance(dtype, pl.Datetime):
        values = _in_calendar(values)
        if dtype == wanted:
            return values
        instant = values.dt.replace_time_zone("UTC") if dtype.time_zone is None else values
    else:
        return _nulls(values, wanted)
    if wanted.time_zone is None:
        zoned = instant.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    else:
        zoned = instant.dt.convert_time_zone(wanted.time_zone)
    there = zoned.cast(wanted, strict=False)
    if UNITS[cast(pl.Datetime, zoned.dtype).time_unit] > UNITS[wanted.time_unit]:
        return _kept(there, there.cast(zoned.dtype, strict=False) == zoned)
    return there


def _instant_of_text(values: pl.Series) -> pl.Series:
    instant = values.to_frame("v").select(parse_instant(pl.col("v"))).to_series()
    if cast("int", values.str.len_bytes().max() or 0) <= MICROSECONDS:
        return instant
    return _kept(instant, ~values.str.contains(r"[.,][0-9]{6}[0-9]*[1-9]"))


def _nested(values: pl.Series, wanted: pl.DataType, *, infinite: bool) -> pl.Series:
    dtype = values.dtype
    if isinstance(wanted, pl.Struct) and isinstance(dtype, pl.Struct):
        fit = values.is_not_null()
        fields = []
        for field in wanted.fields:
            given = values.struct.field(field.name) if field.name in values.struct.fields else _nulls(values, pl.Null())
            there = converted(given, cast(pl.DataType, field.dtype), infinite=infinite)
            fit &= there.is_not_null() | given.is_null()
            fields.append(there.alias(field.name))
        return _kept(pl.DataFrame(fields).to_struct(values.name), fit)
    if isinstance(dtype, pl.Array):
        values, dtype = values.arr.to_list(), pl.List(dtype.inner)
    if isinstance(wanted, pl.List | pl.Array) and isinstance(dtype, pl.List):
        inner = cast(pl.DataType, wanted.inner)
        element = pl.element().map_batches(lambda given: converted(given, inner, infinite=infinite), return_dtype=inner)
        there = values.list.eval(element)
        lists = _kept(there, _null_elements(there) == _null_elements(values))
        if isinstance(wanted, pl.List):
            return lists
        return _kept(lists, lists.list.len() == wanted.size).cast(wanted)
    return _nulls(values, wanted)


def _null_elements(lists: pl.Series) -> pl.Series:
    return lists.list.eval(pl.element().is_null()).list.sum()
