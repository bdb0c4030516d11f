"""A folder on an SFTP server as a `Place`. paramiko speaks the protocol. The server's key is held against a file of
known hosts or a fingerprint; a key that is not known is never accepted.

SFTP tells times of modification in seconds and none of a change of status: a file that is replaced within the second by
one of the same size is not seen to be another.
"""

import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import paramiko
from paramiko.sftp import CMD_CLOSE, CMD_OPENDIR, CMD_READDIR

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.storage import (
    CHANGED,
    Delivery,
    Looks,
    Storage,
    StorageUnavailableError,
    name_aside,
    not_listed,
    pattern_of,
    ready,
    too_deep,
    wanted,
)
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.files.storage.unpacking import is_packed, spooled

_BLOCK = 1 << 20
_REQUESTS = 64
"""Requests for parts of a file (32 KiB each) that are under way at once."""


class SftpFolder:
    """Where a folder lies, and how its server is reached; connects to nothing before a session."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        """`url` and `options` hold no variables of the environment any more. Raises PlatformError for a URL without a
        host, or with a password."""
        parts = urlsplit(url)
        if not parts.hostname or parts.password is not None:
            raise PlatformError(
                "`folder` must be sftp://user@host/path, without a password: that is `password: '{{ env.NAME }}'`."
            )
        self._host, self._port, self._user = parts.hostname, parts.port or 22, parts.username
        self._options = options
        path = unquote(parts.path).rstrip("/")
        self._root = path.removeprefix("/~/") if path.startswith("/~/") else path or "/"
        self._name = f"sftp://{parts.netloc}{parts.path}"

    def __str__(self) -> str:
        return self._name

    @contextmanager
    def session(self) -> Iterator[Storage]:
        """A connection. Raises StorageUnavailableError if there is none to be had."""
        with self.connected() as (sftp, root):
            yield _Session(self, sftp, root, self._options)

    @contextmanager
    def connected(self) -> Iterator[tuple[paramiko.SFTPClient, str]]:
        """The same for those that write, and the folder's path on the server."""
        with paramiko.SSHClient() as client:
            self._connect(client)
            with self.explained():
                sftp = client.open_sftp()
                sftp.get_channel().settimeout(self._options.timeout)
            yield sftp, self._root

    def _connect(self, client: paramiko.SSHClient) -> None:
        options, seconds = self._options, self._options.timeout
        try:
            if options.host_key:
                client.set_missing_host_key_policy(_Fingerprint(options.host_key))
            elif options.known_hosts:
                client.load_host_keys(str(Path(options.known_hosts).expanduser()))
            else:
                client.load_system_host_keys()
            client.connect(
                self._host,
                self._port,
                self._user,
                options.password and options.password.get_secret_value(),
                key_filename=options.private_key and str(Path(options.private_key).expanduser()),
                timeout=seconds,
                banner_timeout=seconds,
                auth_timeout=seconds,
                channel_timeout=seconds,
                allow_agent=False,
                look_for_keys=False,
            )
        except paramiko.BadHostKeyException as error:
            raise StorageUnavailableError(
                f"The key of {self} is not the one that is known of it: it is {error.key.fingerprint}. Either the "
                "server was set up anew, or another one answers in its place. Ask who runs it before you change "
                "`host_key` or the file of known hosts."
            ) from None
        except paramiko.AuthenticationException:
            raise StorageUnavailableError(
                f"{self} does not let {self._user or 'this user'} in. Set the user in `folder`, and `password` "
                "('{{ env.NAME }}') or `private_key` of the source."
            ) from None
        except FileNotFoundError as error:
            raise PlatformError(
                f"{error.filename}, by which {self} is reached, does not exist. Correct `private_key` or `known_hosts`."
            ) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            if "not found in known_hosts" in str(error):
                raise StorageUnavailableError(
                    f"The key of {self} is not known, so that nobody can say whose server answers. Set `host_key` to "
                    "its fingerprint (ssh-keygen -l on the server), or name a file with its key as `known_hosts`."
                ) from None
            raise self.unavailable(error) from None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What goes wrong with the connection, as a person may act upon it; errors of single files pass."""
        try:
            yield
        except (FileNotFoundError, PermissionError):
            raise
        except (paramiko.SSHException, EOFError, TimeoutError, ConnectionError) as error:
            raise self.unavailable(error) from None
        except OSError as error:
            if _is_lost(error):
                raise self.unavailable(error) from None
            raise

    def unavailable(self, error: Exception) -> StorageUnavailableError:
        """That the server does not answer, and why."""
        said = shortened(str(error) or type(error).__name__, 300)
        return StorageUnavailableError(
            f"{self} does not answer as it should: {said}. Is the server up, and can this machine reach it? `timeout` "
            f"({self._options.timeout:g} s) of the source says how long it is waited for."
        )


class _Fingerprint(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
    """Lets in the server whose key has a fingerprint, and no other."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002 - paramiko's
        if key.fingerprint.rstrip("=") != self._fingerprint.rstrip("="):
            raise paramiko.BadHostKeyException(hostname, key, key)


