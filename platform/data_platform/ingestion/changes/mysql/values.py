"""Values of the binary log, and of the text that the server writes, in Arrow: the same value of a row is the same
whichever way it came, and what a table that is read by statements has. How they are cut out of the log is in `images`.

Numbers that the log writes in its own way (decimals, dates, times) are taken as columns of bytes and computed for all
rows at once. What only the server knows (rare character sets, shapes, addresses) it is asked, each distinct value once.
"""

import codecs
import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import (
    NO_SUCH_COLUMN,
    Connection,
    ServerError,
    texts_of,
)
from data_platform.ingestion.changes.mysql.images import BINARY, DIGIT_BYTES, LogColumn, Type
from data_platform.ingestion.sql.dialects.mysql import NO_DATE, cast_of, described_column
from data_platform.ingestion.sql.dialects.session import Column, NoPlaceError, valid_text
from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.sql import quote

NAMES = {
    Type.TINY: "tinyint",
    Type.SHORT: "smallint",
    Type.INT24: "mediumint",
    Type.LONG: "int",
    Type.LONGLONG: "bigint",
    Type.YEAR: "year",
    Type.FLOAT: "float",
    Type.DOUBLE: "double",
    Type.NEWDECIMAL: "decimal",
    Type.BIT: "bit",
    Type.DATE: "date",
    Type.DATETIME2: "datetime",
    Type.TIMESTAMP2: "timestamp",
    Type.TIME2: "time",
    Type.ENUM: "enum",
    Type.SET: "set",
    Type.JSON: "json",
    Type.GEOMETRY: "geometry",
}

UNICODE = frozenset({"utf8", "utf8mb3", "utf8mb4", "ascii"})
"""Character sets whose bytes are UTF-8 as they stand."""

ADDRESSES = frozenset({"inet4", "inet6"})
"""Types that the log writes as bytes, and that only the declaration tells from these."""

ADDRESS_BYTES = {"uuid": 16, "inet6": 16, "inet4": 4}

UTC = dt.timezone.utc  # noqa: UP017 - beside `dt`


def described(column: LogColumn, now: Mapping[str, str]) -> Column:
    """A column of the log as the dialect describes it, with the type in Arrow that a table has which is read by
    statements. `now` are the types that the table's columns are declared with now, for what the log does not tell."""
    kind = Type(column.type)
    name = NAMES.get(kind)
    if name is None:
        declared = now.get(column.name, "")
        is_binary = column.collation == BINARY
        if is_binary and declared in ADDRESS_BYTES and column.size == ADDRESS_BYTES[declared]:
            name = declared
        elif kind == Type.BLOB:
            name = "blob" if is_binary else "text"
        else:
            name = "varbinary" if is_binary else "varchar"
    unsigned = column.unsigned and kind != Type.YEAR
    described = {"n": column.name, "t": name + " unsigned" * unsigned, "d": name, "o": "YES", "k": ""}
    return described_column(described | {"p": str(column.size), "s": str(column.scale)})


