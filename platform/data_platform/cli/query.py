"""`dp sql` and `dp read`: query any table, as it is or as it was. Both open the lakehouse read-only."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_platform.cli.show import Format, partial_file, query_errors, write_rows
from data_platform.errors import PlatformError

FormatOption = Annotated[Format, typer.Option("--format", "-f", help="table (for the screen), csv, json or parquet.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: the screen.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="Rows at most; default: 50 for a table, else all.")
]


def sql(
    query: Annotated[str, typer.Argument(help='One query, such as "from staged_web.visits"; - reads it from stdin.')],
    form: FormatOption = Format.table,
    output: OutputOption = None,
    limit: LimitOption = None,
    unrestricted: Annotated[
        bool,
        typer.Option("--unrestricted", help="Let it read and write files and other databases; the lakehouse stays."),
    ] = False,
) -> None:
    """Query the lakehouse. Nothing is written, and nothing else is read.

    Its schemas are raw_<source>, staged_<source>, quarantine_<source>, modelled and platform (the ledger).
    """
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.guard import require_query, restrict
    from data_platform.lakehouse.history import run_query
    from data_platform.lakehouse.settings import settings_from_environment

    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise PlatformError('There is no query. Give one, such as dp sql "from modelled.mart_punctuality limit 10".')
    if not unrestricted:
        require_query(text)
    settings = settings_from_environment()
    with open_lakehouse(settings, read_only=True) as lake:
        if not unrestricted:
            restrict(lake, partial_file(settings, output))
        result = run_query(lake, text)
        if result is None:
            print("Done; the statement has no result.", file=sys.stderr)
            return
        write_rows(lake, result, form, output, limit)


def read(
    table: Annotated[str, typer.Argument(help="schema.table, or an asset: staged/web/visits, modelled/fct_flight.")],
    at: Annotated[
        str | None, typer.Option(help="A version (`dp snapshots` lists them), or a time: 2026-01-31T08:00:00+00:00.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas; default: all.")] = None,
    form: FormatOption = Format.table,
    output: OutputOption = None,
    limit: LimitOption = None,
) -> None:
    """Read a table, as it is now or as it was at a version or a time."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import read_table
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.sql import quote_all

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        relation = read_table(lake, table, at)
        if columns is not None:
            chosen = [name.strip() for name in columns.split(",") if name.strip()]
            check_columns(table, chosen, relation.columns)
            with query_errors():
                relation = relation.project(quote_all(chosen))
        write_rows(lake, relation, form, output, limit)


def check_columns(table: str, chosen: list[str], there: list[str]) -> None:
    """Raise PlatformError, listing the columns that exist, for one that does not."""
    missing = [name for name in chosen if name not in there]
    if missing or not chosen:
        raise PlatformError(
            f"{table} has no column {', '.join(missing) or '(none named)'}. It has: {', '.join(there)}."
        )
