"""Idle limits for database drivers that have none: libpq and MySQL's client wait for ever for a server that is
connected and says nothing, and cannot be interrupted while they wait. So the sockets of this process are watched from a
thread, and one whose answer is overdue is shut down: the driver then reports that the connection is lost. TCP keepalive
finds a machine or network that is gone. What is said to people is the callers'.

Sockets are found and asked about as Linux does it; elsewhere nothing is watched, and keepalive is all there is.
"""

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.parse import quote as percent_encoded

CONNECT_SECONDS = 10
"""How long a server that does not answer is waited for when a connection begins."""

KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A quiet connection is asked after 30 s whether the other side is there, and given up after three times 10 s more; it
also keeps firewalls from forgetting it."""

UNACKNOWLEDGED_MILLISECONDS = 60_000
"""How long what was sent may stay unacknowledged by the other machine."""

LOOKS = 10
"""How often a connection is looked at within its limit."""

_DESCRIPTORS = Path("/proc/self/fd")
_TCP_INFO = struct.Struct("=52xI")
"""Of Linux's tcp_info: milliseconds since data was last received."""


def libpq_options(url: str, connect_seconds: float = CONNECT_SECONDS) -> str:
    """A `postgresql://` URL with the limits that libpq itself has, except those that it gives already."""
    # urllib would drop the empty host of `postgresql:///database`.
    place, _, query = url.partition("?")
    limits = {
        # Of one second libpq makes two itself.
        "connect_timeout": str(max(2, round(connect_seconds))),
        **{name: str(value) for name, value in KEEPALIVE.items()},
        "tcp_user_timeout": str(UNACKNOWLEDGED_MILLISECONDS),
    }
    options = {**limits, **dict(parse_qsl(query, keep_blank_values=True))}
    return f"{place}?{urlencode(options, quote_via=percent_encoded)}"


def connect_seconds(url: str, otherwise: float) -> float:
    """How long a connection may take to begin: what a `postgresql://` URL says of it, or else `otherwise`."""
    given = dict(parse_qsl(urlsplit(url).query)).get("connect_timeout", "")
    return float(given) if given.isdigit() and int(given) else otherwise


@dataclass(frozen=True)
class _Socket:
    """A TCP connection of this process: its inode, the other side, and seconds since that last said something."""

    inode: int
    peer: tuple[str, int]
    silent_for: float


def _sockets() -> Iterator[tuple[_Socket, socket.socket]]:
    """The TCP connections of this process, each with a handle on it that is closed after use."""
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - a Path for each descriptor would be waste
    except OSError:  # there is no such folder, or no descriptor left to read it with: whoever watches looks again
        return
    for name in names:
        try:
            if not stat.S_ISSOCK((_DESCRIPTORS / name).stat().st_mode):
                continue
            duplicate = os.dup(int(name))
        except OSError:  # it was closed meanwhile
            continue
        try:
            handle = socket.socket(fileno=duplicate)
        except OSError:  # its number is that of another file by now
            os.close(duplicate)
            continue
        with handle:
            try:
                if handle.family not in (socket.AF_INET, socket.AF_INET6) or handle.type != socket.SOCK_STREAM:
                    continue
                address, port = handle.getpeername()[:2]
                info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
                silent_for = _TCP_INFO.unpack(info)[0] / 1000
                inode = os.fstat(handle.fileno()).st_ino
            except (OSError, struct.error):  # it is not connected, or no longer
                continue
            yield _Socket(inode, (address.removeprefix("::ffff:"), port), silent_for), handle


@dataclass(frozen=True)
class Server:
    """Where a database's URL leads to: hosts and ports as it names them."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]

    def addresses(self) -> set[str]:
        """The addresses of the hosts, as far as they are known now."""
        found = set()
        for host in self.hosts:
            with suppress(OSError):
                found |= {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return found


def server_of(url: str, default_port: int) -> Server:
    """The server of a URL; several hosts are written with commas between them, or among the options."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    named = parts.netloc.rpartition("@")[2]
    hosts, ports = [], []
    for one in [*named.split(","), *options.get("host", "").split(","), *options.get("hostaddr", "").split(",")]:
        host, colon, port = one.rpartition(":")
        ended = colon and port.isdigit()
        hosts.append((host if ended else one).strip("[]"))
        ports += [int(port)] if ended else []
    ports += [int(port) for port in options.get("port", "").split(",") if port.isdigit()]
    names = tuple(dict.fromkeys(host for host in hosts if host and not host.startswith("/")))
    return Server(names or ("localhost",), tuple(ports) or (default_port,))


