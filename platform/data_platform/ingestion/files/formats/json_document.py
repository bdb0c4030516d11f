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
from itertools import accumulate
from typing import Any, BinaryIO, ClassVar, Literal, cast

import msgspec
import polars as pl
from pydantic import Field

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.json_lines import NUMBER, parse_rows
from data_platform.ingestion.files.formats.nested import EACH, NestedRows, RowsPath
from data_platform.ingestion.files.formats.text import BLOCK, LONGEST, Encoding, Parsed, text_table
from data_platform.ingestion.source import MAX_COLUMNS

ROWS = 10_000
"""Elements taken apart at a time."""

DEEPEST = 1_000
"""Objects and arrays within each other, at most."""

MOST_DIGITS = 4_000
"""Digits of a number, at most: Python makes no number of more than 4,300, at which the parser crashes."""

_EXPLAINED = 64 << 20  # bytes of a damaged document that is parsed once more to say in which line the damage is


class JsonDocument(NestedRows):
    """One JSON document a file, or several in a row. `_line` is the number of the row, as a document may have no
    lines, or of the object in the outermost array that the row is within. Numbers keep their digits; an exponent lands
    as `1E+5`."""

    type: Literal["json"] = Field(description="Which kind it is.")
    rows: RowsPath | None = Field(
        default=None,
        description="Path to the array of rows, with a dot between names, and `[*]` where it goes through each element "
        "of an array: `data.items`, `orders[*].lines`, `[*].lines` of a document that is an array. An object on the "
        "way without it, or with null or an empty one, has no rows. Default: the document is the array, or each "
        "document is a row.",
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    values_are_text: ClassVar[bool] = False


def read(options: JsonDocument, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream element by element, and give rows of some thousands at a time. An element that is no object is a
    reject. Raises PlatformError for a document that is no JSON or cut off (what was given before must not land), or has
    no array at the path."""
    import ijson

    beginning = stream.tell()
    first, nothing = 1, True
    yield Parsed(text_table({}, []))
    try:
        streamed = options.streamed()
        nesting = options.nesting((*options.outermost(), EACH) if streamed else ())
        for texts in _batches(_elements(options, stream)):
            numbers = range(first, first + len(texts))
            frame = pl.DataFrame({"text": texts, NUMBER: numbers}, {"text": pl.String, NUMBER: pl.Int64})
            rows, rejects = parse_rows(frame, nesting, options.value, max_columns)
            # What is to be done about an array is said there for JSON lines.
            rejects = [replace(one, reason=one.reason.partition(" (of an array")[0]) for one in rejects]
            first += len(texts)
            nothing = nothing and not (rows.num_rows or rejects or streamed)
            yield Parsed(rows.rename_columns([name or "_line" for name in rows.column_names]), rejects)
    except ijson.JSONError as error:
        raise PlatformError(_damage(options, stream, beginning, str(error.args[0]))) from None
    except ArithmeticError:
        raise PlatformError("it has a number with an exponent that no number can have. Have it sent again.") from None
    except UnicodeDecodeError as error:
        raise PlatformError(f"it holds bytes that are not {options.encoding}: {error}.") from None
    if nothing:
        _require_array(options, stream, beginning)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Texts gathered into batches of at most ROWS, which end after about a block's size."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) >= ROWS or size >= BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _elements(options: JsonDocument, stream: BinaryIO) -> Iterator[str]:
    """The elements of the outermost array as JSON, one by one; or the documents, if there is none or what is beside it
    is needed."""
    import ijson

    encode = msgspec.json.Encoder(decimal_format="number").encode
    begin = stream.tell()
    array = options.streamed() if options.rows is not None else _begins_with(in_utf8(options.encoding, stream), b"[")
    stream.seek(begin)
    path = ".".join([*options.outermost(), "item"] if array else [])
    longest = None if options.streamed() else LONGEST
    for element in ijson.items(Shallow(in_utf8(options.encoding, stream), longest), path, multiple_values=True):
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
    grows with the square of the depth, has a number of more than MOST_DIGITS digits, or a document of more than
    `longest` bytes, give or take what is read at a time."""

    def __init__(self, stream: BinaryIO, longest: int | None = None) -> None:
        self._stream, self._depth, self._rest, self._digits = stream, 0, b"", b""
        self._longest, self._length = longest, 0

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
        depths = list(accumulate(steps, initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > DEEPEST:
            raise PlatformError(f"objects or arrays are nested more than {DEEPEST} deep.")
        if self._longest is not None:
            self._length = 0 if 0 in depths[1:] else self._length + len(data)
            if self._length > self._longest:
                raise PlatformError(
                    f"a document has more than {self._longest >> 20} MiB, and what `parent` names outside of the "
                    "array needs it as a whole: keep only what is within the elements of the outermost array."
                )
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
    path = ".".join(options.outermost())
    if path not in arrays:
        there = f"arrays are at: {', '.join(arrays)}" if any(arrays) else "it has none"
        where = f"at `{path}`" if path else "at the top"
        raise PlatformError(f"there is no array {where} (`rows: {options.rows}` of the format); {there}.")


FORMAT = FileFormat(JsonDocument, read)
