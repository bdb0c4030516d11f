"""Opening the lakehouse: DuckLake on its catalog, credentials from the environment. Where DuckDB's extensions come from
is in `extensions`; what is done with the connection belongs in the modules beside this one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.catalog import catalog_address, within_limits, without_password
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.failures import explain, explained
from data_platform.lakehouse.identity import give_identity, identity_in_catalog, require_no_data
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import ObjectStore, Settings, redact_url
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.state import make_file, make_folder
from data_platform.redaction import first_line

CATALOG = "lake"
"""The name under which the lakehouse is attached, here and in dbt."""

METADATA = f"__ducklake_metadata_{CATALOG}"
"""DuckLake's own name for the database with its catalog's tables."""

NOT_THERE = "creating a new DuckLake is explicitly disabled"
"""What DuckLake says, among other things, of a catalog that holds no lakehouse."""

ONE_VIEW = {"sqlite_disable_multithreaded_scans": "true"}
"""What DuckDB is opened with so that a transaction reads a SQLite catalog through one SQLite transaction, as of one
moment. By default each catalog table is read through a connection of its own: a query that meets a commit which removes
catalog rows (maintenance, or a second deletion from one file) then misses rows, or sees deleted ones, without an error.
It must hold for DuckLake's own connections too: given when DuckDB is opened, or by SET GLOBAL, not by a plain SET.
"""

BUSY_MILLISECONDS = 60_000
"""How long SQLite waits where even its write-ahead log has to lock for a moment: the first to open it after a crash
recovers it, the last to close it empties it."""


@dataclass(frozen=True)
class Lakehouse:
    """One open lakehouse: the DuckDB connection with the catalog attached as `lake`, and where it all lies. `identity`
    begins the names of its files; empty only where one of an earlier release is open read-only. Within a transaction
    that found the ledger up to date, `ledger_is_current`: it is not asked again (`ledger.reading`)."""

    settings: Settings
    connection: duckdb.DuckDBPyConnection
    identity: str
    ledger_is_current: bool = False

    def duplicate(self) -> "Lakehouse":
        """A second connection to the same open database, for reading while the first one writes. The lakehouse is not
        its default catalog, where DuckDB would search for every name first, at the price of a query or two: tables are
        named in full (`Table.sql`)."""
        return Lakehouse(self.settings, self.connection.cursor(), self.identity)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One transaction for the reads of the block: they see the same snapshot, which is looked up once, not for
        each of them. Nothing is written in it."""
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            # What went wrong is what must be told, not that the connection to the catalog may be gone with it.
            with suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("ROLLBACK")


def duckdb_config(settings: Settings, spill: str = "duckdb") -> dict[str, Any]:
    """How every in-memory DuckDB of the platform is set up: it finds the extensions, downloads nothing, and spills to
    the folder `spill` of the spool."""
    make_folder(settings.spool, settings)
    return {
        "extension_directory": str(install_extensions(settings)),
        "autoinstall_known_extensions": "false",
        # A table called `time` is a table, not the Python module that happens to be imported where SQL is run.
        "python_enable_replacements": "false",
        # All that lie in the directory were verified by `install_extensions`.
        "allow_unsigned_extensions": "true",
        "temp_directory": str(settings.spool / spill),
        "memory_limit": settings.memory,
        # Order is carried by `_row`, not by the order of storage: copying may use all threads.
        "preserve_insertion_order": "false",
        **ONE_VIEW,
    }


def database(settings: Settings) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB of this process, its time zone UTC."""
    connection = duckdb.connect(config=duckdb_config(settings))
    connection.execute("LOAD icu")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # of its cursors too
    return connection


@contextmanager
def open_lakehouse(settings: Settings, *, read_only: bool = False) -> Iterator[Lakehouse]:
    """Open the lakehouse and close it whatever happens. Created if it is not there, unless `read_only`. It is the
    connection's default catalog: `schema.table` will do.

    Raises PlatformError if there is none to read, if the catalog or the data cannot be reached, or if one would have to
    be made where there is data already; and, whatever the block does, if a disk is full, the catalog's server or file
    fails, or a data file is lost (`failures`).
    """
    if read_only and settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        raise _nothing_there(settings)
    with within_limits(settings), explained(settings), closing(database(settings)) as connection:
        yield Lakehouse(settings, connection, _attach(connection, settings, read_only=read_only))


def open_reader(settings: Settings) -> Lakehouse:
    """The lakehouse, open for reading alone until its connection is closed, or nobody has it any more: for frames that
    are collected later. It takes no lock, and makes nothing. Raises PlatformError as `open_lakehouse` does."""
    if settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        raise _nothing_there(settings)
    with within_limits(settings), explained(settings):
        connection = database(settings)
        try:
            return Lakehouse(settings, connection, _attach(connection, settings, read_only=True))
        except BaseException:
            connection.close()
            raise


def _nothing_there(settings: Settings) -> PlatformError:
    return PlatformError(
        f"There is no lakehouse at {settings.catalog} yet. Load something first: `dp run`, or `make demo`."
    )


@contextmanager
def shared_lakehouse(settings: Settings) -> Iterator[Lakehouse]:
    """The lakehouse as this process has it open: opened by the first block, closed by the last to end, each with a
    connection of its own. Opening takes longer than many a step, and what was read of the catalog stays known.

    Raises PlatformError as `open_lakehouse` does.
    """
    with _SHARING:
        if settings not in _shared:
            opened = ExitStack()
            _shared[settings] = _Shared(opened.enter_context(open_lakehouse(settings)), opened)
        shared = _shared[settings]
        shared.users += 1
    try:
        with within_limits(settings), explained(settings):
            lake = shared.lake.duplicate()
            with closing(lake.connection):
                yield lake
    finally:
        with _SHARING:
            shared.users -= 1
            if not shared.users:
                del _shared[settings]
                shared.opened.close()


@dataclass
class _Shared:
    lake: Lakehouse
    opened: ExitStack
    users: int = 0


_SHARING = Lock()
_shared: dict[Settings, _Shared] = {}


def attach_url(settings: Settings) -> str:
    """What DuckLake attaches: the catalog's kind and address."""
    return f"ducklake:{'sqlite' if settings.catalog_is_sqlite else 'postgres'}:{catalog_address(settings)}"


