"""JSON lines: options and reader. A line is an object, each of its top-level fields a text column.

Strings come without quotes and escapes, numbers and booleans as they are written (`1.10` stays `1.10`), objects and
arrays as the JSON that the file holds, null as null; so nothing is lost that typing would round or reorder. Of a name
that occurs twice in an object the last value counts, as in nearly every JSON reader.

Two parsers give the same rows. Lines like the first (flat, same fields in the same order: what one program writes) are
taken apart by a regular expression of strict JSON, column by column; all others one by one by msgspec.
"""

from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, Literal

import msgspec
import polars as pl
import pyarrow as pa
from pydantic import Field

from data_platform.errors import shortened
from data_platform.ingestion.files.formats.text import (
    OWN_COLUMNS,
    Encoding,
    Parsed,
    Reject,
    good_lines,
    in_order,
    utf8_blocks,
)
from data_platform.ingestion.source import LONGEST_NAME, MAX_COLUMNS, too_many_columns
from data_platform.options import Options


class JsonLines(Options):
    """One JSON object a line. Empty lines are no records."""

    type: Literal["json_lines"] = Field(description="Which kind it is.")
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")


def read(options: JsonLines, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream block by block; each block has the columns that occur in it. A line that is not an object, has
    more fields than `max_columns`, or one whose name no column can bear (none, with a NUL, one of the platform's own),
    is a reject. Raises PlatformError when the objects of a block have more different fields together."""

    def parse(block: bytes, first: int) -> Parsed:
        left, rejects = good_lines(block, first, options.encoding)
        tables = []
        for _ in range(_SHAPES):
            names = _names(left, max_columns)
            if not names:
                break
            rows, left = _of_shape(left, names)
            if not rows.num_rows:
                break
            tables.append(rows)
        rows, bad = _one_by_one(left, max_columns)
        table = pa.concat_tables([*tables, rows], promote_options="default")
        if len(tables) > 1 or (tables and rows.num_rows):
            table = table.sort_by("_line")
        return Parsed(table, sorted([*rejects, *bad], key=lambda reject: reject.line))

    return in_order(parse, utf8_blocks(stream, options.encoding))


_SHAPES = 4  # kinds of objects (fields and their order) in a block that are worth a pattern
_WORTH = 100  # lines left that are worth another one
_KEPT = 1000  # characters of an object that has too many fields
_FORBIDDEN = frozenset({"", *OWN_COLUMNS})
_SPACE = r"[ \t\r]*"
_HEX = "[0-9a-fA-F]"
_STRING = (
    r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?:[0-9a-ce-fA-CE-F]HHH|[dD](?:[0-7]HH|[89abAB]HH\\u[dD][c-fC-F]HH))))*"'
).replace("H", _HEX)
_SCALAR = _STRING + r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null"
_GROUPS = 15  # with one for the remainder what the regex engine captures in a single pass


def _names(lines: pl.DataFrame, max_columns: int) -> list[str]:
    """The fields of the first line, if there are lines enough for a pattern to be worth while."""
    if lines.height < _WORTH:
        return []
    objects, _, _ = _decoded(lines.head(1), max_columns)
    return list(objects[0]) if objects else []


def _of_shape(lines: pl.DataFrame, names: list[str]) -> tuple[pa.Table, pl.DataFrame]:
    """Rows from the lines that are objects of scalars with just these fields in this order, and the other lines."""
    fields: list[pl.Series] = []
    text = lines["text"]
    for pattern in _patterns(names):
        fields += text.str.extract_groups(pattern).struct.unnest().get_columns()
        text = fields.pop()
    matched = text.is_not_null()
    raw = pl.DataFrame([field.alias(name) for name, field in zip(names, fields, strict=True)])
    if matched.all():
        return _table(raw, lines["_line"]), lines.clear()
    return _table(raw.filter(matched), lines["_line"].filter(matched)), lines.filter(~matched)


@cache
def _pattern(names: tuple[str, ...], first: bool, last: bool) -> str:
    fields = [
        f"{pl.escape_regex(msgspec.json.encode(name).decode())}{_SPACE}:{_SPACE}({_SCALAR}){_SPACE}" for name in names
    ]
    start = rf"\A{_SPACE}\{{{_SPACE}" if first else rf"\A,{_SPACE}"
    return start + f",{_SPACE}".join(fields) + (rf"(\}}{_SPACE})\z" if last else r"(,.*)\z")


def _patterns(names: list[str]) -> list[str]:
    """Patterns for objects of these fields, each for some fields, its last group what the next one is applied to."""
    starts = range(0, len(names), _GROUPS)
    return [_pattern(tuple(names[at : at + _GROUPS]), at == 0, at == starts[-1]) for at in starts]


def _one_by_one(lines: pl.DataFrame, max_columns: int) -> tuple[pa.Table, list[Reject]]:
    """Rows and rejects of any lines, by a parser of JSON."""
    objects, numbers, rejects = _decoded(lines, max_columns)
    found: set[str] = set()
    for fields, number in zip(objects, numbers, strict=True):
        found |= fields.keys()
        if len(found) > max_columns:
            raise too_many_columns(f"line {number}, with those of the objects before it", found, max_columns)
    names = [*objects[0], *sorted(found - objects[0].keys())] if objects else []
    raw = {
        name: [bytes(value).decode() if (value := fields.get(name)) else None for fields in objects] for name in names
    }
    return _table(pl.DataFrame(raw, dict.fromkeys(names, pl.String)), pl.Series(numbers, dtype=pl.Int64)), rejects


def _decoded(lines: pl.DataFrame, max_columns: int) -> tuple[list[dict[str, msgspec.Raw]], list[int], list[Reject]]:
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    objects: list[dict[str, msgspec.Raw]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for line, number in lines.iter_rows():
        try:
            fields = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            if not line.isspace():
                rejects.append(Reject(number, line, _reason(error)))
            continue
        if len(fields) > max_columns:
            reason = f"{len(fields):,} fields, more than `max_columns` ({max_columns:,}) of the table allows"
            rejects.append(Reject(number, shortened(line, _KEPT), reason))
            continue
        forbidden = _FORBIDDEN.intersection(fields)
        if "\\u0000" in line:  # the only way to write one in a name
            forbidden |= {name for name in fields if "\0" in name}
        if max(map(len, fields), default=0) > LONGEST_NAME:
            reason = f"the name of a field has more than the {LONGEST_NAME:,} characters that a name may have"
            rejects.append(Reject(number, shortened(line, _KEPT), reason))
        elif forbidden:
            rejects.append(Reject(number, line, f"no column can be named {min(forbidden)!r}"))
        else:
            objects.append(fields)
            numbers.append(number)
    return objects, numbers, rejects


def _reason(error: msgspec.DecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "objects or arrays are nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        array = " (of an array, have each object written on a line of its own)" if "got `array`" in str(error) else ""
        return f"not a JSON object: {error}{array}"
    return f"not JSON: {error}"


def _table(raw: pl.DataFrame, lines: pl.Series) -> pa.Table:
    """Text columns from columns of raw JSON: strings without quotes and escapes, null for null, all else as it is."""
    names = raw.columns
    string = pl.all().str.strip_prefix('"').str.strip_suffix('"')  # nothing but a string begins or ends with a quote
    text = raw.select(pl.when(pl.all() != "null").then(string).name.keep()) if names else raw
    escaped = raw.select(pl.all().str.contains("\\", literal=True) & pl.all().str.starts_with('"')) if names else raw
    decode = msgspec.json.Decoder(str).decode
    columns = {}
    for name in names:
        column = text[name]
        if len(at := escaped[name].arg_true()):
            column = column.scatter(at, [decode(value) for value in raw[name].gather(at)])
        columns[name] = column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())
    return pa.table(columns | {"_line": lines.to_arrow()})
