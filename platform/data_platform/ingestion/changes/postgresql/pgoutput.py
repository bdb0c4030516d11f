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
    kind, first = octets.gather(starts + BODY), octets.gather(starts + _FIRST)
    is_new = (kind == INSERT) | (kind == UPDATE)
    has_old = (kind == DELETE) | ((kind == UPDATE) & (first != _NEW))
    old = _Tuples(data, octets, starts.filter(has_old) + _TUPLE, len(columns))
    at = starts + _TUPLE
    two = has_old & is_new
    if two.any():
        at = at.scatter(two.arg_true(), old.ends.filter(two.filter(has_old)) + 3)
    new = _Tuples(data, octets, at.filter(is_new), len(columns))
    if not (
        (new.ends == ends.filter(is_new)).all()
        and (old.ends.filter(~is_new.filter(has_old)) == ends.filter(has_old & ~is_new)).all()
    ):
        raise PlatformError("A change in the log of PostgreSQL does not have the columns that the log said before.")
    places = pl.int_range(len(messages), eager=True, dtype=pl.Int64)
    texts = {column.name: new.texts(number) for number, column in enumerate(columns)}
    unchanged = {c.name: new.unchanged(number) for number, c in enumerate(columns)}
    replaced = pa.nulls(0, pa.bool_())
    if len(old.ends):
        before = {column.name: old.texts(number) for number, column in enumerate(columns)}
        # For each new row the number of its old one.
        number_of_old = (
            pl.select(pl.when(has_old).then(has_old.cast(pl.Int64).cum_sum() - 1).alias("number"))
            .to_series()
            .filter(is_new)
            .to_arrow()
        )
        is_whole = pl.select(pl.when(two).then(first == _OLD).otherwise(False)).to_series().filter(is_new).to_arrow()
        earlier = {name: one.take(number_of_old) for name, one in before.items()}
        for name in texts:
            filled = pc.and_(unchanged[name], is_whole)
            texts[name] = pc.if_else(filled, earlier[name], texts[name])
            unchanged[name] = pc.and_not(unchanged[name], is_whole)
        replaced = pc.is_valid(number_of_old)
        differs = pa.repeat(pa.scalar(False), len(replaced))
        for name in key:
            other = pc.fill_null(pc.not_equal(earlier[name], texts[name]), True)
            differs = pc.or_(differs, pc.and_not(other, unchanged[name]))
        replaced = pc.and_(replaced, differs)
        goes = (~is_new).filter(has_old) | _spread(pl.Series(replaced), is_new, has_old)
        gone = goes.to_arrow()
        removed = {name: one.filter(gone) for name, one in before.items()}
        removed_places = places.filter(has_old).filter(goes)
    inserted = (kind.filter(is_new) == INSERT).to_arrow()
    if len(replaced):
        inserted = pc.or_(inserted, replaced)
    operations = [pc.if_else(inserted, "insert", "update")]
    parts = [places.filter(is_new)]
    seconds = [pa.repeat(pa.scalar(True), len(inserted))]
    all_texts = {name: [one] for name, one in texts.items()}
    lists = [_names(unchanged, len(inserted))]
    if len(old.ends):
        _extend(operations, parts, seconds, lists, "delete", removed_places)
        for name, values in removed.items():
            all_texts[name].append(values)
    if (kind == TRUNCATE).any():
        emptied = places.filter(kind == TRUNCATE)
        _extend(operations, parts, seconds, lists, "truncate", emptied)
        for each in all_texts.values():
            each.append(pa.nulls(len(emptied), pa.binary()))
    rows = Rows(
        pa.concat_arrays(operations),
        pa.concat_arrays([part.to_arrow() for part in parts]),
        pa.concat_arrays(seconds),
        {name: pa.concat_arrays(each) for name, each in all_texts.items()},
        pa.concat_arrays(lists),
    )
    if len(parts) == 1:
        return rows
    # The delete of a changed key comes before its insert.
    order = pc.sort_indices(
        pa.table({"place": rows.places, "second": rows.is_second.cast(pa.int8())}),
        [("place", "ascending"), ("second", "ascending")],
    )
    return Rows(
        rows.operations.take(order),
        rows.places.take(order),
        rows.is_second.take(order),
        {name: each.take(order) for name, each in rows.texts.items()},
        rows.unchanged.take(order),
    )


def _extend(
    operations: list[pa.Array],
    parts: list[pl.Series],
    seconds: list[pa.Array],
    lists: list[pa.Array],
    operation: str,
    places: pl.Series,
) -> None:
    operations.append(pa.repeat(pa.scalar(operation), len(places)))
    parts.append(places)
    seconds.append(pa.repeat(pa.scalar(False), len(places)))
    lists.append(pa.nulls(len(places), pa.list_(pa.string())))


def _spread(flags: pl.Series, given: pl.Series, wanted: pl.Series) -> pl.Series:
    """Flags of the rows in `given` as flags of those in `wanted`; false where a row is only in the latter."""
    whole = pl.repeat(False, len(given), eager=True).scatter(given.arg_true(), flags)
    return whole.filter(wanted)


def _names(unchanged: dict[str, pa.Array], count: int) -> pa.Array:
    """For each row the names of the columns that it does not repeat; null if it repeats all."""
    some = {name: flags for name, flags in unchanged.items() if pc.any(flags).as_py()}
    if not some:
        return pa.nulls(count, pa.list_(pa.string()))
    rows = zip(*(flags.to_pylist() for flags in some.values()), strict=True)
    lists = [[name for name, flag in zip(some, row, strict=True) if flag] or None for row in rows]
    return pa.array(lists, pa.list_(pa.string()))


class _Tuples:
    """Tuples of as many columns each, which begin `at` these places of the data: where each column lies in each."""

    def __init__(self, data: pa.Buffer, octets: pl.Series, at: pl.Series, columns: int) -> None:
        self._data, self._kinds, self._starts, self._ends = data, [], [], []
        for _ in range(columns):
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
            self._kinds.append(kind)
            self._starts.append(begins)
            self._ends.append(end)
            at = end
        self.ends = at

    @staticmethod
    def _length(octets: pl.Series, at: pl.Series) -> pl.Series:
        one, two, three, four = (octets.gather(at + byte).cast(pl.Int64) for byte in range(4))
        return one * 2**24 + two * 2**16 + three * 2**8 + four

    def texts(self, column: int) -> pa.Array:
        """The values of a column as bytes; null where there is none."""
        starts, ends, kinds = self._starts[column], self._ends[column], self._kinds[column]
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

    def unchanged(self, column: int) -> pa.Array:
        """Where a column is as it was before, and not repeated."""
        return (self._kinds[column] == _UNCHANGED).to_arrow()
