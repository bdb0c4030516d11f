"""From the bytes of messages, values or keys, to columns: JSON, text and bytes as they are. Avro is in `avro`; what
else a message has is added in `messages`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import polars as pl
import pyarrow as pa

from data_platform.ingestion.files.formats.json_lines import NUMBER, parse
from data_platform.lakehouse.tables import (
    CHANGE_COLUMNS,
    CHANGE_DETAILS,
    LOAD_COLUMNS,
    MESSAGE_COLUMNS,
    TOMBSTONE_COLUMNS,
)

VALUE = "value"
"""The column of a value that is no object, and what is put before the name of a field which the platform has itself."""

OURS = frozenset({*LOAD_COLUMNS, *CHANGE_COLUMNS, *CHANGE_DETAILS, *TOMBSTONE_COLUMNS, *MESSAGE_COLUMNS})

Bad = dict[int, str]
"""Why messages cannot be read, by their numbers."""


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of some bytes: `fields` has a column for each field and NUMBER, `single` one column and
    NUMBER, of keys that are no objects."""

    fields: pa.Table
    bad: Bad = field(default_factory=dict)
    single: pa.Table | None = None


class Decoder(Protocol):
    """Takes bytes, none of them null, and their numbers, in rising order."""

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded: ...


def nothing() -> pa.Table:
    """No rows and no fields."""
    return pa.table({NUMBER: pa.array([], pa.int64())})


def texts_of(content: Sequence[bytes], numbers: Sequence[int]) -> tuple[pa.Array, Sequence[int], Bad]:
    """Those that are UTF-8 as text, and their numbers."""
    array = pa.array(content, pa.binary())
    try:
        return array.cast(pa.string()), numbers, {}
    except pa.ArrowInvalid:
        good, left, bad = [], [], {}
        for number, one in zip(numbers, content, strict=True):
            try:
                good.append(one.decode())
                left.append(number)
            except UnicodeDecodeError as error:
                bad[number] = f"not UTF-8 text from byte {error.start} on"
        return pa.array(good, pa.string()), left, bad


@dataclass(frozen=True)
class Text:
    """Text in UTF-8, in one column."""

    column: str

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        texts, left, bad = texts_of(content, numbers)
        return Decoded(pa.table({self.column: texts, NUMBER: pa.array(left, pa.int64())}), bad)


@dataclass(frozen=True)
class TextKey:
    """Keys that are text in UTF-8: in `_key`, and in `column`."""

    column: str | None

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        found = Text("_key")(content, numbers)
        named = None if self.column is None else found.fields.rename_columns([self.column, NUMBER])
        return Decoded(found.fields, found.bad, named)


@dataclass(frozen=True)
class Raw:
    """Bytes as they are, in one column."""

    column: str

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        return Decoded(pa.table({self.column: pa.array(content, pa.binary()), NUMBER: pa.array(numbers, pa.int64())}))


@dataclass(frozen=True)
class Json:
    """JSON objects, a text column for each field. Of keys, which are often a number or a text, others are taken too;
    they are in `column`, if it is named."""

    max_columns: int
    are_keys: bool = False
    column: str | None = None

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        texts, left, bad = texts_of(content, numbers)
        frame = pl.DataFrame({"text": pl.Series(texts), NUMBER: pl.Series(left, dtype=pl.Int64)})
        single = None
        if self.are_keys:
            is_object = frame["text"].str.contains(r"^\s*\{")
            single = self._single(frame.filter(~is_object), bad)
            frame = frame.filter(is_object)
        fields, rejects = parse(frame, self.max_columns)
        bad |= {reject.line: reject.reason for reject in rejects}
        fields, clashing = renamed(fields)
        return Decoded(fields, bad | clashing, single)

    def _single(self, frame: pl.DataFrame, bad: Bad) -> pa.Table | None:
        found: dict[int, str | None] = {}
        for text, number in frame.iter_rows():
            try:
                value = msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError) as error:
                bad[number] = f"not JSON: {error}"
                continue
            found[number] = value if isinstance(value, str) else None if value is None else text.strip()
        if self.column is None:
            return None
        column = pa.array(found.values(), pa.string())
        return pa.table({self.column: column, NUMBER: pa.array(found.keys(), pa.int64())})


def renamed(fields: pa.Table) -> tuple[pa.Table, Bad]:
    """The fields under names that a column can bear beside the platform's own, those that differ by case only as one.
    A message that has several such fields is bad: they would be one column."""
    names = [VALUE + name if name.lower() in OURS else name for name in fields.column_names]
    lower = [name.lower() for name in names]
    if len(set(lower)) == len(names):
        return (fields if names == fields.column_names else fields.rename_columns(names)), {}
    frame = pl.DataFrame(pl.from_arrow(fields.rename_columns([str(at) for at in range(len(names))])))
    groups: dict[str, list[int]] = {}
    for at, name in enumerate(lower):
        groups.setdefault(name, []).append(at)
    clashing = pl.any_horizontal(
        pl.sum_horizontal(pl.col(str(at)).is_not_null() for at in group) > 1 for group in groups.values()
    )
    number = str(lower.index(NUMBER))
    bad = dict.fromkeys(frame.filter(clashing)[number], "it has fields whose names differ by upper and lower case only")
    one = [pl.coalesce(pl.col(str(at)) for at in group).alias(names[group[0]]) for group in groups.values()]
    return frame.filter(~clashing).select(one).to_arrow(compat_level=pl.CompatLevel.oldest()), bad
