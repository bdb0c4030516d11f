"""The pass over a table of a lake, whichever kind it is of: in parts, each of which ends at a version of the table and
has a position; the types in which rows land; and how a table that was changed otherwise than by appends is read.

What is new in a table is planned by the module of its kind. A whole table is the truth of all versions before it, so
nothing is lost where the lake no longer says what happened between two of them: it is read as a whole, and a note says
why.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.typed import plain, plain_type
from data_platform.ingestion.source import BATCH_ROWS, Batch, Kind, Overlap, Position
from data_platform.ingestion.sql.reading import BATCH_BYTES, batches

TABLE, VERSION = "table", "version"
"""The entries of a position: the identity of the table, by which one that was made anew is known, and the version
(the snapshot) up to which it was read."""

CHANGE_FIELDS = (pa.field("_operation", pa.string()), pa.field("_order", pa.int64()))
"""The columns that changes have besides those of their rows."""

PART_ROWS = 1_000_000
"""Rows appended in one part, about: a load that dies goes on from the last part that was committed."""


@dataclass(frozen=True)
class Described:
    """What a table says of itself, for drafts: the columns that identify a row, its columns with their types in the
    lake's words and whether they may be null, comments, options that suit it if it has a key, and sentences for a
    person to read."""

    key: Sequence[str] = ()
    columns: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    comment: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()


Rows = Generator[pa.RecordBatch, None, None]
"""Rows as a lake gives them; closing it ends the reading."""


@dataclass(frozen=True)
class Part:
    """Rows to read, and the position that is reached with them. Without `rows` only the position moves."""

    position: Position
    rows: Callable[[], Rows] | None = None


@dataclass(frozen=True)
class Plan:
    """What of a table is to be read: rows of its `schema`, in parts; none if nothing is new. A plan of kind "whole" has
    one part. `notes` are for a person to read."""

    schema: pa.Schema
    parts: Sequence[Part] = ()
    kind: Kind = "rows"
    notes: Sequence[str] = ()


@dataclass
class LakeReading:
    """One pass over one table, pinned to the version that it had when the reading began."""

    table: str
    plan: Plan
    _noted: bool = field(default=False, init=False)

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """Nothing is delivered again."""
        return None

    def committed(self, position: Position) -> None:
        """Nothing: a lake keeps no account of its readers."""

    def __iter__(self) -> Iterator[Batch]:
        plan = self.plan
        schema = pa.schema([pa.field(each.name, plain_type(each.type)) for each in plan.schema])
        for part in plan.parts:
            held = schema.empty_table()
            if part.rows is not None:
                with closing(_plain(part.rows(), schema)) as rows:
                    for gathered in batches(rows, schema, BATCH_ROWS, BATCH_BYTES):
                        if held.num_rows:
                            yield self._batch(held, None)
                        held = gathered
            yield self._batch(held, part.position)

    def _batch(self, rows: pa.Table, position: Position | None) -> Batch:
        notes, self._noted = (() if self._noted else tuple(self.plan.notes)), True
        return Batch(self.table, rows, self.plan.kind, position, notes=notes)


def _plain(stream: Rows, schema: pa.Schema) -> Rows:
    """Rows in the columns and types that land. A column that the stream has not is null in all of them."""
    with closing(stream):
        for batch in stream:
            rows = plain_rows(batch)
            names = set(rows.schema.names)
            columns = [_as(rows[each.name], each.type) if each.name in names else _nulls(rows, each) for each in schema]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def plain_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows in types that land."""
    return pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), names=batch.schema.names)


def _nulls(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    return pa.nulls(batch.num_rows, field.type)


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)


def chosen(label: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The columns to read, in the order of the source. Raises PlatformError for one that the table does not have."""
    if columns is None:
        return schema
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise PlatformError(
            f"{label}: `columns` names {', '.join(missing)}, which the table does not have. It has: "
            f"{', '.join(schema.names)}."
        )
    return pa.schema([each for each in schema if each.name in set(columns)])


def as_a_whole(label: str, why: str) -> str:
    """The note of a table that is read as a whole although a position was there."""
    return f"{label}: {why}. The table was read as a whole."


def require_key(label: str, key: Sequence[str], columns: Sequence[str]) -> None:
    """Raise PlatformError if a key is not among the columns that are read."""
    missing = [name for name in key if name not in columns]
    if missing:
        raise PlatformError(
            f"{label}: `changes` tells rows apart by the `key`, and {', '.join(missing)} of it is no column of the "
            f"table that is read. There are: {', '.join(columns)}. Name columns of the source."
        )


def reshaped(before: Mapping[int, str], now: Mapping[int, str], filled: Collection[int] = ()) -> str | None:
    """How a column is another than before in rows that were read already, if one is. Columns, those within structs too,
    are given by the numbers that they keep; those that are `filled` have a value in older rows."""
    numbers = {name: number for number, name in before.items()}
    for number, name in now.items():
        if before.get(number, name) != name:
            return f"the column {before[number]} was renamed to {name}"
        if numbers.get(name, number) != number:
            return f"the column {name} is another than before"
        if number not in before and number in filled:
            return f"the column {name} was added with a value for the rows that were there"
    # One that comes later under its name would have the values of this one.
    return next((f"the column {name} was dropped" for number, name in before.items() if number not in now), None)
