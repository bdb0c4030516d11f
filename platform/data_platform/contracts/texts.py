"""Values as text, whatever their type: for reasons, for records in quarantine. It never fails: what Polars cannot write
(it panics on dates beyond its calendar and on bytes in JSON) is written here. Casts are `conform`'s work.

Bytes are `\\x` and hexadecimal digits, as PostgreSQL shows them. Dates and instants of any year are ISO 8601, with more
digits or a minus sign before the year where it has them; PostgreSQL's `infinity` and `-infinity` are called so. Lists
and structs are JSON.
"""

from datetime import date, timedelta
from typing import cast

import polars as pl

FIRST_DAY, LAST_DAY = -719_162, 2_932_896
"""The first day of year 1 and the last of year 9999, in days since 1970: all that Python and Polars write."""

CYCLE_DAYS, CYCLE_YEARS = 146_097, 400
"""The calendar repeats itself."""

UNITS = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
SECONDS = 86_400
INFINITE_DAYS, INFINITE_INSTANT = 2**31 - 1, 2**63 - 1


def in_calendar(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Whether dates or instants are of the years 1 to 9999."""
    a_day = UNITS[dtype.time_unit] * SECONDS if isinstance(dtype, pl.Datetime) else 1
    first, last = FIRST_DAY * a_day, (LAST_DAY + 1) * a_day - 1
    kind = pl.Int64 if isinstance(dtype, pl.Datetime) else pl.Int32
    if last > INFINITE_INSTANT:  # nanoseconds reach from 1677 to 2262 only
        return column.is_not_null()
    return column.to_physical().is_between(pl.lit(first, kind), pl.lit(last, kind))


def is_in_calendar(values: pl.Series) -> bool:
    """Whether all dates or instants are of the years 1 to 9999."""
    numbers = values.to_physical()
    ends = pl.Series([numbers.min(), numbers.max()], dtype=numbers.dtype).cast(values.dtype)
    return bool(ends.to_frame("v").select(in_calendar(pl.col("v"), values.dtype)).to_series().all())


def as_text(values: pl.Series) -> pl.Series:
    """Each value as text; null stays null."""
    dtype = values.dtype
    if dtype == pl.Binary:
        return values.to_frame("v").select(pl.lit("\\x") + pl.col("v").bin.encode("hex")).to_series()
    if isinstance(dtype, pl.Date | pl.Datetime):
        return _of_any_year(values, dtype)
    if isinstance(dtype, pl.Duration):
        return as_json(values.to_frame("v")).str.json_path_match("$.v")
    if dtype.is_nested():
        field = as_json(values.to_frame("v"))
        return (
            values.to_frame("v")
            .select(pl.when(pl.col("v").is_not_null()).then(field.str.slice(5).str.head(-1)))
            .to_series()
        )
    if dtype == pl.Time:
        whole = (values.to_physical() % UNITS["ns"] == 0).all()
        return values.cast(pl.String) if whole else values.dt.strftime("%H:%M:%S%.f")
    if isinstance(dtype, pl.Null):
        return values.cast(pl.String)
    return values.cast(pl.String, strict=False)


def as_json(rows: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object."""
    plain = rows.with_columns(_plain(rows[name]).alias(name) for name in rows.columns)
    return plain.select(pl.struct(pl.all()).struct.json_encode()).to_series()


def _plain(values: pl.Series) -> pl.Series:
    """The values in types that Polars writes as JSON."""
    dtype = values.dtype
    if dtype == pl.Binary:
        return as_text(values)
    if isinstance(dtype, pl.Date | pl.Datetime):
        return values if is_in_calendar(values) else as_text(values)
    if isinstance(dtype, pl.Struct):
        fields = [_plain(field).alias(field.name) for field in values.struct.unnest()]
        there = values.is_not_null()
        return pl.DataFrame(fields).select(pl.when(there).then(pl.struct(pl.all()))).to_series() if fields else values
    if isinstance(dtype, pl.Array):
        return _plain(values.cast(pl.List(cast("pl.DataType", dtype.inner))))
    if isinstance(dtype, pl.List):
        long = values.to_frame("v").with_row_index("i").filter(pl.col("v").list.len() > 0).explode("v")
        if long.is_empty():
            return values.cast(pl.List(pl.String)) if dtype.inner == pl.Binary else values
        lists = pl.DataFrame({"i": long["i"], "v": _plain(long["v"])}).group_by("i", maintain_order=True).agg("v")
        numbered = values.to_frame("old").with_row_index("i").join(lists, on="i", how="left", maintain_order="left")
        empty = pl.when(pl.col("old").list.len() == 0).then(pl.lit([], dtype=lists.schema["v"]))
        return numbered.select(pl.coalesce("v", empty)).to_series()
    return values


def _of_any_year(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    column = pl.col("v")
    inside = pl.when(in_calendar(column, dtype)).then(column)
    frame = values.to_frame("v").select(inside.cast(pl.String).alias("text"), column.to_physical().alias("number"))
    if frame["text"].null_count() == values.null_count():
        return frame["text"]
    texts = [_far(number, dtype) if text is None and number is not None else text for text, number in frame.iter_rows()]
    return pl.Series(texts, dtype=pl.String)


def _far(number: int, dtype: pl.DataType) -> str:
    if abs(number) == (INFINITE_INSTANT if isinstance(dtype, pl.Datetime) else INFINITE_DAYS):
        return "infinity" if number > 0 else "-infinity"
    unit = UNITS[dtype.time_unit] if isinstance(dtype, pl.Datetime) else 1
    days, rest = divmod(number, unit * SECONDS) if isinstance(dtype, pl.Datetime) else (number, 0)
    cycles, day = divmod(days, CYCLE_DAYS)
    near = date(1970, 1, 1) + timedelta(days=day)
    text = f"{near.year + cycles * CYCLE_YEARS:04d}-{near:%m-%d}"
    if not isinstance(dtype, pl.Datetime):
        return text
    seconds, fraction = divmod(rest, unit)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text} {clock}" + (f".{fraction:0{len(str(unit)) - 1}d}" if fraction else "")
