"""Large values that the log does not repeat, of rows whose key has changed: under the new key there is no earlier
version to take them from, so they are taken from the table as it is now. Of other rows, the earlier version has them:
that is staging's work.

What the table holds now may be newer than the change: then the log has a later change of the row that says so. If the
row is no longer there under that key, the log has its later delete, or its next change of key.
"""

from collections.abc import Sequence
from dataclasses import replace

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.ingestion.changes.postgresql.pgoutput import Rows
from data_platform.ingestion.changes.postgresql.server import Server, verbatim
from data_platform.ingestion.changes.postgresql.values import LogColumn
from data_platform.ingestion.sql.dialects.session import valid_text
from data_platform.lakehouse.sql import quote


def filled(server: Server, relation: str, key: Sequence[LogColumn], rows: Rows) -> Rows:
    """The rows, with the values that inserts do not repeat. A row that is not found stays as it is."""
    is_moved = pc.and_(pc.equal(rows.operations, "insert"), pc.is_valid(rows.unchanged))
    numbers = pc.indices_nonzero(is_moved).cast(pa.int64())
    if not len(numbers) or not key:
        return rows
    names = rows.unchanged.take(numbers).to_pylist()
    wanted = sorted({name for each in names for name in each})
    values = [valid_text(rows.texts[column.name].take(numbers)).to_pylist() for column in key]
    places = range(len(key))
    # concat writes a value as the log does; a cast would not for every type.
    columns_wanted = [f"t.{verbatim(quote(name))}" for name in wanted]
    texts = ", ".join(f"case when {column} is not null then concat({column}) end" for column in columns_wanted)
    statement = (
        f"select t.tableoid is not null as is_there, array[{texts}]::text[] as texts "
        f"from unnest({', '.join('%s::text[]' for _ in key)}) "
        f"with ordinality as u({', '.join(f'k{place}' for place in places)}, n) left join {verbatim(relation)} t on "
        + " and ".join(
            f"t.{verbatim(quote(column.name))} = u.k{place}::{verbatim(column.column.declared)}"
            for place, column in zip(places, key, strict=True)
        )
        + " order by n"
    )
    try:
        found = server.rows_or_error(statement, values)
    except (psycopg.DataError, psycopg.ProgrammingError):
        return rows  # its columns were altered since
    columns = {name: rows.texts[name].to_pylist() for name in wanted}
    unchanged = rows.unchanged.to_pylist()
    for number, each, row in zip(numbers.to_pylist(), names, found, strict=True):
        if row["is_there"]:
            unchanged[number] = None
            for name in each:
                text = row["texts"][wanted.index(name)]
                columns[name][number] = None if text is None else text.encode()
    arrays = {name: pa.array(column, pa.binary()) for name, column in columns.items()}
    return replace(rows, texts={**rows.texts, **arrays}, unchanged=pa.array(unchanged, rows.unchanged.type))
