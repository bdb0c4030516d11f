"""Staging steps on the shop's orders as tests take them, and what came of them."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders

from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import stage_table

DAY = "2020-01-01T00:00:00Z"

ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For what becomes of rows before the catalog hears of them: it cannot differ between catalogs."""
TOLERANT = replace(RECIPE, refuse_above=1.0)


def load(lake: Lakehouse, rows: pa.Table, *, whole: bool = False, name: str = "orders", source: str = "shop") -> None:
    found = lake.connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'positions'"
    ).fetchone()
    number = 0
    if found and found[0]:
        row = lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone()
        number = row[0] if row else 0
    batch = batch_of(rows, {"cursor": str(number)})
    load_table(lake, source, MemorySource([batch], whole=whole), name, TABLE, run_id="run-1")


def stage(lake: Lakehouse, recipe: Recipe = RECIPE, **options: Any) -> StagingResult:
    return stage_table(lake, recipe, run_id="run-1", **options)


def query(lake: Lakehouse, sql: str) -> list[Any]:
    return lake.connection.execute(sql).fetchall()


def staged(lake: Lakehouse, columns: str = "order_id, amount") -> list[Any]:
    return query(lake, f"SELECT {columns} FROM staged_shop.orders ORDER BY ALL")


def quarantined(lake: Lakehouse, columns: str = "quarantine_id, status") -> list[Any]:
    return query(lake, f"SELECT {columns} FROM quarantine_shop.orders ORDER BY ALL")


def numbered(*numbers: int, amount: object = 1, at: object = DAY) -> pa.Table:
    return orders(*((number, amount, "open", at) for number in numbers))


def figures_add_up(lake: Lakehouse) -> bool:
    """What was staged from is what was inserted, updated, superseded, filtered, quarantined and the removals."""
    return query(
        lake,
        "SELECT count(*) FROM platform.stagings WHERE status = 'staged' AND rows_read <> "
        "rows_inserted + rows_updated + rows_superseded + rows_filtered + rows_quarantined + rows_removals",
    ) == [(0,)]
