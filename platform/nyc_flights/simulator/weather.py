"""The weather service: an HTTP API on the loopback interface that serves what was published up to the simulated
instant. Run it as a process with `python -m nyc_flights.simulator.weather --folder F --port N`.

GET /v1/observations?since=&limit=&cursor= answers {"data": [...], "next": cursor or null}: observations published at
or after `since`, in the order of publication. GET /v1/latest answers {"published_at": ...}, the time of the last one,
or null. Like its kind it refuses who asks too fast (429 with Retry-After), is
now and then out of order (503, decided by the seed and the number of the request), and wants a bearer token if
WEATHER_TOKEN is set in its environment.
"""

import argparse
import base64
import binascii
import hmac
import json
import os
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from data_platform.errors import PlatformError
from nyc_flights.simulator import draws, observations
from nyc_flights.simulator.world import World, clock, read_clock

DEFAULT_LIMIT = 500
MAX_LIMIT = 1000
REQUESTS_PER_SECOND = 50.0
UNAVAILABLE = 0.02
"""Share of requests answered with 503."""


@dataclass(frozen=True)
class WeatherService:
    """A running service: `url` is its base, to which `/v1/observations` is added."""

    url: str


class _BadRequest(Exception):  # noqa: N818 - an answer, not an error of ours
    """What to tell the client with status 400."""


@dataclass
class _State:
    """What all requests share."""

    world: World
    token: str | None
    rate: float
    published: list[datetime]
    records: list[str]
    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: int = 0
    allowance: float = 0.0
    asked: float = 0.0

    def admit(self) -> tuple[int, float]:
        """Count a request; its number, and the seconds to wait if it came too early (0: it may pass)."""
        with self.lock:
            self.requests += 1
            now = time.monotonic()
            self.allowance = min(self.rate, self.allowance + (now - self.asked) * self.rate)
            self.asked = now
            if self.allowance < 1:
                return self.requests, (1 - self.allowance) / self.rate
            self.allowance -= 1
            return self.requests, 0.0

    def latest(self) -> str | None:
        """When the last observation was published, as records write it; None before the first."""
        end = bisect_right(self.published, clock(self.world).now)
        return str(json.loads(self.records[end - 1])["published_at"]) if end else None

    def page(self, query: dict[str, list[str]]) -> tuple[list[str], str | None]:
        """The records of one page and the cursor of the next. Raises _BadRequest."""
        limit = _limit(query)
        end = bisect_right(self.published, clock(self.world).now)
        if "cursor" in query:
            begin = _position(query["cursor"][0])
        elif "since" in query:
            begin = bisect_left(self.published, _instant(query["since"][0]))
        else:
            begin = 0
        stop = min(begin + limit, end)
        return self.records[begin:stop], _cursor(stop) if stop < end else None


def _limit(query: dict[str, list[str]]) -> int:
    text = query.get("limit", [str(DEFAULT_LIMIT)])[0]
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise _BadRequest(f"limit must be a whole number from 1 to {MAX_LIMIT}, not {text!r}")
    return int(text)


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not encoded
    except ValueError:
        raise _BadRequest(f"since must be an instant such as 2013-01-01T06:00:00Z, not {text!r}") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode()


def _position(cursor: str) -> int:
    try:
        word, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
    except (binascii.Error, UnicodeError):
        word, number = "", ""
    if word != "after" or not number.isdecimal():
        raise _BadRequest(f"cursor {cursor!r} was not given by this service")
    return int(number)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: ClassVar[_State]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self.state.token is not None and not self._authorized(self.state.token):
            self._answer(401, {"error": "a valid bearer token is needed"}, {"WWW-Authenticate": "Bearer"})
            return
        number, wait = self.state.admit()
        if wait > 0:
            self._answer(429, {"error": "too many requests"}, {"Retry-After": str(max(1, round(wait)))})
        elif draws.scalar(number, self.state.world.seed, "weather unavailable") < UNAVAILABLE:
            self._answer(503, {"error": "temporarily unavailable"})
        elif url.path == "/v1/latest":
            self._send(200, json.dumps({"published_at": self.state.latest()}), {})
        elif url.path != "/v1/observations":
            self._answer(404, {"error": f"there is no {url.path}; try /v1/observations or /v1/latest"})
        else:
            try:
                records, following = self.state.page(parse_qs(url.query))
            except _BadRequest as error:
                self._answer(400, {"error": str(error)})
            else:
                self._send(200, f'{{"data":[{",".join(records)}],"next":{json.dumps(following)}}}', {})

    def _authorized(self, token: str) -> bool:
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())

    def _answer(self, status: int, body: dict[str, str | None], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body), headers or {})

    def _send(self, status: int, body: str, headers: dict[str, str]) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: a query may hold a token."""


def _server(world: World, port: int, token: str | None, requests_per_second: float) -> ThreadingHTTPServer:
    rows = observations.records(clock(world).seed)
    state = _State(
        world=world,
        token=token,
        rate=requests_per_second,
        published=rows["published_at"].to_list(),
        records=rows["json"].to_list(),
        allowance=requests_per_second,
        asked=time.monotonic(),
    )
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"state": state}))
    except OSError as error:
        raise PlatformError(
            f"The weather service cannot listen on 127.0.0.1:{port}: {error.strerror}. Choose another port, or 0."
        ) from None


@contextmanager
def serve_weather(
    world: World, port: int = 0, *, requests_per_second: float = REQUESTS_PER_SECOND
) -> Iterator[WeatherService]:
    """Run the service in a thread while the block runs. It follows the clock of the world as others advance it.

    WEATHER_TOKEN is read here, once. Raises PlatformError if the port is taken or the world was not started.
    """
    server = _server(world, port, os.environ.get("WEATHER_TOKEN") or None, requests_per_second)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield WeatherService(url=f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; the address goes to standard output first."""
    parser = argparse.ArgumentParser(prog="python -m nyc_flights.simulator.weather", description="The weather service.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of a world that was started")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    options = parser.parse_args(arguments)
    try:
        world = World(options.folder, operations_url="", seed=read_clock(options.folder).seed)
        server = _server(world, options.port, os.environ.get("WEATHER_TOKEN") or None, REQUESTS_PER_SECOND)
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
