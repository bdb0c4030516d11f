"""One run of the engine as a reading: a first copy, then the log, in batches of whole transactions, with the position
that moves along. How the engine is configured is in `source`, how it is run in `process`.

The position has, for each partition of the engine (the databases of a server, often one), the offset after which it
goes on; the records of the history of the tables' schemas, one entry each, as they were added; the number of the last
change; where tables were emptied last; and the tables that were copied. The engine keeps nothing of it.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.debezium.envelope import NO_CHANGES, OPERATIONS, Changes, spellings
from data_platform.ingestion.debezium.options import DebeziumTable
from data_platform.ingestion.debezium.process import Engine
from data_platform.ingestion.debezium.protocol import UNAVAILABLE, Shape, shape_of
from data_platform.ingestion.source import Batch, Overlap, Position
from data_platform.ingestion.sql.dialects.session import known

OFFSET, HISTORY, COPIED, TRUNCATED, ORDER, SLOT = "offset ", "history ", "copied ", "truncated ", "order", "slot"
"""What the entries of the position begin with, or are."""

FLUSH_ROWS, FLUSH_SECONDS = 50_000, 1.0
"""Rows after which what was read is handed on; between transactions also time."""

PLACEHOLDERS = spellings(UNAVAILABLE)


@dataclass(frozen=True)
class Limits:
    """How long things may take [s]."""

    connect: float
    idle: float


@dataclass(frozen=True)
class Ways:
    """What is particular to a database. `ends_late`: the end of a transaction is told only when the next one begins.
    `truncates_alone`: that a table was emptied is a transaction by itself, whose end is not told."""

    ends_late: bool
    truncates_alone: bool


class DebeziumReading:
    """One pass: the first copy if there was none, then the log up to where it ended when that was begun."""

    def __init__(
        self,
        engine: Engine,
        label: str,
        tables: Mapping[str, tuple[str, DebeziumTable]],
        after: Position,
        first: Mapping[str, str],
        limits: Limits,
        ways: Ways,
    ) -> None:
        self._engine, self._label, self._after, self._limits, self._ways = engine, label, after, limits, ways
        self._tables = {name: table for name, (_, table) in tables.items()}
        self._names = {address: name for name, (address, _) in tables.items()}
        self._is_first = not any(entry.startswith(OFFSET) for entry in after)
        self._order = int(after.get(ORDER, "0"))
        self._history = sum(entry.startswith(HISTORY) for entry in after)
        self._known = {_meaning(text) for entry, text in after.items() if entry.startswith(HISTORY)}
        self._shapes: dict[int, tuple[str | None, Shape]] = {}
        self._pending: dict[str, tuple[tuple[tuple[str, ...], frozenset[str]], Changes]] = {}
        self._entries = dict(first)
        self._reached: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._is_checked = not self._is_first
        self._open = self._has_rows = False
        self._count = 0
        self._rest: list[Any] | None = None
        self._flushed_at = time.monotonic()
        self._moved = False
        self._note = ""

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 - whichever it is
        """None: nothing is delivered twice."""
        return None

    def committed(self, position: Position) -> None:
        """Let the engine, and with it the source, know that it need not keep what came before."""
        last = max((self._numbers.get(entry + value, 0) for entry, value in position.items()), default=0)
        if last:
            self._engine.tell(f"ack {last}")
        # A copy: the thread that reads may add to it meanwhile.
        for known_by, number in list(self._numbers.items()):
            if number <= last:
                self._numbers.pop(known_by)

    def close(self) -> None:
        """End the engine in good order."""
        self._engine.stop()

    def __iter__(self) -> Iterator[Batch]:
        began = heard = time.monotonic()
        streams = False
        for message in self._engine.messages():
            what = message[0]
            if what == "row":
                yield from self._row(message)
                heard = time.monotonic()
            elif what == "schema":
                self._schema(message)
            elif what == "begin":
                self._open, self._has_rows = True, False
            elif what == "end":
                self._open = self._has_rows = False
                self._reach(message)
            elif what in ("heartbeat", "rest"):
                if not self._open:
                    self._reach(message)
                elif what == "rest":
                    self._rest = message
            elif what == "history":
                self._add_history(message[1])
            elif what == "status":
                now = time.monotonic()
                streams = streams or message[1]
                self._note = message[4]
                if not self._is_checked:
                    self._require_tables(set(message[3]), streams=streams)
                if message[2] and self._is_at_the_end():
                    yield from self._flush()
                    return
                self._require_life(now, began, heard, streams)
            if self._moved and not self._open and self._is_checked and self._is_time():
                yield from self._flush()
                heard = time.monotonic()

    def _schema(self, message: list[Any]) -> None:
        shape = shape_of(message)
        name = self._names.get(shape.table)
        if name is not None and shape.key:
            self._require_key(name, shape)
        self._shapes[message[1]] = (name, shape)

    def _require_key(self, name: str, shape: Shape) -> None:
        """Raise PlatformError if rows are told apart in staging by other columns than by which the log names those that
        are gone: a delete would find none."""
        table = self._tables[name]
        beside = [column for column in table.key if column in shape.columns and column not in shape.key]
        if beside:
            raise PlatformError(
                f"{self._label}/{name}: the events of {shape.table} have the key ({', '.join(shape.key)}), and "
                f"defs.yaml says `key: [{', '.join(table.key)}]`: a delete does not say {', '.join(beside)}. Write the "
                f"key that the events have, or have Debezium take yours (`settings`: `message.key.columns: "
                f"'{shape.table}:{','.join(table.key)}'`). Nothing was loaded."
            )

    def _row(self, message: list[Any]) -> Iterator[Batch]:
        _, number, op, millis, key, values, *place = message
        name, shape = self._shapes[number]
        operation = OPERATIONS.get(op)
        if name is None or operation is None or (place and self._is_known_truncation(name, place[0])):
            return
        if name in self._pending and self._pending[name][0] != (shape.columns, shape.binary):
            yield from self._flush_table(name)
        if name not in self._pending:
            self._pending[name] = ((shape.columns, shape.binary), Changes(shape.columns, shape.binary))
        changes = self._pending[name][1]
        self._order += 1
        if operation == "delete":
            if key is None:
                raise PlatformError(
                    f"{self._label}/{name}: a row of {shape.table} was deleted, and the table has no primary key by "
                    "which its events say which one. Name columns that tell rows apart (`settings`: "
                    f"`message.key.columns: '{shape.table}:id'`), and load all tables anew with --full-refresh."
                )
            values = changes.of_key(shape.key, key)
        changes.add(operation, self._order, millis, values)
        self._count += 1
        self._has_rows = True
        if operation == "truncate" and self._ways.truncates_alone:
            self._open = self._has_rows = False
        if self._count >= FLUSH_ROWS:
            for one in list(self._pending):
                yield from self._flush_table(one)

    def _is_known_truncation(self, name: str, place: str) -> bool:
        """Whether that the table was emptied here was delivered before: until the next transaction no offset is past
        it, so that it comes again."""
        entry = f"{TRUNCATED}{name}"
        is_known = self._entries.get(entry, self._after.get(entry)) == place
        self._entries[entry] = place
        return is_known

    def _reach(self, message: list[Any]) -> None:
        """Take note of an offset after which reading can go on."""
        _, number, partition, offset = message
        entry = f"{OFFSET}{partition}"
        if self._entries.get(entry, self._after.get(entry)) != offset:
            self._moved = True
        self._entries[entry] = offset
        self._reached[entry] = number
        self._rest = None

    def _add_history(self, text: str) -> None:
        """Take note of a record of the history of schemas. One that is known comes again where the log is read again
        from before it."""
        meaning = _meaning(text)
        if meaning in self._known:
            return
        self._known.add(meaning)
        self._history += 1
        self._entries[f"{HISTORY}{self._history:06}"] = text

    def _is_at_the_end(self) -> bool:
        """Whether what was read ends with a transaction, and a first copy with a position."""
        if self._open and self._has_rows:
            if not self._ways.ends_late or self._rest is None:
                return False
            self._open = self._has_rows = False
            self._reach(self._rest)
        return not self._is_first or (self._is_checked and any(one.startswith(OFFSET) for one in self._entries))

    def _require_tables(self, captured: set[str], *, streams: bool) -> None:
        """Raise PlatformError if the connector does not read all tables: it leaves out what is not there, and says
        nothing. It tells which ones it reads before it is done with the first copy, if it ever does."""
        missing = [address for address in self._names if not _is_among(address, captured)]
        if captured and missing:
            raise PlatformError(
                f"{self._label}: there is no table {missing[0]} in the source, or its user may not see it. Nothing was "
                f"loaded. {known('table', missing[0], sorted(captured))}"
            )
        self._is_checked = bool(captured) or streams

    def _require_life(self, now: float, began: float, heard: float, streams: bool) -> None:
        """Raise TransientError if nothing came for too long."""
        if not streams and not self._is_first and now - began > self._limits.connect:
            raise TransientError(
                f"{self._label}: Debezium did not begin to read within {self._limits.connect:g} s (`connect_timeout`)."
            )
        if now - max(heard, began) > self._limits.idle:
            raise TransientError(
                f"{self._label}: nothing came from Debezium for {self._limits.idle:g} s (`idle_timeout`)."
            )

    def _is_time(self) -> bool:
        return self._count >= FLUSH_ROWS or time.monotonic() - self._flushed_at >= FLUSH_SECONDS

    def _flush_table(self, name: str) -> Iterator[Batch]:
        """What waits of a table, without a position: there may be more of the same transaction."""
        _, changes = self._pending.pop(name)
        self._count -= len(changes)
        table = self._tables[name]
        rows = changes.table(f"{self._label}/{name}", PLACEHOLDERS, table.columns, table.max_columns)
        yield Batch(name, rows, "changes", None)

    def _flush(self) -> Iterator[Batch]:
        """All that waits, the last of it with the position."""
        batches = [batch for name in list(self._pending) for batch in self._flush_table(name)]
        yield from batches
        if any(entry.startswith(OFFSET) for entry in self._entries) or batches:
            if self._is_first:
                self._entries |= {f"{COPIED}{name}": "done" for name in self._tables}
                yield from (Batch(name, NO_CHANGES, "changes", None) for name in self._tables)
            notes = [f"the end of the log could not be asked for ({self._note})"] if self._note else []
            position = {**self._entries, ORDER: str(self._order)}
            for entry, number in self._reached.items():
                self._numbers[entry + self._entries.get(entry, "")] = number
            yield Batch(next(iter(self._tables)), NO_CHANGES, "changes", position, notes=notes)
            self._entries, self._is_first = {}, False
        self._flushed_at, self._moved = time.monotonic(), False


def _is_among(address: str, captured: set[str]) -> bool:
    """Whether a table is among those that the connector says it reads; some put the database before it."""
    return any(one == address or one.endswith(f".{address}") for one in captured)


def _meaning(record: str) -> str:
    """A record of the history without what differs each time that the same place of the log is read."""
    given = json.loads(record)
    position = given.get("position", {})
    place = [position.get(name) for name in ("file", "pos", "gtids", "lsn", "commit_lsn", "scn")]
    return json.dumps([place, *(given.get(name) for name in ("databaseName", "ddl", "tableChanges"))], sort_keys=True)
