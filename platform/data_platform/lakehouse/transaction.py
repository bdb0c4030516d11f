"""The transaction: files written where nobody sees them, then one short commit that shows them with their position
and verdict. What is written and why it may be shown is decided by the callers (`ingestion.load`, `staging.step`).

Rows go to Parquet files below the table's folder first, outside any transaction; a commit only registers them. So a
slow source never holds up another writer, a process killed at any instant leaves at worst a file that no table names
(maintenance deletes it), and a commit that meets a conflict is repeated in milliseconds.

One writer commits at a time: on SQLite because concurrent commits meet "database is locked", on PostgreSQL because
every commit moves a row of the ledger, and DuckLake takes that for a conflict (two of three commits, with six
writers). The lock is the operating system's or the server's, so it ends with the process that held it.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
from filelock import FileLock, Timeout

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.settings import Settings, redact_url
from data_platform.lakehouse.sql import literal, quote

T = TypeVar("T")

ATTEMPTS = 20
"""How often a commit is repeated when a writer outside the lock (dbt elsewhere, a person's shell) came between."""

LOCK_SECONDS = 900
"""How long to wait for another writer; it commits in milliseconds, only a dbt build or maintenance takes longer."""

ADVISORY_LOCK = 7_305_126_417
"""The key of PostgreSQL's advisory lock: any number, the same in every process."""


class ConcurrentStepError(PlatformError):
    """Another run landed first from the same position; this one changed nothing."""


@contextmanager
def writer_lock(settings: Settings) -> Iterator[None]:
    """Hold the right to commit. Not reentrant. Raises PlatformError if it is not to be had within LOCK_SECONDS."""
    if settings.catalog_is_sqlite:
        path = Path(f"{settings.catalog}.writer.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=LOCK_SECONDS, poll_interval=0.005):
                yield
        except Timeout:
            raise PlatformError(
                f"Another process has been writing to the lakehouse for {LOCK_SECONDS} s (lock {path}). "
                "Look for a run that hangs (`dp status`), end it, and start again."
            ) from None
        return
    with adbc_driver_postgresql.dbapi.connect(settings.catalog, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            try:
                cursor.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
                cursor.fetchall()
            except adbc_driver_postgresql.dbapi.Error:
                raise PlatformError(
                    f"Another process has been writing to the lakehouse at {redact_url(settings.catalog)} for "
                    f"{LOCK_SECONDS} s. Look for a run that hangs (`dp status`), end it, and start again."
                ) from None
        # Closing the connection releases the lock.
        yield


def commit(lake: Lakehouse, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """Run `work` in one transaction under the writer lock and commit it: all of it becomes visible, or none.

    `work` only registers, deletes and updates (rows are written beforehand), and may be run again on a conflict.
    Whatever it raises rolls everything back and is raised again.
    """
    with writer_lock(lake.settings):
        return commit_locked(lake, work)


def commit_locked(lake: Lakehouse, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """`commit` for a caller that holds the writer lock already."""
    connection = lake.connection
    for attempt in range(1, ATTEMPTS + 1):
        connection.execute("BEGIN")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except duckdb.Error as error:
            _rollback(connection)
            if attempt == ATTEMPTS or not _is_conflict(error):
                raise
            time.sleep(random.uniform(0, 0.02 * attempt))  # noqa: S311 - jitter, not a secret
        except BaseException:
            _rollback(connection)
            raise
        else:
            return result
    raise AssertionError("unreachable: the loop returns or raises")


def _rollback(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        return  # a COMMIT that failed has rolled back already


def _is_conflict(error: duckdb.Error) -> bool:
    text = str(error).lower()
    return "conflict" in text or "database is locked" in text


@dataclass(frozen=True)
class Table:
    """A table's place in the lakehouse."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        return quote(CATALOG, self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class DataFile:
    """A Parquet file below a table's folder, with what it holds. Nobody sees it until it is registered."""

    path: str
    rows: int
    bytes: int


def write_file(
    lake: Lakehouse,
    table: Table,
    rows: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    query: str = "SELECT * FROM incoming",
) -> DataFile | None:
    """Stream `rows` through `query` (which reads them as `incoming`) into a new file of `table`.

    Memory stays bounded: batches are pulled one by one while DuckDB encodes. Returns None, and leaves no file, when
    nothing came out. What the iterator raises is raised again, as it was; a half-written file is removed.
    """
    failure: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        # DuckDB would turn the exception into its own and lose type and message.
        try:
            yield from rows
        except BaseException as error:
            failure.append(error)
            raise

    path = new_path(lake, table)
    reader = pa.RecordBatchReader.from_batches(schema, guarded())
    lake.connection.register("incoming", reader)
    try:
        return copy_to(lake, query, path)
    except duckdb.Error as error:
        discard(lake, path)
        if failure:
            raise failure[0] from None
        raise storage_error(error, path) from error
    except BaseException:
        discard(lake, path)
        raise
    finally:
        lake.connection.unregister("incoming")


def new_path(lake: Lakehouse, table: Table) -> str:
    """A name for a new file of `table`, which nothing else will use."""
    folder = f"{lake.settings.data.rstrip('/')}/{table.schema}/{table.name}"
    if lake.settings.data_is_local:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return f"{folder}/{uuid.uuid4()}.parquet"


def copy_to(lake: Lakehouse, query: str, path: str) -> DataFile | None:
    """Write what `query` gives to `path`; None, and no file, when it gives nothing. Raises duckdb.Error."""
    row = lake.connection.execute(
        f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, RETURN_STATS)"
    ).fetchone()
    if row is None or row[1] == 0:
        discard(lake, path)
        return None
    return DataFile(path, rows=row[1], bytes=row[2])


def discard(lake: Lakehouse, path: str) -> None:
    """Remove a file that will not be registered. On an object store that is left to maintenance."""
    if lake.settings.data_is_local:
        Path(path).unlink(missing_ok=True)


def storage_error(error: duckdb.Error, where: str) -> PlatformError:
    """Say what kept rows from being written."""
    text = str(error).splitlines()[0]
    if "No space left" in text or "not enough space" in text.lower():
        return PlatformError(f"The disk is full: nothing was loaded, the table is as it was. Free space for {where}.")
    return PlatformError(f"Writing to {where} failed, nothing was loaded: {text}")


def register(connection: duckdb.DuckDBPyConnection, table: Table, files: list[DataFile]) -> None:
    """Make files part of `table`, within the caller's transaction."""
    for file in files:
        connection.execute(
            f"CALL ducklake_add_data_files({literal(CATALOG)}, {literal(table.name)}, {literal(file.path)}, "
            f"schema => {literal(table.schema)}, allow_missing => true)"
        )


def columns_of(connection: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """Column names and DuckDB types of a table; empty if there is no such table."""
    rows = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index",
        [CATALOG, table.schema, table.name],
    ).fetchall()
    return dict(rows)


def duckdb_types(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> dict[str, str]:
    """The DuckDB type of each Arrow column."""
    relation = connection.from_arrow(schema.empty_table())
    return dict(zip(relation.columns, (str(kind) for kind in relation.types), strict=True))


def ensure_table(connection: duckdb.DuckDBPyConnection, table: Table, columns: dict[str, str]) -> None:
    """Create the table, or add the columns that it lacks, within the caller's transaction."""
    existing = columns_of(connection, table)
    if not existing:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, table.schema)}")
        body = ", ".join(f"{quote(name)} {kind}" for name, kind in columns.items())
        connection.execute(f"CREATE TABLE {table.sql} ({body})")
        return
    for name, kind in columns.items():
        if name not in existing:
            connection.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quote(name)} {kind}")
