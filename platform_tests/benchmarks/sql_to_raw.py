"""SQL to raw: a table of PostgreSQL and one of SQLite, of 7 columns, by our load (the ledger's commit included) beside
DuckDB's own scanner and dlt. How they are timed is `measure`'s work.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from platform_tests.benchmarks.measure import Case, Measured, Say, measure
from platform_tests.benchmarks.places import count, lakehouse_in, plain_duckdb
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.servers import fresh_database, running_postgres

from data_platform.ingestion.load import load_table
from data_platform.ingestion.sql.reach import Cursor
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import attach_url, open_lakehouse

HERE = "platform_tests.benchmarks.sql_to_raw"

POSTGRESQL = """
create table orders (
    id bigint primary key, customer_id integer not null, amount numeric(12, 2) not null, quantity smallint not null,
    status text not null, note text, changed_at timestamptz not null
);
insert into orders
select n, 1 + n * 7919 % 100000, (n * 104729 % 1000000) / 100.0, 1 + n % 9, (array['open', 'paid', 'sent'])[1 + n % 3],
    case when n % 4 > 0 then 'note ' || md5(n::text) end, timestamptz '2013-01-01Z' + n * interval '1 second'
from generate_series(1::bigint, ROWS) as n;
create index on orders (changed_at);
"""

SQLITE = """
create table orders (
    id integer primary key, customer_id integer not null, amount real not null, quantity integer not null,
    status text not null, note text, changed_at text not null
);
insert into orders
with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < ROWS)
select n, 1 + n * 7919 % 100000, (n * 104729 % 1000000) / 100.0, 1 + n % 9,
    case n % 3 when 0 then 'open' when 1 then 'paid' else 'sent' end,
    case when n % 4 > 0 then 'note ' || hex(n * 104729) || hex(n * 7919) end,
    strftime('%Y-%m-%dT%H:%M:%SZ', 1356998400 + n, 'unixepoch')
from numbers;
"""


def postgresql(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """The table as a whole, and read for the first time by its cursor."""
    with running_postgres() as server, fresh_database(server) as url:
        say("filling PostgreSQL")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(POSTGRESQL.replace("ROWS", str(scale.postgresql)).encode())
            connection.execute("vacuum analyze orders")
        source = {"url": url, "scanner": "postgres"}
        cases = {
            "ours": Case(f"{HERE}:ours", {"url": url}),
            "ours by cursor": Case(f"{HERE}:ours", {"url": url, "cursor": "changed_at"}),
            "DuckDB": Case(f"{HERE}:duckdb", source),
            "DuckDB into DuckLake": Case(f"{HERE}:ducklake", source),
            "dlt": Case(f"{HERE}:dlt", {"url": url.replace("postgresql://", "postgresql+psycopg://")}),
            "dlt from Arrow": Case(f"{HERE}:dlt_from_arrow", {"url": url}),
        }
        measured = measure(cases, scratch, scale.repeats, say)
        yield from _rows("postgresql", f"PostgreSQL, {scale.postgresql:,} rows", measured, scale.postgresql)


def sqlite(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """The same of SQLite, whose columns promise no type: ours land as text, exactly."""
    path = scratch / "source.sqlite"
    say("filling SQLite")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE.replace("ROWS", str(scale.sqlite)))
        connection.execute("create index changed on orders (changed_at)")
        connection.commit()
    url = f"sqlite://{path}"
    source = {"url": str(path), "scanner": "sqlite"}
    cases = {
        "ours": Case(f"{HERE}:ours", {"url": url}),
        "ours by cursor": Case(f"{HERE}:ours", {"url": url, "cursor": "changed_at"}),
        "DuckDB": Case(f"{HERE}:duckdb", source),
        "DuckDB into DuckLake": Case(f"{HERE}:ducklake", source),
        "dlt": Case(f"{HERE}:dlt", {"url": f"sqlite:///{path}"}),
    }
    measured = measure(cases, scratch, scale.repeats, say)
    yield from _rows("sqlite", f"SQLite, {scale.sqlite:,} rows", measured, scale.sqlite)


def _rows(benchmark: str, what: str, measured: dict[str, Measured], rows: int) -> Iterator[Row]:
    wrong = {name: taken.rows for name, taken in measured.items() if taken.rows != rows}
    assert not wrong, f"{what}, but these moved others: {wrong}"
    ours, plain = measured["ours"], measured["DuckDB"]
    yield Row(benchmark, what, ours, "DuckDB's scanner into a .duckdb file", plain, 1.0)
    by_cursor = measured["ours by cursor"]
    yield Row(benchmark, f"{what}, in the order of a cursor", by_cursor, "the same, in no order", plain, 1.0)
    yield Row(benchmark, what, ours, "DuckDB's scanner into DuckLake", measured["DuckDB into DuckLake"])
    yield Row(benchmark, what, ours, "dlt's sql_database (pyarrow)", measured["dlt"])
    if "dlt from Arrow" in measured:
        yield Row(benchmark, what, ours, "dlt from ADBC's record batches", measured["dlt from Arrow"])


def ours(folder: str, url: str, cursor: str | None = None) -> Callable[[], int]:
    """Our load into a lakehouse, opened and closed."""
    settings = lakehouse_in(folder)
    given = Cursor(column=cursor) if cursor else None
    table = SqlTable(key=["id"], contract="platform_tests.benchmarks.contracts.Order", cursor=given)
    source = Relational(url, {"orders": table})

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return load_table(lake, "shop", source, "orders", table, run_id="benchmark").rows_landed

    return timed


def duckdb(folder: str, url: str, scanner: str) -> Callable[[], int]:
    """DuckDB's scanner into a table of a plain file."""
    connection = plain_duckdb(Path(folder) / "target.duckdb", f"{scanner}_scanner")

    def timed() -> int:
        connection.execute(f"ATTACH '{url}' AS source (TYPE {scanner}, READ_ONLY)")
        connection.execute("CREATE TABLE orders AS SELECT * FROM source.orders")
        rows = count(connection, "orders")
        connection.close()
        return rows

    return timed


