"""The tables that DuckLake makes in the catalog's database for rows that it keeps there instead of in files: which
there are, and how a catalog of an earlier release loses those that it has for other tables than the ledger's. Which
tables may have such rows is decided in `ledger.inlining`; they are written to files in `maintenance`.
"""

import re

import duckdb

from data_platform.lakehouse.compaction import begin_snapshot, require_known_catalog
from data_platform.lakehouse.connect import METADATA, Lakehouse
from data_platform.lakehouse.ledger.names import SCHEMA
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.transaction import commit

ROWS = re.compile(r"ducklake_inlined_data_(?P<table>\d+)_\d+")
DELETIONS = re.compile(r"ducklake_inlined_delete_(?P<table>\d+)")
"""How DuckLake calls them: one for each table and version of its columns, and one for each table."""

AT_ONCE = 50
"""How many are dropped in one commit: a tenth of a second."""


def tables_in_catalog(lake: Lakehouse) -> set[int]:
    """The numbers of the tables of which DuckLake may keep rows, or deletions, in the catalog's database."""
    found = (ROWS.fullmatch(name) or DELETIONS.fullmatch(name) for name in _names(lake))
    return {int(match["table"]) for match in found if match}


def drop_unused_tables(lake: Lakehouse) -> int:
    """Drop what DuckLake made in the catalog's database for rows of other tables than the ledger's, as far as it holds
    none; how many tables went. Nothing else may have the lakehouse open: what read an earlier version before, and reads
    it again, asks for tables that are gone. Raises PlatformError, and changes nothing, if the catalog is of another
    version of DuckLake than the one whose tables are known here."""
    require_known_catalog(lake)
    # Those of deletions stay: a process that has seen one takes it to be there for as long as it runs.
    candidates = [
        name
        for (name,) in lake.connection.execute(
            f"SELECT i.table_name FROM {METADATA}.ducklake_inlined_data_tables AS i "
            f"ANTI JOIN (SELECT table_id FROM {METADATA}.ducklake_table JOIN {METADATA}.ducklake_schema "
            f"USING (schema_id) WHERE schema_name = {literal(SCHEMA)}) USING (table_id) ORDER BY ALL"
        ).fetchall()
        if ROWS.fullmatch(name)
    ]
    dropped = 0
    for start in range(0, len(candidates), AT_ONCE):
        names = candidates[start : start + AT_ONCE]

        def drop(connection: duckdb.DuckDBPyConnection, names: list[str] = names) -> int:
            empty = [name for name in names if not connection.execute(f"FROM {METADATA}.{name} LIMIT 1").fetchall()]
            if empty:
                # Whoever reads the next version reads the catalog's schema again, and knows of them no more.
                begin_snapshot(connection, "", new_schema=True)
                listed = ", ".join(literal(name) for name in empty)
                connection.execute(
                    f"DELETE FROM {METADATA}.ducklake_inlined_data_tables WHERE table_name IN ({listed})"
                )
                for name in empty:
                    connection.execute(f"DROP TABLE {METADATA}.{name}")
            return len(empty)

        dropped += commit(lake, drop)
    return dropped


def _names(lake: Lakehouse) -> list[str]:
    """The names of all tables in the catalog's database. It is queried itself: DuckDB may not know yet of a table that
    another process made."""
    function, query = "postgres_query", "SELECT tablename AS name FROM pg_catalog.pg_tables"
    if lake.settings.catalog_is_sqlite:
        function, query = "sqlite_query", "SELECT name FROM sqlite_master"
    rows = lake.connection.execute(f"SELECT name FROM {function}({literal(METADATA)}, {literal(query)})").fetchall()
    return [name for (name,) in rows]
