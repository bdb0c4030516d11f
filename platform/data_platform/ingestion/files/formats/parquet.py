"""Parquet: options and reader. Row groups are read in batches of rows, page by page, in the types that they have.

Timestamps of 96 bits, which Spark and Impala write, are read in microseconds: as nanoseconds those beyond 2262 would
silently become others. What pages say of themselves (their checksums) is compared.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Literal

from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import Parsed
from data_platform.ingestion.files.formats.typed import ROWS, Kept, TypedFormat, explained, parsed
from data_platform.ingestion.source import MAX_COLUMNS

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

_BUFFER = 1 << 20  # bytes of a column that are read ahead, instead of all that a row group has of it
_AT_ONCE = 16 << 20  # bytes of all columns that are decoded at once, as the file has them unpacked
_ENCRYPTED = b"PARE"


class Parquet(TypedFormat):
    """Apache Parquet, with the types that it has."""

    type: Literal["parquet"] = Field(description="Which kind it is.")


def read(options: Parquet, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001 - as its neighbours
    """Rows in batches. Raises PlatformError if the file is damaged, cut off or encrypted."""
    from pyarrow.parquet import ParquetFile

    encrypted = stream.read(len(_ENCRYPTED)) == _ENCRYPTED
    stream.seek(0)
    if encrypted:
        raise PlatformError(_KEYS)
    try:
        with explained("the Parquet file"):
            file = ParquetFile(
                Kept(stream),
                buffer_size=_BUFFER,
                pre_buffer=False,
                coerce_int96_timestamp_unit="us",
                page_checksum_verification=True,
            )
            batches = file.iter_batches(batch_size=_rows_at_once(file.metadata))
            yield from parsed(batches, file.schema_arrow, max_columns)
    except PlatformError as error:
        if "crypt" in str(error):
            raise PlatformError(_KEYS) from None
        raise


_KEYS = "the Parquet file is encrypted, and keys are not taken. Have it written without encryption."


def _rows_at_once(metadata: "FileMetaData") -> int:
    """Rows of which a batch is made: fewer where they are wide."""
    widest = 1.0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        widest = max(widest, group.total_byte_size / max(1, group.num_rows))
    return int(max(1, min(ROWS, _AT_ONCE // widest)))


FORMAT = FileFormat(Parquet, read)
