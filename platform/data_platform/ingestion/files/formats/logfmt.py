"""Logs of pairs, `level=info msg="slow answer" ms=12`: options and reader. Each key is a text column; one without a
value is `true`, and of one that occurs twice in a line the last value counts.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal

import msgspec
import polars as pl
import pyarrow as pa
from pydantic import Field

from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.text import (
    OWN_COLUMNS,
    Encoding,
    Parsed,
    Reject,
    good_lines,
    in_order,
    line_end_in,
    text_table,
    utf8_blocks,
)
from data_platform.ingestion.source import LONGEST_NAME, MAX_COLUMNS, too_many_columns


class Logfmt(FormatOptions):
    """A record a line, of keys and values. Lines that are none are rejects; empty ones are no records."""

    type: Literal["logfmt"] = Field(description="Which kind it is.")
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding)


_KEY, _QUOTED = r'[^\s="]+', r'"(?:[^"\\]|\\.)*"'
PAIRS = rf'\A\s*{_KEY}(?:=(?:{_QUOTED}|[^\s"]*))?(?:\s+{_KEY}(?:=(?:{_QUOTED}|[^\s"]*))?)*\s*\z'
"""What a whole line matches."""

_PAIR = rf'{_KEY}(?:=(?:{_QUOTED}|[^\s"]*))?'


def read(options: Logfmt, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream block by block; each block has the columns that occur in it. Raises PlatformError when the lines
    of a block have more different keys than `max_columns`."""

    def parse(block: bytes, first: int) -> Parsed:
        lines, undecodable = good_lines(block, first, options.encoding)
        rows, rejects = _parsed(lines, max_columns)
        return Parsed(rows, sorted([*undecodable, *rejects], key=lambda one: one.line))

    yield Parsed(text_table({}, []))
    yield from in_order(parse, utf8_blocks(stream, options.encoding))


def _parsed(lines: pl.DataFrame, max_columns: int) -> tuple[pa.Table, list[Reject]]:
    matched = lines["text"].str.contains(PAIRS) & lines["text"].str.contains("=", literal=True)
    others = lines.filter(~matched)
    rejects = [Reject(number, text, "the line is not made of pairs key=value") for text, number in others.iter_rows()]
    pairs = (
        lines.filter(matched)
        .select("_line", pair=pl.col("text").str.extract_all(_PAIR))
        .explode("pair")
        .select(
            "_line",
            key=pl.col("pair").str.split_exact("=", 1).struct.field("field_0"),
            value=pl.col("pair").str.splitn("=", 2).struct.field("field_1").fill_null("true"),
        )
    )
    bad = pairs.filter(pl.col("key").is_in(OWN_COLUMNS) | (pl.col("key").str.len_chars() > LONGEST_NAME))
    if bad.height:
        refused = lines.filter(pl.col("_line").is_in(bad["_line"].implode()))
        rejects += [
            Reject(line, text, "a key is one that no column can be named") for text, line in refused.iter_rows()
        ]
        pairs = pairs.filter(~pl.col("_line").is_in(bad["_line"].implode()))
    names = pairs["key"].unique(maintain_order=True).to_list()
    if len(names) > max_columns:
        raise too_many_columns(f"the lines up to {pairs['_line'][-1]} together", names, max_columns)
    pairs = pairs.with_columns(value=_unquoted(pairs["value"]))
    rows = pairs.pivot(on="key", on_columns=names, index="_line", values="value", aggregate_function="last")
    schema = pa.schema([*((name, pa.string()) for name in names), ("_line", pa.int64())])
    return rows.select(*names, "_line").to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema), rejects


def _unquoted(values: pl.Series) -> pl.Series:
    """Values without the quotes round them and the escapes within these, which are those of JSON; an escape that is
    none stays as it is."""
    quoted = values.str.starts_with('"')
    texts = values.str.strip_prefix('"').str.strip_suffix('"').zip_with(quoted, values)
    at = (quoted & texts.str.contains("\\", literal=True)).arg_true()
    if not len(at):
        return texts
    return texts.scatter(at, [_unescaped(value) for value in values.gather(at)])


def _unescaped(quoted: str) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except msgspec.DecodeError:
        return quoted[1:-1]


FORMAT = FileFormat(Logfmt, read)
