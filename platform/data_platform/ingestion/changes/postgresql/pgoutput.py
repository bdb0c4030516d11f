"""The messages of pgoutput (protocol version 1), as they come in the copy of a replication connection: what each says,
and many of one table at once as columns of text. What the texts stand for is `values`' work.

Rows are not taken apart one by one: the messages of a table are laid end to end, and each column's place in all of them
is found at once. That is several times as fast as a loop over the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from struct import Struct, unpack_from

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError

DATA, KEEPALIVE = ord("w"), ord("k")
"""The first byte of what comes: a message of the log, or a sign of life."""

INSERT, UPDATE, DELETE, TRUNCATE = (ord(letter) for letter in "IUDT")
OF_ROWS = frozenset({INSERT, UPDATE, DELETE})
BEGIN, COMMIT, RELATION = (ord(letter) for letter in "BCR")

BODY = 25
"""Where a message begins: after its letter, two positions and a time."""
OID = slice(BODY + 1, BODY + 5)
"""Where a message of a row names its table."""
_FIRST = BODY + 5
"""Where an insert, update or delete says which tuple comes first: N a new one, K an old key, O a whole old row."""
_TUPLE = BODY + 8
"""Where the first column of that tuple begins."""
_BETWEEN = 3
"""Bytes between an old tuple and the first column of the new one."""

_TEXT, _UNCHANGED, _NEW, _OLD = (ord(letter) for letter in "tuNO")

_BEGIN, _COMMIT, _ALIVE = Struct(">QqI"), Struct(">xQQq"), Struct(">Qq?")

EPOCH = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL begins to count."""


@dataclass(frozen=True)
class Begin:
    """A transaction begins: where its commit lies, when it was committed [µs since 1970], and its 32-bit number."""

    commit: int
    time: int
    xid: int


@dataclass(frozen=True)
class RelationColumn:
    """A column as the log describes it. `is_key` if it is of the replica identity."""

    name: str
    type: int
    modifier: int
    is_key: bool


@dataclass(frozen=True)
class Relation:
    """A table as the log describes it, before the first change that needs it."""

    oid: int
    columns: tuple[RelationColumn, ...]


def oid_bytes(oid: int) -> bytes:
    """A table as a message of a row names it, at OID."""
    return oid.to_bytes(4, "big")


def begin(message: bytes) -> Begin:
    commit, time, xid = _BEGIN.unpack_from(message, BODY + 1)
    return Begin(commit, time + EPOCH, xid)


def commit_end(message: bytes) -> int:
    """Where a commit ends: all that comes after it in the log begins there or later."""
    _, end, _ = _COMMIT.unpack_from(message, BODY + 1)
    return int(end)


def keepalive(message: bytes) -> tuple[int, bool]:
    """How far the server has sent its log, and whether it asks for an answer."""
    end, _, asks = _ALIVE.unpack_from(message, 1)
    return end, asks


def truncated(message: bytes) -> list[int]:
    """The tables of a truncate."""
    (count,) = unpack_from(">I", message, BODY + 1)
    return list(unpack_from(f">{count}I", message, BODY + 6))


def relation(message: bytes) -> Relation:
    (oid,) = unpack_from(">I", message, BODY + 1)
    at = BODY + 5
    for _ in range(2):  # schema and name, which are those of the time
        at = message.index(0, at) + 1
    (count,) = unpack_from(">xH", message, at)
    at += 3
    columns = []
    for _ in range(count):
        end = message.index(0, at + 1)
        kind, modifier = unpack_from(">Ii", message, end + 1)
        columns.append(RelationColumn(message[at + 1 : end].decode(), kind, modifier, bool(message[at] & 1)))
        at = end + 9
    return Relation(oid, tuple(columns))


@dataclass(frozen=True)
class Rows:
    """Changes of one table in their order. `texts` are the columns as bytes of text, `unchanged` the names of those
    that a row does not repeat. `places` are the numbers of the messages: a row of each, or two of a changed key."""

    operations: pa.Array
    places: pa.Array
    is_second: pa.Array
    texts: dict[str, pa.Array]
    unchanged: pa.Array


