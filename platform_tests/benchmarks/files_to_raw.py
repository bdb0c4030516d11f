"""Files to raw: a large CSV file and one of JSON lines, all fields text, and one of Parquet with its types, by our load
beside DuckDB's own readers. How they are timed is `measure`'s work.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.places import count, lakehouse_in, plain_duckdb
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale

from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse

HERE = "platform_tests.benchmarks.files_to_raw"

COLUMNS = """
    n AS id, 1 + n * 7919 % 100000 AS customer_id, (n * 104729 % 1000000) / 100.0 AS amount,
    ['open', 'paid', 'sent'][1 + n % 3] AS status,
    CASE WHEN n % 10 = 0 THEN 'A chair, "oak", ' || n % 977 ELSE 'An ordinary table ' || n % 977 END AS product,
    'https://shop.example.com/orders/' || n || '?campaign=' || n % 37 AS url,
    CASE WHEN n % 4 > 0 THEN 'customer' || n % 100000 || '@example.com' END AS email,
    strftime(TIMESTAMP '2013-01-01' + INTERVAL (n) SECOND, '%Y-%m-%dT%H:%M:%SZ') AS changed_at
"""
"""Some fields need quotes, some are empty."""


def csv(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """A delimited file, quoted where need be."""
    yield from _files("csv", "CSV", scale.csv, "(FORMAT csv, HEADER)", scratch, scale.repeats, say)


def json_lines(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """An object a line, all of the same fields."""
    yield from _files("json_lines", "JSON lines", scale.json_lines, "(FORMAT json)", scratch, scale.repeats, say)


def parquet(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """A Parquet file as DuckDB writes it, with types."""
    # DuckDB reads the types of its own; what takes longer is that ours writes Parquet again, packed, with its figures.
    yield from _files("parquet", "Parquet", scale.csv, "(FORMAT parquet)", scratch, scale.repeats, say, 2.0)


READERS = {"csv": "read_csv(all_varchar)", "json_lines": "read_json (all varchar)", "parquet": "read_parquet"}


def _files(
    form: str, name: str, rows: int, written: str, scratch: Path, repeats: int, say: Say, aim: float = 1.3
) -> Iterator[Row]:
    landing = scratch / "landing"
    landing.mkdir()
    path = str(landing / f"orders.{form}")
    say("writing the file")
    prepare(f"{HERE}:write", scratch, path=path, rows=rows, written=written)
    given = {"path": path, "form": form}
    measured = measure(
        {"ours": Case(f"{HERE}:ours", given), "DuckDB": Case(f"{HERE}:duckdb", given)}, scratch, repeats, say
    )
    wrong = {which: taken.rows for which, taken in measured.items() if taken.rows != rows}
    assert not wrong, f"{rows} rows were written, but these read others: {wrong}"
    what = f"{name}, {rows:,} rows, {Path(path).stat().st_size / 1e6:,.0f} MB"
    yield Row(form, what, measured["ours"], f"DuckDB's {READERS[form]} into a .duckdb file", measured["DuckDB"], aim)


def write(folder: str, path: str, rows: int, written: str) -> Callable[[], int]:
    """Make the file."""
    connection = plain_duckdb(Path(":memory:"))

    def timed() -> int:
        connection.execute(f"COPY (SELECT {COLUMNS} FROM range(1, {rows + 1}) AS r(n)) TO '{path}' {written}")
        return rows

    return timed


def ours(folder: str, path: str, form: str) -> Callable[[], int]:
    """Our load into a lakehouse, opened and closed: known by content, each row with its file and line."""
    settings = lakehouse_in(folder)
    table = FileTable.model_validate(
        {"key": ["id"], "contract": "x.Order", "path": Path(path).name, "format": {"type": form}}
    )
    source = Files(Path(path).parent, {"orders": table}, settings.spool)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return load_table(lake, "shop", source, "orders", table, run_id="benchmark").rows_landed

    return timed


def duckdb(folder: str, path: str, form: str) -> Callable[[], int]:
    """DuckDB's reader into a table of a plain file; it infers nothing of text either."""
    connection = plain_duckdb(Path(folder) / "target.duckdb")
    names = ("id", "customer_id", "amount", "status", "product", "url", "email", "changed_at")
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in names)
    reader = {
        "csv": f"read_csv('{path}', all_varchar = true)",
        "json_lines": f"read_json('{path}', format = 'newline_delimited', columns = {{{columns}}})",
        "parquet": f"read_parquet('{path}')",
    }[form]

    def timed() -> int:
        connection.execute(f"CREATE TABLE orders AS SELECT * FROM {reader}")
        rows = count(connection, "orders")
        connection.close()
        return rows

    return timed
