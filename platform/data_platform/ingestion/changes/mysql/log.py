"""The binary log as the server sends it: places in it, its events, and how a reader asks for them. What rows events
hold is in `images`, what becomes of them in `source`.

The events are taken apart here and not by mysql-replication, whose transport this replaces: it connects again in
silence in the middle of a transaction, passes over events that it does not know, makes nulls of zero dates and empty
sets and empty text of names that are not UTF-8, and builds a dictionary for each row, at a tenth of the speed.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from pymysql.constants import COMMAND

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.mysql.connection import Connection, lengthed

FIRST = 4
"""Where the first event of each file begins."""

ONLY_TO_THE_END = 0x01
"""BINLOG_DUMP_NON_BLOCK: the server ends the answer at the end of the log."""

ARTIFICIAL, IGNORABLE = 0x20, 0x80
"""Flags of events: made by the server for this reader alone; of no matter to readers that do not know it."""

HEADER = struct.Struct("<IBIIIH")
"""When, what, by which server, of how many bytes, where the next event begins, flags."""


class Kind(IntEnum):
    """The kinds of events that are looked at."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    FORMAT = 15
    XID = 16
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_V1 = 23
    UPDATE_V1 = 24
    DELETE_V1 = 25
    HEARTBEAT = 27
    WRITE = 30
    UPDATE = 31
    DELETE = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    XA_PREPARE = 38
    PARTIAL_UPDATE = 39
    PAYLOAD = 40
    MARIADB_GTID = 162
    QUERY_COMPRESSED = 165
    WRITE_COMPRESSED_V1 = 166
    UPDATE_COMPRESSED_V1 = 167
    DELETE_COMPRESSED_V1 = 168
    WRITE_COMPRESSED = 169
    UPDATE_COMPRESSED = 170
    DELETE_COMPRESSED = 171


HARMLESS = frozenset({3, 5, 13, 14, 17, 27, 29, 35, 36, 37, 41, 160, 161, 163, 164})
"""Events that say nothing of rows: variables of statements that are there as rows or refused, blocks of files to be
loaded (the statement that loads them comes after), notes, sets of GTIDs, heartbeats."""

KNOWN = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True)
class Place:
    """A place in the log: a file, and a number of bytes into it. Places are ordered as the log was written."""

    file: str
    at: int

    @cached_property
    def order(self) -> tuple[int, int]:
        """What orders places: files are numbered, and the number may get more digits."""
        number = re.search(r"\d+$", self.file)
        return (int(number[0]) if number else 0, self.at)

    def __le__(self, other: "Place") -> bool:
        return self.order <= other.order

    def __ge__(self, other: "Place") -> bool:
        return self.order >= other.order

    def __lt__(self, other: "Place") -> bool:
        return self.order < other.order

    def __str__(self) -> str:
        return f"{self.file}:{self.at}"


class Event(NamedTuple):
    """An event: its kind, when it was written (seconds since 1970), by which server, and its body."""

    kind: int
    when: int
    server: int
    body: bytes


class Log:
    """The log from a place on, or, on MariaDB, from after a GTID on, to its end. `file` is the file that the last event
    came from, and `created` when that was begun: a server that was restored writes another file of the same name.

    Raises PlatformError for an event that cannot be read, TransientError for one that came damaged.
    """

    def __init__(self, connection: Connection, server_id: int, start: Place | None, gtid: str = "") -> None:
        self.file, self.created = start.file if start is not None else "", 0
        self._at = start.at if start is not None else FIRST
        self._connection = connection
        # Whoever does not say that it knows checksums gets none, and whoever does not know GTIDs dummies for them.
        connection.run("set @master_binlog_checksum = @@global.binlog_checksum")
        self._checked = connection.value("select @@global.binlog_checksum") not in (None, "NONE")
        if connection.is_mariadb:
            connection.run("set @mariadb_slave_capability = 4")
            if start is None:
                connection.run(f"set @slave_connect_state = '{gtid}'")
        payload = struct.pack("<IHI", self._at, ONLY_TO_THE_END, server_id) + self.file.encode()
        self._packets = connection.command(COMMAND.COM_BINLOG_DUMP, payload)

    @property
    def place(self) -> Place:
        """Where the event after the last one begins."""
        return Place(self.file, self._at)

    def begin_again(self) -> None:
        """Have the time limit of a statement count from now: reading a log has no end of its own."""
        self._connection.watchdog.begin()

    def events(self) -> Iterator[Event]:
        """The events, those that only the transport needs left out; a change of the file is among them."""
        unpack, crc32 = HEADER.unpack_from, zlib.crc32
        for packet in self._packets:
            if packet[0] == 0xFE and len(packet) < 9:
                return
            when, kind, server, size, end, flags = unpack(packet, 1)
            if kind == Kind.FORMAT:
                # Whether the events of the file have checksums: their kind stands before that of this event, which it
                # has in any case, but may be wrong where the others have none.
                self._checked = packet[-5] == 1
            checked = self._checked
            if checked and crc32(memoryview(packet)[1:-4]) != int.from_bytes(packet[-4:], "little"):
                raise TransientError(
                    f"{self._connection.where}: the event of its binary log before {self.file}:{end} came damaged: its "
                    "checksum is wrong. What was committed stays. If the next load meets it too, look at the file with "
                    "mysqlbinlog --verify-binlog-checksum."
                )
            if size != len(packet) - 1:
                raise TransientError(
                    f"{self._connection.where}: an event of its binary log after {self.place} came cut: {size:,} bytes "
                    f"are announced, and {len(packet) - 1:,} came."
                )
            if kind == Kind.FORMAT:
                self.created = when
            body = packet[20:-4] if checked else packet[20:]
            if kind == Kind.ROTATE:
                self.file, self._at = body[8:].decode(), int.from_bytes(body[:8], "little")
                if not flags & ARTIFICIAL and end:
                    yield Event(kind, when, server, body)
                continue
            if end and not flags & ARTIFICIAL:
                # 32 bits of the place: a transaction may be larger than that.
                self._at += (end - self._at) % 2**32
            if kind in HARMLESS or kind == Kind.FORMAT:
                continue
            if kind not in KNOWN and not flags & IGNORABLE:
                raise PlatformError(
                    f"{self._connection.where}: the binary log has an event of the unknown type {kind} before "
                    f"{self.place}: what changed there cannot be told. Nothing from there on was read."
                )
            yield Event(kind, when, server, body)