def rows_of(messages: Sequence[bytes], columns: Sequence[RelationColumn], key: Sequence[str]) -> Rows:
    """The changes in messages of one table, which has these columns. An update that changes a column of `key` is a
    delete of the old row and an insert of the new one; a truncate is a row of nulls.

    Raises PlatformError if a message does not end where its last column does.
    """
    lengths = pl.Series([len(message) for message in messages], dtype=pl.Int64)
    data = pa.py_buffer(b"".join(messages))
    octets = pl.Series(pa.Array.from_buffers(pa.uint8(), data.size, [None, data]))
    starts = pl.Series([0, *accumulate(lengths[:-1].to_list())], dtype=pl.Int64)
    ends = starts + lengths
    places = pl.int_range(len(messages), eager=True, dtype=pl.Int64)
    kind, first = octets.gather(starts + BODY), octets.gather(starts + _FIRST)
    is_new = (kind == INSERT) | (kind == UPDATE)
    has_old = (kind == DELETE) | ((kind == UPDATE) & (first != _NEW))
    has_both = has_old & is_new
    old = _Tuples(data, octets, (starts + _TUPLE).filter(has_old), columns)
    at = starts + _TUPLE
    if has_both.any():
        at = at.scatter(has_both.arg_true(), old.ends.filter(has_both.filter(has_old)) + _BETWEEN)
    new = _Tuples(data, octets, at.filter(is_new), columns)
    ends_of_deletes = old.ends.filter(~is_new.filter(has_old))
    if not (new.ends.equals(ends.filter(is_new)) and ends_of_deletes.equals(ends.filter(kind == DELETE))):
        raise PlatformError("A change in the log of PostgreSQL does not have the columns that the log said before.")
    texts, unchanged = new.texts(), new.unchanged()
    is_insert = (kind.filter(is_new) == INSERT).to_arrow()
    parts = []
    if len(old.ends):
        before = old.texts()
        numbers = pl.select(pl.when(has_old).then(has_old.cast(pl.Int64).cum_sum() - 1)).to_series().filter(is_new)
        is_whole = (has_both & (first == _OLD)).filter(is_new)
        replaced = _compare(texts, unchanged, before, key, numbers.to_arrow(), is_whole.to_arrow())
        is_insert = pc.or_(is_insert, replaced)
        goes = ~is_new | pl.repeat(False, len(kind), eager=True).scatter(is_new.arg_true(), pl.Series(replaced))
        gone = goes.filter(has_old).to_arrow()
        removed = {name: one.filter(gone) for name, one in before.items()}
        parts.append(_only("delete", places.filter(has_old & goes), removed))
    names = _names(unchanged, len(is_insert))
    operations = pc.if_else(is_insert, "insert", "update")
    parts.append(
        Rows(operations, places.filter(is_new).to_arrow(), pa.repeat(pa.scalar(True), len(is_insert)), texts, names)
    )
    if (emptied := places.filter(kind == TRUNCATE)).len():
        parts.append(_only("truncate", emptied, {name: pa.nulls(len(emptied), pa.binary()) for name in texts}))
    return _in_order(parts)


def _compare(
    texts: dict[str, pa.Array],
    unchanged: dict[str, pa.Array],
    before: dict[str, pa.Array],
    key: Sequence[str],
    numbers: pa.Array,
    is_whole: pa.Array,
) -> pa.Array:
    """Which new rows have another key than their old ones. `numbers` are those of their old rows in `before`, null
    where there is none; what a new row does not repeat and a whole old row has is filled in."""
    for name in texts:
        filled = pc.and_(unchanged[name], is_whole)
        if pc.any(filled).as_py():
            texts[name] = pc.if_else(filled, before[name].take(numbers), texts[name])
            unchanged[name] = pc.and_not(unchanged[name], is_whole)
    differs = pa.repeat(pa.scalar(False), len(numbers))
    for name in key:
        other = pc.fill_null(pc.not_equal(before[name].take(numbers), texts[name]), True)
        differs = pc.or_(differs, pc.and_not(other, unchanged[name]))
    return pc.and_(pc.is_valid(numbers), differs)


def _only(operation: str, places: pl.Series, texts: dict[str, pa.Array]) -> Rows:
    """Rows of one operation, which comes before any other of its message."""
    count = len(places)
    flags = pa.repeat(pa.scalar(False), count)
    names = pa.nulls(count, pa.list_(pa.string()))
    return Rows(pa.repeat(pa.scalar(operation), count), places.to_arrow(), flags, texts, names)


