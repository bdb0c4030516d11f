"""What the formats that have types share: the types in which their values land, the names of their columns, and what a
file says that cannot be read. How bytes become Arrow is the work of each format's own module.

Values keep their types, nested ones too. What the lakehouse has no type for lands in the nearest one that holds every
value: half floats as floats, decimals of more than 38 digits, durations (ISO 8601) and UUIDs as text, unions as JSON.
Only what is finer than a microsecond is cut off, of instants and times of day, for want of any type that holds it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, BinaryIO, ClassVar

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.format import FormatOptions
from data_platform.ingestion.files.formats.text import Parsed, checked_columns
from data_platform.ingestion.source import too_many_columns

ROWS = 16_384
"""Rows that are taken out of a file at once, at most: what keeps memory bounded where a few bytes of the file stand for
long values (dictionaries)."""

MOST_DIGITS = 38
"""Digits of the widest decimal that has a type of its own; wider ones are text."""


class TypedFormat(FormatOptions):
    """A format whose records are no lines of text: it has no encoding, and a file of it is whole or cannot be read."""

    values_are_text: ClassVar[bool] = False


def parsed(batches: Iterator[pa.RecordBatch], schema: pa.Schema, max_columns: int) -> Iterator[Parsed]:
    """Rows in types that land, numbered from 1; one block at least, with the columns. Raises PlatformError for names
    that no column can have, and more columns than `max_columns`."""
    names = column_names(schema.names, max_columns)
    empty = pa.schema(list(zip(names, map(plain_type, schema.types), strict=True))).empty_table()
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            rows = batch.slice(start, ROWS)
            rows.validate(full=True)
            table = pa.table([plain(column) for column in rows.columns], schema=empty.schema)
            yield Parsed(numbered(table, number + 1))
            number += rows.num_rows
    if not number:
        yield Parsed(numbered(empty, 1))


def column_names(names: Sequence[str], max_columns: int) -> list[str]:
    """The names of a file's columns. Raises PlatformError if there are too many, or if one cannot be had."""
    if len(names) > max_columns:
        raise too_many_columns("its schema", list(names), max_columns)
    try:
        return checked_columns(list(names))
    except ValueError as error:
        raise PlatformError(f"{error}. Have it renamed where the file is written.") from None


def numbered(rows: pa.Table, first: int) -> pa.Table:
    """The rows with `_line`, their numbers in the file."""
    numbers = pl.int_range(first, first + rows.num_rows, dtype=pl.Int64, eager=True)
    return rows.append_column("_line", numbers.to_arrow())


