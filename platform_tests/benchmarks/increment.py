"""An increment on a large staged table: its cost must follow the increment, not the table. The table is not loaded row
by row but written as the files that loading and maintenance would have left, and registered as a step does.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from platform_tests.benchmarks.contracts import Order
from platform_tests.benchmarks.measure import Case, Measured, Say, measure, prepare
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.tables import MemorySource, batch_of

from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.tables import LOAD_COLUMNS, Table, duckdb_types, ensure_table
from data_platform.lakehouse.transaction import DataFile, commit, copy_to, new_path, register
from data_platform.staging.recipe import ADDED, Recipe, audited_schema
from data_platform.staging.step import stage_table

HERE = "platform_tests.benchmarks.increment"
FILE_ROWS = 1_000_000
RECENT = 4
"""Updates of recent keys hit one in so many of the newest rows."""

SPREAD = 7_368_787
"""A prime: its multiples spread updates evenly over all keys."""

ACCEPTED = 1.5
"""What still counts as the same: both are fractions of a second."""

RECIPE = Recipe("shop", "orders", ("id",), Order, newest_by="changed_at")
TABLE = TableOptions(key=["id"], contract="platform_tests.benchmarks.contracts.Order")

ORDERS = """
    n AS id, 1 + n * 7919 % 100000 AS customer_id, ((n * 104729 + {version}) % 1000000) / 100.0::DOUBLE AS amount,
    1 + n % 9 AS quantity, ['open', 'paid', 'sent'][1 + n % 3] AS status,
    CASE WHEN n % 4 > 0 THEN 'note ' || n % 9973 END AS note,
    TIMESTAMPTZ '2013-01-01 00:00:00Z' + INTERVAL (n) SECOND + INTERVAL ({version}) DAY AS changed_at
"""


def increment(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """Updates of recent keys, then of keys anywhere, each half the increment; the other half are new rows."""
    given = {}
    for name, rows in (("few", scale.few), ("many", scale.many)):
        say(f"writing {rows:,} staged rows")
        into = scratch / name
        into.mkdir()
        prepare(f"{HERE}:write", scratch, into=str(into), rows=rows)
        given[name] = {"into": str(into), "rows": rows, "size": scale.increment}
    what = f"Staging {scale.increment:,} rows, half of them updates"
    for which, aim in (("recent", ACCEPTED), ("random", None)):
        cases = {name: Case(f"{HERE}:stage", {**given[name], "which": which}) for name in given}
        measured = measure(cases, scratch, scale.repeats, say)
        _check(measured, scale.increment)
        of = "of recent keys" if which == "recent" else "of keys anywhere (the worst case)"
        beside = f"the same on {scale.few:,}"
        yield Row("increment", f"{what} {of}, on {scale.many:,}", measured["many"], beside, measured["few"], aim)


def _check(measured: dict[str, Measured], size: int) -> None:
    wrong = {name: taken.rows for name, taken in measured.items() if taken.rows != size}
    assert not wrong, f"increments of {size} rows, but {wrong} were staged"


def write(folder: str, into: str, rows: int) -> Callable[[], int]:
    """Raw and staged rows as one load and one step, in files of a million rows in the order of the key."""
    settings = lakehouse_in(into)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            raw, staged = _files(lake, RECIPE.raw, rows, "raw"), _files(lake, RECIPE.staged, rows, "staged")
            commit(lake, lambda connection: _register(lake, connection, raw, staged))
            return sum(file.rows for file in staged)

    return timed


def _files(lake: Lakehouse, table: Table, rows: int, layer: str) -> list[DataFile]:
    at = "TIMESTAMPTZ '2013-01-01 00:00:00Z'"
    added = {
        "raw": f"1::BIGINT AS _load_id, {at} AS _loaded_at, n AS _row",
        "staged": f"1::BIGINT AS _load_id, n AS _row, 1::BIGINT AS _staging_id, {at} AS _staged_at",
    }
    files = []
    for first in range(1, rows + 1, FILE_ROWS):
        last = min(first + FILE_ROWS, rows + 1)
        query = f"SELECT {ORDERS.format(version=0)}, {added[layer]} FROM range({first}, {last}) AS r(n)"
        file = copy_to(lake, query, new_path(lake, table))
        assert file is not None
        files.append(file)
    return files


def _register(
    lake: Lakehouse, connection: duckdb.DuckDBPyConnection, raw: list[DataFile], staged: list[DataFile]
) -> None:
    now = datetime.now(UTC)
    types = duckdb_types(connection, audited_schema(lake, RECIPE))
    own = {name: kind for name, kind in types.items() if not name.startswith("_")}
    ensure_table(connection, RECIPE.raw, {**own, **LOAD_COLUMNS})
    ensure_table(connection, RECIPE.staged, {**types, **ADDED})
    register(connection, RECIPE.raw, raw)
    register(connection, RECIPE.staged, staged)
    source, table = RECIPE.source, RECIPE.table
    ledger.advance(connection, ledger.Head("raw", RECIPE.source, RECIPE.table, 0, {}), {"cursor": "1"}, now)
    ledger.record_load(
        connection, ledger.Load(source, table, 1, "benchmark", "rows", "landed", now, now, rows_landed=1)
    )
    ledger.advance(connection, ledger.Head("staged", RECIPE.source, RECIPE.table, 0, {}), {"load_id": "1"}, now)
    ledger.record_staging(
        connection, ledger.Staging(source, table, 1, "benchmark", "rows", "staged", now, now, load_from=1, load_to=1)
    )


def stage(folder: str, into: str, rows: int, size: int, which: str) -> Callable[[], int]:
    """Land the next increment, and return its staging."""
    settings = Settings(settings_from_environment().home, f"{into}/catalog.sqlite", f"{into}/data")
    with open_lakehouse(settings) as lake:
        before = ledger.head(lake, "raw", RECIPE.source, RECIPE.table).number
        half = size // 2
        top = rows + (before - 1) * half
        old = f"{top} - i * {RECENT}" if which == "recent" else f"1 + (i * {SPREAD} + {before}) % {rows}"
        keys = f"SELECT {old} AS n FROM range({half}) AS r(i) UNION ALL FROM range({top + 1}, {top + 1 + half}) AS r(n)"
        new = lake.connection.execute(f"SELECT {ORDERS.format(version=before)} FROM ({keys})").to_arrow_table()
        source = MemorySource([batch_of(new, {"cursor": str(before + 1)})])
        load_table(lake, RECIPE.source, source, RECIPE.table, TABLE, run_id="benchmark")

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            done = stage_table(lake, RECIPE, run_id="benchmark")
            assert done.rows_updated == half, f"{done.rows_updated} rows were updated instead of {half}"
            return done.rows_inserted + done.rows_updated

    return timed