def statement(event: Event, *, file_loads: bool = False) -> tuple[str, str]:
    """The database and the text of the statement of a query event."""
    body = event.body
    length, variables = body[8], int.from_bytes(body[11:13], "little")
    start = 13 + (13 if file_loads else 0) + variables
    database = body[start : start + length].decode("utf-8", "replace")
    text = body[start + length + 1 :]
    if event.kind == Kind.QUERY_COMPRESSED:
        text = uncompressed(text)
    return database, text.decode("utf-8", "replace")


def mariadb_gtid(event: Event) -> tuple[str, str, bool]:
    """The domain of a GTID of MariaDB, the GTID, and whether it is of a statement that stands for itself."""
    number, domain, flags = struct.unpack_from("<QIB", event.body)
    return str(domain), f"{domain}-{event.server}-{number}", bool(flags & 1)


def uncompressed(data: bytes) -> bytes:
    """What MariaDB compressed with log_bin_compress: a byte that says how, the length, and what zlib made."""
    width = data[0] & 0x07
    if data[0] & 0x70:
        raise PlatformError(
            "The binary log has events that are compressed in an unknown way: set log_bin_compress=OFF."
        )
    return zlib.decompress(data[1 + width :])


@dataclass(frozen=True)
class RowsEvent:
    """What a rows event says before its rows: the table by its number in the log, how many columns it has, whether each
    of them is there, and the images of rows after one another."""

    table: int
    columns: int
    complete: bool
    images: bytes


WRITES = frozenset({Kind.WRITE_V1, Kind.WRITE, Kind.WRITE_COMPRESSED_V1, Kind.WRITE_COMPRESSED})
UPDATES = frozenset({Kind.UPDATE_V1, Kind.UPDATE, Kind.UPDATE_COMPRESSED_V1, Kind.UPDATE_COMPRESSED})
DELETES = frozenset({Kind.DELETE_V1, Kind.DELETE, Kind.DELETE_COMPRESSED_V1, Kind.DELETE_COMPRESSED})
OF_ROWS = WRITES | UPDATES | DELETES | {Kind.PARTIAL_UPDATE}
FIRST_VERSION = frozenset(kind for kind in Kind if kind.name.endswith("_V1"))


def table_number(body: bytes) -> int:
    """The number by which a table map, and the rows events after it, name a table."""
    return int.from_bytes(body[:6], "little")


def rows_event(event: Event) -> RowsEvent:
    """Take a rows event apart, as far as its rows."""
    kind, body = event.kind, event.body
    at = 8 if kind in FIRST_VERSION else 8 + int.from_bytes(body[8:10], "little")
    columns, at = lengthed(body, at)
    width = (columns + 7) // 8
    bitmaps = 2 if kind in UPDATES else 1
    everything = ((1 << columns) - 1).to_bytes(width, "little")
    complete = all(
        # Bits beyond the columns mean nothing.
        int.from_bytes(body[start : start + width], "little") & int.from_bytes(everything, "little")
        == int.from_bytes(everything, "little")
        for start in range(at, at + bitmaps * width, width)
    )
    at += bitmaps * width
    images = body[at:]
    if kind >= Kind.WRITE_COMPRESSED_V1:
        images = uncompressed(images)
    return RowsEvent(table_number(body), columns, complete, images)
