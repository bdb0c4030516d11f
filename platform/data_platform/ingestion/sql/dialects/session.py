"""What every relational database offers here: a read-only session with tables, columns and streamed statements.
How one database spells it belongs in the module of its name; positions and batches belong in `ingestion.sql.reading`.

Values enter the SQL text as typed literals, not as parameters: COPY (PostgreSQL) and `mysql_query` take none, and with
one the PostgreSQL driver gathers the whole result in memory (3 M rows: 1 GB instead of 0.2). They come from stored
positions, are parsed by their type first, and leave `Session.literal` quoted.
"""

import difflib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.source import SourceUse
from data_platform.lakehouse.settings import redact_url
from data_platform.lakehouse.tables import PLATFORM_COLUMNS
from data_platform.lakehouse.watchdog import Watchdog, server_of
from data_platform.redaction import WITHHELD, register_url

Kind = Literal["integer", "decimal", "float", "date", "timestamp", "timestamptz", "text"]
"""The kinds of value that a cursor may have."""

COUNTED_ROWS = 100_000
"""Rows that a hint counts at most: what bounds the cost of a probe where the database keeps nothing cheaper."""


@dataclass(frozen=True)
class Column:
    """A column as the source declares it, and how it is read.

    `type` is what arrives in Arrow; `select` the SQL that yields it. `kind` is None if the column cannot be a cursor.
    `order` is the SQL that sorts and compares it: text by its bytes, as the lakehouse does, whatever the collation.
    """

    name: str
    declared: str
    nullable: bool
    primary_key: bool
    type: pa.DataType
    select: str
    order: str
    kind: Kind | None