_claimed: set[int] = set()
"""Inodes of the sockets that have a watchdog of their own."""
_claiming = threading.Lock()
_connecting: dict[Server, threading.Lock] = {}
_resolved: dict[Server, set[str]] = {}
"""All addresses that each server was ever found to have: a connection stays where it was opened."""


class Watchdog:
    """Watches the connection of one session. Within `waiting` it is shut down when the server says nothing for `idle`
    seconds (every byte that comes counts), or when `total` seconds have passed since `begin`. `struck` then tells
    which. A driver that `reconnects` may open further connections at any time, which are watched as well."""

    def __init__(self, server: Server, idle: float, total: float | None = None, *, reconnects: bool = False) -> None:
        self._server, self._idle, self._total, self._reconnects = server, idle, total, reconnects
        with _claiming:
            self._lock = _connecting.setdefault(server, threading.Lock())
        self._sockets: set[int] = set()
        self._there: set[int] = set()
        self._connecting = False
        self._since: float | None = None
        self._begun: float | None = None
        self._limit = idle
        self._ended = threading.Event()
        self._watching: threading.Thread | None = None
        self.struck: str | None = None

    @contextmanager
    def connecting(self, seconds: float) -> Iterator[None]:
        """Takes the connections that are opened within the block for its own; one whose server says nothing for so many
        seconds is shut down. Two sessions connect to one server one after the other."""
        with self._lock:
            self._there = {one.inode for one, _ in _sockets()}
            self._connecting, self._limit = True, seconds
            try:
                with self.waiting():
                    yield
            finally:
                self._claim()
                self._connecting, self._limit = False, self._idle

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The server has the word within the block."""
        if self._watching is None:
            self._watching = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._watching.start()
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def begin(self) -> None:
        """A statement begins: what `total` counts from."""
        self._begun = time.monotonic()

    def close(self) -> None:
        """End the watch. The connection is its owner's to close."""
        self._ended.set()
        with _claiming:
            _claimed.difference_update(self._sockets)

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._limit / LOOKS, (self._total or self._limit) / LOOKS)):
            since = self._since
            if since is None:
                continue
            now = time.monotonic()
            if self._connecting or (self._reconnects and not self._lock.locked()):
                self._claim()
            if self._total is not None and self._begun is not None and now - self._begun >= self._total:
                self._strike("total")
            elif now - since >= self._limit and self._is_silent():
                self._strike("connect" if self._connecting else "idle")

    def _is_silent(self) -> bool:
        """Whether all connections of the session that are there say nothing: of a pool, one may have nothing to do."""
        silent_for = [one.silent_for for one, _ in _sockets() if one.inode in self._sockets]
        return bool(silent_for) and min(silent_for) >= self._limit

    def _strike(self, limit: str) -> None:
        self.struck = self.struck or limit  # first, or who waits would learn too late why its connection is lost
        shut_down(self._sockets)

    def _is_new(self, inode: int, _: float) -> bool:
        return inode not in self._there and not is_claimed(inode)

    def _claim(self) -> None:
        new = {one.inode for one in connections_to(self._server, self._is_new)}
        with _claiming:
            claimed = new - _claimed
            self._sockets |= claimed
            _claimed.update(claimed)
        for one, handle in _sockets():
            if one.inode in claimed:
                _keep_alive(handle)


def _keep_alive(handle: socket.socket) -> None:
    """What `libpq_options` asks of libpq, for the drivers that cannot be asked."""
    with suppress(OSError):  # it was closed meanwhile
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE["keepalives_idle"])
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE["keepalives_interval"])
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE["keepalives_count"])
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)


def is_claimed(inode: int) -> bool:
    """Whether a connection has a watchdog of its own."""
    return inode in _claimed


def connections_to(server: Server, which: Callable[[int, float], bool]) -> list[_Socket]:
    """The connections of this process to a server of which `which` is true, given the inode and the seconds since the
    server last said something: by port and by any address that its names ever had, or by the port alone as long as they
    had none."""
    found = [one for one, _ in _sockets() if one.peer[1] in server.ports and which(one.inode, one.silent_for)]
    if not found:
        return []
    new = server.addresses()
    with _claiming:
        addresses = _resolved[server] = _resolved.get(server, set()) | new
    return [one for one in found if not addresses or one.peer[0] in addresses]


def shut_down(inodes: Collection[int]) -> None:
    """Shut down connections of this process. Whoever waits for one learns that it is lost."""
    for one, handle in _sockets():
        if one.inode in inodes:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
