"""JSON lines: options and reader. A line is an object, each of its top-level fields a text column.

Strings come without quotes and escapes, numbers and booleans as they are written (`1.10` stays `1.10`), objects and
arrays as the JSON that the file holds, null as null; so nothing is lost that typing would round or reorder. Of a name
that occurs twice in an object the last value counts, as in nearly every JSON reader.

Two parsers give the same rows. Lines like the first (flat, same fields in the same order: what one program writes) are
taken apart by a regular expression of strict JSON, column by column, first those whose fields are of the types that the
first line has, then those of any; all others one by one by msgspec.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import BinaryIO, ClassVar, Literal

import msgspec
import polars as pl
import pyarrow as pa
from pydantic import Field

from data_platform.errors import shortened
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.nested import NestedRows, Nesting, RowsPath, elements
from data_platform.ingestion.files.formats.text import (
    OWN_COLUMNS,
    Encoding,
    Parsed,
    Reject,
    good_lines,
    in_order,
    line_end_in,
    utf8_blocks,
)
from data_platform.ingestion.source import LONGEST_NAME, MAX_COLUMNS, too_many_columns


class JsonLines(NestedRows):
    """One JSON object a line. Empty lines are no records."""

    type: Literal["json_lines"] = Field(description="Which kind it is.")
    rows: RowsPath | None = Field(
        default=None,
        description="Path to an array in each line whose elements are the rows, with a dot between names, and `[*]` "
        "where it goes through each element of an array: `lines`, `data.lines[*].parts`. A line without it, or with "
        "null or an empty one, has no rows. `_line` is that of the line. Default: each line is a row.",
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    values_are_text: ClassVar[bool] = False

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding)


def read(options: JsonLines, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream block by block; each block has the columns that occur in it. A line that is not an object, has
    more fields than `max_columns`, or one whose name no column can bear (none, with a NUL, one of the platform's own),
    is a reject. Raises PlatformError when the objects of a block have more different fields together."""

    nesting = options.nesting()

    def parse_block(block: bytes, first: int) -> Parsed:
        lines, undecodable = good_lines(block, first, options.encoding)
        rows, bad = parse_rows(lines.rename({"_line": NUMBER}), nesting, options.value, max_columns)
        rows = rows.rename_columns([name or "_line" for name in rows.column_names])
        bad = [reject for reject in bad if not reject.record.isspace()]
        return Parsed(rows, sorted([*undecodable, *bad], key=lambda reject: reject.line))

    return in_order(parse_block, utf8_blocks(stream, options.encoding))


NUMBER = ""
"""The column with the number of a text, of which no field can bear the name."""


def parse_rows(
    texts: pl.DataFrame, nesting: Nesting | None, value: str | None, max_columns: int
) -> tuple[pa.Table, list[Reject]]:
    """As `parse`, for records of files: they are the rows, or hold them where `nesting` says. NUMBER is then that of
    the record, of several rows the same; a row has what is kept of its record before its own fields. `value` is the
    column for rows that are not to be taken apart."""
    if nesting is None:
        if value is None:
            return parse(texts, max_columns, FORBIDDEN)
        return _table({value: _strings(texts["text"])}, texts[NUMBER]), []
    found = elements(nesting, texts)
    groups, positions = found.groups(), found.positions()
    records = pl.Series(found.records, dtype=pl.Int64).gather(groups)
    own = nesting.levels[-1].numbers
    kept = {
        column: positions.cast(pl.String) if column in own else _strings(_texts(values)).gather(groups)
        for column, values in found.kept.items()
    }
    inner = pl.DataFrame({"text": pl.Series(found.elements, dtype=pl.String)}).with_row_index(NUMBER)
    if value is not None:
        return _table({**kept, value: _strings(inner["text"])}, records), found.rejects
    inner = inner.select("text", pl.col(NUMBER).cast(pl.Int64))
    rows, bad = parse(inner, max_columns, FORBIDDEN | kept.keys(), lambda at: f"line {records[at]}")
    for one in bad:
        taken = ", as `parent` has one" * one.reason.endswith(tuple(f"named {column!r}" for column in kept))
        reason = f"element {positions[one.line]} of {nesting.path}: {one.reason.partition(_AN_ARRAY)[0]}{taken}"
        found.rejects.append(Reject(records[one.line], one.record, reason))
    at = pl.Series(rows[NUMBER])
    around = _table({column: values.gather(at) for column, values in kept.items()}, records.gather(at))
    names = [name for name in rows.column_names if name != NUMBER]
    return pa.table(
        [*(around[name] for name in kept), *(rows[name] for name in names), around[NUMBER]], [*kept, *names, NUMBER]
    ), found.rejects


