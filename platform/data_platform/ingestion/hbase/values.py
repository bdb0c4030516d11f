"""What becomes of the cells of HBase, which are bytes, as the options say: rows in Arrow, and rejects for those whose
bytes are not what they should be.
"""

import base64
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from data_platform.ingestion.hbase.gateway import Row, shown
from data_platform.ingestion.hbase.options import TIMESTAMP, Decoding, HbaseTable, Value
from data_platform.ingestion.source import REJECTS_SCHEMA

LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999: a time after it is none."""

_NUMBERS = {"short": ">h", "int": ">i", "long": ">q", "float": ">f", "double": ">d"}

TYPES: Mapping[Decoding, pa.DataType] = {
    "utf8": pa.string(),
    "short": pa.int16(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "json": pa.string(),
    "base64": pa.string(),
}


def decoded(content: bytes, decoding: Decoding) -> Any:
    """What bytes stand for. Raises ValueError, saying what they are instead."""
    if decoding == "utf8":
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise ValueError("is no text in UTF-8") from None
    if decoding == "json":
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ValueError("is no JSON") from None
        return content.decode()
    if decoding == "base64":
        return base64.b64encode(content).decode()
    if decoding == "boolean":
        if len(content) != 1:
            raise ValueError(f"has {len(content)} bytes, and a boolean has 1")
        return content != b"\0"
    layout = _NUMBERS[decoding]
    if len(content) != struct.calcsize(layout):
        raise ValueError(f"has {len(content)} bytes, and a {decoding} has {struct.calcsize(layout)}")
    return struct.unpack(layout, content)[0]


def _cell(place: bytes, decoding: Decoding) -> Callable[[Row], Any]:
    def read(row: Row) -> Any:
        cell = row.cells.get(place)
        return None if cell is None else decoded(cell.value, decoding)

    return read


def _family(family: bytes, decoding: Decoding) -> Callable[[Row], str | None]:
    """All cells of a family as an object in JSON; None if there is none."""
    prefix = family + b":"

    def read(row: Row) -> str | None:
        found: dict[str, Any] = {}
        for place, cell in row.cells.items():
            if place.startswith(prefix):
                value = decoded(cell.value, decoding)
                name = decoded(place.removeprefix(prefix), "utf8")
                found[name] = orjson.Fragment(cell.value) if decoding == "json" else value
        return orjson.dumps(found).decode() if found else None

    return read


@dataclass(frozen=True)
class Reader:
    """Makes rows of a table from those of HBase."""

    table: HbaseTable

    @property
    def schema(self) -> pa.Schema:
        """The columns, in the order of the options."""
        values = [pa.field(value.name, self._type(place, value)) for place, value in self.table.columns.items()]
        key = pa.field(self.table.row_key.name, TYPES[self.table.row_key.decode])
        return pa.schema([key, *values, pa.field(TIMESTAMP, pa.timestamp("ms", "UTC"))])

    @staticmethod
    def _type(place: str, value: Value) -> pa.DataType:
        return TYPES[value.decode] if ":" in place else pa.string()

    def key(self, row: Row) -> Any:
        """The key of a row. Raises ValueError if its bytes are something else."""
        return decoded(row.key, self.table.row_key.decode)

    def rows(self, rows: Sequence[Row]) -> tuple[pa.Table, pa.Table]:
        """Rows, and those that cannot be decoded as rejects."""
        made, bad = [], []
        readers = self._readers()
        for row in rows:
            values, wrong = self._values(row, readers)
            if wrong is None:
                made.append(values)
            else:
                bad.append(self._reject(row, wrong))
        return pa.Table.from_pylist(made, self.schema), pa.Table.from_pylist(bad, REJECTS_SCHEMA)

    def scanned(self, rows: Sequence[Row], names: Sequence[str], mark: str, since: int) -> pa.RecordBatch:
        """Columns of rows for a comparison, with a last one that marks those whose newest cell was written from `since`
        on, or that cannot be decoded. A row whose key cannot be is none."""
        schema = pa.schema([*(self.schema.field(name) for name in names), pa.field(mark, pa.int64())])
        readers = [one for one in self._readers() if one[0] in names]
        made = []
        for row in rows:
            values, wrong = self._values(row, readers)
            if self.table.row_key.name in values:
                made.append({**values, mark: int(wrong is not None or row.written >= since)})
        return pa.RecordBatch.from_pylist([{name: row.get(name) for name in schema.names} for row in made], schema)

    def _readers(self) -> list[tuple[str, str, Callable[[Row], Any]]]:
        """Name, place, and how its value is read, of each column."""
        key = self.table.row_key
        readers: list[tuple[str, str, Callable[[Row], Any]]] = [(key.name, "the row's key", self.key)]
        for place, value in self.table.columns.items():
            family, colon, _ = place.partition(":")
            make = _cell(place.encode(), value.decode) if colon else _family(family.encode(), value.decode)
            readers.append((value.name, place, make))
        return readers

    def _values(
        self, row: Row, readers: Sequence[tuple[str, str, Callable[[Row], Any]]]
    ) -> tuple[dict[str, Any], str | None]:
        """The values that can be decoded, and what is wrong with the first that cannot."""
        written = row.written
        values: dict[str, Any] = {TIMESTAMP: written if 0 <= written <= LATEST else None}
        wrong = None
        for name, place, read in readers:
            try:
                values[name] = read(row)
            except ValueError as error:
                wrong = wrong or f"{place} {error} (`decode`)"
        return values, wrong

    def _reject(self, row: Row, reason: str) -> dict[str, Any]:
        named = {place.decode(errors="backslashreplace"): shown(cell.value) for place, cell in row.cells.items()}
        record = orjson.dumps({"row": shown(row.key), **named}).decode()
        is_masked = self.table.row_key.name in (*self.table.mask, *self.table.mask_within)
        return {"place": None if is_masked else f"row {shown(row.key)}", "record": record, "reason": reason}


def gathered(found: Iterator[list[Row]], rows: int, size: int) -> Iterator[list[Row]]:
    """Rows in lists of about `rows`, or of `size` bytes."""
    held: list[Row] = []
    weight = 0
    for some in found:
        held += some
        weight += sum(len(cell.value) + 64 for row in some for cell in row.cells.values())
        if len(held) >= rows or weight >= size:
            yield held
            held, weight = [], 0
    if held:
        yield held
