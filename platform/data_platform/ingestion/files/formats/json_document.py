"""JSON documents, whose rows are the elements of an array somewhere in them: options and reader. Rows are as those of
JSON lines: each top-level field a text column, nested values as JSON. A document is read as a stream: an element at a
time is in memory, not the whole.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, islice
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, cast

import msgspec
import polars as pl
from pydantic import Field

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.json_lines import FORBIDDEN, NUMBER, parse
from data_platform.ingestion.files.formats.text import LONGEST, Encoding, Parsed, text_table
from data_platform.ingestion.source import MAX_COLUMNS

ROWS = 10_000
"""Elements taken apart at a time."""

DEEPEST = 1_000
"""Objects and arrays within each other, at most."""

MOST_DIGITS = 4_000
"""Digits of a number, at most: Python makes no number of more than 4,300, at which the parser crashes."""

_EXPLAINED = 64 << 20  # bytes of a damaged document that is parsed once more to say in which line the damage is


class JsonDocument(FormatOptions):
    """One JSON document a file, or several in a row. `_line` is the number of the row, as a document may have no
    lines. Numbers keep their digits; an exponent lands as `1E+5`."""

    type: Literal["json"] = Field(description="Which kind it is.")
    rows: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Path to the array of rows, with a dot between names: `data.items`. Default: the document is the "
        "array, or each document is a row.",
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    values_are_text: ClassVar[bool] = False


def read(options: JsonDocument, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream element by element, and give rows of some thousands at a time. An element that is no object is a
    reject. Raises PlatformError for a document that is no JSON or cut off (what was given before must not land), or has
    no array at the path."""
    import ijson

    beginning = stream.tell()
    first = 1
    yield Parsed(text_table({}, []))
    try:
        elements = _elements(options, stream)
        while texts := list(islice(elements, ROWS)):
            numbers = range(first, first + len(texts))
            frame = pl.DataFrame({"text": texts, NUMBER: numbers}, {"text": pl.String, NUMBER: pl.Int64})
            rows, rejects = parse(frame, max_columns, FORBIDDEN)
            # What is to be done about an array is said there for JSON lines.
            rejects = [replace(one, reason=one.reason.partition(" (of an array")[0]) for one in rejects]
            first += len(texts)
            yield Parsed(rows.rename_columns([name or "_line" for name in rows.column_names]), rejects)
    except ijson.JSONError as error:
        raise PlatformError(_damage(options, stream, beginning, str(error.args[0]))) from None
    except ArithmeticError:
        raise PlatformError("it has a number with an exponent that no number can have. Have it sent again.") from None
    except UnicodeDecodeError as error:
        raise PlatformError(f"it holds bytes that are not {options.encoding}: {error}.") from None
    if first == 1:
        _require_array(options, stream, beginning)


def _elements(options: JsonDocument, stream: BinaryIO) -> Iterator[str]:
    """The rows as JSON, one by one."""
    import ijson

    encode = msgspec.json.Encoder(decimal_format="number").encode
    begin = stream.tell()
    array = options.rows is not None or _begins_with(in_utf8(options.encoding, stream), b"[")
    stream.seek(begin)
    path = ".".join(part for part in (options.rows, "item" if array else "") if part)
    for element in ijson.items(Shallow(in_utf8(options.encoding, stream)), path, multiple_values=True):
        try:
            text = encode(element).decode()
        except OverflowError:  # a whole number beyond 64 bits
            text = encode(_decimal(element)).decode()
        except RecursionError:
            raise PlatformError("objects or arrays are nested too deeply.") from None
        if len(text) > LONGEST:
            raise PlatformError(f"a row has more than {LONGEST >> 20} MiB: {shortened(text, 100)}")
        yield text


def _begins_with(stream: BinaryIO, sign: bytes) -> bool:
    """Whether the first bytes that are no white space are these."""
    while (block := stream.read(1 << 16)) and block.isspace():
        continue
    return block.lstrip().startswith(sign)