def _in_order(parts: Sequence[Rows]) -> Rows:
    """Rows in the order of their messages, the first of a message before the second."""
    if len(parts) == 1:
        return parts[0]
    rows = Rows(
        pa.concat_arrays([part.operations for part in parts]),
        pa.concat_arrays([part.places for part in parts]),
        pa.concat_arrays([part.is_second for part in parts]),
        {name: pa.concat_arrays([part.texts[name] for part in parts]) for name in parts[0].texts},
        pa.concat_arrays([part.unchanged for part in parts]),
    )
    keys = pa.table({"place": rows.places, "second": rows.is_second.cast(pa.int8())})
    order = pc.sort_indices(keys, [("place", "ascending"), ("second", "ascending")])
    return Rows(
        rows.operations.take(order),
        rows.places.take(order),
        rows.is_second.take(order),
        {name: each.take(order) for name, each in rows.texts.items()},
        rows.unchanged.take(order),
    )


def _names(unchanged: dict[str, pa.Array], count: int) -> pa.Array:
    """For each row the names of the columns that it does not repeat; null if it repeats all."""
    some = {name: flags for name, flags in unchanged.items() if pc.any(flags).as_py()}
    if not some:
        return pa.nulls(count, pa.list_(pa.string()))
    rows = zip(*(flags.to_pylist() for flags in some.values()), strict=True)
    lists = [[name for name, flag in zip(some, row, strict=True) if flag] or None for row in rows]
    return pa.array(lists, pa.list_(pa.string()))


class _Tuples:
    """Tuples of the same columns, which begin `at` these places of the data: where each column lies in each. `ends` are
    the places after their last ones."""

    def __init__(self, data: pa.Buffer, octets: pl.Series, at: pl.Series, columns: Sequence[RelationColumn]) -> None:
        self._data = data
        self._columns: dict[str, tuple[pl.Series, pl.Series, pl.Series]] = {}
        for column in columns:
            kind = octets.gather(at)
            begins = at + 1
            if (kind == _TEXT).all():
                length = self._length(octets, begins)
                begins = begins + 4
                end = begins + length
            else:
                has_text = kind == _TEXT
                where = begins.filter(has_text)
                end = begins.clone()
                if len(where):
                    chosen = has_text.arg_true()
                    begins = begins.scatter(chosen, where + 4)
                    end = end.scatter(chosen, where + 4 + self._length(octets, where))
            self._columns[column.name] = (kind, begins, end)
            at = end
        self.ends = at

    @staticmethod
    def _length(octets: pl.Series, at: pl.Series) -> pl.Series:
        one, two, three, four = (octets.gather(at + byte).cast(pl.Int64) for byte in range(4))
        return one * 2**24 + two * 2**16 + three * 2**8 + four

    def texts(self) -> dict[str, pa.Array]:
        """The values of each column as bytes; null where there is none."""
        return {name: self._texts(*places) for name, places in self._columns.items()}

    def unchanged(self) -> dict[str, pa.Array]:
        """Where each column is as it was before, and not repeated."""
        return {name: (kinds == _UNCHANGED).to_arrow() for name, (kinds, _, _) in self._columns.items()}

    def _texts(self, kinds: pl.Series, starts: pl.Series, ends: pl.Series) -> pa.Array:
        count = len(starts)
        if not count:
            return pa.nulls(0, pa.binary())
        # One long array in which every other value is what lies between two of ours, which are then taken out of it.
        number = pl.int_range(2 * count, eager=True, dtype=pl.Int64)
        offsets = pl.concat([starts, ends]).gather(number // 2 + (number % 2) * count).cast(pl.Int32).to_arrow()
        array = pa.Array.from_buffers(pa.binary(), 2 * count - 1, [None, offsets.buffers()[1], self._data])
        wanted = pl.int_range(count, eager=True, dtype=pl.Int64) * 2
        if not (kinds == _TEXT).all():
            wanted = pl.select(pl.when(kinds == _TEXT).then(wanted)).to_series()
        return array.take(wanted.to_arrow())
