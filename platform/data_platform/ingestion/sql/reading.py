"""The reading of relational tables: whole, or what a cursor column says is new, one streamed statement each; and of all
tables of a source in one snapshot. Which server is read, and by how many connections, is decided in `source`.

A reading begins at the last position itself (`>=`), because rows that share its value may have been committed since.
What landed already is delivered again and dropped on landing: see `Overlap`. Before it is past the last position there
is none to end at: one within the lag would be further back, and the next load would begin even before that.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pyarrow as pa

from data_platform.ingestion.digest import Digest
from data_platform.ingestion.source import (
    BATCH_ROWS,
    HINT,
    Batch,
    Overlap,
    Position,
    SourceUse,
    entries_of_table,
    of_table,
)
from data_platform.ingestion.sql.cursor import is_later, last_position, less, parse
from data_platform.ingestion.sql.dialects import Column, Session
from data_platform.ingestion.sql.options import SqlTable
from data_platform.ingestion.sql.ranges import divided, stream_at_once
from data_platform.ingestion.sql.reach import (
    CURSOR,
    NOTHING,
    Cursor,
    count_reached,
    cursor_column,
    new_rows,
    refuse_nulls,
    require_one_shape,
    schema_of,
    selected,
)
from data_platform.ingestion.sql.replica import Server

BATCH_BYTES = 64 * 2**20
"""Bytes in a batch, about: wide rows make it shorter than BATCH_ROWS."""


class TableReading:
    """One table in one view of the source: one statement in one session, or a whole table by ranges in several that
    see the same snapshot. `notes` are what a person should know of the reading."""

    def __init__(
        self,
        sessions: Sequence[Session],
        table: str,
        relation: str,
        columns: list[Column],
        options: SqlTable,
        after: Position,
        server: Server,
        notes: Sequence[str] = (),
    ) -> None:
        self._session, self._table, self._relation, self._columns = sessions[0], table, relation, columns
        self._sessions, self._cursor, self._parallel, self._after = sessions, options.cursor, options.parallel, after
        self._notes, self._server = notes, server

    def overlap(self, table: str) -> Overlap | None:
        """What lies within the lag of the position, and the position's own value. None for a whole table."""
        cursor, after = self._cursor, self._after
        if cursor is None or CURSOR not in after:
            return None
        column = cursor_column(self._columns, cursor, self._relation, self._session)
        assert column.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
        lower = less(after[CURSOR], column.kind, cursor.lag, f"Table {table}")
        since: Any = parse(lower, column.kind, f"Table {table}")
        # A decimal that is stored as text is compared as text: any row of it may have landed.
        since = "" if pa.types.is_string(column.type) and column.kind != "text" else since
        key = [each.name for each in self._columns if each.primary_key and self._session.enforces_keys]
        return Overlap(column.name, since, tuple(key))

    def __iter__(self) -> Generator[Batch, None, None]:
        """At least one batch, be it empty."""
        cursor = self._cursor
        found = self._whole() if cursor is None else self._new(cursor, self._after.get(CURSOR, NOTHING))
        with closing(found):
            for batch in found:
                yield self._server.stamped(batch, self._after)

    def committed(self, position: Position) -> None:
        """Nothing: the source keeps no account of its readers."""

    def use(self, table: str) -> SourceUse:  # noqa: ARG002 - it is one
        """What was taken at the database, in all sessions."""
        return used(self._sessions)

    def _rows(self, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        """All rows, in no order."""
        statement = f"select {selected(self._session, self._columns)} from {self._relation}"
        if self._parallel is None or len(self._sessions) == 1:
            return self._session.stream(statement, schema)
        parts = divided(self._sessions, self._relation, self._parallel, self._table)
        return stream_at_once(self._sessions, [f"{statement} where {part}" for part in parts], schema)

    def _whole(self) -> Generator[Batch, None, None]:
        """All rows. Only the last batch has a position, which tells whether anything is different at all."""
        schema = schema_of(self._columns)
        hint = self._session.hint(self._relation)
        held = schema.empty_table()
        # The database is read on while the rows before are hashed.
        with closing(Digest(schema)) as digest, ThreadPoolExecutor(1, "digest") as thread, ExitStack() as stack:
            added = thread.submit(digest.add, held)
            for rows in batches(stack.enter_context(closing(self._rows(schema))), schema, BATCH_ROWS, BATCH_BYTES):
                added.result()
                added = thread.submit(digest.add, rows)
                if held.num_rows:
                    yield Batch(self._table, held, "whole", None)
                held = rows
            added.result()
            position = digest.position() | ({} if hint is None else {HINT: hint})
        yield Batch(self._table, held, "whole", position, notes=self._notes)

    def _new(self, cursor: Cursor, after: str) -> Generator[Batch, None, None]:
        session, relation, table = self._session, self._relation, self._table
        column = cursor_column(self._columns, cursor, relation, session)
        kind = column.kind
        assert kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
        if cursor.nulls == "refuse" and column.nullable:
            refuse_nulls(session, relation, column, table)
        if kind == "text":
            require_one_shape(session, relation, column, table, after)
        schema = schema_of(self._columns)
        lower = less(after, kind, cursor.lag, f"Table {table}")
        statement = new_rows(session, relation, self._columns, column, cursor, lower)
        held, position = schema.empty_table(), after
        for rows in batches(session.stream(statement, schema), schema, BATCH_ROWS, BATCH_BYTES):
            if held.num_rows:
                # Rows without a value come first: until one has a value, there is nothing to go on from.
                yield Batch(table, held, "rows", {CURSOR: position} if position != after else None)
            held = rows
            last = last_position(rows.column(column.name), kind)
            if last is not None and (lower == after or is_later(last, after, kind)):
                position = last
        # The probe will count these rows again, and notice what has come to them.
        there = count_reached(session, relation, self._columns, cursor, position, table)
        yield Batch(table, held, "rows", {CURSOR: position, HINT: there}, notes=self._notes)


class SnapshotReading:
    """Several tables in one view of the source, one after the other. Only the last batch has a position, that of all of
    them: they are committed together, or not at all. A table that the position knows nothing of is given as a whole,
    whatever there is of it already."""

    def __init__(
        self, sessions: Sequence[Session], readings: Mapping[str, TableReading], server: Server, after: Position
    ) -> None:
        self._sessions, self._readings, self._server, self._after = sessions, readings, server, after
        self._use: dict[str, SourceUse] = {}

    def overlap(self, table: str) -> Overlap | None:
        """As of the table alone."""
        return self._readings[table].overlap(table)

    def __iter__(self) -> Generator[Batch, None, None]:
        position: dict[str, str] = {}
        held: Batch | None = None
        before = SourceUse()
        for table, reading in self._readings.items():
            is_new = not entries_of_table(self._after, table)
            with closing(iter(reading)) as found:
                for batch in found:
                    if held is not None:
                        yield held
                    entries = batch.position or {}
                    held = replace(batch, kind="whole" if is_new else batch.kind, position=None)
            position |= {of_table(entry, table): value for entry, value in entries.items()}
            total = used(self._sessions)
            self._use[table], before = total - before, total
        assert held is not None  # noqa: S101 - each reading has a batch
        forget = [entry for entry in self._after if entry not in position]
        notes = (*self._server.notes, *held.notes)
        yield self._server.stamped(replace(held, position=position, forget=forget, notes=notes), self._after)

    def committed(self, position: Position) -> None:
        """Nothing: the source keeps no account of its readers."""

    def use(self, table: str) -> SourceUse:
        """What was taken at the database for a table; what was taken for all is counted with the first."""
        return self._use.get(table, SourceUse())


def used(sessions: Sequence[Session]) -> SourceUse:
    """What sessions took at the database, together."""
    return sum((session.use for session in sessions), SourceUse())


def batches(stream: Iterator[pa.RecordBatch], schema: pa.Schema | None, rows: int, size: int) -> Iterator[pa.Table]:
    """Gather record batches into tables of at most `rows` rows, and of about `size` bytes at most."""
    gathered: list[pa.RecordBatch] = []
    count = width = 0
    for batch in stream:
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            batch = batch.slice(part.num_rows)
            gathered.append(part)
            count, width = count + part.num_rows, width + part.nbytes
            if count >= rows or width >= size:
                yield pa.Table.from_batches(gathered, schema)
                gathered, count, width = [], 0, 0
    if gathered:
        yield pa.Table.from_batches(gathered, schema)
