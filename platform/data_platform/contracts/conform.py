"""Casts: a column as the type that its contract wants, null where a value does not fit without loss. What becomes of
such a value is `audit`'s work; texts that need repair first are `cleaning`'s.
"""

import polars as pl

from data_platform.cleaning.time import parse_instant

TRUE = ["true", "t", "yes", "y", "1"]
FALSE = ["false", "f", "no", "n", "0"]

EXACT_IN_FLOAT = 2**53
"""Below this a float tells one whole number from the next."""


def conform(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Column `name` of type `dtype` as `wanted`; null where a value does not fit without loss."""
    column = pl.col(name)
    if dtype == wanted:
        return column
    if dtype == pl.Null:
        return column.cast(wanted)
    if isinstance(wanted, pl.Datetime):
        return _conform_instant(column, dtype, wanted).alias(name)
    if dtype == pl.String:
        text = column.str.strip_chars()
        if wanted.is_integer():
            number = text.cast(pl.Float64, strict=False)
            exact = (number == number.floor()) & (number.abs() < EXACT_IN_FLOAT)
            whole = pl.when(exact).then(number.cast(wanted, strict=False))
            return pl.coalesce(text.cast(wanted, strict=False), whole).alias(name)
        if wanted == pl.Boolean:
            lower = text.str.to_lowercase()
            return pl.when(lower.is_in(TRUE)).then(True).when(lower.is_in(FALSE)).then(False).alias(name)
        if wanted == pl.Date:
            return text.str.to_date("%Y-%m-%d", strict=False).alias(name)
        return text.cast(wanted, strict=False).alias(name)
    if wanted.is_integer() and dtype.is_numeric() and not dtype.is_integer():
        return pl.when(column == column.floor()).then(column.cast(wanted, strict=False)).alias(name)
    return column.cast(wanted, strict=False)


def _conform_instant(column: pl.Expr, dtype: pl.DataType, wanted: pl.Datetime) -> pl.Expr:
    if dtype == pl.String:
        instant = parse_instant(column)
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        instant = column.dt.replace_time_zone("UTC")
    elif dtype == pl.Date:
        instant = column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    else:
        instant = column
    if wanted.time_zone is None:
        return instant.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(wanted)
    return instant.dt.convert_time_zone(wanted.time_zone).cast(wanted)
