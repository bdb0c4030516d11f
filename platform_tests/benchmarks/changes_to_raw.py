"""Changes to raw: inserts of one table of PostgreSQL, of 8 columns, read from its log by our load (the ledger's commit
included) beside a bare reader that counts the messages and looks into none. How they are timed is `measure`'s work.
"""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from platform_tests.benchmarks.measure import Case, Say, measure
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.servers import fresh_database, running_postgres

from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.changes.postgresql.place import to_lsn
from data_platform.ingestion.changes.postgresql.server import LogConnection
from data_platform.ingestion.changes.postgresql.source import PostgresqlChanges
from data_platform.ingestion.load import load_tables
from data_platform.ingestion.sql.source import TIMEOUTS, SqlTable
from data_platform.lakehouse.connect import open_lakehouse

HERE = "platform_tests.benchmarks.changes_to_raw"

A_SECOND = 100_000
"""Changes that are to land in a second."""

TABLE = """
create table orders (
    id bigint primary key, name text, email text, amount numeric(12, 2), quantity int, paid bool, at timestamptz,
    note text
);
create publication bare for table orders;
"""

FILL = """
insert into orders
select n, 'name ' || n, 'u' || n || '@example.com', n * 1.25, n % 1000, n % 2 = 0,
    timestamptz '2013-01-01Z' + n * interval '1 second', 'note ' || md5(n::text)
from generate_series(FIRST::bigint, LAST) as n;
"""
IN_A_TRANSACTION = 10_000

SLOTS = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()"


def postgresql(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """All of them inserted after the slot was made."""
    with running_postgres() as server, fresh_database(server) as url:
        _run(url, TABLE)
        arguments = {"url": url, "rows": scale.changes}
        cases = {"ours": Case(f"{HERE}:ours", arguments), "bare": Case(f"{HERE}:bare", arguments)}
        try:
            measured = measure(cases, scratch, scale.repeats, say)
        finally:
            _run(url, SLOTS)
        what = f"changes of PostgreSQL, {scale.changes:,} inserts"
        ours, bare = measured["ours"], measured["bare"]
        assert ours.rows == bare.rows == scale.changes, f"{ours.rows} and {bare.rows} of {scale.changes}"
        yield Row("postgresql_changes", what, ours, "a bare reader of the same log", bare)
        yield Row("postgresql_changes", f"{what}, to raw", ours, aim=scale.changes / A_SECOND)


def ours(folder: str, url: str, rows: int) -> Callable[[], int]:
    """Our load of what was inserted, by a slot of its own."""
    settings = lakehouse_in(folder)
    tables = {"orders": SqlTable(key=["id"], contract="platform_tests.benchmarks.contracts.Order")}
    source = PostgresqlChanges(url, tables, Changes(), f"ours_{secrets.token_hex(4)}")
    _run(url, "truncate orders")

    def load() -> int:
        with open_lakehouse(settings) as lake:
            return load_tables(lake, "shop", source, "changes", tables, run_id="benchmark")["orders"].rows_landed

    load()
    _fill(url, rows)
    return load


def bare(folder: str, url: str, rows: int) -> Callable[[], int]:
    """The same log, of which each message is taken and counted."""
    slot = f"bare_{secrets.token_hex(4)}"
    _run(url, "truncate orders", f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    _fill(url, rows)

    def timed() -> int:
        log = LogConnection(url, TIMEOUTS, slot, "bare", to_lsn(0), 0, withholds=False)
        count = 0
        while count < rows:
            for message in log.messages(lambda: None):
                count += message[25:26] == b"I"
        log.close()
        return count

    return timed


def _fill(url: str, rows: int) -> None:
    for first in range(1, rows + 1, IN_A_TRANSACTION):
        last = min(first + IN_A_TRANSACTION - 1, rows)
        _run(url, FILL.replace("FIRST", str(first)).replace("LAST", str(last)))


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
