"""What steps did, as the ledger keeps it: a frozen value for each row, written within the transaction of the step
that it describes. What is asked of these rows is in `queries`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal

import duckdb

from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.sql import quote_all

ENTRIES_KEPT = 100
"""Entries of a position that the row of a load keeps; a first load of a folder moves as many as there are files."""

LoadKind = Literal["rows", "changes", "whole", "reconcile"]
StagingKind = Literal["rows", "whole", "rebuild", "backfill", "replay"]
AuditKind = Literal["step", "build", "full"]
RunStatus = Literal["success", "failure", "canceled"]
AskedBy = Literal["sensor", "schedule", "backfill", "person"]


@dataclass(frozen=True)
class Load:
    """One commit of a load. `kind` says what landed: rows to add, changes with their operations, the whole table, or
    what a reconciliation with the source found to differ.
    `rows_read` = landed + repeated + quarantined. `position` has the entries that moved, `reason` is why it was
    refused, `retired_at` when its rows were deleted from raw, long after a later whole load replaced them. `bytes` are
    those of the files that were written, `bytes_read` those of the rows in memory as the source gave them.
    `cpu_seconds` and `peak_bytes` are as `usage` has them: of all tables that one commit of a reading takes in
    together."""

    source: str
    table: str
    load_id: int
    run_id: str
    kind: LoadKind
    status: Literal["landed", "refused"]
    started_at: datetime
    ended_at: datetime
    rows_read: int = 0
    rows_landed: int = 0
    rows_repeated: int = 0
    rows_quarantined: int = 0
    bytes: int = 0
    position: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    retired_at: datetime | None = None
    bytes_read: int = 0
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Staging:
    """One staging step, of the loads from `load_from` to `load_to`. `rows_read` = inserted + updated + superseded +
    filtered + quarantined + removals (deletes and truncates), as long as the staging function makes at most one row of
    each."""

    source: str
    table: str
    staging_id: int
    run_id: str
    kind: StagingKind
    status: Literal["staged", "refused"]
    started_at: datetime
    ended_at: datetime
    load_from: int
    load_to: int
    rows_read: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    rows_superseded: int = 0
    rows_filtered: int = 0
    rows_quarantined: int = 0
    rows_removals: int = 0
    bytes: int = 0
    reason: str | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Audit:
    """One verdict on a table: of the rows of a staging step (`step`), of a model that was built (`build`), of a whole
    table (`full`). `source` is None for models; `violations` are dataclasses or mappings."""

    kind: AuditKind
    layer: str
    source: str | None
    table: str
    run_id: str
    contract: str | None
    audited_at: datetime
    passed: bool
    rows_checked: int
    rows_failed: int
    violations: Sequence[Any] = ()
    step_id: int | None = None


@dataclass(frozen=True)
class Publication:
    """One model's table replaced or added to. `snapshot_id` is the version that it was computed from, `built_from` is
    the last staging step taken in of each staged table (`source/table`). `started_at` is when the build of all its
    models began, `seconds` how long dbt took for this one and its tests; `rows` is how many the model has then, of
    which `rows_written` are new, in files of `bytes`."""

    publication_id: int
    model: str
    snapshot_id: int
    run_id: str
    published_at: datetime
    rows: int
    built_from: Mapping[str, int] = field(default_factory=dict)
    started_at: datetime | None = None
    seconds: float | None = None
    rows_written: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Run:
    """One run that has ended: of which job, who asked for it (`asker` is the sensor or schedule) and when, when its
    process began (None: never) and when it ended; how many steps ended in it, and how many of these failed."""

    run_id: str
    job: str
    status: RunStatus
    asked_by: AskedBy
    asker: str | None
    asked_at: datetime
    started_at: datetime | None
    ended_at: datetime
    steps: int = 0
    steps_failed: int = 0


def record_load(connection: duckdb.DuckDBPyConnection, *loads: Load) -> None:
    """Write what loads did, within the caller's transaction."""
    _record(connection, "loads", loads)


def record_staging(connection: duckdb.DuckDBPyConnection, staging: Staging) -> None:
    """Write what a staging step did, within the caller's transaction."""
    _record(connection, "stagings", [staging])


def record_audit(connection: duckdb.DuckDBPyConnection, *audits: Audit) -> None:
    """Write verdicts, within the caller's transaction."""
    _record(connection, "audits", audits)


def record_publication(connection: duckdb.DuckDBPyConnection, *publications: Publication) -> None:
    """Write which models were published, within the caller's transaction."""
    _record(connection, "publications", publications)


def record_runs(connection: duckdb.DuckDBPyConnection, *runs: Run) -> None:
    """Write which runs have ended, within the caller's transaction; those that are written already stay as they are."""
    if not runs:
        return
    ids = [run.run_id for run in runs]
    found = f"SELECT run_id FROM {name('runs')} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))"
    known = {row[0] for row in connection.execute(found, [ids]).fetchall()}
    _record(connection, "runs", [run for run in runs if run.run_id not in known])


def record_retirement(
    connection: duckdb.DuckDBPyConnection, source: str, table: str, load_id: int, at: datetime
) -> None:
    """Note that the raw rows of a load were deleted, within the caller's transaction."""
    connection.execute(
        f"UPDATE {name('loads')} SET retired_at = ? WHERE (source, table_name, load_id) = (?, ?, ?)",
        [at, source, table, load_id],
    )


def _record(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Any]) -> None:
    if not rows:
        return
    names = [column.name for column in fields(rows[0])]
    marks = ", ".join(f"({', '.join('?' for _ in names)})" for _ in rows)
    columns = quote_all("table_name" if column == "table" else column for column in names)
    values = [_value(column, getattr(row, column)) for row in rows for column in names]
    connection.execute(f"INSERT INTO {name(table)} ({columns}) VALUES {marks}", values)


def _value(column: str, value: Any) -> Any:
    """A value as it is stored: mappings and sequences as JSON, a long position shortened."""
    if isinstance(value, Mapping):
        return json.dumps(_shortened(value) if column == "position" else dict(value))
    if isinstance(value, list | tuple):
        return json.dumps([asdict(one) if is_dataclass(one) else dict(one) for one in value])  # type: ignore[arg-type]
    return value


def _shortened(position: Mapping[str, str]) -> dict[str, str]:
    entries = list(position.items())
    left_out = len(entries) - ENTRIES_KEPT
    return {**({"...": f"{left_out} more"} if left_out > 0 else {}), **dict(entries[-ENTRIES_KEPT:])}
