"""From the body of an HTTP answer to rows in Arrow, each value as the JSON wrote it. Asking for it belongs elsewhere.

Raw is never interpreted, so numbers keep their digits (`1.50`, `2e5`) and every column is text: the standard parser
hands number literals over untouched, and orjson writes nested values back compactly with the same literals in place.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.source import MAX_COLUMNS, too_many_columns

DEEPEST = 254
"""Levels of nesting that a value of a row may have: the most that orjson writes."""


class NumberLiteral(str):
    """A number as the JSON wrote it (also NaN and Infinity, which some servers write)."""

    __slots__ = ()


def decode(content: bytes, charset: str | None) -> Any:
    """Parse a body; numbers become `NumberLiteral`. Raises ValueError: not text, not JSON, or nested too deeply."""
    try:
        text = content.decode(charset or "utf-8-sig")
        body = json.loads(text, parse_float=NumberLiteral, parse_int=NumberLiteral, parse_constant=NumberLiteral)
    except LookupError:
        raise ValueError(f"its charset {charset!r} is unknown") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not {error.encoding} text from byte {error.start} on") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos} of {len(text)}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Half an emoji, escaped: what truncation in the source leaves behind. No text can hold it, its escape can.
    return _whole(body) if re.search(r"\\u[dD][89a-fA-F]", text) else body


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value if isinstance(value, NumberLiteral) else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def find(body: Any, keys: Sequence[str]) -> Any:
    """The value at a place in a JSON document. Raises KeyError, whose text says which keys exist instead."""
    value = body
    for depth, key in enumerate(keys):
        if not isinstance(value, dict) or key not in value:
            where = f"`{'.'.join(keys[:depth])}`" if depth else "the body"
            raise KeyError(f"there is no {key!r} in {where}, which {describe(value)}")
        value = value[key]
    return value


def describe(value: Any) -> str:
    """What a JSON value is, by its shape alone: it may hold what nobody should read in a log."""
    if isinstance(value, dict):
        names = ", ".join(list(value)[:20])
        return f"has the keys {names}" + (", ..." if len(value) > 20 else "") if value else "is an empty object"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    if value is None:
        return "is null"
    if isinstance(value, bool):
        return "is a boolean"
    return "is a number" if isinstance(value, NumberLiteral) else "is a string"


def rows_of(body: Any, keys: Sequence[str] | None) -> list[dict[str, Any]]:
    """The rows in a body: a list of objects; null is an empty list, as servers written in Go put it.

    Raises ValueError: nothing there, no list, or something in it that is no object.
    """
    try:
        rows = find(body, keys or ())
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    where = f"`{'.'.join(keys)}`" if keys else "the body"
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise ValueError(f"{where} should be a list of rows but {describe(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where} should be a list of objects, but item {index} {describe(row)}")
        if not row:
            raise ValueError(f"{where} should be a list of objects with fields, but item {index} has none")
    return rows


def to_arrow(rows: list[dict[str, Any]], max_columns: int = MAX_COLUMNS) -> pa.Table:
    """One text column for each field found in any of the rows; null where a row has none. Raises PlatformError: more
    fields than `max_columns`, which a map has rather than rows, or a value that is nested too deeply."""
    names: dict[str, Any] = {}
    for row in rows:
        names.update(row)
    if len(names) > max_columns:
        error = too_many_columns(f"A page of {len(rows)} rows", names, max_columns)
        raise PlatformError(f"{error} Or does `rows` point at a map? It should at a list of objects.")
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:  # something that is neither text, nor a number as written, nor null
        return pa.array([text(value) for value in values], pa.string())


def text(value: Any) -> str | None:
    """A JSON value as text: as it is if it is a string or a number, compact JSON if it is nested; null is None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return _compact(value).decode()


def _compact(value: Any, option: int = 0) -> bytes:
    try:
        return orjson.dumps(value, default=_verbatim, option=option | orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError as error:  # what came from a parser can only be too deep for a writer
        raise PlatformError(
            f"A value of a row is nested deeper than the {DEEPEST} levels that are read ({error}). Leave it out by a "
            "parameter of the API, or let `rows` point further inside."
        ) from error


def _verbatim(value: Any) -> orjson.Fragment:
    return orjson.Fragment(str(value))


def plain(value: Any, rows: list[Any] | None = None) -> Any:
    """A JSON document with numbers for `NumberLiteral`, except within `rows`, which stay the very same object."""
    if isinstance(value, NumberLiteral):
        return json.loads(value)
    if isinstance(value, dict):
        return {key: plain(item, rows) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) and value is not rows else value


def digest(rows: list[dict[str, Any]]) -> int:
    """The sum of the rows' SHA-256, modulo 2^256: the same whatever their order, in constant memory, and unlike an
    exclusive or it counts repeated rows. Digests of pages add up to that of the table."""
    hashes = (hashlib.sha256(_compact(row, orjson.OPT_SORT_KEYS)).digest() for row in rows)
    return sum(int.from_bytes(value) for value in hashes) % 2**256
