"""Looks for private data in the clear in everything that a platform writes: every value of every Parquet file, every
row of every SQLite or PostgreSQL database, every byte of every other file."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import polars as pl
import psycopg
from platform_tests.nyc_flights.playing import Played
from psycopg.sql import SQL, Identifier

from nyc_flights.simulator import truth, web
from nyc_flights.simulator.world import clock

CLIENTS = ["192.0.2.", "198.51.100.", "203.0.113."]
"""How the addresses of all clients begin."""

BATCH_BYTES = 64 * 2**20

SOURCES = ("landing", "truth", "extensions", "operations.sqlite", "clock.json")
"""What belongs to the sources, and DuckDB's binaries, in a platform's folder."""


def private(played: Played) -> list[str]:
    """Everything that may not be seen: names, addresses and numbers of passengers, of clients, and the secrets."""
    people = truth.expected_bookings(played.world)
    names = people["passenger_name"].unique().to_list()
    numbers = people["passenger_phone"].unique().to_list()
    visited = [web.clean(played.world.seed, day)["email"] for day in range(1, clock(played.world).day + 1)]
    emails = pl.concat([people["passenger_email"], *visited]).drop_nulls().unique().to_list()
    # In the plain form and as within a URL.
    return [*names, *numbers, *CLIENTS, *emails, *(email.replace("@", "%40") for email in emails), *played.secrets]


def leaks(played: Played, databases: Sequence[str] = ()) -> dict[str, list[str]]:
    """Where something private is found, and what, in the files of a platform and in PostgreSQL `databases`."""
    return search(played.settings.home, private(played), databases)


def search(home: Path, wanted: Sequence[str], databases: Sequence[str] = ()) -> dict[str, list[str]]:
    """Where one of the `wanted` texts is found, and which; as it is, or as JSON writes it."""
    wanted = sorted({form for text in wanted for form in (text, json.dumps(text)[1:-1])})
    found: dict[str, list[str]] = {}
    for texts in batched(everything(home, databases)):
        known = texts.filter(pl.col("text").str.contains_any(wanted, ascii_case_insensitive=True))
        hits = known.with_columns(pl.col("text").str.extract_many(wanted, ascii_case_insensitive=True)).explode("text")
        for place, what in hits.group_by("place").agg(pl.col("text").unique()).iter_rows():
            found[place] = [*found.get(place, []), *what]
    return found


def batched(texts: Iterator[tuple[str, pl.Series]]) -> Iterator[pl.DataFrame]:
    """Texts with their `place`, so many together that the search pays."""
    frames: list[pl.DataFrame] = []
    for place, text in texts:
        frames.append(pl.DataFrame({"place": [place]}).join(text.cast(pl.String).to_frame("text"), how="cross"))
        if sum(frame.estimated_size() for frame in frames) > BATCH_BYTES:
            yield pl.concat(frames)
            frames = []
    if frames:
        yield pl.concat(frames)


def everything(home: Path, databases: Sequence[str]) -> Iterator[tuple[str, pl.Series]]:
    """All texts with the file or the table they stand in."""
    for path in files(home):
        yield from ((str(path.relative_to(home)), text) for text in texts_of(path))
    for url in databases:
        yield from postgresql_texts(url)


def files(home: Path) -> Iterator[Path]:
    """What the platform wrote."""
    for entry in home.iterdir():
        if not entry.name.startswith(SOURCES):
            yield from (path for path in [entry, *entry.rglob("*")] if path.is_file() and path.stat().st_size)


def texts_of(path: Path) -> Iterator[pl.Series]:
    """All that can be read in a file, as texts."""
    with path.open("rb") as file:
        begin = file.read(16)
    if begin.startswith(b"PAR1"):
        for column in pl.read_parquet(path).iter_columns():
            yield in_text(column)
        yield pl.Series([str(pl.read_parquet_metadata(path))])
    elif begin.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
                yield pl.Series([" ".join(map(_plain, row)) for row in rows], dtype=pl.String)
    yield pl.Series([path.read_bytes().decode("utf-8", errors="replace")])


def _plain(value: object) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def in_text(column: pl.Series) -> pl.Series:
    """The values of a column as texts, whatever its type; each once."""
    if column.dtype.is_nested():
        return pl.Series(map(str, column.to_list()), dtype=pl.String)
    return column.cast(pl.String, strict=False).drop_nulls().unique()


def postgresql_texts(url: str) -> Iterator[tuple[str, pl.Series]]:
    """All rows of all tables of a PostgreSQL database."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            rows = connection.execute(SQL("SELECT t::text FROM {} t").format(Identifier(schema, table))).fetchall()
            yield f"{schema}.{table}", pl.Series([row[0] for row in rows], dtype=pl.String)