class NoPlaceError(PlatformError):
    """A column holds what the type that it arrives in has no place for; `what` says it, as `0000-00-00, which is no
    date`."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(
            f"Column {column} holds {what}: the lakehouse has no place for it. Have the column read as text by "
            f"`as_text: [{column}]` in the options of the table, and load a table that is there once with --retype. "
            "What the contract does not take is then in quarantine, unless the staging function says what it means. "
            "A cursor cannot be read as text: correct the value in the source, or in a view of it."
        )
        self.column, self.what = column, what


@dataclass(frozen=True)
class Timeouts:
    """How long a server is waited for: until it has answered a new connection; while it says nothing at all, each byte
    of a row counting; and for one statement, all of its rows included."""

    connect: timedelta = timedelta(seconds=10)
    idle: timedelta = timedelta(minutes=10)
    statement: timedelta = timedelta(hours=6)


class Session(ABC):
    """One read-only connection to a source database, for one read. Close it, or use it in a `with` statement."""

    product: str
    nulls_first = ""
    """What ORDER BY needs for nulls to come first."""
    enforces_keys = True
    """Whether no two rows have the same primary key."""

    def __init__(self, url: str, *, withholds: bool = False) -> None:
        """`withholds` keeps what the database says in errors out of messages: it may quote values of masked columns."""
        self.url, self.withholds = url, withholds
        self.use = SourceUse()
        register_url(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release the connection, whatever state it is in."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Names of the tables and views that can be read; qualified by their schema outside the default one."""

    @abstractmethod
    def relation(self, table: str) -> str:
        """The quoted SQL name of a table. Raises PlatformError, with the closest names, if there is none."""

    @abstractmethod
    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:
        """The columns of a relation in their order; the one named `cursor` is read such that it can be compared."""

    def stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        """Run one statement and yield its rows as they come, in exactly the types of `schema`. What it takes is added
        to `use`: the time until each batch is there, the driver's part in it included."""
        self.use += SourceUse(statements=1)
        with closing(self._stream(statement, schema)) as batches:
            while True:
                began = time.monotonic()
                try:
                    batch = next(batches, None)
                finally:
                    self.use += SourceUse(seconds=time.monotonic() - began)
                if batch is None:
                    return
                self.use += SourceUse(rows=batch.num_rows, bytes=batch.nbytes)
                yield batch

    @abstractmethod
    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        """As `stream`, without the account."""

    @abstractmethod
    def quote(self, *parts: str) -> str:
        """Quote an identifier as this database does."""

    @abstractmethod
    def literal(self, kind: Kind, text: str) -> str:
        """The typed SQL literal of a cursor value, comparable with `Column.order`."""

    def finite(self, column: Column) -> str | None:  # noqa: ARG002 - for those that have such values
        """The SQL condition that a value is an ordinary one, where the type has others (infinity, not a number)."""
        return None

    def highest(self, column: Column, relation: str) -> str:
        """The statement that yields the highest ordinary value of a column, in one row; without any it yields none, or
        null."""
        conditions = [f"{column.order} is not null"] + [c for c in [self.finite(column)] if c is not None]
        return (
            f"select {column.select} as {self.quote(column.name)} from {relation} where {' and '.join(conditions)} "
            f"order by {column.order} desc limit 1"
        )

    def text(self, column: Column) -> str | None:  # noqa: ARG002 - for those that can
        """The SQL that yields a value as DuckDB writes what arrives of it; None if the two may write it differently.
        Of bytes it is their hexadecimal digits, of a floating-point number the bits of its double precision."""
        return None

    def shown(self, column: Column) -> str:
        """The SQL that yields a value as the text that the database shows of it."""
        return f"cast({self.quote(column.name)} as text)"

    def digest(self, texts: Sequence[str]) -> str | None:  # noqa: ARG002 - for those that can
        """The SQL of a whole number from the first 60 bits of the MD5 of the UTF-8 bytes of SQL texts, joined. None if
        the database has no such function."""
        return None

    def divide(self, number: str, divisor: int) -> str:
        """The SQL of a whole number, not below zero, divided by another and rounded down."""
        return f"({number}) / {divisor}"

    def length(self, text: str) -> str:
        """The SQL of the number of bytes of a SQL text in UTF-8, as text."""
        return f"octet_length({text})::text"

    def concat(self, texts: Sequence[str]) -> str:
        """The SQL of SQL texts, none of them null, one after the other."""
        return " || ".join(texts)

    def hint(self, relation: str) -> str | None:  # noqa: ARG002 - for those that keep something
        """Text that changes when a table without a cursor is written to, as far as the database keeps such a thing at
        hand; None if it does not. A hint may miss rows that change in place, and may change for nothing."""
        return None

    def peers(self, count: int) -> list["Session"]:  # noqa: ARG002 - for those that can
        """So many further sessions that see exactly what this one sees. Called before anything is read: this session's
        own view may move to now. Raises PlatformError if the database cannot have several see the same."""
        raise PlatformError(
            f"`parallel` cannot be had of {self.product}: its connections each see the database as it is when they "
            "begin, and cannot share one view of it without locking all writers out (FLUSH TABLES WITH READ LOCK): "
            "rows that are written meanwhile would be missing or come twice. Take it out."
        )

    def parts(self, relation: str, count: int) -> list[str] | None:  # noqa: ARG002 - for those that can
        """Conditions that divide a relation into about so many parts by where its rows lie, each row in one of them; at
        least one. None if the relation has no such places."""
        return None

    def hold(self, relations: Sequence[str]) -> None:  # noqa: ARG002 - for those that can
        """Make sure that this session sees the relations to its end as they are in its one view of the database. Raises
        PlatformError if it has no such view."""
        raise PlatformError(
            f"`snapshot` cannot be had of {self.product}: each statement sees the database as it is when it begins. "
            "`changes: true` reads each transaction as a whole, after a first copy. Take `snapshot` out."
        )

    def lag(self) -> timedelta | None:
        """How far this server, a replica, is behind its primary; None if it does not replicate now. A replica that has
        nothing to replay is not behind. Raises PlatformError if the server is no replica, or will not say."""
        raise PlatformError(f"{self.product} has no replicas: take `replica` out of the options of the source.")

    def place(self) -> str:
        """How far the log of this server, a primary, is written: what `has_reached` tells of its replicas."""
        raise PlatformError(
            f"{self.product} does not say how far a replica has come: `when_late: primary` cannot be had of it. Take "
            "it out: loads then wait for the replica."
        )

    def has_reached(self, place: str) -> bool:
        """Whether this server, a replica, shows all that its primary had at a `place`."""
        raise NotImplementedError(f"{self.product} has no {place}")

    def scalar(self, statement: str, kind: pa.DataType) -> Any:
        """The single value, as a Python value, that a statement yields; None if it yields no row."""
        for batch in self.stream(statement, pa.schema([("value", kind)])):
            if batch.num_rows:
                return batch.column(0)[0].as_py()
        return None

    def said(self, text: str, state: str | None = None) -> str:
        """What the database or its driver says in an error, on one line, as far as it may be shown; `state` is the
        SQLSTATE."""
        if not self.withholds:
            return one_line(text)
        return f"SQLSTATE {state} {WITHHELD}" if state else WITHHELD

    def missing_table(self, table: str) -> PlatformError:
        """What to raise for a table that is not there."""
        there = self.tables()
        return PlatformError(
            f"There is no table {table} in {self.product} at {redact_url(self.url)}. " + known("table", table, there)
        )


SERVER_FIRST = 1.0
"""Seconds after the limit of a statement before its connection is given up: a server that knows the limit ends the
statement by itself, and says more of it."""


class ServerSession(Session):
    """A session with a server on the network. Whatever waits for it stands in a `waited_for` block, so that none waits
    longer than `timeouts` say."""

    def __init__(self, url: str, timeouts: Timeouts, port: int, *, reconnects: bool, withholds: bool = False) -> None:
        super().__init__(url, withholds=withholds)
        self.timeouts = timeouts
        self.watchdog = Watchdog(
            server_of(url, port),
            timeouts.idle.total_seconds(),
            timeouts.statement.total_seconds() + SERVER_FIRST,
            reconnects=reconnects,
        )

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """The server has the word within the block. Raises what `overdue` says if it does not take it."""
        try:
            with self.watchdog.waiting():
                yield
        except Exception:
            if (error := self.overdue()) is not None:
                raise error from None
            raise

    def overdue(self) -> PlatformError | None:
        """The limit that the connection met, if it was given up."""
        return overdue(self.watchdog.struck, self.product, self.url, self.timeouts)


