"""`dp metrics`: an endpoint that Prometheus scrapes, over the ledger, or its text once. What is measured is in
`observability.metrics`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from wsgiref.simple_server import WSGIServer

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from data_platform.lakehouse.settings import Settings

HOST = "127.0.0.1"
PORT = 9470
CLIENT_SECONDS = 30
"""How long a client may take for its request, and for each part of the answer."""

PATH = "/metrics"

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on: by default, this machine alone.")] = HOST,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and end.")] = False,
) -> None:
    """Serve figures of all tables and runs to Prometheus, at /metrics: ages, rows, seconds, quarantine, failures."""
    import sys

    from data_platform.lakehouse.settings import settings_from_environment

    settings = settings_from_environment()
    with ledger_registry(settings) as registry:
        if once:
            from prometheus_client.openmetrics.exposition import generate_latest

            sys.stdout.write(generate_latest(registry).decode())  # type: ignore[no-untyped-call]
            return
        from data_platform.cli.web_access import is_host_of_ours

        alone = is_host_of_ours(f"[{host}]" if ":" in host else host, ())
        if not alone:
            print(
                f"Warning: whoever reaches {host}:{port} sees the names of all sources, tables and jobs, and their "
                "figures: nobody is asked for a password. Let only Prometheus reach it.",
                file=sys.stderr,
            )
        with listening(registry, host, port, alone=alone) as server:
            shown = f"[{host}]" if ":" in host else host
            print(f"http://{shown}:{server.server_port}{PATH} (Ctrl-C stops it)", flush=True)
            server.serve_forever()


@contextmanager
def ledger_registry(settings: "Settings") -> "Iterator[CollectorRegistry]":
    """A registry whose only collector reads the ledger of the lakehouse, which is closed at the end of the block."""
    from importlib.metadata import version

    from prometheus_client import CollectorRegistry

    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.observability.metrics import LedgerCollector

    collector = LedgerCollector(lambda: open_lakehouse(settings, read_only=True), version("data-platform"))
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        yield registry
    finally:
        collector.close()


@contextmanager
def listening(registry: "CollectorRegistry", host: str, port: int, *, alone: bool) -> Iterator[WSGIServer]:
    """A server of the metrics that listens and waits to be run. `alone` answers to names of this machine only: a page
    of another site that had its name point here would read what it answers. Raises PlatformError if it cannot
    listen."""
    import socket
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    class Handler(WSGIRequestHandler):
        timeout = CLIENT_SECONDS

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the handler's form
            """A line for each scrape would say nothing."""

    try:
        server = make_server(host, port, guarded(make_wsgi_app(registry), alone=alone), Server, Handler)
    except OSError as error:
        raise PlatformError(
            f"Cannot listen on port {port} of {host}: {error.strerror}. Take another: `dp metrics --port {PORT + 1}`."
        ) from None
    with server:
        yield server


def guarded(app: Wsgi, *, alone: bool) -> Wsgi:
    """The application at its path, and for hosts of this machine only if it is `alone`."""
    from data_platform.cli.web_access import is_host_of_ours

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if alone and not is_host_of_ours(environ.get("HTTP_HOST", ""), ()):
            return refused(start, "403 Forbidden", "This server answers to localhost and 127.0.0.1 only.\n")
        if environ["PATH_INFO"] != PATH:
            return refused(start, "404 Not Found", f"The metrics are at {PATH}.\n")
        return app(environ, start)

    def refused(start: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text.encode()]

    return answer
