"""Numbers as people and programs write them. What a number means (its unit, its bounds) is the contract's to say.

Two forms: `number_text` keeps what it cannot read, so that the cast to the contract's type quarantines the row with its
original text; `number` gives null there. A staging function uses the first.
"""

import re
from collections.abc import Sequence
from typing import Literal

import polars as pl

from data_platform.cleaning.expressions import UNREADABLE, IntoText, as_expr, changed_where, staged

DecimalMark = Literal[".", ","]

_PLAIN = {".": r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$", ",": r"^-?(?:0|[1-9][0-9]*)$"}
_INFINITE = r"(?i)^[+-]?(?:inf|[0-9.]+e[+-]?[0-9]{3,}$)"
_NAN = r"(?i)^[+-]?nan$"


def number_text(expr: IntoText, *, decimal: DecimalMark = ".", units: Sequence[str] = ()) -> pl.Expr:
    """Numbers as plain decimal text that casts to Float64, Decimal or (without a fraction) Int64; the rest as it is.

    Read are, with `units=["$"]`: `1,234.50`, `1.234,50`, `1 234,50`, `1'234.50`, `12,34,567` (groups of three, or the
    Indian ones), `$ 99`, `99.5`, negative `(12.00)` and `12.00-`, `1.2e3` (its exponent stays), `12.5 %` as `0.125`.

    `decimal` decides only what its shape leaves open: `1,234` is 1234 with `.` and 1.234 with `,`. `1,5` is 1.5 with
    either, since no group has one digit. `units` are the signs and words that may stand before or after the number,
    whatever their case; none is dropped unasked, because `€ 99` is not 99 dollars. With `%` among them, per cent are
    not divided by a hundred. `NaN` is null: it is how programs write a missing number. Infinities, which Polars
    would cast, get `unreadable: ` before them.
    """
    return staged(as_expr(expr), lambda values: _read(values, decimal, units, keep=True), pl.String)


def number(
    expr: IntoText,
    *,
    decimal: DecimalMark = ".",
    units: Sequence[str] = (),
    dtype: pl.DataType | type[pl.DataType] = pl.Float64,
) -> pl.Expr:
    """Numbers of the type given (`pl.Decimal(18, 2)` for money), null where `number_text` reads none."""
    text = staged(as_expr(expr), lambda values: _read(values, decimal, units, keep=False), pl.String)
    return text.cast(dtype, strict=False)


def _read(values: pl.Series, decimal: DecimalMark, units: Sequence[str], *, keep: bool) -> pl.Series:
    def read(value: pl.Expr) -> pl.Expr:
        number = staged(value, lambda rest: _plain_text(rest, decimal, units), pl.String)
        # Polars casts "inf" and "1e999" to infinity without a word.
        rest = pl.when(value.str.contains(_INFINITE)).then(UNREADABLE + value).otherwise(value)
        return pl.when(~value.str.contains(_NAN)).then(pl.coalesce(number, rest) if keep else number)

    return changed_where(values, lambda value: ~value.str.contains(_PLAIN[decimal]), read)


def _plain_text(values: pl.Series, decimal: DecimalMark, units: Sequence[str]) -> pl.Series:
    """Null where there is no number."""
    rest, negative, percent = pl.col("rest"), pl.col("negative"), pl.col("percent")
    unit = "|".join(re.escape(unit.strip()) for unit in sorted(units, key=len, reverse=True) if unit.strip())
    return (
        values.rename("rest")
        .to_frame()
        .with_columns(rest.str.replace_all(r"\s", " ").str.replace_many({"\u2212": "-", "’": "'"}).str.strip_chars(" "))
        # Accountants' negatives: (12.00) and 12.00-
        .with_columns(rest.str.replace(r"^\(([^()+-]*)\)$", "-$1").str.replace("^([^+-]*[^+ -]) ?-$", "-$1"))
        .with_columns((rest.str.replace(f"(?i)^([+-]?) ?(?:{unit}) ?", "$1") if unit else rest).alias("rest"))
        .with_columns((rest.str.replace(f"(?i) ?(?:{unit})$", "") if unit else rest).alias("rest"))
        .with_columns(rest.str.starts_with("-").alias("negative"), rest.str.ends_with("%").alias("percent"))
        .with_columns(rest.str.replace("^[+-] ?", "").str.replace(" ?%$", ""))
        .with_columns(_unsigned(rest, decimal))
        .with_columns(pl.when(percent).then(_hundredth(rest)).otherwise(rest).alias("rest"))
        .with_columns(rest.str.replace("^0+([0-9])", "$1"))
        .select(pl.when(negative).then("-" + rest).otherwise(rest))
        .to_series()
    )


def _shape(decimal: str, other: str) -> str:
    """Digits, grouped or not, with `decimal` before the fraction. Groups are of three, or of two, the last of three."""
    groups = "|".join(
        f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|[1-9][0-9]?(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}"
        for mark in (other, " ", "'")
    )
    single = f"[0-9]+(?:{decimal}[0-9]*)?|{decimal}[0-9]+"
    return f"^(?:(?:{groups})(?:{decimal}[0-9]+)?|(?:{single})(?:[eE][+-]?[0-9]{{1,2}})?)$"


_WITH_POINT = _shape(r"\.", ",")
_WITH_COMMA = _shape(",", r"\.")


def _unsigned(text: pl.Expr, decimal: DecimalMark) -> pl.Expr:
    with_point = text.str.replace_all("[, ']", "")
    with_comma = text.str.replace_all("[. ']", "").str.replace(",", ".", literal=True)
    read = [(text.str.contains(_WITH_POINT), with_point), (text.str.contains(_WITH_COMMA), with_comma)]
    (first, first_text), (second, second_text) = read if decimal == "." else reversed(read)
    plain = pl.when(first).then(first_text).when(second).then(second_text)
    return plain.otherwise(None).str.replace(r"^\.", "0.").str.strip_suffix(".").alias("rest")


def _hundredth(text: pl.Expr) -> pl.Expr:
    """The decimal point moved by two places, in the text: exact. Null where there is an exponent."""
    cut = r"^(?P<whole>[0-9]+)(?P<cents>[0-9]{2})(?:\.(?P<rest>[0-9]+))?$"
    part = ("000" + text).str.extract_groups(cut).struct.field
    return pl.concat_str(part("whole"), pl.lit("."), part("cents"), part("rest").fill_null(""))
