"""Tables: how they and their schemas are called, which columns they have, and the DDL that makes them. Writing rows is
in `transaction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from data_platform.lakehouse.connect import CATALOG
from data_platform.lakehouse.sql import literal, quote, quote_all

RAW, STAGED, QUARANTINE = "raw", "staged", "quarantine"
"""The layers that have a schema for each source: `raw_<source>` and so on."""

MODELLED = "modelled"
"""The layer, and the schema, of published models."""

DATASETS, SCORES = "datasets", "scores"
"""The layers, and the schemas, of what models learn from, and of what they say of rows."""

LOAD_COLUMNS = {"_load_id": "BIGINT", "_loaded_at": "TIMESTAMP WITH TIME ZONE", "_row": "BIGINT"}
"""What every raw row carries besides what the source gave: the load, its time, and the row's number within it."""

ROW_ID = ("_load_id", "_row")
"""The columns that identify a raw row; staged rows carry them too."""

CHANGE_COLUMNS = {"_operation": "VARCHAR", "_order": "BIGINT"}
"""What raw rows from a log of changes carry besides: insert, update, delete or truncate, and the order in the log."""

CHANGE_DETAILS = {"_committed_at": "TIMESTAMP WITH TIME ZONE", "_unchanged": "VARCHAR[]"}
"""What changes of a log carry besides where their source tells it: when its transaction committed, and the columns that
an update left as they were and the log does not repeat (their value here is null). Null where there is none."""

MESSAGE_COLUMNS = {
    "_key": "VARCHAR",
    "_topic": "VARCHAR",
    "_partition": "BIGINT",
    "_offset": "BIGINT",
    "_timestamp": "TIMESTAMP WITH TIME ZONE",
    "_headers": "VARCHAR",
}
"""What rows carry besides that were messages of a broker: the message's key (BLOB, where keys are bytes), where it
stands, its time, and its headers as a JSON array of pairs. Rows of other sources may have columns of these names."""

TOMBSTONE_COLUMNS = {"_deleted_load_id": "BIGINT", "_deleted_row": "BIGINT"}
"""What a tombstone carries besides: the raw row, by ROW_ID, that the source no longer has. Of every other raw row they
are null; a raw table that never had a tombstone does not have them. The other columns are those of that row."""

PLATFORM_COLUMNS = frozenset({*LOAD_COLUMNS, *CHANGE_COLUMNS, *CHANGE_DETAILS, *TOMBSTONE_COLUMNS})
"""The names of all columns that the platform gives to raw rows itself."""


@dataclass(frozen=True)
class Table:
    """A table's place in the lakehouse."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        return quote(CATALOG, self.schema, self.name)

    @property
    def layer(self) -> str:
        """The first part of the schema: RAW, STAGED, QUARANTINE or MODELLED, or a schema of another kind."""
        return self.schema.partition("_")[0]

    @property
    def source(self) -> str:
        """The source whose table this is; empty outside the layers that have sources."""
        return self.schema.partition("_")[2]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def raw_table(source: str, table: str) -> Table:
    """Where the raw rows of a source's table lie."""
    return Table(f"{RAW}_{source}", table)


def staged_table(source: str, table: str) -> Table:
    """Where the staged rows of a source's table lie."""
    return Table(f"{STAGED}_{source}", table)


def quarantine_table(source: str, table: str) -> Table:
    """Where the quarantine of a source's table lies."""
    return Table(f"{QUARANTINE}_{source}", table)


def modelled_table(model: str) -> Table:
    """Where a published model lies."""
    return Table(MODELLED, model)


def all_tables(connection: duckdb.DuckDBPyConnection) -> list[Table]:
    """All tables and views of the lakehouse, by schema and name. Told by their columns: DuckDB's lists of tables have a
    column with the number of rows, for which DuckLake asks its catalog about each table, one by one, whether that
    column is wanted or not (duckdb/ducklake#1398)."""
    rows = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_columns() WHERE database_name = $1 "
        "UNION SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = $1 ORDER BY ALL",
        [CATALOG],
    ).fetchall()
    return [Table(*row) for row in rows]


_LIKE_FILES = frozenset(
    {"arrow", "avro", "csv", "db", "duckdb", "gpkg", "json", "jsonl", "ndjson", "parquet", "shp", "tsv", "xlsx"}
)
"""Names that DuckDB takes for those of files where there is no such table: for `raw_shop.parquet` it looks for a file,
whose absence would end the transaction."""


def column_types(connection: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """Column names and DuckDB types of a table; empty if there is no such table."""
    if table.name.lower() in _LIKE_FILES and table not in all_tables(connection):
        return {}
    try:
        # Bound, not run: half the cost of asking duckdb_columns(), which lists every table there is.
        relation = connection.sql(f"SELECT * FROM {table.sql}")
    except duckdb.CatalogException:
        return {}
    return _types(relation)


def duckdb_types(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> dict[str, str]:
    """The DuckDB type of each Arrow column."""
    return _types(connection.from_arrow(schema.empty_table()))


def _types(relation: duckdb.DuckDBPyRelation) -> dict[str, str]:
    return dict(zip(relation.columns, (str(kind) for kind in relation.types), strict=True))


def ensure_table(connection: duckdb.DuckDBPyConnection, table: Table, columns: dict[str, str]) -> None:
    """Create the table, or add the columns that it lacks, within the caller's transaction."""
    existing = column_types(connection, table)
    if not existing:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, table.schema)}")
        body = ", ".join(f"{quote(name)} {kind}" for name, kind in columns.items())
        connection.execute(f"CREATE TABLE {table.sql} ({body})")
        return
    for name, kind in columns.items():
        if name not in existing:
            connection.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quote(name)} {kind}")


def key_bounds(connection: duckdb.DuckDBPyConnection, key: Sequence[str], rows: str) -> str:
    """A condition that holds the keys of `rows` between their least and greatest values, so that files of the table
    which hold none of them are not even opened. A column in which `rows` have a null is not bounded."""
    figures = "min({0})::VARCHAR, max({0})::VARCHAR, any_value(typeof({0})), count({0}) = count(*)"
    selected = ", ".join(figures.format(quote(column)) for column in key)
    values = connection.execute(f"SELECT {selected} FROM {rows}").fetchall()[0]
    bounds = [
        f"{quote(column)} BETWEEN {literal(low)}::{kind} AND {literal(high)}::{kind}"
        for column, low, high, kind, filled in zip(
            key, values[::4], values[1::4], values[2::4], values[3::4], strict=True
        )
        if filled and low is not None
    ]
    return " AND ".join(bounds) or "true"


def filtered(rows: str, columns: Sequence[str]) -> str:
    """`rows` (what stands after FROM), all of them, for the small side of a join with a large table. DuckDB lets only a
    filtered side drop rows of the other one while that is read (by a Bloom filter), which halves the cost of a key
    anywhere in a large table; so it is filtered by what holds always, and which statistics do not tell."""
    return f"(FROM {rows} WHERE hash({quote_all(columns)}) IS NOT NULL)"
