"""How the bytes of a file become rows: one module a format, and here the choice among them.
Files, folders, positions and compression are `ingestion.files`'s business; a format sees one stream."""

from collections.abc import Iterator
from typing import Annotated, BinaryIO

from pydantic import Field

from data_platform.ingestion.files.formats import csv, fixed_width, json_lines
from data_platform.ingestion.files.formats.csv import Csv
from data_platform.ingestion.files.formats.fixed_width import FixedColumn, FixedWidth
from data_platform.ingestion.files.formats.json_lines import JsonLines
from data_platform.ingestion.files.formats.text import Parsed, Reject

__all__ = ["Csv", "FixedColumn", "FixedWidth", "Format", "JsonLines", "Parsed", "Reject", "read"]

Format = Annotated[Csv | FixedWidth | JsonLines, Field(discriminator="type")]
"""The options of a format; `type` says which."""


def read(options: Format, stream: BinaryIO) -> Iterator[Parsed]:
    """Parse a seekable stream from where it stands, in order, in bounded memory.

    Records that cannot be read are rejects. Raises PlatformError, without the file's name, for what damages the whole.
    """
    match options:
        case Csv():
            return csv.read(options, stream)
        case FixedWidth():
            return fixed_width.read(options, stream)
        case JsonLines():
            return json_lines.read(options, stream)
