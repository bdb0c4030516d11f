"""What a file is that is not of the declared format, recognised by its beginning: its name and the way out. Only what
is certain is said; what encoding a text has is not asked here, but whether it is text at all.
"""

import codecs
import re
from io import BytesIO
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

LOOKED_AT = 64 << 10
"""Bytes at the beginning of a file that tell what it is."""

_CONVERT = "have it exported as CSV or JSON lines"
_TYPED = "set `format: {type: %s}`"
_UNPACK = "unpack it before it is delivered, or have it packed by gzip"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", _TYPED % "parquet"),
    (b"PARE", "a Parquet file", _TYPED % "parquet"),
    (b"ORC", "an ORC file", _TYPED % "orc"),
    (b"Obj\x01", "an Avro file", _TYPED % "avro"),
    (b"ARROW1", "an Arrow file", _TYPED % "arrow"),
    (b"FEA1", "a Feather file of version 1, which nothing reads any more", "have it written as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "add it as a source of type sql"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office before 2007, such as .xls", _TYPED % "excel"),
    (b"%PDF-", "a PDF document", _CONVERT),
    (b"\x89PNG", "an image", _CONVERT),
    (b"\xff\xd8\xff", "an image", _CONVERT),
    (b"BZh", "packed by bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "packed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x1f\x8b", "packed by gzip twice", "have it packed once"),
)
_OFFICE = (
    ("xl/", "an Excel workbook (.xlsx)", _TYPED % "excel"),
    ("word/", "a Word document (.docx)", _CONVERT),
    ("ppt/", "a PowerPoint document (.pptx)", _CONVERT),
)
_MESSAGE = b"\xff\xff\xff\xff"  # what a message of an Arrow stream begins with
NAMES = {"parquet": "Parquet", "arrow": "Arrow", "avro": "Avro", "orc": "ORC", "excel": "Excel"}
"""Formats that have types, by what `format` calls them."""
_ARRAY = re.compile(r"\s*\[\s*\{\s*\"(?:[^\"\\]|\\.)*\"\s*:")
_OBJECT = re.compile(r"\s*\{\s*\"(?:[^\"\\]|\\.)*\"\s*:")
_PRETTY = re.compile(r"\s*\{\s*\n\s*\"(?:[^\"\\]|\\.)*\"\s*:")


def binary_kind(stream: BinaryIO, head: bytes) -> tuple[str, str] | None:
    """What a file is that is no text, and what to do about it; None if it may be text. `stream` is only looked into
    where the beginning does not tell, and may be left anywhere."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _packed(stream)
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head.startswith(_MESSAGE) and head[4:8].strip(b"\0"):
        return "an Arrow stream", _TYPED % "arrow"
    return next(((kind, way_out) for magic, kind, way_out in _MAGIC if head.startswith(magic)), None)


def typed_format(stream: BinaryIO, head: bytes) -> str | None:
    """The format that has types, by the name that `format` gives it, which a file is of; None if it is of another."""
    kind = binary_kind(stream, head)
    return next((name for name in NAMES if kind is not None and kind[1] == _TYPED % name), None)


def other_than(declared: str, stream: BinaryIO, head: bytes) -> tuple[str, str] | None:
    """What a file is that was declared to be of a format that has types, and is not; None if it seems to be."""
    if typed_format(stream, head) == declared:
        return None
    if (kind := binary_kind(stream, head)) is not None:
        return None if declared == "excel" and kind[0] == _CUT_ZIP else kind
    text = head.decode("utf-8", "replace")
    if b"\0" in head or text.count("\ufffd") > 1:
        return f"none (it begins with {head[:8].hex(' ')})", "have it sent again, or declare what it is"
    if (found := text_kind(text, json_lines=False)) is not None:
        return found
    return f"text ({text.strip().splitlines()[0][:40]!r})" if text.strip() else "blank", _DECLARE


_CUT_ZIP = "a zip archive, cut off or damaged"
_DECLARE = "if that is meant, set `format: {type: csv}` or what it is"


def _packed(stream: BinaryIO) -> tuple[str, str]:
    stream.seek(0)
    try:
        with ZipFile(stream if stream.seekable() else BytesIO(stream.read())) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError, ValueError):
        return _CUT_ZIP, "have it sent again, unpacked or packed by gzip"
    for prefix, kind, way_out in _OFFICE:
        if any(name.startswith(prefix) for name in names):
            return kind, way_out
    if "mimetype" in names and "content.xml" in names:
        return "an OpenDocument file (.ods, .odt)", _TYPED % "excel"
    holds = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"a zip archive of {len(names)} file{'s' * (len(names) != 1)} ({holds})", _UNPACK


def unmarked(head: bytes) -> str | None:
    """The encoding of a text of two or four bytes a character without byte order mark, None if it is none: every
    second byte of plain text is then a zero, or three of four."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return None
    head = head[: len(head) // 4 * 4]
    if len(head) < 8:
        return None
    zeros = [head[place::4].count(0) / (len(head) / 4) for place in range(4)]
    few, many = 0.1, 0.6
    if min(zeros[1:]) > many and zeros[0] < few:
        return "utf-32-le"
    if min(zeros[:3]) > many and zeros[3] < few:
        return "utf-32-be"
    if min(zeros[1], zeros[3]) > many and max(zeros[0], zeros[2]) < few:
        return "utf-16-le"
    if min(zeros[0], zeros[2]) > many and max(zeros[1], zeros[3]) < few:
        return "utf-16-be"
    return None


def text_kind(text: str, *, json_lines: bool) -> tuple[str, str] | None:
    """What a text is that is neither delimited nor of fixed width, nor JSON lines where these are expected, and what
    to do about it; None if it may be what is expected."""
    start = text.lstrip("\ufeff \t\r\n")[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page", "look at it in a browser: it may be an error or a login page. Have the data sent instead"
    if start.startswith("<?xml"):
        return "an XML document", _CONVERT
    if _ARRAY.match(text):
        # One that is whole on its line is that line's reject, as any other value that is no object.
        first, *more = text.strip().split("\n", 1)
        if not json_lines or (more and not first.rstrip().endswith("]")):
            return "a JSON array", "have each object written on a line of its own, as `jq -c '.[]' FILE` does"
    elif _PRETTY.match(text):
        return "JSON of several lines an object", "have each object written on one line, as `jq -c . FILE` does"
    elif not json_lines and _OBJECT.match(text):
        return "JSON lines", "set `format: {type: json_lines}`"
    return None


def only_carriage_returns(text: str) -> bool:
    """Whether there are several lines, each ended by a carriage return alone."""
    return "\n" not in text and "\r" in text.strip("\r")
