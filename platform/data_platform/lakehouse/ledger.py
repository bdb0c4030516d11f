"""The platform's own memory, in the schema `platform` of the lakehouse: how far each table was loaded and staged,
what each step did, what was audited and published. Written only within the transaction of the step it describes.

A *head* numbers the steps of one table in one layer; it is kept among the positions, under the partition `STEP`.
Moving it from n to n+1 is the compare-and-swap that keeps two runs which started from the same position from both
landing: `advance` finds the head already moved and refuses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.transaction import ConcurrentStepError, commit_locked

SCHEMA = "platform"

STEP = "#step"
"""The partition under which a position keeps the number of the table's last step."""

TABLES = {
    "positions": (
        "layer VARCHAR, source VARCHAR, table_name VARCHAR, partition VARCHAR, value VARCHAR, moved_at TIMESTAMPTZ"
    ),
    "loads": (
        "source VARCHAR, table_name VARCHAR, load_id BIGINT, run_id VARCHAR, kind VARCHAR, status VARCHAR, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, rows_read BIGINT, rows_landed BIGINT, rows_repeated BIGINT, "
        "rows_quarantined BIGINT, bytes BIGINT, position VARCHAR, drift VARCHAR, reason VARCHAR"
    ),
    "stagings": (
        "source VARCHAR, table_name VARCHAR, staging_id BIGINT, run_id VARCHAR, kind VARCHAR, status VARCHAR, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, load_from BIGINT, load_to BIGINT, rows_read BIGINT, "
        "rows_inserted BIGINT, rows_updated BIGINT, rows_deleted BIGINT, rows_superseded BIGINT, rows_filtered BIGINT, "
        "rows_quarantined BIGINT, rows_removals BIGINT, bytes BIGINT, reason VARCHAR"
    ),
    "audits": (
        "layer VARCHAR, source VARCHAR, table_name VARCHAR, step_id BIGINT, run_id VARCHAR, contract VARCHAR, "
        "audited_at TIMESTAMPTZ, passed BOOLEAN, rows_checked BIGINT, rows_failed BIGINT, violations VARCHAR, "
        "kind VARCHAR"
    ),
    "publications": (
        "publication_id BIGINT, model VARCHAR, snapshot_id BIGINT, run_id VARCHAR, published_at TIMESTAMPTZ, "
        "rows BIGINT, built_from VARCHAR"
    ),
    "pins": "name VARCHAR, snapshot_id BIGINT, reason VARCHAR, pinned_at TIMESTAMPTZ",
}
"""The ledger's tables. Figures that one row of `loads` or `stagings` gives add up: what was read is what was landed,
repeated and quarantined; what was staged from is what was inserted, updated, superseded, filtered, quarantined, and the
removals (deletes and truncates)."""


OF_TABLE = "(layer, source, table_name) = (?, ?, ?)"
"""Compared as a row: DuckLake looks up file statistics for each column compared by itself, which costs more than
reading a ledger of this size."""


MAINTENANCE = ("platform", "maintenance", "files")
"""The positions' key of the maintenance counter: see `Head.maintained`."""


@dataclass(frozen=True)
class Head:
    """Where one table stands in one layer: the number of its last step, and the position that step reached.

    `maintained` counts how often maintenance touched the files of a SQLite catalog. DuckDB reads SQLite without
    isolation, so a query that runs at the moment in which maintenance replaces files may miss rows: what a step
    read across it cannot be relied on (PostgreSQL isolates; there it stays 0).
    """

    layer: str
    source: str
    table: str
    number: int
    position: Mapping[str, str]
    maintained: int = 0


def name(table: str) -> str:
    """The quoted name of a ledger table."""
    return quote(CATALOG, SCHEMA, table)


def ensure_ledger(lake: Lakehouse) -> None:
    """Create the ledger's tables that do not exist yet."""
    if exists(lake):
        return

    def create(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, SCHEMA)}")
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name(table)} ({columns})")

    with writer_lock(lake.settings):
        # For what DuckLake writes itself (merged files, dbt's tables); its defaults are larger and no faster to read.
        for option, value in (("parquet_compression", "zstd"), ("parquet_version", "2")):
            lake.connection.execute(f"CALL ducklake_set_option('{CATALOG}', '{option}', '{value}')")
        commit_locked(lake, create)


