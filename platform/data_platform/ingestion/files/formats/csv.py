"""Delimited text: options and reader. Fields stay text, an empty field is an empty text (quoted or not), never null.

Two parsers give the same rows. Arrow's is fast but lenient, so a block is taken from it only when it is proven that
both read it alike: quoting matches the grammar, and records and line feeds add up. All else goes through Python's
`csv` in strict mode, which is the definition of what a record is.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Annotated, BinaryIO, Literal, Self

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from pydantic import AfterValidator, Field, model_validator

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import text
from data_platform.ingestion.files.formats.text import (
    LONGEST,
    MARK,
    THREADS,
    UNDECODABLE,
    Encoding,
    Parsed,
    Reject,
    checked_columns,
    lone_return,
    parsers,
    shown,
    text_table,
    unreadable,
    utf8_blocks,
)
from data_platform.options import Options


def _one_character(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise ValueError("must be one ASCII character, and no line end")
    return value


Character = Annotated[str, AfterValidator(_one_character)]


class Csv(Options):
    """Delimited text, a record a line unless line ends are quoted or escaped. Wholly empty lines are no records: an
    empty value in a table of one column must be quoted. A quote is only read where it encloses a whole field: a record
    with one elsewhere is a reject, since nobody can tell which delimiters were meant to separate."""

    type: Literal["csv"]
    delimiter: Character = Field(default=",", description="What separates fields.")
    quote: Character | None = Field(
        default='"', description="What encloses fields; doubled inside them. Null: quotes are text like any other."
    )
    escape: Character | None = Field(
        default=None, description="What takes the meaning from the character after it, such as a backslash."
    )
    skip_blank: bool = Field(
        default=False, description='Whether spaces before a field are dropped, as in `1, "a, b"`; else they are text.'
    )
    trailing_delimiter: bool = Field(
        default=False, description="Whether a delimiter at the end of a line begins no further field."
    )
    line_end: Literal["lf", "cr"] = Field(
        default="lf",
        description="What ends a line: a line feed, with or without a carriage return before it, or a carriage return "
        "alone, as in files of old Macintosh programs.",
    )
    header: bool = Field(default=True, description="Whether the first record names the columns.")
    columns: Annotated[list[str], AfterValidator(checked_columns), Field(min_length=1)] | None = Field(
        default=None, description="Names of the columns of a file without a header."
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")
    skip_rows: int = Field(default=0, ge=0, description="Lines before the header (or the first record) to pass over.")
    comment: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Records that begin with this are passed over."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}: they must differ")
        if self.escape is not None and self.escape in (self.delimiter, self.quote):
            raise ValueError(
                f"escape is {self.escape!r}, as the delimiter or the quote: they must differ (a quote that is doubled "
                "inside a quoted field needs no escape)"
            )
        if self.skip_blank and " " in (self.delimiter, self.quote, self.escape):
            raise ValueError("skip_blank drops spaces: then none can be the delimiter, the quote or the escape")
        if self.header and self.columns:
            raise ValueError("columns come from the header: set `header: false` to name them here")
        if not self.header and not self.columns:
            raise ValueError("without a header the file does not name its columns: list them under `columns`")
        return self


def read(options: Csv, stream: BinaryIO) -> Iterator[Parsed]:
    """Parse a stream, block by block on a few threads, in order; memory is bounded by the blocks in flight.

    First comes an empty block with the columns, so that a file with a header alone has them too. Raises PlatformError
    when the header cannot be read or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST * 2))  # process-wide; never lowered
    records = _Records(utf8_blocks(stream, options.encoding, options.line_end), options)
    records.skip_lines(options.skip_rows)
    names = options.columns or _header(records, options)
    yield Parsed(text_table({name: [] for name in names}, []))
    in_flight: deque[tuple[_Block, Future[Parsed | None]]] = deque()
    pool = parsers(alone=not records.has_more())
    try:
        grow = 0
        while True:
            while len(in_flight) <= THREADS and (block := records.take(grow)):
                in_flight.append((block, pool.submit(_fast, block, options, names)))
                if grow:
                    break
            grow = 0
            if not in_flight:
                return
            block, future = in_flight.popleft()
            parsed = future.result()
            if parsed is None:
                final = records.exhausted and not in_flight
                parsed, rest = _careful(block, options, names, final)
                if rest:  # cut in the middle of a record: what follows is cut again, from its beginning
                    following = b"".join(later.data for later, _ in in_flight)
                    in_flight.clear()
                    records.put_back(rest + following, block.line + block.lines - rest.count(b"\n"))
                    grow = len(rest)
            yield parsed
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Block:
    """Whole lines: their bytes, the number of the first, how many they are."""

    data: bytes
    line: int
    lines: int


