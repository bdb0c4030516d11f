"""When an HTTP API fails: what is tried again and for how long, what is said, and that no secret is ever shown."""

import gzip
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from platform_tests.ingestion.http.server import Answer, Api, Asked, running_api
from platform_tests.ingestion.reading import probe, read_all
from platform_tests.spellings import SPELLINGS, seen
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.http import client as http_client
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.http.source import HttpSource
from data_platform.ingestion.source import HINT
from data_platform.redaction import scrub_process

SECRET = "s3cret-Val/ue+&?"
GOOD = Answer([{"id": 1}])


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(lambda _: GOOD) as server:
        yield server


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleep a hundredth of what was meant, and remember what was meant."""
    slept: list[float] = []
    sleep = time.sleep

    def nap(seconds: float) -> None:
        slept.append(seconds)
        sleep(seconds / 100)

    monkeypatch.setattr("tenacity.nap.time.sleep", nap)
    return slept


def source(url: str, table: dict[str, Any] | None = None, **options: Any) -> HttpSource:
    told = {"key": ["id"], "contract": "a.B", "path": "things", **(table or {})}
    return HttpSource(HttpOptions.model_validate({"url": url, **options}), {"things": HttpTable.model_validate(told)})


def read(api: Api, table: dict[str, Any] | None = None, **options: Any) -> pa.Table:
    (batch,) = read_all(source(api.url, table, **options), "things")
    return batch.rows


def refused(api: Api, table: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        read(api, table, **options)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the context would print the URL with its parameters"
    return str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        Answer(status=429),
        Answer(status=500),
        Answer(status=503, body=b"<html>busy</html>"),
        Answer([{"id": 1}], lost=1),
        Answer(b"", lost=100),
        Answer(gzip.compress(b'[{"id": 1}]')[:-9], headers={"Content-Encoding": "gzip"}, lost=9),
        Answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_what_may_pass_is_tried_again_with_growing_pauses(api: Api, naps: list[float], failure: Answer) -> None:
    api.script(failure, failure, failure, GOOD)
    assert read(api).to_pylist() == [{"id": "1"}]
    assert len(api.asked) == 4
    assert [0.5 * 2**n <= nap <= 0.5 * 2**n + 0.5 for n, nap in enumerate(naps)] == [True] * 3


def test_back_off_has_jitter_so_that_clients_do_not_return_together(api: Api, naps: list[float]) -> None:
    for _ in range(5):
        api.script(Answer(status=503), GOOD)
        read(api)
    assert len(set(naps)) == 5


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured_even_when_longer_than_any_back_off(
    api: Api, naps: list[float], status: int
) -> None:
    api.script(Answer(status=status, headers={"Retry-After": "90"}), GOOD)
    read(api)
    assert naps == [90]


def test_retry_after_as_a_date_is_honoured(api: Api, naps: list[float]) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    api.script(Answer(status=429, headers={"Retry-After": until}), GOOD)
    read(api)
    assert 38 <= naps[0] <= 40


def test_a_retry_after_that_says_nothing_is_as_good_as_none(api: Api, naps: list[float]) -> None:
    api.script(Answer(status=429, headers={"Retry-After": "soon"}), GOOD)
    read(api)
    assert 0.5 <= naps[0] <= 1


def test_a_pause_longer_than_our_patience_is_not_waited_for(api: Api, naps: list[float]) -> None:
    api.script(Answer({"error": "slow down"}, status=429, headers={"Retry-After": "3600"}))
    said = refused(api, patience="10m")
    assert naps == []
    assert said.startswith(f"Table 'things': GET {api.url}/things failed 1 times in 0 s: 429 Too Many Requests, ")
    assert '{"error": "slow down"}, which asked for a pause of 3600 s.' in said
    assert "patience (0:10:00)" in said
    assert "requests_per_second" in said


def test_a_probe_gets_over_a_moment_in_which_the_api_is_busy_and_over_no_more(api: Api, naps: list[float]) -> None:
    table = {"probe": {"path": "head", "value": "newest"}}
    api.script(Answer(status=503), Answer(status=503), Answer({"newest": "2013"}))
    assert probe(source(api.url, table), "things") == {HINT: "2013"}
    assert len(naps) == 2
    before = len(api.asked)
    api.script(Answer(status=503))
    with pytest.raises(PlatformError, match="failed 3 times"):
        probe(source(api.url, table), "things")
    assert len(api.asked) == before + 3
    api.script(Answer(status=429, headers={"Retry-After": "60"}))
    with pytest.raises(PlatformError, match="failed 1 times"):
        probe(source(api.url, table), "things")


def test_patience_ends_after_the_tries_that_were_allowed(api: Api) -> None:
    api.script(Answer(b"x" * 1000, status=502))
    said = refused(api, max_retries=2)
    assert len(api.asked) == 3
    assert "failed 3 times" in said
    assert "502 Bad Gateway, " + "x" * 200 + "." in said
    assert "x" * 201 not in said


def test_a_body_that_breaks_off_every_time_says_so(api: Api) -> None:
    api.script(Answer([{"id": 1}], lost=5))
    assert "IncompleteRead" in refused(api, max_retries=1)


def test_a_server_that_is_not_there_is_named(api: Api) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api.url = f"http://127.0.0.1:{port}"
    assert f"http://127.0.0.1:{port}/things failed 2 times" in (said := refused(api, max_retries=1))
    assert "Connection refused" in said


def test_a_server_that_does_not_answer_is_given_up(api: Api) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said = refused(api, max_retries=0, timeout=0.05)
    assert "timed out" in said
    assert "timeout (0.05 s)" in said


def test_an_answer_of_one_byte_after_another_ends_at_the_limit_and_names_it(api: Api) -> None:
    api.script(Answer([{"id": 1}] * 1000, drip=0.02))
    started = time.monotonic()
    said = refused(api, max_retries=1, timeout=5, answer_timeout=timedelta(seconds=0.3))
    assert time.monotonic() - started < 3
    assert "failed 2 times" in said
    assert "not at its end after 0.3 s" in said
    assert "answer_timeout (0:00:00.300000) of the source in its defs.yaml" in said


def test_headers_of_one_byte_after_another_end_at_the_limit_too(api: Api) -> None:
    api.script(Answer([{"id": 1}], headers={"X-Long": "x" * 1000}, drip=0.02, drips_headers=True))
    started = time.monotonic()
    said = refused(api, max_retries=0, timeout=5, answer_timeout=timedelta(seconds=0.3))
    assert time.monotonic() - started < 3
    assert "not at its end after 0.3 s (0 bytes of it had come)" in said


def test_an_answer_that_ends_with_the_connection_is_not_whole_because_the_limit_ended_it(api: Api) -> None:
    body = b'[{"id": 1}]' + b" " * 1000
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body[:11])
            with suppress(OSError):
                for byte in body[11:]:
                    threading.Event().wait(0.01)
                    connection.send(bytes([byte]))

        threading.Thread(target=answer, daemon=True).start()
        api.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert "not at its end after 0.3 s" in refused(api, max_retries=0, answer_timeout=timedelta(seconds=0.3))


def test_a_long_answer_that_ends_in_time_is_read(api: Api) -> None:
    api.script(Answer([{"id": 1}], drip=0.02))
    assert read(api, timeout=0.1, answer_timeout=timedelta(seconds=5)).to_pylist() == [{"id": "1"}]


def test_headers_of_a_megabyte_are_refused_at_once(api: Api) -> None:
    api.script(Answer([{"id": 1}], headers={"X-Long": "x" * 2**20}))
    assert "headers larger than HTTP clients take (got more than 65536 bytes" in refused(api)
    assert len(api.asked) == 1


ENDLESS: list[tuple[dict[str, Any], Callable[[int], Any]]] = [
    ({"type": "page_number"}, lambda n: [{"id": n}]),
    ({"type": "offset", "limit": 1}, lambda n: [{"id": n}]),
    ({"type": "cursor"}, lambda n: {"rows": [{"id": n}], "next": n}),
    ({"type": "cursor"}, lambda n: {"rows": [], "next": n}),
    ({"type": "next_url"}, lambda n: {"rows": [{"id": 1}], "asked": n, "next": f"things?page={n}"}),
]
"""Pages that never end: full ones, empty ones, and the same rows again and again."""


@pytest.mark.parametrize(("pagination", "page"), ENDLESS)
def test_pages_without_end_stop_at_the_limit_of_pages(
    api: Api, pagination: dict[str, Any], page: Callable[[int], Any]
) -> None:
    api.answer = lambda _: Answer(page(len(api.asked)))
    table = {"pagination": pagination} | ({"rows": "rows"} if isinstance(page(1), dict) else {})
    said = refused(api, table, max_pages=20)
    assert len(api.asked) == 21
    assert re.search(r"is page 21 after \d+ s, more than `max_pages` \(20\) allows for one load", said)
    assert "raise the limit of the source in its defs.yaml" in said


def test_pages_without_end_stop_at_the_limit_of_time(api: Api) -> None:
    api.answer = lambda _: Answer([{"id": len(api.asked)}])
    said = refused(api, {"pagination": {"type": "page_number"}}, load_timeout=timedelta(seconds=0.3))
    assert "more than `load_timeout` (0:00:00.300000) allows for one load" in said


def test_pages_in_the_order_of_the_cursor_that_came_before_a_limit_land(api: Api) -> None:
    api.answer = lambda _: Answer([{"id": n, "at": n} for n in (2 * len(api.asked), 2 * len(api.asked) + 1)])
    cursor = {"column": "at", "param": "since", "type": "number", "ordered": True}
    things = source(api.url, {"pagination": {"type": "page_number"}, "cursor": cursor}, max_pages=3)

    with things.reading(["things"], {}) as pages:
        taken = iter(pages)
        assert next(taken).position == {"cursor": "7"}
        with pytest.raises(PlatformError, match="max_pages"):
            next(taken)


def test_a_page_too_large_for_memory_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_PAGE_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**24)
    api.script(Answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert "larger than 1 MB. Ask for smaller pages" in refused(api)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "cursor.format"),
        (401, r"`auth.token` of the source: is the environment variable set, and valid?"),
        (403, "`auth.token`"),
        (404, "no such `path` below `url`"),
        (409, "would not help"),
    ],
)
def test_a_refusal_is_final_and_says_where_to_look(api: Api, status: int, hint: str) -> None:
    api.script(Answer({"detail": "no"}, status=status))
    said = refused(api, auth={"type": "bearer", "token": SECRET})
    assert len(api.asked) == 1
    assert f"GET {api.url}/things was refused: {status} " in said
    assert '{"detail": "no"}' in said
    assert hint in said


def token_server(asked: Asked) -> Answer:
    if asked.path == "/token":
        sent = asked.body.decode()
        ok = "client_secret=s3cret-Val" in sent and "grant_type=client_credentials" in sent and "scope=read" in sent
        return Answer({"access_token": "t0ken", "expires_in": 3600} if ok else None, status=200 if ok else 401)
    return GOOD if asked.headers.get("Authorization") == "Bearer t0ken" else Answer(status=401)


OAUTH = {"type": "oauth2_client_credentials", "client_id": "me", "client_secret": SECRET}


def test_each_kind_of_credentials_reaches_the_api(api: Api) -> None:
    read(api, auth={"type": "bearer", "token": SECRET})
    assert api.asked[-1].headers["Authorization"] == f"Bearer {SECRET}"
    read(api, auth={"type": "basic", "username": "me", "password": "pw"})
    assert api.asked[-1].headers["Authorization"] == "Basic bWU6cHc="
    read(api, auth={"type": "api_key", "key": SECRET, "name": "X-Key"}, headers={"X-App": "app"})
    assert (api.asked[-1].headers["X-Key"], api.asked[-1].headers["X-App"]) == (SECRET, "app")
    read(api, {"params": {"a": 1}}, auth={"type": "api_key", "key": SECRET, "name": "key", "location": "query"})
    assert api.asked[-1].query == {"a": "1", "key": SECRET}


def test_a_token_is_fetched_once_and_used(api: Api) -> None:
    api.answer = token_server
    auth = {**OAUTH, "token_url": f"{api.url}/token", "parameters": {"scope": "read"}}
    assert read(api, auth=auth).num_rows == 1
    assert [asked.path for asked in api.asked] == ["/token", "/things"]


def test_a_token_that_is_refused_says_so_without_the_secret(api: Api) -> None:
    api.script(Answer({"error": "bad", "sent": SECRET}, status=401))
    said = refused(api, auth={**OAUTH, "token_url": f"{api.url}/token"})
    assert f"No token was given by {api.url}/token: 401" in said
    assert "`auth.client_secret`" in said
    assert SECRET not in said


def test_an_open_api_is_not_sent_what_a_netrc_file_says(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pw\n")
    monkeypatch.setenv("NETRC", str(netrc))
    read(api)
    assert "Authorization" not in api.asked[-1].headers


KINDS: list[dict[str, Any]] = [
    {"auth": {"type": "bearer", "token": SECRET}},
    {"auth": {"type": "basic", "username": "me", "password": SECRET}},
    {"auth": {"type": "api_key", "key": SECRET}},
    {"auth": {"type": "api_key", "key": SECRET, "name": "k", "location": "query"}},
    {"headers": {"X-Key": SECRET}},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [401, 404, 503, 200])
def test_no_secret_is_shown_in_an_error_a_log_or_a_repr(
    api: Api, caplog: pytest.LogCaptureFixture, kind: dict[str, Any], status: int
) -> None:
    def parrot(asked: Asked) -> Answer:
        return Answer(json.dumps([asked.query, asked.headers.get("X-Key", "")]).encode(), status)

    api.answer = parrot
    caplog.set_level(logging.DEBUG)
    said = refused(api, max_retries=1, **kind)
    shown = said + caplog.text + repr(source(api.url, **kind)) + str(source(api.url, **kind).options)
    assert "urllib3.connectionpool" in caplog.text, "the log that shows URLs was not looked at"
    for spelling in (SECRET, "s3cret", "s3cret-Val%2Fue"):
        assert spelling not in shown


TOKEN = "eyJhbGciOi.token/of+an-hour=.s1gnature"
OAUTH_KIND: dict[str, Any] = {"auth": {**OAUTH, "token_url": "URL/token"}}
SENT = [SECRET, f"me:{SECRET}", TOKEN]


class Parrot:
    """An API that repeats what it was sent, and what it gave, in every spelling: in the body, or in the address that it
    leads on to."""

    def __init__(self, api: Api, status: int, place: str) -> None:
        self.api, self.status, self.place = api, status, place

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/token" and self.place != "token":
            return Answer({"access_token": TOKEN, "refresh_token": SECRET, "expires_in": 3600})
        spelt = [spell(text) for text in SENT for spell in SPELLINGS.values()]
        spelt = spelt[int(self.place) :] if self.place.isdigit() else spelt  # the first of a body are repeated
        body = json.dumps([*spelt, dict(asked.headers), asked.query, asked.body.decode()], ensure_ascii=False).encode()
        if self.place == "redirect":
            where = "".join(quote(text) for text in spelt)
            return Answer(None, 302, {"Location": f"http://elsewhere.example/{where}?key={where}"})
        if self.place == "cut":
            # A secret that straddles the point where the body is cut off.
            return Answer(b"." * 190 + SECRET.encode(), self.status)
        return Answer(body, self.status)


@pytest.mark.parametrize("kind", [*KINDS, OAUTH_KIND], ids=lambda kind: json.dumps(kind)[:60])
@pytest.mark.parametrize(
    ("status", "place"),
    [(401, "0"), (422, "20"), (503, "40"), (429, "60"), (404, "75"), (400, "cut"), (302, "redirect"), (401, "token")],
)
def test_credentials_that_an_api_repeats_in_any_spelling_are_not_said(
    api: Api, caplog: pytest.LogCaptureFixture, kind: dict[str, Any], status: int, place: str
) -> None:
    caplog.set_level(logging.DEBUG)
    scrub_process()
    told = json.loads(json.dumps(kind).replace("URL", api.url))
    api.answer = Parrot(api, status, place)
    said = refused(api, max_retries=1, **told)
    shown = said + caplog.text
    assert seen(shown, [SECRET, f"me:{SECRET}", *([TOKEN] if kind is OAUTH_KIND else [])]) == []
    assert "s3cret" not in shown
    assert place in ("redirect", "60", "75") or "***" in said


def test_a_token_that_was_not_in_the_answer_is_no_token(api: Api) -> None:
    for answer in (Answer({"token": TOKEN}), Answer([1]), Answer(b"not JSON")):
        api.script(answer)
        said = refused(api, auth={**OAUTH, "token_url": f"{api.url}/token"})
        assert "was asked for a token, and answered 200 without an `access_token`" in said
        assert TOKEN not in said


def test_headers_that_are_no_secrets_are_left_in_what_is_said(api: Api) -> None:
    api.script(Answer(b"<html>", 200, {"Content-Type": "text/html"}))
    assert "(text/html)" in refused(api, headers={"Accept": "text/html", "X-Key": SECRET})


PRIVATE = "jane@private.example"


@pytest.mark.parametrize("answer", [Answer({"mail": PRIVATE}, 400), Answer({"mail": PRIVATE}, 503)])
def test_of_a_source_that_masks_columns_no_body_is_repeated(api: Api, answer: Answer) -> None:
    api.script(answer)
    said = refused(api, {"mask": ["mail"]}, max_retries=0)
    assert PRIVATE not in said
    assert f"{answer.status} " in said
    assert "bytes (not shown: it may hold values of private columns)" in said
    assert PRIVATE in refused(api, max_retries=0), "a source without masks says what it was told"


def test_where_an_api_leads_to_elsewhere_the_path_is_not_repeated(api: Api) -> None:
    api.script(Answer(None, 302, {"Location": f"http://elsewhere.example/people/{PRIVATE}"}))
    said = refused(api)
    assert "sends on to another host: GET http://elsewhere.example. Its" in said
    assert PRIVATE not in said


@pytest.mark.parametrize(
    "options",
    [
        {"auth": {"type": "bearer", "tokn": SECRET}},
        {"auth": {"type": "bearer", "token": [SECRET]}},
        {"auth": {"type": "s3cret", "token": SECRET}},
        {"auth": SECRET},
        {"headers": SECRET},
        {"url": f"https://me:{SECRET}@host/"},
    ],
)
def test_no_secret_is_shown_by_a_mistake_in_the_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpOptions.model_validate({"url": "https://host", **options})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("auth", [{"type": "bearer", "token": ""}, {"type": "api_key", "key": ""}])
def test_an_empty_secret_is_a_mistake_not_an_open_api(auth: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        HttpOptions.model_validate({"url": "https://host", "auth": auth})


@pytest.mark.parametrize("url", ["api.example.com", "ftp://host", "https://", "https://host?key=1"])
def test_a_url_that_is_no_place_to_begin_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        HttpOptions(url=url)


def test_values_of_a_query_are_left_out_of_what_is_said(api: Api) -> None:
    api.script(Answer(status=404))
    said = refused(api, {"params": {"signature": "abc", "empty": ""}})
    assert f"{api.url}/things?signature=...&empty=... was refused" in said


def test_our_own_limit_spaces_requests_over_all_reads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("data_platform.ingestion.http.client.time.sleep", pauses.append)
    things = source(api.url, requests_per_second=0.1)
    for _ in range(3):
        read_all(things, "things")
    assert [round(pause) for pause in pauses] == [0, 10, 20]
