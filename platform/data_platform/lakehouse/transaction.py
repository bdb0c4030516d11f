"""The transaction: files written where nobody sees them, then one short commit that shows them with their position
and verdict. What is written and why it may be shown is decided by the callers (`ingestion.load`, `staging.step`).

Rows go to Parquet files below the table's folder first, outside any transaction; a commit only registers them. So a
slow source never holds up another writer, a process killed at any instant leaves at worst a file that no table names
(maintenance deletes it), and a commit that meets a conflict is repeated in milliseconds.

One writer commits at a time (see `lock`).
"""

import itertools
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import duckdb
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.failures import FULL, LOCKED, disks, explain, interruption
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import Table
from data_platform.redaction import first_line

T = TypeVar("T")

PARQUET = "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""Version 2 encodes numbers and times as differences: half the size of version 1, written in less time."""

ATTEMPTS = 20
"""How often a commit is repeated when a writer outside the lock (a person's own shell) came between."""

LOCKED_SECONDS = 30.0
"""How long a commit is repeated while a program outside the lock (a backup) has a SQLite catalog locked."""


BEGINNINGS = 5
"""How often a step begins that another run comes before."""


UNREADABLE = (duckdb.IOException, duckdb.InvalidInputException)
"""What DuckDB raises for a data file that is lost or no Parquet file any more."""


class ConcurrentStepError(TransientError):
    """Another run landed first from the same position; this one changed nothing."""


class CommitError(TransientError):
    """The commit itself failed. Whether it took place may be unknown, so the files that it names must stay: if it did
    not, nobody sees them, and maintenance deletes them."""


def taken_up(step: Callable[[], T]) -> T:
    """What a step gives that other runs may do at the same time. If one of them landed first, it begins again from
    where that one left the ledger. Raises ConcurrentStepError if that happens again and again."""
    for attempt in range(1, BEGINNINGS):
        try:
            return step()
        except ConcurrentStepError:
            time.sleep(random.uniform(0, 0.2 * attempt))  # noqa: S311 - jitter, not a secret
    return step()


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
    started = time.monotonic()
    for attempt in itertools.count(1):
        connection.execute("BEGIN")
        try:
            result = work(connection)
        except BaseException as error:
            _rollback(connection)
            if (interrupted := interruption(error)) is not None:
                interrupted.add_note(ROLLED_BACK)
                raise interrupted from None
            if not _may_repeat(error, attempt, started):
                raise
        else:
            try:
                connection.execute("COMMIT")
            except BaseException as error:
                _rollback(connection)
                if (interrupted := interruption(error)) is not None:
                    raise interrupted from None
                if not _may_repeat(error, attempt, started):
                    raise _commit_error(error, lake.settings) from error
            else:
                return result
        time.sleep(random.uniform(0, min(0.02 * attempt, 1)))  # noqa: S311 - jitter, not a secret
    raise AssertionError("unreachable: the loop returns or raises")


