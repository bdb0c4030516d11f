"""The hash of a dataset's rows: equal for equal rows, in whatever files and batches they lie."""

import hashlib
from collections.abc import Mapping, Sequence

import duckdb

from data_platform.lakehouse.sql import quote, quote_all

BATCH_ROWS = 100_000


def digest(connection: duckdb.DuckDBPyConnection, relation: str, columns: Mapping[str, str], key: Sequence[str]) -> str:
    """SHA-256 over the names and types of the columns, and the values of all rows as DuckDB writes them as text, in the
    order of the key. `relation` is what stands after FROM."""
    total = hashlib.sha256("\n".join(f"{name} {kind}" for name, kind in columns.items()).encode())
    # With its length a text cannot be taken for two, nor for a null.
    texts = (f"coalesce(strlen({quote(name)}::VARCHAR) || ':' || {quote(name)}::VARCHAR, '-')" for name in columns)
    rows = connection.execute(
        f"SELECT md5(concat({', '.join(texts)})) AS hash FROM {relation} ORDER BY {quote_all(key)}"
    ).to_arrow_reader(BATCH_ROWS)
    for batch in rows:
        total.update("".join(batch.column(0).to_pylist()).encode())
    return total.hexdigest()
