"""Logs in the extended format of the W3C, as web servers and content networks write them: options and reader. A line
`#Fields:` names the columns of the lines after it, and may come again with others; `-` is null.

Source: the W3C's working draft WD-logfile. Values are separated by one blank or tab; one in double quotes may hold
blanks, and a quote that is doubled.
"""

import csv
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, Literal

import polars as pl
import pyarrow as pa
from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.text import (
    Encoding,
    Parsed,
    Reject,
    checked_columns,
    good_lines,
    line_end_in,
    text_table,
    utf8_blocks,
)
from data_platform.ingestion.source import MAX_COLUMNS, too_many_columns

FIELDS = "#Fields:"


class W3c(FormatOptions):
    """A record a line, of as many values as `#Fields:` names. Lines with another number are rejects."""

    type: Literal["w3c"] = Field(description="Which kind it is.")
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding)


def read(options: W3c, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream block by block, in order: what the columns are, a line before may say. Raises PlatformError for a
    record before any `#Fields:`, and for names that no column can have."""
    columns: list[str] | None = None
    first = 1
    yield Parsed(text_table({}, []))
    for block in utf8_blocks(stream, options.encoding):
        lines, rejects = good_lines(block, first, options.encoding)
        first += block.count(b"\n")
        directive = lines["text"].str.starts_with("#")
        starts = lines.filter(lines["text"].str.starts_with(FIELDS))
        cuts = [0, *starts["_line"].to_list(), first]
        for begin, end in pairwise(cuts):
            if begin:
                columns = _named(str(starts.row(by_predicate=pl.col("_line") == begin)[0]), begin, max_columns)
            records = lines.filter(~directive & pl.col("_line").is_between(begin, end, closed="left"))
            if not records.height:
                continue
            if columns is None:
                raise PlatformError(
                    f"line {records['_line'][0]} is a record before any line {FIELDS}, which names the columns. Have "
                    "it sent whole, or read it as `format: {type: csv, delimiter: ' ', header: false, columns: [...]}`."
                )
            rows, refused = _split(records, columns)
            yield Parsed(rows, sorted([*rejects, *refused], key=lambda one: one.line))
            rejects = []
        if rejects:
            yield Parsed(text_table({}, []), rejects)


def _named(line: str, number: int, max_columns: int) -> list[str]:
    names = line.removeprefix(FIELDS).split()
    if len(names) > max_columns:
        raise too_many_columns(f"line {number}", names, max_columns)
    try:
        return checked_columns(names)
    except ValueError as error:
        raise PlatformError(f"line {number} ({FIELDS}): {error}.") from None


def _split(lines: pl.DataFrame, columns: list[str]) -> tuple[pa.Table, list[Reject]]:
    """The rows of lines that have as many values as there are columns, and rejects for the others."""
    text = lines["text"].str.strip_chars_end(" \t\r").str.replace_all("\t", " ", literal=True)
    if text.str.contains('"', literal=True).any():
        split = [_values(line) if '"' in line else line.split(" ") for line in text]
        values = pl.Series(split, dtype=pl.List(pl.String))
    else:
        values = text.str.split(" ")
    right = values.list.len() == len(columns)
    wrong = lines.filter(~right).with_columns(found=values.filter(~right).list.len())
    rejects = [
        Reject(number, line, f"{found} values instead of the {len(columns)} that {FIELDS} names")
        for line, number, found in wrong.iter_rows()
    ]
    good = values.filter(right)
    found = {name: good.list.get(place) for place, name in enumerate(columns)}
    arrays = {name: one.set(one == "-", None).to_arrow().cast(pa.string()) for name, one in found.items()}
    return pa.table(arrays | {"_line": lines["_line"].filter(right).to_arrow()}), rejects


def _values(line: str) -> list[str]:
    """The values of a line, some of which are quoted."""
    try:
        return next(csv.reader([line], delimiter=" ", quotechar='"', doublequote=True, strict=True))
    except csv.Error:
        return []


FORMAT = FileFormat(W3c, read)
