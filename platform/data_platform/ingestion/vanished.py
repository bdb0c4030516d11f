"""Columns that a source has ceased to fill: never null up to some load, always null since, as after a renaming. How
columns of other names and types land is `drift`'s work.
"""

from dataclasses import dataclass

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import PLATFORM_COLUMNS, column_types, raw_table


@dataclass(frozen=True)
class Vanished:
    """One such column: the last load that had values of it, the rows that came since, and the columns that the first
    of them brought."""

    column: str
    load_id: int
    rows: int
    new: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.column} was never null up to load {self.load_id} and always is since ({self.rows:,} rows)"
        if not self.new:
            return text
        one = len(self.new) == 1
        return (
            f"{text}, and the column{'' if one else 's'} {', '.join(self.new)} came with {'it' if one else 'them'}: "
            "it looks like a renaming"
        )


def vanished(lake: Lakehouse, source: str, table: str, first_load: int) -> list[Vanished]:
    """The columns that are null in all rows from `first_load` on, and ceased to hold values at some time since the full
    refresh before it. Of other columns only the new rows are read."""
    raw = raw_table(source, table)
    columns = [name for name in column_types(lake.connection, raw) if name not in PLATFORM_COLUMNS]
    if not columns:
        return []
    counts = ", ".join(f"count({quote(name)})" for name in columns)
    total, *filled = _row(lake, f"SELECT count(*), {counts} FROM {raw.sql} WHERE _load_id >= ?", first_load)
    if not total:
        return []
    since = ledger.whole_before(lake, source, table, first_load) or 1
    found = []
    for column in (name for name, count in zip(columns, filled, strict=True) if not count):
        (last,) = _row(
            lake,
            f"SELECT max(_load_id) FROM {raw.sql} WHERE {quote(column)} IS NOT NULL AND _load_id BETWEEN ? AND ?",
            since,
            first_load - 1,
        )
        if last is None:
            continue
        ever_null, rows = _row(
            lake,
            f"SELECT (SELECT count(*) FROM (FROM {raw.sql} WHERE {quote(column)} IS NULL AND _load_id BETWEEN ? AND ? "
            f"LIMIT 1)), (SELECT count(*) FROM {raw.sql} WHERE _load_id > ?)",
            since,
            last,
            last,
        )
        if not ever_null:
            found.append(Vanished(column, last, rows, ledger.columns_added_after(lake, source, table, last)))
    return found


def _row(lake: Lakehouse, query: str, *parameters: object) -> tuple[int, ...]:
    row = lake.connection.execute(query, list(parameters)).fetchone()
    return () if row is None else row
