"""Exported files on SFTP servers: each is sent under a hidden name and renamed once it is whole. The server has to be
one that replaces files by renaming (OpenSSH's extension posix-rename, which most have).
"""

import hashlib
import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko

from data_platform.errors import PlatformError
from data_platform.exports.folders.local import locked
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.files.storage.sftp import SftpFolder


class SftpPlace:
    """A folder on a server; see `Place`. Drafts and locks are kept in `spool`, a folder of this machine."""

    def __init__(self, url: str, options: StorageOptions, spool: Path) -> None:
        self._there, self._spool = SftpFolder(url.rstrip("/"), options), spool

    @contextmanager
    def folder(self, table: str) -> Iterator["RemoteFolder"]:
        name = f"{self._there}/{table}"
        spool = self._spool / f"export-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        with locked(spool / "lock", name), self._there.connected() as (client, root):
            folder = RemoteFolder(self._there, client, f"{root.rstrip('/')}/{table}", name, spool)
            folder.make()
            yield folder

    def ping(self) -> None:
        with self._there.connected():
            pass


class RemoteFolder:
    """The folder of one table; see `Folder`, whose methods these are."""

    def __init__(self, server: SftpFolder, client: paramiko.SFTPClient, path: str, name: str, spool: Path) -> None:
        self._server, self._client, self._path, self._name, self._spool = server, client, path, name, spool

    def __str__(self) -> str:
        return self._name

    def make(self) -> None:
        """Make the folder and those above it, as far as they are not there."""
        parts = self._path.split("/")
        with self._explained():
            for count in range(1, len(parts) + 1):
                path = "/".join(parts[:count])
                if not path:
                    continue
                try:
                    self._client.stat(path)
                except FileNotFoundError:
                    self._client.mkdir(path)

    def names(self) -> list[str]:
        with self._explained():
            return sorted(
                one.filename for one in self._client.listdir_attr(self._path) if stat.S_ISREG(one.st_mode or 0)
            )

    def size(self, name: str) -> int | None:
        with self._explained():
            try:
                return int(self._client.stat(self._at(name)).st_size or 0)
            except FileNotFoundError:
                return None

    def read(self, name: str) -> tuple[bytes, str] | None:
        with self._explained():
            try:
                with self._client.open(self._at(name), "rb") as file:
                    return bytes(file.read()), ""
            except FileNotFoundError:
                return None

    def draft(self, name: str) -> Path:
        return self._spool / name

    def put(self, name: str, draft: Path) -> None:
        with self._explained():
            # It compares the size of what has come with that of what was sent.
            self._client.put(str(draft), self._at(f".{name}"))
            self._renamed(name)
        draft.unlink()

    def replace(self, name: str, data: bytes, tag: str | None) -> None:  # noqa: ARG002 - nothing here has a version
        with self._explained():
            self._client.putfo(io.BytesIO(data), self._at(f".{name}"), len(data))
            self._renamed(name)

    def _renamed(self, name: str) -> None:
        self._client.posix_rename(self._at(f".{name}"), self._at(name))

    def remove(self, name: str) -> None:
        with self._explained(), suppress(FileNotFoundError):
            self._client.remove(self._at(name))

    def local(self, name: str) -> Path | None:  # noqa: ARG002 - none lies here
        return None

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with the connection or the folder, as a person may act upon it."""
        try:
            with self._server.explained():
                yield
        except FileNotFoundError:
            raise
        except PermissionError:
            raise PlatformError(f"{self} may not be written by this user. Grant it, or correct `folder`.") from None
        except OSError as error:
            raise PlatformError(f"{self} cannot be written: {error}.") from None
