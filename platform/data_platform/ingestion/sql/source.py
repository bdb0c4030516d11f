"""Tables of a relational database as a source: whole, or what a cursor column says is new, one streamed statement
each. How a database is spoken to belongs in `dialects`, how cursor values are written in `cursor`; landing is
`load`'s work.

A reading begins at the last position itself (`>=`), because rows that share its value may have been committed since.
What landed already is delivered again and dropped on landing: see `Overlap`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any, Literal

import duckdb
import pyarrow as pa
from pydantic import BeforeValidator, Field

from data_platform.errors import PlatformError
from data_platform.ingestion.source import (
    BATCH_ROWS,
    DIGEST,
    HINT,
    UNKNOWN,
    Batch,
    Overlap,
    Position,
    Probe,
    TableOptions,
    differences,
    probe_each,
    the_only,
)
from data_platform.ingestion.sql.cursor import last_position, less, parse, shape_of
from data_platform.ingestion.sql.dialects import Column, MysqlSession, PostgresqlSession, Session, SqliteSession
from data_platform.ingestion.sql.dialects.session import checked_names, known
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.options import Options, duration

BATCH_BYTES = 64 * 2**20
"""Bytes in a batch, about: wide rows make it shorter than BATCH_ROWS."""

CURSOR = "cursor"
"""The entry of the position of a table that is read by a cursor."""

NOTHING = ""
"""The position of a table of which no row with a cursor value was read yet."""


def _lag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a lag is a duration, such as 15m, or a number")
    return value if value is None or isinstance(value, int | float | timedelta) else duration(value)


class Cursor(Options):
    """The column that grows with each change of a row, and how far it may be trusted."""

    column: str = Field(min_length=1, description="Column of the source that is raised whenever a row is written.")
    lag: Annotated[timedelta | int | float | None, BeforeValidator(_lag)] = Field(
        default=None,
        description="How late a row may appear behind its cursor value: 15m for times, a number for numbers. "
        "That stretch is read again by each load; rows that are as they were are dropped. What comes later than "
        "that, and deletes, a cursor cannot see.",
    )
    nulls: Literal["include", "exclude", "refuse"] = Field(
        default="include",
        description="Rows without a cursor value: read them each time, leave them out, or refuse to load.",
    )


class SqlTable(TableOptions):
    """A table or view of a relational database."""

    table: str | None = Field(
        default=None, description="Its name in the source, `schema.table` if need be; default: the name it has here."
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to read; default: all.")
    cursor: Cursor | None = Field(default=None, description="Reads only what is new; without it, each load reads all.")


class Relational:
    """A database as a `Source`. `url` is `postgresql://`, `mysql://`, `sqlite://` or the path of a SQLite file.

    `statement_timeout` is the longest that one statement may run on a server; by default the server's own.
    Raises PlatformError, from any method, if the database cannot be reached or does not have what is asked for.
    """

    def __init__(self, url: str, tables: Mapping[str, SqlTable], statement_timeout: timedelta | None = None) -> None:
        self.url, self.options, self.statement_timeout = url, dict(tables), statement_timeout
        self._withholds = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """With a cursor: the highest value (an index answers that); what it does not show is read every `refresh`.
        Without: what the database keeps of a table at hand (see `Session.hint`), which may miss rows that change in
        place."""
        session: Session | None = None

        def probe(table: str) -> Probe:
            nonlocal session
            try:
                session = session or self._session()
                return self._probe(session, table, after.get(table, {}))
            except PlatformError:
                # A statement that failed has spoilt PostgreSQL's transaction: the next table gets a session of its own.
                if session is not None:
                    session.close()
                    session = None
                raise

        try:
            return probe_each(tables, probe)
        finally:
            if session is not None:
                session.close()

    def _probe(self, session: Session, table: str, after: Position) -> Probe:
        cursor = self._options(table).cursor
        relation, columns = self._described(session, table)
        if cursor is None:
            hint = session.hint(relation)
            return UNKNOWN if hint is None else Probe(differences({HINT: hint}, after), complete=False)
        # Rows within the lag, at the position itself or without a value leave the highest value as it is.
        return Probe(differences(_newest(session, relation, columns, cursor), after), complete=False)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["TableReading"]:
        """Read what is new in one table in the order of the cursor, or the whole of it."""
        table = the_only(tables)
        options = self._options(table)
        with self._session() as session:
            relation, columns = self._described(session, table)
            yield TableReading(session, table, relation, columns, options.cursor, after)

    def tables(self) -> list[str]:
        """The tables and views that the database has."""
        with self._session() as session:
            return session.tables()

    def describe(self, table: str) -> list[tuple[str, str, bool, bool]]:
        """Name, declared type, nullability and membership of the primary key, for each column of a source table.

        `table` is a name of the source's, or one of `tables` in `defs.yaml`.
        """
        options = self.options.get(table)
        with self._session() as session:
            columns = session.columns(session.relation((options.table if options else None) or table))
            return [(c.name, c.declared, c.nullable, c.primary_key) for c in columns]

    def _options(self, table: str) -> SqlTable:
        if table not in self.options:
            raise PlatformError(
                f"The source has no table {table} in its defs.yaml. " + known("table", table, list(self.options))
            )
        return self.options[table]

    def _session(self) -> Session:
        require_encoded(self.url, "The address of the database")
        scheme = self.url.split("://")[0] if "://" in self.url else "sqlite"
        if scheme in ("postgresql", "postgres"):
            return PostgresqlSession(self.url, self.statement_timeout, withholds=self._withholds)
        if scheme == "mysql":
            return MysqlSession(self.url, self.statement_timeout, withholds=self._withholds)
        if scheme == "sqlite":
            return SqliteSession(self.url, withholds=self._withholds)
        raise PlatformError(
            f"{redact_url(self.url)} begins with {scheme}://, which is no database known here. "
            "Write postgresql://, mysql://, sqlite:// or the path of a SQLite file."
        )

    def _described(self, session: Session, table: str) -> tuple[str, list[Column]]:
        """The relation's quoted name and the columns to read, in the order of the source."""
        options = self.options[table]
        relation = session.relation(options.table or table)
        columns = session.columns(relation, options.cursor.column if options.cursor else None)
        if options.columns is not None:
            there = [column.name for column in columns]
            for name in options.columns:
                if name not in there:
                    raise PlatformError(
                        f"Table {table} has no column {name} in the source. " + known("column", name, there)
                    )
            wanted = {*options.columns, *([options.cursor.column] if options.cursor else [])}
            columns = [column for column in columns if column.name in wanted]
        checked_names(columns, relation)
        return relation, columns


