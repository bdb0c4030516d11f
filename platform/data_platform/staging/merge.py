"""Newest wins: audited rows against each other and against what is staged. Finds out before the commit, so that the
commit itself only deletes by key and registers a file.

MERGE would rewrite whole files of the table; deleting the outdated keys and adding a file does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.transaction import DataFile, copy_to, discard, new_path
from data_platform.staging.recipe import Recipe, StagingResult, order_of


@dataclass(frozen=True)
class Merge:
    """What replaces what: files to register, and whether the keys in the temporary table `outdated` are deleted."""

    result: StagingResult
    file: DataFile | None
    deletes: bool


def merge(lake: Lakehouse, recipe: Recipe, file: DataFile | None, result: StagingResult, *, exists: bool) -> Merge:
    """Keep the newest version of each key, among the new rows in `file` and, if the staged table `exists` and stays,
    against its rows."""
    if file is None:
        return Merge(result, None, deletes=False)
    connection = lake.connection
    keys = quote_all(recipe.key)
    incoming = f"read_parquet({literal(file.path)})"
    losers = _find_losers(connection, recipe, file)
    winners = incoming
    if losers:
        numbered = f"read_parquet({literal(file.path)}, file_row_number = true)"
        winners = f"(SELECT * EXCLUDE (file_row_number) FROM {numbered} ANTI JOIN losers USING (file_row_number))"
    matched = outdated = 0
    if exists:
        matched, outdated = _find_outdated(connection, recipe, winners)
    if not losers and matched == outdated:
        kept: DataFile | None = file
    else:
        anti = f" ANTI JOIN newer USING ({keys})" if matched > outdated else ""
        kept = copy_to(lake, f"SELECT * FROM {winners}{anti}", new_path(lake, recipe.staged))
        discard(lake, file.path)
    rows = kept.rows if kept is not None else 0
    return Merge(
        replace(
            result,
            rows_inserted=rows - outdated,
            rows_updated=outdated,
            rows_superseded=file.rows - rows,
            bytes=kept.bytes if kept is not None else 0,
        ),
        kept,
        deletes=outdated > 0,
    )


def _find_losers(connection: duckdb.DuckDBPyConnection, recipe: Recipe, file: DataFile) -> int:
    """Find the rows of `file` that a newer one with the same key beats, by their number in the file (the temporary
    table `losers`); how many. Only keys that repeat are ordered, and of them only the columns that decide."""
    keys = quote_all(recipe.key)
    numbered = f"read_parquet({literal(file.path)}, file_row_number = true)"
    order = ", ".join(f"{quote(c)} DESC NULLS LAST" for c in order_of(recipe))
    repeated = f"(SELECT {keys} FROM {numbered} GROUP BY ALL HAVING count(*) > 1)"
    return _count_created(
        connection,
        f"losers AS SELECT file_row_number FROM {numbered} SEMI JOIN {repeated} USING ({keys}) "
        f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) > 1",
    )


def _find_outdated(connection: duckdb.DuckDBPyConnection, recipe: Recipe, winners: str) -> tuple[int, int]:
    """Compare new rows with the staged rows of the same key: `outdated` are staged keys that a new row replaces,
    `newer` those whose staged row is newer than the new one. Return how many match, and how many are outdated."""
    keys = quote_all(recipe.key)
    columns = quote_all([*recipe.key, *order_of(recipe)])
    bounds = key_bounds(connection, recipe.key, winners)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE arriving AS SELECT {columns} FROM {winners}")
    # Compared as rows, nulls last: an unknown version is the oldest.
    new, old = (
        ", ".join(f"{alias}.{quote(c)} IS NOT NULL, {alias}.{quote(c)}" for c in order_of(recipe))
        for alias in ("n", "s")
    )
    on = " AND ".join(f"s.{quote(k)} = n.{quote(k)}" for k in recipe.key)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE matched AS SELECT n.*, ({new}) >= ({old}) AS wins "
        f"FROM (SELECT {columns} FROM {recipe.staged.sql} WHERE {bounds}) AS s JOIN arriving AS n ON {on}"
    )
    outdated = _count_created(connection, f"outdated AS SELECT {keys} FROM matched WHERE wins")
    newer = _count_created(connection, f"newer AS SELECT {keys} FROM matched WHERE NOT wins")
    return outdated + newer, outdated


def key_bounds(connection: duckdb.DuckDBPyConnection, key: Sequence[str], rows: str) -> str:
    """A condition that holds the keys of `rows` between their least and greatest values, so that files of the table
    which hold none of them are not even opened."""
    selected = ", ".join(
        f"min({quote(c)})::VARCHAR, max({quote(c)})::VARCHAR, any_value(typeof({quote(c)}))" for c in key
    )
    values = connection.execute(f"SELECT {selected} FROM {rows}").fetchall()[0]
    bounds = [
        f"{quote(column)} BETWEEN {literal(low)}::{kind} AND {literal(high)}::{kind}"
        for column, low, high, kind in zip(key, values[::3], values[1::3], values[2::3], strict=True)
        if low is not None
    ]
    return " AND ".join(bounds) or "true"


def _count_created(connection: duckdb.DuckDBPyConnection, definition: str) -> int:
    return _scalar(connection, f"CREATE OR REPLACE TEMP TABLE {definition}")


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row is not None else 0
