"""A tracking server of MLflow for the tests: its own REST application with a database and a folder of artifacts, in a
process of its own on a loopback port. The client's package has all of it but the pages, what starts it in production,
and Flask, which comes with moto."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from platform_tests.kafka_servers import cache
from platform_tests.servers import free_port, require_servers, wait_for_port

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mlflow:
    """A running server."""

    url: str


@contextmanager
def running_mlflow(folder: Path) -> Iterator[Mlflow]:
    """A server without runs and models."""
    require_servers()
    port, empty, log = free_port(), cache() / f"mlflow-{version('mlflow-skinny')}.db", folder / "server.log"
    if empty.exists():  # its tables take seconds to be made
        shutil.copy(empty, folder / "mlflow.db")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "platform_tests.mlflow_server", str(folder), str(port)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        wait_for_port(port, process, log)
        if not empty.exists():
            empty.parent.mkdir(parents=True, exist_ok=True)
            part = empty.with_suffix(f".{os.getpid()}")
            shutil.copy(folder / "mlflow.db", part)
            part.replace(empty)
        yield Mlflow(f"http://127.0.0.1:{port}")
    finally:
        process.kill()  # nothing is asked of it any more, and its database is thrown away
        process.wait(20)


def serve(folder: str, port: int) -> None:
    """Serve until the process is ended."""
    database = f"sqlite:///{folder}/mlflow.db"
    os.environ.update(
        _MLFLOW_SERVER_FILE_STORE=database,
        _MLFLOW_SERVER_REGISTRY_STORE=database,
        _MLFLOW_SERVER_ARTIFACT_ROOT="mlflow-artifacts:/",
        _MLFLOW_SERVER_ARTIFACT_DESTINATION=f"{folder}/artifacts",
        _MLFLOW_SERVER_SERVE_ARTIFACTS="true",
    )
    from mlflow.server import app
    from mlflow.server.handlers import _get_model_registry_store, _get_tracking_store
    from werkzeug.serving import make_server

    _get_tracking_store()  # the tables are made before a request waits for them
    _get_model_registry_store()
    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
