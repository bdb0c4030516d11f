"""What every text format shares: bytes in any encoding become blocks of whole lines in UTF-8, and what a parser gives
back for a block. No format is known here, and no file is opened.

Lines end with a line feed (a carriage return before it belongs to the end of the line), as every format here has it.
Nothing is spooled: a block is decoded while its neighbours are still on disk.
"""

import codecs
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain, islice
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
from pydantic import AfterValidator

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.source import LONGEST_NAME

T = TypeVar("T")

BLOCK = 2 << 20
"""Bytes read at a time: the unit of parsing, and with the number of threads what bounds memory."""

THREADS = min(4, os.cpu_count() or 1)
"""Blocks parsed at once; the parsers leave the interpreter's lock while they work."""

SMALL = 4 << 10
"""Bytes in a block below which Python takes it apart faster than Arrow starts to: a folder of tiny files has nothing
else."""

LONGEST = 16 << 20
"""Bytes in a line, or in a record of several lines, at most: beyond it the file is not what it was declared to be."""

UNDECODABLE = b"\xff"
"""Stands in a block before each undecodable sequence, which follows as an escape (`\\x81`). UTF-8 never has it."""
MARK = UNDECODABLE.decode("utf-8", "surrogateescape")
"""The same mark in a block decoded with `surrogateescape`."""

OWN_COLUMNS = ("_file", "_line")
"""Columns that say where a row stands, so no field of a file can bear their names."""

_EBCDIC = "ebcdic"  # the package, and the extra that brings it
_UNDECODED = re.compile(f"(?:{MARK}(?:\\\\x[0-9a-f]{{2}})+)+")
_BYTE = re.compile(r"\\x([0-9a-f]{2})")
_TYPOGRAPHY = frozenset("‘’“”–—…€£§°«»")
_KEPT = 1000  # bytes of a line that is too long
_UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ESCAPES = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "unicode-escape", "raw-unicode-escape"}
)


@dataclass(frozen=True)
class Reject:
    """A record that could not be read: the number of its first line, its text (bad bytes escaped), the reason."""

    line: int
    record: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """What one block gave: `rows` has a string column for each field and `_line` (int64), in the order of the file.
    `repeated` counts the records that repeat the header and were passed over."""

    rows: pa.Table
    rejects: list[Reject] = field(default_factory=list)
    repeated: int = 0


def _known_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        with suppress(ImportError):
            import_module(_EBCDIC)  # which makes its encodings known
    try:
        info = codecs.lookup(name)
        newline = "\n".encode(name)
    except (LookupError, UnicodeError) as error:
        raise ValueError(
            f"unknown encoding {name!r}; well-known ones are utf-8, cp1252, latin-1, utf-16, and of mainframes cp037, "
            f"cp273, cp500; pip install 'data-platform[{_EBCDIC}]' brings more of those, such as cp1047"
        ) from error
    if info.name in _ESCAPES or newline.decode(name) != "\n":
        raise ValueError(f"{name!r} is no encoding of text files; well-known ones are utf-8, cp1252, latin-1, utf-16")
    return name


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""The name of a text encoding that Python knows."""


def line_end_in(encoding: str, line_end: str = "\n") -> bytes:
    """A line end in an encoding, without a byte order mark: of UTF-16 with one, most is little-endian."""
    name = codecs.lookup(encoding).name
    return line_end.encode({"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}.get(name, name))


def checked_columns(names: list[str]) -> list[str]:
    """The names of columns, refused when one is empty, longer than LONGEST_NAME or holds a NUL, occurs twice (in any
    case: SQL does not tell `id` from `ID`) or is one of the platform's own. Raises ValueError with the reason."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name or "\0" in name:
            raise ValueError(f"column {number} has no name" if not name else f"the name of column {number} holds a NUL")
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"the name of column {number} has {len(name):,} characters ({shortened(name, 40)}), more than the "
                f"{LONGEST_NAME:,} that a name may have"
            )
        if name.lower() in OWN_COLUMNS:
            raise ValueError(f"column {number} is named {name!r}, which the platform gives to every row itself")
        if name.lower() in seen:
            raise ValueError(f"column {number} is named {name!r}, as column {seen[name.lower()]} is already")
        seen[name.lower()] = number
    return names


def utf8_blocks(stream: BinaryIO, encoding: str, line_end: Literal["lf", "cr", "any"] = "lf") -> Iterator[bytes]:
    """Blocks of whole lines in UTF-8, every line ended by a line feed, the last one too, whatever ends them in the
    file: where a carriage return does (`cr`), line feeds take their place, in quoted fields too; with `any` also that
    of a carriage return and a line feed. `any` is for encodings that write a line end in one byte.

    A byte order mark is dropped. Undecodable sequences stay as `UNDECODABLE` and an escape; of a line longer than
    `LONGEST` two marks and its beginning stay. Raises PlatformError when the file opens with the mark of another
    encoding, and when lines that should end in a carriage return alone hold a line feed.
    """
    if line_end == "cr":
        for block in _blocks(stream, encoding, "\r"):
            if b"\n" in block[:-1]:
                raise PlatformError("declared to end its lines in carriage returns alone, but it has line feeds too.")
            yield block.replace(b"\r", b"\n")
    elif line_end == "any":
        yield from _blocks(cast(BinaryIO, _OneLineEnd(stream, encoding)), encoding, "\n")
    else:
        yield from _blocks(stream, encoding, "\n")


