"""Keeping the lakehouse small and quick: merge small files, expire old snapshots, delete what nothing refers to.
When it runs is the schedule's business (`components.maintenance`); how files are replaced is in `compaction`.

Nothing here holds the writer lock for longer than a commit takes: files are rewritten outside it, and what DuckLake
does in one go (expiry, deletion) is done a portion at a time. Snapshots that a published view or a pin stands on are
kept whatever their age.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import duckdb

from data_platform.lakehouse import compaction, ledger
from data_platform.lakehouse.catalog_tables import drop_unused_tables, tables_in_catalog
from data_platform.lakehouse.compaction import Batch
from data_platform.lakehouse.connect import CATALOG, METADATA, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.identity import require_own_data
from data_platform.lakehouse.indexes import create_indexes
from data_platform.lakehouse.ledger.inlining import keep_ledger_rows_in_catalog, keeps_others_in_files
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import commit

KEEP_SNAPSHOTS = timedelta(days=30)
KEEP_FILES = timedelta(days=1)
"""No step and no query takes longer than a day."""

SMALL_BYTES = 16 * 2**20
REWRITE_ABOVE = 0.25
"""The share of deleted rows above which a file that is not small is written afresh."""

BATCH_BYTES = 128 * 2**20
"""How much is rewritten at a time, and how large files become: seconds of work, with few deletions meanwhile."""

ATTEMPTS = 3
"""How often a batch is tried in which other commits delete rows meanwhile; then it is left for the next time."""

AT_ONCE = 50
"""How many snapshots are expired, or files deleted, in one commit: a tenth of a second."""


@dataclass(frozen=True)
class Maintained:
    """What maintenance did. `files_left` were to be replaced, but other commits deleted from them all the time. Of
    `files_unknown` no table knows anything, nor who wrote them: they stay."""

    files_merged: int
    snapshots_expired: int
    files_deleted: int
    orphans_deleted: int
    files_left: int = 0
    files_unknown: int = 0


SCHEDULED = f"{METADATA}.ducklake_files_scheduled_for_deletion"
NO_DATA_FILE = 2**62
"""The number under which a file is listed there that never was one of a table's."""

SCHEDULED_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
SCHEDULED_AFTER = SCHEDULED_LONG_AGO + timedelta(days=1)
"""When files without a table are said to have been listed: before any other, which are deleted in their own time."""

WITHOUT_STATISTICS = f"""
    SELECT c.table_id, c.column_id FROM {METADATA}.ducklake_column AS c
    JOIN {METADATA}.ducklake_data_file AS f ON f.table_id = c.table_id
    ANTI JOIN {METADATA}.ducklake_file_column_stats AS s
        ON (s.data_file_id, s.column_id) = (f.data_file_id, c.column_id)
    WHERE c.end_snapshot IS NULL AND f.end_snapshot IS NULL
"""
"""The columns that some file of their table lacks."""


@dataclass(frozen=True)
class _File:
    """A current data file: `deleted` of its `rows` are no longer there."""

    table_id: int
    number: int
    bytes: int
    rows: int
    deleted: int


def maintain(
    lake: Lakehouse, *, keep_snapshots: timedelta = KEEP_SNAPSHOTS, keep_files: timedelta = KEEP_FILES
) -> Maintained:
    """Merge small files, expire snapshots older than `keep_snapshots`, delete files that nothing refers to any more.

    Files younger than `keep_files` stay: a query that began before the merge still reads the old ones, and a file
    that no table names may belong to a step under way. Loads and readers go on meanwhile. Raises PlatformError, and
    deletes nothing, if the data is marked as that of another lakehouse.
    """
    require_own_data(lake.connection, lake.settings, lake.identity)
    ledger.ensure_ledger(lake)
    mend_null_statistics(lake)
    flush_inlined(lake)
    prepare_catalog(lake)
    rewritten, left_rewriting = _replace(lake, compaction.REWRITE)
    merged, left_merging = _replace(lake, compaction.MERGE)
    now = datetime.now(UTC)
    expired = expire_snapshots(lake, now - keep_snapshots)
    deleted = delete_replaced_files(lake, now - keep_files)
    orphans, unknown = delete_orphaned_files(lake, now - keep_files)
    return Maintained(rewritten + merged, expired, deleted, orphans, left_rewriting + left_merging, unknown)


