"""Indexes of a PostgreSQL catalog. DuckLake makes none, so that its server would read all there is of every table to
say a few things of one. Of SQLite DuckDB always reads whole tables: there they would be of no use.
"""

from data_platform.lakehouse.connect import METADATA, Lakehouse
from data_platform.lakehouse.sql import literal

INDEXES = {
    "ducklake_data_file": "table_id",
    "ducklake_delete_file": "table_id",
    "ducklake_file_column_stats": "table_id, column_id",
    "ducklake_schema_versions": "table_id",
    "ducklake_table_column_stats": "table_id",
    "ducklake_table_stats": "table_id",
}
"""By what DuckLake looks for rows of its tables that are many: one for each table or file of the lakehouse."""


def create_indexes(lake: Lakehouse) -> None:
    """Create the indexes that are not there. The caller holds the writer lock: rows cannot be added meanwhile."""
    if lake.settings.catalog_is_sqlite:
        return
    statements = "; ".join(
        f"CREATE INDEX IF NOT EXISTS data_platform_{table} ON {table} ({columns})" for table, columns in INDEXES.items()
    )
    lake.connection.execute(f"CALL postgres_execute({literal(METADATA)}, {literal(statements)})")
