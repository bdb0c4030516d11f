"""The log of predictions: files of JSON lines, which are a source of the platform like any others. A prediction is in
the log, on the disk, before it is answered. What is in a line is the business of `server`.

A file is written under a name that ends with `.open`, and gets its own within a minute: a source reads files that
change no more. What a process left open that was killed is finished by the next one.
"""

import fcntl
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from uuid import uuid4

from data_platform.errors import TransientError

FILE_BYTES = 64 * 2**20
FILE_SECONDS = 60.0
"""Bytes and seconds after which a file is finished."""

TOGETHER = 1_000
"""Requests whose lines are written with one call at most."""

OPEN = ".open"

Entry = tuple[bytes, "Future[None]"]


class PredictionLog:
    """The files of one process in a folder, written by a thread of its own: what several requests have to say is
    written and brought to the disk together. To be used as a context manager."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model
        self._entries: SimpleQueue[Entry | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="prediction log", daemon=True)
        self._open: _OpenFile | None = None

    def __enter__(self) -> "PredictionLog":
        """Finish what others left, and begin. Raises OSError if the folder cannot be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        finish_abandoned(self._folder)
        self._open = self._begin()
        self._writer.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """Write what is left, and finish the file."""
        self._entries.put(None)
        self._writer.join()
        if self._open is not None:
            self._open.finish()

    def append(self, lines: Sequence[bytes]) -> "Future[None]":
        """Have lines (without their ends) written. The future is done when they are on the disk; it raises
        TransientError if they could not be written, and then none of them is in the file."""
        done: Future[None] = Future()
        self._entries.put((b"".join(line + b"\n" for line in lines), done))
        return done

    def _write_all(self) -> None:
        ends = False
        while not ends:
            given, ends = self._next()
            # Of those who do not wait any more, because the server ends, nothing is kept.
            entries = [entry for entry in given if entry[1].set_running_or_notify_cancel()]
            try:
                if self._open is not None and self._open.is_due:
                    finished, self._open = self._open, None
                    finished.finish()
                if entries:
                    self._open = self._open or self._begin()
                    self._open.append(b"".join(text for text, _ in entries))
            except OSError as error:
                failure = TransientError(
                    f"The log of predictions in {self._folder} cannot be written: {error.strerror or error}. No "
                    "prediction is given without being kept: make room, or give the folder back."
                )
                for _, done in entries:
                    done.set_exception(failure)
            else:
                for _, done in entries:
                    done.set_result(None)

    def _next(self) -> tuple[list[Entry], bool]:
        """What is to be written next, nothing after a second without any, and whether nothing comes after it."""
        entries: list[Entry] = []
        try:
            entry = self._entries.get(timeout=1)
            while entry is not None and len(entries) < TOGETHER - 1:
                entries.append(entry)
                entry = self._entries.get_nowait()
        except Empty:
            return entries, False
        if entry is not None:
            entries.append(entry)
        return entries, entry is None

    def _begin(self) -> "_OpenFile":
        """Another file, whose name says when it was begun."""
        began = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        while True:
            file = _OpenFile(self._folder / f"{self._model}-{began}-{uuid4().hex[:12]}.jsonl{OPEN}")
            if file.is_there:
                return file
            # Another process that begins took it for one that was left, before it was locked.


class _OpenFile:
    """A file that is written, under a lock that says so. Raises OSError if it cannot be made."""

    def __init__(self, path: Path) -> None:
        self._path, self._size, self._began = path, 0, time.monotonic()
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o640)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _sync_names(path.parent)

    @property
    def is_there(self) -> bool:
        """Whether it still has a name."""
        return os.fstat(self._file).st_nlink > 0

    @property
    def is_due(self) -> bool:
        """Whether it is to be finished: it has lines, and is large or old enough."""
        return self._size >= FILE_BYTES or (self._size > 0 and time.monotonic() - self._began >= FILE_SECONDS)

    def append(self, text: bytes) -> None:
        """Write all of a text to the disk, or nothing: half a line would spoil the next one."""
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def finish(self) -> None:
        """Close it, and give it its own name; without any line remove it."""
        _named(self._path, self._size)
        os.close(self._file)


def finish_abandoned(folder: Path) -> None:
    """Finish the files that no process writes any more. A last line without an end was never answered: it is cut."""
    for path in sorted(folder.glob(f"*.jsonl{OPEN}")):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            continue  # another process has finished it since it was listed
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            end = _end_of_lines(path)
            file.truncate(end)
            os.fdatasync(file.fileno())
            if path.exists():  # another process may have finished it since it was listed
                _named(path, end)


def _sync_names(folder: Path) -> None:
    """Bring the names of a folder's files to the disk: what is in a file without a name is lost."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _end_of_lines(path: Path) -> int:
    """Where the last whole line of a file ends."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line) if line.endswith(b"\n") else 0
    return end


def _named(path: Path, size: int) -> None:
    if size == 0:
        path.unlink()
    else:
        path.rename(path.with_suffix(""))
