"""Replacing data files by fewer or smaller ones with the same rows, beside the table's writers. Which files are worth
it, and when it is done, is decided in `maintenance`.

DuckLake rewrites files and shows the result in one transaction. On SQLite that transaction cannot be committed once
another one was committed meanwhile, and to hold the writer lock for as long as rewriting takes would keep every load
waiting. So DuckLake works on a catalog of its own, a file with a copy of the rows about the files to be replaced. What
it changes there is then carried over to the lakehouse's catalog: in one short transaction under the writer lock, and
only if the replaced files are still what they were.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import METADATA, Lakehouse, database, load_ducklake
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.transaction import DataFile, commit_locked, discard, discarded_on_failure

CATALOG_VERSION = "1.0"
"""The version of DuckLake's catalog whose tables are written here."""

COPY = "replacement"
"""The name under which a copy of the catalog is attached."""

MERGE = "merge_adjacent"
REWRITE = "rewrite_delete"
"""The two ways to replace files, as DuckLake calls them in the list of snapshots: small files are merged into one;
files are written afresh without their deleted rows."""

CALLS = {
    MERGE: "CALL ducklake_merge_adjacent_files({catalog}, {table}, schema => {schema})",
    REWRITE: "CALL ducklake_rewrite_data_files({catalog}, {table}, schema => {schema}, delete_threshold => 0.0)",
}

COPIED = {
    "ducklake_metadata": "true",
    "ducklake_schema": "true",
    "ducklake_snapshot": "snapshot_id = (SELECT max(snapshot_id) FROM {metadata}.ducklake_snapshot)",
    "ducklake_table": "table_id = {table_id}",
    "ducklake_column": "table_id = {table_id}",
    "ducklake_schema_versions": "table_id = {table_id}",
    "ducklake_partition_info": "table_id = {table_id}",
    "ducklake_partition_column": "table_id = {table_id}",
    "ducklake_sort_info": "table_id = {table_id}",
    "ducklake_sort_expression": "table_id = {table_id}",
    "ducklake_table_stats": "table_id = {table_id}",
    "ducklake_column_mapping": "table_id = {table_id}",
    "ducklake_name_mapping": (
        "mapping_id IN (SELECT mapping_id FROM {metadata}.ducklake_column_mapping WHERE table_id = {table_id})"
    ),
    "ducklake_data_file": "data_file_id IN ({files})",
    "ducklake_delete_file": "data_file_id IN ({files})",
    "ducklake_file_partition_value": "data_file_id IN ({files})",
}
"""What DuckLake needs to know to replace some files of one table: rows of its catalog's tables."""

BY_FILE = (
    "ducklake_file_column_stats",
    "ducklake_file_partition_value",
    "ducklake_file_variant_stats",
)
"""The catalog's tables, besides that of the files, which have rows for each data file."""


@dataclass(frozen=True)
class Batch:
    """Data files of one table that are replaced together, by their numbers in DuckLake's catalog."""

    table_id: int
    how: str
    files: tuple[int, ...]

    @property
    def ids(self) -> str:
        return ", ".join(map(str, self.files))


@dataclass(frozen=True)
class _Written:
    """What DuckLake wrote, and how it changed the copy of the catalog."""

    files: list[DataFile]
    rows: Mapping[str, pa.Table]
    replaced: Sequence[int]
    snapshot: int
    first_file: int
    next_file: int


def replace_files(lake: Lakehouse, batch: Batch) -> int | None:
    """Replace the files of a batch; how many were replaced, or None if another commit touched one of them meanwhile,
    in which case nothing is changed.

    The rows, their numbers (`rowid`) and every version of the table stay as they are. Writers wait only while the new
    files are registered; a reader goes on with the files with which it began. Raises PlatformError, and changes
    nothing, if the catalog is of another version of DuckLake than the one whose tables are known here.
    """
    require_known_catalog(lake)
    with lake.reading():
        # One transaction, so that the copy is of one moment.
        before = _state(lake.connection, batch)
        copied = {table: _rows(lake, table, condition, batch) for table, condition in COPIED.items()}
    written = write_replacements(lake.settings, batch, copied)
    if written is None:
        return 0
    with discarded_on_failure(lake, written.files):
        shown = _show(lake, batch, before, written)
    if not shown:
        for file in written.files:
            discard(lake, file.path)
        return None
    return len(written.replaced)


def require_known_catalog(lake: Lakehouse) -> None:
    """Raise PlatformError if the catalog is of another version of DuckLake than the one whose tables are known here."""
    rows = lake.connection.execute(f"SELECT value FROM {METADATA}.ducklake_metadata WHERE key = 'version'").fetchall()
    if rows != [(CATALOG_VERSION,)]:
        raise PlatformError(
            f"The catalog is of DuckLake {', '.join(str(row[0]) for row in rows)}; how to replace files is known of "
            f"{CATALOG_VERSION}. Nothing was changed. Use the DuckDB version that this release pins."
        )


