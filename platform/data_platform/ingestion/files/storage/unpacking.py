"""What a packed file holds: it is known by its first bytes, and unpacked whole before any of its rows is delivered."""

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from data_platform.errors import PlatformError

SPOOL_MEMORY = 32 << 20
"""Bytes of a file kept in memory before the spool folder is used."""

_GZIP = b"\x1f\x8b"


def is_packed(file: BinaryIO) -> bool:
    """Whether a file begins as a packed one; it is left somewhere else."""
    file.seek(0)
    return file.read(len(_GZIP)) == _GZIP


def spooled(spool: Path | None) -> BinaryIO:
    """An empty temporary file that is in memory while it is small, and gone once it is closed."""
    if spool:
        spool.mkdir(parents=True, exist_ok=True)
    made = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY, dir=str(spool) if spool else None)  # noqa: SIM115
    return cast(BinaryIO, made)


@contextmanager
def unpacked(file: BinaryIO, path: str, size: int, spool: Path | None, most: int) -> Iterator[BinaryIO]:
    """A seekable stream of what a file of `size` bytes holds: of the file itself where it is not packed. Gzip, known by
    its first bytes, is unpacked whole first (beyond 32 MiB into a temporary file in `spool`), so that a truncated one
    is found out before any of its rows is delivered.

    Raises PlatformError when it is damaged, is named `.gz` and is none, or holds more than `most` bytes.
    """
    start = file.read(len(_GZIP))
    file.seek(0)
    if start != _GZIP:
        if start and path.lower().endswith(".gz"):
            raise PlatformError(f"it is named .gz but does not start like gzip ({start.hex(' ')}, not 1f 8b).")
        yield file
        return
    with spooled(spool) as plain:
        try:
            with gzip.open(file) as stream:
                while block := stream.read(1 << 20):
                    if plain.tell() + len(block) > most:
                        raise PlatformError(
                            f"{size:,} bytes of gzip expand to more than {most:,}, the limit "
                            "`max_unpacked` of the table. If the file is meant to be that large, raise it in "
                            "defs.yaml; the spool folder must have room for it."
                        )
                    plain.write(block)
        except EOFError as error:
            raise PlatformError(f"gzip is cut off after {file.tell():,} bytes. Have it sent again.") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise PlatformError(f"gzip is damaged near byte {file.tell():,}: {error}. Have it sent again.") from error
        plain.seek(0)
        yield plain