def ducklake(folder: str, url: str, scanner: str) -> Callable[[], int]:
    """DuckDB's scanner into a table of a DuckLake, which is there already."""
    settings = lakehouse_in(folder)
    connection = plain_duckdb(Path(":memory:"), "ducklake", "sqlite_scanner", f"{scanner}_scanner")

    def timed() -> int:
        connection.execute(f"ATTACH '{attach_url(settings)}' AS lake (DATA_PATH '{settings.data}')")
        connection.execute(f"ATTACH '{url}' AS source (TYPE {scanner}, READ_ONLY)")
        connection.execute("CREATE TABLE lake.orders AS SELECT * FROM source.orders")
        rows = count(connection, "lake.orders")
        connection.close()
        return rows

    return timed


def dlt(folder: str, url: str) -> Callable[[], int]:
    """dlt's own source for databases, in Arrow."""
    pipeline = _pipeline(folder)
    from dlt.sources.sql_database import sql_table

    def timed() -> int:
        return _run(pipeline, sql_table(credentials=url, table="orders", backend="pyarrow", chunk_size=100_000))

    return timed


def dlt_from_arrow(folder: str, url: str) -> Callable[[], int]:
    """dlt given the record batches of the driver that ours reads by."""
    pipeline = _pipeline(folder)
    import adbc_driver_postgresql.dbapi as driver
    import dlt as library

    @library.resource(name="orders")
    def orders() -> Iterator[Any]:
        with driver.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("select id, customer_id, amount::float8, quantity, status, note, changed_at from orders")
            yield from cursor.fetch_record_batch()

    return lambda: _run(pipeline, orders)


def _pipeline(folder: str) -> Any:
    os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"})
    import dlt as library

    target = library.destinations.duckdb(f"{folder}/target.duckdb")
    return library.pipeline("benchmark", pipelines_dir=f"{folder}/dlt", destination=target, dataset_name="raw")


def _run(pipeline: Any, resource: Any) -> int:
    pipeline.run(resource)
    return sum(
        rows
        for step in [pipeline.last_trace.last_normalize_info]
        for table, rows in step.row_counts.items()
        if table == "orders"
    )
