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
_UNPACK = "unpack it before it is delivered, or have it packed by gzip"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", _CONVERT),
    (b"ORC", "an ORC file", _CONVERT),
    (b"Obj\x01", "an Avro file", _CONVERT),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"SQLite format 3\0", "an SQLite database", "add it as a source of type sql"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office before 2007, such as .xls", _CONVERT),
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
    ("xl/", "an Excel workbook (.xlsx)"),
    ("word/", "a Word document (.docx)"),
    ("ppt/", "a PowerPoint document (.pptx)"),
)
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
    return next(((kind, way_out) for magic, kind, way_out in _MAGIC if head.startswith(magic)), None)


def _packed(stream: BinaryIO) -> tuple[str, str]:
    stream.seek(0)
    try:
        with ZipFile(stream if stream.seekable() else BytesIO(stream.read())) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError, ValueError):
        return "a zip archive, cut off or damaged", "have it sent again, unpacked or packed by gzip"
    for prefix, kind in _OFFICE:
        if any(name.startswith(prefix) for name in names):
            return kind, _CONVERT
    if "mimetype" in names and "content.xml" in names:
        return "an OpenDocument file (.ods, .odt)", _CONVERT
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
