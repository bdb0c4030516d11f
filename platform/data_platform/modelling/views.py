"""Lakehouses of earlier releases: there a published model is a view of a table in the schema `build`, at a snapshot.
Before the first build such views become tables with the same rows, and what they read is dropped. Everything else about
models is elsewhere: this module goes when no such lakehouse is left.
"""

import duckdb

from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import MODELLED, Table, all_tables, column_types, ensure_table, modelled_table
from data_platform.lakehouse.transaction import (
    DataFile,
    commit,
    discard,
    discarded_on_failure,
    new_path,
    register,
)
from data_platform.modelling.landing import kept_columns, removed_on_failure, write_rows

BUILD = "build"


def replace_views(lake: Lakehouse) -> list[str]:
    """Turn the views of published models into tables, each in a short commit of its own; return their names."""
    rows = lake.connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE (database_name, schema_name) = (?, ?) ORDER BY ALL",
        [CATALOG, MODELLED],
    ).fetchall()
    return [model for (model,) in rows if _replace_view(lake, model)]


def _replace_view(lake: Lakehouse, model: str) -> bool:
    view = modelled_table(model)
    path = new_path(lake, view)
    query = f"SELECT * FROM {view.sql}"
    with removed_on_failure(lake, path):
        columns = kept_columns(lake.connection, query, model)
        file = write_rows(lake, query, columns, path)
    with discarded_on_failure(lake, [file]):
        replaced = commit(lake, lambda connection: _replace(connection, view, columns, file))
    if not replaced or not file.rows:
        discard(lake, path)
    return replaced


def _replace(connection: duckdb.DuckDBPyConnection, view: Table, columns: dict[str, str], file: DataFile) -> bool:
    """Within a transaction; false if another process was first."""
    there = connection.execute(
        "SELECT 1 FROM duckdb_views() WHERE (database_name, schema_name, view_name) = (?, ?, ?)",
        [CATALOG, view.schema, view.name],
    ).fetchone()
    if there is None:
        return False
    connection.execute(f"DROP VIEW {view.sql}")
    ensure_table(connection, view, columns)
    if file.rows:
        register(connection, view, [file])
    built = Table(BUILD, view.name)
    if column_types(connection, built):
        connection.execute(f"DROP TABLE {built.sql}")
        if not any(table.schema == BUILD for table in all_tables(connection)):
            connection.execute(f"DROP SCHEMA {quote(CATALOG, BUILD)}")
    return True