class _Records:
    """Cuts blocks of lines where records seem to end: at a line feed with an even number of quotes before it. A wrong
    guess (quotes that are plain text) costs time, not rows: the parsers find out."""

    def __init__(self, blocks: Iterator[bytes], options: Csv) -> None:
        self._blocks = blocks
        self._quote = options.quote.encode() if options.quote else None
        self._carry = b""
        self._line = 1
        self._ended = False

    def has_more(self) -> bool:
        """Whether there is another block than the one in hand."""
        return not self._ended and self._more()

    @property
    def exhausted(self) -> bool:
        return not self._carry and not self._more()

    def take(self, more_than: int = 0) -> _Block | None:
        """The next block, of more than so many bytes if there are."""
        while True:
            data = self._carry
            cut = self._cut(data) if len(data) > more_than else 0
            cut = cut if cut > more_than else 0  # else it would be the same block again, for ever
            if not cut and (len(data) > LONGEST or not self._more()):
                cut = len(data)
            if cut:
                block = _Block(data[:cut], self._line, data.count(b"\n", 0, cut))
                self._carry, self._line = data[cut:], block.line + block.lines
                return block
            if not data and self._ended:
                return None

    def put_back(self, data: bytes, line: int) -> None:
        """Give back what was taken but not parsed, which begins at the line of that number."""
        self._carry, self._line = data + self._carry, line

    def skip_lines(self, count: int) -> None:
        for _ in range(count):
            if not self._carry and not self._more():
                return
            end = self._carry.find(b"\n") + 1
            self._carry, self._line = self._carry[end:], self._line + 1

    def _more(self) -> bool:
        block = None if self._ended else next(self._blocks, None)
        self._ended = block is None
        self._carry += block or b""
        return block is not None

    def _cut(self, data: bytes) -> int:
        cut = data.rfind(b"\n") + 1
        if self._quote is None:
            return cut
        odd = data.count(self._quote, 0, cut) % 2
        while odd and cut:
            earlier = data.rfind(b"\n", 0, data.rfind(self._quote, 0, cut)) + 1
            odd = (odd + data.count(self._quote, earlier, cut)) % 2
            cut = earlier
        return cut


def _header(records: _Records, options: Csv) -> list[str]:
    while block := records.take():
        line, lines = block.line, _lines(block.data)
        for start, end, fields, problem in _strict(lines, options):
            record = "".join(lines[start:end])
            if problem := unreadable(record, options.encoding) if MARK in record else problem:
                raise PlatformError(f"line {line + start}: the header cannot be read: {problem}: {shown(record)[:200]}")
            records.put_back(_bytes(lines[end:]), line + end)
            if len(fields) > 1 and not fields[-1] and all(fields[:-1]):
                raise PlatformError(
                    f"line {line + start}: the header ends in a delimiter, so column {len(fields)} has no name. If "
                    "every line ends in one, set `trailing_delimiter: true`."
                )
            try:
                return checked_columns(fields)
            except ValueError as error:
                raise PlatformError(
                    f"line {line + start}: in the header, {error}. Have the file corrected, "
                    "or set `header: false`, `skip_rows` and `columns`."
                ) from error
    raise PlatformError("there is no header: nothing but empty lines and comments.")


