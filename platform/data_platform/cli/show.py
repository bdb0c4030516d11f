"""How results are shown: times in words, rows as a table, CSV, JSON or Parquet. Nothing is queried here.

DuckDB writes CSV, JSON and Parquet itself, so the size of a result does not matter; only the table, which a person
reads, is limited.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_platform.errors import PlatformError, shortened

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.table import Table

    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.settings import Settings


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


COPY_OPTIONS = {
    Format.csv: "FORMAT csv, HEADER",
    Format.json: "FORMAT json, ARRAY true",
    Format.parquet: "FORMAT parquet, COMPRESSION zstd",
}

TABLE_ROWS = 50
"""Rows that a table on the screen has by default."""

CELL_CHARACTERS = 80
WIDE = 10_000
"""Width in characters of an output that goes to a pipe or a file, where nothing is cut off."""


def console() -> "Console":
    """A console on stdout, as wide as the terminal, or wide enough where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def print_json(value: Any) -> None:
    """A document on stdout; times in ISO 8601."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def grid(*columns: str, right: Sequence[str] = (), title: str | None = None) -> "Table":
    """An empty table in the style of every command; columns named in `right` are figures."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        # Figures and names stay whole when the terminal is narrow; the last column, mostly prose, gives way.
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column != columns[-1], overflow="fold"
        )
    return table


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago a moment was: `12 s ago`, `3 min ago`, `5 h ago`, `2 days ago`; `never` for None."""
    if moment is None:
        return "never"
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    if seconds < 0:
        return "in the future"
    for size, unit in ((86_400, "day"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' * (unit == 'day' and count > 1)} ago"
    return f"{seconds} s ago"


def write_rows(
    lake: "Lakehouse", relation: "duckdb.DuckDBPyRelation", form: Format, output: Path | None, limit: int | None
) -> None:
    """Write the rows of a query to stdout or a file, which appears whole or not at all.

    Raises PlatformError: the query failed on its rows, the file cannot be written, Parquet is to go to the screen.
    """
    if form is Format.table and output is not None:
        raise PlatformError("A table is for the screen: give --output together with --format csv, json or parquet.")
    if form is Format.parquet and output is None:
        raise PlatformError("Parquet is no text: say with --output FILE where it goes.")
    if form is Format.table:
        with query_errors():
            print_table(relation, limit or TABLE_ROWS)
        return
    partial = partial_file(lake.settings, output)
    if not partial.parent.is_dir():
        raise PlatformError(f"The folder {partial.parent} does not exist: create it, or write the result elsewhere.")
    try:
        with query_errors():
            copy_rows(relation, form, partial, limit)
        if output is not None:
            partial.replace(output)
        else:
            with partial.open("rb") as stream:
                shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PlatformError(f"{output} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)


def partial_file(settings: "Settings", output: Path | None) -> Path:
    """Where this process writes a result, before it is put in its place or on the screen."""
    folder = output.parent if output is not None else settings.spool
    return folder / f".dp-{os.getpid()}.part"


def copy_rows(relation: "duckdb.DuckDBPyRelation", form: Format, file: Path, limit: int | None) -> None:
    """Have DuckDB write the rows of a query to a file."""
    from data_platform.lakehouse.sql import literal

    rows = relation if limit is None else relation.limit(limit)
    rows.query("rows", f"COPY (SELECT * FROM rows) TO {literal(str(file))} ({COPY_OPTIONS[form]})")


@contextmanager
def query_errors() -> Iterator[None]:
    """What DuckDB says of a query that fails while its rows are fetched, as a message without a traceback."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise PlatformError(str(error)) from None


def print_table(relation: "duckdb.DuckDBPyRelation", limit: int) -> None:
    """Print the first rows; says how many were left out only by `more`, since counting them would run all of it."""
    rows = relation.limit(limit + 1).fetchall()
    numbers = {
        name
        for name, kind in zip(relation.columns, relation.types, strict=True)
        if str(kind) in ("DOUBLE", "FLOAT", "HUGEINT") or "INT" in str(kind) or str(kind).startswith("DECIMAL")
    }
    table = grid(*relation.columns, right=list(numbers))
    for row in rows[:limit]:
        table.add_row(*(_cell(value) for value in row))
    console().print(table)
    if len(rows) > limit:
        print(f"The first {limit:,} rows; there are more (--limit).", file=sys.stderr)


def _cell(value: Any) -> Any:
    from rich.text import Text

    if value is None:
        return Text("null", style="dim")
    if isinstance(value, datetime):
        shown = value.isoformat(sep=" ")
    elif isinstance(value, float):
        shown = f"{value:.10g}"
    else:
        shown = str(value)
    shown = shown.replace("\n", "⏎")
    return Text(shortened(shown, CELL_CHARACTERS))
