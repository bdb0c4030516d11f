"""The lakehouse held still for a build: attached read-only, at one snapshot, whatever other steps commit meanwhile. dbt
(through `plugin`) and the audit each open it for themselves, from the same `Pin`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.catalog import without_password
from data_platform.lakehouse.connect import (
    BUSY_MILLISECONDS,
    CATALOG,
    Lakehouse,
    attach_url,
    database,
    load_ducklake,
)
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import Settings, redact_url
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import MODELLED, all_tables
from data_platform.redaction import first_line

if TYPE_CHECKING:
    from data_platform.modelling.landing import Landing

MEMORY = "memory"
"""DuckDB's name for an in-memory database."""

_pins: dict[str, "Pin"] = {}
"""Those of this process, by folder: dbt passes on a text only."""


@dataclass(frozen=True)
class Pin:
    """A lakehouse at one snapshot: `snapshot` is the version at which to attach it (None for the newest), `folder`
    takes what a build writes besides the rows of its models. `publishes` tells whether those may be published: else
    they go to `folder` as well. `exists` is false where nothing was ever loaded: then an empty database stands for the
    lakehouse. `identity` is that of the lakehouse, `landings` are the models that were computed on this pin so far.
    """

    settings: Settings
    folder: Path
    snapshot: int | None
    publishes: bool
    exists: bool = True
    identity: str = ""
    landings: dict[str, "Landing"] = field(default_factory=dict)


@contextmanager
def pinned(lake: Lakehouse) -> Iterator[Pin]:
    """The lakehouse as it stands now, for the time of the block. The folder is removed afterwards."""
    lake.settings.spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=lake.settings.spool) as folder:
        snapshot = current_snapshot(lake.connection)
        pin = Pin(lake.settings, Path(folder), snapshot, publishes=True, identity=lake.identity)
        _pins[folder] = pin
        try:
            yield pin
        finally:
            del _pins[folder]


def pin_in(folder: str) -> Pin:
    """The pin of this process that has a folder. Raises PlatformError if there is none."""
    if folder not in _pins:
        raise PlatformError(f"No build of this process has the folder {folder}. Unset DBT_BUILD.")
    return _pins[folder]


def pin_by_hand(settings: Settings, folder: Path) -> Pin:
    """A pin for dbt in a terminal: each statement sees the newest snapshot."""
    exists = not settings.catalog_is_sqlite or Path(settings.catalog).exists()
    return Pin(settings, folder, None, publishes=False, exists=exists)


@contextmanager
def open_pinned(pin: Pin) -> Iterator[Lakehouse]:
    """The pinned lakehouse, open for reading, in a database that also shows the published models as dbt does."""
    connection = database(pin.settings)
    try:
        attach(connection, pin)
        yield Lakehouse(pin.settings, connection, pin.identity)
    finally:
        connection.close()


def attach(connection: duckdb.DuckDBPyConnection, pin: Pin) -> None:
    """Attach a pinned lakehouse to an in-memory database, and show each published model in the schema `modelled` of
    that database. Raises PlatformError if the lakehouse cannot be reached."""
    settings = pin.settings
    connection.execute("LOAD icu")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # dates are taken from instants
    if not pin.exists:
        connection.execute(f"ATTACH ':memory:' AS {CATALOG}")
        return
    load_ducklake(connection, settings)
    connection.execute(f"LOAD {'sqlite_scanner' if settings.catalog_is_sqlite else 'postgres_scanner'}")
    options = ["READ_ONLY", f"DATA_PATH {literal(settings.data)}"]
    if settings.catalog_is_sqlite:
        options.append(f"META_BUSY_TIMEOUT {BUSY_MILLISECONDS}")
    if pin.snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {pin.snapshot}")
    try:
        connection.execute(f"ATTACH {literal(attach_url(settings))} AS {CATALOG} ({', '.join(options)})")
    except duckdb.Error as error:
        text = without_password(first_line(error), settings)
        raise PlatformError(
            f"Cannot open the lakehouse with catalog {redact_url(settings.catalog)} for the models: {text} "
            "Check LAKEHOUSE_CATALOG, and that the server answers."
        ) from None
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(MEMORY, MODELLED)}")
    for table in all_tables(connection):
        if table.schema == MODELLED:
            show(connection, table.name, f"SELECT * FROM {table.sql}")


def show(connection: duckdb.DuckDBPyConnection, model: str, query: str) -> None:
    """Let `{{ ref(model) }}` and `{{ this }}` mean a query from now on."""
    connection.execute(f"CREATE OR REPLACE VIEW {quote(MEMORY, MODELLED, model)} AS {query}")