class Values:
    """What makes columns in Arrow. `server` is asked what only it knows, on a connection that does not read the log."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._duckdb = database(settings_from_environment())
        self._duckdb.execute("SET TimeZone = 'UTC'")
        self._charsets: dict[int, str] = {}
        self._decoded: dict[str, str] = {}

    def close(self) -> None:
        """Release what is open."""
        self._duckdb.close()

    def cast(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Text as the server writes it, in the types of a schema. Raises NoPlaceError for a date that is none."""
        columns = ", ".join(f"{cast_of(field)} AS {quote(field.name)}" for field in schema)
        try:
            relation = self._duckdb.from_arrow(rows)
            found = relation.query("texts", f"SELECT {columns} FROM texts").to_arrow_table()
        except duckdb.Error as error:
            if (no_date := NO_DATE.search(str(error))) is None:
                raise
            column, kind = (bytes.fromhex(no_date[part]).decode() for part in (1, 2))
            shown = "a value" if self._server.withholds else no_date[3]
            raise NoPlaceError(column, f"{shown}, which is no {kind}") from None
        return found.cast(schema)

    def array(self, column: LogColumn, values: Sequence[Any], type_: pa.DataType, declared: str = "") -> pa.Array:
        """The values of a column of the log in `type_`, which is what `described` says, or text. `declared` is the type
        that the table has now for the column, if that is told by nothing else."""
        kind = Type(column.type)
        as_text = pa.types.is_string(type_)
        match kind:
            case Type.TINY | Type.SHORT | Type.LONG | Type.LONGLONG:
                if as_text:
                    return pa.array([None if v is None else str(v) for v in values], pa.string())
                if pa.types.is_decimal(type_):
                    return pa.array(values, pa.uint64()).cast(type_)
                return pa.array(values, type_)
            case Type.YEAR:
                years = [v and v + 1900 for v in values]
                if as_text:
                    return pa.array([None if v is None else f"{v:04d}" for v in years], pa.string())
                return pa.array(years, type_)
            case Type.FLOAT | Type.DOUBLE:
                if not as_text:
                    return pa.array(values, type_)
                name = NAMES[kind]
                return self._asked(values, lambda v: f"cast(cast({v!r} as {name}) as char)")
            case Type.INT24:
                numbers = _fixed(values, 3, lambda data, count: _integer(data, count, 3, 0, 3, big=False))
                if not column.unsigned:
                    negative = pc.greater_equal(numbers, 0x800000)
                    numbers = pc.subtract(numbers, pc.multiply(negative.cast(pa.int64()), 0x1000000))
                return numbers.cast(type_)
            case Type.BIT:
                if as_text:
                    return self._asked(values, lambda v: f"cast(x'{v.hex()}' as char)")
                bits = [None if v is None else int.from_bytes(v) for v in values]
                return pa.array(bits, pa.uint64()).cast(type_)
            case Type.NEWDECIMAL:
                return _decimals(column, values, type_)
            case Type.DATE | Type.DATETIME2 | Type.TIMESTAMP2:
                return self._moments(column, values, type_)
            case Type.TIME2:
                return pa.array([None if v is None else _time_text(v, column.size) for v in values], pa.string())
            case Type.ENUM:
                labels = ["", *self._texts(column, column.labels).to_pylist()]
                indices = [None if v is None else int.from_bytes(v, "little") for v in values]
                return pa.array(labels, pa.string()).take(pa.array(indices, pa.int32()))
            case Type.SET:
                return self._sets(column, values)
            case Type.GEOMETRY:
                return self._asked(values, lambda v: f"ST_AsText(x'{v.hex()}')")
            case Type.JSON:
                raise PlatformError(
                    f"Column {column.name} is JSON of MySQL itself, whose binary form in the log is not read. Leave it "
                    "out with `columns`, or read the table by a cursor."
                )
        return self._strings(column, values, type_, declared)

    def _strings(
        self, column: LogColumn, values: Sequence[bytes | None], type_: pa.DataType, declared: str
    ) -> pa.Array:
        if column.collation != BINARY:
            return self._texts(column, values)
        if column.type == Type.STRING:
            # The log leaves out zeros at the end.
            values = [None if v is None else v.ljust(column.size, b"\0") for v in values]
        if declared == "uuid":
            return pa.array([None if v is None else str(uuid.UUID(bytes=v)) for v in values], pa.string())
        if declared in ADDRESSES:
            return self._asked(values, lambda v: f"cast(cast(x'{v.hex()}' as {declared}) as char)")
        if pa.types.is_string(type_):
            return self._asked(values, lambda v: f"cast(x'{v.hex()}' as char)")
        return pa.array(values, pa.binary())

    def _texts(self, column: LogColumn, values: Sequence[bytes | None]) -> pa.Array:
        """Text of the column's character set."""
        charset = self._charset(column.collation)
        if charset in UNICODE:
            return valid_text(pa.array(values, pa.binary()))
        letters = self._letters(charset)
        if letters:
            decode: Callable[[bytes, str, Any], tuple[str, int]] = codecs.charmap_decode
            return pa.array([None if v is None else decode(v, "strict", letters)[0] for v in values], pa.string())
        return self._asked(values, lambda v: f"convert(_{charset} x'{v.hex()}' using utf8mb4)")

    def _charset(self, collation: int) -> str:
        if not self._charsets:
            names = "id, character_set_name"
            try:
                rows = self._server.rows(
                    f"select {names} from information_schema.collation_character_set_applicability where id is not null"
                )
            except ServerError as error:
                if error.code != NO_SUCH_COLUMN:
                    raise
                rows = self._server.rows(f"select {names} from information_schema.collations")
            self._charsets = {int(number or 0): name or "" for number, name in rows}
        if collation not in self._charsets:
            raise PlatformError(
                f"{self._server.where}: the binary log has text of the collation {collation}, which the server does "
                "not list in information_schema.collations."
            )
        return self._charsets[collation]

    def _letters(self, charset: str) -> str:
        """What the server makes of each of the 256 bytes; empty for a character set of several bytes a letter."""
        if charset not in self._decoded:
            longest = self._server.value(
                f"select maxlen from information_schema.character_sets where character_set_name = '{charset}'"
            )
            letters = ""
            if longest == "1":
                each = [f"hex(convert(convert(x'{byte:02x}' using {charset}) using utf8mb4))" for byte in range(256)]
                letters = "".join(bytes.fromhex(one or "3f").decode() for one in texts_of(self._server, each))
            self._decoded[charset] = letters if len(letters) == 256 else ""
        return self._decoded[charset]

    def _asked(self, values: Sequence[Any], expression: Callable[[Any], str]) -> pa.Array:
        """What the server makes of each value."""
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        known = dict(zip(distinct, texts_of(self._server, [expression(one) for one in distinct]), strict=True))
        return pa.array([None if value is None else known[value] for value in values], pa.string())

    def _sets(self, column: LogColumn, values: Sequence[bytes | None]) -> pa.Array:
        labels = self._texts(column, column.labels).to_pylist()

        @cache
        def text(value: bytes) -> str:
            bits = int.from_bytes(value, "little")
            return ",".join(label for number, label in enumerate(labels) if bits >> number & 1)

        return pa.array([None if value is None else text(value) for value in values], pa.string())

    def _moments(self, column: LogColumn, values: Sequence[bytes | None], type_: pa.DataType) -> pa.Array:
        width = column.width() or 0
        if not pa.types.is_string(type_) and len(values):
            data, count = b"".join(bytes(width) if v is None else v for v in values), len(values)
            found, valid = _MOMENTS[Type(column.type)](data, count, column.size)
            nulls = pa.array([v is None for v in values])
            if pc.all(pc.or_(valid, nulls)).as_py():
                return pc.if_else(nulls, pa.scalar(None, found.type), found).cast(type_)
        texts = pa.array(
            [None if v is None else _MOMENT_TEXTS[Type(column.type)](v, column.size) for v in values], pa.string()
        )
        if pa.types.is_string(type_):
            return texts
        schema = pa.schema([(column.name, type_)])
        return self.cast(pa.table([texts], names=[column.name]), schema).column(0).combine_chunks()


