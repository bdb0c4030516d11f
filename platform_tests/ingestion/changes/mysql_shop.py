"""A shop in a MariaDB of its own, written to as an application would, and read by its changes."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pymysql

from data_platform.ingestion.changes.mysql.source import MysqlChanges
from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.source import Batch, Position
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import SqlTable


class Shop:
    """The database `shop` of a server, empty or `again` as it is. Each statement is committed by itself, unless it says
    BEGIN."""

    def __init__(self, server: str, *, again: bool = False) -> None:
        self.server, self.url = server, f"{server}/shop"
        self.connection = connect(server)
        if not again:
            self.run("drop database if exists shop", "create database shop character set utf8mb4", "use shop")

    def run(self, *statements: str) -> None:
        """Run statements, one after the other."""
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def value(self, query: str) -> Any:
        """The only value that a query gives."""
        return self.rows(query)[0][0]

    def set_globally(self, **variables: str) -> None:
        """Set global variables, for this session as well."""
        for name, value in variables.items():
            self.run(f"set global {name} = {value}", f"set session {name} = {value}")


def connect(url: str) -> Any:
    """A connection to a server, its time zone UTC."""
    parts = urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=parts.username, autocommit=True, charset="utf8mb4"
    )
    with connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00'")
    return connection


@contextmanager
def shop(server: str, *, again: bool = False) -> Iterator[Shop]:
    """The shop, empty, or `again` as it is, for as long as the block lasts; the server's settings are put back."""
    shop = Shop(server, again=again)
    names = ("binlog_format", "binlog_row_image", "binlog_row_metadata", "log_bin_compress", "sql_mode")
    before = {name: shop.value(f"select @@global.{name}") for name in names}
    try:
        yield shop
    finally:
        with suppress(pymysql.Error), closing(connect(server)) as connection, connection.cursor() as cursor:
            for name, value in before.items():
                cursor.execute(f"set global {name} = %s", (value,))
        with suppress(pymysql.Error):  # a test may have closed it
            shop.connection.close()


def table(*key: str, **options: Any) -> SqlTable:
    return SqlTable(key=list(key or ("id",)), contract="x", **options)


def changes(url: str, tables: Mapping[str, SqlTable], **limits: Any) -> MysqlChanges:
    return MysqlChanges(url, tables, Changes(), "shop", Timeouts(**limits))


def nowhere() -> dict[str, str]:
    """The position of a source that was not read yet."""
    return {}


def read(source: MysqlChanges, position: dict[str, str], batches: int | None = None) -> list[Batch]:
    """The batches of a reading that a load would land, all or those up to the last position among the first ones;
    `position` moves with them."""
    found: list[Batch] = []
    with source.reading(list(source.options), dict(position)) as reading:
        iterator = iter(reading)
        for batch in iterator:
            found.append(batch)
            if batches is not None and len(found) == batches:
                break
        iterator.close()  # type: ignore[attr-defined]
    if batches is not None:
        while found and found[-1].position is None:
            found.pop()
    moved: Position = {}
    forget: list[str] = []
    for batch in found:
        moved = {**moved, **(batch.position or {})}
        forget += batch.forget
    for entry in forget:
        position.pop(entry, None)
    position.update(moved)
    return found


def of(batches: Sequence[Batch], name: str = "t") -> list[dict[str, Any]]:
    """The changes of a table, as rows."""
    return [row for batch in batches if batch.table == name for row in batch.rows.to_pylist()]


def operations(batches: Sequence[Batch], *columns: str, name: str = "t") -> list[tuple[Any, ...]]:
    """The operation and some columns of each change of a table."""
    return [(row["_operation"], *(row.get(column) for column in columns)) for row in of(batches, name)]


def rows_of(batches: Sequence[Batch], name: str = "t") -> pa.Table:
    """All rows of a table without what makes them changes."""
    tables = [batch.rows for batch in batches if batch.table == name and batch.rows.num_rows]
    return pa.concat_tables(tables).drop_columns(["_operation", "_order", "_committed_at"])


def applied(batches: Sequence[Batch], name: str, *key: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What the changes of a table make of it, by its key."""
    there: dict[tuple[Any, ...], dict[str, Any]] = {}
    for change in sorted(of(batches, name), key=lambda row: row["_order"]):
        row = {column: value for column, value in change.items() if not column.startswith("_")}
        values = tuple(row.get(column) for column in key)
        if change["_operation"] == "truncate":
            there.clear()
        elif change["_operation"] == "delete":
            assert values in there, f"a delete of {values}, which is not there"
            del there[values]
        else:
            assert (values in there) == (change["_operation"] == "update"), f"{change['_operation']} of {values}"
            there[values] = row
    return there


@contextmanager
def writing(shop: Shop, *statements: str) -> Iterator[None]:
    """Statements that another session runs again and again while the block runs; `{n}` in them is a running number."""
    stop = threading.Event()

    def run() -> None:
        with closing(connect(shop.url)) as connection, connection.cursor() as cursor:
            cursor.execute("use shop")
            number = 0
            while not stop.is_set():
                number += 1
                for statement in statements:
                    cursor.execute(statement.replace("{n}", str(number)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
