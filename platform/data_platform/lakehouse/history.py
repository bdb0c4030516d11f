"""Reading: any table, as it is or as it was at a version or a time, and the list of snapshots. Nothing here writes."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.tables import Table, all_tables
from data_platform.redaction import first_line


@dataclass(frozen=True)
class Snapshot:
    """One committed version of the whole lakehouse."""

    snapshot_id: int
    committed_at: datetime
    changes: Mapping[str, Any]


def find_table(lake: Lakehouse, name: str) -> Table:
    """The table that a person means by `schema.table` or by an asset's key `layer/source/table`.

    Raises PlatformError, naming the closest tables, if there is none.
    """
    parts = name.replace("/", ".").split(".")
    table = Table("_".join(parts[:-1]), parts[-1])
    existing = all_tables(lake.connection)
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
    clause = at_clause(at)
    if clause:
        _require_kept(lake, table, str(at))
    query = f"SELECT * FROM {table.sql}{clause}"
    try:
        return lake.connection.sql(query)
    except duckdb.Error as error:
        raise PlatformError(f"{table} cannot be read at {at or 'its latest version'}: {first_line(error)}") from None


def _require_kept(lake: Lakehouse, table: Table, at: str) -> None:
    """Raise PlatformError for a version that has expired or is still to come, and for a time at which one was current
    that may have: DuckLake would show the last one before it that is kept, be it months older."""
    by_number = at.isdecimal()
    asked = "snapshot_id <= $1::BIGINT" if by_number else "snapshot_time <= $1::TIMESTAMPTZ"
    found = lake.connection.execute(
        f"SELECT max(snapshot_id) FILTER ({asked}), min(snapshot_id) FILTER (NOT ({asked})), min(snapshot_id), "
        f"max(snapshot_id), min(snapshot_time) FROM ducklake_snapshots('{CATALOG}')",
        [int(at) if by_number else datetime.fromisoformat(at).isoformat()],
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    before, after, first, last, since = found
    if by_number and int(at) > last:
        raise PlatformError(f"{table} cannot be read at {at}: there is no such version yet, the latest is {last}.")
    if before is not None and (before == int(at) if by_number else after in (None, before + 1)):
        return
    if before is None:
        kept = f"the first that is kept is {first}, of {since:%Y-%m-%d %H:%M:%S} UTC"
    else:
        kept = f"of those around it, {before} and {after} are kept"
    raise PlatformError(
        f"{table} cannot be read at {at}: that version has expired. Maintenance keeps versions for 30 days after they "
        f"were replaced, and those that are published; {kept}. `dp snapshots` lists all."
    )


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


def is_kept(lake: Lakehouse, version: int) -> bool:
    """Whether a version of the lakehouse can still be read."""
    query = f"SELECT 1 FROM ducklake_snapshots('{CATALOG}') WHERE snapshot_id = ?"
    return lake.connection.execute(query, [version]).fetchone() is not None
