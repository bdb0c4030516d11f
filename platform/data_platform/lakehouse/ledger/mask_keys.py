"""Which keys masked columns were masked with: fingerprints, never keys. Equal people have equal masks only under one
key, so a lakehouse has one at a time; each raw table says which of them its masks are of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from data_platform.lakehouse.ledger.names import name


@dataclass(frozen=True)
class MaskKeys:
    """The keys of a lakehouse by their fingerprints: the `current` one, since when, and the one that each raw table
    (source and name) is masked with. Without masked rows there is none."""

    current: str | None
    since: datetime | None
    tables: Mapping[tuple[str, str], str]

    def of_earlier_keys(self) -> list[tuple[str, str]]:
        """The tables whose masks are not of the current key."""
        return sorted(table for table, key in self.tables.items() if key != self.current)


def mask_keys(connection: duckdb.DuckDBPyConnection) -> MaskKeys:
    """The keys of the lakehouse. There must be a ledger."""
    rows = connection.execute(
        f"SELECT fingerprint, source, table_name, since FROM {name('mask_keys')} ORDER BY number"
    ).fetchall()
    tables = {(source, table): key for key, source, table, _ in rows if source is not None}
    if not rows:
        return MaskKeys(None, None, {})
    current = rows[-1][0]
    since = min(at for key, _, _, at in rows if key == current)
    return MaskKeys(current, since, tables)


def record_mask_key(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, tables: Sequence[tuple[str, str]], at: datetime
) -> None:
    """Note, within the caller's transaction, that raw tables are masked with a key from now on, which makes it the
    current one; without tables, that it is to be the current one."""
    noted: Sequence[tuple[str | None, str | None]] = tables or [(None, None)]
    for source, table in noted:
        connection.execute(
            f"INSERT INTO {name('mask_keys')} (number, fingerprint, source, table_name, since) "
            f"SELECT coalesce(max(number), 0) + 1, ?, ?, ?, ? FROM {name('mask_keys')}",
            [fingerprint, source, table, at],
        )
