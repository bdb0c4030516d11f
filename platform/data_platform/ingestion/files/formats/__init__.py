"""How the bytes of a file become rows: one module a format, and here the choice among them.
Files, folders, positions and compression are `ingestion.files`'s business; a format sees one stream."""

from collections.abc import Iterator
from typing import Annotated, BinaryIO

from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import (
    arrow,
    avro,
    csv,
    excel,
    fixed_width,
    json_lines,
    orc,
    parquet,
    recognition,
)
from data_platform.ingestion.files.formats.arrow import Arrow
from data_platform.ingestion.files.formats.avro import Avro
from data_platform.ingestion.files.formats.csv import Csv
from data_platform.ingestion.files.formats.excel import Excel
from data_platform.ingestion.files.formats.fixed_width import FixedColumn, FixedWidth
from data_platform.ingestion.files.formats.json_lines import JsonLines
from data_platform.ingestion.files.formats.orc import Orc
from data_platform.ingestion.files.formats.parquet import Parquet
from data_platform.ingestion.files.formats.text import Parsed, Reject
from data_platform.ingestion.files.formats.typed import TypedFormat
from data_platform.ingestion.source import MAX_COLUMNS

__all__ = [
    "Arrow",
    "Avro",
    "Csv",
    "Excel",
    "FixedColumn",
    "FixedWidth",
    "Format",
    "JsonLines",
    "Orc",
    "Parquet",
    "Parsed",
    "Reject",
    "TypedFormat",
    "read",
]

Format = Annotated[Csv | FixedWidth | JsonLines | Parquet | Arrow | Avro | Orc | Excel, Field(discriminator="type")]
"""The options of a format; `type` says which."""


def read(options: Format, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a seekable stream from where it stands, in order, in bounded memory, of at most so many columns.

    Records that cannot be read are rejects. Raises PlatformError, without the file's name, for what damages the whole,
    and for a file that is of another format: it says of which, and the way out.
    """
    _refuse_another_kind(options, stream)
    match options:
        case Csv():
            return csv.read(options, stream, max_columns)
        case FixedWidth():
            return fixed_width.read(options, stream)
        case JsonLines():
            return json_lines.read(options, stream, max_columns)
        case Parquet():
            return parquet.read(options, stream, max_columns)
        case Arrow():
            return arrow.read(options, stream, max_columns)
        case Avro():
            return avro.read(options, stream, max_columns)
        case Orc():
            return orc.read(options, stream, max_columns)
        case Excel():
            return excel.read(options, stream, max_columns)


def _refuse_another_kind(options: Format, stream: BinaryIO) -> None:
    """Raise PlatformError if the stream's beginning shows that it is not what it was declared to be."""
    begin = stream.tell()
    head = stream.read(recognition.LOOKED_AT)
    if isinstance(options, TypedFormat):
        kind = recognition.other_than(options.type, stream, head)
        stream.seek(begin)
        if kind is not None:
            raise PlatformError(f"declared {recognition.NAMES[options.type]}, but it is {kind[0]}: {kind[1]}.")
        return
    declared = options.type.replace("_", " ").replace("csv", "CSV").replace("json", "JSON")
    kind = recognition.binary_kind(stream, head)
    stream.seek(begin)
    encoding = None if options.encoding.lower().replace("_", "-").startswith(_WIDE) else recognition.unmarked(head)
    if kind is None and encoding is not None:
        kind = f"text in {encoding} without a byte order mark", f"set `encoding: {encoding}`"
    if kind is None:
        text = head.decode(options.encoding if encoding is None else "utf-8", "replace")
        kind = recognition.text_kind(text, json_lines=isinstance(options, JsonLines))
        returns = not isinstance(options, Csv) and recognition.only_carriage_returns(text)
        if kind is None and returns:
            kind = "text whose lines end in carriage returns alone", "have them end in line feeds"
    if kind is not None:
        raise PlatformError(f"declared {declared}, but it is {kind[0]}: {kind[1]}.")


_WIDE = ("utf-16", "utf-32", "u16", "u32", "utf16", "utf32")
