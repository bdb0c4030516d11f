"""Connections to the server whose log is read: ordinary ones for questions, and one for the log itself. All that the
driver raises becomes a PlatformError, and no wait is longer than `timeouts` say. What is asked is not decided here.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from struct import pack
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.postgresql.pgoutput import EPOCH
from data_platform.ingestion.sql.dialects.postgresql import SETTINGS, refused, unreachable
from data_platform.ingestion.sql.dialects.session import Timeouts, one_line, overdue
from data_platform.lakehouse.catalog import PORT
from data_platform.lakehouse.settings import require_encoded
from data_platform.lakehouse.watchdog import Watchdog, connect_seconds, libpq_options, server_of
from data_platform.redaction import WITHHELD, register_url

MESSAGES_AT_ONCE = 5_000
BYTES_AT_ONCE = 16 * 2**20
"""Messages of the log, and their bytes, that are taken before anybody else may use the connection."""

LOG_SETTINGS = {
    **SETTINGS,
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    # A reader that waits for its own commit says nothing meanwhile. Whether it is there at all, TCP tells.
    "wal_sender_timeout": "0",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}

WAIT_SECONDS = 0.2
QUIET_SECONDS = 1.0
"""How long is waited for messages before the time is looked at, and before somebody is told that nothing comes."""

IN_USE_SECONDS = 10.0
"""How long a slot that somebody else reads is waited for."""

DRAINED_SECONDS = 5.0
"""How long the end of the log's copy is waited for. If it does not come, the connection is closed all the same."""


def verbatim(sql: str) -> str:
    """SQL that may have a percent sign in it, for a statement with values."""
    return sql.replace("%", "%%")


class _Connection:
    """A connection of psycopg that is watched. Use it in a `with` statement."""

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool, of_log: bool = False) -> None:
        require_encoded(url, "The address of the database")
        register_url(url)
        connect = max(2, connect_seconds(url, timeouts.connect.total_seconds()))
        self.url, self.withholds = url, withholds
        self.timeouts = Timeouts(timedelta(seconds=connect), timeouts.idle, timeouts.statement)
        total = None if of_log else timeouts.statement.total_seconds()
        self.watchdog = Watchdog(server_of(url, PORT), timeouts.idle.total_seconds(), total)
        given: dict[str, Any] = {}
        if of_log:
            options = conninfo_to_dict(url).get("options") or ""
            settings = " ".join(f"-c {name}={value}" for name, value in LOG_SETTINGS.items())
            given = {"replication": "database", "options": f"{options} {settings}".strip()}
        try:
            with self.watchdog.connecting(connect):
                # Prepared statements are nothing for a pooler in between.
                self.connection = psycopg.connect(
                    libpq_options(url, connect), autocommit=True, row_factory=dict_row, prepare_threshold=None, **given
                )
        except psycopg.Error as error:
            self.watchdog.close()
            raise self.overdue() or self._unreachable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection, whatever state it is in."""
        self.watchdog.close()
        self.connection.close()

    def overdue(self) -> PlatformError | None:
        """The limit that the connection met, if it was given up."""
        return overdue(self.watchdog.struck, "PostgreSQL", self.url, self.timeouts)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Wait for the server, and turn what it and the driver report into PlatformError."""
        try:
            with self.watchdog.waiting():
                yield
        except psycopg.Error as error:
            raise self.overdue() or self.refused(error) from None

    def refused(self, error: psycopg.Error) -> PlatformError:
        """What an error of the driver says."""
        return refused(self.url, self.said(error), str(error), error.sqlstate, withholds=self.withholds)

    def said(self, error: psycopg.Error) -> str:
        """What the server says in an error, as far as it may be shown."""
        if not self.withholds:
            return one_line(str(error))
        return f"SQLSTATE {error.sqlstate} {WITHHELD}" if error.sqlstate else WITHHELD

    def _unreachable(self, error: psycopg.Error) -> PlatformError:
        text = one_line(str(error))
        if "max_wal_senders" in text:
            return PlatformError(
                f"PostgreSQL takes no further reader of its log: {text}. Raise max_wal_senders in its configuration "
                "(which needs a restart), or end a reader that is not needed (pg_stat_replication shows them)."
            )
        return unreachable(self.url, self.timeouts, text.removeprefix("connection failed: "))


