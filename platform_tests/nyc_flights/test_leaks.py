"""The search for private data finds what was planted, wherever a platform writes."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import psycopg
from platform_tests.nyc_flights.leaks import search

NAME = "Zoë Yılmaz"


def test_a_name_is_found_in_parquet_in_databases_and_in_text(tmp_path: Path, postgres_url: str) -> None:
    home = tmp_path / "home"
    (home / "lakehouse").mkdir(parents=True)
    nested = pl.Series([[{"value": None}], [{"value": f"by {NAME}"}]], dtype=pl.List(pl.Struct({"value": pl.String})))
    rows = pl.DataFrame({"plain": ["nobody", NAME], "nested": nested})
    rows.select("plain").write_parquet(home / "lakehouse" / "plain.parquet")
    rows.select("nested").write_parquet(home / "lakehouse" / "nested.parquet")
    (home / "log").write_text(json.dumps({"message": f"a run for {NAME} failed"}), encoding="utf-8")
    with closing(sqlite3.connect(home / "catalog.sqlite")) as connection:
        connection.execute("CREATE TABLE statistics (column_id integer, highest text)")
        connection.execute("INSERT INTO statistics VALUES (1, ?)", [NAME])
        connection.commit()
    with psycopg.connect(postgres_url) as server:
        server.execute("CREATE TABLE statistics (column_id integer, highest text)")
        server.execute("INSERT INTO statistics VALUES (1, %s)", [NAME])
    found = search(home, [NAME], [postgres_url])
    assert set(found) == {
        "lakehouse/plain.parquet",
        "lakehouse/nested.parquet",
        "catalog.sqlite",
        "public.statistics",
        "log",
    }
    assert search(home, ["Nobody Else"], [postgres_url]) == {}
