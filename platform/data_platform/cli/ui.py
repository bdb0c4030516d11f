"""`dp ui`: the Dagster UI with its daemon, on this machine alone, and what a platform's packages want to run beside it.
What they say goes to a file: a terminal that shows every step of every run tells nobody anything.

A package declares such a service by an entry point in the group `data_platform.services`: a function from settings to
the command to run, or None if there is nothing to serve. A service ends with the UI.
"""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Annotated
from urllib.parse import quote

import typer

from data_platform.errors import PlatformError

HOST = "127.0.0.1"
LOG_BYTES = 5_000_000
SHOWN_LINES = 40
"""What is shown of the log when the UI ends by itself."""

WATCH_SECONDS = 60
SERVICES = "data_platform.services"

PREFIX = "DAGSTER_WEBSERVER_PATH_PREFIX"
"""What Dagster's web server takes for its option `--path-prefix`, which `dagster dev` does not pass on."""


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
    path_prefix: Annotated[
        str, typer.Option(help="Path under which a proxy shows it, such as /lake; it is not cut off by the proxy.")
    ] = "",
) -> None:
    """Start the Dagster UI, with the daemon that runs sensors and schedules."""
    from data_platform.cli.instance import prepare_dagster_home
    from data_platform.lakehouse.settings import WORKSPACE, project_folder, settings_from_environment

    require_prefix(path_prefix)
    require_free(port)
    settings = settings_from_environment()
    prepare_dagster_home(settings)
    project = project_folder()
    workspace = project / WORKSPACE
    dagster = [sys.executable, "-m", "data_platform.cli.development"]
    command = [*dagster, "dev", "-w", str(workspace), "-h", HOST, "-p", str(port)]
    services = [given for entry in entry_points(group=SERVICES) if (given := entry.load()(settings)) is not None]
    log = settings.dagster_home / "ui.log"
    print(
        f"{address(port, settings.ui_token, path_prefix)} (in some seconds; Ctrl-C stops it). What it says: {log}",
        flush=True,
    )
    # A shell that starts us in the background has SIGINT ignored, which Dagster's processes would inherit; it is by
    # SIGINT that they stop each other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # `working_directory` in workspace.yaml counts from the folder in which the server starts.
    beside = [subprocess.Popen(service, cwd=project, stdout=subprocess.DEVNULL) for service in services]
    # A file rather than a pipe: runs that outlive the UI may go on writing to it.
    keep_small(log)
    with log.open("ab") as out:
        server = subprocess.Popen(
            command,
            cwd=project,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **({PREFIX: path_prefix} if path_prefix else {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal reaches us alone, and the server through us: as an interrupt of us alone does.
            process_group=0,
        )

    def terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's form
        server.terminate()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's form
        # All of the server's processes, as a terminal does.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)
    try:
        while (code := ended(server)) is None:
            keep_small(log)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(lines[-SHOWN_LINES:]), file=sys.stderr)
        raise typer.Exit(code)
    finally:
        for service in beside:
            service.terminate()
            service.wait()


def ended(server: "subprocess.Popen[bytes]") -> int | None:
    """The exit code of a process that ends within WATCH_SECONDS; None if it goes on."""
    try:
        return server.wait(WATCH_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def keep_small(log: Path) -> None:
    """Put a log aside that has become large, and begin it anew: a dead source is reported every few seconds. Who writes
    to it appends."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def require_prefix(prefix: str) -> None:
    """Raise PlatformError for a path under which nothing can be served."""
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", prefix):
        raise PlatformError(
            f"--path-prefix {prefix!r} is no path under which a proxy shows something: write it with a slash before "
            "each part and none at the end, such as /lake."
        )


def address(port: int, token: str | None, prefix: str = "") -> str:
    """What to open in a browser. With a token it is a secret."""
    url = f"http://{HOST}:{port}{prefix}"
    return url if token is None else f"{url}/?token={quote(token, safe='')}"


def require_free(port: int) -> None:
    """Raise PlatformError if the UI cannot listen on `port`: Dagster would go on without it, and only log why."""
    with socket.socket() as probe:
        # As the server does it: a connection of the last one that is still closing is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PlatformError(
                    f"Port {port} on {HOST} is taken, perhaps by another `dp ui`. End that, or take another port: "
                    f"`dp ui --port {port % 65535 + 1}`."
                ) from None
            raise PlatformError(
                f"The UI cannot listen on port {port} of {HOST}: {error.strerror}. Take another: `dp ui --port 3000`."
            ) from None
