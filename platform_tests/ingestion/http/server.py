"""A real HTTP server on loopback whose every answer a test decides, misbehaviour included."""

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to say: `body` is sent as it is if it is bytes, else as JSON; a header with several values as several
    headers. `lost` bytes are announced but never sent. With `drip`, a byte is sent every so many seconds: those of the
    body, or those of the headers too."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str | list[str]] = field(default_factory=dict)
    lost: int = 0
    drip: float = 0
    drips_headers: bool = False


@dataclass
class Api:
    """The running server: `answer` may be replaced at any time, `asked` is what was asked so far."""

    url: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)

    def script(self, *answers: Answer) -> None:
        """Give these answers one after another, the last one for ever."""
        waiting = list(answers)
        self.answer = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]


class _Dripping(io.BufferedIOBase):
    """Writes byte by byte, with a pause before each."""

    def __init__(self, file: io.BufferedIOBase, pause: float) -> None:
        self._file, self._pause = file, pause

    def write(self, data: Any) -> int:
        for byte in bytes(data):
            threading.Event().wait(self._pause)  # not a sleep, which a test may have shortened
            self._file.write(bytes([byte]))
        return len(data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: with it, each answer would take 40 ms
    api: Api

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        asked = Asked(self.command, parts.path, query, dict(self.headers), self.rfile.read(length))
        self.api.asked.append(asked)
        answer = self.api.answer(asked)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        whole = self.wfile
        if answer.drips_headers:
            self.wfile = _Dripping(whole, answer.drip)
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            for one in [value] if isinstance(value, str) else value:
                self.send_header(name, one)
        self.send_header("Content-Length", str(len(body) + answer.lost))
        self.end_headers()
        if answer.drip:
            self.wfile = _Dripping(whole, answer.drip)
        with suppress(ConnectionError):
            self.wfile.write(body)
        self.wfile = whole
        self.close_connection = answer.lost > 0

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  the names are http.server's

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@contextmanager
def running_api(answer: Callable[[Asked], Answer]) -> Iterator[Api]:
    """Run a server on a free port of loopback until the context is left."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    api = Api(f"http://127.0.0.1:{server.server_port}", answer)
    handler.api = api  # type: ignore[attr-defined]  # the class was made for this server alone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
