"""Which rows DuckLake keeps in its catalog instead of files: those of the ledger, of which each step commits a few, and
of no other table. For each table that may have such rows DuckLake makes one in the catalog's database, and every
transaction pays for all of them: SQLite parses their definitions whenever it opens the file, and a question for one
that is not there lists them.
"""

import duckdb

from data_platform.lakehouse.connect import CATALOG
from data_platform.lakehouse.ledger.names import SCHEMA, name
from data_platform.lakehouse.sql import literal, quote

OPTION = "data_inlining_row_limit"
"""DuckLake's option: how many rows of one commit it keeps in the catalog, of all tables or of those of a schema."""

LEDGER_ROWS = 10
"""How many rows of a ledger table one commit keeps there; more are written to a file."""


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the ledger's schema, within the caller's transaction: DuckLake sets options of a schema only once it is
    committed."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, SCHEMA)}")


def keeps_others_in_files(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the rows of all tables but the ledger's are kept in files. They are not in a lakehouse of an earlier
    release."""
    query = (
        f"SELECT count(*) FILTER (scope = 'GLOBAL' AND value = '0'), count(*) FILTER (scope_entry = {literal(SCHEMA)}) "
        f"FROM {quote(CATALOG)}.options() WHERE option_name = {literal(OPTION)}"
    )
    return connection.execute(query).fetchone() == (1, 1)


def keep_ledger_rows_in_catalog(connection: duckdb.DuckDBPyConnection) -> None:
    """Let tables that are made from now on have rows in files alone, except those of the ledger, whose schema is there.
    The caller holds the writer lock. The views over the ledger are dropped: the next load makes them anew."""
    # DuckLake 1.5 ends the whole process (a segmentation fault) when an option of a schema is set that has views.
    there = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE database_name = ? AND schema_name = ? AND NOT internal",
        [CATALOG, SCHEMA],
    ).fetchall()
    for (view,) in there:
        connection.execute(f"DROP VIEW IF EXISTS {name(view)}")
    connection.execute(
        f"CALL {quote(CATALOG)}.set_option({literal(OPTION)}, {LEDGER_ROWS}, schema => {literal(SCHEMA)})"
    )
    connection.execute(f"CALL {quote(CATALOG)}.set_option({literal(OPTION)}, 0)")