def _attach(connection: duckdb.DuckDBPyConnection, settings: Settings, *, read_only: bool) -> str:
    """Attach the lakehouse, which is made if it is not there and may be written; its identity."""
    load_ducklake(connection, settings)
    connection.execute(f"LOAD {'sqlite_scanner' if settings.catalog_is_sqlite else 'postgres_scanner'}")
    if settings.catalog_is_sqlite and not read_only:
        make_file(Path(settings.catalog).absolute(), settings)  # or SQLite would make it, readable to others
    try:
        connection.execute(_attach_statement(settings, read_only=read_only, create=False))
    except duckdb.Error as error:
        if read_only or NOT_THERE not in str(error):
            raise _unreachable(settings, error) from None
        _create(connection, settings)
    connection.execute(f"USE {CATALOG}")
    if not settings.catalog_is_sqlite:
        connection.execute("SET ducklake_max_retry_count = 100")
    identity = identity_in_catalog(connection, METADATA)
    if identity or read_only:
        return identity
    with writer_lock(settings):
        try:
            return identity_in_catalog(connection, METADATA) or give_identity(connection, settings, METADATA)
        except duckdb.Error as error:
            raise _unreachable(settings, error) from None


def _create(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    # Two processes that create the same lakehouse at once would meet halfway.
    with writer_lock(settings):
        try:
            connection.execute(_attach_statement(settings, read_only=False, create=False))
        except duckdb.Error as error:
            if NOT_THERE not in str(error):
                raise _unreachable(settings, error) from None
        else:
            return  # another process was first
        try:
            require_no_data(connection, settings)
            connection.execute(_attach_statement(settings, read_only=False, create=True))
        except duckdb.Error as error:
            raise _unreachable(settings, error) from None


def load_ducklake(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make DuckLake and the place of the data ready for use by a connection."""
    connection.execute("LOAD ducklake")
    if settings.data_is_local:
        make_folder(Path(settings.data).absolute(), settings)
    else:
        connection.execute("LOAD httpfs")
        connection.execute(object_store_secret(settings.object_store))


def _attach_statement(settings: Settings, *, read_only: bool, create: bool) -> str:
    options = [f"DATA_PATH {literal(settings.data)}", f"CREATE_IF_NOT_EXISTS {str(create).lower()}"]
    if read_only:
        options.append("READ_ONLY")
    if settings.catalog_is_sqlite:
        options.append(f"META_BUSY_TIMEOUT {BUSY_MILLISECONDS}")
        if not read_only:
            # With a write-ahead log readers neither wait for a writer nor fail because of one.
            options.append("META_JOURNAL_MODE 'WAL'")
    return f"ATTACH {literal(attach_url(settings))} AS {CATALOG} ({', '.join(options)})"


def _unreachable(settings: Settings, error: duckdb.Error) -> PlatformError:
    found = explain(error, settings)
    if found is not None:
        return found
    text = without_password(first_line(error), settings).rstrip(".")
    return PlatformError(
        f"Cannot open the lakehouse with catalog {redact_url(settings.catalog)} and data {settings.data}: {text}. "
        "Check LAKEHOUSE_CATALOG and LAKEHOUSE_DATA: the server must answer, and a bucket must exist."
    )


def object_store_secret(store: ObjectStore) -> str:
    """The CREATE SECRET statement for `s3://` data. Raises PlatformError if there are no credentials."""
    given = {"AWS_ACCESS_KEY_ID": store.key_id, "AWS_SECRET_ACCESS_KEY": store.secret}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise PlatformError(f"Data on an object store needs {' and '.join(missing)} in the environment.")
    options = {"KEY_ID": store.key_id, "SECRET": store.secret, "REGION": store.region}
    flags = ""
    if store.endpoint:
        options["ENDPOINT"] = store.host
        flags = f", URL_STYLE 'path', USE_SSL {str(store.uses_tls).lower()}"
    body = ", ".join(f"{name} {literal(value)}" for name, value in options.items())
    return f"CREATE OR REPLACE SECRET object_store (TYPE s3, {body}{flags})"