def _fast(block: _Block, options: Csv, names: list[str]) -> Parsed | None:
    """Parse whole records with Arrow; None unless it is certain that `_careful` would say the same."""
    data = block.data
    if len(data) < text.SMALL or UNDECODABLE in data or lone_return(data):
        return None
    if data.startswith(_BYTE_ORDER_MARK) or b"\n" + _BYTE_ORDER_MARK in data:
        return None
    if options.skip_blank and re.search(rb"(?:\A|[\n" + re.escape(options.delimiter.encode()) + rb"]) ", data):
        return None
    if options.comment and (data.startswith(options.comment.encode()) or f"\n{options.comment}".encode() in data):
        return None
    quoted = options.quote is not None and options.quote.encode() in data
    escaped = options.escape is not None and options.escape.encode() in data
    if (quoted or escaped) and not _is_strict(data, options):
        return None
    invalid: list[tuple[int, str, int]] = []

    def set_aside(row: arrow_csv.InvalidRow) -> str:
        invalid.append((row.number - 1, row.text, row.actual_columns))
        return "skip"

    columns = [*names, _AFTER_LAST] if options.trailing_delimiter else names
    rows = arrow_csv.read_csv(
        pa.BufferReader(data),
        arrow_csv.ReadOptions(column_names=columns, use_threads=False, block_size=len(data) + 1),
        arrow_csv.ParseOptions(
            delimiter=options.delimiter,
            quote_char=options.quote or False,
            escape_char=options.escape if escaped else False,
            newlines_in_values=quoted or escaped,
            invalid_row_handler=set_aside,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False, check_utf8=False
        ),
    )
    if options.trailing_delimiter:
        if invalid or (rows.num_rows and pc.max(pc.binary_length(rows[_AFTER_LAST])).as_py()):
            return None
        rows = rows.drop_columns(_AFTER_LAST)
    if rows.num_rows + len(invalid) == block.lines:
        good = pl.int_range(block.line, block.line + block.lines, eager=True)
        if invalid:
            bad = pl.Series([block.line + ordinal for ordinal, *_ in invalid], dtype=pl.Int64)
            good = good.filter(~good.is_in(bad.implode()))
            return Parsed(_numbered(rows, good), _miscounted(bad, invalid, names, options))
        return Parsed(_numbered(rows, good))
    if not (quoted or escaped):
        return None
    return _with_line_feeds_inside(rows, invalid, block, names, options)


def _is_strict(data: bytes, options: Csv) -> bool:
    grammar = _grammar(options.delimiter, options.quote, options.escape)
    return bool(pc.match_substring_regex(pa.array([data], pa.binary()), grammar)[0].as_py())


def _with_line_feeds_inside(
    rows: pa.Table, invalid: list[tuple[int, str, int]], block: _Block, names: list[str], options: Csv
) -> Parsed | None:
    """Number records that take several lines by the line feeds inside them; None if these do not account for all."""
    inside = [pl.Series(pc.count_substring(column, "\n"), dtype=pl.Int64) for column in rows.columns]
    ordinals = pl.int_range(rows.num_rows + len(invalid), eager=True)
    bad = pl.DataFrame(
        {"record": [ordinal for ordinal, *_ in invalid], "span": [text.count("\n") + 1 for _, text, _ in invalid]},
        schema={"record": pl.Int64, "span": pl.Int64},
    )
    good = pl.DataFrame(
        {"record": ordinals.filter(~ordinals.is_in(bad["record"].implode())), "span": sum(inside[1:], inside[0]) + 1}
    )
    records = pl.concat([good.with_columns(good=True), bad.with_columns(good=False)]).sort("record")
    if records["span"].sum() != block.lines:
        return None
    records = records.with_columns(line=block.line + pl.col("span").cum_sum() - pl.col("span"))
    numbers, bad_numbers = (records.filter(good=wanted)["line"] for wanted in (True, False))
    return Parsed(_numbered(rows, numbers), _miscounted(bad_numbers, invalid, names, options))


def _numbered(rows: pa.Table, lines: pl.Series) -> pa.Table:
    return rows.append_column("_line", lines.to_arrow())


def _miscounted(lines: pl.Series, invalid: list[tuple[int, str, int]], names: list[str], options: Csv) -> list[Reject]:
    ends = (options.delimiter, options.delimiter + "\r")
    return [
        Reject(line, shown(text), _wrong_count(found, len(names), empty_last=text.endswith(ends)))
        for line, (_, text, found) in zip(lines, invalid, strict=True)
    ]


