"""A TCP proxy between a client and a real server that stops forwarding, as a network or a frozen server does: the
connection stays, and no byte comes any more."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit


@dataclass
class Proxy:
    """`url` is the server's through the proxy. Nothing is forwarded while `stalled`, nor from the server after
    `stall_after` bytes; after `cut_after` of them all connections end, those to come as well. Each chunk from the
    server waits `delay` seconds and holds `chunk` bytes at most."""

    url: str
    stalled: bool = False
    stall_after: int | None = None
    cut_after: int | None = None
    delay: float = 0
    chunk: int = 65_536
    forwarded: int = 0
    closed: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    def stall(self) -> None:
        """Forward nothing from now on."""
        self.stalled = True

    def end(self) -> None:
        """Let both sides know that the connections are gone, as keepalive does in the end."""
        self.closed = True
        for one in self.sockets:
            _end(one)

    def wait(self) -> bool:
        """Wait while nothing may be forwarded; False once the proxy is closed."""
        while not self.closed and (
            self.stalled or (self.stall_after is not None and self.forwarded >= self.stall_after)
        ):
            time.sleep(0.005)
        return not self.closed


@contextmanager
def proxy_to(url: str, at: int = 0) -> Iterator[Proxy]:
    """A proxy to the server of a URL, for as long as the block lasts; it listens `at` a port, of its own choice if that
    is 0."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port
    assert port is not None
    with socket.create_server(("127.0.0.1", at)) as listening:
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}{'@' if login else ''}127.0.0.1:{listening.getsockname()[1]}"
        proxy = Proxy(urlunsplit(parts._replace(netloc=netloc)))

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                server = socket.create_connection((host, port))
                proxy.sockets += [client, server]
                for source, target, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=_forward, args=(proxy, source, target, counts), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            proxy.end()


def _forward(proxy: Proxy, source: socket.socket, target: socket.socket, counts: bool) -> None:
    with suppress(OSError):
        while (data := source.recv(proxy.chunk)) and proxy.wait():
            if counts:
                time.sleep(proxy.delay)
                proxy.forwarded += len(data)
            target.sendall(data)
            if proxy.cut_after is not None and proxy.forwarded >= proxy.cut_after:
                proxy.end()
    for one in (source, target):
        _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
