"""Reading: any table, as it is or as it was at a version or a time, and the list of snapshots. Nothing here writes."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.tables import Table, all_tables
from data_platform.redaction import first_line

MAX_VERSION = 2**63 - 1


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


def read_table(lake: Lakehouse, name: str, at: str | None = None) -> duckdb.DuckDBPyRelation:
    """A table, lazily, as it is now or `at` a version or time.

    Raises PlatformError if there is no such table, or none at that version.
    """
    table = find_table(lake, name)
    clause = "" if at is None else f" AT (VERSION => {version_at(lake, table, at)})"
    query = f"SELECT * FROM {table.sql}{clause}"
    try:
        return lake.connection.sql(query)
    except duckdb.Error as error:
        raise PlatformError(f"{table} cannot be read at {at or 'its latest version'}: {first_line(error)}") from None


def version_at(lake: Lakehouse, table: Table, at: str) -> int:
    """The version that a table is to be read at: `at` itself if it is a number, else the last one that was committed by
    that time (ISO 8601; without a zone it is UTC). DuckLake would also take a time, but of several commits at one time
    it takes any, and for one that is still to come whatever is the latest each time that it is asked.

    Raises PlatformError for anything else, for a version that has expired or is still to come, and for a time at which
    one was current that may have expired: DuckLake would show the last one before it that is kept, be it months older.
    """
    moment = None if at.isdecimal() else _moment(at)
    asked = f"id <= {min(int(at), MAX_VERSION)}" if moment is None else f"made <= TIMESTAMPTZ '{moment.isoformat()}'"
    found = lake.connection.execute(
        f"WITH kept AS (SELECT snapshot_id AS id, snapshot_time AS made FROM ducklake_snapshots('{CATALOG}')), "
        f"found AS (SELECT max(id) FILTER ({asked}) AS id, min(id) AS first, max(id) AS last FROM kept) "
        "SELECT id, (SELECT min(id) FROM kept WHERE id > found.id), first, last, (SELECT min(made) FROM kept), "
        "greatest(now(), (SELECT max(made) FROM kept)) FROM found"
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    before, after, first, last, since, now = found
    if moment is None and int(at) > last:
        raise PlatformError(f"{table} cannot be read at {at}: there is no such version yet, the latest is {last}.")
    if moment is not None and moment > now:
        raise PlatformError(f"{table} cannot be read at {at}: that is still to come, it is {_utc(now)} now.")
    if before is not None and (before == int(at) if moment is None else after in (None, before + 1)):
        return int(before)
    if before is None and first == 0:
        raise PlatformError(f"{table} cannot be read at {at}: this lakehouse was made later, at {_utc(since)}.")
    if before is None:
        kept = f"the first that is kept is {first}, of {_utc(since)}"
    else:
        kept = f"of those around it, {before} and {after} are kept"
    raise PlatformError(
        f"{table} cannot be read at {at}: that version has expired. Maintenance keeps versions for 30 days after they "
        f"were replaced, and those that are published; {kept}. `dp snapshots` lists all."
    )


def _moment(at: str) -> datetime:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise PlatformError(
            f"{at!r} is neither a version nor a time. Give a snapshot's number (`dp snapshots` lists them) "
            "or a time such as 2026-01-31T08:00:00+00:00."
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


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
    """How many rows a table has, now or at an `AT (...)`."""
    row = lake.connection.execute(f"SELECT count(*) FROM {table.sql}{at}").fetchone()
    return int(row[0]) if row is not None else 0


def is_kept(lake: Lakehouse, version: int) -> bool:
    """Whether a version of the lakehouse can still be read."""
    query = f"SELECT 1 FROM ducklake_snapshots('{CATALOG}') WHERE snapshot_id = ?"
    return lake.connection.execute(query, [version]).fetchone() is not None