def _blocks(stream: BinaryIO, encoding: str, line_end: str) -> Iterator[bytes]:
    codec = codecs.lookup(encoding).name
    if codec in STATEFUL:
        stream, codec = cast(BinaryIO, _Decoded(stream, codec)), _DECODED
    codec, chunk = _resolve(codec, stream.read(BLOCK))
    newline = line_end.encode() if codec == _DECODED else line_end.encode(codec)
    rest = b""
    beginning = None  # of a line that is too long
    while chunk:
        data = rest + chunk if rest else chunk
        chunk = stream.read(BLOCK)
        if beginning is None:
            cut = _after_last(data, newline)
            rest = data[cut:]
            if cut:
                yield _transcoded(data[:cut], codec)
            if len(rest) > LONGEST:
                beginning, rest = rest[:_KEPT], b""
        elif end := _after_first(data, newline):
            yield UNDECODABLE * 2 + _transcoded(beginning, codec) + b"\n"
            beginning, chunk, rest = None, data[end:] + chunk, b""
        else:
            rest = data[len(data) - len(data) % len(newline) :]
    if beginning is not None:
        yield UNDECODABLE * 2 + _transcoded(beginning, codec) + b"\n"
    elif rest:
        yield _transcoded(rest, codec) + b"\n"


def shown(record: str) -> str:
    """A record as people read it: without its line end, undecodable bytes as escapes."""
    return record.replace(MARK, "").removesuffix("\n").removesuffix("\r")


def unreadable(record: str, encoding: str) -> str:
    """The reason given for a record that has a mark in it."""
    if MARK * 2 in record:
        return f"a line of more than {LONGEST >> 20} MiB, of which only the beginning is kept"
    reason = f"holds bytes that are not {encoding} (shown as escapes)"
    if (other := _read_by(record, encoding)) is None:
        return reason
    return f"{reason}, but {other}: if the whole file is in that, set `encoding: {other}`, else have it sent in one"


def _read_by(record: str, encoding: str) -> str | None:
    """Another encoding in which the undecodable bytes of a record are letters, or signs of typography."""
    others = {"ascii": ("utf-8", "cp1252"), "utf-8": ("cp1252",)}.get(codecs.lookup(encoding).name, ())
    runs = [bytes.fromhex("".join(_BYTE.findall(run))) for run in _UNDECODED.findall(record)]
    for other in others:
        with suppress(UnicodeDecodeError):
            if all(
                sign in _TYPOGRAPHY or (sign.isalpha() and sign != "ÿ") for run in runs for sign in run.decode(other)
            ):
                return other  # a byte of ones is a filler more often than a letter
    return None


def good_lines(block: bytes, first: int, encoding: str) -> tuple[pl.DataFrame, list[Reject]]:
    """The lines of a block that hold something and can be decoded, as `text` without line ends and `_line`; and
    rejects for those that cannot be decoded. For formats in which a line is a record."""
    if len(block) >= SMALL and not (
        UNDECODABLE in block or b"\x01" in block or block.startswith(codecs.BOM_UTF8) or lone_return(block)
    ):
        lines = arrow_csv.read_csv(  # far faster than splitting in Python: one column, for want of any delimiter
            pa.BufferReader(block),
            arrow_csv.ReadOptions(column_names=["text"], use_threads=False, block_size=len(block) + 1),
            arrow_csv.ParseOptions(delimiter="\x01", quote_char=False),
            arrow_csv.ConvertOptions(column_types={"text": pa.string()}, check_utf8=False),
        )
        if lines.num_rows == block.count(b"\n"):  # else there are empty ones
            numbers = pl.int_range(first, first + lines.num_rows, eager=True)
            return pl.DataFrame({"text": pl.Series(lines["text"]), "_line": numbers}), []
    good: list[tuple[str, int]] = []
    rejects = []
    for number, ended in enumerate(block.decode("utf-8", "surrogateescape").split("\n"), first):
        line = ended.removesuffix("\r")
        if MARK in line:
            rejects.append(Reject(number, shown(line), unreadable(line, encoding)))
        elif line:
            good.append((line, number))
    return pl.DataFrame(good, {"text": pl.String, "_line": pl.Int64}, orient="row"), rejects


STATEFUL = frozenset(
    {"iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3", "iso2022_jp_ext", "iso2022_kr"}
    | {"hz", "utf-7"}
)
"""Encodings in which a byte means what the bytes before it say, be they in an earlier line."""

_DECODED = "decoded"  # stands for a codec where a stream was decoded already


