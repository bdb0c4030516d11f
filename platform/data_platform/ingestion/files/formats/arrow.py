"""Arrow IPC: options and reader, of files (Feather 2) and of streams, which are told apart by their first bytes.

A stream that is cut off between two messages looks whole, but for the mark at its end. So a stream is gone through once
before any of it is decoded, and one without the mark is refused.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal

import pyarrow as pa
from pyarrow import ipc
from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import Parsed
from data_platform.ingestion.files.formats.typed import Kept, TypedFormat, explained, parsed, size_of
from data_platform.ingestion.source import MAX_COLUMNS

_MAGIC = b"ARROW1"


class Arrow(TypedFormat):
    """Arrow IPC (a file, also called Feather 2, or a stream), with the types that it has."""

    type: Literal["arrow"] = Field(description="Which kind it is.")


def read(options: Arrow, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001 - as its neighbours
    """Rows, record batch by record batch. Raises PlatformError if the file is damaged or cut off."""
    is_file = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    with explained("the Arrow file" if is_file else "the Arrow stream"):
        if is_file:
            file = ipc.open_file(Kept(stream))
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
            yield from parsed(batches, file.schema, max_columns)
        else:
            _require_end(stream)
            opened = ipc.open_stream(Kept(stream))
            yield from parsed(iter(opened), opened.schema, max_columns)


def _require_end(stream: BinaryIO) -> None:
    """Raise PlatformError if the stream does not end as its writer ends it. It stands at its beginning afterwards."""
    size = size_of(stream)
    messages = ipc.MessageReader.open_stream(pa.PythonFile(Kept(stream), mode="r"))
    end = 0
    try:
        while True:
            messages.read_next_message()
            end = stream.tell()
    except StopIteration:
        pass
    if stream.tell() == end:
        raise PlatformError(
            f"the Arrow stream is cut off after {size:,} bytes: the mark is missing that its writer puts at the end "
            "when it is closed. Have it sent again."
        )
    stream.seek(0)


FORMAT = FileFormat(Arrow, read)
