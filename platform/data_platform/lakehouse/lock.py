"""The writer lock: one writer commits at a time. On SQLite because concurrent commits meet "database is locked", on
PostgreSQL because every commit moves a row of the ledger, and DuckLake takes that for a conflict (two of three commits,
with six writers). The lock is the operating system's or the server's, so it ends with the process that held it.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import adbc_driver_postgresql.dbapi
from filelock import FileLock, Timeout

from data_platform.errors import TransientError
from data_platform.lakehouse.catalog import PORT, catalog_address
from data_platform.lakehouse.settings import Settings, redact_url
from data_platform.lakehouse.watchdog import CONNECT_SECONDS, Watchdog, connect_seconds, server_of

LOCK_SECONDS = 900
"""How long to wait for other writers, each of which commits in milliseconds."""

ADVISORY_LOCK = 7_305_126_417
"""The key of PostgreSQL's advisory lock: any number, the same in every process."""


@contextmanager
def writer_lock(settings: Settings, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the right to commit. Not reentrant. Raises TransientError if it is not to be had within `seconds`, or
    if the catalog does not answer."""
    if settings.catalog_is_sqlite:
        path = Path(f"{settings.catalog}.writer.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=seconds, poll_interval=0.005)
        try:
            lock.acquire()
        except Timeout:
            raise _hanging(settings, seconds) from None
        try:
            yield
        finally:
            lock.release()
        return
    # A server that answers nothing at all is found out soon after it should have said that the lock is not to be had.
    watchdog = Watchdog(server_of(settings.catalog, PORT), seconds + CONNECT_SECONDS)
    with closing(watchdog):
        try:
            with watchdog.connecting(connect_seconds(settings.catalog, CONNECT_SECONDS)):
                connection = adbc_driver_postgresql.dbapi.connect(catalog_address(settings), autocommit=True)
        except adbc_driver_postgresql.dbapi.Error as error:
            raise TransientError(
                f"The catalog at {redact_url(settings.catalog)} does not answer ({type(error).__name__}). Check "
                "LAKEHOUSE_CATALOG, and that the server runs; `connect_timeout` in its URL says how many seconds it is "
                f"waited for, by default {CONNECT_SECONDS}."
            ) from None
        # Closing the connection releases the lock.
        with connection:
            with watchdog.waiting(), connection.cursor() as cursor:
                try:
                    cursor.execute("SET statement_timeout = 0")
                    cursor.execute(f"SET lock_timeout = {max(1, int(seconds * 1000))}")
                    cursor.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
                    cursor.fetchall()
                except adbc_driver_postgresql.dbapi.Error as error:
                    raise _no_lock(settings, seconds, error) from None
            yield


def _no_lock(settings: Settings, seconds: float, error: adbc_driver_postgresql.dbapi.Error) -> TransientError:
    if "lock timeout" in str(error):
        return _hanging(settings, seconds)
    return TransientError(
        f"The catalog at {redact_url(settings.catalog)} was asked for the right to commit and broke off, or said "
        f"nothing for {seconds + CONNECT_SECONDS:g} s. Check its server and the network between, and start again."
    )


def _hanging(settings: Settings, seconds: float) -> TransientError:
    return TransientError(
        f"Another process has been writing to the lakehouse {redact_url(settings.catalog)} for {seconds:g} s. "
        "Look for a run that hangs (`dp status`), end it, and start again."
    )
