"""A local folder that files are delivered to: find them, know them by content, open them unpacked.
All that `files` knows of a file system is here, so that a bucket needs only another module like this one.
"""

import gzip
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from data_platform.errors import PlatformError

CONTENT = "#sha256"
"""What follows a path in the position's entry for the content of that file."""

_GZIP = b"\x1f\x8b"
_SPOOL_MEMORY = 32 << 20  # bytes of an unpacked file kept in memory before the spool folder is used


@dataclass(frozen=True)
class Delivery:
    """A file as it stood when it was looked at. `path` is relative to the root, with slashes."""

    path: str
    size: int
    mtime_ns: int

    @property
    def version(self) -> str:
        """Changes whenever the file is written to; the value of its entry in a position."""
        return f"{self.size}:{self.mtime_ns}"


def find(root: Path, pattern: str, stable_for: float) -> list[Delivery]:
    """The files that match, oldest first (by modification, then path), by looking only.

    Left out: hidden files and folders, as in a shell (uploads in progress are often hidden), and files modified less
    than `stable_for` seconds ago. One whose modification lies in the future is not young: the clocks differ.
    Raises PlatformError when there is no such folder.
    """
    if not root.is_dir():
        raise PlatformError(f"The folder {root} does not exist, or it is not a folder. Create it, or mount it.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise PlatformError(f"The folder {root} may not be read by this user. Grant read and search permission.")
    hidden = any(part.startswith(".") for part in Path(pattern).parts)
    found = []
    for path in root.glob(pattern + "/*" if pattern.split("/")[-1] == "**" else pattern):
        relative = path.relative_to(root)
        if not hidden and any(part.startswith(".") for part in relative.parts):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:  # it vanished, or is a dangling link
            continue
        age = time.time() - status.st_mtime
        if path.is_file() and not 0 <= age < stable_for:
            found.append(Delivery(relative.as_posix(), status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda delivery: (delivery.mtime_ns, delivery.path))


def unrecordable(path: str) -> str | None:
    """Why a path cannot stand in a position, or None if it can."""
    if path.endswith(CONTENT):
        return f"names that end in {CONTENT} are the platform's own; rename it"
    if any("\ud800" <= character <= "\udfff" for character in path):
        return "its name holds bytes that are not UTF-8; rename it"
    return None


def leads_out(root: Path, delivery: Delivery) -> bool:
    """Whether the file is, or lies behind, a link to somewhere outside the root."""
    return not (root / delivery.path).resolve().is_relative_to(root.resolve())


def exists(root: Path, delivery: Delivery) -> bool:
    """Whether there is a file of that path, changed or not."""
    return (root / delivery.path).exists()


def sha256(root: Path, delivery: Delivery) -> str:
    """The hash of a file's bytes as they were delivered, packed or not."""
    with (root / delivery.path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(root: Path, delivery: Delivery) -> bool:
    """Whether the file is no longer the one that was looked at."""
    try:
        status = (root / delivery.path).stat()
    except FileNotFoundError:
        return True
    return (status.st_size, status.st_mtime_ns) != (delivery.size, delivery.mtime_ns)


@contextmanager
def unpacked(root: Path, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
    """A seekable stream of the file's content. Gzip, known by its first bytes, is unpacked whole first (beyond 32 MiB
    into a temporary file in `spool`), so that a truncated one is found out before any of its rows is delivered.

    Raises PlatformError when it is damaged, or is named `.gz` and is none.
    """
    with (root / delivery.path).open("rb") as file:
        start = file.read(len(_GZIP))
        file.seek(0)
        if start != _GZIP:
            if start and delivery.path.lower().endswith(".gz"):
                raise PlatformError(f"it is named .gz but does not start like gzip ({start.hex(' ')}, not 1f 8b).")
            yield file
            return
        if spool:
            spool.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, dir=str(spool) if spool else None) as content:
            try:
                with gzip.open(file) as stream:
                    shutil.copyfileobj(stream, content, 1 << 20)
            except EOFError as error:
                raise PlatformError(f"gzip is cut off after {file.tell():,} bytes. Have it sent again.") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise PlatformError(
                    f"gzip is damaged near byte {file.tell():,}: {error}. Have it sent again."
                ) from error
            content.seek(0)
            yield cast(BinaryIO, content)
