"""Object container files of Avro, block by block. What becomes of the types is in `schema`.

That a file is whole is found out first, by a walk from block to block that decodes none of them. One that was cut off
between two blocks cannot be told from a whole one: the format has no mark of its end.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.avro.schema import AvroSchema, column_of, schema_of
from data_platform.ingestion.files.formats.text import Parsed, Reject
from data_platform.ingestion.files.formats.typed import ROWS, column_names, size_of, to_json
from data_platform.ingestion.source import MAX_COLUMNS

VALUE = "value"
"""The column of files whose records are no records but single values."""

LARGEST_BLOCK = 256 << 20
"""Bytes in a block at most, unpacked: a block is decoded whole."""

_KEPT = 1000  # characters of a record that is rejected
_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": 16}},
        ],
    }
)


@dataclass(frozen=True)
class _Block:
    """Where the bytes of a block are, and how many records it holds."""

    start: int
    size: int
    records: int


def read(stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Rows, block by block. A record with a value that does not fit the type of its field is a reject. Raises
    PlatformError if the file is damaged or cut off, or its schema or codec is unknown."""
    size = size_of(stream)
    header: Any
    try:
        header = fastavro.schemaless_reader(stream, _HEADER, None)
        text = header["meta"]["avro.schema"].decode()
    except Exception as error:
        raise _damaged("its header cannot be read") from error
    codec = header["meta"].get("avro.codec", b"null").decode("utf-8", "replace")
    if codec not in _CODECS:
        raise PlatformError(f"the Avro file is packed by {codec}, which is not known. Known: {', '.join(_CODECS)}.")
    schema = schema_of(text, VALUE)
    if isinstance(schema, str):
        raise PlatformError(f"the Avro file cannot be read: {schema}.")
    column_names(list(schema.columns), max_columns)
    blocks = list(_blocks(stream, header["sync"], size))
    number = 0
    for block in blocks:
        stream.seek(block.start)
        for records in _records(_unpacked(codec, stream.read(block.size)), block, schema):
            yield _parsed(schema, records, number + 1)
            number += len(records)
    if not number:
        yield _parsed(schema, [], 1)


def _damaged(what: str) -> PlatformError:
    return PlatformError(f"the Avro file is damaged or cut off: {what}. Have it sent again.")


def _blocks(stream: BinaryIO, sync: bytes, size: int) -> Iterator[_Block]:
    """The blocks of a stream, from where it stands. Raises PlatformError if one does not end as it should."""
    while (at := stream.tell()) < size:
        records, length = _long(stream), _long(stream)
        start = stream.tell()
        if records is None or length is None or records < 0 or not 0 <= length <= size - start - len(sync):
            raise _damaged(f"the block at byte {at:,} does not end within the file")
        stream.seek(start + length)
        if stream.read(len(sync)) != sync:
            raise _damaged(f"the block at byte {at:,} does not end in the mark of the file")
        yield _Block(start, length, records)


def _long(stream: BinaryIO) -> int | None:
    """A number in Avro's zigzag form of variable length; None if there is none."""
    value, shift = 0, 0
    while shift < 70 and (byte := stream.read(1)):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
    return None


def _records(content: bytes, block: _Block, schema: AvroSchema) -> Iterator[list[Any]]:
    """The records of a block, a few at a time."""
    stream, records = io.BytesIO(content), list[Any]()
    for count in range(1, block.records + 1):
        try:
            records.append(fastavro.schemaless_reader(stream, schema.schema, None))
        except Exception as error:
            what = f"record {count:,} of the block at byte {block.start:,} is none of its schema"
            raise _damaged(f"{what} ({shortened(str(error) or type(error).__name__, 200)})") from error
        if len(records) == ROWS:
            yield records
            records = []
    if stream.tell() != len(content):
        raise _damaged(f"the block at byte {block.start:,} holds more than its {block.records:,} records")
    if records:
        yield records


def _parsed(schema: AvroSchema, records: Sequence[Any], first: int) -> Parsed:
    numbers = range(first, first + len(records))
    bad: dict[int, str] = {}
    columns = {}
    for name, column in schema.columns.items():
        values = [record[name] for record in records] if schema.is_record else records
        columns[name] = column_of(name, column, values, numbers, bad)
    rows = pa.table({**columns, "_line": pa.array(numbers, pa.int64())})
    if not bad:
        return Parsed(rows)
    rejects = [Reject(one, shortened(to_json(records[one - first]), _KEPT), bad[one]) for one in sorted(bad)]
    return Parsed(rows.filter(pa.array([one not in bad for one in numbers])), rejects)


def _unpacked(codec: str, content: bytes) -> bytes:
    try:
        unpacked = _CODECS[codec](content)
    except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, IndexError) as error:
        raise _damaged(f"a block is not what {codec} writes ({shortened(str(error), 200)})") from error
    if len(unpacked) > LARGEST_BLOCK:
        raise _too_large()
    return unpacked


def _too_large() -> PlatformError:
    return PlatformError(
        f"the Avro file has a block of more than {LARGEST_BLOCK >> 20} MiB, unpacked. Have smaller ones written."
    )


def _snappy(content: bytes) -> bytes:
    packed, checksum = content[:-4], content[-4:]
    size = _long_of_snappy(packed)
    if size > LARGEST_BLOCK:
        raise _too_large()
    unpacked = bytes(pa.decompress(packed, size, codec="snappy"))
    if zlib.crc32(unpacked).to_bytes(4, "big") != checksum:
        raise ValueError("its checksum differs")
    return unpacked


def _long_of_snappy(packed: bytes) -> int:
    """How many bytes packed ones hold, which they begin with."""
    size = 0
    for place in range(5):
        size |= (packed[place] & 0x7F) << 7 * place
        if packed[place] < 0x80:
            return size
    raise ValueError("it does not begin with its size")


def _lz4(content: bytes) -> bytes:
    size = int.from_bytes(content[:4], "little")
    if size > LARGEST_BLOCK:
        raise _too_large()
    return bytes(pa.decompress(content[4:], size, codec="lz4_raw"))


def _zstandard(content: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        return bytes(stream.read(LARGEST_BLOCK + 1))


_CODECS: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": lambda content: zlib.decompressobj(-15).decompress(content, LARGEST_BLOCK + 1),
    "bzip2": lambda content: bz2.BZ2Decompressor().decompress(content, LARGEST_BLOCK + 1),
    "xz": lambda content: lzma.LZMADecompressor().decompress(content, LARGEST_BLOCK + 1),
    "snappy": _snappy,
    "zstandard": _zstandard,
    "lz4": _lz4,
}
"""What unpacks a block, by the name of the codec in the file's header."""