class _Decoded:
    """A stream in an encoding with state as UTF-8, undecodable sequences as `UNDECODABLE` and an escape."""

    def __init__(self, stream: BinaryIO, codec: str) -> None:
        codecs.register_error("data_platform.mark", _mark)
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(codec)("data_platform.mark")

    def read(self, size: int) -> bytes:
        """The next so many bytes of the stream, decoded; empty at its end alone."""
        while True:
            data = self._stream.read(size)
            if (text := self._decoder.decode(data, final=not data)) or not data:
                return text.encode("utf-8", "surrogateescape")


class _OneLineEnd:
    """A stream in which a line feed ends every line, whatever did."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._return, self._feed = stream, line_end_in(encoding, "\r"), line_end_in(encoding)
        self._held = b""

    def read(self, size: int) -> bytes:
        """The next so many bytes of the stream, or fewer; empty at its end alone."""
        while chunk := self._stream.read(size):
            data = self._held + chunk
            # The line feed that belongs to it may come with the next bytes.
            self._held = self._return if data.endswith(self._return) else b""
            data = data.removesuffix(self._return)
            if data:
                return self._with_feeds(data)
        data, self._held = self._held, b""
        return self._with_feeds(data)

    def _with_feeds(self, data: bytes) -> bytes:
        if self._return not in data:
            return data
        return data.replace(self._return + self._feed, self._feed).replace(self._return, self._feed)


def lone_return(data: bytes) -> bool:
    """Whether a carriage return stands anywhere but before a line feed."""
    return b"\r" in data and data.count(b"\r") != data.count(b"\r\n")


class _InPlace(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **options: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)
        return future


def parsers(*, alone: bool) -> Executor:
    """What parses blocks: a few threads, or the caller's own for a block that is `alone`. Starting threads takes longer
    than parsing a small file."""
    return _InPlace() if alone else ThreadPoolExecutor(THREADS, thread_name_prefix="parse")


def in_order(parse: Callable[[bytes, int], Parsed], blocks: Iterator[bytes]) -> Iterator[Parsed]:
    """What `parse` makes of each block and the number of its first line, on a few threads, in the blocks' order."""
    first = 1
    in_flight: deque[Future[Parsed]] = deque()
    head = list(islice(blocks, 2))
    pool = parsers(alone=len(head) < 2)
    try:
        for block in chain(head, blocks):
            in_flight.append(pool.submit(parse, block, first))
            first += block.count(b"\n")
            if len(in_flight) > THREADS:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def text_table(columns: dict[str, Iterable[str | None]], lines: list[int]) -> pa.Table:
    """A table of text columns and the line numbers of its rows."""
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table(arrays | {"_line": pa.array(lines, pa.int64())})


def _resolve(codec: str, head: bytes) -> tuple[str, bytes]:
    """The codec without a byte order mark of its own, and the head of the file without the mark."""
    if codec == _DECODED:
        return codec, head.removeprefix(codecs.BOM_UTF8)
    if codec in ("utf-16", "utf-32"):
        marks = {
            "utf-16": {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE},
            "utf-32": {"utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE},
        }[codec]
        for name, mark in marks.items():
            if head.startswith(mark):
                return name, head[len(mark) :]
        if head:
            raise PlatformError(
                f"declared {codec}, but it does not start with a byte order mark: say {codec}-le or {codec}-be."
            )
        return codec + "-le", head
    if codec.startswith(("utf-16", "utf-32")):
        return codec, head.removeprefix("\ufeff".encode(codec))
    if head.startswith(_UTF_16_OR_32):
        raise PlatformError(
            f"declared {codec}, but it starts with the byte order mark of UTF-16 ({head[:2].hex(' ').upper()}): "
            "set `encoding: utf-16` or have the file sent as declared."
        )
    if codec in ("utf-8", "utf-8-sig"):
        return "utf-8", head.removeprefix(codecs.BOM_UTF8)
    return codec, head


def _after_first(data: bytes, newline: bytes) -> int:
    """Where the first whole line ends, 0 if none does."""
    found = data.find(newline)
    while found > 0 and found % len(newline):
        found = data.find(newline, found + 1)
    return found + len(newline) if found >= 0 else 0


def _after_last(data: bytes, newline: bytes) -> int:
    """Where the last whole line ends, 0 if none does; in encodings of several bytes a unit, only on whole units."""
    found = data.rfind(newline)
    while found > 0 and found % len(newline):
        found = data.rfind(newline, 0, found + len(newline) - 1)
    return found + len(newline) if found >= 0 and not found % len(newline) else 0


def _transcoded(data: bytes, codec: str) -> bytes:
    if codec == _DECODED or (codec == "utf-8" and data.isascii()):
        return data
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        codecs.register_error("data_platform.mark", _mark)
        return data.decode(codec, "data_platform.mark").encode("utf-8", "surrogateescape")
    return data if codec == "utf-8" else text.encode("utf-8", "surrogateescape")


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return MARK + "".join(f"\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end
