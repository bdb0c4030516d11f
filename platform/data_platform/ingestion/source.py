"""What every source is: the protocol, the batch, the position, and the options every table shares.
How a particular interface is read belongs in a module of its own beside this one; nothing here reads or writes.

A position is a map from a *partition* of the source to how far it was read, both text: one entry for a table with
a cursor, one for each file of a folder, one for each partition of a topic. A batch names only the entries that it
moves, so the cost of a commit does not grow with what was read before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa
from pydantic import Field

from data_platform.options import Duration, Options, Share

Position = Mapping[str, str]

REJECTS_SCHEMA = pa.schema(
    [("_file", pa.string()), ("_line", pa.int64()), ("record", pa.string()), ("reason", pa.string())]
)
"""Records that could not be read at all: where they stand, what they say, and why they were refused."""

BATCH_ROWS = 250_000
"""Rows in a batch at most: what keeps a load's memory bounded whatever the size of the table."""


@dataclass(frozen=True)
class Batch:
    """Rows of one table, as the source gave them, and the position reached once they have landed.

    `position` is None while the source cannot be resumed from here (in the middle of a file or of a full refresh):
    such rows are committed together with those of the next batch that has a position. Entries of `position` are
    added to the stored position; others stay. A batch may have no rows and only move the position.
    """

    rows: pa.Table
    position: Position | None
    rejects: pa.Table = field(default_factory=REJECTS_SCHEMA.empty_table)


@dataclass(frozen=True)
class Overlap:
    """The stretch that a read delivers again (an inclusive boundary, a lag): rows whose `column` is null, or not
    less than `since`, may have landed already and are dropped on landing if they are there, equal in every column."""

    column: str
    since: Any


class TableOptions(Options):
    """What every table of every source may say of itself in `defs.yaml`."""

    key: list[str] = Field(
        default_factory=list,
        description="Columns of the staged table that identify a row; none: rows are only added, never replaced.",
    )
    contract: str = Field(description="Dotted path of the Pandera contract of the staged table.")
    stage: str | None = Field(
        default=None, description="Dotted path of a function from raw LazyFrame to staged LazyFrame."
    )
    newest_by: str | None = Field(
        default=None,
        description="Raw column that orders versions of a row; default: the cursor, else order of arrival.",
    )
    history: bool = Field(
        default=False,
        description="Keep every version of each row, in <table>_versions and, with its validity, <table>_history.",
    )
    mask: list[str] = Field(
        default_factory=list, description="Columns replaced by a keyed hash before the first write."
    )
    mask_within: list[str] = Field(
        default_factory=list,
        description="Text columns in which e-mail addresses are replaced by a keyed hash before the first write.",
    )
    refuse_above: Share = Field(
        default=0.05,
        description="Share of bad rows above which a step is refused; below, they are quarantined.",
    )
    drift: Literal["evolve", "ignore", "refuse"] = Field(
        default="evolve",
        description="New columns in the source: land them, leave them out, or refuse the load.",
    )
    shrink_limit: Share = Field(
        default=0.5,
        description="A full refresh is refused when it holds less than this share of the rows it replaces.",
    )
    keep_replaced: Duration | None = Field(
        default=None,
        description="How long the raw rows of a full refresh are kept after a later one replaced it and was staged; "
        "default: the setting LAKEHOUSE_KEEP_REPLACED, 30d.",
    )
    fresh_within: Duration | None = Field(
        default=None,
        description="The staged table is shown as late when nothing was staged for this long: 6h, 1d.",
    )
    description: str | None = Field(default=None, description="What the raw table holds.")


class Source(Protocol):
    """A system that tables are read from. Reading is light on it: one statement or one pass for each table."""

    def full_refresh(self, table: str) -> bool:
        """Whether each load of `table` is the whole table (what is missing from it is gone) rather than additions."""
        ...

    def position(self, table: str) -> Position | None:
        """A cheap look at how far the source has come; None if it cannot tell without reading.

        There is something new when an entry of it differs from the stored one. Used by sensors; never decides.
        """
        ...

    def overlap(self, table: str, after: Position) -> Overlap | None:
        """The stretch that `read(table, after)` delivers again, or None if it delivers nothing twice."""
        ...

    def read(self, table: str, after: Position) -> Iterator[Batch]:
        """Yield what came after `after` (an empty position: from the beginning), each batch bounded.

        Closing the iterator releases the connection. Raises PlatformError when the source cannot be read.
        """
        ...
