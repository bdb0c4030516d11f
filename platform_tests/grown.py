"""A lakehouse as it is after a long time: many tables, many versions, a long ledger. What loads, stagings and
maintenance would have left in the catalog is written there directly, in seconds. The data files that it names do not
exist: the tables are there to be among them, not to be read.
"""

import uuid

import duckdb
from platform_tests.tables import TABLE, MemorySource, Order, batch_of, orders

from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Kind
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import METADATA, Lakehouse
from data_platform.lakehouse.maintenance import flush_inlined
from data_platform.lakehouse.tables import raw_table, staged_table
from data_platform.lakehouse.transaction import commit
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import stage_table

SOURCES = 20
ROWS = 10
RAW = "id VARCHAR, name VARCHAR, day VARCHAR, amount VARCHAR, _load_id BIGINT, _loaded_at TIMESTAMPTZ, _row BIGINT"
STAGED = (
    "id BIGINT, name VARCHAR, day DATE, amount DOUBLE, _load_id BIGINT, _row BIGINT, _staging_id BIGINT, "
    "_staged_at TIMESTAMPTZ"
)
COLUMNS = 7
"""Columns of which each file has statistics."""


def grow(lake: Lakehouse, tables: int, snapshots: int, *, maintained: bool = True) -> None:
    """Give a lakehouse without tables so many, half of them raw and half staged, and so many versions, of which each is
    the load or the staging of one table. `maintained`: each table is one file, and so is each of the ledger; else all
    is as it was committed."""
    ledger.ensure_ledger(lake)
    commit(lake, lambda connection: _create(connection, tables // 2))
    commit(lake, lambda connection: _fill(connection, snapshots, maintained=maintained))
    if maintained:
        flush_inlined(lake)


def load_and_stage(lake: Lakehouse, source: str, rows: int = ROWS, *, kind: Kind = "rows") -> StagingResult:
    """A load and a staging of a table of orders, of which all rows are new or, after the first time, new versions."""
    position = {"delivery": uuid.uuid4().hex}
    delivered = orders(*((number, 5.0, "open", "2013-01-01T00:00:00Z") for number in range(rows)))
    batch = batch_of(delivered, position, kind=kind)
    load_table(lake, source, MemorySource([batch] if rows else []), "orders", TABLE, run_id="run")
    return stage_table(lake, Recipe(source, "orders", ("order_id",), Order), run_id="run")


def versions(lake: Lakehouse) -> int:
    """How many versions a lakehouse has."""
    return int(lake.connection.execute(f"SELECT count(*) FROM {METADATA}.ducklake_snapshot").fetchall()[0][0])


def _create(connection: duckdb.DuckDBPyConnection, tables: int) -> None:
    for number in range(min(SOURCES, tables)):
        for table in (raw_table(f"grown{number}", ""), staged_table(f"grown{number}", "")):
            connection.execute(f'CREATE SCHEMA lake."{table.schema}"')
    for number in range(tables):
        source, name = f"grown{number % SOURCES}", f"t{number}"
        connection.execute(f"CREATE TABLE {raw_table(source, name).sql} ({RAW})")
        connection.execute(f"CREATE TABLE {staged_table(source, name).sql} ({STAGED})")


def _fill(connection: duckdb.DuckDBPyConnection, snapshots: int, *, maintained: bool) -> None:
    """The versions: step `n` is the `number`-th of its table. Within one transaction."""
    first, schema, catalog, file = connection.execute(
        "SELECT snapshot_id, schema_version, next_catalog_id, next_file_id "
        f"FROM {METADATA}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
    ).fetchall()[0]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE steps AS WITH grown AS (SELECT t.table_id, t.table_name AS name, "
        "split_part(schema_name, '_', 1) AS layer, split_part(schema_name, '_', 2) AS source, "
        "row_number() OVER (ORDER BY t.table_name, schema_name) - 1 AS place, count(*) OVER () AS tables "
        f"FROM {METADATA}.ducklake_table AS t JOIN {METADATA}.ducklake_schema USING (schema_id) "
        "WHERE schema_name LIKE '%\\_grown%' ESCAPE '\\') "
        "SELECT n, ?::BIGINT + n AS snapshot, ?::BIGINT + n - 1 AS file, 1 + (n - 1) // tables AS number, "
        "n + tables > ? AS is_last, grown.* FROM range(1, ? + 1) AS r(n) JOIN grown ON (n - 1) % tables = place",
        [first, file, snapshots - first - 1, snapshots - first - 1],
    )

    def insert(table: str, columns: str, selected: str, rows: str = "steps") -> None:
        connection.execute(f"INSERT INTO {METADATA}.{table} ({columns}) SELECT {selected} FROM {rows}")

    now, of_files = "now()::VARCHAR", "steps WHERE is_last" if maintained else "steps"
    insert(
        "ducklake_snapshot",
        "snapshot_id, snapshot_time, schema_version, next_catalog_id, next_file_id",
        f"snapshot, now(), {schema}, {catalog}, file + 1",
    )
    insert("ducklake_snapshot_changes", "snapshot_id, changes_made", "snapshot, 'inserted_into_table:' || table_id")
    insert(
        "ducklake_data_file",
        "data_file_id, table_id, begin_snapshot, path, path_is_relative, file_format, record_count, file_size_bytes, "
        "footer_size, row_id_start",
        f"file, table_id, snapshot, file || '.parquet', true, 'parquet', {ROWS}, 1000, 300, (number - 1) * {ROWS}",
        of_files,
    )
    column = f"CROSS JOIN range(1, {COLUMNS} + 1) AS c(column_id)"
    insert(
        "ducklake_file_column_stats",
        "data_file_id, table_id, column_id, column_size_bytes, value_count, null_count, min_value, max_value",
        f"file, table_id, column_id, 100, {ROWS}, 0, '1', '9'",
        of_files.replace("steps", f"steps {column}"),
    )
    insert(
        "ducklake_table_stats",
        "table_id, record_count, next_row_id, file_size_bytes",
        f"table_id, count(*) * {ROWS}, count(*) * {ROWS}, count(*) * 1000",
        "steps GROUP BY table_id",
    )
    insert(
        "ducklake_table_column_stats",
        "table_id, column_id, contains_null, min_value, max_value",
        "DISTINCT table_id, column_id, false, '1', '9'",
        f"steps {column}",
    )
    _fill_ledger(connection, now)


def _fill_ledger(connection: duckdb.DuckDBPyConnection, now: str) -> None:
    """The ledger's rows of each step, as DuckLake keeps those of a commit that has few."""
    until = "lead(snapshot) OVER (PARTITION BY place ORDER BY n)"
    load = "started_at, ended_at, rows_read, rows_landed, rows_repeated, rows_quarantined, bytes, position, drift"
    loaded = f"{now}, {now}, {ROWS}, {ROWS}, 0, 0, 1000, '{{}}', '{{}}'"
    staging = "started_at, ended_at, load_from, load_to, rows_read, rows_inserted"
    staged = f"{now}, {now}, number, number, {ROWS}, {ROWS}"
    audit = "run_id, contract, audited_at, passed, rows_checked, rows_failed, violations"
    audited = f"'run', 'Grown', {now}, true, {ROWS}, 0, '[]'"
    values = {
        "heads": ("layer, {table}, number, moved_at", f"layer, source, name, number, {now}", "steps"),
        "positions": ("layer, {table}, partition, value", "layer, source, name, 'load_id', number::VARCHAR", "steps"),
        "loads": (
            f"{{table}}, load_id, run_id, kind, status, {load}",
            f"source, name, number, 'run', 'rows', 'landed', {loaded}",
            "steps WHERE layer = 'raw'",
        ),
        "stagings": (
            f"{{table}}, staging_id, run_id, kind, status, {staging}",
            f"source, name, number, 'run', 'rows', 'staged', {staged}",
            "steps WHERE layer = 'staged'",
        ),
        "audits": (
            f"kind, layer, {{table}}, step_id, {audit}",
            f"'step', layer, source, name, number, {audited}",
            "steps WHERE layer = 'staged'",
        ),
    }
    for table, (columns, selected, rows) in values.items():
        number, inlined = connection.execute(
            f"SELECT table_id, i.table_name FROM {METADATA}.ducklake_inlined_data_tables AS i "
            f"JOIN {METADATA}.ducklake_table AS t USING (table_id) JOIN {METADATA}.ducklake_schema USING (schema_id) "
            "WHERE schema_name = 'platform' AND t.table_name = ?",
            [table],
        ).fetchall()[0]
        ends = until if table in ("heads", "positions") else "NULL"
        quoted = ", ".join(f'"{name}"' for name in columns.format(table="source, table_name").split(", "))
        connection.execute(
            f"INSERT INTO {METADATA}.{inlined} (row_id, begin_snapshot, end_snapshot, {quoted}) "
            f"SELECT row_number() OVER (ORDER BY n) - 1, snapshot, {ends}, {selected} FROM {rows}"
        )
        connection.execute(
            f"INSERT INTO {METADATA}.ducklake_table_stats (table_id, record_count, next_row_id, file_size_bytes) "
            f"SELECT {number}, count(*), count(*), 0 FROM {rows}"
        )