def _fixed(values: Sequence[bytes | None], width: int, compute: Callable[[bytes, int], pa.Array]) -> pa.Array:
    """What `compute` makes of values of a fixed width, joined; null where there is none."""
    found = compute(b"".join(bytes(width) if v is None else v for v in values), len(values))
    if None not in values:
        return found
    return pc.if_else(pa.array([v is None for v in values]), pa.scalar(None, found.type), found)


def _byte(data: bytes, count: int, width: int, number: int) -> pa.Array:
    """One byte of each value, as numbers of 64 bits."""
    return pa.Array.from_buffers(pa.uint8(), count, [None, pa.py_buffer(data[number::width])]).cast(pa.int64())


def _integer(data: bytes, count: int, width: int, start: int, length: int, *, big: bool = True) -> pa.Array:
    """Unsigned whole numbers of `length` bytes (7 at most) from byte `start` of each value of `width` bytes."""
    numbers = range(start, start + length)
    total = pa.array([0] * count, pa.int64()) if not length else None
    for number in numbers if big else reversed(numbers):
        byte = _byte(data, count, width, number)
        total = byte if total is None else pc.add(pc.multiply(total, 256), byte)
    return total


def _bits(numbers: pa.Array, above: int, below: int) -> pa.Array:
    """So many bits of numbers, those `above` the lowest ones."""
    return pc.bit_wise_and(pc.shift_right(numbers, above), 2**below - 1)


