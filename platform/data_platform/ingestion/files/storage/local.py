"""A folder of this machine's file system as a `Storage`, mounted ones included."""

import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import Delivery, Matcher, pattern_of, ready
from data_platform.ingestion.files.storage.unpacking import is_packed

HELD_BYTES = 1 << 20
"""Bytes of a file that is read at once; larger ones are streamed."""


class LocalFolder:
    """A folder; see `Place` and `Storage`, whose methods these are."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    @contextmanager
    def session(self) -> Iterator["LocalFolder"]:
        """Itself: there is no connection to keep."""
        yield self

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        root = self._root
        if not root.is_dir():
            raise PlatformError(f"The folder {root} does not exist, or it is not a folder. Create it, or mount it.")
        if not os.access(root, os.R_OK | os.X_OK):
            raise PlatformError(f"The folder {root} may not be read by this user. Grant read and search permission.")
        wanted = pattern_of(pattern)
        found = list(_walk(str(root), "", wanted.parts, hidden=wanted.hidden, linked=False))
        # Several `**` may come by one file in several ways.
        return ready(list(set(found)) if wanted.parts.count(None) > 1 else found, stable_for, start, time.time())

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:
        try:
            with (self._root / delivery.path).open("rb") as file:
                if not delivery.size or is_packed(file):
                    return True
                file.seek(-min(delivery.size, len(line_end)), os.SEEK_END)
                return file.read() == line_end
        except OSError:
            return True

    def leads_out(self, delivery: Delivery) -> bool:
        return delivery.linked and not (self._root / delivery.path).resolve().is_relative_to(self._root.resolve())

    def exists(self, delivery: Delivery) -> bool:
        return (self._root / delivery.path).exists()

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:  # noqa: ARG002 - it is at hand
        path = self._root / delivery.path
        if delivery.size <= HELD_BYTES:
            yield io.BytesIO(path.read_bytes())
            return
        with path.open("rb") as file:
            yield file

    def changed(self, delivery: Delivery) -> bool:
        try:
            status = (self._root / delivery.path).stat()
        except FileNotFoundError:
            return True
        found = Delivery(delivery.path, status.st_size, status.st_mtime_ns, ctime_ns=status.st_ctime_ns)
        return found.version != delivery.version

    def take(self, delivery: Delivery, target: str | None) -> bool:
        if self.changed(delivery):
            return False
        path = self._root / delivery.path
        aside = path.with_name(f".{path.name}.loaded") if target is None else self._root / target
        if target is not None:
            aside.parent.mkdir(parents=True, exist_ok=True)
            aside.touch(exist_ok=False)  # nobody else takes the name meanwhile
        try:
            path.rename(aside)
        except OSError as error:
            if target is not None:
                aside.unlink()
            if isinstance(error, FileNotFoundError):
                return False
            raise
        status = aside.stat()
        if (status.st_size, status.st_mtime_ns) != (delivery.size, delivery.mtime_ns):
            # It was replaced at the last moment: back with it, unless yet another one is there already.
            os.link(aside, path)
            aside.unlink()
            return False
        if target is None:
            aside.unlink()
        return True


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
