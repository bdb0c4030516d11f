"""PostgreSQL read by its log of changes, as a `Source`: all tables in one reading, with one position. The first copy
belongs in `copy`, the log in `log`, what is made at the server in `slot`.

A position has the entries `lsn` (up to where the log was read, at the end of a transaction), `order` (the last that was
given), `system`, `publication` and `options` (what it is of), and one for each table: what was copied of it. While
that is not all, `turn` says whether the log or the copy is to go on first (see `copied`). The slot is made
before the first copy, and is advanced only when what was read is committed. What the copy has already seen is passed
over in the log (see `copied`), so that a table can be copied at any time: in pieces, after a full refresh was asked
for, or when it is named later than the others.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.held import Held
from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.changes.postgresql import publication as publications
from data_platform.ingestion.changes.postgresql import slot as slots
from data_platform.ingestion.changes.postgresql.copied import COPY, ENTRY, LOG, TURN, Copied
from data_platform.ingestion.changes.postgresql.copy import copy
from data_platform.ingestion.changes.postgresql.log import Log
from data_platform.ingestion.changes.postgresql.place import from_lsn, place_of, to_lsn
from data_platform.ingestion.changes.postgresql.server import LogConnection, Server
from data_platform.ingestion.changes.postgresql.tables import (
    LoggedTable,
    Partition,
    logged_tables,
    partitions,
    require_no_heirs,
)
from data_platform.ingestion.source import Batch, Overlap, Position, Probe
from data_platform.ingestion.sql.dialects.postgresql import PostgresqlSession
from data_platform.ingestion.sql.dialects.session import Timeouts, known
from data_platform.ingestion.sql.source import TIMEOUTS, SqlTable, columns_to_read

PEEKED_BYTES = 64 * 2**20
"""Bytes of log that a probe looks into at most. If there is more, a reading is due in any case: it moves the slot."""

PEEK_SECONDS = 10

PARTITIONS = "partitions "
"""What the entries of a position begin with that say where the rows of a table's partitions lie."""


