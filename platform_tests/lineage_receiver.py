"""A receiver of OpenLineage for the tests: it keeps the events that it is sent, breaks, or hangs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

Events = list[dict[str, Any]]


@contextmanager
def receiver(status: int = 201, held: Event | None = None) -> Iterator[tuple[str, Events]]:
    """An address that takes events: it answers with a status, once `held` is set."""
    events: Events = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if held is not None:
                held.wait(20)
            events.append(json.loads(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the handler's form
            """Nothing is shown."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", events
    finally:
        if held is not None:
            held.set()
        server.shutdown()
        thread.join()
        server.server_close()
