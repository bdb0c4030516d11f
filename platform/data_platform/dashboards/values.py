"""Values as people read them: numbers with separators and units, times in UTC, nothing longer than a cell can hold. How
they become HTML is in `markup`.
"""

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from data_platform.dashboards.options import ColumnOptions
from data_platform.errors import shortened
from data_platform.options import size_text

NOTHING = "–"
"""What stands where there is no value."""

EMPTY = "(empty)"
"""What an axis has for a text without a visible character."""

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

CHARACTERS = 200
"""The longest text of a cell."""

NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "NUMBER")
"""How the names of types of numbers begin, after the `U` of unsigned ones."""

WHOLE = ("", "%", "s", "bytes")
"""Units that are part of how a number is written, and stand at no axis."""


def is_number(kind: str) -> bool:
    """Whether a type of DuckDB is one of numbers."""
    return kind.removeprefix("U").startswith(NUMBERS)


def is_time(kind: str) -> bool:
    """Whether a type of DuckDB is a date or a time stamp."""
    return kind.startswith(("DATE", "TIMESTAMP"))


def label_of(name: str, options: ColumnOptions) -> str:
    """What a column is called."""
    return options.label or name.replace("_", " ").strip().capitalize()


def heading_of(name: str, options: ColumnOptions) -> str:
    """What a column is called, with its unit where that does not stand at each value."""
    unit = options.unit or ""
    return label_of(name, options) + (f" ({unit})" if unit not in WHOLE else "")


def decimals(values: Iterable[Any], unit: str | None) -> int | None:
    """The decimals that all numbers of a column are written with; None where each is written by itself."""
    if unit in ("s", "bytes"):
        return None
    there = [float(value) for value in values if isinstance(value, int | float | Decimal) and math.isfinite(value)]
    if unit == "%":
        return 1
    if all(value == int(value) for value in there):
        return 0
    greatest = max(map(abs, there))
    return 0 if greatest >= 1000 else 1 if greatest >= 1 else 2 if greatest >= 0.1 else 4


def digits_of(values: Iterable[Any], options: ColumnOptions) -> int | None:
    """The decimals of a column's numbers: those that its options name, else as many as its values ask for."""
    return decimals(values, options.unit) if options.decimals is None else options.decimals


def shown(value: Any, unit: str | None = None, digits: int | None = None) -> str:
    """A value as it stands in a cell, without a unit that its column names; a number with so many decimals, or as many
    as it needs."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float | Decimal):
        return _number(value, unit, decimals([value], unit) if digits is None else digits)
    if isinstance(value, datetime):
        at = value.astimezone(UTC) if value.tzinfo else value
        return f"{at:%Y-%m-%d %H:%M}" + (" UTC" if value.tzinfo else "")
    if isinstance(value, date):
        return value.isoformat()
    return shortened(printable(str(value)), CHARACTERS)


def printable(text: str) -> str:
    """A text with a mark in the place of each character that neither HTML nor SVG can have."""
    return UNPRINTABLE.sub("\ufffd", text)


def _number(value: int | float | Decimal, unit: str | None, digits: int | None) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if unit == "s":
        return duration_of(float(value))
    if unit == "bytes":
        return size_text(int(value))
    if isinstance(value, int) and unit != "%":
        return f"{value:,}"  # exact, however large
    written = f"{value * 100 if unit == '%' else value:,.{digits or 0}f}" + (" %" if unit == "%" else "")
    return written.removeprefix("-") if not any(digit in "123456789" for digit in written) else written


def duration_of(seconds: float) -> str:
    """Seconds as a person reads them: `0.35 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.2g} s" if seconds < 10 else f"{sign}{seconds:.0f} s"
    left = timedelta(seconds=round(seconds))
    parts = [(left.days, "d"), (left.seconds // 3600, "h"), (left.seconds // 60 % 60, "min"), (left.seconds % 60, "s")]
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return sign + " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def category(value: Any, unit: str | None, *, monthly: bool) -> str:
    """A value as the name of a category on an axis."""
    if isinstance(value, str) and not value.strip():
        return EMPTY
    return f"{value:%b %Y}" if monthly and isinstance(value, date) else shown(value, unit)


def is_monthly(values: list[Any]) -> bool:
    """Whether all dates of an axis are first days of a month."""
    dates = [value for value in values if value is not None]
    return bool(dates) and all(isinstance(value, date) and value.day == 1 for value in dates)
