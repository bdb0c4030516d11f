"""What becomes of documents: text for the value of each field, as MongoDB's extended JSON has it, and the values of
cursors as text and back. How documents are found is in `conditions` and `source`.

Text stays as it is, numbers are their digits, whatever their kind; a date is ISO 8601 in UTC with milliseconds, an
ObjectId its hexadecimal digits, a UUID as such are written, other bytes are base64. What is nested, and what no other
database has (a regular expression, a timestamp of the log, MinKey, a date beyond the year 9999), is extended JSON in
its relaxed form. Nothing is lost but the kind of number of a field, which the contract says.
"""

import base64
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import bson
from bson import Binary, Code, CodecOptions, Decimal128, Int64, ObjectId, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidBSON

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.cursor import USUAL_LAG, less

CODEC: CodecOptions[Mapping[str, Any]] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
LENIENT = CODEC.with_options(unicode_decode_error_handler="replace")
"""For a document that is no row: it is shown as it is, but for bytes that are no text."""

RELAXED = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED,
    uuid_representation=UuidRepresentation.STANDARD,
    tz_aware=True,
    tzinfo=UTC,
    datetime_representation=json_util.DatetimeRepresentation.ISO8601,
)
CANONICAL = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.STANDARD,
    tz_aware=True,
    tzinfo=UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

KINDS: Mapping[str, tuple[type, ...]] = {
    "number": (int, float, Decimal128),
    "date": (datetime, DatetimeMS),
    "objectId": (ObjectId,),
    "string": (str,),
}
"""The kinds of values that a cursor may have, as MongoDB calls them: it compares those of one kind alone."""

LEAST, MOST = -(2**63), datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)
"""The least whole number, and the last date that is no number of milliseconds here."""


@dataclass(frozen=True)
class Document:
    """A document: its fields, its size in bytes, and what keeps it from being a row, if anything does."""

    fields: Mapping[str, Any]
    size: int
    fault: str | None = None


def decoded(raw: bytes | memoryview) -> Document:
    """The document that bytes are. Raises InvalidBSON if they are none."""
    try:
        return Document(bson.decode(raw, CODEC), len(raw))
    except InvalidBSON as error:
        return Document(bson.decode(raw, LENIENT), len(raw), f"the document has text that is no UTF-8 ({error})")


def text(value: Any) -> str | None:
    """A value of a field as text; see the top of the module."""
    if value is None or (isinstance(value, str) and not isinstance(value, Code)):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(Decimal(value))
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, ObjectId | Decimal128 | uuid.UUID):
        return str(value)
    if isinstance(value, bytes) and not isinstance(value, Binary):
        return base64.b64encode(value).decode()
    return extended(value)


def extended(value: Any) -> str:
    """A value as extended JSON in its relaxed form."""
    return json_util.dumps(value, json_options=RELAXED, ensure_ascii=False, separators=(",", ":"))


def kind_of(value: Any) -> str | None:
    """The kind of a cursor's value; None if it cannot be one."""
    if isinstance(value, bool | Code):
        return None
    return next((kind for kind, types in KINDS.items() if isinstance(value, types)), None)


def is_ordinary(value: Any) -> bool:
    """Whether a reading can go on from a value: nothing comes after infinity, nor soon after the year 9999."""
    if isinstance(value, Decimal128):
        return value.to_decimal().is_finite()
    return not isinstance(value, DatetimeMS) and not (isinstance(value, float) and not math.isfinite(value))


def is_before(value: Any, other: Any) -> bool:
    """Whether MongoDB has a value before another of the same kind. Those of two kinds have no order here."""
    if kind_of(value) is None or kind_of(value) != kind_of(other):
        return False
    if isinstance(value, str):
        return value.encode() < str(other).encode()
    if isinstance(value, datetime | DatetimeMS):
        return _milliseconds(value) < _milliseconds(other)
    if isinstance(value, ObjectId):
        return bool(value < other)
    first, second = (Decimal(one) if not isinstance(one, Decimal128) else one.to_decimal() for one in (value, other))
    return not second.is_nan() and (first.is_nan() or first < second)


def _milliseconds(value: datetime | DatetimeMS) -> int:
    return int(value if isinstance(value, DatetimeMS) else DatetimeMS(value))


def to_position(value: Any) -> str:
    """Values as the text of a position."""
    return json_util.dumps(value, json_options=CANONICAL, separators=(",", ":"))


def from_position(stored: str, where: str) -> Any:
    """The values that the text of a position stands for. Raises PlatformError if it is none."""
    try:
        return json_util.loads(stored, json_options=CANONICAL)
    except (ValueError, TypeError):
        raise PlatformError(
            f"{where} was read up to {stored[:60]!r}, which is no value of MongoDB. Load it afresh with --full-refresh."
        ) from None


def reduced(value: Any, lag: timedelta | int | float | None, where: str) -> Any:
    """A cursor's value less a lag (None: the usual one of times). Raises PlatformError for a lag of the wrong kind."""
    if isinstance(value, str):
        return less(value, "text", lag, where)
    is_time = isinstance(value, datetime | ObjectId)
    lag = USUAL_LAG if lag is None and is_time else lag
    if not lag:
        return value
    if isinstance(lag, timedelta) != is_time:
        wanted = "a duration, such as `lag: 15m`" if is_time else "a number, such as `lag: 1000`"
        raise PlatformError(f"{where} has a cursor of another kind than its lag, which must be {wanted}.")
    if isinstance(lag, timedelta):
        at = value.generation_time if isinstance(value, ObjectId) else value
        earliest = datetime(1970 if isinstance(value, ObjectId) else 1, 1, 1, tzinfo=UTC)
        at = at - lag if at - earliest > lag else earliest
        return ObjectId.from_datetime(at) if isinstance(value, ObjectId) else at
    if isinstance(value, Decimal128):
        return Decimal128(value.to_decimal() - Decimal(str(lag)))
    return Int64(max(LEAST, math.floor(value - lag))) if isinstance(value, int) else value - lag


def least_text(value: Any) -> str:
    """The least text that a value not less than this may have: dates, ObjectIds and text sort as their texts do;
    numbers do not, and any may be meant."""
    return (text(value) or "") if isinstance(value, datetime | ObjectId | str) else ""
