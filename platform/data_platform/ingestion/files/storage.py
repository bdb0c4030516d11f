"""A local folder that files are delivered to: find them, know them by content, open them unpacked.
All that `files` knows of a file system is here, so that a bucket needs only another module like this one.
"""

import fnmatch
import gzip
import hashlib
import io
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from data_platform.errors import PlatformError

HELD_BYTES = 1 << 20
"""Bytes of a file that is read at once; larger ones are streamed."""

_GZIP = b"\x1f\x8b"
_SPOOL_MEMORY = 32 << 20  # bytes of an unpacked file kept in memory before the spool folder is used


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file as it stood when it was found. `path` is relative to the root, with slashes. `linked` tells whether it is
    a symbolic link or lies behind one."""

    path: str
    size: int
    mtime_ns: int
    linked: bool = False
    ctime_ns: int = 0

    @property
    def version(self) -> str:
        """Changes whenever the file is written to or replaced, by one of the same size and time too; the beginning of
        its entry in a position."""
        return f"{self.earlier_version}:{self.ctime_ns}"

    @property
    def earlier_version(self) -> str:
        """What began the entry before it held the time of the file's last change of status."""
        return f"{self.size}:{self.mtime_ns}"


def find(root: Path, pattern: str, stable_for: float) -> list[Delivery]:
    """The files that match, oldest first (by modification, then path), without opening any.

    Left out: hidden files and folders, as in a shell (uploads in progress are often hidden), unless the pattern names
    them, and files modified less than `stable_for` seconds ago. One whose modification lies in the future is not young:
    the clocks differ. Raises PlatformError when there is no such folder.
    """
    if not root.is_dir():
        raise PlatformError(f"The folder {root} does not exist, or it is not a folder. Create it, or mount it.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise PlatformError(f"The folder {root} may not be read by this user. Grant read and search permission.")
    parts = list(PurePosixPath(pattern).parts)
    if parts[-1] == "**":
        parts.append("*")
    hidden = any(part.startswith(".") for part in parts)
    now = time.time()
    found = [
        delivery
        for delivery in _walk(str(root), "", [_matcher(part) for part in parts], hidden=hidden, linked=False)
        if not 0 <= now - delivery.mtime_ns / 1e9 < stable_for
    ]
    # Several `**` may come by one file in several ways.
    return sorted(
        set(found) if parts.count("**") > 1 else found, key=lambda delivery: (delivery.mtime_ns, delivery.path)
    )


Matcher = Callable[[str], object] | None
"""Whether a name matches a part of a pattern; None stands for `**`: any number of folders."""


def is_ended(root: Path, delivery: Delivery, line_end: bytes) -> bool:
    """Whether the file's last line has its end, or nobody can tell: it is empty, packed, or cannot be read."""
    try:
        with (root / delivery.path).open("rb") as file:
            if file.read(len(_GZIP)) in (_GZIP, b""):
                return True
            file.seek(-min(delivery.size, len(line_end)), os.SEEK_END)
            return file.read() == line_end
    except OSError:
        return True


def _matcher(part: str) -> Matcher:
    return None if part == "**" else re.compile(fnmatch.translate(part)).match


def _walk(folder: str, prefix: str, parts: Sequence[Matcher], *, hidden: bool, linked: bool) -> Iterator[Delivery]:
    """Files below a folder that match the parts of a pattern, one part a level. `**` does not follow links to folders:
    they may lead round in circles."""
    matches, rest = parts[0], parts[1:]
    if matches is None:
        yield from _walk(folder, prefix, rest, hidden=hidden, linked=linked)
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # it vanished, or is not ours to read
        return
    with entries:
        for entry in entries:
            name = entry.name
            if (name[0] == "." and not hidden) or (matches is not None and not matches(name)):
                continue
            path = prefix + name
            through = linked or entry.is_symlink()
            if matches is None:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, path + "/", parts, hidden=hidden, linked=through)
            elif rest:
                if entry.is_dir():
                    yield from _walk(entry.path, path + "/", rest, hidden=hidden, linked=through)
            elif entry.is_file():
                try:
                    status = entry.stat()
                except FileNotFoundError:  # it vanished
                    continue
                yield Delivery(path, status.st_size, status.st_mtime_ns, through, status.st_ctime_ns)


def unrecordable(path: str) -> str | None:
    """Why a path cannot stand in a position, or None if it can."""
    if not path.isascii() and any("\ud800" <= character <= "\udfff" for character in path):
        return "its name holds bytes that are not UTF-8; rename it"
    return None


def leads_out(root: Path, delivery: Delivery) -> bool:
    """Whether the file is, or lies behind, a link to somewhere outside the root."""
    return delivery.linked and not (root / delivery.path).resolve().is_relative_to(root.resolve())


def exists(root: Path, delivery: Delivery) -> bool:
    """Whether there is a file of that path, changed or not."""
    return (root / delivery.path).exists()


def held(root: Path, delivery: Delivery) -> bytes | None:
    """The bytes of a file that is small enough to be held in memory, so that it is opened once; else None."""
    return (root / delivery.path).read_bytes() if delivery.size <= HELD_BYTES else None


def sha256(root: Path, delivery: Delivery, content: bytes | None = None) -> str:
    """The hash of a file's bytes as they were delivered, packed or not; of `content` where it is held."""
    if content is not None:
        return hashlib.sha256(content).hexdigest()
    with (root / delivery.path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(root: Path, delivery: Delivery) -> bool:
    """Whether the file is no longer the one that was found."""
    try:
        status = (root / delivery.path).stat()
    except FileNotFoundError:
        return True
    found = Delivery(delivery.path, status.st_size, status.st_mtime_ns, ctime_ns=status.st_ctime_ns)
    return found.version != delivery.version


@contextmanager
def unpacked(
    root: Path, delivery: Delivery, spool: Path | None, most: int, content: bytes | None = None
) -> Iterator[BinaryIO]:
    """A seekable stream of the file's content, from memory where it is held. Gzip, known by its first bytes, is
    unpacked whole first (beyond 32 MiB into a temporary file in `spool`), so that a truncated one is found out before
    any of its rows is delivered.

    Raises PlatformError when it is damaged, is named `.gz` and is none, or holds more than `most` bytes.
    """
    with (root / delivery.path).open("rb") if content is None else io.BytesIO(content) as file:
        start = file.read(len(_GZIP))
        file.seek(0)
        if start != _GZIP:
            if start and delivery.path.lower().endswith(".gz"):
                raise PlatformError(f"it is named .gz but does not start like gzip ({start.hex(' ')}, not 1f 8b).")
            yield file
            return
        if spool:
            spool.mkdir(parents=True, exist_ok=True)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, dir=str(spool) if spool else None) as plain:
            try:
                with gzip.open(file) as stream:
                    while block := stream.read(1 << 20):
                        if plain.tell() + len(block) > most:
                            raise PlatformError(
                                f"{delivery.size:,} bytes of gzip expand to more than {most:,}, the limit "
                                "`max_unpacked` of the table. If the file is meant to be that large, raise it in "
                                "defs.yaml; the spool folder must have room for it."
                            )
                        plain.write(block)
            except EOFError as error:
                raise PlatformError(f"gzip is cut off after {file.tell():,} bytes. Have it sent again.") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise PlatformError(
                    f"gzip is damaged near byte {file.tell():,}: {error}. Have it sent again."
                ) from error
            plain.seek(0)
            yield cast(BinaryIO, plain)
