"""Reading: any table, as it is or as it was at a version or a time, and the list of snapshots. Nothing here writes."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.tables import Table


@dataclass(frozen=True)
class Snapshot:
    """One committed version of the whole lakehouse."""

    snapshot_id: int
    committed_at: datetime
    changes: Mapping[str, Any]


def tables(lake: Lakehouse) -> list[Table]:
    """All tables and views of the lakehouse, by schema and name."""
    rows = lake.connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = $1 "
        "UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal "
        "ORDER BY ALL",
        [CATALOG],
    ).fetchall()
    return [Table(*row) for row in rows]


def find_table(lake: Lakehouse, name: str) -> Table:
    """The table that a person means by `schema.table` or by an asset's key `layer/source/table`.

    Raises PlatformError, naming the closest tables, if there is none.
    """
    parts = name.replace("/", ".").split(".")
    table = Table("_".join(parts[:-1]), parts[-1])
    existing = tables(lake)
    if table in existing:
        return table
    names = [str(one) for one in existing]
    close = difflib.get_close_matches(str(table), names, n=5, cutoff=0.4) or names[:20]
    raise PlatformError(f"There is no table {name}. The closest: {', '.join(close) or 'none: the lakehouse is empty'}.")


def at_clause(at: str | None) -> str:
    """`AT (...)` for a version number or a time in ISO 8601; empty for now. Raises PlatformError for anything else."""
    if at is None:
        return ""
    if at.isdecimal():
        return f" AT (VERSION => {int(at)})"
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise PlatformError(
            f"{at!r} is neither a version nor a time. Give a snapshot's number (`dp snapshots` lists them) "
            "or a time such as 2026-01-31T08:00:00+00:00."
        ) from None
    return f" AT (TIMESTAMP => TIMESTAMPTZ '{moment.isoformat()}')"


def read_table(lake: Lakehouse, name: str, at: str | None = None) -> duckdb.DuckDBPyRelation:
    """A table, lazily, as it is now or `at` a version or time.

    Raises PlatformError if there is no such table, or none at that version.
    """
    table = find_table(lake, name)
    query = f"SELECT * FROM {table.sql}{at_clause(at)}"
    try:
        return lake.connection.sql(query)
    except duckdb.Error as error:
        raise PlatformError(f"{table} cannot be read at {at or 'its latest version'}: {_first_line(error)}") from None


def run_query(lake: Lakehouse, query: str) -> duckdb.DuckDBPyRelation | None:
    """What a person's own SQL gives; None for a statement without a result. Raises PlatformError if it is wrong."""
    try:
        return lake.connection.sql(query)
    except duckdb.Error as error:
        raise PlatformError(str(error)) from None


def snapshots(lake: Lakehouse, limit: int = 50) -> list[Snapshot]:
    """The latest snapshots, newest first."""
    rows = lake.connection.execute(
        f"SELECT snapshot_id, snapshot_time, changes FROM ducklake_snapshots('{CATALOG}') "
        "ORDER BY snapshot_id DESC LIMIT ?",
        [limit],
    ).fetchall()
    return [Snapshot(*row) for row in rows]


def current_snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of the latest snapshot."""
    row = connection.execute(f"SELECT id FROM ducklake_current_snapshot('{CATALOG}')").fetchone()
    return int(row[0]) if row is not None else 0


def row_count(lake: Lakehouse, table: Table, at: str = "") -> int:
    """How many rows a table has, now or at an `at_clause`."""
    row = lake.connection.execute(f"SELECT count(*) FROM {table.sql}{at}").fetchone()
    return int(row[0]) if row is not None else 0


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
