"""Which sockets of this process belong to a server, and which server a URL means."""

import errno
import os
import socket
import time

import pytest

from data_platform.lakehouse.watchdog import Server, Watchdog, connections_to, server_of


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgresql://me:p%40ss@db.example.com:5433/shop", Server(("db.example.com",), (5433,))),
        ("postgresql://me@db.example.com/shop", Server(("db.example.com",), (5432,))),
        ("postgresql://[::1]:6000/shop", Server(("::1",), (6000,))),
        ("postgresql://one:1111,two:2222/shop", Server(("one", "two"), (1111, 2222))),
        ("postgresql:///shop?host=other&port=7777", Server(("other",), (7777,))),
        ("postgresql:///shop?host=/run/postgresql", Server(("localhost",), (5432,))),
    ],
)
def test_the_hosts_and_ports_of_a_url(url: str, server: Server) -> None:
    assert server_of(url, 5432) == server


def test_only_connections_that_were_opened_for_the_session_are_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        before = socket.create_connection(address)
        watchdog = Watchdog(Server(("127.0.0.1",), (address[1],)), 0.2)
        with watchdog.connecting(5):
            mine = socket.create_connection(address)
        other = Watchdog(Server(("127.0.0.1",), (address[1],)), 60)
        with other.connecting(5):
            of_another = socket.create_connection(address)
        with watchdog.waiting():
            assert mine.recv(1) == b""
        assert watchdog.struck == "idle"
        for untouched in (before, of_another):
            untouched.settimeout(0.05)
            with pytest.raises(TimeoutError):
                untouched.recv(1)
        for one in (before, mine, of_another):
            one.close()
        watchdog.close()
        other.close()


def test_bytes_that_come_begin_the_limit_anew() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        watchdog = Watchdog(Server(("127.0.0.1",), (address[1],)), 0.3)
        with watchdog.connecting(5):
            client = socket.create_connection(address)
        server, _ = listening.accept()
        with watchdog.waiting():
            for _ in range(12):
                time.sleep(0.05)
                server.sendall(b"x")
                assert client.recv(1) == b"x"
        assert watchdog.struck is None
        watchdog.close()
        client.close()
        server.close()


def test_a_session_is_silent_only_when_all_its_connections_are() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        watchdog = Watchdog(Server(("127.0.0.1",), (address[1],)), 0.3)
        with watchdog.connecting(5):
            unused = socket.create_connection(address)
            listening.accept()[0].detach()
            used = socket.create_connection(address)
        server, _ = listening.accept()
        with watchdog.waiting():
            for _ in range(12):
                time.sleep(0.05)
                server.sendall(b"x")
                assert used.recv(1) == b"x"
            assert watchdog.struck is None
            assert used.recv(1) == b""  # now both are
        assert watchdog.struck == "idle"
        watchdog.close()
        for one in (unused, used, server):
            one.close()


def of_server(server: Server) -> list[tuple[str, int]]:
    return [one.peer for one in connections_to(server, lambda *_: True)]


def test_a_connection_to_another_server_of_the_port_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: dict[str, list[str]] = {"first": ["127.0.0.1"], "second": ["127.0.0.2"]}

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if not addresses[host]:
            raise socket.gaierror
        return [(0, 0, 0, "", (one, 0)) for one in addresses[host]]

    with socket.create_server(("0.0.0.0", 0)) as listening:  # noqa: S104 - of the loopback's addresses
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.2", port)):
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            first, second = Server(("first",), (port,)), Server(("second",), (port,))
            assert of_server(first) == []
            assert of_server(second) == [("127.0.0.2", port)]
            addresses["second"] = ["127.0.0.3"]  # it moved: what is connected stays where it was
            assert of_server(second) == [("127.0.0.2", port)]
            addresses["first"] = addresses["second"] = []
            assert of_server(first) == []
            assert of_server(second) == [("127.0.0.2", port)]
            addresses["never"] = []
            assert of_server(Server(("never",), (port,))) == [("127.0.0.2", port)]


def test_a_look_that_fails_ends_no_watch_and_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        server = Server(("127.0.0.1",), (listening.getsockname()[1],))
        assert of_server(server)
        duplicates = []

        def dup(descriptor: int) -> int:
            duplicates.append(os.open(os.devnull, os.O_RDONLY))  # the number is another file's meanwhile
            return duplicates[-1]

        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", dup)
            assert of_server(server) == []
        assert duplicates
        for one in set(duplicates):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one)

        def no_descriptor(_: object) -> list[str]:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(os, "listdir", no_descriptor)
            assert of_server(server) == []
        assert of_server(server)
