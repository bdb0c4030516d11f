"""Rows in the binary log: what a table map says of the columns of a table, and how the images of its rows are cut into
values. The values are those of the log, numbers and bytes; what they mean in Arrow is in `values`.

An image is the nulls of a row as bits, and one after the other what is not null. For each pattern of nulls there is a
plan made once: runs of columns of fixed width, with the length of the next other one, are unpacked by one call.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter
from typing import Any

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import lengthed


class Type(IntEnum):
    """The types of columns in the log."""

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


METADATA = {
    Type.FLOAT: 1,
    Type.DOUBLE: 1,
    Type.VARCHAR: 2,
    Type.BIT: 2,
    Type.TIMESTAMP2: 1,
    Type.DATETIME2: 1,
    Type.TIME2: 1,
    Type.BLOB_COMPRESSED: 1,
    Type.VARCHAR_COMPRESSED: 2,
    Type.JSON: 1,
    Type.NEWDECIMAL: 2,
    Type.BLOB: 1,
    Type.VAR_STRING: 2,
    Type.STRING: 2,
    Type.GEOMETRY: 1,
}
"""Bytes that a table map says more of a type."""

NUMBERS = frozenset({1, 2, 3, 4, 5, 8, 9, 13, 246})
CHARACTERS = frozenset({Type.STRING, Type.VAR_STRING, Type.VARCHAR, Type.BLOB})
LISTS = frozenset({Type.ENUM, Type.SET})

BINARY = 63
"""The collation of bytes."""

INTEGERS = {Type.TINY: "bB", Type.SHORT: "hH", Type.LONG: "iI", Type.LONGLONG: "qQ"}
"""How whole numbers are unpacked: signed, unsigned."""

LENGTHS = {1: "B", 2: "H", 3: "HB", 4: "I"}
"""How lengths of so many bytes are unpacked."""

DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that so many digits of a decimal take."""