class Server(_Connection):
    """An ordinary connection, each statement a transaction of its own."""

    def __init__(self, url: str, timeouts: Timeouts, *, withholds: bool) -> None:
        super().__init__(url, timeouts, withholds=withholds)
        try:
            milliseconds = str(timeouts.statement // timedelta(milliseconds=1))
            settings = {**SETTINGS, "statement_timeout": milliseconds}
            calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
            # It has nothing to say while a table is copied, which no server may take for idleness.
            idle = "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'"
            self.rows(f"select concat({calls}), ({idle})", [part for pair in settings.items() for part in pair])
        except BaseException:
            self.close()
            raise

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The rows of a statement; none if it yields none. Raises PlatformError."""
        with self.reporting():
            return self._rows(statement, values)

    def rows_or_error(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The same, but what the server says of the statement is raised as it is; of the connection, PlatformError."""
        try:
            with self.watchdog.waiting():
                return self._rows(statement, values)
        except psycopg.Error as error:
            if self.connection.closed or self.watchdog.struck:
                raise self.overdue() or self.refused(error) from None
            raise

    def row(self, statement: str, values: Sequence[object] = ()) -> dict[str, Any]:
        """The only row of a statement."""
        (found,) = self.rows(statement, values)
        return found

    def _rows(self, statement: str, values: Sequence[object]) -> list[dict[str, Any]]:
        self.watchdog.begin()
        with self.connection.cursor() as cursor:
            cursor.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description is not None else []


class LogConnection(_Connection):
    """The connection over which the log comes, from `start`. One thread takes messages; another may acknowledge: libpq
    is used by one of them at a time, and nobody waits for the server while it holds the lock."""

    def __init__(
        self, url: str, timeouts: Timeouts, slot: str, publication: str, start: str, confirmed: int, *, withholds: bool
    ) -> None:
        super().__init__(url, timeouts, withholds=withholds, of_log=True)
        self._lock = threading.Lock()
        self._confirmed = 0
        self._asked = time.monotonic()
        self._ask_every = min(10.0, timeouts.idle.total_seconds() / 3)
        self._libpq = self.connection.pgconn
        name = publication.replace('"', '""').replace("'", "''")
        options = f"(proto_version '1', publication_names '\"{name}\"')"
        command = f'START_REPLICATION SLOT "{slot}" LOGICAL {start} {options}'
        try:
            self._start(command, slot)
            self.confirm(confirmed)
        except BaseException:
            self.close()
            raise

    def _start(self, command: str, slot: str) -> None:
        """Begin; a reader that was killed a moment ago may still have the slot."""
        until = time.monotonic() + IN_USE_SECONDS
        while True:
            with self.reporting():
                result = self._libpq.exec_(command.encode())
                if result.status == psycopg.pq.ExecStatus.COPY_BOTH:
                    return
                error = psycopg.errors.error_from_result(result)
                if not isinstance(error, psycopg.errors.ObjectInUse):
                    raise error
            if time.monotonic() >= until:
                raise TransientError(
                    f"The replication slot {slot} is read by somebody else: {self.said(error)}. A slot has one reader "
                    "at a time: wait for the run that reads it, or end it."
                )
            time.sleep(0.2)

    def messages(self, quiet: Callable[[], None]) -> list[bytes]:
        """What has come, or what comes next; `quiet` is called every QUIET_SECONDS in which nothing does. Raises
        PlatformError if the server ends the log, or says nothing for longer than it may."""
        with self.reporting():
            called = time.monotonic()
            while not (found := self._take()):
                now = time.monotonic()
                if now - self._asked >= self._ask_every:
                    # A server with nothing to send is silent. An answer shows that it is there.
                    self._asked = now
                    self._status(asks=True)
                if now - called >= QUIET_SECONDS:
                    called = now
                    quiet()
                select.select([self._libpq.socket], [], [], WAIT_SECONDS)
                with self._lock:
                    self._libpq.consume_input()
        return found

    def _take(self) -> list[bytes]:
        found: list[bytes] = []
        with self._lock:
            taken = 0
            while len(found) < MESSAGES_AT_ONCE and taken < BYTES_AT_ONCE:
                size, data = self._libpq.get_copy_data(1)
                if size > 0:
                    found.append(bytes(data))
                    taken += size
                elif size == 0:
                    break
                else:
                    result = self._libpq.get_result()
                    if result is not None and result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                        raise psycopg.errors.error_from_result(result)
                    raise psycopg.OperationalError("server closed the connection in the middle of its log")
        return found

    def confirm(self, position: int) -> None:
        """Tell the server that all before `position` is committed here: it need not keep it. Of a connection that has
        broken nothing is said here: whoever reads is told, and the next reading confirms as it begins."""
        self._confirmed = max(self._confirmed, position)
        with suppress(psycopg.OperationalError):
            self._status()

    def answer(self) -> None:
        """Answer a server that asks whether somebody is there."""
        with suppress(psycopg.OperationalError):
            self._status()

    def _status(self, *, asks: bool = False) -> None:
        now = time.time_ns() // 1000 - EPOCH
        message = b"r" + pack(">QQQqB", self._confirmed, self._confirmed, self._confirmed, now, asks)
        with self._lock:
            self._libpq.put_copy_data(message)
            self._libpq.flush()

    def close(self) -> None:
        """End the log in good order if that is possible at once, so that the server has noted what was confirmed."""
        with suppress(psycopg.Error):
            if self._confirmed and not self.connection.closed and self.watchdog.struck is None:
                self._end()
        super().close()

    def _end(self) -> None:
        with self._lock, self.watchdog.waiting():
            self._libpq.put_copy_end()
            self._libpq.flush()
            until = time.monotonic() + DRAINED_SECONDS
            while time.monotonic() < until:
                size, _ = self._libpq.get_copy_data(1)
                if size < 0:
                    return
                if size == 0:
                    select.select([self._libpq.socket], [], [], 0.2)
                    self._libpq.consume_input()
