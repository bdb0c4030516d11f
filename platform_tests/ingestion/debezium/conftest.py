"""A PostgreSQL and a MariaDB that Debezium reads, and a shop of its own in each of them for each test."""

import os
from collections.abc import Iterator

import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.debezium.shop import Shop, debezium_can_run
from platform_tests.servers import own_mariadb

KINDS = ["postgresql", pytest.param("mariadb", marks=with_mariadb)]


@pytest.fixture(scope="session")
def debezium() -> None:
    """What Debezium needs to run."""
    if not debezium_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("Debezium cannot run here: install a JDK (java, javac) and Maven (its jars are downloaded)")


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    with own_mariadb(["--character-set-server=utf8mb4"]) as server:
        yield server.url


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, debezium: None) -> Iterator[Shop]:
    """A shop in either database, with two tables of two rows."""
    if request.param == "postgresql":
        at = Shop("postgresql", request.getfixturevalue("postgres_url"))
    else:
        server = request.getfixturevalue("mariadb")
        Shop("mariadb", f"{server}/mysql").run("drop database if exists shop", "create database shop")
        at = Shop("mariadb", f"{server}/shop")
    for name in ("t", "u"):
        at.run(f"create table {name} (id int primary key, total int)", f"insert into {name} values (1, 1), (2, 2)")
    yield at
    if at.kind == "postgresql":
        at.source().drop()