@contextmanager
def explained(what: str) -> Iterator[None]:
    """What a library raises for a file that it cannot read, as one message. A failing disk is left as it is."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise PlatformError(f"{what} is damaged: a name in it is not UTF-8 ({error.reason}).") from None
    except pa.ArrowNotImplementedError as error:
        raise PlatformError(
            f"{what} holds something that cannot be read: {_first_line(error)}. Have it written without that."
        ) from None
    except (pa.ArrowException, OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if "out of range for nanosecond" in str(error):
            raise PlatformError(
                f"{what} has an instant that no nanoseconds hold ({_first_line(error)}): they reach from 1677 to 2262. "
                "Have it written as null, as text, or as Parquet in microseconds."
            ) from None
        raise PlatformError(f"{what} is damaged or cut off: {_first_line(error)}. Have it sent again.") from None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return shortened(text.splitlines()[0].rstrip("."), 300)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type in which values of a type land."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if isinstance(kind, pa.UuidType) else plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [pa.field(one.name, _within(one.type)) for one in kind]
        lower = {one.name.lower() for one in fields if one.name and "\0" not in one.name}
        return pa.struct(fields) if fields and len(lower) == len(fields) else pa.string()
    if pa.types.is_map(kind):
        return pa.map_(_within(kind.key_type), _within(kind.item_type))
    if _is_list(kind):
        return pa.list_(_within(kind.value_type))
    if pa.types.is_union(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind):
        return pa.string()
    if pa.types.is_decimal(kind):
        digits = max(kind.precision - min(kind.scale, 0), kind.scale)
        return pa.decimal128(digits, max(kind.scale, 0)) if digits <= MOST_DIGITS else pa.string()
    if pa.types.is_timestamp(kind):
        return kind if kind.unit == "ns" and not kind.tz else pa.timestamp("us", "UTC" if kind.tz else None)
    for test, plain_kind in _PLAIN:
        if test(kind):
            return plain_kind
    return kind


def _within(kind: pa.DataType) -> pa.DataType:
    """The type within a nested one, where a column of nothing but nulls has no say in what it is to be."""
    return pa.string() if pa.types.is_null(kind) else plain_type(kind)


_PLAIN = (
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_date64, pa.date32()),
    (pa.types.is_time, pa.time64("us")),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
)


def _is_list(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def plain(array: pa.Array) -> pa.Array:
    """Values in the type that `plain_type` says. Raises pa.ArrowInvalid for a time that no microseconds hold."""
    kind, wanted = array.type, plain_type(array.type)
    if kind == wanted:
        return array
    if isinstance(kind, pa.UuidType):
        return _uuids(array.storage)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_nested(kind) and not pa.types.is_string(wanted):
        return _nested(array, wanted)
    if pa.types.is_duration(kind):
        return pl.Series(array.cast(pa.duration("us"), safe=False)).dt.to_string("iso").to_arrow().cast(wanted)
    if pa.types.is_interval(kind):
        return pa.array([None if value is None else _interval(value) for value in array.to_pylist()], wanted)
    if pa.types.is_nested(kind):
        return pa.array([None if value is None else to_json(value) for value in array.to_pylist()], wanted)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), wanted)
    finer = (pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) and kind.unit == "ns"
    return _floored(array).cast(wanted) if finer else array.cast(wanted)


def _floored(array: pa.Array) -> pa.Array:
    """Times cut to whole microseconds, those before 1970 too."""
    if pa.types.is_timestamp(array.type):
        return pc.floor_temporal(array.cast(pa.timestamp("ns")), unit="microsecond").cast(array.type)
    return pc.multiply(pc.divide(array.cast(pa.int64()), 1000), 1000).cast(array.type)


def _nested(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if array.offset:
        array = pa.concat_arrays([array, array[:0]])
    if pa.types.is_struct(wanted):
        values = [_as(column, one.type) for column, one in zip(array.flatten(), wanted, strict=True)]
        return pa.StructArray.from_arrays(values, fields=list(wanted), mask=array.is_null())
    if pa.types.is_map(wanted):
        keys, items = _as(array.keys, wanted.key_type), _as(array.items, wanted.item_type)
        return pa.MapArray.from_arrays(array.offsets, keys, items, type=wanted, mask=array.is_null())
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        # Casts of views with nulls fail, or take those that share their values for damaged.
        return pa.array([None if one is None else one.to_pylist() for one in map(_values, array)], wanted)
    lists = array if pa.types.is_list(array.type) else array.cast(pa.list_(array.type.value_field))
    return pa.ListArray.from_arrays(lists.offsets, _as(lists.values, wanted.value_type), mask=lists.is_null())


def _values(scalar: pa.Scalar) -> pa.Array | None:
    return None if scalar.values is None else plain(scalar.values)


def _as(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    return pa.nulls(len(array), wanted) if pa.types.is_null(array.type) else plain(array)


def _interval(value: pa.MonthDayNano) -> str:
    """An interval of months, days and nanoseconds in ISO 8601."""
    months, days, nanoseconds = value
    seconds = format(Decimal(nanoseconds) / 10**9, "f")
    return f"P{months}M{days}DT{seconds}S"


def _uuids(array: pa.Array) -> pa.Array:
    digits = pl.Series(array.cast(pa.binary())).bin.encode("hex")
    parts = [digits.str.slice(start, size) for start, size in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    texts = parts[0]
    for part in parts[1:]:
        texts = texts + "-" + part
    return texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())


def to_json(value: Any) -> str:
    """A value as JSON: decimals with their digits, bytes as text of the same code points."""
    return orjson.dumps(value, default=_json_value, option=orjson.OPT_NON_STR_KEYS).decode()


def _json_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value)


class Kept:
    """A stream that a reader may read, but not close: it is its owner's."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def size_of(stream: BinaryIO) -> int:
    """Bytes in a stream, which stands at its beginning afterwards."""
    size = stream.seek(0, 2)
    stream.seek(0)
    return size
