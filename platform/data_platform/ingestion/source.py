"""What every source is: the protocol, the reading, the batch, the position, and the options every table shares.
How a particular interface is read belongs in a package of its own beside this one; nothing here reads or writes.

A position is a map from a *partition* of the source to how far it was read, both text: one entry for a table with
a cursor, one for each file of a folder, one for each partition of a topic. A batch names only the entries that it
moves, so the cost of a commit does not grow with what was read before. Names of partitions come from the outside, for a
file may be called anything; those that begin with a slash are kept for entries that mean the same in every source.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa
from pydantic import Field

from data_platform.errors import PlatformError, shortened
from data_platform.options import Duration, Options, Share, Size

Position = Mapping[str, str]

Kind = Literal["rows", "changes", "whole"]
"""What the rows of a batch are: rows to add, changes of rows (with CHANGE_COLUMNS), or the table as a whole."""

OWN = "/"
"""What the entries of a position begin with that mean the same in every source. No partition of a source does: a path
below a folder has no slash before it."""

DIGEST = f"{OWN}digest"
"""The entry of a position that stands for the content of a whole table: while it stays, no row has changed."""

HINT = f"{OWN}hint"
"""The entry of a position that holds what a probe saw just before a whole table was read."""

EMPTY = f"{OWN}empty"
"""The entry of a position that says that the table began without rows, before its source had any."""

REJECTS_SCHEMA = pa.schema(
    [
        ("_file", pa.string()),
        ("_line", pa.int64()),
        ("place", pa.string()),
        ("record", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Records that could not be read: where they stand, what they say, and why they were refused. `place` is text of any
kind (`orders.csv:12`, `partition 3, offset 991`); `_file` and `_line` are null where there is no file."""

MAX_COLUMNS = 2_000
"""Columns of a table, unless its `max_columns` says otherwise: each costs memory in every step, rows or none."""

LONGEST_NAME = 1_000
"""Characters in the name of a column: what is longer is no name, but the file another than it was declared to be."""

BATCH_ROWS = 250_000
"""Rows in a batch at most: what keeps a load's memory bounded whatever the size of the table."""


@dataclass(frozen=True)
class Batch:
    """Rows of one table, as the source gave them, and the position that the reading reached with them.

    `position` is None while the source cannot be resumed from here (in the middle of a file, of a transaction or of a
    whole table): such rows are committed together with those of the next batch that has a position, whichever table
    that is of. Entries of `position` are added to the stored position, those that `forget` names are removed from it,
    others stay. A batch may have no rows and only move the position. `notes` are sentences for a person to read: what
    was passed over, and why.

    The whole of a table begins where no rows of that table wait for a position; what of it comes after, until there is
    a position, belongs to it, whatever its kind. Rows that are changes of a log have the columns `_operation` (insert,
    update, delete, truncate) and `_order` (int64), whatever the kind of their batch; those of kind "changes" must. A
    table of plain rows becomes one of changes only by a whole table of changes, and the other way about.
    """

    table: str
    rows: pa.Table
    kind: Kind
    position: Position | None
    rejects: pa.Table = field(default_factory=REJECTS_SCHEMA.empty_table)
    forget: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Overlap:
    """The stretch that a reading delivers again (an inclusive boundary, a lag): rows whose `column` is null, or not
    less than `since`, may have landed already. They are dropped on landing if they equal what landed last of their key;
    in a table without a key, as often as they landed.

    `key` are the columns that identify a row in the source, if it has such; they tell rows apart where staging makes
    the key of the table."""

    column: str
    since: Any
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """How much one load may read. It ends at the first position that it reaches after any of these is spent; None is
    no limit. The next load goes on from there. It does not end a full refresh, nor a whole table in its middle."""

    rows: int | None = None
    bytes: int | None = None
    time: timedelta | None = None

    def is_spent(self, rows: int, size: int, seconds: float) -> bool:
        """Whether any limit is reached."""
        return (
            (self.rows is not None and rows >= self.rows)
            or (self.bytes is not None and size >= self.bytes)
            or (self.time is not None and seconds >= self.time.total_seconds())
        )


@dataclass(frozen=True)
class Probe:
    """What a probe found of one table.

    `changes` are the entries of the source's position that differ from the stored one; empty if none does. If it is
    not `complete`, rows may have changed although no entry did: the table is read again every `refresh`. If it is not
    `supported` at all, the source has no probe for the table. `failure` is why the table could not be probed.
    """

    changes: Position = field(default_factory=dict)
    complete: bool = True
    failure: PlatformError | None = None
    supported: bool = field(default=True, compare=False)


UNKNOWN = Probe(complete=False, supported=False)
"""Nothing can be said of the table without reading it."""


