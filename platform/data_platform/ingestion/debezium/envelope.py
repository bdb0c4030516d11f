"""Debezium's change events as rows of changes: which operation each is, which of its values count, and what it leaves
out. Where events come from (the engine, a topic of Kafka) is not known here.

Of a delete only the key counts: where the log does not have the old row, Debezium makes up the rest of it. A row whose
key changes comes as a delete and an insert.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError
from data_platform.ingestion.source import too_many_columns
from data_platform.lakehouse.tables import PLATFORM_COLUMNS

OPERATIONS: Mapping[str, str] = {"r": "insert", "c": "insert", "u": "update", "d": "delete", "t": "truncate"}
"""The operations of events that concern rows; another (a message in the log) concerns none."""

DETAILS = pa.schema(
    [
        ("_operation", pa.string()),
        ("_order", pa.int64()),
        ("_committed_at", pa.timestamp("us", "UTC")),
        ("_unchanged", pa.list_(pa.string())),
    ]
)
"""The columns that each change has besides those of its row."""

NO_CHANGES = DETAILS.empty_table()

Values = Sequence[str | None]


def spellings(placeholder: str) -> frozenset[str]:
    """How the placeholder of a value that the log does not repeat is spelt, by the type of the column: as text, in an
    array of texts or of numbers, in a map; bytes are in hexadecimal."""
    numbers = list(placeholder.encode())
    written: list[object] = [[placeholder], numbers, {placeholder: placeholder}]
    nested = {json.dumps(one, separators=(",", ":")) for one in written}
    return frozenset({placeholder, placeholder.encode().hex(), *nested})


@dataclass
class Changes:
    """Changes of one table that wait to be handed on, all of the same columns. `millis` are those of 1970 at which a
    change was committed, or None."""

    columns: Sequence[str]
    binary: frozenset[str] = frozenset()
    operations: list[str] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    millis: list[int | None] = field(default_factory=list)
    rows: list[Values] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._nothing: Values = (None,) * len(self.columns)
        self._places = {name: place for place, name in enumerate(self.columns)}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, operation: str, order: int, millis: int | None, values: Values | None) -> None:
        """Add a change. Without values it concerns the table as a whole."""
        self.operations.append(operation)
        self.orders.append(order)
        self.millis.append(millis)
        self.rows.append(self._nothing if values is None else values)

    def of_key(self, names: Sequence[str], values: Values) -> Values:
        """The values of a row of which only the key is known."""
        row = list(self._nothing)
        for name, value in zip(names, values, strict=True):
            if name in self._places:
                row[self._places[name]] = value
        return row

    def table(self, label: str, placeholders: frozenset[str], wanted: Sequence[str] | None, most: int) -> pa.Table:
        """The changes in Arrow, of the `wanted` columns if any are named. Raises PlatformError for columns whose names
        are the platform's own, for more columns than `most`, or a wanted one that is not there."""
        names = self._wanted(label, wanted, most)
        count = len(self.rows)
        columns = list(zip(*self.rows, strict=True)) if self.columns else []
        unchanged: dict[int, list[str]] = {}
        arrays = [self._array(name, columns[self._places[name]], placeholders, unchanged) for name in names]
        moments = pa.array([None if one is None else one * 1000 for one in self.millis], pa.int64())
        left_out = [unchanged.get(number) for number in range(count)] if unchanged else pa.nulls(count)
        details = [
            pa.array(self.operations, pa.string()),
            pa.array(self.orders, pa.int64()),
            moments.cast(DETAILS.types[2]),
            pa.array(left_out, DETAILS.types[3]),
        ]
        return pa.table([*details, *arrays], names=[*DETAILS.names, *names])

    def _wanted(self, label: str, wanted: Sequence[str] | None, most: int) -> Sequence[str]:
        names = self.columns if wanted is None else wanted
        missing = [name for name in names if name not in self._places]
        # Of a change that concerns the table as a whole no columns may be known.
        if missing and self.columns:
            raise PlatformError(
                f"{label} has no column {', '.join(missing)} (`columns`). It has: {', '.join(self.columns)}."
            )
        names = [name for name in names if name in self._places]
        ours = [name for name in names if name.lower() in PLATFORM_COLUMNS]
        if ours:
            raise PlatformError(
                f"{label} has a column {ours[0]}, a name that the platform uses itself. Nothing was loaded. Leave it "
                "out with `columns`, or rename it in the source."
            )
        if len(names) > most:
            raise too_many_columns(label, names, most)
        return names

    def _array(
        self, name: str, values: Iterable[str | None], placeholders: frozenset[str], unchanged: dict[int, list[str]]
    ) -> pa.Array:
        given = list(values)
        array = pa.array(given, pa.string())
        found = pc.indices_nonzero(pc.is_in(array, pa.array(sorted(placeholders)))).to_pylist()
        for number in found:
            unchanged.setdefault(number, []).append(name)
            given[number] = None
        if name in self.binary:
            return pa.array([None if one is None else bytes.fromhex(one) for one in given], pa.binary())
        return pa.array(given, pa.string()) if found else array
