"""A reading of a collection: as a whole, or of what a cursor says is new. The conditions that documents meet are in
`conditions`, what they become in `values`.

The whole of a collection, and the first reading by a cursor, come in the order of `_id`, which every collection has an
index of; what is new comes in the order of the cursor. Where a reading is in that order is a part of the position until
it comes to its end, so that one that ends early is gone on with; in the same way a cursor of the server that is lost
(it ends after ten minutes without a request, and with its connection) is opened again after the last document. The
position at the end is the highest value that there was when the reading began, not the highest that came: it sees no
snapshot, and documents may be written behind it all along.

MongoDB compares values of one kind alone: a cursor that holds text besides dates would leave documents out for ever,
and is refused.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from bson import json_util
from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.http.rows import digest
from data_platform.ingestion.mongodb import conditions
from data_platform.ingestion.mongodb.conditions import ID, Filter, both, order_of
from data_platform.ingestion.mongodb.connection import Raw, collection
from data_platform.ingestion.mongodb.options import MongodbTable
from data_platform.ingestion.mongodb.values import (
    CANONICAL,
    KINDS,
    Document,
    decoded,
    extended,
    from_position,
    is_before,
    kind_of,
    least_text,
    reduced,
    text,
    to_position,
)
from data_platform.ingestion.source import (
    DIGEST,
    HINT,
    REJECTS_SCHEMA,
    Batch,
    Overlap,
    Position,
    SourceUse,
    differences,
    too_many_columns,
)
from data_platform.ingestion.sql.dialects.session import COUNTED_ROWS
from data_platform.ingestion.sql.reach import CURSOR, Cursor

PASS, PLACE = "pass", "place"
"""The entries of a position within a reading: the cursor that it will have reached at its end (empty: none), and the
fields of the order of the last document that was read."""

BATCH_ROWS, BATCH_BYTES = 10_000, 16 * 2**20
"""Documents, or their bytes, that complete a batch."""

ATTEMPTS = 3
"""How often documents are asked for again, if none came in between."""


@dataclass
class CollectionReading:
    """One pass over a collection, or a look at it; `translated` raises what the client raises in words."""

    found: Collection[Raw]
    name: str
    table: MongodbTable
    after: Position
    translated: Callable[[], AbstractContextManager[None]]
    _use: SourceUse = field(default_factory=SourceUse)

    @property
    def column(self) -> str:
        """What MongoDB calls the field of the cursor; `_id` where there is none."""
        cursor = self.table.cursor
        return ID if cursor is None or cursor.column == self.table.id_column else cursor.column

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 - the protocol's signature
        """What lies within the lag of the position, and the position's own value; within a reading, what lies from
        there on. None for a whole table, and in the first reading, which goes by `_id` and meets each document once."""
        if self.table.cursor is None or CURSOR not in self.after:
            return None
        return Overlap(self.table.cursor.column, least_text(self._begins()), (self.table.id_column,))

    def committed(self, position: Position) -> None:
        """Nothing: MongoDB keeps no account of its readers."""

    def use(self, table: str) -> SourceUse:  # noqa: ARG002 - it is one
        """What was taken at the server."""
        return self._use

    def __iter__(self) -> Generator[Batch, None, None]:
        return self._whole() if self.table.cursor is None else self._new(self.table.cursor)

    def _whole(self) -> Generator[Batch, None, None]:
        """All documents. Only the last batch has a position, which tells whether anything is different at all."""
        with self.translated():
            hint = self._count()
        held, content = Batch(self.name, pa.table({}), "whole", None), 0
        for found in self._gathered({}, [ID]):
            if held.rows.num_rows or held.rejects.num_rows:
                yield held
            rows, rejects = self._rows(found)
            content += digest(rows) + rejects.num_rows
            held = Batch(self.name, self._arrow(rows), "whole", None, rejects)
        yield replace(held, position={DIGEST: f"{content % 2**256:064x}", HINT: hint})

    def _new(self, cursor: Cursor) -> Generator[Batch, None, None]:
        """What is new, or what is left of it."""
        with self.translated():
            reached = self.after[PASS] if PASS in self.after else self._highest()
            self._check(cursor, reached)
        kind = kind_of(self._stored(reached)) if reached else None
        order, place = self._order(), self._place()
        held = Batch(self.name, pa.table({}), "rows", None)
        try:
            for found in self._gathered(self._wanted(cursor), order, place):
                if held.position is not None:
                    yield held
                for one in found:
                    value = one.fields.get(self.column)
                    if value is not None and kind_of(value) != (kind or kind_of(value) or "none"):
                        raise self._mixed(kind, value)
                rows, rejects = self._rows(found)
                last = to_position([found[-1].fields.get(name) for name in order])
                held = Batch(self.name, self._arrow(rows), "rows", {PASS: reached, PLACE: last}, rejects)
        except PlatformError:
            if held.position is not None:
                yield held
            raise
        with self.translated():
            # The probe will count these documents again, and notice what has come to them.
            hint = self._count_new(cursor, {CURSOR: reached})
        yield replace(held, position={CURSOR: reached, HINT: hint}, forget=(PASS, PLACE))

    def changes(self) -> dict[str, str]:
        """The entries of the position that are others now."""
        cursor = self.table.cursor
        if cursor is None:
            return differences({HINT: self._count()}, self.after)
        if PLACE in self.after:
            return {PLACE: ""}  # the rest of a reading is to be read
        highest = {CURSOR: self._highest()}
        if changes := differences(highest, self.after):
            return changes
        return differences({HINT: self._count_new(cursor, self.after)}, self.after)

    def scanned(self, only: Sequence[str] | None) -> Iterator[list[Document]]:
        """All documents that a load would read some time, in the order of `_id`; of these fields `only`, if given."""
        cursor = self.table.cursor
        leaves_out = cursor is not None and cursor.nulls == "exclude"
        return self._gathered({self.column: {"$ne": None}} if leaves_out else {}, [ID], only=only)

    def is_ahead(self, one: Document) -> bool:
        """Whether the next load reads a document, as it is ahead of the position."""
        if CURSOR not in self.after:
            return True
        value = one.fields.get(self.column)
        begins = self._begins()
        return value is None or begins is None or not is_before(value, begins)

    def row(self, one: Document) -> dict[str, str | None]:
        """A document as a row. Raises PlatformError if two of its fields have one name here."""
        if self.table.id_column != ID and self.table.id_column in one.fields:
            raise PlatformError(
                f"Table {self.name}: a document has a field {self.table.id_column} besides `_id`, which is called so "
                "here. Give it another name by `id_column`: document_id, say."
            )
        return {self.table.id_column if name == ID else name: text(value) for name, value in one.fields.items()}

    def _stored(self, value: str) -> Any:
        return from_position(value, f"Table {self.name}")

    def _place(self) -> list[Any] | None:
        """The fields of the order of the document after which to go on."""
        if PLACE not in self.after:
            return None
        place = self._stored(self.after[PLACE])
        if not isinstance(place, list) or len(place) != len(self._order()):
            raise PlatformError(
                f"Table {self.name} was read by another cursor before. Load it afresh with --full-refresh."
            )
        return place

    def _order(self) -> list[str]:
        """The fields by which the documents of this reading are sorted."""
        return order_of(self.column) if self.after.get(CURSOR) else [ID]

    def _begins(self) -> Any:
        """The value of the cursor from which on documents are read; None: from the first."""
        if not self.after.get(CURSOR):
            return None
        if (place := self._place()) is not None:
            return place[0]
        assert self.table.cursor is not None  # noqa: S101 - the position has one
        return reduced(self._stored(self.after[CURSOR]), self.table.cursor.lag, f"Table {self.name}")

    def _wanted(self, cursor: Cursor, position: Position | None = None) -> Filter:
        """The condition on documents that are to be read."""
        stored = (self.after if position is None else position).get(CURSOR)
        if not stored:
            return {self.column: {"$ne": None}} if cursor.nulls == "exclude" else {}
        later = {self.column: {"$gte": reduced(self._stored(stored), cursor.lag, f"Table {self.name}")}}
        return {"$or": [{self.column: None}, later]} if cursor.nulls == "include" else later

    def _highest(self) -> str:
        """The position of the highest ordinary value, not lower than the stored one; empty if there is none."""
        stored = self.after.get(CURSOR, "")
        wanted: Filter = {self.column: {"$gt": self._stored(stored)} if stored else {"$ne": None}}
        bound: Filter | None = {}
        while bound is not None:
            asked = both(wanted, bound)
            found = self.found.find(self._all(asked), {self.column: 1}).sort(self.column, DESCENDING).limit(1)
            self._use += SourceUse(1)
            values = [decoded(one.raw).fields.get(self.column) for one in found]
            if not values:
                return stored
            bound = conditions.below(self.column, values[0])
            if bound == {}:
                if kind_of(values[0]) is None:
                    raise self._mixed(None, values[0])
                return to_position(values[0])
        return stored

    def _check(self, cursor: Cursor, reached: str) -> None:
        """Raise PlatformError if there are documents that would never be read."""
        if cursor.nulls == "refuse" and self._one({self.column: None}) is not None:
            raise PlatformError(
                f"Table {self.name}: some documents have no {cursor.column}, the cursor, and `nulls: refuse` forbids "
                "it. Nothing was read. Set it in them, or set `nulls` to include or exclude."
            )
        if not reached:
            return
        value = self._stored(reached)
        kind = kind_of(value)
        assert kind is not None  # noqa: S101 - it is of a cursor's position
        if (other := self._one(conditions.of_another_kind(self.column, kind))) is not None:
            raise self._mixed(kind, other)
        if isinstance(value, str) and self._one(shapes := conditions.of_another_shape(self.column, value)) is not None:
            raise PlatformError(
                f"Table {self.name}: the cursor {cursor.column} is text of two shapes, such as {value[:60]!r} and "
                f"{str(self._one(shapes))[:60]!r}, which compared as text are in no order: documents would be missed. "
                "Nothing was read. Write all values in one shape in the source, as dates best, take another cursor, or "
                "leave `cursor` out to read the whole collection each time."
            )

    def _one(self, condition: Filter) -> Any:
        """The cursor's value in some document of which a condition holds (its `_id` if it has none); None if there is
        no such document."""
        self._use += SourceUse(1)
        found = self.found.find_one(self._all(condition), {self.column: 1})
        if found is None:
            return None
        fields = decoded(found.raw).fields
        return fields.get(self.column, fields[ID])

    def _mixed(self, kind: str | None, value: Any) -> PlatformError:
        if kind_of(value) is None:
            what = f"a value that cannot be one ({type(value).__name__})"
        else:
            what = f"values of two kinds, {kind} and {kind_of(value)}"
        return PlatformError(
            f"Table {self.name}: the cursor {self.column} has {what}. MongoDB compares values of one kind alone, so "
            f"documents would be missed. A cursor is one of {', '.join(KINDS)}: write all values as one in the source, "
            "take another cursor, or leave `cursor` out to read the whole collection each time. If another field was "
            "the cursor before, load the table afresh: --full-refresh."
        )

    def _count(self) -> str:
        """How many documents there are, about, as the server keeps count."""
        self._use += SourceUse(1)
        return str(self.found.estimated_document_count())

    def _count_new(self, cursor: Cursor, position: Position) -> str:
        """How many documents a load would read that goes on from a position; COUNTED_ROWS if there are more."""
        self._use += SourceUse(1)
        return str(self.found.count_documents(self._all(self._wanted(cursor, position)), limit=COUNTED_ROWS))

    def _gathered(
        self,
        wanted: Filter,
        order: Sequence[str],
        place: Sequence[Any] | None = None,
        only: Sequence[str] | None = None,
    ) -> Iterator[list[Document]]:
        """Documents in an order, those after a place in it if one is given, in lists of a batch."""
        held: list[Document] = []
        size = 0
        for one in self._documents(wanted, order, place, only):
            held.append(one)
            size += one.size
            if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield held
                held, size = [], 0
        if held:
            yield held

    def _documents(
        self, wanted: Filter, order: Sequence[str], place: Sequence[Any] | None, only: Sequence[str] | None
    ) -> Iterator[Document]:
        """Documents in an order, asked for again after the last that came if the server loses them."""
        fields = self.table.columns if only is None else only
        shown = (
            None
            if fields is None
            else dict.fromkeys([ID, *(name for name in fields if name != self.table.id_column)], 1)
        )
        failures = 0
        while True:
            try:
                with self.translated():
                    rest = wanted if place is None else both(wanted, conditions.after(order, place))
                    found = self.found.find(self._all(rest), shown).sort([(name, ASCENDING) for name in order])
                    self._use += SourceUse(1)
                    with found.allow_disk_use(True) as documents:
                        while (raw := self._next(documents)) is not None:
                            one = decoded(raw.raw)
                            place, failures = [one.fields.get(name) for name in order], 0
                            yield one
                    # One that is dropped in the middle ends as one that has no more.
                    collection(self.found.database, self.found.name)
                return
            except TransientError:
                failures += 1
                if failures > ATTEMPTS:
                    raise

    def _next(self, documents: Iterator[Raw]) -> Raw | None:
        began = time.perf_counter()
        raw = next(documents, None)
        seconds = time.perf_counter() - began
        self._use += SourceUse(0, 0 if raw is None else 1, 0 if raw is None else len(raw.raw), seconds)
        return raw

    def _all(self, condition: Filter) -> Filter:
        """A condition together with the filter of the table. Raises PlatformError if that is none."""
        if not self.table.filter:
            return condition
        try:
            given = json_util.loads(json_util.dumps(self.table.filter), json_options=CANONICAL)
        except (TypeError, ValueError, BSONError) as error:
            raise PlatformError(f"Table {self.name}: `filter` is no extended JSON of MongoDB: {error}") from None
        return both(given, condition)

    def _rows(self, found: Sequence[Document]) -> tuple[list[dict[str, str | None]], pa.Table]:
        """The documents as rows, and those that cannot be as rejects."""
        rows, bad = [], []
        is_masked = self.table.id_column in (*self.table.mask, *self.table.mask_within)
        for one in found:
            if one.fault is None:
                rows.append(self.row(one))
            else:
                where = None if is_masked else f"{self.found.name}, _id {text(one.fields.get(ID))}"
                bad.append({"place": where, "record": extended(one.fields), "reason": one.fault})
        return rows, pa.Table.from_pylist(bad, REJECTS_SCHEMA)

    def _arrow(self, rows: Sequence[Mapping[str, str | None]]) -> pa.Table:
        """One column of text for each field that any of the rows has, null where a row has none."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        if len(names) > self.table.max_columns:
            raise too_many_columns(f"The collection {self.found.name}", names, self.table.max_columns)
        return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