class TableReading:
    """One statement over one table, in one session: one view of the source."""

    def __init__(
        self,
        session: Session,
        table: str,
        relation: str,
        columns: list[Column],
        cursor: Cursor | None,
        after: Position,
    ) -> None:
        self._session, self._table, self._relation, self._columns = session, table, relation, columns
        self._cursor, self._after = cursor, after

    def overlap(self, table: str) -> Overlap | None:
        """What lies within the lag of the position, and the position's own value. None for a whole table."""
        cursor, after = self._cursor, self._after
        if cursor is None or CURSOR not in after:
            return None
        column = _cursor_column(self._columns, cursor, self._relation, self._session)
        assert column.kind is not None  # noqa: S101 - _cursor_column refuses a column that cannot be one
        lower = less(after[CURSOR], column.kind, cursor.lag, f"Table {table}")
        since: Any = parse(lower, column.kind, f"Table {table}")
        # A decimal that is stored as text is compared as text: any row of it may have landed.
        since = "" if pa.types.is_string(column.type) and column.kind != "text" else since
        return Overlap(column.name, since, tuple(each.name for each in self._columns if each.primary_key))

    def __iter__(self) -> Iterator[Batch]:
        """At least one batch, be it empty."""
        if self._cursor is None:
            yield from self._whole()
        else:
            yield from self._new(self._cursor, self._after.get(CURSOR, NOTHING))

    def committed(self, position: Position) -> None:
        """Nothing: the source keeps no account of its readers."""

    def _whole(self) -> Iterator[Batch]:
        """All rows. Only the last batch has a position, which tells whether anything is different at all."""
        session, schema = self._session, _schema(self._columns)
        hint = session.hint(self._relation)
        digest = _Digest(schema)
        statement = f"select {_selected(session, self._columns)} from {self._relation}"
        held = schema.empty_table()
        for rows in batches(session.stream(statement, schema), schema, BATCH_ROWS, BATCH_BYTES):
            digest.add(rows)
            if held.num_rows:
                yield Batch(self._table, held, "whole", None)
            held = rows
        position = digest.position() | ({} if hint is None else {HINT: hint})
        yield Batch(self._table, held, "whole", position)

    def _new(self, cursor: Cursor, after: str) -> Iterator[Batch]:
        session, relation, table = self._session, self._relation, self._table
        column = _cursor_column(self._columns, cursor, relation, session)
        kind = column.kind
        assert kind is not None  # noqa: S101 - _cursor_column refuses a column that cannot be one
        if cursor.nulls == "refuse" and column.nullable:
            _refuse_nulls(session, relation, column, table)
        if kind == "text":
            _require_one_shape(session, relation, column, table, after)
        schema = _schema(self._columns)
        lower = less(after, kind, cursor.lag, f"Table {table}")
        statement = _new_rows(session, relation, self._columns, column, cursor, lower)
        held, position = schema.empty_table(), after
        for rows in batches(session.stream(statement, schema), schema, BATCH_ROWS, BATCH_BYTES):
            if held.num_rows:
                # Rows without a value come first: until one has a value, there is nothing to go on from.
                yield Batch(table, held, "rows", {CURSOR: position} if position else None)
            held = rows
            position = last_position(rows.column(column.name), kind) or position
        yield Batch(table, held, "rows", {CURSOR: position})