class Reading(Protocol):
    """One pass over one or more tables of a source: one open connection, one consistent view, one position. It ends at
    the source's end as it was when the reading began."""

    def overlap(self, table: str) -> Overlap | None:
        """The stretch of `table` that this reading delivers again, or None if it delivers nothing twice. Asked for
        before the first batch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """The batches, each bounded. Raises PlatformError when the source cannot be read; what came before up to the
        last position is whole. Runs in a thread of its own."""
        ...

    def committed(self, position: Position) -> None:
        """Take note that everything up to `position` is committed: advance a slot, commit offsets, move files.

        Called after each commit with the entries that it moved, and only then. It may be called while another thread
        waits for the next batch: a connection that cannot do both acknowledges between two batches. If it raises, the
        rows stay committed, and the load ends with an error that says so; the source may offer them again, and
        `reading(tables, after)` starts after them.
        """
        ...


@dataclass(frozen=True)
class SourceUse:
    """What a reading took at its source: statements, the rows and bytes (in memory) that came of them, and the seconds
    that the source was waited for. Statements that ran at once are waited for at once: their seconds are added up."""

    statements: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: "SourceUse") -> "SourceUse":
        return SourceUse(
            self.statements + other.statements,
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: "SourceUse") -> "SourceUse":
        return SourceUse(
            self.statements - other.statements,
            self.rows - other.rows,
            self.bytes - other.bytes,
            self.seconds - other.seconds,
        )


@runtime_checkable
class Measured(Protocol):
    """A reading that knows what it took at its source."""

    def use(self, table: str) -> SourceUse:
        """What was taken up to now for a table; what was taken for several is counted with the first of them."""
        ...


@runtime_checkable
class ReadsAtOnce(Protocol):
    """A source that may read one table by several connections at once."""

    def with_readers(self, most: int, why: str) -> "Source":
        """The same source, of which no table is read by more connections than `most`; `why` is the sentence that is
        noted where it would be."""
        ...


class Source(Protocol):
    """A system that tables are read from. Reading is light on it: one statement or one pass for each reading."""

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        """A cheap look at how far the source has come, for sensors; `after` is the stored position of each table. It
        never decides what is loaded. Raises PlatformError if the source does not answer at all; a table that cannot be
        probed has a `failure`, and the others their answer.
        """
        ...

    def reading(self, tables: Sequence[str], after: Position) -> AbstractContextManager[Reading]:
        """Open a reading of what came after `after` (an empty position: from the beginning); leaving the context
        releases the connection. Several tables are given only where the source says that they share a reading.

        Raises PlatformError when the source cannot be read, or no longer has what came after `after`: never a silent
        start from the beginning or from the end.
        """
        ...


def probe_each(tables: Sequence[str], probe: Callable[[str], Probe]) -> dict[str, Probe]:
    """Probe tables one by one; one that fails holds up no other. Raises what the first raised if the second fails too
    before any was seen: a source that does not answer is not waited for once a table."""
    found: dict[str, Probe] = {}
    for table in tables:
        try:
            found[table] = probe(table)
        except PlatformError as error:
            found[table] = Probe(failure=error)
            failures = [one.failure for one in found.values() if one.failure is not None]
            if len(failures) == len(found) and len(found) == min(2, len(tables)):
                raise failures[0] from None
    return found


def too_many_columns(where: str, names: Collection[str], most: int) -> PlatformError:
    """What to raise for a table of more columns than its `max_columns`; `names` are what was found at `where`."""
    found = f"{len(names):,} columns (such as {', '.join(shortened(name, 40) for name in islice(names, 3))})"
    return PlatformError(
        f"{where}: {found}, more than `max_columns` ({most:,}) of the table allows. Nothing of it was loaded. If keys "
        "are values (an object by id), have them written as a list of objects; if the table is that wide, raise "
        "`max_columns` in its defs.yaml, and LAKEHOUSE_MEMORY with it."
    )


def the_only(tables: Sequence[str]) -> str:
    """The table of a reading that covers one. Raises ValueError for several: this source has a position for each."""
    (table,) = tables
    return table


def of_table(entry: str, table: str) -> str:
    """What an entry of the position of one table is called in that of a reading over several."""
    return f"{entry} {table}"


def entries_of_table(position: Position, table: str) -> dict[str, str]:
    """The entries of one table in the position of a reading over several, as `of_table` names them."""
    end = of_table("", table)
    return {entry.removesuffix(end): value for entry, value in position.items() if entry.endswith(end)}


def differences(position: Position, after: Position) -> dict[str, str]:
    """The entries of `position` that `after` does not have, or has with another value."""
    return {entry: value for entry, value in position.items() if after.get(entry) != value}


class BudgetOptions(Options):
    """How much one load may read; the next one goes on from there."""

    rows: int | None = Field(default=None, ge=1, description="Rows.")
    bytes: Size | None = Field(default=None, description="Bytes in memory: 500 MB, 2 GB.")
    time: Duration | None = Field(default=None, description="Time: 10m.")

    def within(self, time: timedelta | None) -> Budget:
        """The budget, of no more than `time` if that is given."""
        times = [one for one in (self.time, time) if one is not None]
        return Budget(self.rows, self.bytes, min(times, default=None))


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
        description="Column that orders the versions of a row; of numbers or times, not text. Default: the version "
        "that was delivered last is the newest.",
    )
    soft_delete: str | None = Field(
        default=None,
        description="Column by which the source marks a row as deleted (true, a time, anything but false, 0, no and "
        "null), such as _fivetran_deleted: the row leaves the staged table. It needs a `key`.",
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
        description="Share of bad rows above which a step is refused; below, they are quarantined. A large "
        "file or table is judged before its end, once half a million records were read.",
    )
    drift: Literal["evolve", "ignore", "refuse"] = Field(
        default="evolve",
        description="New columns in the source: land them, leave them out, or refuse the load.",
    )
    shrink_limit: Share = Field(
        default=0.5,
        description="A full refresh is refused when it holds less than this share of the rows it replaces.",
    )
    max_columns: int = Field(
        default=MAX_COLUMNS,
        ge=1,
        description="Columns that the raw table may have. More mean, as a rule, that keys of JSON are values, or that "
        "the delimiter is another.",
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

    @property
    def masks(self) -> bool:
        """Whether it has columns of which the values may be seen nowhere: what the source says in an error may quote
        them."""
        return bool(self.mask or self.mask_within)

    @property
    def follows(self) -> timedelta | None:
        """How long a run reads on and stages what comes; None where it ends when all is read."""
        return None

    def lands_as_text(self) -> bool:
        """Whether every raw column is text, whatever it stands for."""
        return False
