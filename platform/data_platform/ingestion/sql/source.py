"""Tables of a relational database as a source: whole, or what a cursor column says is new, one streamed statement
each. How a database is spoken to belongs in `dialects`, how cursor values are written in `cursor`; landing is
`load`'s work.

A reading begins at the last position itself (`>=`), because rows that share its value may have been committed since.
What landed already is delivered again and dropped on landing: see `Overlap`.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import duckdb
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

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
from data_platform.ingestion.sql.comments import Comments, comments
from data_platform.ingestion.sql.comparison import Comparison
from data_platform.ingestion.sql.cursor import last_position, less, parse
from data_platform.ingestion.sql.dialects import (
    Column,
    MysqlSession,
    PostgresqlSession,
    Session,
    SqliteSession,
    Timeouts,
)
from data_platform.ingestion.sql.dialects.session import checked_names, known
from data_platform.ingestion.sql.reach import (
    CURSOR,
    NOTHING,
    Cursor,
    count_reached,
    cursor_column,
    new_rows,
    newest,
    reached,
    refuse_nulls,
    require_one_shape,
    schema_of,
    selected,
)
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.options import Options, duration

if TYPE_CHECKING:
    from data_platform.ingestion.sql.constraint_types import Constraints

BATCH_BYTES = 64 * 2**20
"""Bytes in a batch, about: wide rows make it shorter than BATCH_ROWS."""

TIMEOUTS = Timeouts()


EVERY = {"hourly": "0 * * * *", "daily": "0 1 * * *", "weekly": "0 1 * * 0"}
"""The names of intervals as cron expressions: nightly ones at 01:00 UTC, before the audit and the maintenance."""

CRON = re.compile(r"(?:[0-9A-Za-z*/,?#-]+ +){4}[0-9A-Za-z*/,?#-]+")


def _cron(value: object) -> object:
    """An interval, or a cron expression, as a cron expression."""
    text = str(value).strip()
    if text in EVERY or CRON.fullmatch(text):
        return EVERY.get(text, text)
    try:
        interval = duration(text)
    except ValueError:
        interval = timedelta(0)
    hours, rest = divmod(interval, timedelta(hours=1))
    if interval == timedelta(days=7):
        return EVERY["weekly"]
    if interval == timedelta(days=1):
        return EVERY["daily"]
    if rest or hours not in (1, 2, 3, 4, 6, 8, 12):
        raise ValueError(
            f"{text!r} is no interval here: write hourly, daily, weekly, 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d, or a "
            "cron expression in UTC, such as '30 22 * * 6'"
        )
    return EVERY["hourly"] if hours == 1 else f"0 1/{hours} * * *" if hours == 12 else f"0 */{hours} * * *"


class Reconcile(Options):
    """When, and by what, a table is held against its source."""

    every: Annotated[str, BeforeValidator(_cron)] = Field(
        default="daily",
        validate_default=True,
        description="hourly, daily (at 01:00 UTC), weekly, an interval such as 6h, or a cron expression in UTC.",
    )
    compare: Literal["keys", "rows"] = Field(
        default="keys",
        description="`keys` finds rows that were deleted, added late or given another key; `rows` also those with "
        "other values, at the price of a hash of every column.",
    )
    apply: bool = Field(
        default=True,
        description="Land what differs: tombstones for rows that are gone, and the rows that were missed. If not, the "
        "check warns of them.",
    )


def _reconcile(value: object) -> object:
    return {"every": value} if isinstance(value, str) else value


class SqlTable(TableOptions):
    """A table or view of a relational database."""

    table: str | None = Field(
        default=None, description="Its name in the source, `schema.table` if need be; default: the name it has here."
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to read; default: all.")
    as_text: list[str] = Field(
        default=[],
        description="Columns that are read as the text which the database shows of them, for values that have no place "
        "in their type: `0000-00-00` of MySQL, `NaN` in a numeric of so many digits. Not the cursor.",
    )
    cursor: Cursor | None = Field(default=None, description="Reads only what is new; without it, each load reads all.")
    reconcile: Annotated[Reconcile | None, BeforeValidator(_reconcile)] = Field(
        default=None,
        description="Compare the table with its source now and then, and bring right what the cursor cannot see: "
        "`daily`, or {every: weekly, compare: rows, apply: false}. It needs a key and a cursor.",
    )

    @model_validator(mode="after")
    def _cursor_is_fit(self) -> "SqlTable":
        if self.cursor is not None and self.cursor.column in self.as_text:
            raise ValueError(f"`as_text` names {self.cursor.column}, the cursor, which has to keep its type")
        if self.reconcile is not None and not self.key:
            raise ValueError("`reconcile` compares a table with its source by its `key`, and there is none: name it")
        if self.reconcile is not None and self.cursor is None:
            raise ValueError(
                "`reconcile` is for a table with a `cursor`: without one each load reads all of it, and nothing is "
                "left to compare. Take it out"
            )
        return self


class Relational:
    """A database as a `Source`. `url` is `postgresql://`, `mysql://`, `sqlite://` or the path of a SQLite file.

    `timeouts` say how long a server is waited for.
    Raises PlatformError, from any method, if the database cannot be reached or does not have what is asked for.
    """

    def __init__(self, url: str, tables: Mapping[str, SqlTable], timeouts: Timeouts = TIMEOUTS) -> None:
        self.url, self.options, self.timeouts = url, dict(tables), timeouts
        self._withholds = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """With a cursor: the highest value (an index answers that), or else the number of rows that the next load would
        read again, up to COUNTED_ROWS; what neither shows is read every `refresh`.
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
        changes = differences(newest(session, relation, columns, cursor), after)
        if not changes and CURSOR in after:
            # Rows within the lag, at the position itself or without a value leave the highest value as it is. Those
            # that are new are counted; those that were changed in place are read every `refresh`.
            changes = differences(
                {HINT: count_reached(session, relation, columns, cursor, after[CURSOR], table)}, after
            )
        return Probe(changes, complete=False)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["TableReading"]:
        """Read what is new in one table in the order of the cursor, or the whole of it."""
        table = the_only(tables)
        options = self._options(table)
        with self._session() as session:
            relation, columns = self._described(session, table)
            yield TableReading(session, table, relation, columns, options.cursor, after)

    @contextmanager
    def comparing(self, table: str, after: Position, stored: Collection[str]) -> Iterator[Comparison]:
        """Compare one table, read up to `after`, with what is `stored` of it: the columns of these names, by the key of
        the table, or where staging makes that, the primary key of the source. Rows that the next load reads are marked.

        Raises PlatformError if the source does not have the key among its columns.
        """
        options = self._options(table)
        with self._session() as session:
            relation, described = self._described(session, table)
            there = {name.lower() for name in stored}
            columns = [column for column in described if column.name.lower() in there]
            names = {column.name.lower(): column for column in columns}
            key = [names[name.lower()] for name in options.key if name.lower() in names]
            if len(key) < len(options.key):
                key = [column for column in columns if column.primary_key]
            if not key:
                raise PlatformError(
                    f"Table {table} cannot be compared with its source: {relation} has neither the columns of its key "
                    f"({', '.join(options.key)}), nor a primary key of its own. Take out `reconcile`, and read "
                    "the table afresh now and then: --full-refresh."
                )
            within = reach = None
            if options.cursor is not None:
                cursor = cursor_column(described, options.cursor, relation, session)
                assert cursor.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
                if options.cursor.nulls == "refuse" and cursor.nullable:
                    refuse_nulls(session, relation, cursor, table)
                if options.cursor.nulls == "exclude" and cursor.nullable:
                    within = f"{cursor.order} is not null"
                lower = less(after.get(CURSOR, NOTHING), cursor.kind, options.cursor.lag, f"Table {table}")
                reach = reached(session, cursor, options.cursor, lower) or "true"
            yield Comparison(session, relation, columns, key, within, reach)

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

    def constraints(self, table: str) -> "Constraints":
        """What the database promises of the rows of a table; named as for `describe`."""
        from data_platform.ingestion.sql.constraints import constraints  # its parser is for drafts alone

        options = self.options.get(table)
        with self._session() as session:
            return constraints(session, session.relation((options.table if options else None) or table))

    def comments(self, table: str) -> Comments:
        """What the database says of a table and its columns in words; named as for `describe`."""
        options = self.options.get(table)
        with self._session() as session:
            return comments(session, session.relation((options.table if options else None) or table))

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
            return PostgresqlSession(self.url, self.timeouts, withholds=self._withholds)
        if scheme == "mysql":
            return MysqlSession(self.url, self.timeouts, withholds=self._withholds)
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
        return relation, columns_to_read(session, table, relation, options)


