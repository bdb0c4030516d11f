"""What the databases that tables are exported to have in common: the position, which says how far a table was exported,
and the session in which rows and position are written. How each database does it is in the module of its name.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.exports.columns import Column

POSITIONS = "data_platform_exports"
"""The table, beside the exported ones, that says of each how far it was exported."""

POSITION_COLUMNS = {
    "table_name": "the exported table",
    "lakehouse": "the identity of the lakehouse",
    "export": "the export that the table belongs to",
    "source_table": "the table of the lakehouse",
    "source_id": "the identity of that table: another one after it was made anew",
    "snapshot": "the version of the lakehouse whose rows the table holds; null while none was written",
    "shape": "columns, types and key",
    "row_count": "rows after the export",
    "run_id": "the run that exported",
    "exported_at": "when, in UTC",
}

Lines = Iterator[pa.Array]
"""Rows as text, each as the target's `line` has it."""


@dataclass(frozen=True)
class Position:
    """How far a table was exported, as the target keeps it."""

    table_name: str
    lakehouse: str
    export: str
    source_table: str
    source_id: str
    snapshot: int | None
    shape: str
    row_count: int
    run_id: str


@dataclass(frozen=True)
class Written:
    """What an export changed at the target: rows, and the bytes sent. `rows` is how many the table holds then."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    bytes: int = 0
    rows: int = 0
    notes: tuple[str, ...] = ()


class TargetSession(Protocol):
    """One table at a target, which no other export writes meanwhile. What is written becomes visible at the end of the
    block of `Database.open`, or not at all."""

    position: Position | None

    def columns(self) -> list[tuple[str, str]] | None:
        """The names and types of the columns that the table has; None if there is no such table."""

    def spelt(self, column: Column) -> str:
        """The type of a column as `columns` gives it."""

    def claim(self, position: Position) -> None:
        """Keep that the table is this export's, before anything is made that a kill could leave behind."""

    def merge(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, gone: Lines | None) -> Written:
        """Write rows by their key, and delete those whose keys are `gone`; None: those that are not among `rows`."""

    def replace(self, columns: Sequence[Column], key: Sequence[str], rows: Lines, *, alike: bool) -> Written:
        """Put a table with these rows in the place of the one that is there, if one is: `alike` in columns and key."""

    def extend(self, columns: Sequence[Column]) -> None:
        """Add columns to the table."""

    def record(self, position: Position) -> None:
        """Keep the position."""


class Database(Protocol):
    """A database that tables are exported to."""

    product: str

    def column(self, table: str, name: str, kind: str, *, is_key: bool) -> Column:
        """How a column of the lakehouse is kept."""

    def require_name(self, name: str) -> None:
        """Raise PlatformError for a name that no table can have."""

    def line(self, columns: Sequence[Column]) -> str:
        """A row as text, in DuckDB's SQL."""

    def open(self, table: str) -> AbstractContextManager[TargetSession]:
        """The table, for the time of the block, which is one transaction."""

    def ping(self) -> None:
        """Raise PlatformError if the target does not answer."""

    def summary(self, table: str, columns: Sequence[Column], *, hashed: bool) -> tuple[int, str | None, str | None]:
        """The number of rows, and, if `hashed`, the sum of a hash of `columns` as the target computes it, with the
        expression in DuckDB's SQL that computes the same hash of a row of the lakehouse."""


def require_own(
    product: str, table: str, position: Position | None, wanted: Position, *, there: bool, adopt: bool
) -> None:
    """Raise PlatformError for a table that this export did not make, unless it is to be adopted."""
    if adopt or (position is None and not there):
        return
    if position is None:
        whose = f"was not made by an export: {POSITIONS} does not name it"
    elif (position.lakehouse, position.export) != (wanted.lakehouse, wanted.export):
        other = "" if position.lakehouse == wanted.lakehouse else " of another lakehouse"
        whose = f"belongs to the export {position.export}{other}"
    else:
        return
    raise PlatformError(
        f"{product} has a table {table}, which {whose}. It was left as it is. Give the table another name in "
        "defs.yaml, or, to have its rows replaced by those of this export, write `adopt: true`."
    )


def strings(rows: Iterable[pa.Array]) -> Iterator[str]:
    """Rows one by one."""
    for batch in rows:
        yield from batch.to_pylist()