AnySession = TypeVar("AnySession", bound=Session)


def opened(one: Callable[[], AnySession], count: int) -> list[AnySession]:
    """So many sessions; none stays open if one cannot be opened."""
    sessions: list[AnySession] = []
    with ExitStack() as stack:
        for _ in range(count):
            sessions.append(one())
            stack.enter_context(sessions[-1])
        stack.pop_all()
    return sessions


def overdue(struck: str | None, product: str, url: str, timeouts: Timeouts) -> PlatformError | None:
    """What to raise for a connection that the watchdog has given up: the limit that it met; None if it has not."""
    where, option = f"{product} at {redact_url(url)}", "of the source in its defs.yaml"
    match struck:
        case "connect":
            return TransientError(
                f"{where} took the connection and did not answer within {_seconds(timeouts.connect)}, the "
                "limit `connect_timeout`. Check that the server works and what stands between; if it is only slow, "
                f"raise `connect_timeout` {option}."
            )
        case "idle":
            return TransientError(
                f"{where} said nothing for {_seconds(timeouts.idle)}, the limit `idle_timeout`: the "
                "connection was given up. What was committed stays; the next load goes on from it. Check the "
                "server and the network. If it only takes that long to find the first row, index the cursor "
                f"column, or raise `idle_timeout` {option}."
            )
        case "total":
            return PlatformError(
                f"{where} was still answering after {_seconds(timeouts.statement)}, the limit "
                "`statement_timeout`: the connection was given up. Index the cursor column, read the table by a "
                f"cursor, or raise `statement_timeout` {option}."
            )
    return None


def _seconds(limit: timedelta) -> str:
    return f"{limit.total_seconds():,g} s"


def known(what: str, wanted: str, there: Sequence[str]) -> str:
    """A sentence that lists what exists, what is closest to `wanted` first."""
    if not there:
        return f"No {what} can be read there: check the address, and that the account may read."
    folded = {name.casefold(): name for name in there}
    close = [folded[name] for name in difflib.get_close_matches(wanted.casefold(), list(folded), n=3, cutoff=0.5)]
    rest = [name for name in there if name not in close]
    listed = (close + rest)[:30]
    more = f" and {len(there) - len(listed)} more" if len(there) > len(listed) else ""
    guess = f"Did you mean {close[0]}? " if close else ""
    return f"{guess}There is: {', '.join(listed)}{more}."


def number_parts(low: int | None, high: int | None, count: int, name: str, literal: Callable[[int], str]) -> list[str]:
    """Conditions that divide rows into about `count` parts by a column of whole numbers that lie between `low` and
    `high`, as far as is known: each row is in one part, those without a value in the first. `name` is the SQL of the
    column, `literal` that of a number. One condition that is always true if there is nothing to divide."""
    if low is None or high is None or low >= high:
        return ["1 = 1"]
    width = -(-(high - low + 1) // count)
    bounds = [literal(bound) for bound in range(low + width, high + 1, width)]
    if not bounds:
        return ["1 = 1"]
    inner = [f"{name} >= {lower} and {name} < {upper}" for lower, upper in pairwise(bounds)]
    return [f"({name} < {bounds[0]} or {name} is null)", *inner, f"{name} >= {bounds[-1]}"]


def one_line(text: str) -> str:
    """A message of a driver on one line, without its full stop."""
    return " ".join(text.split()).rstrip(".")


def checked_names(columns: Sequence[Column], relation: str) -> None:
    """Raise PlatformError if a column has a name that cannot stand in the lakehouse beside the others."""
    seen: dict[str, str] = {}
    for name in (column.name for column in columns):
        if name.lower() in PLATFORM_COLUMNS:
            raise PlatformError(
                f"{relation} has a column {name}, a name that the platform uses itself. "
                "Leave it out with `columns`, or rename it in a view of the source."
            )
        if name.lower() in seen:
            raise PlatformError(
                f"{relation} has the columns {seen[name.lower()]} and {name}, which differ by upper and lower case "
                "only: the lakehouse takes them for one. Choose one with `columns`, or rename it in a view."
            )
        seen[name.lower()] = name


def valid_text(array: pa.Array) -> pa.Array:
    """Text as valid UTF-8: bytes that are none are written as `\\xNN`, since a lake of Parquet files refuses them.

    Databases that do not check (SQLite, a PostgreSQL encoded SQL_ASCII) hand on what somebody once stored.
    """
    as_bytes = array.cast(pa.binary())
    try:
        return as_bytes.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [None if v is None else v.decode("utf-8", "backslashreplace") for v in as_bytes.to_pylist()]
        return pa.array(texts, pa.string())
