"""JSON lines: options and reader. A line is an object, each of its top-level fields a text column.

Strings come without quotes and escapes, numbers and booleans as they are written (`1.10` stays `1.10`), objects and
arrays as the JSON that the file holds, null as null; so nothing is lost that typing would round or reorder. Of a name
that occurs twice in an object the last value counts, as in nearly every JSON reader.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal

import msgspec
import polars as pl
import pyarrow as pa
from pydantic import Field

from data_platform.ingestion.formats.text import OWN_COLUMNS, Encoding, Parsed, Reject, good_lines, utf8_blocks
from data_platform.ingestion.source import Options


class JsonLines(Options):
    """One JSON object a line. Empty lines are no records."""

    type: Literal["json_lines"]
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")


def read(options: JsonLines, stream: BinaryIO) -> Iterator[Parsed]:
    """Parse a stream block by block; each block has the columns that occur in it. A line that is not an object, or
    has a field without a name or with one of the platform's own, is a reject."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    first = 1
    for block in utf8_blocks(stream, options.encoding):
        numbers, lines, rejects = good_lines(block, first, options.encoding)
        first += block.count(b"\n")
        objects: list[dict[str, msgspec.Raw]] = []
        kept: list[int] = []
        for number, line in zip(numbers, lines, strict=True):
            try:
                fields = decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                if not line.isspace():
                    rejects.append(Reject(number, line, _reason(error)))
                continue
            if not fields.keys().isdisjoint(_FORBIDDEN):
                rejects.append(Reject(number, line, f"a field is named {min(_FORBIDDEN & fields.keys())!r}"))
                continue
            objects.append(fields)
            kept.append(number)
        rejects.sort(key=lambda reject: reject.line)
        yield Parsed(_table(objects, kept), rejects)


_FORBIDDEN = frozenset({"", *OWN_COLUMNS})


def _reason(error: msgspec.DecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "objects or arrays are nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return f"not a JSON object: {error}"
    return f"not JSON: {error}"


def _table(objects: list[dict[str, msgspec.Raw]], lines: list[int]) -> pa.Table:
    """Text columns from objects of raw JSON: those of the first object in its order, then the others by name."""
    names = [*objects[0], *sorted(set[str]().union(*objects) - objects[0].keys())] if objects else []
    columns = {}
    for name in names:
        raw = [None if (value := fields.get(name)) is None else bytes(value) for fields in objects]
        columns[name] = _unquoted(pa.array(raw, pa.binary()).cast(pa.string()))
    return pa.table(columns | {"_line": pa.array(lines, pa.int64())})


def _unquoted(values: pa.Array) -> pa.Array:
    raw = pl.Series(values)
    text = pl.select(
        pl.when(raw.str.starts_with('"'))
        .then(raw.str.strip_prefix('"').str.strip_suffix('"'))
        .when(raw != "null")
        .then(raw)
    ).to_series()
    escaped = (raw.str.starts_with('"') & raw.str.contains("\\", literal=True)).arg_true()
    if len(escaped):
        decode = msgspec.json.Decoder(str).decode
        text = text.scatter(escaped, [decode(value) for value in raw.gather(escaped)])
    return text.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())
