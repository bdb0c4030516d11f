"""The weather service is an API as companies have them: it pages, refuses, fails, and tells nothing of the future."""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import polars as pl
import pytest

from data_platform.errors import PlatformError
from nyc_flights.simulator import observations
from nyc_flights.simulator.weather import serve_weather
from nyc_flights.simulator.world import World, advance, clock, start

GENEROUS = 100_000.0


@pytest.fixture
def url(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("WEATHER_TOKEN", raising=False)
    with serve_weather(world, requests_per_second=GENEROUS) as service:
        yield service.url


def ask(
    url: str, path: str = "/v1/observations", *, token: str = "", **query: object
) -> tuple[int, dict[str, Any], Any]:
    """Status, body and headers of one request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}{path}?{urlencode(query)}", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def asked_until_answered(url: str, **query: object) -> dict[str, Any]:
    for _ in range(20):
        status, body, _ = ask(url, "/v1/observations", token="", **query)
        if status != 503:
            assert status == 200, body
            return body
    raise AssertionError("twenty times 503")


def everything(url: str, **query: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: dict[str, object] = {}
    while True:
        body = asked_until_answered(url, **query, **cursor)
        rows += body["data"]
        if body["next"] is None:
            return rows
        cursor = {"cursor": body["next"]}


@pytest.mark.parametrize("limit", [7, 500, 1000])
def test_pages_hold_every_observation_exactly_once_in_the_order_of_publication(
    world: World, url: str, limit: int
) -> None:
    rows = everything(url, limit=limit)
    published = observations.records(world.seed).filter(pl.col("published_at") <= clock(world).now)
    assert [json.dumps(row) for row in rows] == [json.dumps(json.loads(text)) for text in published["json"]]
    assert len(rows) > 2000
    instants = [row["published_at"] for row in rows]
    assert instants == sorted(instants)


def test_since_is_inclusive_and_the_cursor_keeps_to_it(url: str) -> None:
    rows = everything(url)
    since = rows[1234]["published_at"]
    expected = [row for row in rows if row["published_at"] >= since]
    assert everything(url, since=since, limit=100) == expected
    assert everything(url, since=since.replace("Z", "+00:00"), limit=1000) == expected


def test_the_latest_instant_is_told_without_its_observations(url: str) -> None:
    status = 503
    while status == 503:
        status, body, _ = ask(url, "/v1/latest")
    assert body == {"published_at": everything(url)[-1]["published_at"]}


def test_another_path_does_not_exist_and_those_that_do_are_named(url: str) -> None:
    status = 503
    while status == 503:
        status, body, _ = ask(url, "/v2/observations")
    assert status == 404
    assert "/v1/observations" in body["error"]


def test_nothing_is_served_that_was_not_published_by_the_simulated_instant(world: World, url: str) -> None:
    last = everything(url)[-1]["published_at"]
    assert last <= clock(world).now.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert everything(url, since="2013-12-01T00:00:00Z") == []


def test_the_service_follows_a_world_that_is_advanced_meanwhile(tmp_path: Path) -> None:
    world = World(tmp_path, str(tmp_path / "operations.sqlite"), 7)
    start(world)
    with serve_weather(world, requests_per_second=GENEROUS) as service:
        before = everything(service.url)
        advance(world)
        after = everything(service.url)
    assert len(before) < len(after)
    assert after[: len(before)] == before


def test_who_asks_too_fast_is_told_how_long_to_wait_and_is_served_then(world: World) -> None:
    with serve_weather(world, requests_per_second=20) as service:
        answers = [ask(service.url, limit=1) for _ in range(60)]
        refused = [headers for status, _, headers in answers if status == 429]
        assert refused
        assert all(int(headers["Retry-After"]) >= 1 for headers in refused)
        time.sleep(0.1)
        assert ask(service.url, limit=1)[0] in (200, 503)


def test_failures_come_now_and_then_and_at_the_same_requests_each_time(world: World) -> None:
    def statuses() -> list[int]:
        with serve_weather(world, requests_per_second=GENEROUS) as service:
            return [ask(service.url, limit=1)[0] for _ in range(200)]

    first = statuses()
    assert first == statuses()
    assert set(first) == {200, 503}
    assert 0 < first.count(503) < 20


def test_with_a_token_in_the_environment_only_its_bearer_is_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "correct horse")
    with serve_weather(world, requests_per_second=GENEROUS) as service:
        status, body, headers = ask(service.url)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "horse" not in json.dumps(body)
        assert ask(service.url, token="wrong")[0] == 401
        assert ask(service.url, token="correct horse")[0] in (200, 503)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"limit": 0}, "limit must be a whole number"),
        ({"limit": 1001}, "limit must be a whole number"),
        ({"limit": "many"}, "limit must be a whole number"),
        ({"since": "yesterday"}, "since must be an instant"),
        ({"cursor": "bm9uc2Vuc2U="}, "was not given by this service"),
        ({"cursor": "%%%"}, "was not given by this service"),
    ],
)
def test_a_mistaken_request_is_told_what_is_wrong(url: str, query: dict[str, object], says: str) -> None:
    status = 503
    while status == 503:
        status, body, _ = ask(url, "/v1/observations", token="", **query)
    assert status == 400
    assert says in body["error"]


def test_it_listens_on_the_loopback_interface_alone_and_says_if_a_port_is_taken(world: World, url: str) -> None:
    assert urlsplit(url).hostname == "127.0.0.1"
    taken = urlsplit(url).port
    assert taken is not None
    with pytest.raises(PlatformError, match=f"cannot listen on 127.0.0.1:{taken}"), serve_weather(world, port=taken):
        pass


def test_many_at_once_are_all_served(url: str) -> None:
    found: list[int] = []

    def read() -> None:
        found.append(len(everything(url, limit=1000)))

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_it_runs_as_a_process_and_needs_a_world(world: World, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nyc_flights.simulator.weather", "--port", "0", "--folder"]
    source_root = Path(__file__).parents[3] / "platform"
    with subprocess.Popen([*command, str(world.folder)], cwd=source_root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert asked_until_answered(process.stdout.readline().strip(), limit=1)["data"]
        finally:
            process.terminate()
    nothing = subprocess.run([*command, str(tmp_path)], cwd=source_root, capture_output=True, text=True, check=False)
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("There is no world in")
    assert "Traceback" not in nothing.stderr