def prepare_catalog(lake: Lakehouse) -> None:
    """Give the catalog of an earlier release what that of a new lakehouse has: rows of other tables than the ledger's
    are in files alone from now on, and what is searched for has an index."""
    with writer_lock(lake.settings):
        if not keeps_others_in_files(lake.connection):
            keep_ledger_rows_in_catalog(lake.connection)
        create_indexes(lake)


def update_catalog(lake: Lakehouse) -> int:
    """`prepare_catalog`, and drop the tables in the catalog's database that nothing is kept in any more; how many went.
    Nothing else may have the lakehouse open (`catalog_tables.drop_unused_tables`). There must be a ledger."""
    prepare_catalog(lake)
    flush_inlined(lake)
    return drop_unused_tables(lake)


def flush_inlined(lake: Lakehouse) -> None:
    """Write the rows that DuckLake keeps in its catalog, because a commit had few of them, to files, table by table."""
    for table in _tables(lake, tables_in_catalog(lake)):
        call = (
            f"CALL ducklake_flush_inlined_data({literal(CATALOG)}, schema_name => {literal(table.schema)}, "
            f"table_name => {literal(table.name)})"
        )
        _commit(lake, call)


def _commit(lake: Lakehouse, statement: str) -> int:
    """Commit one statement; how many rows it gave."""

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        return len(connection.execute(statement).fetchall())

    return commit(lake, work)


def _tables(lake: Lakehouse, numbers: set[int]) -> list[Table]:
    rows = lake.connection.execute(
        f"SELECT s.schema_name, t.table_name, t.table_id FROM {METADATA}.ducklake_table AS t "
        f"JOIN {METADATA}.ducklake_schema AS s USING (schema_id) "
        "WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL ORDER BY ALL"
    ).fetchall()
    return [Table(schema, name) for schema, name, number in rows if number in numbers]


def _replace(lake: Lakehouse, how: str) -> tuple[int, int]:
    """Replace all files that are worth it; how many were, and how many were left."""
    replaced = left = 0
    for batch in batches(lake, _files(lake), how):
        for _ in range(ATTEMPTS):
            done = compaction.replace_files(lake, batch)
            if done is not None:
                replaced += done
                break
        else:
            left += len(batch.files)
    return replaced, left


def _files(lake: Lakehouse) -> list[_File]:
    """The current data files of all tables, in the order in which their rows came."""
    rows = lake.connection.execute(
        "SELECT f.table_id, f.data_file_id, f.file_size_bytes, f.record_count, coalesce(d.delete_count, 0) "
        f"FROM {METADATA}.ducklake_data_file AS f LEFT JOIN {METADATA}.ducklake_delete_file AS d "
        "ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL "
        "WHERE f.end_snapshot IS NULL ORDER BY f.table_id, f.begin_snapshot, f.row_id_start, f.data_file_id"
    ).fetchall()
    return [_File(*row) for row in rows]


def batches(lake: Lakehouse, files: Iterable[_File], how: str) -> Iterator[Batch]:
    """The files that are worth replacing, in batches of `BATCH_BYTES`.

    DuckLake does not merge files that have deletes. So small files are written afresh whatever little was deleted,
    large ones only where it pays.
    """
    for table_id, of_table in groupby(files, key=lambda file: file.table_id):
        worth = [file for file in of_table if _worth_replacing(file, how)]
        least = 2 if how == compaction.MERGE else 1
        if len(worth) < least:
            continue
        pending = compaction.inlined_deletions(lake, table_id)
        for batch in _portions(file for file in worth if file.number not in pending):
            if len(batch) >= least:
                yield Batch(table_id, how, tuple(file.number for file in batch))


def _worth_replacing(file: _File, how: str) -> bool:
    if how == compaction.MERGE:
        return not file.deleted and file.bytes < BATCH_BYTES
    return file.deleted > (0 if file.bytes < SMALL_BYTES else REWRITE_ABOVE * file.rows)


def _portions(files: Iterable[_File]) -> Iterator[list[_File]]:
    portion: list[_File] = []
    for file in files:
        if portion and sum(one.bytes for one in portion) + file.bytes > BATCH_BYTES:
            yield portion
            portion = []
        portion.append(file)
    if portion:
        yield portion