def parse(
    texts: pl.DataFrame,
    max_columns: int,
    forbidden: frozenset[str] = frozenset({NUMBER}),
    place: Callable[[int], str] = "line {}".format,
) -> tuple[pa.Table, list[Reject]]:
    """Take apart texts, each of which should be one JSON object; they are in the column `text`, beside NUMBER. The rows
    have a text column for each field and NUMBER, in the order of the texts; a text that is no object, or has a field
    whose name is `forbidden`, is a reject. Raises PlatformError for more different fields than `max_columns`, with the
    `place` of the text that has one too many."""
    left, tables = texts, []
    tried = set()
    for _ in range(_SHAPES):
        fields = _fields(left, max_columns, forbidden)
        if not fields:
            break
        names = tuple(fields)
        rows, left = _of_shape(left, dict.fromkeys(names, _ANY) if names in tried else fields)
        tried.add(names)
        if not rows.num_rows:
            break
        tables.append(rows)
    rows, rejects = _one_by_one(left, max_columns, forbidden, place)
    table = pa.concat_tables([*tables, rows], promote_options="default")
    if len(tables) > 1 or (tables and rows.num_rows):
        table = table.sort_by(NUMBER)
    return table, rejects


_SHAPES = 6  # kinds of objects (fields, their order and types) in a block that are worth a pattern
_WORTH = 100  # lines left that are worth another one
_KEPT = 1000  # characters of an object that has too many fields
FORBIDDEN = frozenset({NUMBER, *OWN_COLUMNS})
"""What no field of a file can be called."""
_SPACE = r"[ \t\r]*"
_HEX = "[0-9a-fA-F]"
_CHARACTERS = (
    r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?:[0-9a-ce-fA-CE-F]HHH|[dD](?:[0-7]HH|[89abAB]HH\\u[dD][c-fC-F]HH))))*'
).replace("H", _HEX)
_BARE_SCALAR = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false"
_TEXT = rf'(?:"({_CHARACTERS})"|null)'  # a value that is text or null, captured without quotes
_BARE = rf"(?:({_BARE_SCALAR})|null)"  # a number, true, false or null
_ANY = rf'("{_CHARACTERS}"|{_BARE_SCALAR}|null)'  # any of these, captured as it is written
_GROUPS = 15  # with one for the remainder what the regex engine captures in a single pass


def _fields(lines: pl.DataFrame, max_columns: int, forbidden: frozenset[str]) -> dict[str, str]:
    """The fields of the first line, and the pattern of what values they have in it, if there are lines enough for a
    pattern to be worth while."""
    if lines.height < _WORTH:
        return {}
    objects, _, _ = _decoded(lines.head(1), max_columns, forbidden)
    return {name: _pattern_of(bytes(value)[:1]) for name, value in objects[0].items()} if objects else {}


def _pattern_of(beginning: bytes) -> str:
    if beginning == b'"':
        return _TEXT
    return _BARE if beginning in b"-0123456789tf" else _ANY


def _of_shape(lines: pl.DataFrame, fields: dict[str, str]) -> tuple[pa.Table, pl.DataFrame]:
    """Rows from the lines that are objects of just these fields in this order, with values of their patterns, and the
    other lines."""
    values: list[pl.Series] = []
    text = lines["text"]
    for pattern in _patterns(fields):
        values += text.str.extract_groups(pattern).struct.unnest().get_columns()
        text = values.pop()
    matched, others = text.is_not_null(), lines.clear()
    if not matched.all():
        lines, others = lines.filter(matched), lines.filter(~matched)
        values = [column.filter(matched) for column in values]
    texts = {
        name: _strings(column) if pattern == _ANY else _unescaped(column) if pattern == _TEXT else column
        for (name, pattern), column in zip(fields.items(), values, strict=True)
    }
    return _table(texts, lines[NUMBER]), others


