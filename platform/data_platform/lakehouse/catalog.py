"""The limits of a PostgreSQL catalog, whose connections DuckDB opens when it likes and nobody else can reach: those in
its address, and a watch over the ones that are quiet. What is done with the catalog belongs in the modules beside this.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Lock, Thread
from urllib.parse import parse_qsl, quote, urlsplit

import adbc_driver_postgresql.dbapi
import duckdb

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.settings import Settings, redact_url
from data_platform.lakehouse.watchdog import (
    CONNECT_SECONDS,
    KEEPALIVE,
    LOOKS,
    Watchdog,
    connect_seconds,
    connections_to,
    is_claimed,
    libpq_options,
    server_of,
    shut_down,
)

PORT = 5432
"""PostgreSQL's own, where a URL names none."""


def catalog_address(settings: Settings) -> str:
    """Where DuckDB finds the catalog: of a PostgreSQL server with the limits of its connections, as far as the URL does
    not give them itself."""
    if settings.catalog_is_sqlite:
        return settings.catalog
    address = libpq_options(settings.catalog)
    if "options" in dict(parse_qsl(urlsplit(address).query, keep_blank_values=True)):
        return address
    limit = settings.catalog_timeout // timedelta(milliseconds=1)
    # The server, too, has to find out that the other side is gone: it holds the locks.
    given = {"statement_timeout": limit, **{f"tcp_{name}": value for name, value in KEEPALIVE.items()}}
    options = quote(" ".join(f"-c {name}={value}" for name, value in given.items()), safe="")
    return f"{address}&options={options}"


def without_password(text: str, settings: Settings) -> str:
    """A message of DuckDB's without the password of the catalog."""
    shown = redact_url(settings.catalog)
    for address in (catalog_address(settings), settings.catalog):
        text = text.replace(address, shown)
    return text


@contextmanager
def within_limits(settings: Settings) -> Iterator[None]:
    """Watch the connections to the catalog. Raises TransientError, naming the limit, if the block fails because one was
    met; of an error that is one already it keeps the type and adds the limit."""
    if settings.catalog_is_sqlite:
        yield
        return
    watch, begun = _watch(settings), time.monotonic()
    try:
        yield
    except (duckdb.Error, PlatformError) as error:
        limit = f"{settings.catalog_timeout.total_seconds():,g} s, the limit LAKEHOUSE_CATALOG_TIMEOUT"
        where = f"The catalog at {redact_url(settings.catalog)}"
        cause = error if isinstance(error, duckdb.Error) else error.__context__
        said = str(cause) if isinstance(cause, duckdb.Error) else ""  # others are of a source
        if watch.struck_at >= begun:
            met = (
                f"{where} said nothing for {limit}, and did not answer a new connection either: its connections were "
                "given up. What was committed stays; the next run takes up where the ledger stands. Check the server "
                "and the network between."
            )
        elif "timeout expired" in said:
            met = (
                f"{where} did not answer in time: the limit is `connect_timeout` in the URL of LAKEHOUSE_CATALOG, by "
                f"default {CONNECT_SECONDS} s. Check that the server runs, that host and port are right, and that no "
                "firewall is between."
            )
        elif "statement timeout" in said:
            met = (
                f"{where} ended a statement that took more than {limit}. Look for what keeps the server busy, or "
                "holds a lock in the catalog's database; raise the setting if it is only slow."
            )
        else:
            raise
        if isinstance(error, TransientError):
            raise type(error)(f"{error} {met}") from error
        raise TransientError(met) from error


class _Watch(Thread):
    """Looks at the connections of this process to one catalog for as long as it lives. A quiet one may wait for the
    server or for us: so once one has been quiet for `seconds`, the server is asked, by another connection, whether it
    still answers anybody. If not, the quiet ones are shut down."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(name="catalog watch", daemon=True)
        self._url, self._server, self._seconds = url, server_of(url, PORT), seconds
        self.struck_at = float("-inf")
        self._pause = Event()

    def run(self) -> None:
        answered_at = float("-inf")
        while True:
            self._pause.wait(min(1.0, self._seconds / LOOKS))
            quiet = {one.inode for one in connections_to(self._server, self._is_quiet)}
            if not quiet or time.monotonic() - answered_at < self._seconds:
                continue
            if self._answers():
                answered_at = time.monotonic()
            else:
                self.struck_at = time.monotonic()
                shut_down(quiet)

    def _is_quiet(self, inode: int, silent_for: float) -> bool:
        return silent_for >= self._seconds and not is_claimed(inode)

    def _answers(self) -> bool:
        """Whether the server answers at all, be it with a refusal."""
        watchdog = Watchdog(self._server, CONNECT_SECONDS)
        try:
            with watchdog.connecting(connect_seconds(self._url, CONNECT_SECONDS)):
                connection = adbc_driver_postgresql.dbapi.connect(libpq_options(self._url), autocommit=True)
            connection.close()
        except adbc_driver_postgresql.dbapi.Error as error:
            return watchdog.struck is None and "timeout expired" not in str(error)
        finally:
            watchdog.close()
        return True


_watches: dict[tuple[str, float], _Watch] = {}
_watches_lock = Lock()


def _watch(settings: Settings) -> _Watch:
    key = settings.catalog, settings.catalog_timeout.total_seconds()
    with _watches_lock:
        if key not in _watches:
            _watches[key] = _Watch(*key)
            _watches[key].start()
        return _watches[key]
