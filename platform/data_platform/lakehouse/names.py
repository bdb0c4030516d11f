"""Names of columns that DuckLake keeps for itself, and how a table has them all the same. How names enter SQL is in
`sql`; the names that the platform itself adds to tables are in `tables`.
"""

from collections.abc import Iterable

import duckdb

from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.ledger.inlining import OPTION
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import commit

KEPT_BY_DUCKLAKE = frozenset(
    {"row_id", "begin_snapshot", "end_snapshot", "_ducklake_internal_row_id", "_ducklake_internal_snapshot_id"}
)
"""What DuckLake calls its own columns where it keeps rows in the catalog. It refuses them to a table of a schema in
which it may do so."""


def allow_names(lake: Lakehouse, table: Table, columns: Iterable[str]) -> None:
    """Let a table that is about to be made, or altered, have these columns: if DuckLake keeps one of the names for
    itself, it keeps no rows of that schema in the catalog any more. Commits by itself; does nothing for other names,
    nor where it keeps none anyway (`ledger.inlining`)."""
    if not KEPT_BY_DUCKLAKE & {column.lower() for column in columns}:
        return
    query = (
        f"SELECT arg_max(value, scope_entry IS NOT NULL) FROM {quote(CATALOG)}.options() "
        "WHERE option_name = ? AND (scope = 'GLOBAL' OR scope_entry = ?)"
    )
    if lake.connection.execute(query, [OPTION, table.schema]).fetchone() == ("0",):
        return

    def make_schema(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, table.schema)}")

    def switch_off(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CALL {quote(CATALOG)}.set_option({literal(OPTION)}, 0, schema => {literal(table.schema)})")

    commit(lake, make_schema)
    commit(lake, switch_off)
