"""`dp serve`: the model in production answers over HTTP, on this machine alone unless `--host` says otherwise."""

import os
import signal
import socket
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from data_platform.errors import PlatformError

HOST = "127.0.0.1"
ONE_THREAD = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS")
"""For a few rows threads cost more than they do: with several of them an answer of one row took three times as long."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Annotated[str, typer.Argument(help="The model: `dp model list` shows them.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to answer on.")] = 8000,
    host: Annotated[
        str,
        typer.Option(help="Address to answer on. Who reaches it may ask: put a proxy before it that knows users."),
    ] = HOST,
    refresh: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at which version is in production.")
    ] = 5.0,
) -> None:
    """Answer requests with the model in production, and keep each prediction.

    Predictions are appended to files of JSON lines in landing/predictions/MODEL, which a FileSource reads like any
    others; a prediction is answered once it is on the disk. Another version takes over within seconds when it is
    promoted, without a request being refused.
    """
    for variable in ONE_THREAD:
        os.environ.setdefault(variable, "1")
    import uvicorn

    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.serving.following import Following
    from data_platform.ml.serving.log import PredictionLog
    from data_platform.ml.serving.server import application

    # uvicorn gives a signal back once it has shut down: as the default would have it, SIGTERM would end us right there,
    # before the file of predictions has its name.
    signal.signal(signal.SIGTERM, _end)
    settings = settings_from_environment()
    name = model.removeprefix("models/")
    folder = settings.landing / "predictions" / name
    with (
        listening(host, port) as listener,
        Following(settings, name, refresh, _say) as following,
        PredictionLog(folder, name) as log,
    ):
        _say(
            f"Version {following.served.version} of the model {name} answers on http://{_in_address(host)}:{port}"
            "/predictions "
            f"(Ctrl-C stops it); GET /model says what it takes. Predictions are kept in {folder}"
        )
        if host not in LOOPBACK:
            _say(f"Anyone who reaches {host}:{port} may ask it: it knows no users.")
        application_ = application(following, log, [host, *LOOPBACK] if host in LOOPBACK else ["*"])
        config = uvicorn.Config(application_, log_level="warning", access_log=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises PlatformError if none can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PlatformError(
            f"Nothing can listen on port {port} of {host}: {error.strerror or error}. Take another port: "
            f"dp serve MODEL --port {port % 65535 + 1}."
        ) from None
    return listener


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signal handler's form
    raise SystemExit(0)


def _in_address(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
