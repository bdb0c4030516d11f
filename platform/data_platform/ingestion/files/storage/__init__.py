"""Where files are delivered to, as `source` sees it: what a storage can do, and what is known of a file in one. Each
kind of storage is a module of its own (`local`, `objects`, `sftp`), what a packed file holds is in `unpacking`.
"""

import errno
import fnmatch
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast, runtime_checkable

from data_platform.errors import TransientError, shortened

logger = logging.getLogger(__name__)

CHANGED = "it changed while it was read; it is read next time. If that repeats, set `stable_for`"


class StorageUnavailableError(TransientError):
    """The storage as a whole does not answer, or lets nobody in: the next file would fare no better."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file as it stood when it was found. `path` is relative to the root, with slashes. `linked` tells whether it is
    a symbolic link or lies behind one. `etag` is what a store of objects calls its content by."""

    path: str
    size: int
    mtime_ns: int
    linked: bool = False
    ctime_ns: int = 0
    etag: str = ""

    @property
    def version(self) -> str:
        """Changes whenever the file is written to or replaced, by one of the same size and time too; the beginning of
        its entry in a position."""
        # A colon would end the field.
        return f"{self.earlier_version}:{self.etag.strip(chr(34)).replace(':', '%3A') or self.ctime_ns}"

    @property
    def earlier_version(self) -> str:
        """What began the entry before it held the time of the file's last change of status."""
        return f"{self.size}:{self.mtime_ns}"


class Storage(Protocol):
    """A folder of files, wherever it lies. All of it may raise PlatformError, and StorageUnavailableError where nothing
    in the folder can be reached."""

    def __str__(self) -> str:
        """The folder as messages name it, without secrets."""

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        """The files that match, oldest first (by modification, then path), without opening any.

        Left out: hidden files and folders, as in a shell (uploads in progress are often hidden), unless the pattern
        names them; files modified less than `stable_for` seconds ago; and paths that sort before `start`. One whose
        modification lies in the future is not young: the clocks differ. Raises PlatformError when there is no such
        folder.
        """

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:
        """Whether the file's last line has its end, or nobody can tell: it is empty, packed, or cannot be read."""

    def leads_out(self, delivery: Delivery) -> bool:
        """Whether the file is, or lies behind, a link to somewhere outside the folder."""

    def exists(self, delivery: Delivery) -> bool:
        """Whether there is a file of that path, changed or not."""

    def opened(self, delivery: Delivery, spool: Path | None) -> AbstractContextManager[BinaryIO]:
        """A seekable stream of the file's bytes as they were delivered. One that is not at hand is brought first, from
        32 MiB on into a temporary file in `spool`. Raises FileNotFoundError if it is gone, and PlatformError if it is
        known at once that it is no longer the one that was found."""

    def changed(self, delivery: Delivery) -> bool:
        """Whether the file is no longer the one that was found, so that what was read of it may be a mixture."""


@runtime_checkable
class Movable(Protocol):
    """A storage whose files may be moved and deleted too."""

    def take(self, delivery: Delivery, target: str | None) -> bool:
        """Move a file to the path `target`, whose folders are made, or delete it. False, and it is left as it is, if
        it is gone or no longer the one that was found. Raises FileExistsError if there is a file of the path `target`,
        and PlatformError or OSError if it cannot be done."""


@runtime_checkable
class Distant(Protocol):
    """A storage each of whose files costs a round trip, and that gives several at once, to several threads."""

    def gives_several(self) -> bool:
        """True."""


class Place(Protocol):
    """Where a folder lies, and how it is reached."""

    def __str__(self) -> str:
        """The folder as messages name it, without secrets."""

    def session(self) -> AbstractContextManager[Storage]:
        """The folder, for as long as the block lasts. Raises PlatformError if it cannot be reached."""


def below(pattern: str) -> str:
    """A pattern of paths below a folder, as `defs.yaml` may have it. Raises ValueError for one that is none."""
    parts = PurePosixPath(pattern).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"{pattern!r} must be a pattern of paths below the source's folder, such as 'web/*.jsonl.gz'")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError(f"in {pattern!r}, '**' must stand alone between slashes, such as '**/*.csv'")
    return pattern


Matcher = Callable[[str], object] | None
"""Whether a name matches a part of a pattern; None stands for `**`: any number of folders."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths: a matcher for each part, and whether hidden names are meant too."""

    parts: tuple[Matcher, ...]
    hidden: bool
    beginning: str
    """What every path that matches begins with."""

    def matches(self, path: str) -> bool:
        """Whether a path matches, as a whole."""
        names = path.split("/")
        if not self.hidden and any(name.startswith(".") for name in names):
            return False
        return _match(names, self.parts)


