"""SQLite, streamed by ADBC from a file opened read-only; a file that is not there is not created.

SQLite does not hold a column to its declared type: a REAL column may hold 'abc'. A type is therefore promised only
where SQLite enforces it, in STRICT tables and in the row id; any other column arrives as text (BLOB ones as bytes),
numbers written such that they read back exactly. So no value is lost, and a column's type never depends on its values,
which matters because a stored column cannot turn into text later. The cursor is the exception: it must be compared,
so it arrives as what it holds, and is refused if it holds numbers and text alike.

ADBC drained 3 M rows in 2.3 s with the order taken from an index; DuckDB's scanner took 1.7 s, but sorts by itself, in
memory, and gives up on a mistyped value; its `sqlite_query` makes everything text and rounds numbers to 15 digits.
"""

import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent_encoded

import adbc_driver_manager
import adbc_driver_sqlite.dbapi
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects.session import (
    COUNTED_ROWS,
    Column,
    Kind,
    Session,
    number_parts,
    one_line,
    opened,
    valid_text,
)
from data_platform.lakehouse.sql import literal, quote

BUSY_TIMEOUT = 10_000
"""Milliseconds to wait for a writer that holds the file locked."""

ATTEMPTS = 50
ATTEMPT_SECONDS = 0.002
"""How often several sessions try to begin at one state of a file that is written to all the while, and how much longer
they wait each time."""

AT_ONCE = 20
"""Milliseconds that each of them then waits for a writer."""

DRIVER_ROWS = 16_384
"""Rows the driver puts in one record batch."""

TYPED: dict[pa.DataType, str] = {pa.int64(): "0", pa.float64(): "0.0", pa.string(): "''", pa.binary(): "x''"}
"""A value of each type. The driver infers types from the values it sees first, so the first row is one of these."""

TABLES = """
select name from pragma_table_list where schema = 'main' and type in ('table', 'view', 'virtual')
    and name not like 'sqlite\\_%' escape '\\' order by name
"""


