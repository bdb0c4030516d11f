"""What single files are compressed by: gzip, bzip2, xz and lzma, zstd, lz4, snappy. Each is known by its first bytes,
whatever the file's name, and unpacked block by block. What becomes of the blocks is `unpacking`'s business, archives of
several files are in `archives`.

Several compressed streams one after the other are one file, as the command line tools of each have it; anything else
after the end of one is damage. A stream that needs more memory than a few hundred MiB to be unpacked is refused.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from data_platform.errors import PlatformError, shortened

BLOCK = 1 << 20
"""Bytes that are read, or unpacked, at a time."""

XZ_MEMORY = 192 << 20
"""Memory that the unpacking of xz may take: `xz -9` asks for 65 MiB. Arrow refuses windows of zstd beyond 128 MiB."""

LOOKED_AT = 512
"""Bytes at the beginning of a file that tell by what it is packed."""

EXTRA = "snappy"
"""The extra that brings the reader of framed snappy."""


@dataclass(frozen=True)
class Compression:
    """A way to compress: its name in messages, how it begins, the ends of names that promise it, and its reader, from a
    stream at its beginning to blocks."""

    name: str
    begins: bytes
    suffixes: tuple[str, ...]
    blocks: Callable[[BinaryIO], Iterator[bytes]]


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as stream:
        while block := stream.read(BLOCK):
            yield block


def _streams(file: BinaryIO, begin: Callable[[], Any], padding: bytes = b"") -> Iterator[bytes]:
    """The blocks of all streams of a file. `begin` makes the decompressor of one, which the standard library's own
    readers of files would not: they take damage after the first stream for its end."""
    stream, waiting = begin(), b""
    while True:
        if stream.eof:
            waiting = (stream.unused_data or file.read(BLOCK)).lstrip(padding) if padding else stream.unused_data
            waiting = waiting or file.read(BLOCK)
            while padding and waiting and not waiting.strip(padding):
                waiting = file.read(BLOCK)
            if not waiting:
                return
            stream = begin()
        elif stream.needs_input and not waiting:
            waiting = file.read(BLOCK)
            if not waiting:
                raise EOFError
        block = stream.decompress(waiting, max_length=BLOCK)
        waiting = b""
        if block:
            yield block


def _bzip2(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, bz2.BZ2Decompressor)


def _xz(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\0")


def _lzma(file: BinaryIO) -> Iterator[bytes]:
    return _streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY))


def _arrow(codec: str) -> Callable[[BinaryIO], Iterator[bytes]]:
    def blocks(file: BinaryIO) -> Iterator[bytes]:
        stream = pa.CompressedInputStream(pa.PythonFile(_Unclosed(file), mode="r"), codec)
        while block := stream.read(BLOCK):
            yield block

    return blocks


class _Unclosed:
    """A stream that Arrow may read, but not close with its own."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self.seek = file.read, file.tell, file.seek

    def close(self) -> None:
        """Nothing."""


_SNAPPY = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_BLOCK = 64 << 10
"""Bytes that a chunk of snappy stands for at most."""


def _snappy(file: BinaryIO) -> Iterator[bytes]:
    """A chunk at a time: a piece of data of its own, whose checksum the library compares."""
    try:
        from cramjam import DecompressionError, snappy
    except ImportError as error:
        raise PlatformError(
            f"it is packed by snappy, whose reader cannot be imported ({error}). Install it where Dagster runs: "
            f"pip install 'data-platform[{EXTRA}]'."
        ) from None
    while head := file.read(4):
        size = int.from_bytes(head[1:], "little")
        chunk = file.read(size)
        if len(head) < 4 or len(chunk) < size:
            raise EOFError
        kind = head[0]
        if kind in (0, 1):
            if size > _SNAPPY_BLOCK * 2:
                raise ValueError(f"a chunk of {size:,} bytes")
            try:
                yield bytes(snappy.decompress(_SNAPPY + head + chunk))
            except DecompressionError as error:
                raise ValueError(str(error)) from None
        elif kind == 0xFF and head + chunk != _SNAPPY:
            raise ValueError("a stream that begins otherwise than snappy")
        elif kind < 0x80:  # beyond it are chunks that may be passed over
            raise ValueError(f"a chunk of a type that is not known ({kind})")


GZIP = Compression("gzip", b"\x1f\x8b", (".gz", ".tgz"), _gzip)
ZSTD = Compression("zstd", b"\x28\xb5\x2f\xfd", (".zst", ".tzst"), _arrow("zstd"))
LZ4 = Compression("lz4", b"\x04\x22\x4d\x18", (".lz4",), _arrow("lz4"))
LZMA = Compression("lzma", b"\x5d\x00\x00", (".lzma",), _lzma)
COMPRESSIONS = (
    GZIP,
    Compression("bzip2", b"BZh", (".bz2", ".tbz2", ".tbz"), _bzip2),
    Compression("xz", b"\xfd7zXZ\0", (".xz", ".txz"), _xz),
    LZMA,
    ZSTD,
    LZ4,
    Compression("snappy", _SNAPPY, (".sz",), _snappy),
)
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
_SKIPPABLE = b"\x2a\x4d\x18"


def compression_of(file: BinaryIO) -> Compression | None:
    """By what a file is compressed, None if by nothing that is known; it is left at its beginning."""
    file.seek(0)
    head = file.read(LOOKED_AT)
    # Frames that may be passed over stand before those of zstd and of lz4, as parallel packers write them.
    skipped = 0
    while head[1:4] == _SKIPPABLE and head[0] >> 4 == 5 and len(head) >= 8:
        skipped += 8 + int.from_bytes(head[4:8], "little")
        file.seek(skipped)
        head = file.read(LOOKED_AT)
    file.seek(0)
    return next((one for one in COMPRESSIONS if head.startswith(one.begins) and _is(one, head)), None)


def _is(found: Compression, head: bytes) -> bool:
    """Whether a beginning that text may have as well is that of a compressed file."""
    if found.name == "bzip2":
        return head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS
    if found is LZMA:
        size = int.from_bytes(head[5:13], "little")
        window = int.from_bytes(head[1:5], "little")
        return len(head) > 13 and window.bit_count() <= 2 and (size == 2**64 - 1 or size < 2**48) and head[13] == 0
    return True


def promised(path: str) -> Compression | None:
    """The compression that a name promises by its end."""
    name = path.lower()
    return next((one for one in COMPRESSIONS if name.endswith(one.suffixes)), None)


def decompressed(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """What a file holds, block by block. Raises PlatformError if it is damaged, cut off, or takes too much memory."""
    name = compression.name
    file.seek(0)
    try:
        yield from compression.blocks(file)
    except EOFError as error:
        raise PlatformError(f"{name} is cut off after {file.tell():,} bytes. Have it sent again.") from error
    except (zlib.error, lzma.LZMAError, ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk
            raise
        said = str(error)
        if "Truncated compressed stream" in said:
            raise PlatformError(f"{name} is cut off after {file.tell():,} bytes. Have it sent again.") from error
        if "emory" in said:
            raise PlatformError(
                f"{name} was packed with a window that takes more memory to unpack than is given for it "
                f"({shortened(said, 100)}). Have it packed without `--long` or a dictionary of its own size."
            ) from error
        raise PlatformError(
            f"{name} is damaged near byte {file.tell():,}: {shortened(said, 200)}. Have it sent again."
        ) from error
