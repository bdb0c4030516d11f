"""Forgetting: of a table everything that the ledger says of it, within the transaction that drops its data (a table of
the same name that is loaded afterwards begins anew), and runs that ended long ago."""

from collections.abc import Sequence
from datetime import datetime

import duckdb

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.owners import OwnedKind
from data_platform.lakehouse.ledger.schema import exists
from data_platform.lakehouse.transaction import commit

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


def forget_made(connection: duckdb.DuckDBPyConnection, kind: OwnedKind, made: str) -> None:
    """Delete what is said of a dataset, a trained model or a table of scores, within the caller's transaction: its
    versions with their stages and pins, how far it came, its verdicts, and whose it is."""
    if kind == "dataset":
        connection.execute(f"DELETE FROM {name('datasets')} WHERE name = ?", [made])
        connection.execute(f"DELETE FROM {name('pins')} WHERE name = ?", [f"datasets/{made}"])
    for table in ("models", "model_stages") if kind == "trained model" else ():
        connection.execute(f"DELETE FROM {name(table)} WHERE model = ?", [made])
    for table in ("heads", "positions") if kind == "scores" else ():
        connection.execute(f"DELETE FROM {name(table)} WHERE (layer, table_name) = ('scores', ?)", [made])
    layer = {"dataset": "datasets", "scores": "scores"}.get(kind)
    if layer is not None:
        connection.execute(f"DELETE FROM {name('audits')} WHERE (layer, table_name) = (?, ?)", [layer, made])
    connection.execute(f"DELETE FROM {name('owners')} WHERE (kind, name) = (?, lower(?))", [kind, made])


def forget_runs(lake: Lakehouse, before: datetime) -> int:
    """Delete the runs that ended before a time; how many. What their steps did stays."""
    old = f"FROM {name('runs')} WHERE ended_at < ?"
    if not exists(lake) or not lake.connection.execute(f"SELECT 1 {old} LIMIT 1", [before]).fetchall():
        return 0

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        row = connection.execute(f"DELETE {old}", [before]).fetchone()
        return int(row[0]) if row is not None else 0

    return commit(lake, work)
