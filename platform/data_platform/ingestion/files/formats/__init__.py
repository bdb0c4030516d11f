"""How the bytes of a file become rows: one module a format, and here the choice among them.
Files, folders, positions and compression are `ingestion.files`'s business; a format sees one stream."""

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, BinaryIO

from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import recognition
from data_platform.ingestion.files.formats.arrow import Arrow
from data_platform.ingestion.files.formats.avro import Avro
from data_platform.ingestion.files.formats.csv import Csv
from data_platform.ingestion.files.formats.excel import Excel
from data_platform.ingestion.files.formats.fixed_width import FixedColumn, FixedWidth
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.json_lines import JsonLines
from data_platform.ingestion.files.formats.orc import Orc
from data_platform.ingestion.files.formats.parquet import Parquet
from data_platform.ingestion.files.formats.registry import formats
from data_platform.ingestion.files.formats.text import Parsed, Reject
from data_platform.ingestion.files.formats.typed import TypedFormat
from data_platform.ingestion.source import MAX_COLUMNS

__all__ = [
    "Arrow",
    "Avro",
    "Csv",
    "Excel",
    "FileFormat",
    "FixedColumn",
    "FixedWidth",
    "Format",
    "FormatOptions",
    "JsonLines",
    "Orc",
    "Parquet",
    "Parsed",
    "Reject",
    "TypedFormat",
    "read",
]

if TYPE_CHECKING:
    Format = FormatOptions
else:
    Format = Annotated[reduce(or_, (one.options for one in formats().values())), Field(discriminator="type")]
    """The options of a format; `type` says which."""


def read(options: FormatOptions, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a seekable stream from where it stands, in order, in bounded memory, of at most so many columns.

    Records that cannot be read are rejects. Raises PlatformError, without the file's name, for what damages the whole,
    and for a file that is of another format: it says of which, and the way out.
    """
    found = formats()[options.type]
    _refuse_another_kind(options, found.type, stream)
    return found.read(options, stream, max_columns)


def _refuse_another_kind(options: FormatOptions, declared: str, stream: BinaryIO) -> None:
    """Raise PlatformError if the stream's beginning shows that it is not what it was declared to be."""
    if isinstance(options, FixedWidth) and options.records != "lines":
        return  # any bytes may begin a record: a length, a packed number, high values
    begin = stream.tell()
    head = stream.read(recognition.LOOKED_AT)
    encoding = getattr(options, "encoding", None)
    if isinstance(options, TypedFormat):
        kind = recognition.other_than(declared, stream, head)
    else:
        kind = recognition.binary_kind(stream, head)
    stream.seek(begin)
    if kind is None and encoding is not None:
        kind = _other_text(options, declared, head, encoding)
    if kind is not None and kind.type != declared:
        raise PlatformError(
            f"declared {recognition.NAMES.get(declared, declared)}, but it is {kind.name}: {kind.way_out}."
        )


def _other_text(options: FormatOptions, declared: str, head: bytes, encoding: str) -> "recognition.Kind | None":
    unmarked = None if encoding.lower().replace("_", "-").startswith(_WIDE) else recognition.unmarked(head)
    if unmarked is not None:
        return recognition.Kind(f"text in {unmarked} without a byte order mark", f"set `encoding: {unmarked}`")
    text = head.decode(encoding, "replace")
    kind = recognition.text_kind(text, declared)
    if (
        kind is None
        and options.record_end() is not None
        and declared != "csv"
        and recognition.only_carriage_returns(text)
    ):
        return recognition.Kind("text whose lines end in carriage returns alone", "have them end in line feeds")
    return kind


_WIDE = ("utf-16", "utf-32", "u16", "u32", "utf16", "utf32")
