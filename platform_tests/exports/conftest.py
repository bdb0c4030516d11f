"""A table of a lakehouse that a test changes as staging would, and targets on real servers."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
import pytest
from platform_tests.prepared import copy
from platform_tests.servers import Postgres, fresh_database, running_mariadb

from data_platform.exports.mysql import Mysql
from data_platform.exports.postgresql import Postgresql
from data_platform.exports.target import Database
from data_platform.lakehouse.settings import Settings

Query = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Place:
    """A target, and how a test looks at it and changes it behind our back."""

    name: str
    url: str
    database: Database
    query: Query


@pytest.fixture
def settings(prepared_sqlite: Settings, home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own; that of its catalog makes no difference here."""
    return copy(prepared_sqlite, Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data")))


def postgresql_query(url: str) -> Query:
    def query(statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            connection.execute("set timezone to 'UTC'")
            found = connection.execute(statement.encode(), values or None)
            return found.fetchall() if found.description else []

    return query


def mysql_query(url: str) -> Query:
    parts = urlsplit(url)

    def query(statement: str, *values: object) -> list[tuple[Any, ...]]:
        address: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "user": parts.username}
        password, database = unquote(parts.password or ""), parts.path.lstrip("/") or None
        with closing(pymysql.connect(**address, password=password, database=database, autocommit=True)) as connection:
            cursor = connection.cursor()
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    return query


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of a MariaDB, without a database."""
    with running_mariadb() as url:
        yield url


@pytest.fixture
def postgresql_place(postgres: Postgres) -> Iterator[Place]:
    with fresh_database(postgres) as url:
        yield Place("postgresql", url, Postgresql(url, "platform"), postgresql_query(url))


@pytest.fixture
def mariadb_place(mariadb: str) -> Iterator[Place]:
    root = mysql_query(mariadb)
    root("create database crm")
    url = f"{mariadb}/crm"
    yield Place("mariadb", url, Mysql(url), mysql_query(url))
    root("drop database crm")


@pytest.fixture(params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of database."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found
