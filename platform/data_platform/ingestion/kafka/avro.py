"""Avro as Confluent's serializers write it: a zero, the id of a schema in the registry, and the record in that schema's
binary form. Each message is read by the schema that it was written with; what differs between them is drift.

Numbers, texts, times and decimals land in their own types; records, arrays, maps, and unions of several types as JSON.
"""

import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from fastavro.schema import SchemaParseException, UnknownType

from data_platform.ingestion.files.formats.json_lines import NUMBER
from data_platform.ingestion.kafka.registry import SchemaRegistry
from data_platform.ingestion.kafka.values import VALUE, Bad, Decoded, nothing, renamed

HEADER = struct.Struct(">bI")
"""What stands before a record: a zero, and the id of its schema."""

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

MOST_DIGITS = 38
"""Digits of the widest decimal that has a type of its own; wider ones are text."""


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
class Parsed:
    """A schema ready to read with. `columns` are those of its fields, or of VALUE if it is no record's."""

    schema: Any
    columns: Mapping[str, Column]
    is_record: bool


@dataclass
class Avro:
    """Values, or keys, in Avro. Of keys `_key` holds the text; those that are no records are in `column`, if it is
    named. `types` are the types that fields had last."""

    registry: SchemaRegistry
    are_keys: bool = False
    column: str | None = None
    types: dict[str, pa.DataType] = field(default_factory=dict)
    _parsed: dict[int, Parsed | str] = field(default_factory=dict)

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        groups: dict[bytes, list[tuple[int, bytes]]] = {}
        for number, one in zip(numbers, content, strict=True):
            groups.setdefault(one[: HEADER.size], []).append((number, one))
        bad: Bad = {}
        fields, singles = [], []
        for header, members in groups.items():
            parsed = self._schema(header)
            if isinstance(parsed, str):
                bad |= dict.fromkeys((number for number, _ in members), parsed)
                continue
            table = _rows(parsed, members, bad)
            if self.are_keys:
                table, single = self._as_keys(parsed, table, bad)
                singles += single
            fields.append(table)
            self.types |= {one.name.lower(): one.type for one in table.schema}
        together, clashing = renamed(_together(fields)) if not self.are_keys else (_together(fields), {})
        return Decoded(together, bad | clashing, _together(singles) if singles else None)

    def know(self, subject: str) -> None:
        """Take note of the types of the fields that a subject has now, before any message was read."""
        schema = self.registry.latest(subject)
        if schema is not None and schema.kind == "AVRO":
            parsed = _parse(schema.text, schema.references)
            if not isinstance(parsed, str):
                self.types = {name.lower(): column.meant for name, column in parsed.columns.items()} | self.types

    def _schema(self, header: bytes) -> Parsed | str:
        """The schema that the beginning of a message names, ready to read with, or why nothing can be read with it."""
        if len(header) < HEADER.size or header[0] != 0:
            return "not Avro with the id of a schema: it does not begin with a zero and an id"
        _, identity = HEADER.unpack(header)
        if identity not in self._parsed:
            found = self.registry.schema(identity)
            if found is None:
                self._parsed[identity] = f"the schema registry knows no schema of the id {identity}"
            elif found.kind != "AVRO":
                self._parsed[identity] = f"the schema {identity} is {found.kind}, not Avro"
            else:
                self._parsed[identity] = _parse(found.text, found.references)
        return self._parsed[identity]

    def _as_keys(self, parsed: Parsed, table: pa.Table, bad: Bad) -> tuple[pa.Table, list[pa.Table]]:
        """A table of keys with `_key`, and what those are that are no records."""
        rows = table.drop_columns([NUMBER]).to_pylist()
        if parsed.is_record:
            keys = pa.array([to_json(row) for row in rows], pa.string())
            named, clashing = renamed(table.append_column("__key", keys))
            bad |= clashing
            return named.rename_columns({"__key": "_key"}), []
        values = table[VALUE]
        texts = [None if row[VALUE] is None else _text(row[VALUE]) for row in rows]
        keys = pa.table({"_key": pa.array(texts, pa.string()), NUMBER: table[NUMBER]})
        return keys, [] if self.column is None else [pa.table({self.column: values, NUMBER: table[NUMBER]})]


def _parse(text: str, references: Sequence[str]) -> Parsed | str:
    named: dict[str, Any] = {}
    try:
        for reference in references:
            fastavro.parse_schema(json.loads(reference), named)
        schema = json.loads(text)
        plain = _without_times(schema)
        parsed = fastavro.parse_schema(plain, named)
    except (ValueError, SchemaParseException, UnknownType, KeyError, TypeError) as error:
        return f"its schema cannot be read: {type(error).__name__}: {error}"
    is_record = isinstance(schema, dict) and schema.get("type") in ("record", "error")
    if not is_record:
        return Parsed(parsed, {VALUE: _column(schema, named)}, is_record=False)
    return Parsed(parsed, {one["name"]: _column(one["type"], named) for one in schema["fields"]}, is_record=True)


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


def _rows(parsed: Parsed, members: Sequence[tuple[int, bytes]], bad: Bad) -> pa.Table:
    """The messages of one schema as a table; those that are not whole records of it are bad."""
    read, schema = fastavro.schemaless_reader, parsed.schema
    records: list[Any] = []
    numbers = []
    # One stream for all: where each message ends is known, and a record that ends elsewhere is none.
    stream, end = io.BytesIO(b"".join(content[HEADER.size :] for _, content in members)), 0
    for number, content in members:
        end += len(content) - HEADER.size
        try:
            record = read(stream, schema, None)
        except Exception as error:  # noqa: BLE001 - bytes that mean anything may raise anything
            bad[number] = f"not Avro of its schema: {type(error).__name__}"
            stream.seek(end)
            continue
        if stream.tell() != end:
            bad[number] = "not Avro of its schema: the record ends before the message does, or after it"
            stream.seek(end)
            continue
        records.append(record)
        numbers.append(number)
    columns = {}
    for name, column in parsed.columns.items():
        values = [record[name] for record in records] if parsed.is_record else records
        columns[name] = _array(name, column, values, numbers, bad)
    return pa.table({**columns, NUMBER: pa.array(numbers, pa.int64())})


def _array(name: str, column: Column, values: Sequence[Any], numbers: Sequence[int], bad: Bad) -> pa.Array:
    """The values as a column, null where one does not have the type that its schema says."""
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


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of different schemas as one, by number. A column whose types have none in common that holds both without
    loss is text."""
    if not tables:
        return nothing()
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for one in table.schema:
            kinds.setdefault(one.name, set()).add(one.type)
    alike = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_timestamp)
    text = {
        name
        for name, types in kinds.items()
        if len(types) > 1 and not any(all(is_kind(one) for one in types) for is_kind in alike)
    }
    given = [_as_text(table, text & set(table.column_names)) for table in tables]
    together = pa.concat_tables(given, promote_options="permissive")
    return together.sort_by(NUMBER) if len(tables) > 1 else together


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for name in names:
        column = table[name]
        if pa.types.is_binary(column.type):
            texts = [
                None if value is None else value.decode("utf-8", "backslashreplace") for value in column.to_pylist()
            ]
            column = pa.array(texts, pa.string())
        table = table.set_column(table.column_names.index(name), name, pc.cast(column, pa.string()))
    return table


def to_json(value: Any) -> str:
    """A value as JSON: decimals with their digits, bytes as text of the same code points."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)
