"""One reading of changes: the rest of the first copy, then the log up to where it ended when that was begun, with the
position that moves along. What the source looks at besides is in `source`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.mysql.connection import LOG_FATAL, Connection, ServerError
from data_platform.ingestion.changes.mysql.copy import (
    DONE,
    Copied,
    Numbers,
    begin_snapshot,
    copied,
    entry_of,
    passed,
    pieces,
)
from data_platform.ingestion.changes.mysql.images import layout_of, named
from data_platform.ingestion.changes.mysql.log import (
    DELETES,
    OF_ROWS,
    WRITES,
    Event,
    Kind,
    Log,
    Place,
    mariadb_gtid,
    rows_event,
    statement,
    table_number,
)
from data_platform.ingestion.changes.mysql.pending import Pending, Read, read_of, truncation
from data_platform.ingestion.changes.mysql.server import Server, end_of_log, lost, why_lost
from data_platform.ingestion.changes.mysql.statements import Effects, effects, plain
from data_platform.ingestion.changes.mysql.tables import SourceTable
from data_platform.ingestion.changes.mysql.values import Values
from data_platform.ingestion.source import Batch, Overlap, Position

FLUSH_ROWS, FLUSH_BYTES, FLUSH_SECONDS = 50_000, 16 * 2**20, 1.0
"""Rows, bytes of the log and time after which what was read makes batches: between transactions any of them; within one
only rows and bytes."""

LAYOUTS = 1_000
"""Descriptions of tables in the log that are kept at once: each statement repeats that of its table."""

FILE, AT, CREATED, SERVER, GTID, ORDER = "file", "place", "created", "server", "gtid", "order"

NOTHING = pa.table({})


@dataclass(frozen=True)
class Origin:
    """What is read: how a connection to it is made, the number by which it knows the reader, and the name by which
    people do."""

    connect: Callable[[], Connection]
    server_id: int
    label: str


@dataclass
class _Progress:
    """How far a reading came: what its position is made of."""

    place: Place | None
    created: str
    server: str
    gtids: dict[str, str]
    numbers: Numbers
    copies: dict[str, Copied]

    def position(self, *tables: str) -> dict[str, str]:
        """The entries of the position, with those of the copies of some tables."""
        assert self.place is not None  # noqa: S101 - nothing is read before there is a place
        gtid = ",".join(self.gtids[domain] for domain in sorted(self.gtids))
        entries = {FILE: self.place.file, AT: str(self.place.at), CREATED: self.created, SERVER: self.server}
        entries |= {GTID: gtid, ORDER: str(self.numbers.last)}
        return entries | {entry_of(table): self.copies[table].text() for table in tables}


@dataclass
class _Transaction:
    """Where the log is between its commits: when the transaction was written, whether it goes on, whether it is one
    statement if nothing else is said, and whether it has anything of the tables."""

    second: int = 0
    is_open: bool = False
    is_statement: bool = False
    has_rows: bool = False


@dataclass
class _Flow:
    """What was read from the log and not delivered yet."""

    pending: dict[str, Pending] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)

    def is_much(self) -> bool:
        return self.rows >= FLUSH_ROWS or self.bytes >= FLUSH_BYTES


class ChangesReading:
    """One pass: the rest of the first copy, then the log up to where it ended when that was begun."""

    def __init__(
        self,
        origin: Origin,
        connection: Connection,
        server: Server,
        tables: Mapping[str, SourceTable],
        values: Values,
        after: Position,
    ) -> None:
        self._origin, self._connection, self._server, self._values = origin, connection, server, values
        self._tables, self._after = tables, MappingProxyType(dict(after))
        self._names = {(table.schema, table.table): name for name, table in tables.items()}
        self._progress = _Progress(
            place=Place(after[FILE], int(after[AT])) if FILE in after else None,
            created=after.get(CREATED, ""),
            server=server.identity,
            gtids={gtid.partition("-")[0]: gtid for gtid in after.get(GTID, "").split(",") if gtid},
            numbers=Numbers(int(after.get(ORDER, "0"))),
            copies={name: copied(after, name) for name in tables},
        )
        self._forget = [entry for entry in after if _is_of_no_table(entry, tables)]
        self._layouts: dict[bytes, Read | None] = {}
        self._reads: dict[int, Read | None] = {}
        self._transaction = _Transaction()
        self._flow = _Flow()
        if (place := self._progress.place) is not None and (reason := why_lost(server, place)) is not None:
            self._lost: str | None = reason
            if not self._can_go_by_gtid():
                raise lost(connection, reason, origin.label)
        else:
            self._lost = None

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 - whichever it is
        """None: nothing is delivered twice."""
        return None

    def committed(self, position: Position) -> None:
        """Nothing: the server keeps no account of those who read its log."""

    def __iter__(self) -> Iterator[Batch]:
        for name, table in self._tables.items():
            if table.cascades:
                note = (
                    f"rows of {name} that foreign keys delete or change are not in the binary log, so they stay as "
                    f"they were here: {'; '.join(table.cascades)}. Read it anew now and then (--full-refresh), or have "
                    "the application delete them."
                )
                yield Batch(name, NOTHING, "changes", None, notes=[note])
        yield from self._copy()
        yield from self._log()

    def _copy(self) -> Iterator[Batch]:
        """The tables, or what is left of them, in a snapshot of their own."""
        progress, connection = self._progress, self._connection
        due = [table for name, table in self._tables.items() if not progress.copies[name].is_whole]
        if not due:
            return
        place = begin_snapshot(connection)
        if progress.place is None:
            progress.place = place
            progress.gtids = self._gtids_at(place)
            progress.created = self._created(place)
        for table in due:
            name = table.name
            if not progress.copies[name].stretches and DONE in self._after.values():
                # It comes to the others later: what may have landed of it before is not to stay.
                yield Batch(name, truncation(progress.numbers, int(time.time())), "changes", None)
            for piece in pieces(connection, self._values, table, progress.copies[name], progress.numbers):
                if piece.upto is None:
                    yield Batch(name, piece.rows, "changes", None)
                    continue
                progress.copies[name] = progress.copies[name].up_to(place, piece.upto)
                yield self._reached(name, piece.rows, name)
            progress.copies[name] = progress.copies[name].up_to(place, None)
            yield self._reached(name, self._empty(table), name)
        connection.run("rollback")

    def _empty(self, table: SourceTable) -> pa.Table:
        """No rows of a table, in its columns: a table without rows lands as well."""
        return pa.schema(
            [
                ("_operation", pa.string()),
                ("_order", pa.int64()),
                ("_committed_at", pa.timestamp("us", "UTC")),
                *((column.name, column.type) for column in table.columns),
            ]
        ).empty_table()

    def _gtids_at(self, place: Place) -> dict[str, str]:
        """The last GTID of each domain before a place; none where there are none."""
        if not self._connection.is_mariadb:
            return {}
        text = self._connection.value(f"select binlog_gtid_pos('{place.file}', {place.at})") or ""
        return {gtid.partition("-")[0]: gtid for gtid in text.split(",") if gtid}

    def _created(self, place: Place) -> str:
        """When the file of a place was begun."""
        with self._origin.connect() as connection:
            log = Log(connection, self._origin.server_id, place)
            next(log.events(), None)
            return str(log.created)

    def _reached(self, table: str, rows: pa.Table, *moved: str) -> Batch:
        """A batch with the position that the reading reached."""
        forget, self._forget = self._forget, []
        return Batch(table, rows, "changes", self._progress.position(*moved), forget=forget)

    def _log(self) -> Iterator[Batch]:
        progress = self._progress
        assert progress.place is not None  # noqa: S101 - the copy found one
        end = end_of_log(self._connection)
        if self._lost is None and progress.place == end:
            if moved := self._passed(progress.place):
                yield self._reached(moved[0], NOTHING, *moved)
            return
        with self._origin.connect() as connection:
            log, events = self._opened(connection, progress.place)
            for event in events:
                yield from self._take(event, log)
                if self._transaction.is_open:
                    if self._flow.is_much():
                        yield from self._delivered(None)
                    continue
                if event.kind == Kind.ROTATE:
                    continue
                self._flow.bytes += len(event.body)
                if end <= log.place:
                    break
                if self._flow.is_much() or time.monotonic() - self._flow.since >= FLUSH_SECONDS:
                    yield from self._delivered(log)
            if not self._transaction.is_open:
                yield from self._delivered(log)

    def _opened(self, connection: Connection, start: Place) -> tuple[Log, Iterator[Event]]:
        """The log from `start` on, if it is the one that was read up to there; by the GTID, where another server goes
        on with it."""
        reason = self._lost
        if reason is None:
            try:
                log = Log(connection, self._origin.server_id, start)
                events = log.events()
                try:
                    first = next(events, None)
                except TransientError:
                    # The place may be in the middle of an event of another log.
                    if not self._is_of_another_log(log):
                        raise
            except ServerError as error:
                if error.code != LOG_FATAL:
                    raise
                reason = f"the log cannot be read from {start} on ({error.said})"
            else:
                if not self._is_of_another_log(log):
                    return log, events if first is None else chain([first], events)
                began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(log.created))
                reason = f"the log was read up to {start}, and the {start.file} that is there was begun at {began}"
            reason += ": this is another server, or one that was restored or reset"
        if not self._can_go_by_gtid():
            raise lost(connection, reason, self._origin.label)
        connection.close()
        by_gtid = self._origin.connect()
        try:
            log = Log(by_gtid, self._origin.server_id, None, self._after[GTID])
            events = log.events()
            first = next(events, None)
        except ServerError as error:
            by_gtid.close()
            reason += f"; and from GTID {self._after[GTID]} on it cannot be read either: {error.said}"
            raise lost(connection, reason, self._origin.label) from None
        except BaseException:
            by_gtid.close()
            raise
        return log, _until_closed(by_gtid, [] if first is None else [first], events)

    def _is_of_another_log(self, log: Log) -> bool:
        """Whether the file that a log begins in was begun at another time than the one that was read, as far as it was
        said when."""
        return log.created != 0 and self._progress.created not in ("", str(log.created))

    def _can_go_by_gtid(self) -> bool:
        """Whether the reading may go on by GTID: on another server, of which places say nothing of what was copied of
        the one before. The same one gives a GTID twice, if it was restored from a backup."""
        if not (self._connection.is_mariadb and self._after.get(GTID)):
            return False
        if self._after.get(SERVER) == self._server.identity:
            return False
        return all(copy.passed for copy in self._progress.copies.values())

    def _take(self, event: Event, log: Log) -> Iterator[Batch]:
        """Take note of an event."""
        kind, transaction = event.kind, self._transaction
        if kind == Kind.TABLE_MAP:
            self._reads[table_number(event.body)] = self._read(event.body)
        elif kind in OF_ROWS:
            yield from self._take_rows(event, log)
        elif kind == Kind.XID:
            self._transaction = _Transaction()
        elif kind == Kind.MARIADB_GTID:
            domain, gtid, stands_alone = mariadb_gtid(event)
            self._progress.gtids[domain] = gtid
            self._transaction = _Transaction(event.when, is_open=True, is_statement=stands_alone)
        elif kind in (Kind.GTID, Kind.ANONYMOUS_GTID):
            self._transaction = _Transaction(event.when, is_open=True, is_statement=True)
        elif kind in (Kind.QUERY, Kind.QUERY_COMPRESSED):
            yield from self._take_statement(event, log)
        elif kind == Kind.EXECUTE_LOAD_QUERY:
            database, text = statement(event, file_loads=True)
            self._refuse_rows(effects(text, database), log)
        elif kind == Kind.XA_PREPARE:
            if transaction.has_rows and not event.body[0]:
                raise PlatformError(
                    f"{self._connection.where}: a transaction before {log.place} of its log was prepared (XA PREPARE), "
                    "with rows of the tables, and it is unknown whether it was committed. Such transactions cannot be "
                    f"read. Read the tables anew: dp run {self._origin.label} --full-refresh."
                )
            self._transaction = _Transaction()
        elif kind == Kind.PAYLOAD:
            raise PlatformError(
                f"{self._connection.where}: its log has compressed transactions, before {log.place}, which cannot be "
                "read. Set binlog_transaction_compression = OFF, and read the tables anew: "
                f"dp run {self._origin.label} --full-refresh."
            )

    def _read(self, body: bytes) -> Read | None:
        """How the rows of a table map are read; None if it is none of the tables."""
        described = body[6:]
        if described not in self._layouts:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            name = self._names.get(named(body))
            self._layouts[described] = None if name is None else read_of(self._tables[name], layout_of(body))
        return self._layouts[described]

    def _take_rows(self, event: Event, log: Log) -> Iterator[Batch]:
        read = self._reads.get(table_number(event.body))
        if read is None:
            return
        name, flow, transaction = read.table.name, self._flow, self._transaction
        rows = rows_event(event) if event.kind != Kind.PARTIAL_UPDATE else None
        if rows is None or not rows.complete or rows.columns != len(read.layout.columns):
            raise PlatformError(
                f"{self._connection.where}: before {log.place} of its log a row of {name} has not all of its columns: "
                "a session wrote with another binlog_row_image than FULL, or with parts of JSON values "
                "(binlog_row_value_options). Set them so for all sessions, and read the tables anew: "
                f"dp run {self._origin.label} --full-refresh."
            )
        pending = flow.pending.get(name)
        if pending is None or pending.read is not read:
            if pending is not None:  # its columns are others now
                yield from self._batch(name, pending)
            pending = flow.pending[name] = Pending(read)
        images = read.layout.rows(rows.images)
        numbers, second, place = self._progress.numbers, transaction.second or event.when, log.place
        transaction.has_rows = True
        if event.kind in WRITES:
            pending.add("insert", images, numbers, second, place)
        elif event.kind in DELETES:
            pending.add("delete", images, numbers, second, place)
        else:
            pending.update(images, numbers, second, place)
        flow.rows += len(images)
        flow.bytes += len(event.body)

    def _take_statement(self, event: Event, log: Log) -> Iterator[Batch]:
        database, text = statement(event)
        word = plain(text[:200]).split(None, 1)[0].upper() if text.strip() else ""
        transaction = self._transaction
        if word in ("BEGIN", "XA"):
            opens = word == "BEGIN" or plain(text)[2:].split(None, 1)[0].upper() in ("START", "BEGIN", "END")
            self._transaction = _Transaction(transaction.second or event.when, opens, has_rows=transaction.has_rows)
            return
        if word in ("COMMIT", "ROLLBACK"):
            if word == "ROLLBACK" and transaction.has_rows:
                raise PlatformError(
                    f"{self._connection.where}: before {log.place} of its log, changes of the tables are undone by "
                    f"{plain(text)}: a transaction over tables with and without transactions. What is left of it "
                    f"cannot be told. Read the tables anew: dp run {self._origin.label} --full-refresh."
                )
            if " TO " not in plain(text).upper():
                self._transaction = _Transaction()
            return
        if word in ("SAVEPOINT", "RELEASE"):
            return
        done = effects(text, database)
        self._refuse_rows(done, log)
        second = transaction.second or event.when
        for name in _emptied(done, self._names):
            copy = self._progress.copies[name]
            if copy.last is None or copy.last < log.place:
                yield Batch(name, truncation(self._progress.numbers, second), "changes", None)
            elif any(one.place < log.place for one in copy.stretches):
                raise PlatformError(
                    f"Table {name} was emptied while its first copy was interrupted, before {log.place} of the log: it "
                    "is unknown which rows of the copy that concerns. Read the tables anew: "
                    f"dp run {self._origin.label} --full-refresh."
                )
        for tables, what in ((done.replaced, "took the place of"), (done.partly, "added or removed rows of")):
            for name in (self._names[one] for one in tables if one in self._names):
                said = "" if self._connection.withholds else f": {plain(text)[:200]}"
                note = (
                    f"before {log.place} of the log a statement {what} {name} without its rows being in the log{said}. "
                    "If these are not the rows that were there, read it anew: --full-refresh."
                )
                yield Batch(name, NOTHING, "changes", None, notes=[note])
        if transaction.is_statement:
            self._transaction = _Transaction()

    def _refuse_rows(self, done: Effects, log: Log) -> None:
        """Raise PlatformError for a statement that changed rows of the tables, which the log does not have."""
        if not done.changed:
            return
        touched = [name for (_, table), name in self._names.items() if done.mentions(table)]
        if touched:
            raise PlatformError(
                f"{self._connection.where}: before {log.place} of its log, {', '.join(touched)} was changed by a "
                "statement of which the log has the text instead of the rows: a session wrote with another "
                "binlog_format than ROW. Set it so for all sessions, and read the tables anew: "
                f"dp run {self._origin.label} --full-refresh."
            )

    def _batch(self, name: str, pending: Pending) -> Iterator[Batch]:
        """The changes of a table that are pending, without a position."""
        rows = pending.table(self._values, self._progress.copies[name], self._connection)
        if rows is not None:
            yield Batch(name, rows, "changes", None)

    def _delivered(self, log: Log | None) -> Iterator[Batch]:
        """All changes that are pending; between transactions with the place of the log."""
        flow, self._flow = self._flow, _Flow()
        for name, pending in flow.pending.items():
            yield from self._batch(name, pending)
        if log is None:
            return
        log.begin_again()
        progress = self._progress
        progress.place, progress.created = log.place, str(log.created)
        yield self._reached(next(iter(self._tables)), NOTHING, *self._passed(log.place))

    def _passed(self, place: Place) -> list[str]:
        """The tables of which nothing has to be remembered of their copies any more, now that the log was read up to
        there."""
        copies = self._progress.copies
        left = {name: passed(copy, place) for name, copy in copies.items()}
        moved = [name for name, copy in left.items() if copy != copies[name]]
        self._progress.copies = left
        return moved


def _until_closed(connection: Connection, before: Sequence[Event], events: Iterator[Event]) -> Iterator[Event]:
    """The events, and the connection closed after them."""
    with connection:
        yield from before
        yield from events


def _is_of_no_table(entry: str, tables: Mapping[str, SourceTable]) -> bool:
    """Whether an entry of the position is of a table that is not read any more."""
    return entry.startswith(entry_of("")) and entry not in {entry_of(name) for name in tables}


def _emptied(done: Effects, names: Mapping[tuple[str, str], str]) -> list[str]:
    """The tables that a statement took all rows of."""
    found = [name for table, name in names.items() if table in done.emptied or table[0] in done.databases]
    return list(dict.fromkeys(found))
