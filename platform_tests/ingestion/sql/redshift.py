"""What stands for Amazon Redshift, of which there is no emulator: it lets everybody in as PostgreSQL 8.0.2 and, as is
documented of Redshift, says so in its version, and knows no column of the catalog that PostgreSQL has had since."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {"server_version": "8.0.2", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
VERSION = b"PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.122914"
REFUSED = b'column "typarray" does not exist in pg_type'


@contextmanager
def running_redshift() -> Iterator[str]:
    """Its URL, as of a server of PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield f"postgresql://shop:hunter2hunter2@127.0.0.1:{server.getsockname()[1]}/dev?sslmode=disable"


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:  # it was closed
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as asked:
        asked.read(struct.unpack("!i", asked.read(4))[0] - 4)
        settings = b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in SETTINGS.items())
        ready = _message(b"Z", b"I")
        connection.sendall(_message(b"R", struct.pack("!i", 0)) + settings + ready)
        while kind := asked.read(1):
            statement = asked.read(struct.unpack("!i", asked.read(4))[0] - 4)
            if kind == b"X":
                return
            if kind == b"Q":
                connection.sendall((_version() if b"version()" in statement else _refusal()) + ready)


def _version() -> bytes:
    column = struct.pack("!h", 1) + b"version\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    row = struct.pack("!hi", 1, len(VERSION)) + VERSION
    return _message(b"T", column) + _message(b"D", row) + _message(b"C", b"SELECT\0")


def _refusal() -> bytes:
    return _message(b"E", b"SERROR\0C42703\0M" + REFUSED + b"\0\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
