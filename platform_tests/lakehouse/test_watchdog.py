"""Which sockets of this process belong to a server, and which server a URL means."""

import socket
import time

import pytest

from data_platform.lakehouse.watchdog import Server, Watchdog, server_of


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
