"""What an increment costs on a large staged table: only files that may hold its keys are read."""

import re

import duckdb
import pyarrow as pa
import pytest
from platform_tests.tables import MemorySource, batch_of

from data_platform.contracts import Contract
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import key_bounds
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

FILES = 6
ROWS = 50


class Text(Contract):
    key: str
    value: int


class Number(Contract):
    key: int
    value: int


def rows(first: int, prefix: str | None, value: int = 0) -> pa.Table:
    numbers = range(first, first + ROWS)
    keys = pa.array(numbers) if prefix is None else pa.array([f"{prefix}{number:06}" for number in numbers])
    return pa.table({"key": keys, "value": [value] * ROWS})


def step(lake: Lakehouse, table: pa.Table, recipe: Recipe, cursor: int) -> int:
    source = MemorySource([batch_of(table, {"cursor": str(cursor)})])
    load_table(lake, "shop", source, "orders", TableOptions(key=["key"], contract="x"), run_id="r")
    return stage_table(lake, recipe, run_id="r").rows_updated


@pytest.mark.parametrize(
    ("prefix", "files"),
    [
        (None, 1),
        ("order-", 1),
        # Of texts this long a Parquet file keeps no statistics: then all files are read, and the outcome is the same.
        ("k" * 300, FILES),
    ],
)
def test_an_increment_reads_only_the_files_that_may_hold_its_keys(
    lake: Lakehouse, prefix: str | None, files: int
) -> None:
    recipe = Recipe("shop", "orders", ("key",), Number if prefix is None else Text)
    for number in range(FILES):
        step(lake, rows(number * ROWS, prefix), recipe, number)
    lake.connection.register("arriving_rows", rows(2 * ROWS, prefix))
    bounds = key_bounds(lake.connection, ("key",), "arriving_rows")
    plan = lake.connection.execute(f"EXPLAIN ANALYZE SELECT key FROM {recipe.staged.sql} WHERE {bounds}").fetchall()
    read = re.search(r"Total Files Read: (\d+)", plan[0][1])
    assert read is not None
    assert int(read.group(1)) == files
    assert step(lake, rows(2 * ROWS, prefix, value=1), recipe, FILES) == ROWS
    found = lake.connection.execute(
        "SELECT count(*), count(DISTINCT key), sum(value)::BIGINT FROM staged_shop.orders"
    ).fetchone()
    assert found == (FILES * ROWS, FILES * ROWS, ROWS)


@pytest.mark.parametrize(
    "values",
    ["(1), (5)", "('it''s'), ('')", "(0.1::DOUBLE), (1e300::DOUBLE)", "(DATE '2020-01-01'), (DATE '0099-01-01')"],
)
def test_bounds_hold_every_key_that_they_were_made_from(values: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f'CREATE TABLE t AS SELECT * FROM (VALUES {values}) AS v("a b")')
        bounds = key_bounds(connection, ("a b",), "t")
        assert connection.execute(f"SELECT count(*) FROM t WHERE {bounds}").fetchone() == (2,)


def test_without_rows_nothing_is_bounded() -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b VARCHAR)")
        assert key_bounds(connection, ("a", "b"), "t") == "true"