class _Session:
    """A connection to a folder; see `Storage`, whose methods these are."""

    def __init__(self, place: SftpFolder, sftp: paramiko.SFTPClient, root: str, options: StorageOptions) -> None:
        self._place, self._sftp, self._root, self._options = place, sftp, root, options

    def __str__(self) -> str:
        return str(self._place)

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        sought = pattern_of(pattern)
        with self._place.explained():
            try:
                there = stat.S_ISDIR(self._sftp.stat(self._root).st_mode or 0)
            except FileNotFoundError:
                there = False
            if not there:
                raise PlatformError(f"The folder {self} does not exist, or it is not a folder. Create it there.")
            found = list(self._walk(self._root, "", (sought.parts,), hidden=sought.hidden, linked=False))
        return ready(found, stable_for, start, time.time())

    def _walk(self, folder: str, prefix: str, looks: Looks, *, hidden: bool, linked: bool) -> Iterator[Delivery]:
        """As of a local folder: one part of the pattern a level, and `**` does not follow links."""
        if too_deep(self, prefix):
            return
        try:
            entries = self._entries(folder)
        except OSError as error:
            self._not_listed(prefix, error)
            return
        for entry in entries:
            name, full = entry.filename, f"{folder.rstrip('/')}/{entry.filename}"
            if name in (".", "..") or not (meant := wanted(name, looks, hidden=hidden)):
                continue
            is_link = stat.S_ISLNK(entry.st_mode or 0)
            below = meant.linked_folder if is_link else meant.folder
            if is_link and not below and not meant.file:
                continue
            if is_link or None in (entry.st_mode, entry.st_size, entry.st_mtime):
                try:
                    entry = self._sftp.stat(_encoded(full))
                except OSError as error:
                    if not is_link or _is_lost(error):  # else it is one to nothing
                        self._not_listed(prefix + name, error)
                    continue
            if None in (entry.st_mode, entry.st_size, entry.st_mtime):
                raise PlatformError(
                    f"{self} does not say what {prefix + name} is, how long it is and when it was modified, by which "
                    "files are known. Have the server tell that, or have the files sent elsewhere."
                )
            mode, through = entry.st_mode or 0, linked or is_link
            if stat.S_ISDIR(mode) and below:
                yield from self._walk(full, f"{prefix}{name}/", below, hidden=hidden, linked=through)
            elif stat.S_ISREG(mode) and meant.file:
                yield Delivery(prefix + name, entry.st_size or 0, (entry.st_mtime or 0) * 10**9, through)

    def _entries(self, folder: str) -> Sequence[paramiko.SFTPAttributes]:
        """What a folder holds. Names that are not UTF-8, for which paramiko has no answer but to fail the listing, have
        surrogates, as those of local files have."""
        try:
            return self._sftp.listdir_attr(_encoded(folder))  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            found = []
            handle = self._sftp._request(CMD_OPENDIR, _encoded(folder))[1].get_binary()
            try:
                while True:
                    answer = self._sftp._request(CMD_READDIR, handle)[1]
                    for _ in range(answer.get_int()):
                        name, shown = (answer.get_binary().decode(errors="surrogateescape") for _ in range(2))
                        found.append(paramiko.SFTPAttributes._from_msg(answer, name, shown))
            except EOFError:  # the end of the listing
                return found
            finally:
                self._sftp._request(CMD_CLOSE, handle)

    def _not_listed(self, path: str, error: OSError) -> None:
        if _is_lost(error):
            raise error
        not_listed(self, path, error)

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:
        try:
            with self._place.explained(), self._sftp.open(_encoded(self._path(delivery)), "rb") as file:
                if not delivery.size or is_packed(file):
                    return True
                file.seek(delivery.size - min(delivery.size, len(line_end)))
                return bool(file.read() == line_end)
        except OSError:
            return True

    def leads_out(self, delivery: Delivery) -> bool:
        if not delivery.linked:
            return False
        with self._place.explained():
            root, path = self._sftp.normalize(self._root), self._sftp.normalize(self._path(delivery))
        return not path.startswith(root.rstrip("/") + "/")

    def exists(self, delivery: Delivery) -> bool:
        return self._status(delivery) is not None

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
        with spooled(spool) as here:
            before = time.monotonic() + self._options.answer_timeout.total_seconds() * (1 + (delivery.size >> 26))
            with self._place.explained(), self._sftp.open(self._path(delivery), "rb") as there:
                there.prefetch(delivery.size, max_concurrent_requests=_REQUESTS)
                while block := there.read(_BLOCK):
                    here.write(block)
                    if time.monotonic() > before:
                        raise TimeoutError(f"{delivery.path} was not at its end within `answer_timeout`")
            if here.tell() != delivery.size:
                raise PlatformError(CHANGED)
            here.seek(0)
            yield here

    def changed(self, delivery: Delivery) -> bool:
        status = self._status(delivery)
        return status is None or (status.st_size, (status.st_mtime or 0) * 10**9) != (delivery.size, delivery.mtime_ns)

    def take(self, delivery: Delivery, target: str | None) -> bool:
        if self.changed(delivery):
            return False
        path = self._path(delivery)
        folder, _, name = path.rpartition("/")
        aside = f"{folder}/{name_aside(name)}" if target is None else f"{self._root.rstrip('/')}/{target}"
        with self._place.explained():
            if target is None:
                with suppress(FileNotFoundError):
                    self._sftp.remove(aside)  # of a load that was ended amid this
            else:
                self._make_folders(target)
                if self._is_there(aside):
                    raise FileExistsError(f"{target} exists")
            try:
                self._sftp.rename(path, aside)  # which never replaces a file
            except FileNotFoundError:
                return False
            status = self._sftp.stat(aside)
            if (status.st_size, (status.st_mtime or 0) * 10**9) != (delivery.size, delivery.mtime_ns):
                # It was replaced at the last moment: back with it, unless yet another one is there already.
                self._sftp.rename(aside, path)
                return False
            if target is None:
                self._sftp.remove(aside)
        return True

    def _make_folders(self, target: str) -> None:
        """The folders of a path below the root."""
        parts = target.split("/")[:-1]
        for depth in range(len(parts)):
            folder = "/".join([self._root.rstrip("/"), *parts[: depth + 1]])
            if not self._is_there(folder):
                self._sftp.mkdir(folder)

    def _is_there(self, path: str) -> bool:
        try:
            self._sftp.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def _status(self, delivery: Delivery) -> paramiko.SFTPAttributes | None:
        with self._place.explained():
            try:
                return self._sftp.stat(self._path(delivery))
            except FileNotFoundError:
                return None

    def _path(self, delivery: Delivery) -> str:
        return f"{self._root.rstrip('/')}/{delivery.path}"


def _encoded(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _is_lost(error: OSError) -> bool:
    """Whether it is the connection that failed."""
    return isinstance(error, ConnectionError | TimeoutError) or "closed" in str(error).lower()