def _rollback(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        return  # a COMMIT that failed has rolled back already, and so has the end of a connection to the catalog


def _may_repeat(error: BaseException, attempt: int, started: float) -> bool:
    """Whether a commit is to be repeated: another writer came between, or has a SQLite catalog locked for a while."""
    if not isinstance(error, duckdb.Error):
        return False
    text = str(error).lower()
    if any(sign in text for sign in LOCKED):
        return time.monotonic() - started < LOCKED_SECONDS
    return "conflict" in text and attempt < ATTEMPTS


def _commit_error(error: BaseException, settings: Settings) -> BaseException:
    if not isinstance(error, duckdb.Error):
        return error
    found = explain(error, settings)
    if found is not None:
        return CommitError(f"The commit failed. {found}")
    return CommitError(
        f"The commit failed: {first_line(error)} If the disk is full or the catalog's server is down, mend "
        "that and run it again: the run takes up where the ledger stands."
    )


ROLLED_BACK = "The transaction was rolled back before its commit."
"""The note of an interruption of which it is certain that nothing was committed."""


@contextmanager
def discarded_on_failure(lake: Lakehouse, files: list["DataFile"]) -> Iterator[None]:
    """Remove `files` (which may grow within the block) when the block fails before its commit. They stay where it may
    be unknown whether that took place: it failed, or the process was interrupted, perhaps in the middle of it."""
    try:
        yield
    except CommitError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or ROLLED_BACK in getattr(error, "__notes__", ()):
            for file in files:
                discard(lake, file.path)
        raise


@dataclass(frozen=True)
class TempRelation:
    """A temporary table, which only the connection that made it sees. `sql` stands for it after FROM."""

    sql: str
    columns: tuple[str, ...]
    rows: int


@contextmanager
def temp_relation(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] = ()
) -> Iterator[TempRelation]:
    """What `query` gives, kept in a temporary table for the time of the block."""
    # In full: a plain name is looked for in the lakehouse first, where that is the default, which asks its catalog.
    name = quote("temp", "main", f"temporary_{uuid.uuid4().hex}")
    row = connection.execute(f"CREATE TEMP TABLE {name} AS {query}", list(parameters)).fetchone()
    try:
        columns = tuple(connection.sql(f"SELECT * FROM {name}").columns)
        yield TempRelation(name, columns, int(row[0]) if row is not None else 0)
    finally:
        # A connection that broke has lost the table, and what broke it is what must be reported.
        with suppress(duckdb.Error):
            connection.execute(f"DROP TABLE {name}")


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
    path: str | None = None,
) -> DataFile | None:
    """Stream `rows` through `query` (which reads them as `incoming`) into a new file of `table`, or to `path`.

    Memory stays bounded: batches are pulled one by one while DuckDB encodes. Returns None, and leaves no file, when
    nothing came out. What the iterator raises is raised again, as it was; a half-written file is removed. When this
    returns or raises, nothing of the iterator runs any more.
    """
    failure: list[BaseException] = []
    over, pulling = Event(), Lock()

    def guarded() -> Iterator[pa.RecordBatch]:
        # DuckDB would turn the exception into its own and lose type and message.
        try:
            while True:
                with pulling:
                    batch = None if over.is_set() else next(rows, None)
                if batch is None:
                    return
                yield batch
        except BaseException as error:
            failure.append(error)
            raise

    path = path or new_path(lake, table)
    reader = pa.RecordBatchReader.from_batches(schema, guarded())
    lake.connection.register("incoming", reader)
    try:
        return copy_to(lake, query, path)
    except PlatformError:
        if failure:
            raise failure[0] from None
        raise
    finally:
        # Arrow reads ahead in a thread of its own, and goes on for a while after a write that failed. A process that
        # ended meanwhile would wait for that thread for ever, which waits for Python.
        over.set()
        pulling.acquire()
        pulling.release()
        lake.connection.unregister("incoming")


def new_path(lake: Lakehouse, table: Table) -> str:
    """A name for a new file of `table`, which nothing else will use. It begins with the lakehouse's identity: what no
    table names is deleted by maintenance only if this lakehouse wrote it."""
    folder = f"{lake.settings.data.rstrip('/')}/{table.schema}/{table.name}"
    if lake.settings.data_is_local:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return f"{folder}/{lake.identity}-{uuid.uuid4()}.parquet"


def copy_to(lake: Lakehouse, query: str, path: str) -> DataFile | None:
    """Write what `query` gives to `path`; None, and no file, when it gives nothing. Raises PlatformError."""
    try:
        row = lake.connection.execute(f"COPY ({query}) TO {literal(path)} ({PARQUET}, RETURN_STATS)").fetchone()
    except BaseException as error:
        discard(lake, path)
        if isinstance(error, duckdb.Error):
            raise storage_error(error, path, lake.settings) from error
        raise
    if row is None or row[1] == 0:
        discard(lake, path)
        return None
    return DataFile(path, rows=row[1], bytes=row[2])


def discard(lake: Lakehouse, path: str) -> None:
    """Remove a file that will not be registered. On an object store that is left to maintenance."""
    if lake.settings.data_is_local:
        Path(path).unlink(missing_ok=True)


def storage_error(error: Exception, where: str, settings: Settings | None = None) -> PlatformError:
    """Say what kept rows from being written to `where`; with `settings` also what the catalog, or a file that was
    read meanwhile, has to do with it."""
    text = first_line(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return PlatformError(
            f"Not enough memory for {where}: the table is as it was. Raise LAKEHOUSE_MEMORY, or free space in the "
            f"spool folder. ({text})"
        )
    if any(sign in text.lower() for sign in FULL):
        free = "" if "://" in where else f" {disks([Path(where)])}."
        return PlatformError(f"The disk is full: the table is as it was. Free space for {where}.{free} ({text})")
    # What is said of the file that was to be written is no loss.
    found = explain(error, settings) if settings is not None and where not in str(error) else None
    return found or PlatformError(f"Writing to {where} failed, the table is as it was: {text}")


def register(connection: duckdb.DuckDBPyConnection, table: Table, files: list[DataFile]) -> None:
    """Make files part of `table`, within the caller's transaction. They must have all of its columns: DuckLake would
    take one that a file lacks for a column without nulls, and `WHERE column IS NOT NULL` would find rows of that file.
    """
    if files:
        paths = ", ".join(literal(file.path) for file in files)
        connection.execute(
            f"CALL ducklake_add_data_files({literal(CATALOG)}, {literal(table.name)}, [{paths}], "
            f"schema => {literal(table.schema)})"
        )
