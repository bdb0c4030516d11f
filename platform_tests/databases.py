"""The databases that tests write to as an application would: one way to run a statement on each of them."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import duckdb
import psycopg
import pytest
from platform_tests.servers import mariadb_is_installed

from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal

with_mariadb = pytest.mark.skipif(
    not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
    reason="no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
)


@dataclass
class Database:
    """A database by its URL (or the path of a SQLite file). Each statement is committed by itself."""

    url: str
    settings: Settings
    _mysql: list[duckdb.DuckDBPyConnection] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """sqlite, postgresql or mysql."""
        return self.url.split("://")[0] if "://" in self.url else "sqlite"

    def run(self, *statements: str) -> None:
        """Run statements, one after the other."""
        if self.kind == "postgresql":
            with psycopg.connect(self.url) as server:
                for statement in statements:
                    server.execute(statement.encode())
        elif self.kind == "mysql":
            for statement in statements:
                self._server().execute(f"CALL mysql_execute('db', {literal(statement)})")
        else:
            with closing(sqlite3.connect(self.url)) as file:
                for statement in statements:
                    file.execute(statement)
                file.commit()

    def rows(self, query: str) -> list[Any]:
        """What a query gives."""
        if self.kind == "postgresql":
            with psycopg.connect(self.url) as server:
                return server.execute(query.encode()).fetchall()
        if self.kind == "mysql":
            return self._server().execute(f"SELECT * FROM mysql_query('db', {literal(query)})").fetchall()
        with closing(sqlite3.connect(self.url)) as file:
            return file.execute(query).fetchall()

    def _server(self) -> duckdb.DuckDBPyConnection:
        if not self._mysql:
            address, schema = self.url.removeprefix("mysql://").split("/")
            user, host = address.split("@")
            name, port = host.split(":")
            connection = database(self.settings)
            connection.execute("LOAD mysql_scanner")
            connection.execute(f"ATTACH 'host={name} port={port} user={user} database={schema}' AS db (TYPE mysql)")
            connection.execute("CALL mysql_execute('db', 'set time_zone = ''+00:00''')")
            self._mysql.append(connection)
        return self._mysql[0]

    def close(self) -> None:
        """Release what is open."""
        for connection in self._mysql:
            connection.close()
        self._mysql.clear()


def values(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as SQL of a VALUES clause: numbers, texts without quotes or backslashes, and nulls."""

    def one(value: Any) -> str:
        return "null" if value is None else f"'{value}'" if isinstance(value, str) else str(value)

    return ", ".join(f"({', '.join(one(value) for value in row)})" for row in rows)
