"""Databases that Debezium reads in the tests: a shop in a real PostgreSQL or MariaDB, with two tables that each
transaction changes alike, and a source that reads it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pymysql
from platform_tests.kafka_servers import cache

from data_platform.ingestion.debezium.kinds import VERSION
from data_platform.ingestion.debezium.options import DebeziumOptions, DebeziumTable
from data_platform.ingestion.debezium.source import Debezium
from data_platform.ingestion.source import Batch, Position


def debezium_can_run() -> bool:
    """Whether there is a JDK, and the jars or Maven to get them."""
    there = all((cache() / "debezium" / f"{kind}-{VERSION}").exists() for kind in ("postgresql", "mariadb"))
    return all(map(shutil.which, ("java", "javac"))) and (there or shutil.which("mvn") is not None)


def table(*key: str, **options: Any) -> DebeziumTable:
    return DebeziumTable(key=list(key or ("id",)), contract="x", **options)


TABLES = {"t": table(), "u": table()}


@dataclass(frozen=True)
class Shop:
    """A database. Each statement is committed by itself, unless it says BEGIN."""

    kind: str
    url: str

    def options(self, **others: Any) -> DebeziumOptions:
        parts = urlsplit(self.url)
        given = {"host": parts.hostname, "port": parts.port, "username": parts.username, "password": "none"}
        if self.kind == "mariadb":
            given["password"] = ""
        return DebeziumOptions.model_validate(
            {"kind": self.kind, **given, "database": parts.path.strip("/"), "settle": timedelta(seconds=2), **others}
        )

    def source(self, tables: Mapping[str, DebeziumTable] = TABLES, **options: Any) -> Debezium:
        return Debezium(self.options(**options), tables, f"shop_{urlsplit(self.url).path.strip('/')}", cache())

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A cursor."""
        parts = urlsplit(self.url)
        if self.kind == "postgresql":
            with psycopg.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
                yield cursor
            return
        named: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "user": parts.username}
        connection = pymysql.connect(database=parts.path.strip("/"), autocommit=True, **named)
        with closing(connection), connection.cursor() as cursor:
            yield cursor

    def run(self, *statements: str) -> None:
        with self.connected() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.connected() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


@dataclass(frozen=True)
class Read:
    """What a reading gave: its batches, and the position at its end."""

    batches: list[Batch]
    position: Position

    def of(self, name: str) -> pa.Table:
        """The rows of a table."""
        there = [batch.rows for batch in self.batches if batch.table == name and batch.rows.num_rows]
        return pa.concat_tables(there, promote_options="default") if there else pa.table({})

    def changes(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """The operation of each change of a table, and the columns."""
        rows = self.of(name)
        return list(zip(*(rows[one].to_pylist() for one in ("_operation", *columns)), strict=True)) if len(rows) else []


def read(source: Debezium, after: Position | None = None, tables: Sequence[str] | None = None) -> Read:
    """Read to the end, as if each position were committed."""
    position, batches = dict(after or {}), []
    with source.reading(list(tables or source.tables), position) as reading:
        for batch in reading:
            batches.append(batch)
            if batch.position is not None:
                position |= batch.position
        reading.committed(position)
    return Read(batches, position)
