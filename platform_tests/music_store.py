"""A music store such as every company has one: tables that refer to each other and to themselves, keys of two columns,
money, dates, e-mail addresses, an enumeration and a table without a key. The same rows in a SQLite, PostgreSQL
or MariaDB database, as CSV files, and as what an API answers.
"""

import csv
import re
import sqlite3
from pathlib import Path
from typing import Any

import psycopg

SCHEMA = """
create table artists (artist_id {int} primary key, name {text} not null);
create table albums (
    album_id {int} primary key, title {text} not null, artist_id {int} not null references artists (artist_id)
);
create table genres (genre_id {int} primary key, name {text} not null unique);
create table tracks (
    track_id {int} primary key, name {text} not null, album_id {int} references albums (album_id),
    genre_id {int} references genres (genre_id), milliseconds {int} not null check (milliseconds > 0),
    unit_price numeric(10, 2) not null check (unit_price >= 0)
);
create table employees (
    employee_id {int} primary key, last_name {text} not null, title {text}, reports_to {int}
    references employees (employee_id), hired_on {date}
);
create table customers (
    customer_id {int} primary key, first_name {text} not null, email {text} not null unique, country {text},
    postal_code {text}, support_rep_id {int} references employees (employee_id)
);
create table invoices (
    invoice_id {big} primary key, customer_id {int} not null references customers (customer_id),
    invoiced_at {instant} not null, status {text} not null check (status in ('open', 'paid', 'void')),
    total numeric(10, 2) not null
);
create table invoice_lines (
    invoice_id {big} not null references invoices (invoice_id), line {int} not null,
    track_id {int} not null references tracks (track_id), unit_price numeric(10, 2) not null, quantity {int} not null,
    primary key (invoice_id, line)
);
create table playlist_track (
    playlist_id {int} not null, track_id {int} not null references tracks (track_id),
    primary key (playlist_id, track_id)
);
create table news (headline {text}, seen {int});
"""

SQLITE = {name: name for name in ("text", "date")} | {"int": "integer", "big": "bigint", "instant": "timestamp"}
POSTGRES = {"text": "text", "date": "date", "int": "integer", "big": "bigint", "instant": "timestamptz"}

MARIADB = {"text": "varchar(80)", "date": "date", "int": "integer", "big": "bigint", "instant": "datetime"}

FIRST_INVOICE = 1_745_678_901_234_567_890

ROWS: dict[str, list[tuple[Any, ...]]] = {
    "artists": [(number, f"Artist {number}") for number in range(1, 11)],
    "albums": [(number, f"Album {number % 12}", 1 + number % 10) for number in range(1, 21)],
    "genres": [(1, "Rock"), (2, "Jazz"), (3, "Fado")],
    "tracks": [
        (
            number,
            f"Track {number % 70}",
            1 + number % 20,
            1 + number % 3,
            180_000 + number,
            ("0.99", "1.99")[number % 2],
        )
        for number in range(1, 101)
    ],
    "employees": [
        (1, "Adams", "General Manager", None, "2002-08-14"),
        (2, "Edwards", "Sales Manager", 1, "2002-05-01"),
        (3, "Peacock", "Sales Agent", 2, "2002-04-01"),
        (4, "Park", "Sales Agent", 2, None),
    ],
    "customers": [
        (number, f"Name {number}", f"someone{number}@example.com", ("BR", "DE", None)[number % 3], f"{number:05d}", 3)
        for number in range(1, 31)
    ],
    "invoices": [
        (
            FIRST_INVOICE + number,
            1 + number % 30,
            f"2026-01-{1 + number % 28:02d}T08:00:00Z",
            ("open", "paid", "void")[number % 3],
            f"{number}.9{number % 10}",
        )
        for number in range(50)
    ],
    "invoice_lines": [
        (FIRST_INVOICE + number, line, 1 + (number + line) % 100, "0.99", 1) for number in range(50) for line in (1, 2)
    ],
    "playlist_track": [(playlist, track) for playlist in (1, 2, 3) for track in range(1, 41)],
    "news": [("Sale", 1), ("Sale", 1), ("New albums", 2)],
}

COLUMNS = {
    "artists": "artist_id name",
    "albums": "album_id title artist_id",
    "genres": "genre_id name",
    "tracks": "track_id name album_id genre_id milliseconds unit_price",
    "employees": "employee_id last_name title reports_to hired_on",
    "customers": "customer_id first_name email country postal_code support_rep_id",
    "invoices": "invoice_id customer_id invoiced_at status total",
    "invoice_lines": "invoice_id line track_id unit_price quantity",
    "playlist_track": "playlist_id track_id",
    "news": "headline seen",
}

KEYS = {
    "artists": ["artist_id"],
    "albums": ["album_id"],
    "genres": ["genre_id"],
    "tracks": ["track_id"],
    "employees": ["employee_id"],
    "customers": ["customer_id"],
    "invoices": ["invoice_id"],
    "invoice_lines": ["invoice_id", "line"],
    "playlist_track": ["playlist_id", "track_id"],
    "news": [],
}
"""The key of each table, as its schema or its rows show it."""

REFERENCES = {
    ("albums", "artist_id"): "artists.artist_id",
    ("tracks", "album_id"): "albums.album_id",
    ("tracks", "genre_id"): "genres.genre_id",
    ("employees", "reports_to"): "employees.employee_id",
    ("customers", "support_rep_id"): "employees.employee_id",
    ("invoices", "customer_id"): "customers.customer_id",
    ("invoice_lines", "invoice_id"): "invoices.invoice_id",
    ("invoice_lines", "track_id"): "tracks.track_id",
    ("playlist_track", "track_id"): "tracks.track_id",
}


def records(table: str) -> list[dict[str, Any]]:
    """The rows of a table as an API gives them: money as numbers."""
    names = COLUMNS[table].split()
    money = ("unit_price", "total")
    return [
        {name: float(value) if name in money else value for name, value in zip(names, row, strict=True)}
        for row in ROWS[table]
    ]


def in_sqlite(file: Path) -> str:
    """A SQLite file with the store; its path."""
    with sqlite3.connect(file) as connection:
        connection.executescript(SCHEMA.format(**SQLITE))
        for table, rows in ROWS.items():
            connection.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)
    return str(file)


def in_postgresql(url: str) -> str:
    """The store in a PostgreSQL database; its URL."""
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in SCHEMA.format(**POSTGRES).split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        for table, rows in ROWS.items():
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"insert into {table} values ({marks})", rows)
    return url


def mariadb_statements() -> list[str]:
    """What makes the store in an empty MariaDB database."""

    def literal(value: Any) -> str:
        if value is None or isinstance(value, int):
            return "null" if value is None else str(value)
        return "'" + re.sub(r"T([0-9:]{8})Z$", r" \1", value) + "'"

    inserts = [
        f"insert into {table} values " + ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
        for table, rows in ROWS.items()
    ]
    made = [one for one in SCHEMA.format(**MARIADB).split(";\n") if one.strip()]
    return [*made, *inserts]


def as_csv(folder: Path) -> str:
    """A folder with a CSV file a table; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in ROWS.items():
        with (folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS[table].split())
            writer.writerows(rows)
    return str(folder)
