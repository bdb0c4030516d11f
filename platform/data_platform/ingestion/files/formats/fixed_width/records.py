"""From the bytes of a fixed-width file to its records, by lines, by their length, or by the length before each. What
is in a record is not looked at.
"""

import codecs
import struct
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import BinaryIO

import polars as pl

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.fixed_width.options import FixedWidth
from data_platform.ingestion.files.formats.text import BLOCK, STATEFUL, Reject, good_lines, utf8_blocks

SCHEMA = {"text": pl.String, "data": pl.Binary, "_line": pl.Int64}
"""What records are given as. `text` is null where an encoding has characters of several bytes and records are no lines:
their fields are then decoded one by one. `data` is null where records are lines."""

ROWS = 50_000
"""Records that are taken at a time, at most; of long ones as many as make a block."""

UNDECODED = "\ufffd"
"""Stands in `text` for a byte that is no character."""


def records(options: FixedWidth, stream: BinaryIO) -> Iterator[tuple[pl.DataFrame, list[Reject]]]:
    """Records in the order of the file, some thousands at a time, and lines that cannot be decoded. Raises
    PlatformError for a file that cannot be cut into records: it is cut off, or written otherwise."""
    if options.records == "lines":
        first = 1
        for block in utf8_blocks(stream, options.encoding):
            yield _after_header(options, *good_lines(block, first, options.encoding))
            first += block.count(b"\n")
        return
    number = 1
    for chunk in _fixed(options, stream) if options.records == "fixed" else _sized(options, stream):
        texts: list[str | None] = [None] * len(chunk)
        if one_byte(options.encoding):
            whole = b"".join(chunk).decode(options.encoding, "replace")  # far faster than one by one
            ends = accumulate(map(len, chunk))
            texts = [whole[end - len(one) : end] for one, end in zip(chunk, ends, strict=True)]
        columns = {"text": texts, "data": chunk, "_line": range(number, number + len(chunk))}
        yield _after_header(options, pl.DataFrame(columns, SCHEMA), [])
        number += len(chunk)


def _after_header(options: FixedWidth, found: pl.DataFrame, rejects: list[Reject]) -> tuple[pl.DataFrame, list[Reject]]:
    if options.header:
        found = found.filter(pl.col("_line") > options.header)
        rejects = [reject for reject in rejects if reject.line > options.header]
    return found, rejects


@cache
def one_byte(encoding: str) -> bool:
    """Whether every character of an encoding has one byte."""
    if codecs.lookup(encoding).name in STATEFUL:
        return False
    pairs = (bytes([first, second]) for first in range(128, 256) for second in (0x40, 0x80, 0xA1))
    return all(len(pair.decode(encoding, "replace")) == 2 for pair in pairs) and len(b"\0\0".decode(encoding)) == 2


def _fixed(options: FixedWidth, stream: BinaryIO) -> Iterator[list[bytes]]:
    length = options.bytes_of_record()
    begin = stream.tell()
    size = stream.seek(0, 2) - begin
    stream.seek(begin)
    if size % length:
        raise PlatformError(
            f"it has {size:,} bytes, which are {size // length:,} records of {length} and {size % length} bytes more: "
            "it is cut off, or its records have another length."
        )
    most = max(1, min(ROWS, BLOCK // length))
    for at in range(0, size // length, most):
        data = _exactly(stream, min(most, size // length - at) * length)
        yield [data[start : start + length] for start in range(0, len(data), length)]


def _sized(options: FixedWidth, stream: BinaryIO) -> Iterator[list[bytes]]:
    """Records behind descriptor words of four bytes: a length, and two bytes that are zero."""
    least = 4 if options.length_counts_itself else 0
    chunk: list[bytes] = []
    number, place = 1, stream.tell()
    begin = place
    block_end: int | None = None
    while word := stream.read(4):
        if options.records == "bdw" and (block_end is None or place == block_end):
            block_end = place + _block_length(word, place)
            place += 4
            if place == block_end or not (word := stream.read(4)):
                raise _damaged("block descriptor word", word, place, "no record follows it")
        length = _record_length(word, number, place, least) - least + 4
        if block_end is not None and place + length > block_end:
            raise _damaged(f"length of record {number:,}", word, place, f"its block ends at byte {block_end:,}")
        chunk.append(_exactly(stream, length - 4))
        place += length
        number += 1
        if len(chunk) == ROWS or place - begin > BLOCK:
            yield chunk
            chunk, begin = [], place
    if block_end is not None and place != block_end:
        raise PlatformError(f"it is cut off in a block that ends at byte {block_end:,}. Have it sent again.")
    if chunk:
        yield chunk


def _record_length(word: bytes, number: int, place: int, least: int) -> int:
    """What a descriptor word says: `least` is the length of a record of no bytes."""
    if len(word) < 4:
        raise PlatformError(f"it is cut off in the length of record {number:,}, at byte {place:,}. Have it sent again.")
    length, segment, zero = struct.unpack(">HBB", word)
    what = f"length of record {number:,}"
    if segment in (1, 2, 3) and not zero and length >= least:
        raise _damaged(what, word, place, "the record is spanned (RECFM=VS, VBS), which is not read")
    if segment or zero or length < least:
        raise _damaged(what, word, place, f"a length of {least} or more and two zero bytes are expected")
    return int(length)


def _block_length(word: bytes, place: int) -> int:
    """The length of a block: 15 bits, or 31 of an extended one."""
    if len(word) < 4:
        raise PlatformError(f"it is cut off in the length of a block, at byte {place:,}. Have it sent again.")
    extended = bool(word[0] & 0x80)
    length = int.from_bytes(word) & 0x7FFFFFFF if extended else int.from_bytes(word[:2])
    if length < 8 or (not extended and word[2:] != b"\0\0"):
        raise _damaged("length of a block", word, place, "a length of 8 or more and two zero bytes are expected")
    return length


def _damaged(what: str, word: bytes, place: int, why: str) -> PlatformError:
    return PlatformError(
        f"the {what}, at byte {place:,}, is {word.hex(' ').upper()}: {why}. It is damaged, was changed on its way (a "
        "transfer as text?), or `records` or `length_counts_itself` should say otherwise."
    )


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes. Raises PlatformError where the file ends before."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    if len(data) < size:
        raise PlatformError(f"it is cut off: its last record lacks {size - len(data):,} bytes. Have it sent again.")
    return data
