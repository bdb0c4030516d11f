"""The log as batches: changes gathered by table, whole transactions between two positions, and what a copy has already
seen left out. Bytes become columns in `pgoutput`, and values in `values`.

`_order` is the position of the commit in the log, and the place of the change in its transaction: transactions come in
the order of their commits, which the positions of the changes themselves are not in where transactions interleave.
Each is above the one before, so that a transaction of more changes than bytes does not run into the next one's.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.postgresql import pgoutput
from data_platform.ingestion.changes.postgresql.copied import COPY, ENTRY, TURN, Copied
from data_platform.ingestion.changes.postgresql.copy import CHANGES
from data_platform.ingestion.changes.postgresql.pgoutput import BODY, Begin, Relation, RelationColumn, Rows
from data_platform.ingestion.changes.postgresql.place import to_lsn
from data_platform.ingestion.changes.postgresql.server import LogConnection, Server, verbatim
from data_platform.ingestion.changes.postgresql.tables import LoggedTable
from data_platform.ingestion.changes.postgresql.unchanged import filled
from data_platform.ingestion.changes.postgresql.values import LogColumn, arrow, log_columns
from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql.dialects.session import valid_text
from data_platform.lakehouse.tables import PLATFORM_COLUMNS

MOST_ROWS = 250_000
MOST_BYTES = 64 * 2**20
"""Changes, and their bytes, after which a batch ends within a transaction."""

ROWS = 50_000
BYTES = 16 * 2**20
SECONDS = 1.0
"""Changes, bytes and time after which a batch ends with a transaction."""

PER_CHANGE = 2
"""Numbers of `_order` that a change has: that of a key is two rows."""


@dataclass
class _Gathered:
    """Messages of one table that have not become rows yet, each with its order."""

    table: LoggedTable
    columns: tuple[RelationColumn, ...] = ()
    wanted: list[LogColumn] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Log:
    """The log from a position on. `copied` says of each table what its copy has seen; `order` is the last that was
    given. `lsn` is the position that was reached, `copied` is brought up to date with it."""

    def __init__(
        self,
        server: Server,
        connection: LogConnection,
        tables: Sequence[LoggedTable],
        copied: dict[str, Copied],
        lsn: int,
        order: int,
    ) -> None:
        self._server, self._connection, self.copied = server, connection, copied
        self.lsn, self._after, self.order = lsn, lsn, order
        self._name = tables[0].name
        self._gathered = {pgoutput.oid_bytes(table.oid): _Gathered(table) for table in tables}
        self._left: list[bytes] = []
        self._in_transaction = False
        self._current = self._gathered
        self._relation: Relation | None = None
        self._pieces: dict[str, Copied] = {}
        self.resume()
        self._rows = self._bytes = 0
        # Of each transaction among the rows: the first order that is its, its time, and its number.
        self._firsts: list[int] = []
        self._times: list[int] = []
        self._xids: list[int] = []

    def upto(self, target: int) -> Iterator[Batch]:
        """What comes until the log was read to `target`, and to the end of a transaction. Can be called again."""
        flushed = time.monotonic()
        while self.lsn < target:
            messages, self._left = self._left or self._connection.messages(self._quiet), []
            moment = time.monotonic()
            at = 0
            while at < len(messages):
                at = self._gather(messages, at)
                if self._relation is not None:
                    yield from self._describe(self._relation)
                    self._relation = None
                elif not self._in_transaction:
                    if self.lsn >= target:
                        self._left = messages[at:]
                        break
                    if self._rows >= ROWS or self._bytes >= BYTES or moment - flushed >= SECONDS:
                        yield from self._flush(is_end=True)
                        flushed = moment
            if self._rows >= MOST_ROWS or self._bytes >= MOST_BYTES:
                yield from self._flush(is_end=not self._in_transaction)
        yield from self._flush(is_end=True)

    def _quiet(self) -> None:
        """Have the server write out what a transaction under way has written: it does so when anybody commits."""
        if not self._in_transaction:
            self._server.row("select pg_current_xact_id()::text as id")

    def _gather(self, messages: Sequence[bytes], at: int) -> int:
        """Take messages from the one of number `at`, up to the end of a transaction, a sign of life, or a table that
        is described; the number of the next."""
        gathered, order, rows, size = self._current, self.order, 0, 0
        number = at
        for number in range(at, len(messages)):
            message = messages[number]
            if message[0] != pgoutput.DATA:
                if message[0] == pgoutput.KEEPALIVE:
                    end, asks = pgoutput.keepalive(message)
                    if asks:
                        self._connection.answer()
                    if not self._in_transaction:
                        self.lsn = max(self.lsn, end)
                        break
                continue
            kind = message[BODY]
            if kind in pgoutput.OF_ROWS:
                one = gathered.get(message[pgoutput.OID])
                if one is not None:
                    order += PER_CHANGE
                    one.messages.append(message)
                    one.orders.append(order)
                    rows, size = rows + 1, size + len(message)
            elif kind == pgoutput.BEGIN:
                gathered, order = self._begin(pgoutput.begin(message), order)
            elif kind == pgoutput.COMMIT:
                self._in_transaction = False
                self.lsn = max(self.lsn, pgoutput.commit_end(message))
                break
            elif kind == pgoutput.RELATION:
                self._relation = pgoutput.relation(message)
                break
            elif kind == pgoutput.TRUNCATE:
                for oid in pgoutput.truncated(message):
                    one = gathered.get(pgoutput.oid_bytes(oid))
                    if one is not None:
                        order += PER_CHANGE
                        one.messages.append(message)
                        one.orders.append(order)
                        rows, size = rows + 1, size + len(message)
        self.order = order
        self._rows += rows
        self._bytes += size
        return number + 1

    def _begin(self, begin: Begin, order: int) -> tuple[dict[bytes, "_Gathered"], int]:
        """Which tables a transaction is gathered for, and the order before its first."""
        self._in_transaction = True
        order = max(order, begin.commit)
        self._firsts.append(order)
        self._times.append(begin.time)
        self._xids.append(begin.xid)
        self._current = self._gathered
        if self._pieces:
            seen = {name for name, copied in self._pieces.items() if copied.sees(begin.xid)}
            self._current = {oid: one for oid, one in self._gathered.items() if one.table.name not in seen}
        if begin.commit < self._after:
            # It was read before: nobody but the server could say that it was.
            self._current = {}
        return self._current, order

    def _describe(self, relation: Relation) -> Iterator[Batch]:
        """Take note of the columns that a table has from here on."""
        one = self._gathered.get(pgoutput.oid_bytes(relation.oid))
        if one is None or one.columns == relation.columns:
            return
        if one.messages:
            yield self._batch(one)
        wanted, notes, seen = [], [], set[str]()
        for column in relation.columns:
            lower = column.name.lower()
            if one.table.options.columns is not None and column.name not in one.table.options.columns:
                continue
            if lower in PLATFORM_COLUMNS or lower in seen:
                notes.append(
                    f"The column {column.name} is left out: the lakehouse has another of that name. Rename it in the "
                    "source."
                )
                continue
            seen.add(lower)
            wanted.append((column.name, column.type, column.modifier))
        one.columns, one.notes = relation.columns, [*one.notes, *notes]
        one.wanted = log_columns(self._server, wanted, one.table.options.as_text)

    def _flush(self, *, is_end: bool) -> Iterator[Batch]:
        """All rows that were gathered, the last with the position if this is the end of a transaction."""
        there = [one for one in self._gathered.values() if one.messages]
        for one in there[:-1]:
            yield self._batch(one)
        # What a copy has seen is forgotten with the position, not before the rows up to it.
        last = self._batch(there[-1]) if there else Batch(self._name, pa.table({}), "changes", None)
        if is_end:
            yield replace(last, position=self._position())
        elif there:
            yield last
        self._rows = self._bytes = 0
        keep = -1 if self._in_transaction else len(self._firsts)
        for each in (self._firsts, self._times, self._xids):
            del each[:keep]

    def _position(self) -> dict[str, str]:
        position = {"lsn": to_lsn(self.lsn), "order": str(self.order)}
        for name, copied in list(self._pieces.items()):
            past = copied.past(self.lsn)
            if past.is_past:
                position[ENTRY + name] = str(past)
                self.copied[name] = past
                del self._pieces[name]
        if not self._pieces:
            self._current = self._gathered
        if not all(copied.is_complete for copied in self.copied.values()):
            position[TURN] = COPY
        return position

    def resume(self) -> None:
        """Go on after more was copied."""
        self._pieces = {name: copied for name, copied in self.copied.items() if not copied.is_past}

    def _batch(self, one: _Gathered) -> Batch:
        identity = _identity(one)
        rows = pgoutput.rows_of(one.messages, one.columns, identity)
        if pc.any(pc.is_valid(rows.unchanged)).as_py():
            rows = filled(self._server, one.table.relation, self._typed(one, identity), rows)
        orders = pl.Series(one.orders, dtype=pl.Int64)
        transactions = pl.Series(self._firsts, dtype=pl.Int64).search_sorted(orders, side="left") - 1
        transactions = transactions.to_arrow().take(rows.places)
        one.messages, one.orders = [], []
        order = pc.add(pc.subtract(orders.to_arrow().take(rows.places), 1), rows.is_second.cast(pa.int64()))
        copied = self._pieces.get(one.table.name)
        if copied is not None:
            xids = [self._xids[number] for number in transactions.to_pylist()]
            kept = self._kept(one, rows, copied, xids)
        else:
            kept = None
        times = pa.array(self._times, pa.timestamp("us", "UTC")).take(transactions)
        columns = [rows.operations, order, times, rows.unchanged]
        fields = list(CHANGES)
        texts = [rows.texts[column.name] for column in one.wanted]
        if kept is not None:
            columns, texts = [each.filter(kept) for each in columns], [each.filter(kept) for each in texts]
        for column, text in zip(one.wanted, texts, strict=True):
            values = arrow(self._server, column, text)
            columns.append(values)
            fields.append(pa.field(column.name, values.type))
        notes, one.notes = one.notes, []
        return Batch(one.table.name, pa.table(columns, schema=pa.schema(fields)), "changes", None, notes=notes)

    def _kept(self, one: _Gathered, rows: Rows, copied: Copied, xids: Sequence[int]) -> pa.Array | None:
        """Which rows are not in what was copied; None if all of them. The server compares keys with the ends of the
        stretches, as only it knows their order."""
        seen = {xid: copied.sees(xid) for xid in set(xids)}
        if not any(each is None for each in seen.values()):
            return None  # transactions that are seen by all stretches were not gathered
        operations = rows.operations.to_pylist()
        asked = [
            number
            for number, (xid, operation) in enumerate(zip(xids, operations, strict=True))
            if seen[xid] is None and operation != "truncate"
        ]
        declared = {column.name: column.column.declared for column in self._typed(one, one.table.key)}
        names = list(declared)
        ends = [stretch.upto for stretch in copied.stretches if stretch.upto is not None]
        types = [verbatim(kind) for kind in declared.values()]
        key, end = (
            ", ".join(f"{name}::{kind}" for name, kind in zip(each, types, strict=True))
            for each in ([f"k{number}" for number in range(len(names))], ["%s"] * len(names))
        )
        cases = " ".join(f"when ({key}) <= ({end}) then {place}" for place in range(len(ends)))
        columns = ", ".join(f"k{number}" for number in range(len(names)))
        arrays = ", ".join("%s::text[]" for _ in names)
        statement = (
            f"select case {cases} else {len(ends)} end as place from unnest({arrays}) "
            f"with ordinality as u({columns}, n) order by n"
        )
        kept = [True] * len(xids)
        numbers = pa.array(asked, pa.int64())
        values = [
            *(text for each in ends for text in each),
            *(valid_text(rows.texts[name].take(numbers)).to_pylist() for name in names),
        ]
        for number, row in zip(asked, self._server.rows(statement, values) if asked else [], strict=True):
            kept[number] = not copied.sees_at(row["place"], xids[number])
        for number, operation in enumerate(operations):
            if operation == "truncate" and seen[xids[number]] is None:
                kept[number] = not copied.sees_at(0, xids[number])
        return pa.array(kept, pa.bool_())

    def _typed(self, one: _Gathered, names: Sequence[str]) -> list[LogColumn]:
        by_name = {column.name: (column.name, column.type, column.modifier) for column in one.columns}
        if gone := [name for name in names if name not in by_name]:
            raise PlatformError(
                f"Table {one.table.name}: its primary key was altered ({gone[0]} is new) while it was copied in "
                "pieces. Copy all tables anew with --full-refresh."
            )
        return log_columns(self._server, [by_name[name] for name in names], [])


def _identity(one: _Gathered) -> list[str]:
    """The columns whose change makes another row: of a table that logs whole old rows those of its keys, of others
    those that the log gives of an old row."""
    identity = [column.name for column in one.columns if column.is_key]
    if len(identity) < len(one.columns):
        return identity
    there = {column.name for column in one.columns}
    return [name for name in one.table.row_key if name in there]