@dataclass(frozen=True)
class LogColumn:
    """A column as the log describes it. `size` is what its type counts: bytes that a string may have, digits of a
    fraction, bytes of a number; `scale` that of a decimal, whose digits `size` are. `labels` are those of an enum or a
    set, as bytes in the character set of the column's `collation`."""

    name: str
    type: int
    size: int = 0
    scale: int = 0
    unsigned: bool = False
    collation: int = BINARY
    labels: tuple[bytes, ...] = ()

    def fixed(self) -> str | None:
        """How it is unpacked if it is of fixed width; None if it has its length before it."""
        kind = self.type
        if kind in INTEGERS:
            return INTEGERS[Type(kind)][self.unsigned]
        if kind == Type.FLOAT:
            return "f"
        if kind == Type.DOUBLE:
            return "d"
        if kind == Type.YEAR:
            return "B"
        width = self.width()
        return None if width is None else f"{width}s"

    def width(self) -> int | None:
        """Bytes of a value of fixed width that is taken as bytes; None if there is no such number."""
        fraction = (self.size + 1) // 2
        match self.type:
            case Type.INT24 | Type.DATE:
                return 3
            case Type.TIMESTAMP2:
                return 4 + fraction
            case Type.DATETIME2:
                return 5 + fraction
            case Type.TIME2:
                return 3 + fraction
            case Type.BIT | Type.ENUM | Type.SET:
                return self.size
            case Type.NEWDECIMAL:
                whole = self.size - self.scale
                return sum(4 * (n // 9) + DIGIT_BYTES[n % 9] for n in (whole, self.scale))
        return None

    def length(self) -> str:
        """How the length before a value is unpacked."""
        if self.type in (Type.VARCHAR, Type.STRING, Type.VAR_STRING):
            return LENGTHS[1 if self.size < 256 else 2]
        return LENGTHS[self.size]


Decoder = Callable[[bytes, int], tuple[tuple[Any, ...], int]]


@dataclass(frozen=True)
class Plan:
    """How an image with one pattern of nulls is read: calls that unpack runs of columns, with the bytes that they take
    and how many numbers at their end are the length of what follows; and where each value stands in the row."""

    runs: tuple[tuple[Callable[[bytes, int], tuple[Any, ...]], int, int], ...]
    placed: Callable[[list[Any]], tuple[Any, ...]] | None


class Layout:
    """The columns of a table at one place of the log, and how the images of its rows are read."""

    def __init__(self, schema: str, table: str, columns: Sequence[LogColumn], primary_key: Sequence[int]) -> None:
        self.schema, self.table = schema, table
        self.columns = tuple(columns)
        self.primary_key = tuple(primary_key)
        self._bitmap = (len(self.columns) + 7) // 8
        self._plans: dict[bytes, Plan] = {}

    def rows(self, images: bytes) -> list[tuple[Any, ...]]:
        """All rows in the images, each with a value or None for every column."""
        plans, bitmap, found = self._plans, self._bitmap, []
        at, end = 0, len(images)
        while at < end:
            nulls = images[at : at + bitmap]
            at += bitmap
            plan = plans.get(nulls)
            if plan is None:
                plan = plans[nulls] = self._plan(nulls)
            values: list[Any] = []
            for unpack, size, lengths in plan.runs:
                values += unpack(images, at)
                at += size
                if lengths:
                    length = values.pop() if lengths == 1 else values.pop() << 16 | values.pop()
                    values.append(images[at : at + length])
                    at += length
            placed = plan.placed
            found.append(tuple(values) if placed is None else placed(values))
        if at != end:
            raise PlatformError(
                f"The rows of {self.schema}.{self.table} in the binary log are not as its table map describes them."
            )
        return found

    def _plan(self, nulls: bytes) -> Plan:
        bits = int.from_bytes(nulls, "little")
        there = [number for number in range(len(self.columns)) if not bits >> number & 1]
        runs = []
        codes = ""
        for number in there:
            column = self.columns[number]
            fixed = column.fixed()
            if fixed is not None:
                codes += fixed
                continue
            length = column.length()
            run = struct.Struct(f"<{codes}{length}")
            runs.append((run.unpack_from, run.size, len(length)))
            codes = ""
        if codes:
            run = struct.Struct(f"<{codes}")
            runs.append((run.unpack_from, run.size, 0))
        if len(there) == len(self.columns):
            return Plan(tuple(runs), None)
        where = {number: place for place, number in enumerate(there)}
        # A null is what stands behind all values.
        places = [where.get(number, len(there)) for number in range(len(self.columns))]
        pick = itemgetter(*places) if len(places) > 1 else lambda values: (values[places[0]],)
        return Plan(tuple(runs), lambda values: pick([*values, None]))


def named(body: bytes) -> tuple[str, str]:
    """The database and the table of a table map."""
    length = body[8]
    schema = body[9 : 9 + length].decode()
    at = 10 + length
    return schema, body[at + 1 : at + 1 + body[at]].decode()


def layout_of(body: bytes) -> Layout:
    """What a table map says. Raises PlatformError if it lacks the names of the columns, or has types that cannot be
    read."""
    schema, table = named(body)
    at = 10 + body[8]
    at += 2 + body[at]
    count, at = lengthed(body, at)
    types = list(body[at : at + count])
    at += count
    size, at = lengthed(body, at)
    details = body[at : at + size]
    at += size + (count + 7) // 8
    columns = [dict(one) for one in _described(types, details)]
    kinds = [column["type"] for column in columns]
    primary_key: list[int] = []
    found: set[int] = set()
    while at < len(body):
        field = body[at]
        size, at = lengthed(body, at + 1)
        primary_key += _told(field, body[at : at + size], columns, kinds)
        found.add(field)
        at += size
    if _Field.NAMES not in found:
        raise PlatformError(
            f"The binary log does not name the columns of {schema}.{table}: it was written without "
            "binlog_row_metadata=FULL. Set it (set global binlog_row_metadata = FULL), and read the tables anew."
        )
    unread = [f"{one['name']} (type {one['type']})" for one in columns if one["type"] not in _READABLE]
    if unread:
        raise PlatformError(
            f"{schema}.{table} has columns whose values in the binary log cannot be read: {', '.join(unread)}. Times "
            f"of the format before 2013 are rewritten by ALTER TABLE {table} FORCE; compressed columns are read by "
            "table."
        )
    return Layout(schema, table, [LogColumn(**one) for one in columns], primary_key)


_READABLE = frozenset(Type) - {
    Type.TIMESTAMP,
    Type.TIME,
    Type.DATETIME,
    Type.BLOB_COMPRESSED,
    Type.VARCHAR_COMPRESSED,
}


class _Field(IntEnum):
    """What a table map may say besides, with binlog_row_metadata."""

    SIGNS = 1
    DEFAULT_COLLATION = 2
    COLLATIONS = 3
    NAMES = 4
    SET_LABELS = 5
    ENUM_LABELS = 6
    KEY = 8
    KEY_PREFIXES = 9
    LIST_DEFAULT_COLLATION = 10
    LIST_COLLATIONS = 11


def _described(types: Sequence[int], details: bytes) -> list[dict[str, Any]]:
    """What the obligatory part of a table map says of its columns."""
    found: list[dict[str, Any]] = []
    at = 0
    for kind in types:
        width = METADATA.get(kind, 0)  # type: ignore[call-overload]
        detail, at = details[at : at + width], at + width
        column: dict[str, Any] = {"name": "", "type": kind}
        if kind in (Type.STRING, Type.VAR_STRING):
            real, size = detail
            if real in LISTS:
                column |= {"type": real, "size": size}
            else:
                column |= {"type": Type.STRING, "size": ((real & 0x30) ^ 0x30) << 4 | size}
        elif kind == Type.BIT:
            column["size"] = detail[1] + (detail[0] > 0)
        elif kind == Type.NEWDECIMAL:
            column |= {"size": detail[0], "scale": detail[1]}
        elif width:
            column["size"] = int.from_bytes(detail, "little")
        found.append(column)
    return found


def _told(field: int, data: bytes, columns: list[dict[str, Any]], kinds: Sequence[int]) -> list[int]:
    """Add what one field of a table map says to the columns; the columns of the primary key, if it tells them."""
    # MariaDB counts columns of geometry among those of characters.
    characters = [number for number, kind in enumerate(kinds) if kind in CHARACTERS or kind == Type.GEOMETRY]
    lists = [number for number, kind in enumerate(kinds) if kind in LISTS]
    match field:
        case _Field.SIGNS:
            for place, number in enumerate(n for n, kind in enumerate(kinds) if kind in NUMBERS):
                columns[number]["unsigned"] = bool(data[place // 8] & 0x80 >> place % 8)
        case _Field.NAMES:
            at = 0
            for column in columns:
                length, at = lengthed(data, at)
                column["name"] = data[at : at + length].decode()
                at += length
        case _Field.DEFAULT_COLLATION | _Field.LIST_DEFAULT_COLLATION:
            numbers = _numbers(data)
            others = dict(zip(numbers[1::2], numbers[2::2], strict=True))
            for place, number in enumerate(characters if field == _Field.DEFAULT_COLLATION else lists):
                columns[number]["collation"] = others.get(place, numbers[0])
        case _Field.COLLATIONS | _Field.LIST_COLLATIONS:
            chosen = characters if field == _Field.COLLATIONS else lists
            for number, collation in zip(chosen, _numbers(data), strict=False):
                columns[number]["collation"] = collation
        case _Field.SET_LABELS | _Field.ENUM_LABELS:
            kind = Type.SET if field == _Field.SET_LABELS else Type.ENUM
            at = 0
            for number in (number for number, one in enumerate(kinds) if one == kind):
                count, at = lengthed(data, at)
                labels = []
                for _ in range(count):
                    length, at = lengthed(data, at)
                    labels.append(data[at : at + length])
                    at += length
                columns[number]["labels"] = tuple(labels)
        case _Field.KEY:
            return _numbers(data)
        case _Field.KEY_PREFIXES:
            return _numbers(data)[::2]
    return []


def _numbers(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        number, at = lengthed(data, at)
        found.append(number)
    return found