@cache
def _pattern(fields: tuple[tuple[str, str], ...], first: bool, last: bool) -> str:
    each = [
        f"{pl.escape_regex(msgspec.json.encode(name).decode())}{_SPACE}:{_SPACE}{value}{_SPACE}"
        for name, value in fields
    ]
    start = rf"\A{_SPACE}\{{{_SPACE}" if first else rf"\A,{_SPACE}"
    return start + f",{_SPACE}".join(each) + (rf"(\}}{_SPACE})\z" if last else r"(,.*)\z")


def _patterns(fields: dict[str, str]) -> list[str]:
    """Patterns for objects of these fields, each for some fields, its last group what the next one is applied to."""
    starts = range(0, len(fields), _GROUPS)
    given = tuple(fields.items())
    return [_pattern(given[at : at + _GROUPS], at == 0, at == starts[-1]) for at in starts]


def _one_by_one(
    lines: pl.DataFrame, max_columns: int, forbidden: frozenset[str], place: Callable[[int], str]
) -> tuple[pa.Table, list[Reject]]:
    """Rows and rejects of any lines, by a parser of JSON."""
    objects, numbers, rejects = _decoded(lines, max_columns, forbidden)
    found: set[str] = set()
    for fields, number in zip(objects, numbers, strict=True):
        found |= fields.keys()
        if len(found) > max_columns:
            raise too_many_columns(f"{place(number)}, with those of the objects before it", found, max_columns)
    names = [*objects[0], *sorted(found - objects[0].keys())] if objects else []
    texts = {name: _strings(_texts([fields.get(name) for fields in objects])) for name in names}
    return _table(texts, pl.Series(numbers, dtype=pl.Int64)), rejects


def _decoded(
    lines: pl.DataFrame, max_columns: int, forbidden: frozenset[str]
) -> tuple[list[dict[str, msgspec.Raw]], list[int], list[Reject]]:
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    objects: list[dict[str, msgspec.Raw]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for line, number in lines.iter_rows():
        try:
            fields = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            rejects.append(Reject(number, line, _reason(error)))
            continue
        if len(fields) > max_columns:
            reason = f"{len(fields):,} fields, more than `max_columns` ({max_columns:,}) of the table allows"
            rejects.append(Reject(number, shortened(line, _KEPT), reason))
            continue
        bad_names = forbidden.intersection(fields)
        if "\\u0000" in line:  # the only way to write one in a name
            bad_names |= {name for name in fields if "\0" in name}
        if max(map(len, fields), default=0) > LONGEST_NAME:
            reason = f"the name of a field has more than the {LONGEST_NAME:,} characters that a name may have"
            rejects.append(Reject(number, shortened(line, _KEPT), reason))
        elif bad_names:
            rejects.append(Reject(number, line, f"no column can be named {min(bad_names)!r}"))
        else:
            objects.append(fields)
            numbers.append(number)
    return objects, numbers, rejects


_AN_ARRAY = " (of an array, have each object written on a line of its own)"


def _reason(error: msgspec.DecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "objects or arrays are nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        array = _AN_ARRAY if "got `array`" in str(error) else ""
        return f"not a JSON object: {error}{array}"
    return f"not JSON: {error}"


def _texts(raw: Sequence[msgspec.Raw | bytes | None]) -> pl.Series:
    return pl.Series([bytes(value).decode() if value else None for value in raw], dtype=pl.String)


def _strings(raw: pl.Series) -> pl.Series:
    """Raw JSON as text: strings without quotes and escapes, null for null, all else as it is written."""
    text = raw.str.strip_prefix('"').str.strip_suffix('"')  # nothing but a string begins or ends with a quote
    return _unescaped(text, raw.str.starts_with('"')).set((raw == "null").fill_null(False), None)


def _unescaped(text: pl.Series, strings: pl.Series | None = None) -> pl.Series:
    """Text without escapes, where it is that of JSON's `strings` (everywhere, if that is not given)."""
    escaped = text.str.contains("\\", literal=True)
    at = (escaped if strings is None else escaped & strings).arg_true()
    if not len(at):
        return text
    decode = msgspec.json.Decoder(str).decode
    return text.scatter(at, [decode(f'"{value}"') for value in text.gather(at)])


def _table(texts: dict[str, pl.Series], lines: pl.Series) -> pa.Table:
    columns = {
        name: text.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string()) for name, text in texts.items()
    }
    return pa.table(columns | {NUMBER: lines.to_arrow()})


FORMAT = FileFormat(JsonLines, read)
