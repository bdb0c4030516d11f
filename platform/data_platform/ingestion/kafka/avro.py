"""Avro as Confluent's serializers write it: a zero, the id of a schema in the registry, and the record in that schema's
binary form. Each message is read by the schema that it was written with; what differs between them is drift.

Numbers, texts, times and decimals land in their own types; records, arrays, maps, and unions of several types as JSON.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.ingestion.files.formats.avro.schema import AvroSchema, column_of, schema_of
from data_platform.ingestion.files.formats.json_lines import NUMBER
from data_platform.ingestion.files.formats.typed import to_json
from data_platform.ingestion.kafka.registry import SchemaRegistry
from data_platform.ingestion.kafka.values import VALUE, Bad, Decoded, nothing, renamed

HEADER = struct.Struct(">bI")
"""What stands before a record: a zero, and the id of its schema."""


@dataclass
class Avro:
    """Values, or keys, in Avro. Of keys `_key` holds the text; those that are no records are in `column`, if it is
    named. `types` are the types that fields had last."""

    registry: SchemaRegistry
    are_keys: bool = False
    column: str | None = None
    types: dict[str, pa.DataType] = field(default_factory=dict)
    _parsed: dict[int, AvroSchema | str] = field(default_factory=dict)

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
            parsed = schema_of(schema.text, VALUE, schema.references)
            if not isinstance(parsed, str):
                self.types = {name.lower(): column.meant for name, column in parsed.columns.items()} | self.types

    def _schema(self, header: bytes) -> AvroSchema | str:
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
                self._parsed[identity] = schema_of(found.text, VALUE, found.references)
        return self._parsed[identity]

    def _as_keys(self, parsed: AvroSchema, table: pa.Table, bad: Bad) -> tuple[pa.Table, list[pa.Table]]:
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


def _rows(parsed: AvroSchema, members: Sequence[tuple[int, bytes]], bad: Bad) -> pa.Table:
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
        columns[name] = column_of(name, column, values, numbers, bad)
    return pa.table({**columns, NUMBER: pa.array(numbers, pa.int64())})


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


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)
