"""What databases promise by their constraints, as PostgreSQL, MariaDB and SQLite keep them; of checks only what is
certain."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from platform_tests.ingestion.sql.test_mysql import run as run_mysql
from platform_tests.servers import mariadb_is_installed, running_mariadb

from data_platform.ingestion.sql.constraint_types import Constraints, ForeignKey
from data_platform.ingestion.sql.constraints import promises
from data_platform.ingestion.sql.source import Relational

STATUS = {"status": ("a", "b")}


@pytest.mark.parametrize(
    ("dialect", "check", "expected"),
    [
        (
            "postgres",
            "((status)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))",
            STATUS,
        ),
        ("postgres", "(status = ANY (ARRAY['a'::text, 'b'::text]))", STATUS),
        ("postgres", "((status = 'a'::text) OR (status = 'b'::text))", STATUS),
        ("postgres", "((status IS NULL) OR (status = ANY (ARRAY['a'::text, 'b'::text])))", STATUS),
        ("postgres", "((rating >= 1) AND (rating <= 5))", {"rating": {"ge": 1, "le": 5}}),
        ("postgres", "(price > (0)::numeric)", {"price": {"gt": 0}}),
        ("postgres", "(temp >= ('-40'::integer)::numeric)", {"temp": {"ge": -40}}),
        ("postgres", "(share < 0.5)", {"share": {"lt": 0.5}}),
        ("mysql", "`status` in ('a','b')", STATUS),
        ("mysql", "(`status` in (_utf8mb4'a',_utf8mb4'b'))", STATUS),
        ("mysql", "`rating` between 1 and 5", {"rating": {"ge": 1, "le": 5}}),
        ("sqlite", "status IN ('a', 'b')", STATUS),
        ("sqlite", "0 <= x", {"x": {"ge": 0}}),
        ("sqlite", "5 > x", {"x": {"lt": 5}}),
        ("sqlite", "kind in (1, 2, 3)", {"kind": (1, 2, 3)}),
        ("sqlite", "a = 'it''s'", {"a": ("it's",)}),
        ("sqlite", "a > b", {}),
        ("sqlite", "length(a) > 3", {}),
        ("sqlite", "a in ('x', b)", {}),
        ("sqlite", "not (a in (1, 2))", {}),
        ("sqlite", "a <> 3", {}),
        ("sqlite", "a > 1 or b > 1", {}),
        ("sqlite", "a is null or b in ('x')", {}),
        ("sqlite", "upper(a) = 'A'", {}),
        ("sqlite", "a like 'x%'", {}),
        ("sqlite", "((((", {}),
        ("postgres", "(day >= '2000-01-01'::date)", {}),
        ("postgres", "(name ~ '^[A-Z]'::text)", {}),
    ],
)
def test_of_a_check_only_what_is_certain_is_taken(dialect: str, check: str, expected: dict[str, Any]) -> None:
    found: dict[str, Any] = {}
    for column, promise in promises(check, dialect):
        found[column] = {**found.get(column, {}), **promise} if isinstance(promise, dict) else promise
    assert found == expected


def sorted_keys(found: Constraints) -> list[ForeignKey]:
    return sorted(found.foreign, key=lambda key: key.columns)


def test_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            create table parents (id integer primary key, k text unique);
            create table pairs (a int, b int, primary key (a, b));
            create table "The Table" (
                id integer primary key, parent int references parents, a int, b int, code text unique,
                status text check (status in ('a', 'b)')) default 'a', n int check (n >= 0), z text, m int,
                unique (z, n), foreign key (a, b) references pairs, constraint c check (m between 0 and 5)
            );
            create unique index partly on "The Table" (m) where m > 3;
            create unique index lowered on "The Table" (lower(z));
            """
        )
    found = Relational(str(file), {}).constraints("The Table")
    assert set(found.unique) == {("code",), ("z", "n")}
    assert sorted_keys(found) == [
        ForeignKey(("a", "b"), "pairs", ("a", "b")),
        ForeignKey(("parent",), "parents", ("id",)),
    ]
    assert found.allowed == {"status": ("a", "b)")}
    assert found.bounds == {"n": {"ge": 0}, "m": {"ge": 0, "le": 5}}
    assert Relational(str(file), {}).constraints("parents").unique == (("k",),)


def test_sqlite_names_in_another_case_than_the_tables_have_are_theirs(tmp_path: Path) -> None:
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            create table Artist (ArtistId integer primary key);
            create table Album (
                AlbumId integer primary key, ArtistId int, Status text check (STATUS in ('a', 'b')),
                foreign key (artistid) references artist (ARTISTID)
            );
            """
        )
    found = Relational(str(file), {}).constraints("Album")
    assert found.foreign == (ForeignKey(("ArtistId",), "Artist", ("ArtistId",)),)
    assert found.allowed == {"Status": ("a", "b")}


def test_postgresql(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            """
            create schema hr;
            create type mood as enum ('sad', 'it''s ok');
            create domain rated as mood;
            create table hr.people (id int primary key, boss int references hr.people);
            create table pairs (a int, b int, primary key (a, b));
            create table "The Table" (
                id int primary key, person int references hr.people (id), a int, b int, code text unique, feels mood,
                rates rated, status varchar(9) check (status in ('a', 'b')), n int check (n >= 0), z text,
                unique (z, n), foreign key (a, b) references pairs
            );
            create unique index partly on "The Table" (n) where n > 3;
            create unique index lowered on "The Table" (lower(z));
            create unique index more on "The Table" (a) include (b);
            create view seen as select * from "The Table";
            """
        )
    database = Relational(postgres_url, {})
    found = database.constraints("The Table")
    assert set(found.unique) == {("code",), ("z", "n"), ("a",)}
    assert sorted_keys(found) == [
        ForeignKey(("a", "b"), "pairs", ("a", "b")),
        ForeignKey(("person",), "hr.people", ("id",)),
    ]
    assert found.allowed == {
        "feels": ("sad", "it's ok"),
        "rates": ("sad", "it's ok"),
        "status": ("a", "b"),
    }
    assert found.bounds == {"n": {"ge": 0}}
    assert database.constraints("hr.people").foreign == (ForeignKey(("boss",), "hr.people", ("id",)),)
    assert database.constraints("seen").foreign == ()


@pytest.mark.skipif(
    not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
    reason="no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
)
@pytest.mark.servers
def test_mariadb() -> None:
    with running_mariadb() as server:
        run_mysql(f"{server}/mysql", "create database promising")
        run_mysql(
            f"{server}/promising",
            "create table parents (id int primary key)",
            "create table pairs (a int, b int, primary key (a, b))",
            "create table others (n int, constraint c check (n > 7))",
            """
            create table `The Table` (
                id int primary key, parent int, a int, b int, code varchar(9) unique, feels enum('sad','it''s ok'),
                status varchar(9) check (status in ('a', 'b')), n int check (n >= 0), z varchar(40),
                m int, unique (z, n), unique (z(3)), foreign key (parent) references parents (id),
                foreign key (a, b) references pairs (a, b), constraint c check (m between 0 and 5)
            )
            """,
        )
        found = Relational(f"{server}/promising", {}).constraints("The Table")
    assert set(found.unique) == {("code",), ("z", "n")}
    assert sorted_keys(found) == [
        ForeignKey(("a", "b"), "pairs", ("a", "b")),
        ForeignKey(("parent",), "parents", ("id",)),
    ]
    assert found.allowed == {"feels": ("sad", "it's ok"), "status": ("a", "b")}
    assert found.bounds == {"n": {"ge": 0}, "m": {"ge": 0, "le": 5}}
