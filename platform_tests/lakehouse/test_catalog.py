"""A PostgreSQL catalog that says nothing: a step ends at the limit, which is named, and one that lives is not cut."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import duckdb
import psycopg
import pytest
from platform_tests.proxy import Proxy, proxy_to

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.catalog import catalog_address, without_password
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse, shared_lakehouse
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import CommitError, commit

LIMIT = timedelta(seconds=0.5)


@pytest.fixture
def made(home: Path, tmp_path: Path, postgres_url: str) -> Settings:
    """A lakehouse with a table."""
    settings = Settings(home, postgres_url, str(tmp_path / "data"))
    with open_lakehouse(settings) as lake:
        lake.connection.execute("CREATE SCHEMA a; CREATE TABLE a.t AS SELECT 1 AS x")
    return settings


@pytest.fixture
def proxy(made: Settings) -> Iterator[Proxy]:
    with proxy_to(made.catalog) as proxy:
        yield proxy


@pytest.fixture
def behind(made: Settings, proxy: Proxy) -> Settings:
    """The same lakehouse by way of the proxy."""
    return Settings(made.home, f"{proxy.url}?connect_timeout=2", made.data, catalog_timeout=LIMIT)


def given_up(work: Callable[[], object]) -> TransientError:
    started = time.monotonic()
    with pytest.raises(TransientError) as caught:
        work()
    assert time.monotonic() - started < 10
    return caught.value


def read(lake: Lakehouse) -> int:
    ((count,),) = lake.connection.execute("SELECT count(*) FROM lake.a.t").fetchall()
    return int(count)


def insert(lake: Lakehouse, before_the_commit: Callable[[], None]) -> None:
    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("INSERT INTO lake.a.t VALUES (2)")
        before_the_commit()

    commit(lake, work)


@pytest.mark.parametrize("stall_after", [0, 1_000, 200_000])
def test_a_catalog_that_falls_silent_while_it_is_opened_is_given_up(
    behind: Settings, proxy: Proxy, stall_after: int
) -> None:
    def opened() -> None:
        with open_lakehouse(behind) as lake:
            read(lake)

    proxy.stall_after = stall_after
    error = str(given_up(opened))
    assert "`connect_timeout` in the URL of LAKEHOUSE_CATALOG" in error or "LAKEHOUSE_CATALOG_TIMEOUT" in error


def test_a_catalog_that_falls_silent_in_a_transaction_is_given_up_at_the_limit(behind: Settings, proxy: Proxy) -> None:
    def reads() -> None:
        with shared_lakehouse(behind) as lake, lake.reading():
            read(lake)
            proxy.stall()
            lake.connection.execute("SELECT count(*) FROM ducklake_table_info('lake')").fetchall()

    assert "said nothing for 0.5 s, the limit LAKEHOUSE_CATALOG_TIMEOUT, and did not answer a new connection" in str(
        given_up(reads)
    )


def test_a_commit_that_is_not_answered_keeps_its_files_and_says_the_limit(
    behind: Settings, made: Settings, proxy: Proxy
) -> None:
    def writes() -> None:
        with open_lakehouse(behind) as lake:
            insert(lake, proxy.stall)

    error = given_up(writes)
    assert isinstance(error, CommitError), "whether it took place is unknown, so its files must stay"
    assert "the limit LAKEHOUSE_CATALOG_TIMEOUT" in str(error)
    proxy.end()  # until then, the server keeps the locks of the one that is gone
    with open_lakehouse(made) as lake:
        insert(lake, lambda: None)
        assert read(lake) == 2


def test_the_right_to_commit_is_not_waited_for_for_ever_either(behind: Settings, proxy: Proxy) -> None:
    proxy.stall()

    def waits() -> None:
        with writer_lock(behind):
            pass

    assert "`connect_timeout` in its URL" in str(given_up(waits))


def test_a_lock_in_the_catalog_ends_the_statement_that_waits_for_it(behind: Settings, made: Settings) -> None:
    with open_lakehouse(behind) as lake, psycopg.connect(made.catalog) as other:
        other.execute("lock table ducklake_snapshot in access exclusive mode")
        with pytest.raises(duckdb.Error, match="statement timeout"):
            read(lake)

    def reads() -> None:
        with shared_lakehouse(behind) as lake, psycopg.connect(made.catalog) as other:
            other.execute("lock table ducklake_snapshot in access exclusive mode")
            read(lake)

    assert "ended a statement that took more than 0.5 s, the limit LAKEHOUSE_CATALOG_TIMEOUT" in str(given_up(reads))


def test_work_that_asks_nothing_of_the_catalog_for_long_is_not_cut(behind: Settings) -> None:
    with open_lakehouse(behind) as lake:

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            read(lake)
            time.sleep(3 * LIMIT.total_seconds())
            connection.execute("INSERT INTO lake.a.t VALUES (2)")

        commit(lake, work)
        assert read(lake) == 2


def test_a_limit_of_a_source_is_not_taken_for_one_of_the_catalog(behind: Settings) -> None:
    with pytest.raises(PlatformError, match=r"^the source met its statement timeout$") as caught:  # noqa: SIM117
        with shared_lakehouse(behind):
            raise PlatformError("the source met its statement timeout")
    assert not isinstance(caught.value, TransientError)


def test_the_address_has_every_limit_that_the_url_does_not_give(home: Path) -> None:
    def options(catalog: str) -> dict[str, list[str]]:
        return parse_qs(urlsplit(catalog_address(Settings(home, catalog, "data"))).query)

    server_side = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
    assert options("postgresql://me@host/db") == {
        "connect_timeout": ["10"],
        "keepalives_idle": ["30"],
        "keepalives_interval": ["10"],
        "keepalives_count": ["3"],
        "tcp_user_timeout": ["60000"],
        "options": [f"-c statement_timeout=300000 {server_side}"],
    }
    own = options("postgresql:///db?host=/run/postgresql&options=-c%20statement_timeout%3D7&connect_timeout=60")
    assert (own["options"], own["connect_timeout"], own["host"]) == (
        ["-c statement_timeout=7"],
        ["60"],
        ["/run/postgresql"],
    )
    assert catalog_address(Settings(home, "postgresql:///db", "data")).startswith("postgresql:///db?")
    assert catalog_address(Settings(home, "catalog.sqlite", "data")) == "catalog.sqlite"


def test_the_limits_in_the_address_do_not_hide_the_password_from_being_taken_out(home: Path) -> None:
    settings = Settings(home, "postgresql://me:s3cret@host/db?sslmode=require", "data")
    said = f'Unable to connect to "{catalog_address(settings)}" or "{settings.catalog}"'
    assert "s3cret" not in without_password(said, settings)


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    assert settings_from_environment({}).catalog_timeout == timedelta(minutes=5)
    given = settings_from_environment({"LAKEHOUSE_CATALOG_TIMEOUT": "90s"})
    assert given.catalog_timeout == timedelta(seconds=90)
