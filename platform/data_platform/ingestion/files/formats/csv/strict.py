"""Delimited text parsed by Python's `csv` in strict mode: what a record is, and what is wrong with one."""

import csv
import re
from collections.abc import Iterator
from functools import cache

from data_platform.ingestion.files.formats.csv.blocks import Block, bytes_of, lines_of
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.text import (
    LONGEST,
    MARK,
    UNDECODABLE,
    Parsed,
    Reject,
    shown,
    text_table,
    unreadable,
)

_NEVER_CLOSED = "a quoted field is never closed"
_STRAY_QUOTE = "a quote within a field that is not quoted (if quotes have no meaning in this file, set `quote: null`)"
_BLANK_BEFORE_QUOTE = "a space before a quoted field (if that is how the file is written, set `skip_blank: true`)"
_LONE_RETURN = (
    "a carriage return outside quotes (if all lines end in a carriage return alone, set `line_end: cr`; if some do, "
    "`line_end: any`)"
)
_MARK_WITHIN = "a byte order mark in the middle of the file: were several files put together?"
_EMPTY = frozenset({"\n", "\r\n"})


def parse_strictly(block: Block, options: Csv, names: list[str], final: bool) -> tuple[Parsed, bytes]:
    """Parse records with `csv`; also returns what begins a record that goes on after `data`, unless that is final or
    so long that the quote at its beginning must be a stray one."""
    line, lines = block.line, lines_of(block.data)
    numbers: list[int] = []
    rows: list[list[str | None]] = []
    rejects: list[Reject] = []
    rest = b""
    marked = UNDECODABLE in block.data
    for start, end, fields, problem in records_in(lines, options):
        if problem is _NEVER_CLOSED and not final and len(rest := bytes_of(lines[start:])) <= LONGEST:
            break
        rest = b""
        row = [None if field == options.null_value else field for field in fields]
        if problem is None and len(fields) != len(names):
            if options.short_rows == "pad" and 0 < len(fields) < len(names):
                row += [None] * (len(names) - len(fields))
            elif options.long_rows == "truncate" and len(fields) > len(names):
                row = row[: len(names)]
            else:
                problem = wrong_count(len(fields), len(names), empty_last=fields[-1:] == [""])
        if marked and MARK in (record := "".join(lines[start:end])):
            problem = unreadable(record, options.encoding)
        if problem is None:
            numbers.append(line + start)
            rows.append(row)
        else:
            rejects.append(Reject(line + start, shown("".join(lines[start:end])), problem))
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return Parsed(text_table(dict(zip(names, columns, strict=True)), numbers), rejects), rest


def records_in(lines: list[str], options: Csv) -> Iterator[tuple[int, int, list[str], str | None]]:
    """Records as (first line, line after, fields, what is wrong). After a record with broken quoting it goes on at
    the line after its first: a stray quote costs one line, not all up to the next quote."""
    position = 0
    ran_out = False

    def feed() -> Iterator[str]:
        nonlocal position, ran_out
        while position < len(lines):
            position += 1
            yield lines[position - 1]
        ran_out = True

    def reader() -> Iterator[list[str]]:
        return csv.reader(
            feed(),
            delimiter=options.delimiter,
            quotechar=options.quote,
            quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
            escapechar=options.escape,
            skipinitialspace=options.skip_blank,
            strict=True,
        )

    records = reader()
    while position < len(lines):
        start = position
        if lines[start] in _EMPTY or (options.comment and lines[start].startswith(options.comment)):
            position += 1
            continue
        try:
            fields = next(records)
        except csv.Error as error:
            problem = _NEVER_CLOSED if ran_out else _plainly(error)
            records, position, ran_out = reader(), start + 1, False
            yield start, position, [], problem
        else:
            if options.trailing_delimiter and len(fields) > 1 and not fields[-1]:
                fields = fields[:-1]
            misread = _misread("".join(lines[start:position]), options)
            if misread and position > start + 1:
                records, position, ran_out = reader(), start + 1, False
            yield start, position, fields, misread


def _misread(record: str, options: Csv) -> str | None:
    """What is wrong with a record that `csv` accepts, or None."""
    if record.startswith("\ufeff"):
        return _MARK_WITHIN
    if options.quote is None or options.quote not in record:
        return None
    signs = options.delimiter, options.quote, options.escape
    if _record(*signs, blank=options.skip_blank).fullmatch(record):
        return None
    return _BLANK_BEFORE_QUOTE if _record(*signs, blank=True).fullmatch(record) else _STRAY_QUOTE


def _plainly(error: csv.Error) -> str:
    message = str(error)
    if "expected after" in message:
        return "text after a closing quote"
    return _LONE_RETURN if message.startswith("new-line character") else message


def wrong_count(found: int, expected: int, *, empty_last: bool = False) -> str:
    """What is wrong with a record of `found` fields, of which the last is empty or not."""
    reason = f"{found} field{'s' * (found != 1)} instead of {expected}"
    if found == expected + 1 and empty_last:
        return f"{reason}: the line ends in a delimiter (if every line does, set `trailing_delimiter: true`)"
    return reason


def field_grammar(delimiter: str, quote: str | None, escape: str | None) -> str:
    """A regular expression for a field in strict quoting: enclosed whole, or without any quote."""
    d, q, e = (re.escape(sign or "") for sign in (delimiter, quote, escape))
    escaped = rf"|{e}(?s:.)" if e else ""
    plain = rf"(?:[^{q}{d}{e}\r\n]{escaped})*"
    return rf"(?:{q}(?:[^{q}{e}]|{q}{q}{escaped})*{q}|{plain})" if q else plain


@cache
def _record(delimiter: str, quote: str | None, escape: str | None, *, blank: bool) -> re.Pattern[str]:
    """The same for one record that `csv` has read: all that it accepts, but a quote within a field that is not quoted.
    `blank` allows for spaces before a field."""
    # Possessive: there is nothing to go back for.
    field = (" *" if blank else "") + field_grammar(delimiter, quote, escape).replace(")*", ")*+")
    return re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*+[\r\n]*")