def in_utf8(encoding: str, stream: BinaryIO) -> BinaryIO:
    """A stream of an encoding in UTF-8 without a byte order mark."""
    encoding = codecs.lookup(encoding).name
    if encoding in ("utf-8", "utf-8-sig"):
        begin = stream.tell()
        if stream.read(3) != codecs.BOM_UTF8:
            stream.seek(begin)
        return stream
    return cast(BinaryIO, _Utf8(codecs.getreader(encoding)(stream)))


class _Utf8:
    """A reader of text as a stream of UTF-8."""

    def __init__(self, reader: codecs.StreamReader) -> None:
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        """As many characters of the text, in UTF-8."""
        return self._reader.read(size).encode() if size else b""


class Shallow:
    """A stream of JSON that raises PlatformError where it is nested more than DEEPEST deep, as the parser's memory
    grows with the square of the depth, or has a number of more than MOST_DIGITS digits."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._depth, self._rest, self._digits = stream, 0, b"", b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the stream, as they are."""
        data = self._stream.read(size)
        outside = _STRING.sub(b"", self._rest + data)
        whole, quote, begun = outside.partition(b'"')  # a string that goes on in what is read next
        escaped = (len(begun) - len(begun.rstrip(b"\\"))) % 2
        self._rest = quote + b"\\" * escaped
        if _MANY_DIGITS.search(self._digits + whole):
            raise PlatformError(f"a number has more than {MOST_DIGITS:,} digits.")
        ending = (self._digits + whole)[-MOST_DIGITS:]
        self._digits = ending[len(ending.rstrip(b"0123456789")) :]
        steps = [_STEPS[sign] for sign in whole.translate(None, _OTHERS)]
        deepest = max(accumulate(steps, initial=self._depth))
        self._depth += sum(steps)
        if deepest > DEEPEST:
            raise PlatformError(f"objects or arrays are nested more than {DEEPEST} deep.")
        return data


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % (MOST_DIGITS + 1))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS = bytes(set(range(256)) - set(_STEPS))


def _decimal(value: Any) -> Any:
    """A value with its whole numbers as decimals, which may be of any size."""
    if isinstance(value, dict):
        return {name: _decimal(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_decimal(one) for one in value]
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _damage(options: JsonDocument, stream: BinaryIO, beginning: int, reason: str) -> str:
    """What is wrong with a document that is no JSON, and in which line if it is not too large to look."""
    what = reason.splitlines()[0].removeprefix("parse error: ").removeprefix("lexical error: ").rstrip(".")
    if "premature EOF" in what:
        return "the JSON is cut off: its end is missing. Have it sent again."
    stream.seek(0, io.SEEK_END)
    place = ""
    if stream.tell() - beginning <= _EXPLAINED:
        stream.seek(beginning)
        try:
            json.loads(stream.read().decode(options.encoding))
        except json.JSONDecodeError as error:
            place = f" in line {error.lineno}, column {error.colno}"
        except (UnicodeDecodeError, RecursionError):
            place = ""
    return f"it is no JSON{place}: {what}. Have it sent again."


def _require_array(options: JsonDocument, stream: BinaryIO, beginning: int) -> None:
    """Raise PlatformError if there is no array at the path, with the arrays that there are."""
    import ijson

    if options.rows is None:
        return
    stream.seek(beginning)
    arrays: dict[str, None] = {}
    for path, event, _ in ijson.parse(in_utf8(options.encoding, stream), multiple_values=True):
        if event == "start_array" and "item" not in path.split("."):
            arrays[path] = None
    if options.rows not in arrays:
        there = f"arrays are at: {', '.join(arrays)}" if any(arrays) else "it has none"
        raise PlatformError(f"there is no array at `{options.rows}` (`rows` of the format); {there}.")


FORMAT = FileFormat(JsonDocument, read)
