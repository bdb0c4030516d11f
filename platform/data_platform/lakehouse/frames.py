"""Tables of the lakehouse as lazy frames of Polars: only the columns that a query needs are read, and, as far as simple
comparisons tell, only the parts of the files that may hold its rows; batch by batch. As of when tables may be read is
for `history` to say.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import duckdb
import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse, open_reader
from data_platform.lakehouse.history import current_snapshot, find_table, version_at
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.redaction import first_line

BATCH_ROWS = 100_000

COMPARISONS = {"Eq": "=", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">="}
MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def lazy_frame(lake: Lakehouse, query: str) -> pl.LazyFrame:
    """What a query gives, read each time the frame is collected. The lakehouse must be open as long as that is done."""
    connection = lake.connection.cursor()
    nothing = connection.sql(query).limit(0).to_arrow_table()
    intervals = [field.name for field in nothing.schema if _has_interval(field.type)]
    if intervals:
        raise PlatformError(
            f"Polars has no type for the intervals of {', '.join(intervals)}: name other columns, or take the rows as "
            "a table of Arrow or a relation of DuckDB."
        )
    schema = pl.DataFrame(nothing).schema

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = schema.names() if columns is None else columns
        # A frame has a column at least, also where only the rows are counted.
        chosen = wanted or schema.names()[:1]
        needed = list(dict.fromkeys([*chosen, *(predicate.meta.root_names() if predicate is not None else [])]))
        text = f"SELECT {quote_all(needed)} FROM ({query})"
        if predicate is not None:
            text += f" WHERE {' AND '.join(implied(predicate, schema)) or 'true'}"
        elif rows is not None:
            text += f" LIMIT {rows}"
        left = rows
        try:
            # A cursor for each scan: several may be read from at the same time.
            reader = connection.cursor().execute(text).to_arrow_reader(batch_rows or BATCH_ROWS)
            for batch in reader:
                frame = pl.DataFrame(pl.from_arrow(batch), schema_overrides={name: schema[name] for name in needed})
                if predicate is not None:
                    frame = frame.filter(predicate)
                if left is not None:
                    frame = frame.head(left)
                    left -= len(frame)
                yield frame.select(chosen)
                if left == 0:
                    return
        except duckdb.Error as error:
            raise _unreadable(error) from None

    return register_io_source(batches, schema=schema, validate_schema=False, is_pure=True)


Form = Literal["polars", "arrow", "duckdb"]


def read_frame(
    settings: Settings, name: str, at: int | str | datetime | None, columns: Sequence[str] | None, form: Form
) -> pl.LazyFrame | pa.Table | duckdb.DuckDBPyRelation:
    """A table (`staged/operations/flights`) as of a version or a time, or as it is now: the version is settled here, so
    that what is collected later is the same each time. The lakehouse is open as long as the frame is there.

    Raises PlatformError, naming the closest that exist, for a table, a column or a form that there is not, and for a
    version that is not kept.
    """
    if form not in get_args(Form):
        raise PlatformError(f"There is no form {form!r}: as_ may be {', '.join(get_args(Form))}.")
    if isinstance(columns, str) or len(set(columns or ())) < len(columns or ()):
        raise PlatformError(f"columns is a list of names, each of them once, such as ['id', 'name']: not {columns!r}.")
    lake = open_reader(settings)
    table = find_table(lake, name)
    given = at.isoformat() if isinstance(at, datetime) else at
    version = current_snapshot(lake.connection) if given is None else version_at(lake, table, str(given))
    source = f"{table.sql} AT (VERSION => {version})"
    try:
        there = lake.connection.sql(f"FROM {source}").columns
    except duckdb.Error as error:
        when = version if given is None else given
        raise PlatformError(f"{table} cannot be read at {when}: {first_line(error)}") from None
    missing = [column for column in columns or () if column not in there]
    if missing or (columns is not None and not columns):
        close = difflib.get_close_matches(missing[0], there, n=5, cutoff=0.4) if missing else []
        raise PlatformError(
            f"{table} has no column {', '.join(missing) or '(none named)'}. "
            + (f"The closest: {', '.join(close)}." if close else f"It has: {', '.join(there)}.")
        )
    query = f"SELECT {quote_all(columns or there)} FROM {source}"
    if form == "polars":
        return lazy_frame(lake, query)
    relation = lake.connection.sql(query)
    if form == "duckdb":
        return relation
    try:
        return relation.to_arrow_table()
    except duckdb.Error as error:
        raise _unreadable(error) from None


def _unreadable(error: duckdb.Error) -> PlatformError:
    since = ". That version has expired since: read the table anew." if "No snapshot found" in str(error) else ""
    return PlatformError(f"The rows cannot be read: {first_line(error)}{since}")


def _has_interval(kind: pa.DataType) -> bool:
    """Whether values of a type have an interval of months, days and nanoseconds in them."""
    within = (kind.field(number).type for number in range(kind.num_fields))
    return pa.types.is_interval(kind) or any(_has_interval(one) for one in within)


def implied(predicate: pl.Expr, schema: pl.Schema) -> Sequence[str]:
    """Conditions in SQL that hold for all rows for which the predicate does: its comparisons of one column with a
    value, of kinds that compare alike in DuckDB and Polars. The predicate itself is applied afterwards all the same."""
    try:
        tree = json.loads(predicate.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, ValueError):  # it has a Python function, say
        return []
    return list(_conditions(tree, schema))


def _conditions(node: Any, schema: pl.Schema) -> Iterator[str]:
    binary = node.get("BinaryExpr") if isinstance(node, dict) else None
    if not isinstance(binary, dict):
        return
    operator = binary.get("op")
    if operator in ("And", "LogicalAnd"):
        yield from _conditions(binary.get("left"), schema)
        yield from _conditions(binary.get("right"), schema)
        return
    if operator not in COMPARISONS:
        return
    left, right, sign = binary.get("left"), binary.get("right"), COMPARISONS[operator]
    if _column(left) is None:
        left, right, sign = right, left, MIRRORED[sign]
    column = _column(left)
    if column is None or column not in schema:
        return
    if (value := _value(right, schema[column])) is not None:
        yield f"{quote(column)} {sign} {value}"


def _column(node: Any) -> str | None:
    name = node.get("Column") if isinstance(node, dict) else None
    return name if isinstance(name, str) else None


def _value(node: Any, dtype: pl.DataType) -> str | None:
    """A value as DuckDB writes it; None for one of a kind that is not compared there."""
    node = node.get("Literal") if isinstance(node, dict) else None
    while isinstance(node, dict) and set(node) & {"Scalar", "Dyn"}:
        node = node.get("Scalar", node.get("Dyn"))
    if not isinstance(node, dict) or len(node) != 1:
        return None
    ((kind, value),) = node.items()
    if dtype.is_integer() and "Int" in kind and isinstance(value, int | str):
        return str(int(value))
    if dtype == pl.String and kind in ("String", "StringOwned") and isinstance(value, str):
        return literal(value) if "\0" not in value else None  # no SQL can hold it
    if dtype == pl.Date and kind == "Date" and isinstance(value, int):
        return f"(DATE '1970-01-01' + {value})"
    if isinstance(dtype, pl.Datetime) and kind == "Datetime" and isinstance(value, list) and value[1:2] in _MICROS:
        made = f"make_timestamp({int(value[0])})"
        return f"({made} AT TIME ZONE 'UTC')" if dtype.time_zone else made
    return None


_MICROS = (["Microseconds"], ["microseconds"], ["us"])
