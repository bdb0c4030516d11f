"""A folder of HDFS as a `Place`. hdfs-native speaks to the NameNode and the DataNodes itself, without Java.

A file that is being written is listed with the length of its complete blocks, none at first, and with the time when it
was begun: nobody can tell one that has some from a file that is closed. What is closed later is read again. Names that
begin with `_`, or end in `._COPYING_`, are of what is under way.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import hdfs_native

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.storage import (
    CHANGED,
    Delivery,
    Looks,
    Storage,
    StorageUnavailableError,
    not_listed,
    pattern_of,
    ready,
    too_deep,
    wanted,
)
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.files.storage.unpacking import is_packed, spooled

T = TypeVar("T")

PIECE = 16 << 20
"""Bytes of a file that are read by one request."""

_PATIENCE = {
    "dfs.client.failover.max.attempts": "2",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "1000",
}
"""How often a NameNode is tried again: by default it takes minutes to say that nobody listens."""


class HdfsFolder:
    """Where a folder lies; connects to nothing before a session."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        """`url` holds no variables of the environment any more. Raises PlatformError for a URL without a host, or with
        a user: that is the variable HADOOP_USER_NAME."""
        try:
            parts = urlsplit(url)
            if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment or parts.port == 0:
                raise ValueError
        except ValueError:
            raise PlatformError(
                "`folder` must be hdfs://host:port/path, or hdfs://nameservice/path with HADOOP_CONF_DIR; the user is "
                "what HADOOP_USER_NAME says."
            ) from None
        self._server, self._options = f"hdfs://{parts.netloc}", options
        self._root = unquote(parts.path).rstrip("/") or "/"
        self._name = f"{self._server}{parts.path}"

    def __str__(self) -> str:
        return self._name

    @contextmanager
    def session(self) -> Iterator[Storage]:
        """A client. Raises StorageUnavailableError if there is no server."""
        try:
            client = hdfs_native.Client(self._server, _PATIENCE)
        except Exception as error:  # noqa: BLE001 - of whatever kind the library raises
            raise StorageUnavailableError(f"{self} cannot be reached: {_said(error)}.") from None
        yield _Session(self._name, self._root, client, self._options)


class _Session:
    def __init__(self, name: str, root: str, client: hdfs_native.Client, options: StorageOptions) -> None:
        self._name, self._root, self._client, self._options = name, root, client, options

    def __str__(self) -> str:
        return self._name

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        sought = pattern_of(pattern)
        try:
            there = self._ask(lambda: self._client.get_file_info(self._root), self._options.timeout).isdir
        except FileNotFoundError:
            there = False
        if not there:
            raise PlatformError(f"The folder {self} does not exist, or it is not a folder. Create it there.")
        found = self._walk(self._root, "", (sought.parts,), hidden=sought.hidden, marks=_names_marks(pattern))
        return ready(list(found), stable_for, start, time.time())

    def _walk(self, folder: str, prefix: str, looks: Looks, *, hidden: bool, marks: bool) -> Iterator[Delivery]:
        """As of a local folder: one part of the pattern a level. `marks` are files such as _SUCCESS."""
        if too_deep(self, prefix):
            return
        try:
            entries = self._ask(lambda: list(self._client.list_status(folder)), self._seconds)
        except (FileNotFoundError, PermissionError) as error:
            not_listed(self, prefix, error)
            return
        for entry in entries:
            name = entry.path.rpartition("/")[2]
            if (name[0] == "_" and not marks) or name.endswith("._COPYING_"):  # under way
                continue
            meant = wanted(name, looks, hidden=hidden)
            if entry.isdir and meant.folder:
                below = f"{folder.rstrip('/')}/{name}"
                yield from self._walk(below, f"{prefix}{name}/", meant.folder, hidden=hidden, marks=marks)
            elif not entry.isdir and meant.file and (entry.length or marks):
                yield Delivery(prefix + name, entry.length, entry.modification_time * 10**6)

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:
        def ended() -> bool:
            file: Any = self._client.read(self._path(delivery))
            if len(file) < delivery.size or is_packed(file):  # an open file is refused when it is read
                return True
            file.seek(-min(delivery.size, len(line_end)), os.SEEK_END)
            return bool(file.read() == line_end)

        try:
            return not delivery.size or self._ask(ended, self._seconds)
        except StorageUnavailableError:
            raise
        except OSError:
            return True

    def leads_out(self, delivery: Delivery) -> bool:  # noqa: ARG002 - there are no links
        return False

    def exists(self, delivery: Delivery) -> bool:
        return self._status(delivery) is not None

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
        with spooled(spool) as here:
            there = self._ask(lambda: self._client.read(self._path(delivery)), self._seconds)
            if len(there) != delivery.size:  # it is being written, or appended to
                raise PlatformError(CHANGED)
            for begin in range(0, delivery.size, PIECE):
                here.write(self._piece(there, begin, min(PIECE, delivery.size - begin)))
            here.seek(0)
            yield here

    def _piece(self, there: hdfs_native.FileReader, begin: int, length: int) -> bytes:
        return self._ask(lambda: there.read_range(begin, length), self._seconds)

    def changed(self, delivery: Delivery) -> bool:
        status = self._status(delivery)
        return status is None or (status.length, status.modification_time * 10**6) != (delivery.size, delivery.mtime_ns)

    def _status(self, delivery: Delivery) -> hdfs_native.FileStatus | None:
        try:
            return self._ask(lambda: self._client.get_file_info(self._path(delivery)), self._seconds)
        except FileNotFoundError:
            return None

    def _path(self, delivery: Delivery) -> str:
        return f"{self._root.rstrip('/')}/{delivery.path}"

    @property
    def _seconds(self) -> float:
        return self._options.answer_timeout.total_seconds()

    def _ask(self, request: Callable[[], T], seconds: float) -> T:
        """What the servers answer, within some time: the client itself waits without end for one that is frozen. Raises
        FileNotFoundError and PermissionError of single files, else StorageUnavailableError."""
        answers: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(request())
            except Exception as error:  # noqa: BLE001 - it is raised below
                errors.append(error)

        thread = threading.Thread(target=run, name="hdfs", daemon=True)
        thread.start()
        thread.join(seconds)
        if answers:
            return answers[0]
        if errors and isinstance(errors[0], FileNotFoundError):
            raise FileNotFoundError(_said(errors[0])) from None
        if errors and (isinstance(errors[0], PermissionError) or "AccessControlException" in str(errors[0])):
            raise PermissionError(f"it may not be read by this user ({_said(errors[0])})") from None
        said = _said(errors[0]) if errors else f"no answer within {seconds:g} s"
        raise StorageUnavailableError(
            f"{self} does not answer as it should: {said}. Are its NameNode and DataNodes up, and can this machine "
            f"reach them? `timeout` ({self._options.timeout:g} s) and `answer_timeout` of the source say how long each "
            "answer is waited for."
        ) from None


def _names_marks(pattern: str) -> bool:
    return any(part.startswith("_") for part in pattern.split("/"))


def _said(error: Exception) -> str:
    """What the library says, without the stack of the server."""
    return shortened((str(error) or type(error).__name__).split("\n")[0], 300)