def _newest(session: Session, relation: str, columns: list[Column], cursor: Cursor) -> dict[str, str]:
    """The position of the highest cursor value; empty if no row has one."""
    column = _cursor_column(columns, cursor, relation, session)
    conditions = [f"{column.order} is not null"] + [c for c in [session.finite(column)] if c is not None]
    statement = (
        f"select {_selected(session, [column])} from {relation} where {' and '.join(conditions)} "
        f"order by {column.order} desc limit 1"
    )
    for batch in session.stream(statement, _schema([column])):
        if batch.num_rows:
            assert column.kind is not None  # noqa: S101 - _cursor_column refuses a column that cannot be one
            position = last_position(pa.chunked_array([batch.column(0)]), column.kind)
            return {} if position is None else {CURSOR: position}
    if cursor.nulls == "include" and column.nullable:
        some = session.scalar(f"select 1 as value from {relation} limit 1", pa.int64())
        return {} if some is None else {CURSOR: NOTHING}
    return {}


def _cursor_column(columns: list[Column], cursor: Cursor, relation: str, session: Session) -> Column:
    for column in columns:
        if column.name == cursor.column:
            if column.kind is None:
                raise PlatformError(
                    f"Column {column.name} of {relation} has the type {column.declared}, which cannot be a cursor: "
                    "take a number, a date, a time stamp or text."
                )
            return column
    typed = ", ".join(f"{column.name} ({column.declared or 'no type'})" for column in columns)
    raise PlatformError(
        f"{relation} in {session.product} has no column {cursor.column} to be the cursor. It has: {typed}. "
        "Name one that grows with every change, or leave `cursor` out to read the whole table each time."
    )


def _new_rows(
    session: Session, relation: str, columns: list[Column], column: Column, cursor: Cursor, lower: str
) -> str:
    """The statement: rows from `lower` on in the order of the cursor, and those without a value before them."""
    with_nulls = column.nullable and cursor.nulls == "include"
    statement = f"select {_selected(session, columns)} from {relation}"
    if lower:
        assert column.kind is not None  # noqa: S101 - _cursor_column refuses a column that cannot be one
        statement += f" where {column.order} >= {session.literal(column.kind, lower)}"
        statement += f" or {column.order} is null" if with_nulls else ""
    elif column.nullable and not with_nulls:
        statement += f" where {column.order} is not null"
    return statement + f" order by {column.order}" + (session.nulls_first if with_nulls else "")


def _refuse_nulls(session: Session, relation: str, column: Column, table: str) -> None:
    count = session.scalar(f"select count(*) as value from {relation} where {column.order} is null", pa.int64())
    if count:
        raise PlatformError(
            f"Table {table}: {count:,} rows have no {column.name}, the cursor, and `nulls: refuse` forbids it. "
            "Nothing was read. Fill the column in the source, or set `nulls` to include or exclude."
        )


def _require_one_shape(session: Session, relation: str, column: Column, table: str, after: str) -> None:
    """Raise PlatformError if a text cursor has values of two shapes, whose order as texts means nothing: those that
    sort below the position would never be read. It takes a scan of the column, as comparing texts does."""

    def one(where: str) -> str | None:
        value: str | None = session.scalar(
            f"select {column.select} as value from {relation} where {column.order} is not null{where} limit 1",
            pa.string(),
        )
        return value

    example = after or one("")
    if example is None:
        return
    unlike = [f"{column.order} not like {session.literal('text', one)}" for one in shape_of(example).patterns]
    other = one("".join(f" and {condition}" for condition in unlike))
    if other is not None:
        raise PlatformError(
            f"Table {table}: the cursor {column.name} is text of two shapes, such as {example[:60]!r} and "
            f"{other[:60]!r}, which compared as text are in no order: rows would be missed. Nothing was read. Write "
            "all values in one shape in the source (numbers with leading zeros), take another cursor, give it its type "
            "in a view, or leave `cursor` out to read the whole table each time."
        )


def _schema(columns: list[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _selected(session: Session, columns: list[Column]) -> str:
    return ", ".join(f"{column.select} as {session.quote(column.name)}" for column in columns)


def batches(stream: Iterator[pa.RecordBatch], schema: pa.Schema, rows: int, size: int) -> Iterator[pa.Table]:
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


class _Digest:
    """What a table holds, in 64 bits: the sum of its rows' hashes, whatever their order and their batches.

    A sum, because with exclusive-or two equal rows would cancel out. Names and types of the columns count as well.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._connection = duckdb.connect()
        self._names = [f"c{number}" for number in range(len(schema.names))]
        shape = ";".join(f"{field.name}:{field.type}" for field in schema)
        self._sum = int.from_bytes(hashlib.sha256(shape.encode()).digest()[:8])
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        relation = self._connection.from_arrow(rows.rename_columns(self._names))
        total = relation.aggregate(f"sum(hash({', '.join(self._names)})::HUGEINT)::HUGEINT").fetchone()
        assert total is not None  # noqa: S101 - an aggregate yields one row
        self._sum += int(total[0] or 0)
        self._rows += rows.num_rows

    def position(self) -> dict[str, str]:
        self._connection.close()
        return {"rows": str(self._rows), DIGEST: f"{self._sum % 2**64:016x}"}
