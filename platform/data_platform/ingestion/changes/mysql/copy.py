"""The first copy of tables: in one consistent snapshot whose place in the log the server tells, in the order of the
primary key, so that it goes on where it died.

What was copied is kept in the position as stretches of the key, each with the place of the snapshot that it was copied
in. The log is read from the first of these places on: a change of a row is left out if it stands before the place of
the stretch that the row's key lies in, for the copy has it; else it is delivered. The server compares the keys, by the
collation of their columns.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import Connection, texts_of
from data_platform.ingestion.changes.mysql.log import Place
from data_platform.ingestion.changes.mysql.server import end_of_log
from data_platform.ingestion.changes.mysql.tables import KeyColumn, SourceTable
from data_platform.ingestion.changes.mysql.values import Values
from data_platform.ingestion.sql.dialects.mysql import backquote
from data_platform.lakehouse.tables import CHANGE_COLUMNS, CHANGE_DETAILS

COPY_ROWS = 50_000
"""Rows of a batch of a copy."""

COPY_BYTES = 16 * 2**20
"""Bytes of a batch of a copy, about."""

DONE = "done"
"""In place of stretches, once the log is past all of them."""

DETAILS = pa.schema([("_operation", pa.string()), ("_order", pa.int64()), ("_committed_at", pa.timestamp("us", "UTC"))])
"""The columns that each change has besides those of its row."""

assert set(DETAILS.names) <= {*CHANGE_COLUMNS, *CHANGE_DETAILS}  # noqa: S101 - the names are those of the lakehouse


def entry_of(table: str) -> str:
    """The entry of the position that says how far the first copy of a table came."""
    return f"copied {table}"


@dataclass(frozen=True)
class Stretch:
    """What was copied in one snapshot: keys after those of the stretch before, up to `upto`, or to the end."""

    place: Place
    upto: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Copied:
    """How far the first copy of a table came."""

    stretches: tuple[Stretch, ...] = ()
    passed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of the table was copied."""
        return self.passed or (bool(self.stretches) and self.stretches[-1].upto is None)

    @property
    def last(self) -> Place | None:
        """The place from which on nothing is left out; None if there is nothing to leave out."""
        return max((one.place for one in self.stretches), key=lambda place: place.order, default=None)

    def up_to(self, place: Place, upto: tuple[str, ...] | None) -> "Copied":
        """With more of it copied, in the snapshot at `place`."""
        before = self.stretches
        if before and before[-1].place == place:
            before = before[:-1]
        return Copied((*before, Stretch(place, upto)))

    def text(self) -> str:
        """As the position has it."""
        if self.passed:
            return DONE
        return json.dumps([[one.place.file, one.place.at, one.upto] for one in self.stretches], ensure_ascii=False)


def copied(position: Mapping[str, str], table: str) -> Copied:
    """How far the first copy of a table came, by the position."""
    text = position.get(entry_of(table))
    if text is None:
        return Copied()
    if text == DONE:
        return Copied(passed=True)
    return Copied(
        tuple(Stretch(Place(file, at), None if upto is None else tuple(upto)) for file, at, upto in json.loads(text))
    )


@dataclass
class Numbers:
    """The running number of changes: what `_order` is made of."""

    last: int

    def take(self, count: int) -> range:
        """The next ones."""
        taken = range(self.last + 1, self.last + count + 1)
        self.last += count
        return taken


def begin_snapshot(connection: Connection) -> Place:
    """Begin a consistent snapshot of all tables on the connection; the place of the log that it stands for. MariaDB
    tells it. MySQL does not, and is kept from committing for the moment that it takes to ask."""
    connection.run("set session transaction isolation level repeatable read")
    if not connection.is_mariadb:
        return begin_locked_snapshot(connection)
    connection.run("start transaction with consistent snapshot")
    status = {str(name).lower(): value for name, value in connection.rows("show status like 'binlog_snapshot%'")}
    file, at = status.get("binlog_snapshot_file"), status.get("binlog_snapshot_position")
    if not file or not at:
        raise PlatformError(f"{connection.where} does not tell the place of a snapshot in its log. Nothing was read.")
    return Place(file, int(at))


def begin_locked_snapshot(connection: Connection) -> Place:
    """As `begin_snapshot`, for servers that do not tell the place."""
    connection.run("flush tables with read lock")
    try:
        connection.run("start transaction with consistent snapshot")
        return end_of_log(connection)
    finally:
        connection.run("unlock tables")


def require_snapshots(connection: Connection, tables: Sequence[SourceTable]) -> None:
    """Raise PlatformError for a table whose engine has no part in a consistent snapshot."""
    rows = connection.rows("select engine from information_schema.engines where transactions = 'YES'")
    consistent = {engine for (engine,) in rows}
    for table in tables:
        if table.engine not in consistent:
            raise PlatformError(
                f"Table {table.name}: {table.schema}.{table.table} is stored by {table.engine or 'no engine'}, which "
                "has no transactions: its first copy would not fit the log. Change it (ALTER TABLE "
                f"{table.table} ENGINE = InnoDB), or read it without `changes`. Nothing was read."
            )


