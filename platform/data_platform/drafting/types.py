"""Types that are drafted for columns, such that the values that were seen survive them: whole numbers of any length
stay whole, money stays exact, and what only looks like a number (a postal code, an article number) stays text.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

import polars as pl
import pyarrow as pa

from data_platform.contracts.conform import converted
from data_platform.drafting.profile import Declared
from data_platform.drafting.times import Times, written

INSTANT_TYPE = pl.Datetime("us", "UTC")
TYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "pl.Float32": pl.Float32(),
    "bool": pl.Boolean(),
    "pl.Date": pl.Date(),
    "pl.Time": pl.Time(),
    "Instant": INSTANT_TYPE,
    "str": pl.String(),
}
"""The types of a draft as Python writes them, besides decimals."""

INTEGER = r"^-?(0|[1-9]\d*)$"
NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?$"
NOTATION = r"^\(?[-+]?\s?\D{0,3}\s?\d[\d.,' ]*[.,]\d+\s?\D{0,3}\)?$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
INSTANT = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s?(Z|[+-]\d{2}(:?\d{2})?)?$"
ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"
OTHER_DATE = r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}([ T]\d{1,2}:\d{2}.*)?$"
TEXT_TYPES = re.compile(r"char|text|clob|string|uuid|enum|json|xml|name", re.IGNORECASE)
EXACT_TYPES = re.compile(r"(?:numeric|decimal|money|number)\s*(?:\((\d+)\s*(?:,\s*(\d+))?\s*\))?", re.IGNORECASE)
FLOAT_TYPES = re.compile(r"real|floa|doub", re.IGNORECASE)
MONEY = re.compile(
    r"(^|_)(price|cost|fee|fare|salary|wage|balance|revenue|turnover|discount|vat|usd|eur|gbp|chf|jpy|money)($|_)"
)
PERHAPS_MONEY = re.compile(
    r"(^|_)(amount|total|subtotal|tax|paid|due|credit|debit|charge|payment|value|net|gross)($|_)"
)
"""Names of sums of money, if the numbers have decimals; they may as well be counts."""

CODES = re.compile(
    r"(^|_)(zip|zipcode|postal|postcode|plz|phone|fax|mobile|tel|ean|gtin|upc|isbn|issn|iban|bic|sku|barcode|ssn|vatin|"
    r"imei|pin)($|_)|account_(no|number)$"
)
"""Names of columns whose digits are no number: a leading zero belongs to them, be there one so far or not."""

IDENTIFIERS = re.compile(r"(^|_)(id|key|code|uuid|guid|sku|ref|serial|hash)$")
"""Names of what identifies things: `12e3` is no number there."""

MONEY_DECIMALS = 2
FLOATING_MONEY = "a binary float in the source: if it is money, cents may be lost there already"
FLOAT_DIGITS = 17
"""Programs write a float with as many digits at most."""

SNOWFLAKE_INTEGER = "NUMBER(38,0)"
"""What Snowflake makes of each type of whole numbers: nobody chose so many digits."""

ROUNDED_DIGITS = 15
"""Digits behind the point from which on a number is what a program made of a binary float, not what somebody wrote."""


@dataclass(frozen=True)
class Drafted:
    """A column's type as Python writes it, what a person should know of it, and how instants are written in it where
    the cast alone does not read them."""

    annotation: str
    notes: tuple[str, ...] = ()
    times: Times | None = None

    @property
    def dtype(self) -> pl.DataType:
        """The type in Polars."""
        return dtype_of(self.annotation)


def dtype_of(annotation: str) -> pl.DataType:
    """The type in Polars of one that is drafted."""
    decimal = re.fullmatch(r"Annotated\[pl\.Decimal, (\d+), (\d+)\]", annotation)
    return pl.Decimal(int(decimal[1]), int(decimal[2])) if decimal else TYPES[annotation]


def draft_type(name: str, present: pl.Series, kind: pa.DataType, declared: Declared | None, *, show: bool) -> Drafted:
    """The type of the column `name` (as it is staged), from its values without nulls, their type in Arrow and what the
    source says of it. `show`: values may be shown in notes."""
    if present.dtype != pl.String:
        if declared is not None and declared.kind == SNOWFLAKE_INTEGER and _fits_integer(present):
            return Drafted("int")
        return _of_kind(name, kind, declared)
    drafted = _of_texts(name, present, declared)
    if drafted.times is not None:
        return drafted
    # Whatever the look of the values, the cast has the last word.
    lost = present.filter(converted(present, drafted.dtype).is_null())
    if lost.is_empty():
        return drafted if drafted.annotation != "str" else _stays_text(present, declared, show=show)
    example = f", such as {lost[0]!r}" if show else ""
    meant = {"Instant": "an instant", "pl.Date": "a date"}.get(drafted.annotation, drafted.annotation)
    return Drafted("str", (f"stays text: {len(lost):,} values do not survive as {meant}{example}",))


def _fits_integer(present: pl.Series) -> bool:
    return present.cast(pl.Int64, strict=False).null_count() == 0


def _of_kind(name: str, kind: pa.DataType, declared: Declared | None) -> Drafted:
    if pa.types.is_integer(kind):
        return Drafted("bool" if declared and "bool" in declared.kind.lower() else "int")
    if pa.types.is_decimal(kind):
        return Drafted(f"Annotated[pl.Decimal, {kind.precision}, {kind.scale}]")
    if pa.types.is_timestamp(kind):
        return Drafted("Instant", () if kind.tz else ("taken as UTC: it has no zone",))
    if pa.types.is_floating(kind):
        # As 64 bits 0.1 of 32 bits would be 0.10000000149011612.
        annotation = "pl.Float32" if pa.types.is_float32(kind) else "float"
        money = bool(MONEY.search(name) or PERHAPS_MONEY.search(name))
        return Drafted(annotation, (FLOATING_MONEY,) if money else ())
    for test, annotation in (
        (pa.types.is_boolean, "bool"),
        (pa.types.is_date, "pl.Date"),
        (pa.types.is_time, "pl.Time"),
    ):
        if test(kind):
            return Drafted(annotation)
    return Drafted("str")


def _of_texts(name: str, present: pl.Series, declared: Declared | None) -> Drafted:
    if present.is_empty():
        return Drafted(_declared_type(declared))
    if present.str.contains(DATE).all() and present.str.to_date("%Y-%m-%d", strict=False).null_count() == 0:
        return Drafted("pl.Date")
    times = declared.times if declared else None
    if present.str.contains(INSTANT).all() and (times is None or not converted(present, INSTANT_TYPE).null_count()):
        zoned = present.str.contains(ZONE)
        return Drafted("Instant", () if zoned.all() else ("taken as UTC: it names no zone",))
    if (times := written(name, present, times)) is not None:
        return Drafted("Instant", times.notes, times)
    if declared is not None and TEXT_TYPES.search(declared.kind):
        return Drafted("str")
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return Drafted("bool")
    if not present.str.contains(NUMBER).all():
        return Drafted("str")
    return _of_numbers(name, present, declared)


def _of_numbers(name: str, texts: pl.Series, declared: Declared | None) -> Drafted:
    kind = declared.kind if declared else ""
    whole = texts.str.contains(INTEGER).all()
    if whole and "bool" in kind.lower():
        return Drafted("bool")
    if CODES.search(name) and not re.search("int", kind, re.IGNORECASE):
        return Drafted("str", ("stays text: digits that are no number may begin with a zero",))
    if not whole and IDENTIFIERS.search(name) and not texts.str.contains(".", literal=True).any():
        return Drafted("str", ("stays text: an e within what identifies something is no exponent",))
    exact = EXACT_TYPES.search(kind)
    if FLOAT_TYPES.search(kind):
        return (
            Drafted("float", (FLOATING_MONEY,) * bool(MONEY.search(name)))
            if _survive_as_float(texts)
            else _exactly(texts)
        )
    if exact is not None and exact[1] is not None and int(exact[2] or 0) == 0 and int(exact[1]) <= 18 and whole:
        return Drafted("int")
    if exact is not None:
        return _declared_exact(texts, exact)
    if whole and not (MONEY.search(name) and not re.search("int", kind, re.IGNORECASE)):
        return Drafted("int") if texts.cast(pl.Int64, strict=False).null_count() == 0 else _exactly(texts)
    if texts.str.contains("[eE]").any():
        return Drafted("float")
    money = MONEY.search(name) or (not whole and PERHAPS_MONEY.search(name))
    places = _places(texts)
    fixed = int(cast(int, places.min())) == int(cast(int, places.max())) and texts.str.contains(r"\.\d+0$").any()
    if (money and int(cast(int, places.max())) <= 6) or fixed or not _survive_as_float(texts):
        return _exactly(texts, MONEY_DECIMALS if money else 0)
    return Drafted("float")


def _declared_exact(texts: pl.Series, declared: re.Match[str]) -> Drafted:
    """A decimal of as many digits as the source declares. SQLite keeps such a column as binary floats for all that:
    what has the digits of one is one."""
    places = int(cast(int, _places(texts).max()))
    scale = int(declared[2] or 0) if declared[1] else MONEY_DECIMALS
    if texts.str.contains("[eE]").any() or (places > max(scale, ROUNDED_DIGITS - 1) and _survive_as_float(texts)):
        return Drafted("float", ("declared exact, but its values are those of a binary float",))
    return _exactly(texts, scale, int(declared[1] or 0))


def _exactly(texts: pl.Series, scale: int = 0, precision: int = 0) -> Drafted:
    """A decimal that holds all of the values, with at least `scale` digits behind the point; text if there is none."""
    before = int(cast(int, texts.str.extract("^-?0*([0-9]*)").str.len_bytes().max()))
    behind = max(scale, int(cast(int, _significant_places(texts).max())))
    if texts.str.contains("[eE]").any() or before + behind > 38:
        return Drafted("str", ("stays text: a number that the lakehouse has no type for without loss",))
    least = max(precision, before + behind)
    # With room for numbers a thousand times as large, and cheaper in 64 bits where that will do.
    return Drafted(f"Annotated[pl.Decimal, {18 if least <= 15 or precision == least <= 18 else 38}, {behind}]")


def _places(texts: pl.Series) -> pl.Series:
    return texts.str.extract(r"\.([0-9]*)").str.len_bytes().fill_null(0)


def _significant_places(texts: pl.Series) -> pl.Series:
    return texts.str.extract(r"\.([0-9]*?)0*$").str.len_bytes().fill_null(0)


def _survive_as_float(texts: pl.Series) -> bool:
    """Whether each number is one that a program would write for some float, in so many digits at most: none loses any
    by becoming it."""
    digits = texts.str.extract("^-?0*([0-9]*)").str.len_bytes() + _significant_places(texts)
    if not texts.str.contains("[eE]").any() and int(cast(int, digits.max())) > FLOAT_DIGITS:
        return False
    for text in texts.unique():
        number, exactly = float(text), Decimal(text)
        if exactly not in (Decimal(repr(number)), Decimal(f"{number:.17g}")):
            return False
    return True


def _stays_text(present: pl.Series, declared: Declared | None, *, show: bool) -> Drafted:
    """Text, with a note if nearly all of it would be something else, or is something in a notation of its own."""
    if present.is_empty() or not show or (declared is not None and TEXT_TYPES.search(declared.kind)):
        return Drafted("str")
    if present.str.contains(OTHER_DATE).all():
        return Drafted("str", ("dates in a notation of their own? instant_text in staging.py reads them",))
    if present.str.contains(NOTATION).all():
        return Drafted("str", ("numbers in a notation of their own? number_text in staging.py reads them",))
    for pattern, meant in ((NUMBER, "numbers"), (DATE, "dates"), (INSTANT, "instants")):
        others = present.filter(~present.str.contains(pattern))
        if 0 < len(others) <= 0.05 * len(present):
            return Drafted("str", (f"stays text: all but {len(others):,} values are {meant}, not {_shown(others)}",))
    return Drafted("str")


def _shown(values: pl.Series, most: int = 3) -> str:
    return ", ".join(repr(value[:40]) for value in values.unique(maintain_order=True).head(most))


def type_in_spite_of_values(declared: Declared | None) -> Drafted:
    """The type that the source declares of a column which is read as text because it holds values that are none."""
    kind = declared.kind.lower() if declared else ""
    if kind == "date":
        return Drafted("pl.Date")
    if kind.startswith(("datetime", "timestamp")):
        zoned = not kind.startswith("datetime") and "without time zone" not in kind
        return Drafted("Instant", () if zoned else ("taken as UTC: it has no zone",))
    return Drafted(_declared_type(declared))


def _declared_type(declared: Declared | None, otherwise: str = "str") -> str:
    kind = declared.kind.lower() if declared else ""
    if "bool" in kind:
        return "bool"
    if FLOAT_TYPES.search(kind):
        return "float"
    if (exact := EXACT_TYPES.search(kind)) is not None:
        precision, scale = int(exact[1] or 38), int(exact[2] or 0) if exact[1] else MONEY_DECIMALS
        return f"Annotated[pl.Decimal, {min(precision, 38)}, {scale}]"
    return "int" if "int" in kind and "interval" not in kind and "point" not in kind else otherwise
