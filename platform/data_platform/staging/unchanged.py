"""Values that a log of changes does not repeat: an update of PostgreSQL leaves out long values (TOAST) that it did not
change, and `_unchanged` names their columns. Each is taken from the last raw row of the same key that has it, before
the staging function sees the rows. Raw rows stay as they came.
"""

from collections.abc import Sequence

import duckdb
import polars as pl

from data_platform.contracts.audit import ContractError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import CHANGE_COLUMNS, CHANGE_DETAILS, ROW_ID, Table, key_bounds
from data_platform.lakehouse.transaction import TempRelation, temp_relation

OPERATION, _ = CHANGE_COLUMNS
_, UNCHANGED = CHANGE_DETAILS

PLACE = "_load_id::HUGEINT * 9223372036854775808 + _row"
"""A raw row's place among all of its table, in one number: rows of a log land in the order of the log."""


def with_unchanged_values(
    lake: Lakehouse, raw: Table, key: Sequence[str], rows: pl.DataFrame, *, private: bool
) -> pl.DataFrame:
    """A frame of raw rows of a table with the values that the log did not repeat. What it costs follows the rows that
    need it and the files of raw that may hold their keys. Of a `private` table messages show no key.

    Raises ContractError if the raw rows do not have the `key` of the staged table among their columns, or if no
    earlier row has a value.
    """
    if UNCHANGED not in rows.columns or rows[UNCHANGED].null_count() == len(rows):
        return rows
    named = rows.select(UNCHANGED).with_row_index("at").explode(UNCHANGED).drop_nulls()
    if named.is_empty():
        return rows
    made = [name for name in key if name not in rows.columns]
    if made or not key:
        why = f"the key ({', '.join(made)}) is made in staging" if made else "it has no key"
        raise ContractError(
            f"{raw}: its log leaves out values that an update did not change (of {named[UNCHANGED][0]}), and they "
            f"cannot be looked up, as {why}. {IN_FULL}"
        )
    connection = lake.duplicate().connection
    for column in named[UNCHANGED].unique(maintain_order=True):
        if column not in rows.columns:
            continue  # the raw table lost it since: nobody can ask for it
        places = named.filter(pl.col(UNCHANGED) == column)["at"]
        values = _values(connection, raw, key, rows[places.to_list()], column, private=private)
        rows = rows.with_columns(rows[column].scatter(places, values))
    return rows


IN_FULL = (
    "Have the source write whole rows: ALTER TABLE ... REPLICA IDENTITY FULL; or read the table afresh with "
    "--full-refresh."
)


def _values(
    connection: duckdb.DuckDBPyConnection,
    raw: Table,
    key: Sequence[str],
    rows: pl.DataFrame,
    column: str,
    *,
    private: bool,
) -> pl.Series:
    """The value that `column` had before each of `rows`."""
    keys = [f"k{number}" for number in range(len(key))]
    found: dict[int, object] = {}
    wanted = rows.select(
        pl.int_range(pl.len()).alias("n"),
        *(pl.col(name).alias(short) for name, short in zip(key, keys, strict=True)),
        *ROW_ID,
        OPERATION,
    )
    while not wanted.is_empty():
        connection.register("wanted", wanted.to_arrow())
        with temp_relation(connection, _under_the_key_before(raw, key, keys)) as asked:
            connection.unregister("wanted")
            last = connection.execute(_last_rows(connection, raw, key, keys, asked, column)).pl()
        missing = wanted.join(last, on="n", how="anti")
        if not missing.is_empty():
            which = "" if private else f" of the key {', '.join(str(missing[short][0]) for short in keys)}"
            raise ContractError(
                f"{raw}: an update left the value of {column} as it was, and no earlier row{which} has it. {IN_FULL}"
            )
        has_it = last.filter(~pl.col("again"))
        found |= dict(zip(has_it["n"], has_it["value"], strict=True))
        wanted = last.filter("again").select("n", *keys, *ROW_ID, pl.lit("insert").alias(OPERATION))
    return pl.Series(column, [found[number] for number in range(len(rows))], dtype=rows.schema[column])


def _under_the_key_before(raw: Table, key: Sequence[str], keys: Sequence[str]) -> str:
    """A query for what is `wanted`, by the key that it had before: an insert without a value is what a change of the
    key left, and the delete of the old key stands just before it."""
    old = ", ".join(f"coalesce(d.{quote(name)}, w.{short}) AS {short}" for name, short in zip(key, keys, strict=True))
    return (
        f"SELECT w.n, {old}, w._load_id, w._row FROM wanted AS w LEFT JOIN "
        f"(FROM {raw.sql} WHERE {OPERATION} = 'delete' AND "
        "_load_id BETWEEN (SELECT min(_load_id) FROM wanted) AND (SELECT max(_load_id) FROM wanted)) AS d "
        f"ON w.{OPERATION} = 'insert' AND d._load_id = w._load_id AND d._row = w._row - 1"
    )


def _last_rows(
    connection: duckdb.DuckDBPyConnection,
    raw: Table,
    key: Sequence[str],
    keys: Sequence[str],
    asked: TempRelation,
    column: str,
) -> str:
    """A query for the last row before each one `asked` for that has the value, or that a change of the key left
    without it (`again`)."""
    named = ", ".join(f"{quote(name)} AS {short}" for name, short in zip(key, keys, strict=True))
    left_out = f"coalesce(list_contains({UNCHANGED}, {literal(column)}), false)"
    spelt = ", ".join(f"{short} AS {quote(name)}" for name, short in zip(key, keys, strict=True))
    bounds = key_bounds(connection, key, f"(SELECT {spelt} FROM {asked.sql})")
    rows = (
        f"SELECT {named}, {PLACE} AS place, _load_id, _row, {quote(column)} AS value, {left_out} AS again "
        f"FROM {raw.sql} WHERE {bounds} AND _load_id <= (SELECT max(_load_id) FROM {asked.sql}) "
        f"AND ({', '.join(map(quote, key))}) IN (SELECT ({', '.join(keys)}) FROM {asked.sql}) "
        f"AND ({OPERATION} = 'insert' OR ({OPERATION} = 'update' AND NOT {left_out}))"
    )
    same = " AND ".join(f"w.{short} = r.{short}" for short in keys)
    return (
        f"SELECT w.n, {', '.join(f'r.{short}' for short in keys)}, r._load_id, r._row, r.value, r.again "
        f"FROM (SELECT *, {PLACE} AS place FROM {asked.sql}) AS w ASOF JOIN ({rows}) AS r "
        f"ON {same} AND w.place > r.place"
    )