_MONTHS = pa.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0, 0], pa.int64())


def _calendar(year: pa.Array, month: pa.Array, day: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Days since 1970, and which of the dates there are (of year 1 on)."""

    def is_multiple(of: int) -> pa.Array:
        return pc.equal(pc.multiply(pc.divide(year, of), of), year)

    leap = pc.or_(pc.and_not(is_multiple(4), is_multiple(100)), is_multiple(400))
    longest = pc.add(_MONTHS.take(month), pc.and_(leap, pc.equal(month, 2)).cast(pa.int64()))
    valid = pc.and_(pc.and_(pc.greater(day, 0), pc.less_equal(day, longest)), pc.greater(year, 0))
    # Years that begin in March have the day that is not always there at their end.
    early = pc.less_equal(month, 2).cast(pa.int64())
    year = pc.subtract(year, early)
    month = pc.add(pc.subtract(month, 3), pc.multiply(early, 12))
    days = pc.add(pc.divide(pc.add(pc.multiply(month, 153), 2), 5), pc.subtract(day, 1))
    leaps = pc.add(pc.subtract(pc.divide(year, 4), pc.divide(year, 100)), pc.divide(year, 400))
    return pc.subtract(pc.add(pc.add(pc.multiply(year, 365), leaps), days), 719_468), valid


def _dates(data: bytes, count: int, _: int) -> tuple[pa.Array, pa.Array]:
    packed = _integer(data, count, 3, 0, 3, big=False)
    days, valid = _calendar(pc.shift_right(packed, 9), _bits(packed, 5, 4), _bits(packed, 0, 5))
    return days.cast(pa.int32()).cast(pa.date32()), valid


def _fractions(data: bytes, count: int, whole: int, digits: int) -> pa.Array:
    """Microseconds that stand after so many bytes of each value."""
    width = (digits + 1) // 2
    return pc.multiply(_integer(data, count, whole + width, whole, width), 10 ** (6 - 2 * width))


def _datetimes(data: bytes, count: int, digits: int) -> tuple[pa.Array, pa.Array]:
    packed = _bits(_integer(data, count, 5 + (digits + 1) // 2, 0, 5), 0, 39)  # the highest one is the sign
    months = pc.shift_right(packed, 22)
    year = pc.divide(months, 13)
    month = pc.subtract(months, pc.multiply(year, 13))
    days, valid = _calendar(year, month, _bits(packed, 17, 5))
    seconds = pc.add(pc.multiply(days, 86_400), pc.multiply(_bits(packed, 12, 5), 3_600))
    seconds = pc.add(pc.add(seconds, pc.multiply(_bits(packed, 6, 6), 60)), _bits(packed, 0, 6))
    micros = pc.add(pc.multiply(seconds, 1_000_000), _fractions(data, count, 5, digits))
    return micros.cast(pa.timestamp("us")), valid


def _timestamps(data: bytes, count: int, digits: int) -> tuple[pa.Array, pa.Array]:
    seconds = _integer(data, count, 4 + (digits + 1) // 2, 0, 4)
    micros = pc.add(pc.multiply(seconds, 1_000_000), _fractions(data, count, 4, digits))
    return micros.cast(pa.timestamp("us", "UTC")), pc.greater(seconds, 0)


_MOMENTS = {Type.DATE: _dates, Type.DATETIME2: _datetimes, Type.TIMESTAMP2: _timestamps}


def _date_text(value: bytes, _: int) -> str:
    packed = int.from_bytes(value, "little")
    return f"{packed >> 9:04d}-{packed >> 5 & 15:02d}-{packed & 31:02d}"


def _fraction_text(value: bytes, whole: int, digits: int) -> str:
    """The fraction of a second after so many bytes, with its point; empty if it has no digits."""
    width = (digits + 1) // 2
    return f".{int.from_bytes(value[whole:]):0{2 * width}d}"[: digits + 1] if digits else ""


def _datetime_text(value: bytes, digits: int) -> str:
    packed = int.from_bytes(value[:5]) - 0x8000000000
    year, month = divmod(packed >> 22, 13)
    day = f"{year:04d}-{month:02d}-{packed >> 17 & 31:02d}"
    time = f"{packed >> 12 & 31:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"
    return f"{day} {time}{_fraction_text(value, 5, digits)}"


def _timestamp_text(value: bytes, digits: int) -> str:
    seconds = int.from_bytes(value[:4])
    moment = dt.datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "0000-00-00 00:00:00"
    return moment + _fraction_text(value, 4, digits)


_MOMENT_TEXTS = {Type.DATE: _date_text, Type.DATETIME2: _datetime_text, Type.TIMESTAMP2: _timestamp_text}


def _time_text(value: bytes, digits: int) -> str:
    width = (digits + 1) // 2
    packed = int.from_bytes(value) - (0x800000 << 8 * width)
    whole, fraction = divmod(abs(packed), 1 << 8 * width)
    text = f"{'-' * (packed < 0)}{whole >> 12:02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}"
    return text + (f".{fraction:0{2 * width}d}"[: digits + 1] if digits else "")


def _pieces(column: LogColumn) -> list[tuple[int, int]]:
    """The parts of a decimal in the log: bytes and digits of each."""
    whole, scale = column.size - column.scale, column.scale
    found = [(DIGIT_BYTES[whole % 9], whole % 9), *[(4, 9)] * (whole // 9), *[(4, 9)] * (scale // 9)]
    found.append((DIGIT_BYTES[scale % 9], scale % 9))
    return [piece for piece in found if piece[0]]


def _decimals(column: LogColumn, values: Sequence[bytes | None], type_: pa.DataType) -> pa.Array:
    width = column.width() or 0
    if pa.types.is_string(type_):
        texts = [None if v is None else _decimal_text(_unscaled(column, v), column.scale) for v in values]
        return pa.array(texts, pa.string())
    if column.size <= 18:
        numbers = _fixed(values, width, lambda data, count: _small_decimals(column, data, count))
        held = numbers.cast(pa.decimal128(19, 0))
    else:
        data = b"".join((0 if v is None else _unscaled(column, v)).to_bytes(16, "little", signed=True) for v in values)
        plain = pa.Array.from_buffers(pa.decimal128(38, 0), len(values), [None, pa.py_buffer(data)])
        nulls = pa.array([v is None for v in values], pa.bool_())
        held = pc.if_else(nulls, pa.scalar(None, plain.type), plain)
    # The digits are those of the type: only where the point stands is another.
    return pa.Array.from_buffers(type_, len(held), held.buffers(), held.null_count, held.offset)


def _small_decimals(column: LogColumn, data: bytes, count: int) -> pa.Array:
    """The digits of decimals of up to 18 of them, as whole numbers."""
    width = column.width() or 0
    first = _byte(data, count, width, 0)
    positive = pc.greater_equal(first, 0x80)
    total, at = None, 0
    for size, digits in _pieces(column):
        piece = None
        for number in range(at, at + size):
            byte = _byte(data, count, width, number) if number else pc.bit_wise_xor(first, 0x80)
            byte = pc.if_else(positive, byte, pc.subtract(255, byte))
            piece = byte if piece is None else pc.add(pc.multiply(piece, 256), byte)
        total = piece if total is None else pc.add(pc.multiply(total, 10**digits), piece)
        at += size
    return pc.if_else(positive, total, pc.negate(total))


def _unscaled(column: LogColumn, value: bytes) -> int:
    """The digits of a decimal as a whole number."""
    positive = value[0] & 0x80
    plain = bytes([value[0] ^ 0x80]) + value[1:]
    if not positive:
        plain = bytes(255 - byte for byte in plain)
    total = at = 0
    for size, digits in _pieces(column):
        total = total * 10**digits + int.from_bytes(plain[at : at + size])
        at += size
    return total if positive else -total


def _decimal_text(unscaled: int, scale: int) -> str:
    digits = f"{abs(unscaled):0{scale + 1}d}"
    point = len(digits) - scale
    text = digits[:point] + (f".{digits[point:]}" if scale else "")
    return f"-{text}" if unscaled < 0 else text