class PostgresqlChanges:
    """The changes of tables of one database, `postgresql://user:password@host:port/database`. `label` (letters, digits
    and underscores) makes the names of the slot and the publication that are made, unless `changes` names others."""

    def __init__(
        self,
        url: str,
        tables: Mapping[str, SqlTable],
        changes: Changes,
        label: str,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self.url, self.options, self.timeouts = url, dict(tables), timeouts
        self.place = place_of(changes, label)
        self._withholds = any(table.masks for table in tables.values())

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """Whether the log has a change of the tables after the position. Nothing is taken from the slot; while it is
        read by a run, nothing is said."""
        with self._server() as server:
            position = next((each for each in after.values() if "lsn" in each), None)
            if position is None:
                return {table: Probe({"lsn": "0/0"}, complete=False) for table in tables}
            try:
                found = self._look(server, position)
            except PlatformError as error:
                return {table: Probe(failure=error, complete=False) for table in tables}
            return {table: Probe({} if found is None else {"lsn": found}, complete=False) for table in tables}

    def _look(self, server: Server, position: Position) -> str | None:
        """Where the first change after the position is, about; None if there is none, or it cannot be told."""
        lsn = from_lsn(position["lsn"])
        slot = slots.require_position(server, self.place, position)
        end = slots.now(server)
        if slot.active or end <= lsn:
            return None
        if end - lsn > PEEKED_BYTES:
            return to_lsn(lsn + PEEKED_BYTES)
        server.rows(f"set statement_timeout = '{PEEK_SECONDS}s'")
        try:
            rows = server.rows_or_error(
                "select lsn::text as lsn from pg_logical_slot_peek_binary_changes(%s, null, 1, 'proto_version', '1', "
                "'publication_names', %s) where get_byte(data, 0) in (73, 85, 68, 84) and lsn >= %s::pg_lsn limit 1",
                [self.place.slot, '"{}"'.format(self.place.publication.replace('"', '""')), position["lsn"]],
            )
        except (psycopg.errors.ObjectInUse, psycopg.errors.QueryCanceled):
            return None
        except psycopg.Error as error:
            raise server.refused(error) from None
        return rows[0]["lsn"] if rows else None

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["ChangesReading"]:
        """Read the log after a position; before that, copy the tables that were not copied yet. An empty position
        copies all of them, and goes on from where the slot is, if there is one."""
        options = {table: self._options(table) for table in tables}
        with ExitStack() as stack:
            server = stack.enter_context(self._server())
            version = slots.require_ready(server)
            with PostgresqlSession(self.url, self.timeouts, withholds=self._withholds) as session:
                found = logged_tables(server, session, options)
                for table in found:
                    if ENTRY + table.name not in after:
                        columns_to_read(session, table.name, table.relation, table.options)
                require_no_heirs([table for table in found if ENTRY + table.name not in after])
            is_new = False
            if "lsn" in after:
                lsn, order = from_lsn(after["lsn"]), int(after["order"])
                slots.require_position(server, self.place, after)
                publications.ensure_publication(server, self.place, found, version)
            else:
                slots.require_rights(server, self.place)
                publications.ensure_publication(server, self.place, found, version)
                before = slots.find_slot(server, self.place)
                slot = slots.ensure_slot(server, self.place)
                is_new = before is None or before.lost is not None
                lsn = order = slot.confirmed
            reading = ChangesReading(self, server, found, after, lsn, order, version, is_new=is_new)
            stack.callback(reading.close)
            yield reading

    def held(self, after: Position) -> Sequence[Held]:
        """The slot and the publication, as far as they are there."""
        with self._server() as server:
            return slots.held(server, self.place, from_lsn(after["lsn"]) if "lsn" in after else None)

    def drop(self) -> Sequence[Held]:
        """Remove the slot and the publication that were made for this reading; those that a person named stay."""
        with self._server() as server:
            return slots.drop(server, self.place)

    def open_log(self, lsn: int) -> LogConnection:
        """The connection over which the log comes that is after a position."""
        return LogConnection(
            self.url,
            self.timeouts,
            self.place.slot,
            self.place.publication,
            to_lsn(lsn),
            lsn,
            withholds=self._withholds,
        )

    def open_copy(self) -> PostgresqlSession:
        """A session in which tables are copied: one snapshot."""
        return PostgresqlSession(self.url, self.timeouts, withholds=self._withholds)

    def _server(self) -> Server:
        return Server(self.url, self.timeouts, withholds=self._withholds)

    def _options(self, table: str) -> SqlTable:
        if table not in self.options:
            raise PlatformError(
                f"The source has no table {table} in its defs.yaml. " + known("table", table, list(self.options))
            )
        return self.options[table]


class ChangesReading:
    """One reading: what the log has up to its end, then the tables that are not copied yet, then the log again."""

    def __init__(
        self,
        source: PostgresqlChanges,
        server: Server,
        tables: Sequence[LoggedTable],
        after: Position,
        lsn: int,
        order: int,
        version: int,
        *,
        is_new: bool,
    ) -> None:
        self._source, self._server, self._tables, self._after = source, server, list(tables), after
        self._lsn, self._order, self._version, self._is_new = lsn, order, version, is_new
        self._connection: LogConnection | None = None
        self._log: Log | None = None
        self._copied: dict[str, Copied] = {}
        self._anew: set[str] = set()
        members = publications.members(server, source.place, tables)
        for table in tables:
            entry, member = after.get(ENTRY + table.name), members[table.name]
            copied = Copied.parse(entry) if entry is not None else None
            # One of another number is another table, or was unpublished for a while.
            if copied is None or (copied.oid, copied.member) != (table.oid, member):
                copied = Copied(table.oid, member)
                self._anew |= {table.name} if "lsn" in after else set()
            self._copied[table.name] = copied

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 - of no table
        """None: nothing is delivered twice."""
        return None

    def __iter__(self) -> Iterator[Batch]:
        if "lsn" in self._after:
            yield from self._changed_outside_of_the_log()
            if self._missing() and self._after.get(TURN, COPY) == COPY:
                yield from self._copy_a_piece()
            yield from self._read_log()
        missing = self._missing()
        if missing:
            copied = False
            for batch in self._copy(missing):
                copied = True
                yield batch
            if copied:
                yield from self._read_log()

    def _missing(self) -> list[LoggedTable]:
        return [table for table in self._tables if not self._copied[table.name].is_complete]

    def _changed_outside_of_the_log(self) -> Iterator[Batch]:
        """Notes of what became of tables without a word of it in the log, and the entries of the position that tell it
        the next time; those of tables that are not read any more are forgotten."""
        moved = {"lsn": self._after["lsn"]}
        if "options" not in self._after:
            moved["options"] = publications.options_of(self._server, self._source.place)
        for table in self._tables:
            if table.heirs:
                note = f"rows of the tables that inherit from {table.name} are not in it: {', '.join(table.heirs)}."
                yield Batch(table.name, pa.table({}), "changes", None, notes=[note])
            if not table.is_partitioned:
                continue
            there, before = partitions(self._server, table), self._after.get(PARTITIONS + table.name)
            if before is not None and self._copied[table.name].is_complete:
                notes = _of_partitions(table.name, json.loads(before), there)
                yield Batch(table.name, pa.table({}), "changes", None, notes=notes)
            if before != _files(there):
                moved[PARTITIONS + table.name] = _files(there)
        gone = [
            name
            for name in self._after
            for kind in (ENTRY, PARTITIONS)
            if name.startswith(kind) and name.removeprefix(kind) not in self._copied
        ]
        if gone or len(moved) > 1:
            yield Batch(self._tables[0].name, pa.table({}), "changes", moved, forget=gone)

    def committed(self, position: Position) -> None:
        """Advance the slot."""
        if "lsn" in position and self._connection is not None:
            self._connection.confirm(from_lsn(position["lsn"]))

    def close(self) -> None:
        """Release the connection that the log comes over."""
        if self._connection is not None:
            self._connection.close()

    def _read_log(self) -> Iterator[Batch]:
        if self._log is None:
            self._connection = self._source.open_log(self._lsn)
            self._log = Log(self._server, self._connection, self._tables, self._copied, self._lsn, self._order)
        else:
            self._log.order = max(self._log.order, self._order)
            self._log.resume()
        yield from self._log.upto(slots.now(self._server))
        self._lsn, self._order = self._log.lsn, self._log.order

    def _copy_a_piece(self) -> Iterator[Batch]:
        """The next rows of a copy, up to a position, if they can be read."""
        if not self._anew and slots.wait_for_commits(self._server) is not None:
            return
        with closing(self._copy(self._missing())) as batches:
            for batch in batches:
                yield batch
                if batch.position is not None and batch.rows.num_rows:
                    return

    def _copy(self, tables: Sequence[LoggedTable]) -> Generator[Batch]:
        is_first = "lsn" not in self._after
        if self._anew or (is_first and not self._is_new):
            # Of what was under way when a table was published, the log may have a part: the copy has to see all of it.
            waits = slots.wait_for_transactions(self._server)
            if waits is not None and is_first:
                raise TransientError(
                    f"The tables were not copied: {waits}, begun before their changes were published. End it, or run "
                    "this again later. Nothing was read."
                )
            if waits is not None:
                note = f"Not copied yet: {waits}, begun before the table's changes were published. Tried again later."
                for name in self._anew:
                    yield Batch(name, pa.table({}), "changes", None, notes=[note])
                tables = [table for table in tables if table.name not in self._anew]
                if not tables:
                    return
        elif not is_first and (waits := slots.wait_for_commits(self._server)) is not None:
            raise TransientError(
                f"The first copy cannot go on yet: {waits}. What was committed stays; try again later."
            )
        columns = {table.name: self._published(table) for table in tables}
        place = self._source.place
        rows = {table.name: publications.published_rows(self._server, place, table) for table in tables}
        order, self._order = self._order, self._order + 2
        base = {"lsn": to_lsn(self._lsn), "order": str(self._order), TURN: LOG}
        if is_first:
            # None of those that the copy does not reach is to be taken for one that was named later.
            entries = {ENTRY + table.name: str(self._copied[table.name]) for table in tables}
            server = {
                "system": slots.system(self._server),
                "publication": publications.publication_of(self._server, place) or "",
                "options": publications.options_of(self._server, place),
            }
            entries |= {
                PARTITIONS + table.name: _files(partitions(self._server, table))
                for table in tables
                if table.is_partitioned
            }
            yield Batch(tables[0].name, pa.table({}), "changes", {**base, **server, **entries})
        with self._source.open_copy() as session:
            yield from copy(session, tables, self._copied, columns, rows, order, base, anew=self._anew)

    def _published(self, table: LoggedTable) -> list[str]:
        """The columns that the log gives of a table."""
        names = publications.published_columns(self._server, self._source.place, table)
        generated = publications.generated_columns(self._server, self._source.place, self._version)
        left_out = {*table.unlogged, *(() if generated else table.stored)}
        return [name for name in names if name not in left_out]


def _files(there: Mapping[str, Partition]) -> str:
    """Where the rows of partitions lie, as a position has it."""
    return json.dumps({oid: one.file for oid, one in there.items()})


def _of_partitions(table: str, before: Mapping[str, str], now: Mapping[str, Partition]) -> list[str]:
    """What became of the partitions of a table that the log does not say. That all of them were rewritten is what a
    TRUNCATE of the table does as well, which it says."""
    gone = len(before.keys() - now.keys())
    joined = [one.name for oid, one in now.items() if oid not in before and one.was_attached]
    stayed = [oid for oid in now if oid in before]
    rewritten = [now[oid].name for oid in stayed if now[oid].file != before[oid]]
    if len(rewritten) == len(stayed) > 1:
        rewritten = []
    ends = "The log does not have the rows: if these are not the same as before, read it anew: --full-refresh."
    return [
        note
        for note in (
            f"{gone} partitions of {table} were detached or dropped: their rows stay here as they were." * (gone > 0),
            f"tables became partitions of {table}: {', '.join(joined[:10])}. {ends}" * bool(joined),
            f"partitions of {table} were truncated or rewritten: {', '.join(rewritten[:10])}. {ends}" * bool(rewritten),
        )
        if note
    ]