def columns_to_read(session: Session, table: str, relation: str, options: SqlTable) -> list[Column]:
    """The columns of a relation that the options of a table ask for, in the order of the source. Raises PlatformError
    for one that is not there, or that has no place in the lakehouse."""
    columns = session.columns(relation, options.cursor.column if options.cursor else None)
    there = [column.name for column in columns]
    for name in [*(options.columns or ()), *options.as_text]:
        if name not in there:
            raise PlatformError(f"Table {table} has no column {name} in the source. " + known("column", name, there))
    columns = [
        replace(column, type=pa.string(), select=session.shown(column), kind=None)
        if column.name in options.as_text
        else column
        for column in columns
    ]
    if options.columns is not None:
        wanted = {*options.columns, *([options.cursor.column] if options.cursor else [])}
        columns = [column for column in columns if column.name in wanted]
    checked_names(columns, relation)
    return columns


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
        column = cursor_column(self._columns, cursor, self._relation, self._session)
        assert column.kind is not None  # noqa: S101 - cursor_column refuses a column that cannot be one
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
        session, schema = self._session, schema_of(self._columns)
        hint = session.hint(self._relation)
        statement = f"select {selected(session, self._columns)} from {self._relation}"
        held = schema.empty_table()
        # The database is read on while the rows before are hashed.
        with closing(_Digest(schema)) as digest, ThreadPoolExecutor(1, "digest") as thread:
            added = thread.submit(digest.add, held)
            for rows in batches(session.stream(statement, schema), schema, BATCH_ROWS, BATCH_BYTES):
                added.result()
                added = thread.submit(digest.add, rows)
                if held.num_rows:
                    yield Batch(self._table, held, "whole", None)
                held = rows
            added.result()
            position = digest.position() | ({} if hint is None else {HINT: hint})
        yield Batch(self._table, held, "whole", position)

    def _new(self, cursor: Cursor, after: str) -> Iterator[Batch]:
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
                yield Batch(table, held, "rows", {CURSOR: position} if position else None)
            held = rows
            position = last_position(rows.column(column.name), kind) or position
        # The probe will count these rows again, and notice what has come to them.
        there = count_reached(session, relation, self._columns, cursor, position, table)
        yield Batch(table, held, "rows", {CURSOR: position, HINT: there})


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

    def close(self) -> None:
        self._connection.close()

    def position(self) -> dict[str, str]:
        return {"rows": str(self._rows), DIGEST: f"{self._sum % 2**64:016x}"}
