"""A connection to MySQL or MariaDB by pymysql, in the way that the binary log and a consistent snapshot need: one
session that stays, its answers packet by packet, no reconnecting. What is asked and what the bytes mean is not here.

pymysql's own reading of packets takes two calls to the socket's buffer for each of them; here they are cut out of large
pieces of what came, which is what makes reading the log fast.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import COMMAND, CR

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.dialects.mysql import PORT
from data_platform.ingestion.sql.dialects.session import one_line, overdue
from data_platform.lakehouse.settings import redact_url
from data_platform.lakehouse.watchdog import Watchdog, server_of
from data_platform.redaction import WITHHELD, register_url

PRODUCT = "MySQL"

PIECE = 256 * 1024
"""Bytes that are asked of the socket at once."""

LARGEST_PACKET = 0xFFFFFF
"""The length of a packet that goes on in the next one."""

WRITE_SECONDS = 24 * 3600
"""How long the server waits for us to take what it sends: while a load commits, nobody reads."""

NO_SUCH_COLUMN, ACCESS_DENIED, LOG_FATAL = 1054, 1227, 1236
FORBIDDEN = {1142, 1143, ACCESS_DENIED, 1370}
NO_ENTRANCE = {1044, 1045, 1049, 1129, 1130, 1203, 1040, CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST}
LOST = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 1053, 1927, 1158, 1159, 1160, 1161, 4031}


class ServerError(PlatformError):
    """What the server answered to a statement; `code` is its number, `said` its text as far as it may be shown."""

    def __init__(self, message: str, code: int, said: str) -> None:
        super().__init__(message)
        self.code, self.said = code, said


class Connection:
    """A session with the server of a URL `mysql://user:password@host:port/database`, its time zone UTC. `withholds`
    keeps what the server says in errors out of messages: it may quote values of masked columns."""

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool = False) -> None:
        register_url(url)
        self.url, self.timeouts, self.withholds = url, timeouts, withholds
        self.where = f"{PRODUCT} at {redact_url(url)}"
        parts = urlsplit(url)
        self.database = unquote(parts.path.lstrip("/"))
        if not self.database:
            raise PlatformError(f"{redact_url(url)} names no database. Write mysql://user@host:port/database.")
        seconds = timeouts.connect.total_seconds()
        self.watchdog = Watchdog(
            server_of(url, PORT), timeouts.idle.total_seconds(), timeouts.statement.total_seconds()
        )
        try:
            with self._reporting(), self.watchdog.connecting(seconds):
                self._pymysql = pymysql.connect(
                    host=parts.hostname or "127.0.0.1",
                    port=parts.port or PORT,
                    user=unquote(parts.username or ""),
                    password=unquote(parts.password or ""),
                    database=self.database,
                    charset="utf8mb4",
                    autocommit=True,
                    conv={},
                    connect_timeout=seconds,
                )
            self.run("set time_zone = '+00:00'")
            self.run(f"set session net_write_timeout = {WRITE_SECONDS}, session wait_timeout = {WRITE_SECONDS}")
        except BaseException:
            self.watchdog.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection, whatever it is in the middle of: what the server still sends is not waited for."""
        try:
            with suppress(pymysql.Error, OSError):
                self._pymysql._force_close()
        finally:
            self.watchdog.close()

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB rather than MySQL itself."""
        return "mariadb" in str(self._pymysql.get_server_info()).lower()

    def run(self, statement: str) -> None:
        """Run a statement of which nothing comes."""
        self.rows(statement)

    def rows(self, statement: str) -> list[tuple[str | None, ...]]:
        """The rows of a short answer, all of their values as text."""
        self.watchdog.begin()
        with self._reporting(), self.watchdog.waiting(), self._pymysql.cursor() as cursor:
            cursor.execute(statement)
            return [
                tuple(value.decode() if isinstance(value, bytes) else value for value in row)
                for row in cursor.fetchall() or ()
            ]

    def table(self, statement: str) -> list[dict[str, str | None]]:
        """The rows of a short answer, by the names of the columns in small letters."""
        self.watchdog.begin()
        with self._reporting(), self.watchdog.waiting(), self._pymysql.cursor() as cursor:
            cursor.execute(statement)
            names = [column[0].lower() for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall() or ()]

    def value(self, statement: str) -> str | None:
        """The only value of an answer; None if there is no row."""
        rows = self.rows(statement)
        return rows[0][0] if rows else None

    def stream(self, statement: str) -> Iterator[tuple[bytes | None, ...]]:
        """The rows of a long answer as they come, their values as the server writes them."""
        answer = self.command(COMMAND.COM_QUERY, statement.encode())
        with self._reporting():
            columns = next(answer)[0]
            for _ in range(columns + 1):  # what they are, and the end of that
                next(answer)
            for packet in answer:
                if packet[0] == 0xFE and len(packet) < 9:
                    return
                yield _values(packet, columns)

    def command(self, command: int, payload: bytes) -> Iterator[bytes]:
        """Send a command; the packets of its answer, as long as somebody wants them."""
        self.watchdog.begin()
        with self._reporting(), self.watchdog.waiting():
            self._pymysql._execute_command(command, payload)
        return self._packets()

    def _packets(self) -> Iterator[bytes]:
        read = self._pymysql._rfile.read1
        unpack = struct.Struct("<HB").unpack_from
        held, at, parts = b"", 0, []
        with self._reporting():
            while True:
                there = len(held) - at
                if there >= 4:
                    low, high = unpack(held, at)
                    length = low | high << 16
                else:
                    length = 0
                if there < 4 or there < 4 + length:
                    with self.watchdog.waiting():
                        more = read(max(PIECE, 4 + length - there))
                    if not more:
                        raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to server")
                    held, at = held[at:] + more, 0
                    continue
                packet = held[at + 4 : at + 4 + length]
                at += 4 + length
                if length == LARGEST_PACKET:
                    parts.append(packet)
                    continue
                if parts:
                    packet, parts = b"".join((*parts, packet)), []
                if packet[:1] == b"\xff":
                    pymysql.err.raise_mysql_exception(packet)
                yield packet

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what pymysql and the server report into PlatformError."""
        try:
            yield
        except (pymysql.Error, OSError) as error:
            if (given_up := overdue(self.watchdog.struck, PRODUCT, self.url, self.timeouts)) is not None:
                raise given_up from None
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            text = one_line(str(error.args[1] if len(error.args) > 1 else error))
            broke = code in LOST or isinstance(error, OSError)
        else:
            return
        said = f"{WITHHELD} (error {code})" if self.withholds else text
        if code in NO_ENTRANCE:
            raise PlatformError(
                f"Cannot connect to {self.where}: {said}. Check that the server runs, and host, port, user, password "
                "and database in the URL."
            )
        if broke:
            raise TransientError(
                f"The connection to {self.where} broke: {said}. What was committed stays; the next load goes on from "
                "it."
            )
        if code in FORBIDDEN:
            raise ServerError(
                f"{self.where} forbids it: {said}. Change capture needs: GRANT SELECT on the tables, and GRANT "
                f"REPLICATION SLAVE, {'BINLOG MONITOR' if self.is_mariadb else 'REPLICATION CLIENT'} ON *.*",
                code,
                said,
            )
        raise ServerError(f"{self.where} could not answer: {said}.", code, said)


