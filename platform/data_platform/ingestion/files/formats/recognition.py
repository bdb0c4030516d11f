"""What a file is that is not of the declared format, recognised by its beginning: its name and the way out. Only what
is certain is said; what encoding a text has is not asked here, but whether it is text at all.
"""

import codecs
import re
from io import BytesIO
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile, ZipFile

LOOKED_AT = 64 << 10
"""Bytes at the beginning of a file that tell what it is."""


class Kind(NamedTuple):
    """What a file is: its name in a sentence, what to do about it, and the type of the format that reads it if one
    does."""

    name: str
    way_out: str
    type: str = ""


_CONVERT = "have it exported as CSV or JSON lines"
_UNPACK = "have it packed as a zip archive, a tar or by gzip"
_TYPED = (
    (b"PAR1", "a Parquet file", "parquet"),
    (b"PARE", "a Parquet file", "parquet"),
    (b"ORC", "an ORC file", "orc"),
    (b"Obj\x01", "an Avro file", "avro"),
    (b"ARROW1", "an Arrow file", "arrow"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office before 2007, such as .xls", "excel"),
)
"""Files by their first bytes, and the type of the format that reads each."""

_MAGIC = (
    (b"FEA1", "a Feather file of version 1, which nothing reads any more", "have it written as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "add it as a source of type sql"),
    (b"%PDF-", "a PDF document", _CONVERT),
    (b"\x89PNG", "an image", _CONVERT),
    (b"\xff\xd8\xff", "an image", _CONVERT),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
)
_OFFICE = (
    ("xl/", "an Excel workbook (.xlsx)", "excel"),
    ("word/", "a Word document (.docx)", ""),
    ("ppt/", "a PowerPoint document (.pptx)", ""),
)
_MESSAGE = b"\xff\xff\xff\xff"  # what a message of an Arrow stream begins with
NAMES = {
    "csv": "CSV",
    "fixed_width": "fixed width",
    "json_lines": "JSON lines",
    "json": "JSON",
    "xml": "XML",
    "log": "a log",
    "logfmt": "logfmt",
    "w3c": "a log of the W3C's extended format",
    "yaml": "YAML",
    "container_log": "a container's log",
    "journal": "an export of the journal",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "avro": "Avro",
    "orc": "ORC",
    "excel": "Excel",
}
"""What messages call a format, by its type."""
_ARRAY = re.compile(r"\s*\[\s*\{\s*\"(?:[^\"\\]|\\.)*\"\s*:")
_OBJECT = re.compile(r"\s*\{\s*\"(?:[^\"\\]|\\.)*\"\s*:")
_PRETTY = re.compile(r"\s*\{\s*\n\s*\"(?:[^\"\\]|\\.)*\"\s*:")


def binary_kind(stream: BinaryIO, head: bytes) -> Kind | None:
    """What a file is that is no text, and what to do about it; None if it may be text. `stream` is only looked into
    where the beginning does not tell, and may be left anywhere."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _packed(stream)
    if head.startswith(_MESSAGE) and head[4:8].strip(b"\0"):
        return _of_type("an Arrow stream", "arrow")
    for magic, name, type_ in _TYPED:
        if head.startswith(magic):
            return _of_type(name, type_)
    return next((Kind(name, way_out) for magic, name, way_out in _MAGIC if head.startswith(magic)), None)


def _of_type(name: str, type_: str) -> Kind:
    return Kind(name, f"set `format: {{type: {type_}}}`" if type_ else _CONVERT, type_)


def other_than(declared: str, stream: BinaryIO, head: bytes) -> Kind | None:
    """What a file is that was declared to be of a format that has types, and is not; None if it seems to be."""
    if (kind := binary_kind(stream, head)) is not None:
        return None if kind.type == declared or (declared == "excel" and kind.name == _CUT_ZIP) else kind
    text = head.decode("utf-8", "replace")
    if b"\0" in head or text.count("\ufffd") > 1:
        return Kind(f"none (it begins with {head[:8].hex(' ')})", "have it sent again, or declare what it is")
    if (found := text_kind(text, declared)) is not None:
        return found
    return Kind(f"text ({text.strip().splitlines()[0][:40]!r})" if text.strip() else "blank", _DECLARE)


_CUT_ZIP = "a zip archive, cut off or damaged"
_DECLARE = "if that is meant, set `format: {type: csv}` or what it is"


def _packed(stream: BinaryIO) -> Kind:
    stream.seek(0)
    try:
        with ZipFile(stream if stream.seekable() else BytesIO(stream.read())) as archive:
            names = archive.namelist()
    except (BadZipFile, NotImplementedError, OSError, ValueError):
        return Kind(_CUT_ZIP, "have it sent again")
    for prefix, name, type_ in _OFFICE:
        if any(one.startswith(prefix) for one in names):
            return _of_type(name, type_)
    if "mimetype" in names and "content.xml" in names:
        return _of_type("an OpenDocument file (.ods, .odt)", "excel")
    holds = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return Kind(f"a zip archive of {len(names)} file{'s' * (len(names) != 1)} ({holds})", _UNPACK)


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


JSON = Kind("JSON of several lines an object", "set `format: {type: json, rows: PATH}`", "json")
"""What is no JSON lines, but a document."""


def text_kind(text: str, declared: str) -> Kind | None:
    """What a text is that its beginning shows to be of another format than of the type `declared`, and what to do
    about it; None if it may be what is expected."""
    start = text.lstrip("\ufeff \t\r\n")[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        look = "look at it in a browser: it may be an error or a login page. Have the data sent instead"
        return Kind("an HTML page", look)
    if start.startswith("<?xml"):
        return Kind("an XML document", "set `format: {type: xml, rows: NAME_OF_THE_ELEMENT}`", "xml")
    if declared == "yaml":
        return None  # JSON is YAML
    if _ARRAY.match(text):
        # One that is whole on its line is that line's reject, as any other value that is no object.
        first, *more = text.strip().split("\n", 1)
        if declared != "json_lines" or (more and not first.rstrip().endswith("]")):
            return Kind("a JSON array", "set `format: {type: json}`", "json")
    elif _PRETTY.match(text):
        return JSON
    elif _OBJECT.match(text) and declared not in ("json", "json_lines"):
        return Kind("JSON lines", "set `format: {type: json_lines}`", "json_lines")
    return None


def only_carriage_returns(text: str) -> bool:
    """Whether there are several lines, each ended by a carriage return alone."""
    return "\n" not in text and "\r" in text.strip("\r")
