"""Avro: its options. Its library takes a tenth of a second to load, so the reader is loaded when a file is read."""

from collections.abc import Iterator
from typing import BinaryIO, Literal

from pydantic import Field

from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import Parsed
from data_platform.ingestion.files.formats.typed import TypedFormat
from data_platform.ingestion.source import MAX_COLUMNS


class Avro(TypedFormat):
    """Object container files of Apache Avro, with the types that their schema says."""

    type: Literal["avro"] = Field(description="Which kind it is.")


def read(options: Avro, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001 - as its neighbours
    """Rows, block by block. Raises PlatformError if the file is damaged or cut off, or its codec is unknown."""
    from data_platform.ingestion.files.formats.avro import reader

    return reader.read(stream, max_columns)


FORMAT = FileFormat(Avro, read)