def _rows(lake: Lakehouse, table: str, condition: str, batch: Batch) -> pa.Table:
    where = condition.format(metadata=METADATA, table_id=batch.table_id, files=batch.ids)
    return lake.connection.execute(f"SELECT * FROM {METADATA}.{table} WHERE {where}").to_arrow_table()


def write_replacements(settings: Settings, batch: Batch, copied: Mapping[str, pa.Table]) -> _Written | None:
    """Let DuckLake replace the files of a batch in a catalog that holds the `copied` rows; None if it finds nothing to
    do. The new files lie in the table's folder, known to that catalog alone."""
    snapshot, first_file = (copied["ducklake_snapshot"][name][0].as_py() for name in ("snapshot_id", "next_file_id"))
    with _copy_of_catalog(settings, copied) as (connection, metadata):
        current = connection.execute(
            f"SELECT s.schema_name, t.table_name FROM {metadata}.ducklake_table AS t "
            f"JOIN {metadata}.ducklake_schema AS s USING (schema_id) "
            "WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL"
        ).fetchone()
        if current is None:
            return None  # it was dropped meanwhile
        names = {"catalog": COPY, "schema": current[0], "table": current[1]}
        connection.execute(CALLS[batch.how].format(**{name: literal(text) for name, text in names.items()})).fetchall()

        def rows(sql: str) -> pa.Table:
            return connection.execute(sql).to_arrow_table()

        last, next_file = connection.execute(
            f"SELECT snapshot_id, next_file_id FROM {metadata}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchall()[0]
        if last == snapshot:
            return None
        new = f"data_file_id >= {first_file}"
        files = rows(f"SELECT * FROM {metadata}.ducklake_data_file WHERE {new}")
        kept = connection.execute(
            f"SELECT data_file_id FROM {metadata}.ducklake_data_file WHERE end_snapshot IS NULL"
        ).fetchall()
        listed = connection.execute(
            "SELECT data_file FROM ducklake_list_files($catalog, $table, schema => $schema)", names
        ).fetchall()
        by_name = {path.rsplit("/", 1)[-1]: path for (path,) in listed}
        return _Written(
            files=[
                DataFile(by_name[file["path"].rsplit("/", 1)[-1]], file["record_count"], file["file_size_bytes"])
                for file in files.to_pylist()
            ],
            rows={
                "ducklake_data_file": files,
                **{table: rows(f"SELECT * FROM {metadata}.{table} WHERE {new}") for table in BY_FILE},
                "ducklake_files_scheduled_for_deletion": rows(
                    f"SELECT * REPLACE (now() AS schedule_start) FROM {metadata}.ducklake_files_scheduled_for_deletion"
                ),
            },
            # Not those that a commit ended before the copy was made: older versions still read them.
            replaced=sorted(
                {
                    file["data_file_id"]
                    for file in copied["ducklake_data_file"].to_pylist()
                    if file["end_snapshot"] is None
                }
                - {number for (number,) in kept}
            ),
            snapshot=last,
            first_file=first_file,
            next_file=next_file,
        )


@contextmanager
def _copy_of_catalog(
    settings: Settings, copied: Mapping[str, pa.Table]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A DuckLake with the same data folder and the given rows in its catalog; the connection and the catalog's name."""
    settings.spool.mkdir(parents=True, exist_ok=True)
    path = settings.spool / f"replacement-{uuid4()}.ducklake"
    attach = f"ATTACH {literal(f'ducklake:{path}')} AS {COPY} (DATA_PATH {literal(settings.data)})"
    metadata = f"__ducklake_metadata_{COPY}"
    connection = database(settings)
    try:
        load_ducklake(connection, settings)
        connection.execute(attach)
        for table, rows in copied.items():
            connection.register("copied_rows", rows)
            connection.execute(f"DELETE FROM {metadata}.{table}")
            connection.execute(f"INSERT INTO {metadata}.{table} BY NAME SELECT * FROM copied_rows")
            connection.unregister("copied_rows")
        # Attached again, it knows nothing any more of what it held before.
        connection.execute(f"DETACH {COPY}")
        connection.execute(attach)
        yield connection, metadata
    finally:
        connection.close()
        for left in (path, path.with_name(f"{path.name}.wal")):
            Path(left).unlink(missing_ok=True)


def _show(lake: Lakehouse, batch: Batch, before: object, written: _Written) -> bool:
    """Carry over to the lakehouse's catalog what was changed in the copy, in one commit; False, and no change, if a
    file of the batch is no longer what it was before."""

    def work(connection: duckdb.DuckDBPyConnection) -> bool:
        if _state(connection, batch) != before:
            return False
        _carry_over(connection, batch, written)
        return True

    with writer_lock(lake.settings):
        if inlined_deletions(lake, batch.table_id) & set(batch.files):
            return False
        return commit_locked(lake, work)


def begin_snapshot(
    connection: duckdb.DuckDBPyConnection, changes: str, next_file: int | None = None, *, new_schema: bool = False
) -> int:
    """Add a version to the catalog, within the caller's transaction, whose other changes are to it by hand; its number.
    `changes` is what DuckLake is to say of it, `next_file` the number of the next file if some were given. With
    `new_schema` every process reads again which tables there are."""
    last, schema_version, next_catalog, unchanged = connection.execute(
        f"SELECT snapshot_id, schema_version, next_catalog_id, next_file_id FROM {METADATA}.ducklake_snapshot "
        "ORDER BY snapshot_id DESC LIMIT 1"
    ).fetchall()[0]
    connection.execute(
        f"INSERT INTO {METADATA}.ducklake_snapshot "
        "(snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id) VALUES (?, now(), ?, ?, ?)",
        [last + 1, schema_version + new_schema, next_catalog, unchanged if next_file is None else next_file],
    )
    connection.execute(
        f"INSERT INTO {METADATA}.ducklake_snapshot_changes (snapshot_id, changes_made) VALUES (?, ?)",
        [last + 1, changes],
    )
    return int(last) + 1


def _carry_over(connection: duckdb.DuckDBPyConnection, batch: Batch, written: _Written) -> None:
    (next_file,) = connection.execute(
        f"SELECT next_file_id FROM {METADATA}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
    ).fetchall()[0]
    shift = next_file - written.first_file
    snapshot = begin_snapshot(connection, f"{batch.how}:{batch.table_id}", written.next_file + shift)
    replaced = ", ".join(map(str, written.replaced))
    if batch.how == MERGE:
        # The new file holds every version of its rows, so no version needs the old ones.
        for table in ("ducklake_data_file", "ducklake_delete_file", *BY_FILE):
            connection.execute(f"DELETE FROM {METADATA}.{table} WHERE data_file_id IN ({replaced})")
    else:
        for table in ("ducklake_data_file", "ducklake_delete_file"):
            connection.execute(
                f"UPDATE {METADATA}.{table} SET end_snapshot = {snapshot} "
                f"WHERE data_file_id IN ({replaced}) AND end_snapshot IS NULL"
            )
    # Numbers that were given in the copy are given anew; those of older snapshots and files stay.
    renumbered = {
        "ducklake_data_file": (
            f"data_file_id + {shift} AS data_file_id, CASE begin_snapshot WHEN {written.snapshot} "
            f"THEN {snapshot} ELSE begin_snapshot END AS begin_snapshot"
        ),
        **dict.fromkeys(BY_FILE, f"data_file_id + {shift} AS data_file_id"),
        "ducklake_files_scheduled_for_deletion": "data_file_id AS data_file_id",
    }
    for table, rows in written.rows.items():
        if rows.num_rows:
            connection.register("carried_rows", rows)
            connection.execute(
                f"INSERT INTO {METADATA}.{table} BY NAME SELECT * REPLACE ({renumbered[table]}) FROM carried_rows"
            )
            connection.unregister("carried_rows")


def _state(connection: duckdb.DuckDBPyConnection, batch: Batch) -> object:
    """What must be the same at the end as at the beginning: which of the files are current, with which deletions."""
    return connection.execute(
        "SELECT f.data_file_id, f.end_snapshot, d.delete_file_id, d.end_snapshot, d.delete_count "
        f"FROM {METADATA}.ducklake_data_file AS f LEFT JOIN {METADATA}.ducklake_delete_file AS d USING (data_file_id) "
        f"WHERE f.data_file_id IN ({batch.ids}) ORDER BY ALL"
    ).fetchall()


def inlined_deletions(lake: Lakehouse, table_id: int) -> set[int]:
    """The files of a table from which rows were deleted that DuckLake keeps in its catalog, not yet in a file."""
    name = f"ducklake_inlined_delete_{int(table_id)}"
    if lake.settings.catalog_is_sqlite:
        try:
            found = lake.connection.execute(f"SELECT DISTINCT file_id FROM {METADATA}.{name}").fetchall()
        except duckdb.CatalogException:
            return set()  # DuckLake makes it at the first deletion
        return {number for (number,) in found}
    # The server itself is queried: DuckDB may not know yet of a table that another process made.
    query = "SELECT * FROM postgres_query($catalog, $sql)"
    made = f"SELECT 1 AS made FROM pg_catalog.pg_tables WHERE tablename = '{name}'"
    if not lake.connection.execute(query, {"catalog": METADATA, "sql": made}).fetchall():
        return set()
    distinct = f"SELECT DISTINCT file_id FROM {name}"
    return {number for (number,) in lake.connection.execute(query, {"catalog": METADATA, "sql": distinct}).fetchall()}
