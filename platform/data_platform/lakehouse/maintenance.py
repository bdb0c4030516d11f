"""Keeping the lakehouse small and quick: merge small files, expire old snapshots, delete what nothing refers to.
When it runs is the schedule's business (`components.maintenance`).

Snapshots that a published view or a pin stands on are kept whatever their age. On a SQLite catalog a query that runs
at the very moment in which files are replaced may miss rows (see `ledger.Head`): steps notice and refuse; for people's
queries, run it at a quiet time, or keep the catalog on PostgreSQL.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.sql import literal

KEEP_SNAPSHOTS = timedelta(days=30)
KEEP_FILES = timedelta(days=1)
"""No step and no query takes longer than a day."""

SMALL_BYTES = 16 * 2**20
REWRITE_ABOVE = 0.25
"""The share of deleted rows above which a file that is not small is written afresh."""

METADATA = f"__ducklake_metadata_{CATALOG}"
"""DuckLake's own name for its catalog's tables."""


@dataclass(frozen=True)
class Maintained:
    """What maintenance did."""

    files_merged: int
    snapshots_expired: int
    files_deleted: int
    orphans_deleted: int


def maintain(
    lake: Lakehouse, *, keep_snapshots: timedelta = KEEP_SNAPSHOTS, keep_files: timedelta = KEEP_FILES
) -> Maintained:
    """Merge small files, expire snapshots older than `keep_snapshots`, delete files that nothing refers to any more.

    Files younger than `keep_files` stay: a query that began before the merge still reads the old ones, and a file
    that no table names may belong to a step under way.
    """
    ledger.ensure_ledger(lake)
    connection = lake.connection
    with writer_lock(lake.settings):
        connection.execute(f"CALL ducklake_flush_inlined_data('{CATALOG}')")
        merged = merge_files(lake)
        now = datetime.now(UTC)
        expired = expire_snapshots(lake, now - keep_snapshots)
        old = f"TIMESTAMPTZ '{(now - keep_files).isoformat()}'"
        deleted = connection.execute(f"CALL ducklake_cleanup_old_files('{CATALOG}', older_than => {old})").fetchall()
        orphans = connection.execute(
            f"CALL ducklake_delete_orphaned_files('{CATALOG}', older_than => {old})"
        ).fetchall()
    return Maintained(merged, expired, len(deleted), len(orphans))


def merge_files(lake: Lakehouse) -> int:
    """Rewrite files without their deleted rows, merge adjacent small files; return how many files were replaced.

    DuckLake does not merge files that have deletes. So a table of small files is rewritten whatever little was
    deleted, a large one only where it pays.
    """
    connection = lake.connection
    deleted_from = connection.execute(
        "SELECT s.schema_name, t.table_name, t.file_size_bytes / t.file_count "
        f"FROM ducklake_table_info('{CATALOG}') AS t JOIN {METADATA}.ducklake_schema AS s USING (schema_id) "
        "WHERE t.delete_file_count > 0 AND t.file_count > 0"
    ).fetchall()
    replaced = 0
    for schema, table, mean_bytes in deleted_from:
        threshold = 0.0 if mean_bytes < SMALL_BYTES else REWRITE_ABOVE
        replaced += _replaced(
            connection,
            f"CALL ducklake_rewrite_data_files('{CATALOG}', {literal(table)}, schema => {literal(schema)}, "
            f"delete_threshold => {threshold})",
        )
    return replaced + _replaced(connection, f"CALL ducklake_merge_adjacent_files('{CATALOG}')")


def _replaced(connection: duckdb.DuckDBPyConnection, call: str) -> int:
    return sum(int(row[2]) for row in connection.execute(call).fetchall())


def expire_snapshots(lake: Lakehouse, before: datetime) -> int:
    """Expire snapshots committed before a time, except the current one and those that are published or pinned."""
    connection = lake.connection
    kept = {one.snapshot_id for one in ledger.published(lake).values()} | {current_snapshot(connection)}
    kept |= ledger.pinned_snapshots(lake)
    old = connection.execute(
        f"SELECT snapshot_id FROM ducklake_snapshots('{CATALOG}') WHERE snapshot_time < ?", [before]
    ).fetchall()
    versions = [row[0] for row in old if row[0] not in kept]
    if versions:
        connection.execute(f"CALL ducklake_expire_snapshots('{CATALOG}', versions => {versions})")
    return len(versions)
