"""Logs and nested JSON to raw, all fields text, by our load beside DuckDB's own readers: an access log by a regular
expression, the log of a container as Docker has it, and the elements of an array in each line of JSON. How they are
timed is `measure`'s work.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.places import count, lakehouse_in, plain_duckdb
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale

from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse

HERE = "platform_tests.benchmarks.logs_to_raw"

FORMATS: dict[str, dict[str, Any]] = {
    "combined": {"type": "log", "pattern": "combined"},
    "container_log": {"type": "container_log"},
    "nested": {"type": "json_lines", "rows": "lines", "parent": {"order_id": "id", "line": "lines[#]"}},
}
WHAT = {
    "combined": ("an access log", "DuckDB's read_csv and regexp_extract"),
    "container_log": ("the log of a container", "DuckDB's read_json"),
    "nested": ("arrays in JSON lines", "DuckDB's read_json and unnest"),
}

FIELDS = ("client_ip", "ident", "user", "at", "request", "status", "bytes", "referer", "user_agent")
COMBINED = r'^(\S+) (\S+) (.+?) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\S+) (\S+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"'
"""What DuckDB takes apart: a request as a whole, no part of it checked."""

LINES = 3
"""Elements in each array of nested JSON."""


def logs(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """Each kind in turn, of as many rows as of JSON lines."""
    landing = scratch / "landing"
    landing.mkdir()
    rows = scale.json_lines
    for kind in FORMATS:
        path = landing / f"{kind}.log"
        say(f"writing {kind}")
        prepare(f"{HERE}:write", scratch, path=str(path), rows=rows, kind=kind)
        given = {"path": str(path), "kind": kind}
        measured = measure(
            {"ours": Case(f"{HERE}:ours", given), "DuckDB": Case(f"{HERE}:duckdb", given)}, scratch, scale.repeats, say
        )
        wrong = {which: taken.rows for which, taken in measured.items() if taken.rows != rows}
        assert not wrong, f"{rows} rows were written, but these read others: {wrong}"
        what, beside = WHAT[kind]
        size = path.stat().st_size / 1e6
        yield Row("logs", f"{what}, {rows:,} rows, {size:,.0f} MB", measured["ours"], beside, measured["DuckDB"], 2.0)
        path.unlink()


def write(folder: str, path: str, rows: int, kind: str) -> Callable[[], int]:
    """Make the file."""

    def line(n: int) -> str:
        second = f"{n // 60 % 60:02}:{n % 60:02}"
        if kind == "combined":
            agent = "Mozilla/5.0 (X11; Linux x86_64)" if n % 7 else 'A \\"quoted\\" one'
            request = f"GET /articles/{n % 977}?page={n % 37} HTTP/1.1"
            at = f"10/Oct/2025:13:{second} +0200"
            return f'192.0.2.{n % 250} - - [{at}] "{request}" 200 {n * 7919 % 100_000} "-" "{agent}"\n'
        if kind == "container_log":
            log = f'level=info msg="order {n} was sent" customer={n % 977} ms={n % 313}\n'
            return json.dumps({"log": log, "stream": "stdout", "time": f"2025-10-10T13:{second}.123456789Z"}) + "\n"
        elements = [{"sku": f"A-{(n + k) % 977}", "quantity": k + 1, "price": n % 10_000 / 100} for k in range(LINES)]
        return json.dumps({"id": n, "customer": f"customer {n % 977}", "lines": elements}) + "\n"

    def timed() -> int:
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(map(line, range(rows // LINES if kind == "nested" else rows)))
            if kind == "nested" and rows % LINES:
                elements = [{"sku": "A", "quantity": 1, "price": 1.5}] * (rows % LINES)
                file.write(json.dumps({"id": -1, "customer": "", "lines": elements}) + "\n")
        return rows

    return timed


def ours(folder: str, path: str, kind: str) -> Callable[[], int]:
    """Our load into a lakehouse, opened and closed: known by content, each row with its file and line."""
    settings = lakehouse_in(folder)
    table = FileTable.model_validate(
        {"key": [], "contract": "x.Line", "path": Path(path).name, "format": FORMATS[kind]}
    )
    source = Files(Path(path).parent, {"lines": table}, settings.spool)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return load_table(lake, "web", source, "lines", table, run_id="benchmark").rows_landed

    return timed


def duckdb(folder: str, path: str, kind: str) -> Callable[[], int]:
    """DuckDB's reader into a table of a plain file; it infers nothing of text either."""
    connection = plain_duckdb(Path(folder) / "target.duckdb")
    names = ", ".join(f"'{name}'" for name in FIELDS)
    lines = (
        f"read_csv('{path}', columns = {{line: 'VARCHAR'}}, header = false, delim = '\x01', quote = '', escape = '')"
    )
    json_lines = f"read_json('{path}', format = 'newline_delimited', columns = "
    element = "STRUCT(sku VARCHAR, quantity VARCHAR, price VARCHAR)[]"
    query = {
        "combined": f"SELECT unnest(regexp_extract(line, '{COMBINED}', [{names}])) FROM {lines}",
        "container_log": f"SELECT * FROM {json_lines} {{log: 'VARCHAR', stream: 'VARCHAR', time: 'VARCHAR'}})",
        "nested": f"SELECT id, generate_subscripts(lines, 1) AS line, unnest(lines, recursive := true) "
        f"FROM {json_lines} {{id: 'VARCHAR', lines: '{element}'}})",
    }[kind]

    def timed() -> int:
        connection.execute(f"CREATE TABLE lines AS {query}")
        rows = count(connection, "lines")
        connection.close()
        return rows

    return timed
