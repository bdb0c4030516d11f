"""Keeping the lakehouse small and quick: merge small files, expire old snapshots, delete what nothing refers to.
When it runs is the schedule's business (`components.maintenance`).

Snapshots that a published view or a pin stands on are kept whatever their age.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.publish import published_snapshots
from data_platform.lakehouse.transaction import writer_lock

KEEP_SNAPSHOTS = timedelta(days=30)
KEEP_ORPHANS = timedelta(days=1)
"""A file that no table names may belong to a step under way; no step takes a day."""


@dataclass(frozen=True)
class Maintained:
    """What maintenance did."""

    files_merged: int
    snapshots_expired: int
    files_deleted: int
    orphans_deleted: int


def maintain(
    lake: Lakehouse, *, keep_snapshots: timedelta = KEEP_SNAPSHOTS, keep_orphans: timedelta = KEEP_ORPHANS
) -> Maintained:
    """Merge small files, expire snapshots older than `keep_snapshots`, delete their files and orphaned ones."""
    ledger.ensure_ledger(lake)
    now = datetime.now(UTC)
    connection = lake.connection
    with writer_lock(lake.settings):
        connection.execute(f"CALL ducklake_flush_inlined_data('{CATALOG}')")
        merged = connection.execute(f"CALL ducklake_merge_adjacent_files('{CATALOG}')").fetchall()
        expired = expire_snapshots(lake, now - keep_snapshots)
        deleted = connection.execute(f"CALL ducklake_cleanup_old_files('{CATALOG}', cleanup_all => true)").fetchall()
        orphans = connection.execute(
            f"CALL ducklake_delete_orphaned_files('{CATALOG}', older_than => TIMESTAMPTZ "
            f"'{(now - keep_orphans).isoformat()}')"
        ).fetchall()
    return Maintained(len(merged), expired, len(deleted), len(orphans))


def expire_snapshots(lake: Lakehouse, before: datetime) -> int:
    """Expire snapshots committed before a time, except the current one and those that are published or pinned."""
    connection = lake.connection
    kept = set(published_snapshots(connection).values()) | {current_snapshot(connection)}
    kept |= {row[0] for row in connection.execute(f"SELECT snapshot_id FROM {ledger.name('pins')}").fetchall()}
    old = connection.execute(
        f"SELECT snapshot_id FROM ducklake_snapshots('{CATALOG}') WHERE snapshot_time < ?", [before]
    ).fetchall()
    versions = [row[0] for row in old if row[0] not in kept]
    if versions:
        connection.execute(f"CALL ducklake_expire_snapshots('{CATALOG}', versions => {versions})")
    return len(versions)
