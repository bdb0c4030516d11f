"""Fixed-width text: options and reader. Fields are cut by characters and stay as they are, padding included: what
padding means is for staging to say. A trailer that counts the records is checked before the first row is delivered.
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Annotated, BinaryIO, Literal

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.text import (
    MARK,
    Encoding,
    Parsed,
    Reject,
    checked_columns,
    good_lines,
    in_order,
    line_end_in,
    shown,
    utf8_blocks,
)
from data_platform.ingestion.source import MAX_COLUMNS
from data_platform.options import Options


class FixedColumn(Options):
    """A field and how many characters it takes."""

    name: str = Field(description="What the column is called.")
    width: int = Field(gt=0, description="Characters, padding included.")


def _columns(columns: list[FixedColumn]) -> list[FixedColumn]:
    checked_columns([column.name for column in columns])
    return columns


def _counting(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{pattern!r} has {groups} groups; it needs one, round the count: 'TRAILER ([0-9]+)'")
    return pattern


class FixedWidth(FormatOptions):
    """A record a line, every field at its place. Wholly empty lines are no records."""

    type: Literal["fixed_width"] = Field(description="Which kind it is.")
    columns: Annotated[list[FixedColumn], AfterValidator(_columns)] = Field(
        min_length=1, description="The columns, from left to right."
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")
    header: int = Field(default=0, ge=0, description="Lines at the beginning to pass over.")
    trailer: Annotated[str, AfterValidator(_counting)] | None = Field(
        default=None,
        description="Regular expression that the whole last line must match; its group holds the count of records.",
    )

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding)


def read(options: FixedWidth, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001
    """Parse a seekable stream block by block. With a trailer it is read twice: first to count.

    Raises PlatformError, before anything is delivered, when the trailer is missing or its count differs.
    """
    beginning = stream.tell()
    trailer_line = _check_trailer(options, stream) if options.trailer else None
    stream.seek(beginning)
    yield _parse(options, pl.DataFrame(schema={"text": pl.String, "_line": pl.Int64}), [])

    def parse(block: bytes, first: int) -> Parsed:
        lines, rejects = good_lines(block, first, options.encoding)
        lines = lines.filter(pl.col("_line") > options.header, pl.col("_line").ne_missing(trailer_line))
        return _parse(options, lines, [reject for reject in rejects if reject.line > options.header])

    yield from in_order(parse, utf8_blocks(stream, options.encoding))


def _parse(options: FixedWidth, lines: pl.DataFrame, rejects: list[Reject]) -> Parsed:
    width = sum(column.width for column in options.columns)
    starts = accumulate((column.width for column in options.columns), initial=0)
    fields = [
        pl.col("text").str.slice(start, column.width).alias(column.name)
        for start, column in zip(starts, options.columns, strict=False)
    ]
    right = lines["text"].str.len_chars() == width
    wrong = [
        Reject(line, record, f"{len(record)} characters instead of {width}")
        for record, line in lines.filter(~right).iter_rows()
    ]
    rows = lines.filter(right).select(*fields, "_line").to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = pa.schema([*((column.name, pa.string()) for column in options.columns), ("_line", pa.int64())])
    return Parsed(rows.cast(schema), sorted([*rejects, *wrong], key=lambda reject: reject.line))


def _check_trailer(options: FixedWidth, stream: BinaryIO) -> int | None:
    """The number of the trailer's line, once the records before it have been counted."""
    records, first, last, last_number = 0, 1, "", 0
    for block in utf8_blocks(stream, options.encoding):
        for number, line in enumerate(block.decode("utf-8", "surrogateescape").split("\n")[:-1], first):
            if number > options.header and line not in ("", "\r"):
                records, last, last_number = records + 1, line, number
        first += block.count(b"\n")
    match = re.fullmatch(str(options.trailer), shown(last)) if MARK not in last else None
    if match is None:
        raise PlatformError(
            f"line {last_number or first - 1} is the last and no trailer ({options.trailer}): the file is cut off. "
            f"It says {shown(last)[:200]!r}. Have it sent again."
        )
    if not match[1].strip().isdecimal() or int(match[1]) != records - 1:
        raise PlatformError(
            f"the trailer in line {last_number} counts {match[1]} records, but there are {records - 1}. "
            "Have the file sent again."
        )
    return last_number


FORMAT = FileFormat(FixedWidth, read)
