"""The lakehouse that release 0.1.0 left (see `make_release_1`), in a place of the test's own."""

import sqlite3
import tarfile
from pathlib import Path

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings

ARCHIVE = Path(__file__).with_name("release_1.tar.gz")

TABLES_OF_VERSION_1 = {
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
        "rows_quarantined BIGINT, bytes BIGINT, reason VARCHAR"
    ),
    "audits": (
        "layer VARCHAR, source VARCHAR, table_name VARCHAR, step_id BIGINT, run_id VARCHAR, contract VARCHAR, "
        "audited_at TIMESTAMPTZ, passed BOOLEAN, rows_checked BIGINT, rows_failed BIGINT, violations VARCHAR"
    ),
    "publications": (
        "publication_id BIGINT, model VARCHAR, snapshot_id BIGINT, run_id VARCHAR, published_at TIMESTAMPTZ, "
        "rows BIGINT, built_from VARCHAR"
    ),
    "pins": "name VARCHAR, snapshot_id BIGINT, reason VARCHAR, pinned_at TIMESTAMPTZ",
}
"""The ledger's tables in version 1, before the nightly audit added a column to `audits`."""


def unpack_release_1(folder: Path, home: Path) -> Settings:
    """Put the lakehouse of release 0.1.0 below `folder`; its sources' files are in `folder/release_1/depot`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    root = folder / "release_1"
    catalog = sqlite3.connect(root / "catalog.sqlite")
    with catalog:
        catalog.execute("update ducklake_metadata set value = ? where key = 'data_path'", [f"{root / 'data'}/"])
    catalog.close()
    return Settings(home, str(root / "catalog.sqlite"), str(root / "data"))


def make_ledger_of_version_1(lake: Lakehouse) -> None:
    """A ledger of version 1 in a lakehouse without one: a table with a cursor that was loaded twice and staged once, a
    folder of two files, and a count of maintenance."""
    connection = lake.connection
    connection.execute("BEGIN")
    connection.execute("CREATE SCHEMA lake.platform")
    for table, columns in TABLES_OF_VERSION_1.items():
        connection.execute(f"CREATE TABLE lake.platform.{table} ({columns})")
    for row in (
        ("raw", "shop", "orders", "#step", "2"),
        ("raw", "shop", "orders", "cursor", "2020-01-02"),
        ("staged", "shop", "orders", "#step", "1"),
        ("staged", "shop", "orders", "load_id", "1"),
        ("raw", "depot", "pallets", "#step", "1"),
        ("raw", "depot", "pallets", "a.csv", "10:100"),
        ("raw", "depot", "pallets", "a.csv#sha256", "aa"),
        ("raw", "depot", "pallets", "odd#sha256", "20:200"),
        ("raw", "depot", "pallets", "odd#sha256#sha256", "bb"),
        ("raw", "depot", "pallets", "digest", f"30:300:{'d' * 64}"),
        ("raw", "depot", "stock", "#step", "40:400"),
        ("raw", "depot", "stock", "#step#sha256", "cc"),
        ("raw", "shop", "prices", "#step", "1"),
        ("raw", "shop", "prices", "digest", "0123456789abcdef"),
        ("raw", "shop", "prices", "hint", "7"),
        ("platform", "maintenance", "files", "#step", "4"),
    ):
        connection.execute("INSERT INTO lake.platform.positions VALUES (?, ?, ?, ?, ?, now())", row)
    for number, kind in enumerate(("snapshot", "additions"), 1):
        connection.execute(
            "INSERT INTO lake.platform.loads (source, table_name, load_id, kind, status, started_at, ended_at, "
            "rows_landed) VALUES ('shop', 'orders', ?, ?, 'landed', now(), now(), 1)",
            [number, kind],
        )
    connection.execute(
        "INSERT INTO lake.platform.loads (source, table_name, load_id, kind, status, started_at, ended_at, "
        "rows_landed) VALUES ('depot', 'stock', 3, 'additions', 'landed', now(), now(), 0)"
    )
    connection.execute(
        "INSERT INTO lake.platform.stagings (source, table_name, staging_id, kind, status, load_to) "
        "VALUES ('shop', 'orders', 1, 'snapshot', 'staged', 1)"
    )
    connection.execute(
        "INSERT INTO lake.platform.audits (layer, source, table_name, passed, audited_at) VALUES "
        "('staged', 'shop', 'orders', true, now()), ('modelled', 'dbt', 'totals', false, now())"
    )
    connection.execute("COMMIT")


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of the ledger."""
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE (database_name, schema_name) = ('lake', 'platform') ORDER BY ALL"
    ).fetchall()
    return {
        table: connection.execute(f"SELECT * FROM lake.platform.{table} ORDER BY ALL").fetchall() for (table,) in tables
    }
