"""What an increment costs on a large staged table: only files that may hold its keys are read, and the rows that it
replaces are found once."""

import re
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from platform_tests.staging.steps import ON_SQLITE
from platform_tests.tables import MemorySource, batch_of

from data_platform.contracts import Contract
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import filtered, key_bounds
from data_platform.lakehouse.transaction import ConcurrentStepError
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table
from data_platform.staging.versions import write_versions

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


def test_rows_of_the_large_side_are_dropped_while_it_is_read(lake: Lakehouse) -> None:
    """What a join with few keys costs rests on what DuckDB makes of their side: a release may do so otherwise."""
    recipe = Recipe("shop", "orders", ("key",), Number)
    # Keys that are close together are found by a bitmap anyway.
    keys = range(0, 50_000_000, 1000)
    step(lake, pa.table({"key": keys, "value": [0] * len(keys)}), recipe, 0)
    lake.connection.execute("CREATE TEMP TABLE few AS SELECT 300_000 * i AS key FROM range(120) AS r(i)")
    join = f"SELECT count(*) FROM {recipe.staged.sql} AS s JOIN {{}} AS f ON s.key = f.key"
    (plain,), (dropping,) = (
        lake.connection.execute(f"EXPLAIN ANALYZE {join.format(few)}").fetchall()
        for few in ("few", filtered("few", ["key"]))
    )
    assert "IN BF" not in plain[1]
    assert "IN BF" in dropping[1]
    found = lake.connection.execute(join.format(filtered("few", ["key"]))).fetchone()
    assert found == (120,)


class Pair(Contract):
    key: str
    part: int
    value: int


class Numbered(Contract):
    key: int
    rowid: int
    value: int


@ON_SQLITE
@pytest.mark.parametrize(
    ("contract", "key", "newest_by"),
    [
        (Number, ("key",), None),
        (Number, ("key",), "value"),
        (Text, ("key",), None),
        (Pair, ("part", "key"), None),
        # DuckLake's own name of what tells the rows apart.
        (Numbered, ("key",), "value"),
        (Numbered, ("rowid",), None),
    ],
)
def test_just_the_rows_with_a_new_version_are_replaced_also_where_files_were_merged_and_rewritten(
    lake: Lakehouse, contract: type[Contract], key: tuple[str, ...], newest_by: str | None
) -> None:
    recipe = Recipe("shop", "orders", key, contract, newest_by=newest_by)
    types = {field.name: field.dtype for field in recipe.columns}
    model: dict[Any, int] = {}
    for turn in range(8):
        # Of what order of delivery does not decide, every second version comes too late.
        version = turn if newest_by is None or turn % 2 == 0 else turn - 2
        numbers = [number * 7 % 60 for number in range(turn * 5, turn * 5 + 20)]
        arriving = [
            {"key": number if contract in (Number, Numbered) else f"k{number % 30}", "value": version}
            | ({"part": number // 30} if "part" in types else {})
            | ({"rowid": 59 - number} if "rowid" in types else {})
            for number in numbers
        ]
        if contract is Text:
            arriving = list({row["key"]: row for row in arriving}.values())
        for row in arriving:
            name = tuple(row[column] for column in key)
            if newest_by is None or version >= model.get(name, -10):
                model[name] = version
        step(lake, pa.Table.from_pylist(arriving), recipe, turn)
        if turn % 3 == 2:
            maintain(lake, keep_snapshots=timedelta(0))
        columns = ", ".join((*key, "value"))
        found = lake.connection.execute(f"SELECT {columns} FROM staged_shop.orders").fetchall()
        assert sorted(found) == sorted((*name, value) for name, value in model.items())


@ON_SQLITE
def test_rows_that_another_program_deleted_meanwhile_are_not_taken_for_replaced(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe("shop", "orders", ("key",), Number)
    step(lake, rows(0, None), recipe, 0)

    def meanwhile(*given: Any) -> Any:
        with open_lakehouse(settings) as other:
            other.connection.execute("DELETE FROM staged_shop.orders WHERE key = 7")
        return write_versions(*given)

    monkeypatch.setattr("data_platform.staging.step.write_versions", meanwhile)
    with pytest.raises(ConcurrentStepError, match=r"of 50 staged rows that have a new version, 49"):
        step(lake, rows(0, None, value=1), recipe, 1)
    figures = "SELECT count(*), sum(value)::BIGINT FROM staged_shop.orders"
    assert lake.connection.execute(figures).fetchone() == (ROWS - 1, 0)
    monkeypatch.undo()
    assert stage_table(lake, recipe, run_id="r").rows_updated == ROWS - 1
    assert lake.connection.execute(figures).fetchone() == (ROWS, ROWS)
