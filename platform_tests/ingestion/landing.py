"""Loads of the shop's orders as tests make them, and what came of them: rows, positions, files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.tables import TABLE, MemorySource, batch_of, orders

from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings

DAY = "2020-01-01T00:00:00Z"

ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For what becomes of rows before the catalog hears of them: it cannot differ between catalogs."""


def load(lake: Lakehouse, source: MemorySource, table: TableOptions = TABLE, **options: Any) -> LoadResult:
    return load_table(lake, "shop", source, "orders", table, run_id="run-1", **options)


def rows(lake: Lakehouse, columns: str = "order_id", table: str = "raw_shop.orders") -> list[Any]:
    found = lake.connection.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def position(lake: Lakehouse) -> dict[str, str]:
    query = "SELECT partition, value FROM platform.positions WHERE layer = 'raw'"
    return dict(lake.connection.execute(query).fetchall())


def data_files(settings: Settings) -> set[str]:
    return {str(path) for path in Path(settings.data).rglob("*.parquet")}


def known_files(lake: Lakehouse) -> set[str]:
    """Files that any table names, now."""
    files = set()
    for schema, table in lake.connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
    ).fetchall():
        listed = lake.connection.execute(
            f"FROM ducklake_list_files('lake', '{table}', schema => '{schema}')"
        ).fetchall()
        files |= {name for row in listed for name in (row[0], row[4]) if name}
    return files


def numbered(*numbers: int) -> pa.Table:
    return orders(*((number, 1, "open", DAY) for number in numbers))


def additions(*numbers: int, upto: str) -> MemorySource:
    return MemorySource([batch_of(numbered(*numbers), {"cursor": upto})])


def snapshot(*numbers: int, version: str) -> MemorySource:
    return MemorySource([batch_of(numbered(*numbers), {"version": version})], whole=True)