@dataclass(frozen=True)
class Piece:
    """Rows of a first copy, and the last of their keys; None where the table is not copied in stretches."""

    rows: pa.Table
    upto: tuple[str, ...] | None


def pieces(
    connection: Connection, values: Values, table: SourceTable, before: Copied, numbers: Numbers
) -> Iterator[Piece]:
    """The rows of a table that were not copied yet, as inserts, in the snapshot of the connection."""
    selects = [
        f"cast({backquote(one.name)} as double)" if one.type == pa.float32() else one.select for one in table.columns
    ]
    statement = f"select {', '.join([*selects, *(column.select for column in table.key)])} from {table.relation}"
    if table.key:
        if before.stretches and (upto := before.stretches[-1].upto) is not None:
            statement += f" where {_after(table.key, upto)}"
        statement += f" order by {', '.join(backquote(column.name) for column in table.key)}"
    given = pa.schema(
        [(one.name, pa.binary() if pa.types.is_binary(one.type) else pa.string()) for one in table.columns]
    )
    wanted = pa.schema([(one.name, one.type) for one in table.columns])
    rows = connection.stream(statement)
    while gathered := _gathered(rows):
        columns = list(zip(*gathered, strict=True))
        arrays = [pa.array(column, pa.binary()).cast(field.type) for column, field in zip(columns, given, strict=False)]
        found = values.cast(pa.table(arrays, schema=given), wanted)
        last = gathered[-1][len(table.columns) :]
        upto = tuple((value or b"").decode() for value in last) if table.key else None
        yield Piece(with_details(found, ["insert"] * len(gathered), numbers.take(len(gathered)), None), upto)


def _gathered(rows: Iterator[tuple[bytes | None, ...]]) -> list[tuple[bytes | None, ...]]:
    """The next rows, as many as make a batch."""
    gathered: list[tuple[bytes | None, ...]] = []
    size = 0
    for row in islice(rows, COPY_ROWS):
        gathered.append(row)
        size += sum(len(value) for value in row if value is not None)
        if size >= COPY_BYTES:
            break
    return gathered


def with_details(
    rows: pa.Table, operations: Sequence[str], orders: Sequence[int], seconds: Sequence[int] | None
) -> pa.Table:
    """Rows with what makes them changes; `seconds` are those of 1970 at which their transactions committed."""
    count = len(operations)
    micros = (
        pa.nulls(count, pa.int64()) if seconds is None else pa.array([one * 1_000_000 for one in seconds], pa.int64())
    )
    details = [pa.array(operations, pa.string()), pa.array(orders, pa.int64()), micros.cast(DETAILS.types[2])]
    return pa.table([*details, *rows.columns], names=[*DETAILS.names, *rows.column_names])


def emptied(order: int, seconds: int | None = None) -> pa.Table:
    """The change that takes all rows out of a table."""
    return with_details(pa.table({}), ["truncate"], [order], None if seconds is None else [seconds])


def _after(key: Sequence[KeyColumn], upto: Sequence[str]) -> str:
    """The condition that a key comes after another, such that the index of the primary key finds it."""
    first, *others = key
    name, value = backquote(first.name), first.literal(upto[0])
    if not others:
        return f"{name} > {value}"
    return f"{name} >= {value} and ({name} > {value} or ({_after(others, upto[1:])}))"


def stretches_of(
    connection: Connection, table: SourceTable, stretches: Sequence[Stretch], keys: Sequence[tuple[str, ...]]
) -> list[Stretch]:
    """The stretch that each key lies in, as the server compares them."""
    bounds = [one for one in stretches if one.upto is not None]
    if not bounds:
        return [stretches[-1]] * len(keys)

    def row(values: Sequence[str]) -> str:
        return f"({', '.join(column.literal(value) for column, value in zip(table.key, values, strict=True))})"

    def which(values: tuple[str, ...]) -> str:
        cases = " ".join(
            f"when {row(values)} <= {row(one.upto or ())} then {number}" for number, one in enumerate(bounds)
        )
        return f"case {cases} else {len(bounds)} end"

    distinct = list(dict.fromkeys(keys))
    found = texts_of(connection, [which(one) for one in distinct])
    numbers = {one: int(number or 0) for one, number in zip(distinct, found, strict=True)}
    return [stretches[min(numbers[one], len(stretches) - 1)] for one in keys]


def passed(before: Copied, place: Place) -> Copied:
    """What is left to be remembered of a copy when the log was read up to `place`."""
    if before.is_whole and (before.last is None or before.last <= place):
        return replace(before, stretches=(), passed=True)
    return before
