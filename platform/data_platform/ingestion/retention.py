"""Retention of raw: whole loads that a later whole load replaced are deleted some time after, for nothing reads them
any more. When that is done is the schedule's business (`components.maintenance`).
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from data_platform.contracts.quarantine import has_open_rows, supersede_rejects
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import column_types, quarantine_table, raw_table
from data_platform.lakehouse.transaction import commit

ROWS_AT_ONCE = 1_000_000
"""Rows deleted in one commit: about as many as a load writes to one file."""

PAUSE_SECONDS = 0.02
"""Between two commits for the same load, so that writers who wait for theirs come in between."""


@dataclass(frozen=True)
class Retired:
    """What retention did: how many loads it deleted with how many rows, and how many it left because rows of theirs are
    in quarantine, where they may still be replayed."""

    loads: int = 0
    rows: int = 0
    left_in_quarantine: int = 0


def retire_replaced_loads(
    lake: Lakehouse,
    keep: Mapping[tuple[str, str], timedelta],
    *,
    without: Collection[str] = (),
    at: datetime | None = None,
) -> Retired:
    """Delete the raw rows of whole loads that a later one replaced, once that was staged and longer ago than `keep`
    says for the source and table, or else the setting `keep_replaced`; in short commits. Sources in `without` are left
    alone; `at` is now by default.

    The latest whole load stays, and so does each load of which staging has not taken in the successor, or of which rows
    are open in quarantine. Loads that add rows are never deleted. The ledger keeps what each load did, and when it was
    retired; the rows can be read at earlier versions until those expire.
    """
    at = at or datetime.now(UTC)
    loads = rows = left = 0
    for load in ledger.replaced_loads(lake):
        if load.source.lower() in without:
            continue
        if load.replaced_at > at - keep.get((load.source, load.table), lake.settings.keep_replaced):
            continue
        if _retire(lake, load, at):
            loads, rows = loads + 1, rows + load.rows
        else:
            left += 1
    return Retired(loads, rows, left)


def _retire(lake: Lakehouse, load: ledger.ReplacedLoad, at: datetime) -> bool:
    """Delete the rows of one load, unless some are open in quarantine; whether it was done."""
    raw, quarantine = raw_table(load.source, load.table), quarantine_table(load.source, load.table)
    has_quarantine = bool(column_types(lake.connection, quarantine))
    numbers = (0, -1)
    if load.rows and column_types(lake.connection, raw):
        found = lake.connection.execute(
            f"SELECT min(_row), max(_row) FROM {raw.sql} WHERE _load_id = ?", [load.load_id]
        ).fetchall()
        numbers = found[0] if found[0][0] is not None else numbers
    first, last = numbers

    def work(connection: duckdb.DuckDBPyConnection) -> bool:
        if has_quarantine and has_open_rows(connection, quarantine, load.load_id):
            return False
        if first <= last:
            connection.execute(
                f"DELETE FROM {raw.sql} WHERE _load_id = ? AND _row BETWEEN ? AND ?",
                [load.load_id, first, first + ROWS_AT_ONCE - 1],
            )
        if first + ROWS_AT_ONCE > last:
            if has_quarantine:
                supersede_rejects(connection, quarantine, load.load_id + 1, at)
            ledger.record_retirement(connection, load.source, load.table, load.load_id, at)
        return True

    while True:
        if not commit(lake, work):
            return False
        first += ROWS_AT_ONCE
        if first > last:
            return True
        time.sleep(PAUSE_SECONDS)
