"""Raw to staged: text to types, rules, quarantine and the newest version of each key, by the staging step beside the
least SQL that does as much with the rows (and tells no reasons). How they are timed is `measure`'s work.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from platform_tests.benchmarks.contracts import TextOrder, orders
from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.places import count, lakehouse_in, plain_duckdb
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.tables import MemorySource

from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch, TableOptions
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

HERE = "platform_tests.benchmarks.raw_to_staged"
PART = 250_000
RECIPE = Recipe("shop", "orders", ("id",), TextOrder, orders, newest_by="changed_at")
TABLE = TableOptions(key=["id"], contract="platform_tests.benchmarks.contracts.TextOrder")

RAW = """
    SELECT (CASE WHEN n % 50 = 0 THEN n - 10 ELSE n END)::VARCHAR AS id,
        (1 + n * 7919 % 100000)::VARCHAR AS customer_id,
        CASE WHEN n % 200 = 7 THEN 'unknown' ELSE (n * 104729 % 1000000 / 100)::DECIMAL(12, 2)::VARCHAR END AS amount,
        CASE WHEN n % 3 = 0 THEN (n % 90 / 100.0)::DECIMAL(3, 2)::VARCHAR END AS discount,
        (CASE WHEN n % 400 = 9 THEN -1 ELSE 1 + n % 9 END)::VARCHAR AS quantity,
        ['open', 'Paid', 'sent'][1 + n % 3] AS status,
        CASE WHEN n % 400 = 11 THEN 'France' ELSE ['FR', 'de', 'US', 'JP'][1 + n % 4] END AS country,
        ['true', 'false'][1 + n % 2] AS gift,
        strftime(DATE '2013-01-01' + (n % 365)::INTEGER, '%Y-%m-%d') AS ordered_on,
        strftime(TIMESTAMP '2013-01-01' + INTERVAL (n) SECOND, '%Y-%m-%dT%H:%M:%SZ') AS changed_at
    FROM range({first}, {last}) AS r(n)
"""
"""One row in a hundred is bad, one in fifty a newer version of the row ten before it."""

TYPED = """
    CREATE TEMP VIEW typed AS SELECT TRY_CAST(id AS BIGINT) AS id, TRY_CAST(customer_id AS BIGINT) AS customer_id,
        TRY_CAST(amount AS DOUBLE) AS amount, discount AS discount_text, TRY_CAST(discount AS DOUBLE) AS discount,
        TRY_CAST(quantity AS BIGINT) AS quantity, lower(trim(status)) AS status, upper(country) AS country,
        TRY_CAST(gift AS BOOLEAN) AS gift, TRY_CAST(ordered_on AS DATE) AS ordered_on,
        TRY_CAST(changed_at AS TIMESTAMPTZ) AS changed_at, _load_id, _row FROM source.orders
"""
RULES = """
    id IS NOT NULL AND customer_id >= 1 AND amount BETWEEN 0 AND 100000 AND quantity BETWEEN 1 AND 1000
    AND (discount_text IS NULL OR discount BETWEEN 0 AND 1) AND status IN ('open', 'paid', 'sent')
    AND length(country) = 2 AND gift IS NOT NULL AND ordered_on IS NOT NULL AND changed_at IS NOT NULL
"""
GOOD = f"""
    CREATE TABLE good AS SELECT * EXCLUDE (discount_text) FROM typed WHERE {RULES}
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY changed_at DESC, _load_id DESC, _row DESC) = 1
"""
BAD = f"CREATE TABLE bad AS SELECT * FROM source.orders SEMI JOIN (FROM typed WHERE ({RULES}) IS NOT TRUE) USING (_row)"


def staging(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """A first staging of all rows."""
    raw = scratch / "raw"
    raw.mkdir()
    say("loading raw rows")
    prepare(f"{HERE}:load", scratch, into=str(raw), rows=scale.staged, query=RAW, beside=True)
    given = {"raw": str(raw)}
    cases = {"ours": Case(f"{HERE}:ours", given), "DuckDB": Case(f"{HERE}:duckdb", given)}
    measured = measure(cases, scratch, scale.repeats, say)
    ours, plain = measured["ours"], measured["DuckDB"]
    assert ours.rows == plain.rows, f"ours staged {ours.rows} rows, DuckDB {plain.rows}"
    what = f"Staging with audit, {scale.staged:,} rows of {len(TextOrder.to_schema().columns)} columns"
    yield Row("staging", what, ours, "TRY_CAST, WHERE and row_number in DuckDB", plain, 2.0)


def load(folder: str, into: str, rows: int, query: str, beside: bool = False) -> Callable[[], int]:
    """Make the raw table of what `query` gives from `first` to `last`, in a lakehouse and, if it is wanted `beside` it,
    in a plain file."""
    settings = lakehouse_in(into)
    connection = plain_duckdb(Path(into) / "raw.duckdb")

    def batches() -> Iterator[Batch]:
        for first in range(1, rows + 1, PART):
            last = min(first + PART, rows + 1)
            given = connection.execute(query.format(first=first, last=last)).to_arrow_table()
            yield Batch("orders", given, "rows", {"cursor": "1"} if last > rows else None)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            landed = load_table(lake, "shop", MemorySource(batches()), "orders", TABLE, run_id="benchmark")
        if beside:
            # As they lie in the lakehouse, so that both read the same.
            connection.execute(
                f"CREATE TABLE orders AS FROM read_parquet('{settings.data}/raw_shop/orders/*.parquet') ORDER BY _row"
            )
        connection.close()
        return landed.rows_landed

    return timed


def copied(folder: str, raw: str) -> Settings:
    """The lakehouse in `raw` before anything was staged: a copy of the catalog in `folder`, and the data."""
    template = settings_from_environment()
    shutil.copyfile(f"{raw}/catalog.sqlite", f"{folder}/catalog.sqlite")
    for schema in ("staged_shop", "quarantine_shop"):
        shutil.rmtree(Path(raw) / "data" / schema, ignore_errors=True)
    return Settings(template.home, f"{folder}/catalog.sqlite", f"{raw}/data")


def ours(folder: str, raw: str) -> Callable[[], int]:
    """The staging step, on a copy of the catalog as it was before."""
    settings = copied(folder, raw)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return stage_table(lake, RECIPE, run_id="benchmark").rows_inserted

    return timed


def duckdb(folder: str, raw: str) -> Callable[[], int]:
    """The SQL, from a plain file to a plain file."""
    connection = plain_duckdb(Path(folder) / "target.duckdb")
    connection.execute("LOAD icu")
    connection.execute("SET TimeZone = 'UTC'")

    def timed() -> int:
        connection.execute(f"ATTACH '{raw}/raw.duckdb' AS source (READ_ONLY)")
        for statement in (TYPED, GOOD, BAD):
            connection.execute(statement)
        rows = count(connection, "good")
        connection.close()
        return rows

    return timed
