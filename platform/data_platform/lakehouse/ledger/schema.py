"""The ledger's tables, the version of their schema, and the migrations from one version to the next. What is written to
the tables is in `positions` and `steps`, what is asked of them in `queries`.

A ledger is made at the first write, and migrated at the first write of a release with a newer schema: all migrations
that are due, and the version, in one commit. A ledger that is newer than the code is neither written nor read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import duckdb

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.indexes import create_indexes
from data_platform.lakehouse.ledger.inlining import create_schema, keep_ledger_rows_in_catalog
from data_platform.lakehouse.ledger.migrations import MIGRATIONS
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.transaction import commit_locked

VERSION = 4
"""The version of the schema that this code writes and reads."""

TABLES = {
    "schema_version": "version BIGINT, migrated_at TIMESTAMPTZ",
    "heads": "layer VARCHAR, source VARCHAR, table_name VARCHAR, number BIGINT, moved_at TIMESTAMPTZ",
    "positions": "layer VARCHAR, source VARCHAR, table_name VARCHAR, partition VARCHAR, value VARCHAR",
    "loads": (
        "source VARCHAR, table_name VARCHAR, load_id BIGINT, run_id VARCHAR, kind VARCHAR, status VARCHAR, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, rows_read BIGINT, rows_landed BIGINT, rows_repeated BIGINT, "
        "rows_quarantined BIGINT, bytes BIGINT, position VARCHAR, drift VARCHAR, reason VARCHAR, "
        "retired_at TIMESTAMPTZ, bytes_read BIGINT, cpu_seconds DOUBLE, peak_bytes BIGINT"
    ),
    "stagings": (
        "source VARCHAR, table_name VARCHAR, staging_id BIGINT, run_id VARCHAR, kind VARCHAR, status VARCHAR, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, load_from BIGINT, load_to BIGINT, rows_read BIGINT, "
        "rows_inserted BIGINT, rows_updated BIGINT, rows_deleted BIGINT, rows_superseded BIGINT, rows_filtered BIGINT, "
        "rows_quarantined BIGINT, rows_removals BIGINT, bytes BIGINT, reason VARCHAR, cpu_seconds DOUBLE, "
        "peak_bytes BIGINT"
    ),
    "audits": (
        "kind VARCHAR, layer VARCHAR, source VARCHAR, table_name VARCHAR, step_id BIGINT, run_id VARCHAR, "
        "contract VARCHAR, audited_at TIMESTAMPTZ, passed BOOLEAN, rows_checked BIGINT, rows_failed BIGINT, "
        "violations VARCHAR"
    ),
    "publications": (
        "publication_id BIGINT, model VARCHAR, snapshot_id BIGINT, run_id VARCHAR, published_at TIMESTAMPTZ, "
        "rows BIGINT, built_from VARCHAR, started_at TIMESTAMPTZ, seconds DOUBLE, rows_written BIGINT, bytes BIGINT"
    ),
    "runs": (
        "run_id VARCHAR, job VARCHAR, status VARCHAR, asked_by VARCHAR, asker VARCHAR, asked_at TIMESTAMPTZ, "
        "started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, steps BIGINT, steps_failed BIGINT"
    ),
    "mask_keys": "number BIGINT, fingerprint VARCHAR, source VARCHAR, table_name VARCHAR, since TIMESTAMPTZ",
    "pins": "name VARCHAR, snapshot_id BIGINT, reason VARCHAR, pinned_at TIMESTAMPTZ",
    "owners": "kind VARCHAR, name VARCHAR, platform VARCHAR, claimed_at TIMESTAMPTZ",
    "datasets": (
        "name VARCHAR, version BIGINT, snapshot_id BIGINT, built_from BIGINT, key VARCHAR, time VARCHAR, "
        "label VARCHAR, splits VARCHAR, rows BIGINT, hash VARCHAR, code_version VARCHAR, built_at TIMESTAMPTZ, "
        "contract VARCHAR, run_id VARCHAR"
    ),
    "models": (
        "model VARCHAR, version BIGINT, dataset VARCHAR, dataset_version BIGINT, snapshot_id BIGINT, "
        "code_version VARCHAR, parameters VARCHAR, metrics VARCHAR, gates VARCHAR, framework VARCHAR, "
        "file_hash VARCHAR, prediction_hash VARCHAR, run_id VARCHAR, trained_at TIMESTAMPTZ"
    ),
    "model_stages": ('model VARCHAR, version BIGINT, stage VARCHAR, since TIMESTAMPTZ, "by" VARCHAR, reason VARCHAR'),
}
"""The ledger's tables. Figures that one row of `loads` or `stagings` gives add up: what was read is what was landed,
repeated and quarantined; what was staged from is what was inserted, updated, superseded, filtered and quarantined."""


def ensure_ledger(lake: Lakehouse) -> None:
    """Create the ledger, or bring that of an earlier release up to date. Raises PlatformError if it is newer than this
    release."""
    version = stored_version(lake.connection)
    _refuse_newer(version)
    if version == VERSION:
        return
    # A connection of its own: the caller's may be in the middle of reading.
    writer = lake.duplicate()
    try:
        with writer_lock(lake.settings):
            if not version:
                # For what DuckLake writes itself (merged files, dbt's tables); its defaults are larger and no faster.
                for option, value in (("parquet_compression", "zstd"), ("parquet_version", "2")):
                    writer.connection.execute(f"CALL ducklake_set_option('{CATALOG}', '{option}', '{value}')")
                commit_locked(writer, create_schema)
                keep_ledger_rows_in_catalog(writer.connection)
                create_indexes(writer)
            commit_locked(writer, _create_or_migrate)
    finally:
        writer.connection.close()


@contextmanager
def reading(lake: Lakehouse) -> Iterator[Lakehouse]:
    """`lake.reading()` of a lakehouse whose ledger is there and up to date; the lakehouse to read from in the block.
    Each transaction asks the catalog anew, at a price that grows with the lakehouse: so what a step asks at one moment
    belongs into one. Creates the ledger, or brings that of an earlier release up to date. Raises PlatformError if it is
    newer than this release."""
    while True:
        with lake.reading():
            version = stored_version(lake.connection)
            _refuse_newer(version)
            if version == VERSION:
                yield replace(lake, ledger_is_current=True)
                return
        ensure_ledger(lake)


def migrate(lake: Lakehouse) -> tuple[int, int]:
    """Bring the ledger of an earlier release up to date; the version that it had, and the one it has now (both 0 if
    there is none, which is left so). Raises PlatformError if it is newer than this release; then nothing is changed."""
    before = stored_version(lake.connection)
    if not before:
        return 0, 0
    ensure_ledger(lake)
    return before, VERSION


def _create_or_migrate(connection: duckdb.DuckDBPyConnection) -> None:
    version = stored_version(connection)  # another process may have come first
    _refuse_newer(version)
    if version == VERSION:
        return
    if not version:
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {name(table)} ({columns})")
    else:
        for migrate in MIGRATIONS[version - 1 :]:
            migrate(connection)
    connection.execute(f"INSERT INTO {name('schema_version')} VALUES (?, ?)", [VERSION, datetime.now(UTC)])


def exists(lake: Lakehouse) -> bool:
    """Whether there is a ledger to read: nothing was ever loaded where there is none. One of an earlier release is
    brought up to date first.

    Raises PlatformError if the ledger is newer than this release, or older and the lakehouse open for reading only;
    TransientError if it was brought up to date while the caller reads an earlier snapshot.
    """
    if lake.ledger_is_current:
        return True
    version = stored_version(lake.connection)
    _refuse_newer(version)
    if not 0 < version < VERSION:
        return version == VERSION
    if _is_read_only(lake):
        raise PlatformError(
            f"This lakehouse was last written by an earlier release: its ledger has version {version}, this release "
            f"reads version {VERSION}. Run anything that loads or stages (`dp run`), or `dp migrate`: it "
            "brings the ledger up to date."
        )
    ensure_ledger(lake)
    if stored_version(lake.connection) < VERSION:
        raise TransientError("The ledger of an earlier release was just brought up to date. Run it again.")
    return True


def stored_version(connection: duckdb.DuckDBPyConnection) -> int:
    """The version of the ledger in the lakehouse; 0 if there is none. The list of all tables would take twenty times
    as long."""
    try:
        row = connection.execute(f"SELECT max(version) FROM {name('schema_version')}").fetchone()
        return int(row[0]) if row is not None and row[0] is not None else 0
    except duckdb.CatalogException:
        pass
    try:
        connection.sql(f"FROM {name('positions')}")  # bound, not run
    except duckdb.CatalogException:
        return 0
    return 1  # the version that had no table to say so


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise PlatformError(
            f"This lakehouse was written by a newer release: its ledger has version {version}, this release knows "
            f"version {VERSION}. Nothing was read or written. Use the newer release here too."
        )


def _is_read_only(lake: Lakehouse) -> bool:
    row = lake.connection.execute(
        "SELECT readonly FROM duckdb_databases() WHERE database_name = ?", [CATALOG]
    ).fetchone()
    return bool(row and row[0])
