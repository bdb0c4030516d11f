"""A folder of this machine's file system as a `Storage`, mounted ones included."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import (
    Delivery,
    Looks,
    name_aside,
    not_listed,
    pattern_of,
    ready,
    too_deep,
    wanted,
)
from data_platform.ingestion.files.storage.unpacking import is_packed

HELD_BYTES = 1 << 20
"""Bytes of a file that is read at once; larger ones are streamed."""


class LocalFolder:
    """A folder; see `Place` and `Storage`, whose methods these are."""

    def __init__(self, root: Path, *, may_be_missing: bool = False) -> None:
        """`may_be_missing` says that a folder which is not there has no files; else that is a mistake."""
        self._root, self._may_be_missing = root, may_be_missing

    def __str__(self) -> str:
        return str(self._root)

    @contextmanager
    def session(self) -> Iterator["LocalFolder"]:
        """Itself: there is no connection to keep."""
        yield self

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        root = self._root
        if self._may_be_missing and not root.exists():
            return []
        if not root.is_dir():
            raise PlatformError(f"The folder {root} does not exist, or it is not a folder. Create it, or mount it.")
        if not os.access(root, os.R_OK | os.X_OK):
            raise PlatformError(f"The folder {root} may not be read by this user. Grant read and search permission.")
        sought = pattern_of(pattern)
        found = list(self._walk(str(root), "", (sought.parts,), hidden=sought.hidden, linked=False))
        return ready(found, stable_for, start, time.time())

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
        aside = path.with_name(name_aside(path.name)) if target is None else self._root / target
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

    def _walk(self, folder: str, prefix: str, looks: Looks, *, hidden: bool, linked: bool) -> Iterator[Delivery]:
        """Files below a folder that match the parts of a pattern, one part a level."""
        if too_deep(self, prefix):
            return
        try:
            entries = os.scandir(folder)
        except OSError as error:
            not_listed(self, prefix, error)
            return
        with entries:
            for entry in entries:
                if not (meant := wanted(entry.name, looks, hidden=hidden)):
                    continue
                path, status = prefix + entry.name, None
                try:
                    is_link = entry.is_symlink()
                    below = meant.linked_folder if is_link else meant.folder
                    if not (below and entry.is_dir()):
                        below = ()
                        status = entry.stat() if meant.file and entry.is_file() else None
                except OSError as error:
                    not_listed(self, path, error)
                    continue
                if below:
                    yield from self._walk(entry.path, path + "/", below, hidden=hidden, linked=linked or is_link)
                elif status is not None:
                    yield Delivery(path, status.st_size, status.st_mtime_ns, linked or is_link, status.st_ctime_ns)