def _values(packet: bytes, columns: int) -> tuple[bytes | None, ...]:
    """The values of a row as the protocol writes them: each with its length before it."""
    values: list[bytes | None] = []
    at = 0
    for _ in range(columns):
        length = packet[at]
        at += 1
        if length >= 251:
            if length == 251:
                values.append(None)
                continue
            width = (2, 3, 8)[length - 252]
            length = int.from_bytes(packet[at : at + width], "little")
            at += width
        values.append(packet[at : at + length])
        at += length
    return tuple(values)


def lengthed(data: bytes, at: int) -> tuple[int, int]:
    """A number that the protocol writes in one to nine bytes, and where the next thing begins."""
    first = data[at]
    if first < 251:
        return first, at + 1
    width = (2, 3, 8)[first - 252]
    return int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width


def texts_of(connection: Connection, expressions: Sequence[str], at_once: int = 500) -> list[str | None]:
    """What the server makes of SQL expressions, many at once."""
    found: list[str | None] = []
    for start in range(0, len(expressions), at_once):
        parts = expressions[start : start + at_once]
        # Numbered: the parts of a union come in no promised order.
        selects = " union all ".join(f"select {number} as n, {one} as v" for number, one in enumerate(parts))
        rows = connection.rows(f"select v from ({selects}) as asked order by n")
        found += [value for (value,) in rows]
    return found