class SqliteSession(Session):
    """A read transaction on a SQLite file, given by its path or as `sqlite://` and the path."""

    product = "SQLite"

    def __init__(self, url: str, *, withholds: bool = False, begins: bool = True) -> None:
        """Without `begins` it sees the file as it is when it is first read."""
        super().__init__(url, withholds=withholds)
        # Four slashes are as good as three: both name a path from the root.
        self.path = Path(re.sub(r"^//+", "/", url.removeprefix("sqlite://")))
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise PlatformError(
                f"The SQLite file {self.path.absolute()} {what}. Check the path (sqlite:///x is /x, sqlite://x is x in "
                "the working directory), and that what writes the file has run. Nothing was created."
            )
        self._uri = f"file:{percent_encoded(str(self.path.absolute()))}?mode=ro"
        with self._reporting():
            self._connection = adbc_driver_sqlite.dbapi.connect(self._uri)
        try:
            with self._reporting():
                _wait_for_writers(self._connection, BUSY_TIMEOUT)
            if begins:
                self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        """Begin to see the file as it is now: with its first statement a transaction does."""
        with self._reporting(), self._connection.cursor() as cursor:
            cursor.execute("select count(*) from sqlite_schema")
            cursor.fetchall()

    def close(self) -> None:
        with self._reporting():
            self._connection.close()

    def tables(self) -> list[str]:
        return [row["name"] for row in self._rows(TABLES, pa.schema([("name", pa.string())]))]

    def relation(self, table: str) -> str:
        name = self.scalar(
            f"select name from pragma_table_list({literal(table.removeprefix('main.'))}) where schema = 'main'",
            pa.string(),
        )
        if name is None:
            raise self.missing_table(table)
        return quote(name)

    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:
        table = relation[1:-1].replace('""', '"')
        number = pa.int64()
        schema = pa.schema([("name", pa.string()), ("type", pa.string()), ("required", number), ("pk", number)])
        rows = self._rows(
            f'select name, type, "notnull" as required, pk from pragma_table_xinfo({literal(table)}) where hidden <> 1',
            schema,
        )
        strict, rowless = (
            self.scalar(f"select {flag} from pragma_table_list({literal(table)}) where schema = 'main'", number)
            for flag in ("strict", "wr")
        )
        alone = sum(row["pk"] > 0 for row in rows) == 1
        columns = []
        for row in rows:
            is_row_id = alone and row["pk"] == 1 and row["type"].upper() == "INTEGER" and not rowless
            if row["name"] == cursor:
                columns.append(self._cursor_column(relation, row, is_row_id))
                continue
            arrow, select = _reading(quote(row["name"]), row["type"].upper(), bool(strict), is_row_id)
            columns.append(_column(row, arrow, select, None, is_row_id))
        return columns

    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        names = ", ".join(f"{TYPED[field.type]} as {quote(field.name)}" for field in schema)
        statement = f"select {names} union all select * from ({statement})"
        first = True
        with self._reporting(), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(DRIVER_ROWS)})
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                rows = batch.slice(1) if first else batch
                first = False
                arrays = [
                    valid_text(array) if pa.types.is_string(field.type) else array.cast(field.type)
                    for array, field in zip(rows.columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def peers(self, count: int) -> list[Session]:
        """SQLite has no snapshot to share: sessions begin one after the other, and begin again if the file was written
        to between the first and the last of them, or a writer is about to, which waits for the first and keeps the
        others waiting."""
        others = opened(lambda: SqliteSession(self.url, withholds=self.withholds, begins=False), count)
        with ExitStack() as stack:
            for other in others:
                stack.enter_context(other)
            # By the same library: two of them in one process take each other's locks from a file.
            with self._reporting():
                watch = stack.enter_context(closing(adbc_driver_sqlite.dbapi.connect(self._uri, autocommit=True)))
            for attempt in range(ATTEMPTS):
                time.sleep(attempt * ATTEMPT_SECONDS)
                if self._begun_together(others, watch):
                    stack.pop_all()
                    watch.close()
                    return list(others)
        raise TransientError(
            f"The SQLite file {self.path} was written to each of {ATTEMPTS} times that {count + 1} connections were to "
            "begin at the same state of it. Nothing was read. Try again when less is written, or take `parallel` out."
        )

    def _begun_together(self, others: Sequence["SqliteSession"], watch: adbc_driver_sqlite.dbapi.Connection) -> bool:
        sessions = [self, *others]
        try:
            for session in sessions:
                with session._reporting():
                    session._connection.rollback()
                _wait_for_writers(session._connection, AT_ONCE)
            _wait_for_writers(watch, AT_ONCE)
            before = _version(watch)
            for session in sessions:
                session._look()
            same: bool = _version(watch) == before
        except (TransientError, adbc_driver_manager.Error):
            return False
        for session in sessions:
            _wait_for_writers(session._connection, BUSY_TIMEOUT)
        return same

    def parts(self, relation: str, count: int) -> list[str] | None:
        """By the row id."""
        if not self._has_row_ids(relation):
            return None
        ends = (self.scalar(f"select {end}(rowid) as value from {relation}", pa.int64()) for end in ("min", "max"))
        low, high = ends
        return number_parts(low, high, count, "rowid", str)

    def hold(self, relations: Sequence[str]) -> None:
        """Nothing: a transaction sees one state of the whole file."""

    def _has_row_ids(self, relation: str) -> bool:
        table = relation[1:-1].replace('""', '"')
        found = self.scalar(
            f"select 1 as value from pragma_table_list({literal(table)}) "
            "where schema = 'main' and type = 'table' and wr = 0",
            pa.int64(),
        )
        return found is not None

    def hint(self, relation: str) -> str | None:
        """The highest row id, and the number of rows up to COUNTED_ROWS: beyond that, what is deleted in the middle or
        changed in place is not seen."""
        highest = f"(select max(rowid) from {relation})" if self._has_row_ids(relation) else "null"
        found: str | None = self.scalar(
            f"select coalesce({highest}, '') || ':' || "
            f"(select count(*) from (select 1 from {relation} limit {COUNTED_ROWS})) as value",
            pa.string(),
        )
        return found

    def quote(self, *parts: str) -> str:
        return quote(*parts)

    def literal(self, kind: Kind, text: str) -> str:
        return text if kind in ("integer", "float") else literal(text)

    def finite(self, column: Column) -> str | None:
        return f"abs({column.order}) < 9e999" if column.kind == "float" else None

    def _cursor_column(self, relation: str, row: dict[str, Any], is_row_id: bool) -> Column:
        name = quote(row["name"])
        held = {
            self.scalar(f"select typeof({end}({name})) as value from {relation}", pa.string()) for end in ("min", "max")
        }
        kind = _kind(held - {"null"}, row["type"].upper())
        if kind is None:
            declared = row["type"] or "without a type"
            raise PlatformError(
                f"The cursor column {row['name']} of {relation} in {self.path} is declared {declared} and holds "
                f"{' and '.join(sorted(held))} values, which have no common order. "
                f"Find them with: select {name}, typeof({name}) from {relation} order by 1 desc. "
                "Correct them, or load the table without a cursor."
            )
        arrow = {"integer": pa.int64(), "float": pa.float64(), "text": pa.string()}[kind]
        select = f"cast({name} as real)" if kind == "float" else name
        return _column(row, arrow, select, kind, is_row_id)

    def _rows(self, statement: str, schema: pa.Schema) -> list[dict[str, Any]]:
        return [row for batch in self.stream(statement, schema) for row in batch.to_pylist()]

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what the driver reports into PlatformError."""
        try:
            yield
        except (adbc_driver_manager.Error, OSError, pa.ArrowException) as error:
            reason = one_line(str(error))
        else:
            return
        if "locked" in reason or "busy" in reason:
            raise TransientError(
                f"The SQLite file {self.path} stayed locked by a writer for {BUSY_TIMEOUT // 1000} s. "
                "Try again, or let the application that writes it use `PRAGMA journal_mode = WAL`."
            )
        if "readonly database" in reason:
            raise TransientError(
                f"The SQLite file {self.path} was left amid a commit: the application that writes it was killed, and a "
                "part of the commit is still to be taken back. The application does that when it opens the file again; "
                "this source only reads, and can do so again then."
            )
        if "not a database" in reason or "malformed" in reason:
            raise PlatformError(
                f"{self.path} is no SQLite database, or a damaged one ({self.said(reason)}). Check the path."
            )
        if not self.path.is_file() or "unable to open" in reason or "failed to open" in reason:
            raise PlatformError(
                f"Cannot open the SQLite file {self.path}: {self.said(reason)}. Check that this account may read it."
            )
        raise PlatformError(f"SQLite could not read {self.path}: {self.said(reason)}")


def _wait_for_writers(connection: adbc_driver_sqlite.dbapi.Connection, milliseconds: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"pragma busy_timeout = {milliseconds}")


def _version(watch: adbc_driver_sqlite.dbapi.Connection) -> object:
    """What changes for a connection with each commit of another."""
    with watch.cursor() as cursor:
        cursor.execute("select data_version from pragma_data_version")
        return cursor.fetchone()


def _column(row: dict[str, Any], arrow: pa.DataType, select: str, kind: Kind | None, is_row_id: bool) -> Column:
    nullable = not row["required"] and not is_row_id
    order = quote(row["name"]) + (" collate binary" if kind == "text" else "")
    return Column(row["name"], row["type"], nullable, row["pk"] > 0, arrow, select, order, kind)


def _reading(name: str, declared: str, strict: bool, is_row_id: bool) -> tuple[pa.DataType, str]:
    """The Arrow type of a column, and the SQL that yields it without loss whatever it holds."""
    if is_row_id or (strict and declared in ("INT", "INTEGER")):
        return pa.int64(), name
    if strict and declared == "REAL":
        return pa.float64(), name
    if strict and declared == "TEXT":
        return pa.string(), name
    if declared == "BLOB":
        return pa.binary(), f"cast({name} as blob)"
    # SQLite writes a real with as many digits as it takes to read the same number back. Only bytes are as great as no
    # bytes at all; typeof() would be a call for each value.
    return pa.string(), f"case when {name} >= x'' then 'X''' || hex({name}) || '''' else cast({name} as text) end"


def _kind(held: set[str], declared: str) -> Kind | None:
    """The kind of a cursor from the types of its lowest and highest values; of an empty one from its declaration."""
    if held == {"text"}:
        return "text"
    if held == {"integer"}:
        return "float" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "integer"
    if held in ({"real"}, {"integer", "real"}):
        return "float"
    if held:
        return None
    # Of what is numeric, whole numbers: a column of them becomes wider when there are others.
    if any(word in declared for word in ("INT", "NUM", "DEC")):
        return "integer"
    return "float" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "text"