def expire_snapshots(lake: Lakehouse, before: datetime) -> int:
    """Expire snapshots that were replaced before a time, except those that are published or pinned. One that was made
    before it, and was current until a moment ago, may be what a build or a query stands on."""
    old = lake.connection.execute(
        "SELECT snapshot_id FROM (SELECT snapshot_id, lead(snapshot_time) OVER (ORDER BY snapshot_id) AS replaced_at "
        f"FROM ducklake_snapshots('{CATALOG}')) WHERE replaced_at < ? ORDER BY ALL",
        [before],
    ).fetchall()
    kept = _kept(lake)
    worth = [row[0] for row in old if row[0] not in kept]
    expired = 0
    for start in range(0, len(worth), AT_ONCE):
        versions = set(worth[start : start + AT_ONCE])

        def expire(connection: duckdb.DuckDBPyConnection, versions: set[int] = versions) -> int:
            # Looked up again: one of them may have been published or pinned meanwhile.
            doomed = sorted(versions - _kept(lake))
            if doomed:
                connection.execute(f"CALL ducklake_expire_snapshots('{CATALOG}', versions => {doomed})")
            return len(doomed)

        expired += commit(lake, expire)
    return expired


def _kept(lake: Lakehouse) -> set[int]:
    published = {one.snapshot_id for one in ledger.published(lake).values()}
    return {*published, *ledger.pinned_snapshots(lake), current_snapshot(lake.connection)}


def delete_replaced_files(lake: Lakehouse, before: datetime) -> int:
    """Delete the files that were replaced, or whose last snapshot expired, before a time."""
    since = lake.connection.execute(
        f"SELECT schedule_start::TIMESTAMPTZ AS since FROM {SCHEDULED} WHERE since < ? ORDER BY since", [before]
    ).fetchall()
    if not since:
        return 0
    if lake.settings.catalog_is_sqlite:
        # There DuckLake compares the text of two times of which it writes one with a blank and one with a T: of
        # whatever was replaced on the day that ends the time to keep, all would go, up to 24 hours too early.
        _commit(lake, f"UPDATE {SCHEDULED} SET schedule_start = replace(schedule_start, ' ', 'T')")
    deleted = 0
    for moment in sorted({at for (at,) in since[AT_ONCE::AT_ONCE]} | {before}):
        call = f"CALL ducklake_cleanup_old_files('{CATALOG}', older_than => TIMESTAMPTZ '{moment.isoformat()}')"
        deleted += _commit(lake, call)
    return deleted


def delete_orphaned_files(lake: Lakehouse, before: datetime) -> tuple[int, int]:
    """Delete the files written before a time that no table ever named, as a killed step leaves them; how many, and how
    many were left, since it is not known that this lakehouse wrote them (DuckLake's own, another's, a person's)."""
    found = lake.connection.execute(
        f"FROM ducklake_delete_orphaned_files('{CATALOG}', dry_run => true, older_than => ?::TIMESTAMPTZ)", [before]
    ).fetchall()
    own = [path for (path,) in found if path.rsplit("/", 1)[-1].startswith(f"{lake.identity}-")]
    deleted = 0
    for start in range(0, len(own), AT_ONCE):
        paths = own[start : start + AT_ONCE]

        # DuckLake deletes one by one only what its catalog lists, wherever it lies.
        def schedule(connection: duckdb.DuckDBPyConnection, paths: list[str] = paths) -> None:
            connection.executemany(
                f"INSERT INTO {SCHEDULED} VALUES ({NO_DATA_FILE}, ?, false, ?)",
                [[path, SCHEDULED_LONG_AGO.isoformat()] for path in paths],
            )

        commit(lake, schedule)
        until = literal(SCHEDULED_AFTER.isoformat())
        deleted += _commit(lake, f"CALL ducklake_cleanup_old_files('{CATALOG}', older_than => TIMESTAMPTZ {until})")
    return deleted, len(found) - len(own)


def mend_null_statistics(lake: Lakehouse) -> None:
    """Note that columns which some file lacks hold nulls. Release 0.1.0 registered such files, which DuckLake took for
    files without nulls in those columns: `WHERE column IS NOT NULL` then found rows in which it is null."""
    statistics = f"{METADATA}.ducklake_table_column_stats"
    wrong = f"NOT contains_null::BOOLEAN AND (table_id, column_id) IN ({WITHOUT_STATISTICS})"
    if not lake.connection.execute(f"SELECT 1 FROM {statistics} WHERE {wrong} LIMIT 1").fetchall():
        return

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"UPDATE {statistics} SET contains_null = true WHERE {wrong}")

    commit(lake, work)
