"""How rows reach the operations database: in bulk through ADBC, all tables of a day in one transaction.

The same statements serve SQLite and PostgreSQL; only column types differ. What the rows are is not decided here.
"""

from collections.abc import Mapping
from pathlib import Path

import adbc_driver_manager.dbapi
import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import polars as pl

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import redact_url
from data_platform.lakehouse.sql import quote, quote_all
from nyc_flights.simulator import aircraft, bookings, flights
from nyc_flights.simulator.days import iso

KEYS = {"flights": "flight_id", "aircraft": "tail_number", "bookings": "booking_id"}
_COLUMNS: dict[str, Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "flights": flights.COLUMNS,
    "aircraft": aircraft.COLUMNS,
    "bookings": bookings.COLUMNS,
}
_JSON = ("aircraft", "specification")


def is_sqlite(url: str) -> bool:
    """Whether the operations database is a SQLite file: a path, or `sqlite:///path`."""
    return not url.startswith(("postgresql://", "postgres://"))


def sqlite_path(url: str) -> Path:
    """The file of a SQLite URL or path. Raises PlatformError for a scheme that is neither SQLite nor PostgreSQL."""
    if url.startswith("sqlite:///"):
        return Path("/" + url.removeprefix("sqlite:///").lstrip("/"))
    if "://" in url:
        raise PlatformError(
            f"The operations database {redact_url(url)} is of no kind that the simulator writes. "
            "Give a path, sqlite:///path, or postgresql://user@host:port/database."
        )
    return Path(url)


def connect(url: str) -> adbc_driver_manager.dbapi.Connection:
    """A connection with transactions; close it. Raises PlatformError when there is no database to be had."""
    sqlite = is_sqlite(url)
    if sqlite:
        sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)
    try:
        if sqlite:
            connection: adbc_driver_manager.dbapi.Connection = adbc_driver_sqlite.dbapi.connect(str(sqlite_path(url)))
        else:
            connection = adbc_driver_postgresql.dbapi.connect(url)
    except adbc_driver_manager.Error as error:
        raise PlatformError(
            f"The operations database {redact_url(url)} cannot be opened: {_without(error, url)}. "
            "Is the server running, and does the database exist?"
        ) from None
    return connection


def write(url: str, changes: Mapping[str, pl.DataFrame], *, create: bool = False) -> None:
    """Insert or update rows by key, all tables in one transaction. Doing it again changes nothing.

    `create` makes the tables first, in the same transaction. Raises PlatformError if they are there already, or if
    the database refuses.
    """
    sqlite = is_sqlite(url)
    with connect(url) as connection, connection.cursor() as cursor:
        try:
            if create:
                if sqlite:
                    _write_ahead(connection, cursor)
                for statement in _definitions(sqlite):
                    cursor.execute(statement)
            for table, rows in changes.items():
                if not rows.is_empty():
                    _merge(cursor, table, rows, sqlite)
        except adbc_driver_manager.Error as error:
            hint = " A new world needs a database without the tables flights, aircraft, bookings." if create else ""
            raise PlatformError(
                f"The operations database {redact_url(url)} refused the rows: {_without(error, url)}.{hint}"
            ) from None
        connection.commit()


def _write_ahead(connection: adbc_driver_manager.dbapi.Connection, cursor: adbc_driver_manager.dbapi.Cursor) -> None:
    """Let the company's readers of the SQLite file neither wait for a write nor hold it up."""
    connection.adbc_connection.set_autocommit(True)
    cursor.execute("pragma journal_mode = wal")
    cursor.fetchall()
    connection.adbc_connection.set_autocommit(False)


def _definitions(sqlite: bool) -> list[str]:
    """The statements that create the tables and their indexes on `updated_at`."""
    statements = []
    for table, columns in _COLUMNS.items():
        types = ", ".join(
            f"{quote(column)} {_type(table, column, dtype, sqlite)}{' primary key' * (column == KEYS[table])}"
            for column, dtype in columns.items()
        )
        statements.append(f"create table {quote(table)} ({types})")
        if "updated_at" in columns:
            statements.append(f"create index {quote(f'{table}_updated_at')} on {quote(table)} (updated_at)")
    return statements


def _merge(cursor: adbc_driver_manager.dbapi.Cursor, table: str, rows: pl.DataFrame, sqlite: bool) -> None:
    key, incoming = KEYS[table], f"incoming_{table}"
    if sqlite:
        rows = rows.with_columns(iso(pl.col(pl.Datetime("us", "UTC"))))
    cursor.adbc_ingest(incoming, rows.to_arrow(), mode="create", temporary=True)
    columns = list(_COLUMNS[table])
    cast = [quote(c) if sqlite or (table, c) != _JSON else f"{quote(c)}::json" for c in columns]
    sets = ", ".join(f"{quote(c)} = excluded.{quote(c)}" for c in columns if c != key)
    cursor.execute(
        f"insert into {quote(table)} ({quote_all(columns)}) select {', '.join(cast)} from {quote(incoming)} "
        f"where true on conflict ({quote(key)}) do update set {sets}"
    )
    cursor.execute(f"drop table {quote(incoming)}")


def _type(table: str, column: str, dtype: pl.DataType | type[pl.DataType], sqlite: bool) -> str:
    if isinstance(dtype, pl.Datetime):
        return "text" if sqlite else "timestamptz"
    if (table, column) == _JSON:
        return "text" if sqlite else "json"
    if dtype == pl.Float64:
        return "double" if sqlite else "double precision"
    if dtype == pl.Int64:
        return "integer" if sqlite else "bigint"
    return "text"


def _without(error: BaseException, url: str) -> str:
    """The driver's own words, first line, without the URL's secrets."""
    return str(error).replace(url, redact_url(url)).splitlines()[0]
