"""ORC: options and reader, stripe by stripe, in the types that it has. A stripe is decoded whole (the library gives
nothing less), so memory is that of the largest one.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal

import pyarrow as pa
from pydantic import Field

from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import Parsed
from data_platform.ingestion.files.formats.typed import Kept, TypedFormat, explained, parsed
from data_platform.ingestion.source import MAX_COLUMNS


class Orc(TypedFormat):
    """Apache ORC, with the types that it has."""

    type: Literal["orc"] = Field(description="Which kind it is.")


def read(options: Orc, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001 - as its neighbours
    """Rows, stripe by stripe. Raises PlatformError if the file is damaged or cut off."""
    from pyarrow.orc import ORCFile

    with explained("the ORC file"):
        file = ORCFile(pa.PythonFile(Kept(stream), mode="r"))
        batches = (file.read_stripe(number) for number in range(file.nstripes))
        yield from parsed(batches, file.schema, max_columns)


FORMAT = FileFormat(Orc, read)
