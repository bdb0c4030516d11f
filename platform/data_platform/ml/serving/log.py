"""The log of predictions: files of JSON lines, which are a source of the platform like any others. A prediction is in
the log, on the disk, before anybody is told of it. What is in a line is the business of `server`.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from data_platform.errors import TransientError

FILE_BYTES = 64 * 2**20
"""Bytes after which another file is begun."""

TOGETHER = 1_000
"""Requests whose lines are written with one call at most."""

Entry = tuple[bytes, "Future[None]"]


class PredictionLog:
    """The files of one process in a folder, written by a thread of its own: what several requests have to say is
    written and brought to the disk together. To be used as a context manager."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model
        self._entries: SimpleQueue[Entry | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="prediction log", daemon=True)
        self._file: int | None = None
        self._size = 0
        self._number = 0

    def __enter__(self) -> "PredictionLog":
        """Raises PlatformError if the folder cannot be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._begin_file()
        self._writer.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """Write what is left, and close the file."""
        self._entries.put(None)
        self._writer.join()
        if self._file is not None:
            os.close(self._file)

    def append(self, lines: Sequence[bytes]) -> "Future[None]":
        """Have lines (without their ends) written. The future is done when they are on the disk; it raises
        TransientError if they could not be written, and then none of them is in the file."""
        done: Future[None] = Future()
        self._entries.put((b"".join(line + b"\n" for line in lines), done))
        return done

    def _write_all(self) -> None:
        ends = False
        while not ends:
            entries: list[Entry] = []
            entry = self._entries.get()
            while entry is not None:
                entries.append(entry)
                if len(entries) == TOGETHER:
                    break
                try:
                    entry = self._entries.get_nowait()
                except Empty:
                    break
            ends = entry is None
            if entries:
                self._write(entries)

    def _write(self, entries: Sequence[Entry]) -> None:
        try:
            if self._size >= FILE_BYTES or self._file is None:
                self._begin_file()
            self._append(b"".join(text for text, _ in entries))
        except OSError as error:
            failure = TransientError(
                f"The log of predictions in {self._folder} cannot be written: {error.strerror or error}. No prediction "
                "is given without being kept: make room, or give the folder back."
            )
            for _, done in entries:
                done.set_exception(failure)
            return
        for _, done in entries:
            done.set_result(None)

    def _append(self, text: bytes) -> None:
        """Write all of a text to the disk, or nothing: half a line would spoil the next one."""
        assert self._file is not None  # noqa: S101 - a file was begun
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _begin_file(self) -> None:
        """Go on in another file. Its name says when it was begun, and by which process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        began = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        path = self._folder / f"{self._model}-{began}-{os.getpid()}-{self._number}.jsonl"
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o640)
        self._size, self._number = 0, self._number + 1