def exists(lake: Lakehouse) -> bool:
    """Whether anything was ever loaded here. Its tables are created together, so one answers for all; the list of all
    tables would take twenty times as long."""
    try:
        lake.connection.execute(f"SELECT 1 FROM {name('positions')} LIMIT 0")
    except duckdb.CatalogException:
        return False
    return True


def head(lake: Lakehouse, layer: str, source: str, table: str) -> Head:
    """Read where a table stands; number 0 and an empty position if it was never loaded. Creates the ledger."""
    try:
        return _read_head(lake.connection, layer, source, table)
    except duckdb.CatalogException:
        ensure_ledger(lake)
        return Head(layer, source, table, 0, {})


def _read_head(connection: duckdb.DuckDBPyConnection, layer: str, source: str, table: str) -> Head:
    rows = connection.execute(
        f"SELECT layer, partition, value FROM {name('positions')} "
        "WHERE (layer, source, table_name) IN ((?, ?, ?), (?, ?, ?))",
        [layer, source, table, *MAINTENANCE],
    ).fetchall()
    position = {partition: value for of, partition, value in rows if of == layer}
    maintained = next((int(value) for of, _, value in rows if of == MAINTENANCE[0]), 0)
    return Head(layer, source, table, int(position.pop(STEP, "0")), position, maintained)


def advance(
    connection: duckdb.DuckDBPyConnection,
    start: Head,
    position: Mapping[str, str],
    at: datetime,
    *,
    relies_on_reads: bool = True,
) -> Head:
    """Move the head by one step and its position's entries to `position`, within the caller's transaction.

    Raises ConcurrentStepError if the head is no longer where `start` found it: another run landed first. So it does
    if the step relies on what it read from the lakehouse, and maintenance replaced files meanwhile.
    """
    key = [start.layer, start.source, start.table]
    now = _read_head(connection, *key)
    if now.number != start.number:
        raise ConcurrentStepError(
            f"{start.layer} {start.source}/{start.table} stands at step {now.number}, this run started from "
            f"{start.number}: another run landed first. Nothing was changed; what is new is taken up by the next run."
        )
    if relies_on_reads and now.maintained != start.maintained:
        raise ConcurrentStepError(
            f"Maintenance replaced files while {start.layer} {start.source}/{start.table} was reading them. "
            "Nothing was changed: run it again."
        )
    moved = {partition: value for partition, value in position.items() if start.position.get(partition) != value}
    entries = {STEP: str(start.number + 1), **moved}
    if start.number:
        connection.execute(
            f"DELETE FROM {name('positions')} WHERE {OF_TABLE} AND partition IN (SELECT unnest(?::VARCHAR[]))",
            [*key, list(entries)],
        )
    connection.execute(
        f"INSERT INTO {name('positions')} SELECT ?, ?, ?, unnest(?), unnest(?), ?",
        [*key, list(entries), list(entries.values()), at],
    )
    return replace(now, number=now.number + 1, position={**start.position, **moved})


def count_maintenance(connection: duckdb.DuckDBPyConnection) -> None:
    """Count one more replacement of files, within the caller's transaction."""
    last = connection.execute(
        f"SELECT coalesce(max(value::BIGINT), 0) FROM {name('positions')} WHERE {OF_TABLE}", list(MAINTENANCE)
    ).fetchone()
    connection.execute(f"DELETE FROM {name('positions')} WHERE {OF_TABLE}", list(MAINTENANCE))
    connection.execute(
        f"INSERT INTO {name('positions')} VALUES (?, ?, ?, ?, ?, ?)",
        [*MAINTENANCE, STEP, str((last[0] if last else 0) + 1), datetime.now(UTC)],
    )


def record(connection: duckdb.DuckDBPyConnection, table: str, row: Mapping[str, Any]) -> None:
    """Write one row of the ledger, within the caller's transaction. Dictionaries and lists are stored as JSON text."""
    values = [json.dumps(value) if isinstance(value, dict | list) else value for value in row.values()]
    columns = ", ".join(quote(column) for column in row)
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO {name(table)} ({columns}) VALUES ({marks})", values)
