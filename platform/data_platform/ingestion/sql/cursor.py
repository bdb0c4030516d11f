"""Cursor values: how they become the text of a position and back, without loss, and how a lag is taken off.
What is done with a position belongs in the sources."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.dialects.session import Kind

USUAL_LAG = timedelta(minutes=15)
"""How late rows may come behind their time in a table of which nothing else is said: longer than most transactions."""

FIRST = datetime(1, 1, 1)
_INSTANT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:(?P<gap>[T ])(?P<minute>\d\d:\d\d)(?P<second>:\d\d)?(?P<fraction>\.\d{1,9})?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?"
)

_PARSERS: dict[Kind, Callable[[str], Any]] = {
    "integer": int,
    "decimal": Decimal,
    "float": float,
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
    "text": str,
}

_LOWEST: dict[Kind, Any] = {
    "integer": -(2**63),
    "decimal": Decimal("-1e37"),
    "float": float("-inf"),
    "date": FIRST.date(),
    "timestamp": FIRST,
    "timestamptz": FIRST.replace(tzinfo=UTC),
    "text": "",
}


def last_position(values: pa.ChunkedArray, kind: Kind) -> str | None:
    """The text of the last value, in the order of delivery, that a read can go on from; None if there is none.

    Nulls, infinity, not-a-number and instants beyond the year 9999 are none: they would keep all others out for ever.
    """
    for chunk in reversed(values.chunks):
        kept = chunk.filter(_ordinary(chunk, kind))
        if len(kept):
            return to_text(kept[-1])
    return None


def _ordinary(chunk: pa.Array, kind: Kind) -> pa.Array:
    if kind == "float" or pa.types.is_floating(chunk.type):
        return pc.is_finite(chunk)
    if kind == "decimal" and pa.types.is_string(chunk.type):
        return pc.match_substring_regex(chunk, r"^-?\d")
    if kind == "date":
        return pc.less_equal(chunk.cast(pa.int32()), 2_932_896)
    if kind in ("timestamp", "timestamptz"):
        microseconds = chunk.cast(pa.int64())
        return pc.and_(
            pc.less_equal(microseconds, 253_402_300_799_999_999),
            pc.greater_equal(microseconds, -62_135_596_800_000_000),
        )
    return chunk.is_valid()


def to_text(value: pa.Scalar) -> str:
    """A value as the text of a position: ISO 8601 with microseconds, plain digits, or the text itself."""
    plain = value.as_py()
    if isinstance(plain, datetime):
        return plain.isoformat(timespec="microseconds")
    if isinstance(plain, Decimal):
        return format(plain, "f")
    return plain if isinstance(plain, str) else repr(plain) if isinstance(plain, float) else str(plain)


def parse(text: str, kind: Kind, where: str) -> Any:
    """The value that a position's text stands for; the lowest there is for the empty text.

    Raises PlatformError if the text is no value of this kind, as when the type of the column has changed.
    """
    if not text:
        return _LOWEST[kind]
    try:
        value = _PARSERS[kind](text)
    except (ValueError, InvalidOperation):
        value = None
    if value is None or (kind in ("timestamp", "timestamptz") and (value.tzinfo is None) == (kind == "timestamptz")):
        raise PlatformError(
            f"{where} was read up to {text!r}, which is no {kind}: the type of the cursor column has changed. "
            "Load the table afresh with --full-refresh."
        )
    return value


def is_later(text: str, than: str, kind: Kind) -> bool:
    """Whether the text of a position stands for a later value than another, of a cursor that has a lag. The texts of
    one that is text are times of one shape, which are in the order of what they stand for."""
    later: bool = parse(text, kind, "The cursor") > parse(than, kind, "The cursor")
    return later


def usual_lag(text: str, kind: Kind) -> timedelta | None:
    """The lag of a cursor that is given none: USUAL_LAG of a time or a date, be it written as text; None of others."""
    if kind == "text":
        shape = _INSTANT.fullmatch(text)
        return USUAL_LAG if shape is not None and _exists(shape) else None
    return USUAL_LAG if kind in ("date", "timestamp", "timestamptz") else None


def less(text: str, kind: Kind, lag: timedelta | int | float | None, where: str) -> str:
    """The text of a position less a lag (None: the usual one), in the same shape; empty where there is nothing so low.

    Raises PlatformError if the lag is a duration and the cursor a number, or the reverse.
    """
    value = parse(text, kind, where)
    lag = usual_lag(text, kind) if lag is None else lag
    if not text or not lag:
        return text
    if isinstance(lag, timedelta) != (kind in ("date", "timestamp", "timestamptz", "text")):
        wanted = "a number, such as `lag: 1000`" if isinstance(lag, timedelta) else "a duration, such as `lag: 15m`"
        raise PlatformError(f"{where} has a cursor of kind {kind}: its lag must be {wanted}.")
    try:
        return _less(text, value, kind, lag, where)
    except OverflowError:
        return ""


def _less(text: str, value: Any, kind: Kind, lag: Any, where: str) -> str:
    if kind == "text":
        return _text_less(text, lag, where)
    if kind == "date":
        return str((datetime.combine(value, time()) - lag).date())
    if kind in ("timestamp", "timestamptz"):
        earlier: datetime = value - lag
        return earlier.isoformat(timespec="microseconds")
    if kind == "decimal":
        return format(value - Decimal(str(lag)), "f")
    return str(value - lag if kind == "float" else value - math.ceil(lag))


@dataclass(frozen=True)
class Shape:
    """The shape of a text cursor's values. Texts of one shape are ordered as what they stand for; '2024-05-02T10:00Z'
    and '2024-05-02 23:00', or '9' and '10', are not. `patterns` are those of LIKE that match the texts of the shape."""

    patterns: tuple[str, ...]


def shape_of(text: str) -> Shape:
    """The shape of a text: of a time what is around its digits, down to the zone; of other texts the length and what
    is no letter or digit. A fraction may have any number of digits where that does not change the order: before no
    zone, or before an offset."""
    time = _INSTANT.fullmatch(text)
    if time is None:
        return Shape(("".join("_" if character.isalnum() else _like(character) for character in text),))
    clock = f"{time['gap']}__:__{':__' if time['second'] else ''}" if time["minute"] else ""
    before, zone = f"____-__-__{clock}", time["zone"] or ""
    fraction = time["fraction"] or ""
    if zone == "Z" or not time["second"]:
        return Shape((f"{before}{'.' + '_' * (len(fraction) - 1) if fraction else ''}{zone}",))
    return Shape((f"{before}{zone}", *(f"{before}.{'_' * digits}{zone}" for digits in range(1, 10))))


def _like(character: str) -> str:
    """A character as LIKE matches it: only what means nothing else in any database stands for itself."""
    return character if character in "-:. /+" else "_"


def _text_less(text: str, lag: timedelta, where: str) -> str:
    shape = _INSTANT.fullmatch(text)
    if shape is None or not _exists(shape):
        raise PlatformError(
            f"{where} has a lag, and its cursor holds the text {text!r}, which is no time such as "
            "2013-01-31T09:30:00Z. Leave the lag out, or choose another cursor."
        )
    earlier = _moment(shape) - lag
    if not shape["minute"]:
        return earlier.date().isoformat()
    clock = earlier.strftime("%H:%M" if not shape["second"] else "%H:%M:%S")
    return f"{earlier.date().isoformat()}{shape['gap']}{clock}{shape['fraction'] or ''}{shape['zone'] or ''}"


def _exists(shape: re.Match[str]) -> bool:
    """Whether there is such a time: there is no 30th of February."""
    try:
        _moment(shape)
    except ValueError:
        return False
    return True


def _moment(shape: re.Match[str]) -> datetime:
    """The instant to the second, which is as fine as a lag is."""
    clock = f"{shape['minute']}{shape['second'] or ':00'}" if shape["minute"] else "00:00:00"
    return datetime.fromisoformat(f"{shape['date']} {clock}")
