"""Schemas of Avro: the columns that the fields of a record become, and their values as columns. Files are read in
`reader`, messages of Kafka in `ingestion.kafka`.

Numbers, texts, times and decimals have their own types; records, arrays, maps, and unions of several types are JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import pyarrow as pa
from fastavro.schema import SchemaParseException, UnknownType

from data_platform.ingestion.files.formats.typed import MOST_DIGITS, to_json

PRIMITIVES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
    "enum": pa.string(),
    "fixed": pa.binary(),
}

TIMES = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-nanos": pa.timestamp("ns"),
}
"""Logical types that are numbers in a message: they are read as such, and become what they mean column by column."""


@dataclass(frozen=True)
class Column:
    """How the values of a field become a column: the type that they are built in, that which their numbers stand for,
    if it is another, and the one in which they land."""

    built: pa.DataType
    meant: pa.DataType
    as_json: bool = False
    number_of: pa.DataType | None = None

    def array(self, values: Sequence[Any]) -> pa.Array:
        if self.as_json:
            values = [None if value is None else to_json(value) for value in values]
        elif self.built == pa.string():
            values = [value if value is None or isinstance(value, str) else str(value) for value in values]
        array = pa.array(values, self.built)
        return (array if self.number_of is None else array.cast(self.number_of)).cast(self.meant)


JSON = Column(pa.string(), pa.string(), as_json=True)


@dataclass(frozen=True)
class AvroSchema:
    """A schema ready to read with. `columns` are those of its fields, or of the single one that stands
    for it if it is no record's."""

    schema: Any
    columns: Mapping[str, Column]
    is_record: bool


def schema_of(text: str, single: str, references: Sequence[str] = ()) -> AvroSchema | str:
    """A schema from its text and those of the schemas that it refers to, or why it cannot be read. `single` is what the
    column is called of a schema that is no record's."""
    named: dict[str, Any] = {}
    try:
        for reference in references:
            fastavro.parse_schema(json.loads(reference), named)
        schema = _with_numbers(json.loads(text))
        plain = _without_times(schema)
        parsed = fastavro.parse_schema(plain, named)
    except (ValueError, SchemaParseException, UnknownType, KeyError, TypeError) as error:
        return f"its schema cannot be read: {type(error).__name__}: {error}"
    is_record = isinstance(schema, dict) and schema.get("type") in ("record", "error")
    if not is_record:
        return AvroSchema(parsed, {single: _column(schema, named)}, is_record=False)
    return AvroSchema(parsed, {one["name"]: _column(one["type"], named) for one in schema["fields"]}, is_record=True)


def column_of(
    name: str, column: Column, values: Sequence[Any], numbers: Sequence[int], bad: dict[int, str]
) -> pa.Array:
    """The values as a column, null where one does not have the type that its schema says; the number of each such one
    is added to `bad`, with the reason."""
    try:
        return column.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    parts = []
    for number, value in zip(numbers, values, strict=True):
        try:
            parts.append(column.array([value]))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            bad[number] = f"the field {name} has a value that does not fit the type of its schema ({column.meant})"
            parts.append(pa.nulls(1, column.meant))
    return pa.concat_arrays(parts)


def _without_times(schema: Any) -> Any:
    """A schema in which the fields of the record, but not what is within them, are numbers where they are times."""

    def plain(kind: Any) -> Any:
        if isinstance(kind, list):
            return [plain(member) for member in kind] if len(_members(kind)) == 1 else kind
        is_time = isinstance(kind, dict) and kind.get("logicalType") in TIMES and kind["type"] in ("int", "long")
        return kind["type"] if is_time else kind

    if isinstance(schema, dict) and schema.get("type") in ("record", "error"):
        return {**schema, "fields": [{**one, "type": plain(one["type"])} for one in schema["fields"]]}
    return plain(schema)


def _with_numbers(schema: Any) -> Any:
    """A schema in which digits and scale of decimals are numbers: Hive wrote them as texts."""
    if isinstance(schema, list):
        return [_with_numbers(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _with_numbers(value) if key in _NESTING else value for key, value in schema.items()}
    if schema.get("logicalType") == "decimal":
        digits = {key: int(plain[key]) for key in ("precision", "scale") if str(plain.get(key)).isdecimal()}
        return {**plain, **digits}
    return plain


_NESTING = ("type", "fields", "items", "values")


def _members(union: Sequence[Any]) -> list[Any]:
    return [member for member in union if member != "null"]


def _column(kind: Any, named: Mapping[str, Any]) -> Column:
    """How the values of a type become a column."""
    if isinstance(kind, list):
        members = _members(kind)
        return _column(members[0], named) if len(members) == 1 else JSON
    if isinstance(kind, str):
        if kind in PRIMITIVES:
            return Column(PRIMITIVES[kind], PRIMITIVES[kind])
        return _column(named[kind], named) if kind in named else JSON
    logical, base = kind.get("logicalType"), kind["type"]
    if isinstance(base, dict | list):
        return _column(base, named)
    if logical in TIMES and base in ("int", "long"):
        kind = TIMES[logical]
        # Milliseconds that microseconds cannot hold are found here, in the message, rather than when a file is written.
        meant = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "ms" else kind
        return Column(PRIMITIVES[base], meant, number_of=kind)
    if logical == "decimal":
        digits, scale = kind["precision"], kind.get("scale", 0)
        exact = pa.decimal128(digits, scale) if digits <= MOST_DIGITS else pa.string()
        return Column(exact, exact)
    if logical == "uuid":
        return Column(pa.string(), pa.string())
    return Column(PRIMITIVES[base], PRIMITIVES[base]) if base in PRIMITIVES else JSON
