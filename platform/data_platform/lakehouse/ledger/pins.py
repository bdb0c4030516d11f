"""Pins: versions of the lakehouse that do not expire, each for a reason. Whoever pins gives its pins a name, and
replaces them by others of that name.
"""

from collections.abc import Iterable
from datetime import datetime

import duckdb

from data_platform.lakehouse.ledger.names import name


def pin(connection: duckdb.DuckDBPyConnection, owner: str, snapshots: Iterable[int], reason: str, at: datetime) -> None:
    """Pin these versions, and no others, in the name of `owner`, within the caller's transaction."""
    connection.execute(f"DELETE FROM {name('pins')} WHERE name = ?", [owner])
    for snapshot in sorted(set(snapshots)):
        connection.execute(f"INSERT INTO {name('pins')} VALUES (?, ?, ?, ?)", [owner, snapshot, reason, at])
