"""Forgetting a table: everything that the ledger says of it, within the transaction that drops its data. A table of the
same name that is loaded afterwards begins anew."""

from collections.abc import Sequence

import duckdb

from data_platform.lakehouse.ledger.names import name

OF_TABLES = ("heads", "positions", "loads", "stagings", "audits")
"""The ledger's tables that say something of single tables of a source."""


def forget_tables(connection: duckdb.DuckDBPyConnection, source: str, tables: Sequence[str] | None) -> None:
    """Delete what is said of tables of a source, within the caller's transaction; of all of them if `tables` is None,
    positions of readings over several included."""
    for table in OF_TABLES:
        of_source = f"DELETE FROM {name(table)} WHERE source = ?"
        if tables is None:
            connection.execute(of_source, [source])
        else:
            connection.execute(f"{of_source} AND table_name IN (SELECT unnest(?::VARCHAR[]))", [source, [*tables]])
    # An export pins the versions that its target may hold rows of.
    pinned = f"DELETE FROM {name('pins')} WHERE starts_with(name, ?)"
    if tables is None:
        connection.execute(pinned, [f"export/{source}/"])
    for table in tables or ():
        connection.execute(f"DELETE FROM {name('pins')} WHERE name = ?", [f"export/{source}/{table}"])
    # Which key is the current one stays known.
    unmasked = f"UPDATE {name('mask_keys')} SET source = NULL, table_name = NULL WHERE source = ?"
    if tables is None:
        connection.execute(unmasked, [source])
        connection.execute(f"DELETE FROM {name('owners')} WHERE (kind, name) = ('source', lower(?))", [source])
    else:
        connection.execute(f"{unmasked} AND table_name IN (SELECT unnest(?::VARCHAR[]))", [source, [*tables]])