def pattern_of(text: str) -> Pattern:
    """What a pattern as `defs.yaml` has it means."""
    parts = list(PurePosixPath(text).parts)
    if parts[-1] == "**":
        parts.append("*")
    found = re.search(r"[*?\[]", "/".join(parts))
    return Pattern(
        tuple(None if part == "**" else re.compile(fnmatch.translate(part)).match for part in parts),
        any(part.startswith(".") for part in parts),
        "/".join(parts)[: found.start() if found else None],
    )


def _match(names: Sequence[str], parts: Sequence[Matcher]) -> bool:
    if not parts:
        return not names
    matches, rest = parts[0], parts[1:]
    if matches is None:
        return any(_match(names[skipped:], rest) for skipped in range(len(names)))
    return bool(names and matches(names[0])) and _match(names[1:], rest)


Looks = tuple[tuple[Matcher, ...], ...]
"""What is looked for in a folder: for each way in which a pattern led there, the parts of it that are left."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an entry of a folder is by its name: whether a file of that name is meant, and what is looked for in a
    folder of that name; in a link to a folder it is less, for `**` does not follow links, which may lead round in
    circles."""

    file: bool
    folder: Looks
    linked_folder: Looks

    def __bool__(self) -> bool:
        return self.file or bool(self.folder)


def wanted(name: str, looks: Looks, *, hidden: bool) -> Wanted:
    """What an entry of a folder is, by what is looked for there. Each folder is so listed once, in however many ways a
    pattern with `**` leads to it."""
    if name[0] == "." and not hidden:
        return Wanted(False, (), ())
    file, by_name, through = False, [], []
    for parts in looks:
        for place, matches in enumerate(parts):
            if matches is None:
                through.append(parts[place:])
            else:
                if matches(name):
                    file |= place == len(parts) - 1
                    by_name += [parts[place + 1 :]] if parts[place + 1 :] else []
                break
    return Wanted(file, tuple(dict.fromkeys(by_name + through)), tuple(dict.fromkeys(by_name)))


def ready(found: Sequence[Delivery], stable_for: float, start: str, now: float) -> list[Delivery]:
    """Those of the files found that are old enough and do not sort before `start`, in the order of `Storage.find`."""
    return sorted(
        (one for one in found if one.path >= start and not 0 <= now - one.mtime_ns / 1e9 < stable_for),
        key=lambda delivery: (delivery.mtime_ns, delivery.path),
    )


def not_listed(storage: Storage, path: str, error: OSError) -> None:
    """What an error means that kept a folder below the root (or the root, whose path is empty) from being listed, or an
    entry from being looked at: nothing if it is gone, or a link to nothing or to itself; a warning if it is not ours to
    read. Raises StorageUnavailableError if the root is not, and where the storage fails."""
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
        return
    if error.errno == errno.ENAMETOOLONG:
        logger.warning("%s of %s is passed over: its path is longer than paths may be", shortened(path, 100), storage)
        return
    if not isinstance(error, PermissionError):
        raise StorageUnavailableError(
            f"{path or 'The folder'} of {storage} cannot be looked at: {error.strerror or error}. Nothing is read "
            "before it can: files could be missed. Is the share mounted, and the disk sound?"
        ) from None
    if not path:
        raise StorageUnavailableError(
            f"The folder {storage} may not be read by this user. Grant it the right to list the folder."
        ) from None
    logger.warning("%s of %s is passed over: it may not be read by this user", path, storage)


DEEPEST = 100
"""Folders that lie one in the other, at most: no tree of deliveries is deeper, and one of thousands is a mistake, or
meant to do harm."""


def too_deep(storage: Storage, path: str) -> bool:
    """Whether a folder lies so deep that it is passed over, with a warning."""
    if path.count("/") <= DEEPEST:
        return False
    logger.warning("%s of %s is passed over: it lies more than %d folders deep", shortened(path, 100), storage, DEEPEST)
    return True


LONGEST_FILE_NAME = 255
"""Bytes in the name of a file, as most file systems have it."""


def name_aside(name: str) -> str:
    """The hidden name that a file has for the moment in which it is deleted."""
    aside = f".{name}.loaded"
    if len(aside.encode(errors="surrogateescape")) <= LONGEST_FILE_NAME:
        return aside
    return f".{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()}.loaded"


def unrecordable(path: str) -> str | None:
    """Why a path cannot stand in a position, or None if it can."""
    if not path.isascii() and any("\ud800" <= character <= "\udfff" for character in path):
        return "its name holds bytes that are not UTF-8; rename it"
    return None


def sha256(stream: BinaryIO) -> str:
    """The hash of a file's bytes as they were delivered, packed or not, from its beginning, where it is left."""
    stream.seek(0)
    content = hashlib.file_digest(cast(BufferedIOBase, stream), "sha256").hexdigest()
    stream.seek(0)
    return content