def _wrong_count(found: int, expected: int, *, empty_last: bool = False) -> str:
    reason = f"{found} field{'s' * (found != 1)} instead of {expected}"
    if found == expected + 1 and empty_last:
        return f"{reason}: the line ends in a delimiter (if every line does, set `trailing_delimiter: true`)"
    return reason


def _field(delimiter: str, quote: str | None, escape: str | None) -> str:
    """A regular expression for a field in strict quoting: enclosed whole, or without any quote."""
    d, q, e = (re.escape(sign or "") for sign in (delimiter, quote, escape))
    escaped = rf"|{e}(?s:.)" if e else ""
    plain = rf"(?:[^{q}{d}{e}\r\n]{escaped})*"
    return rf"(?:{q}(?:[^{q}{e}]|{q}{q}{escaped})*{q}|{plain})" if q else plain


@cache
def _grammar(delimiter: str, quote: str | None, escape: str | None) -> str:
    """A regular expression for a block of whole records in strict quoting; RE2 matches it byte by byte."""
    return rf"\A(?:{_field(delimiter, quote, escape)}(?:{re.escape(delimiter)}|\r?\n))*\z"


@cache
def _record(delimiter: str, quote: str | None, escape: str | None, *, blank: bool) -> re.Pattern[str]:
    """The same for one record that `csv` has read: all that it accepts, but a quote within a field that is not quoted.
    `blank` allows for spaces before a field."""
    field = (" *" if blank else "") + _field(delimiter, quote, escape).replace(")*", ")*+")  # nothing to go back for
    return re.compile(rf"{field}(?:{re.escape(delimiter)}{field})*+[\r\n]*")


def _careful(block: _Block, options: Csv, names: list[str], final: bool) -> tuple[Parsed, bytes]:
    """Parse records with `csv`; also returns what begins a record that goes on after `data`, unless that is final or
    so long that the quote at its beginning must be a stray one."""
    line, lines = block.line, _lines(block.data)
    numbers: list[int] = []
    rows: list[list[str]] = []
    rejects: list[Reject] = []
    rest = b""
    marked = UNDECODABLE in block.data
    for start, end, fields, problem in _strict(lines, options):
        if problem is _NEVER_CLOSED and not final and len(rest := _bytes(lines[start:])) <= LONGEST:
            break
        rest = b""
        if problem is None and len(fields) != len(names):
            problem = _wrong_count(len(fields), len(names), empty_last=fields[-1:] == [""])
        if marked and MARK in (record := "".join(lines[start:end])):
            problem = unreadable(record, options.encoding)
        if problem is None:
            numbers.append(line + start)
            rows.append(fields)
        else:
            rejects.append(Reject(line + start, shown("".join(lines[start:end])), problem))
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return Parsed(text_table(dict(zip(names, columns, strict=True)), numbers), rejects), rest


_NEVER_CLOSED = "a quoted field is never closed"
_STRAY_QUOTE = "a quote within a field that is not quoted (if quotes have no meaning in this file, set `quote: null`)"
_BLANK_BEFORE_QUOTE = "a space before a quoted field (if that is how the file is written, set `skip_blank: true`)"
_LONE_RETURN = "a carriage return outside quotes (if all lines end in a carriage return alone, set `line_end: cr`)"
_MARK_WITHIN = "a byte order mark in the middle of the file: were several files put together?"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AFTER_LAST = "\0"  # a column that no file can have: what stands after the last delimiter of each line


def _strict(lines: list[str], options: Csv) -> Iterator[tuple[int, int, list[str], str | None]]:
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


_EMPTY = frozenset({"\n", "\r\n"})


def _plainly(error: csv.Error) -> str:
    message = str(error)
    if "expected after" in message:
        return "text after a closing quote"
    return _LONE_RETURN if message.startswith("new-line character") else message


def _lines(data: bytes) -> list[str]:
    return [line + "\n" for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]]


def _bytes(lines: list[str]) -> bytes:
    return "".join(lines).encode("utf-8", "surrogateescape")
