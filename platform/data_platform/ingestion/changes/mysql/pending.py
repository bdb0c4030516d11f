"""Changes of one table that were read from the log and not delivered yet: gathered as values of the log, and made into
a batch at once.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import Connection
from data_platform.ingestion.changes.mysql.copy import (
    Copied,
    Numbers,
    emptied,
    stretches_of,
    with_details,
)
from data_platform.ingestion.changes.mysql.images import Layout, Type
from data_platform.ingestion.changes.mysql.log import Place
from data_platform.ingestion.changes.mysql.tables import SourceTable
from data_platform.ingestion.changes.mysql.values import Values, described


@dataclass(frozen=True)
class Read:
    """A table at one place of the log: how its rows are read, and which of their values identify them. Without a key
    every change of a row is the end of one and the beginning of another. `ends` is where a row says until when it was
    one, if the table keeps old versions; `hidden` are columns that no statement shows."""

    table: SourceTable
    layout: Layout
    key: Callable[[tuple[Any, ...]], Any] | None
    ends: int | None = None
    hidden: frozenset[str] = frozenset()


NO_END = frozenset(seconds + (999_999).to_bytes(3) for seconds in (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"))
"""How the log writes the end of a version that has none: the last moment that a timestamp has, since MariaDB 11.5 a
later one."""

HASH = re.compile(r"DB_ROW_HASH_\d+")
"""What MariaDB calls the columns that it makes for UNIQUE ... USING HASH."""

VERSION_COLUMNS = ["row_start", "row_end"]
"""What MariaDB calls those of WITH SYSTEM VERSIONING if nobody names them: the last ones of a table."""


def read_of(table: SourceTable, layout: Layout) -> Read:
    """How a table is read whose columns are those of `layout`: its key are the primary key and the columns that staging
    takes for it."""
    names = {column.name.lower(): number for number, column in enumerate(layout.columns)}
    numbers = {*layout.primary_key, *(names[name.lower()] for name in table.options.key if name.lower() in names)}
    declared = table.declared or {}
    undeclared = [column for column in layout.columns if column.name not in declared]
    hidden = {column.name for column in undeclared if HASH.fullmatch(column.name)}
    ends = next((number for number, column in enumerate(layout.columns) if column.name == table.ends), None)
    versions = undeclared[-2:]
    if [(one.name, one.type, one.size) for one in versions] == [(one, Type.TIMESTAMP2, 6) for one in VERSION_COLUMNS]:
        hidden |= {*VERSION_COLUMNS}
        ends = layout.columns.index(versions[1])
    return Read(table, layout, itemgetter(*sorted(numbers)) if numbers else None, ends, frozenset(hidden))


@dataclass
class Pending:
    """The changes of a table since its last batch. `places` are those of the rows while some of them may be left out,
    which the first copy has."""

    read: Read
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, operation: str, rows: Sequence[tuple[Any, ...]], numbers: Numbers, second: int, place: Place) -> None:
        """Add rows that were inserted, updated or deleted; old versions of rows are none."""
        if (ends := self.read.ends) is not None:
            rows = [row for row in rows if row[ends] in NO_END]
        count = len(rows)
        self.rows += rows
        self.operations += [operation] * count
        self.orders += numbers.take(count)
        self.seconds += [second] * count
        self.places += [place] * count

    def update(self, images: Sequence[tuple[Any, ...]], numbers: Numbers, second: int, place: Place) -> None:
        """Add updates, each the row before and after it. One that gives a row another key ends the one and begins the
        other."""
        before, after, key = images[::2], images[1::2], self.read.key
        if key is not None and list(map(key, before)) == list(map(key, after)):
            self.add("update", after, numbers, second, place)
            return
        for old, new in zip(before, after, strict=True):
            if key is not None and key(old) == key(new):
                self.add("update", [new], numbers, second, place)
            else:
                self.add("delete", [old], numbers, second, place)
                self.add("insert", [new], numbers, second, place)

    def table(self, values: Values, copied: Copied, server: Connection) -> pa.Table | None:
        """The changes in Arrow, without those that the first copy has; None if none is left."""
        if copied.last is not None and self.places and not copied.last < self.places[0]:
            self._leave_out(values, copied, server)
        if not self.rows:
            return None
        source, layout = self.read.table, self.read.layout
        declared = source.declared or {}
        shown = [column for column in layout.columns if column.name not in self.read.hidden]
        columns = source.pick([described(column, declared) for column in shown])
        of_log = {column.name: (number, column) for number, column in enumerate(layout.columns)}
        arrays = []
        for column in columns:
            number, logged = of_log[column.name]
            each = [row[number] for row in self.rows]
            arrays.append(values.array(logged, each, column.type, declared.get(column.name, "")))
        rows = pa.table(arrays, names=[column.name for column in columns])
        return with_details(rows, self.operations, self.orders, self.seconds)

    def _leave_out(self, values: Values, copied: Copied, server: Connection) -> None:
        """Forget the changes that the first copy has."""
        keys = self._keys(values) if len(copied.stretches) > 1 else [()] * len(self.rows)
        stretches = stretches_of(server, self.read.table, copied.stretches, keys)
        left = [number for number, one in enumerate(stretches) if one.place < self.places[number]]
        for name in ("rows", "operations", "orders", "seconds", "places"):
            every = getattr(self, name)
            setattr(self, name, [every[number] for number in left])

    def _keys(self, values: Values) -> list[tuple[str, ...]]:
        """The primary key of each row, as the stretches of the copy have it."""
        names = {column.name: number for number, column in enumerate(self.read.layout.columns)}
        columns = []
        for part in self.read.table.key:
            if part.name not in names:
                raise PlatformError(
                    f"Table {self.read.table.name}: its primary key became another while its first copy was "
                    f"interrupted (the log has no {part.name}), so it is unknown which changes the copy has. Read the "
                    "tables anew with --full-refresh."
                )
            number = names[part.name]
            column = self.read.layout.columns[number]
            each = [row[number] for row in self.rows]
            if part.kind == "binary":
                size = column.size if column.type == 254 else 0
                columns.append([value.ljust(size, b"\0").hex() for value in each])
            else:
                columns.append(values.array(column, each, pa.string()).to_pylist())
        return list(zip(*columns, strict=True))


def truncation(numbers: Numbers, second: int) -> pa.Table:
    """The change that takes all rows out of a table, with the next number."""
    return emptied(numbers.take(1)[0], second)
