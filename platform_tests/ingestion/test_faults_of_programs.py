"""What goes wrong around programs of others: their source stalls, is cut off, refuses them, or asks for another token
in mid-read. Nothing is lost, and the message names what happened."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import dlt
import psycopg
import pytest
from dlt.sources.helpers import requests
from platform_tests.ingestion.followed import SETUP, check, config_of, follow
from platform_tests.ingestion.http.server import Answer, Asked, running_api
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.proxy import Proxy, proxy_to

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.dlt.source import DltResources, DltTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE

ROWS = 20_000


@pytest.fixture
def events(postgres_url: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as server:
        for statement in SETUP:
            server.execute(statement.encode())
    return postgres_url


def grow(url: str) -> None:
    """Many rows more, of some megabytes."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"insert into ev select i, repeat('x', 300) from generate_series(201, {ROWS}) i".encode())


def in_the_middle(proxy: Proxy) -> int:
    """The bytes that have come once a run like the last one is in the middle of many more rows."""
    return 2 * proxy.forwarded + 1_000_000


def test_a_source_that_stalls_in_the_middle_ends_the_tap_by_its_limit_and_nothing_is_lost(
    lake: Lakehouse, events: str
) -> None:
    with proxy_to(events) as proxy:
        follow(lake, "tap", proxy.url)
        grow(events)
        proxy.stall_after = in_the_middle(proxy)
        with pytest.raises(TransientError, match=r"printed nothing for 8 s \(`idle_timeout`\), and was ended"):
            follow(lake, "tap", proxy.url, idle_timeout="8s")
    follow(lake, "tap", events)
    check(lake, ROWS)


def test_a_source_that_stalls_before_the_catalog_ends_the_tap_by_its_limit(lake: Lakehouse, events: str) -> None:
    with proxy_to(events) as proxy:
        proxy.stall()
        with pytest.raises(TransientError, match=r"--discover took longer than 4 s, and was ended"):
            follow(lake, "tap", proxy.url, load_timeout="4s")


def test_a_connection_that_is_cut_in_the_middle_fails_the_load_and_nothing_is_lost(
    lake: Lakehouse, events: str
) -> None:
    with proxy_to(events) as proxy:
        follow(lake, "tap", proxy.url)
        grow(events)
        cut_at = in_the_middle(proxy)

        def cut() -> None:
            while proxy.forwarded < cut_at:
                time.sleep(0.002)
            proxy.end()

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(TransientError, match=r"tap-postgres ended with 1.* The last that it said:"):
            follow(lake, "tap", proxy.url)
    follow(lake, "tap", events)
    check(lake, ROWS)


def test_a_resource_whose_connection_is_cut_fails_and_nothing_is_lost(lake: Lakehouse, events: str) -> None:
    with proxy_to(events) as proxy:
        follow(lake, "dlt", proxy.url)
        grow(events)
        proxy.end()
        with pytest.raises(PlatformError, match=r"followed.ev failed"):
            follow(lake, "dlt", proxy.url)
    follow(lake, "dlt", events)
    check(lake, ROWS)


def test_what_the_source_refuses_is_said(lake: Lakehouse, events: str) -> None:
    config = {**config_of(events), "database": "no_such_database"}
    with pytest.raises(PlatformError, match=r'database "no_such_database" does not exist'):
        follow(lake, "tap", events, config=config)


@dlt.resource(primary_key="id")
def paged(url: str, token: str, new: Any = dlt.sources.incremental("id", initial_value=0)) -> Iterator[Any]:  # noqa: B008
    """Pages of an API."""
    for page in range(4):
        answer = requests.get(
            url, params={"page": page, "after": new.last_value}, headers={"Authorization": f"Bearer {token}"}
        )
        yield answer.json()


def test_a_token_that_expires_in_mid_read_fails_the_load_and_the_next_has_all(lake: Lakehouse) -> None:
    expired = threading.Event()

    def answer(asked: Asked) -> Answer:
        page = int(asked.query["page"])
        if page >= 2 and expired.is_set():
            return Answer({"error": "expired"}, 401)
        return Answer([{"id": 10 * page + number} for number in range(1, 11)])

    table = DltTable(key=["id"], contract="platform_tests.ingestion.followed.Event")

    def load(url: str) -> int:
        source = DltResources(lambda: paged(url, "a-token-of-ours"), {"paged": table}, "api.paged")
        return load_table(lake, "api", source, "paged", table, run_id="run").rows_landed

    with running_api(answer) as api:
        expired.set()
        with pytest.raises(PlatformError, match=r"api.paged failed.\n  HTTPError: 401") as raised:
            load(f"{api.url}/v1")
        assert "a-token-of-ours" not in str(raised.value)
        expired.clear()
        assert load(f"{api.url}/v1") == 40
        assert load(f"{api.url}/v1") == 0
