"""A database that is connected and says nothing: each limit ends the wait, says which it is and what raises it, and a
connection that lives is not cut, however slow it is. Behind a proxy that stops forwarding, as frozen servers do."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from platform_tests.ingestion.reading import read_all, reading
from platform_tests.proxy import Proxy, proxy_to
from platform_tests.servers import Postgres, fresh_database, mariadb_is_installed, running_mariadb

from data_platform.components.sql import SqlSource
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import database
from data_platform.lakehouse.settings import settings_from_environment

ROWS = 40_000

DATABASES = [
    "postgresql",
    pytest.param(
        "mysql",
        marks=pytest.mark.skipif(
            not (mariadb_is_installed() or os.environ.get("MYSQL_URL")),
            reason="no MariaDB here: apt-get install mariadb-server, or set MYSQL_URL",
        ),
    ),
]


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with a table of some megabytes."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        with fresh_database(server) as found:
            with psycopg.connect(found, autocommit=True) as connection:
                connection.execute(
                    f"create table t as select i as id, repeat(md5(i::text), 8) as v from generate_series(1, {ROWS}) i"
                )
            yield found
        return
    with running_mariadb() as server_url:
        port = urlsplit(server_url).port
        duck = database(settings_from_environment())
        duck.execute("LOAD mysql_scanner")
        duck.execute(f"ATTACH 'host=127.0.0.1 port={port} user=root' AS server (TYPE mysql)")
        for statement in (
            "create database stalls",
            f"create table stalls.t as select seq as id, repeat(md5(seq), 8) as v from stalls.seq_1_to_{ROWS}",
        ):
            duck.execute("CALL mysql_execute('server', ?)", [statement])
        duck.close()
        yield f"{server_url}/stalls"


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    with proxy_to(url) as proxy:
        yield proxy


def source(proxy: Proxy, **limits: float) -> Relational:
    timeouts = {name: timedelta(seconds=seconds) for name, seconds in {"connect": 2, "idle": 1, **limits}.items()}
    return Relational(proxy.url, {"t": SqlTable(key=["id"], contract="x")}, Timeouts(**timeouts))


def given_up(source: Relational, within: float) -> PlatformError:
    """What a reading raises, in so many seconds at most; nothing of it is left behind."""
    started = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        read_all(source)
    assert time.monotonic() - started < within
    deadline = time.monotonic() + 2
    while any(one.name == "watchdog" for one in threading.enumerate()):
        assert time.monotonic() < deadline, "a watchdog outlives its session"
        time.sleep(0.01)
    return caught.value


def test_a_server_that_accepts_and_does_not_answer_is_given_up_at_the_limit_of_connecting(proxy: Proxy) -> None:
    proxy.stall()
    error = given_up(source(proxy), 8)
    assert isinstance(error, TransientError)
    assert "2 s, the limit `connect_timeout`" in str(error)
    assert "`connect_timeout` of the source in its defs.yaml" in str(error)


def test_a_server_that_falls_silent_while_it_is_connected_is_given_up(proxy: Proxy) -> None:
    proxy.stall_after = 400
    error = given_up(source(proxy), 8)
    assert isinstance(error, TransientError)
    assert "`connect_timeout`" in str(error)


def test_rows_that_cease_to_come_end_at_the_limit_of_silence(proxy: Proxy) -> None:
    with reading(source(proxy)):
        pass
    proxy.stall_after = proxy.forwarded + ROWS * 8
    error = given_up(source(proxy), 8)
    assert isinstance(error, TransientError)
    assert "said nothing for 1 s, the limit `idle_timeout`" in str(error)
    assert "raise `idle_timeout` of the source in its defs.yaml" in str(error)


def test_a_statement_of_which_no_row_comes_ends_at_the_limit_of_silence(proxy: Proxy) -> None:
    slow = source(proxy)
    with slow.reading(["t"], {}) as opened:
        proxy.stall()
        started = time.monotonic()
        with pytest.raises(TransientError, match="`idle_timeout`"):
            list(opened)
        assert time.monotonic() - started < 5


def test_rows_that_come_slowly_are_read_to_the_end(proxy: Proxy) -> None:
    proxy.delay, proxy.chunk = 0.05, 200_000
    started = time.monotonic()
    assert sum(batch.rows.num_rows for batch in read_all(source(proxy, idle=0.8))) == ROWS
    assert time.monotonic() - started > 1, "it was not slow enough to meet the limit"


def test_a_reader_that_takes_its_time_is_not_taken_for_a_server_that_is_silent(proxy: Proxy) -> None:
    reader = source(proxy, idle=0.5)
    with reader._session(reader.url) as session:
        assert session.tables()
        time.sleep(1.2)
        assert session.tables()


def test_a_statement_that_takes_too_long_ends_at_its_limit(proxy: Proxy) -> None:
    proxy.delay, proxy.chunk = 0.05, 10_000  # MySQL's client compresses: the rows are about a megabyte on the way
    error = given_up(source(proxy, statement=0.5, idle=5), 8)
    assert not isinstance(error, TransientError), "another try would take as long"
    assert "`statement_timeout`" in str(error)


def test_a_probe_is_given_up_as_a_reading_is(proxy: Proxy) -> None:
    proxy.stall()
    with pytest.raises(TransientError, match="`connect_timeout`"):
        source(proxy).probe(["t"], {})


def test_the_limits_have_defaults_and_are_options_of_the_source() -> None:
    assert Timeouts() == Timeouts(timedelta(seconds=10), timedelta(minutes=10), timedelta(hours=6))
    options = SqlSource.model.model_validate(
        {
            "url": "sqlite://x",
            "connect_timeout": "3s",
            "idle_timeout": "2m",
            "statement_timeout": "1h",
            "tables": {"t": {"key": ["id"], "contract": "x"}},
        }
    ).model_dump()
    assert [options[name] for name in ("connect_timeout", "idle_timeout", "statement_timeout")] == [
        timedelta(seconds=3),
        timedelta(minutes=2),
        timedelta(hours=1),
    ]
