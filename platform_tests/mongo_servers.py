"""A server for the tests that speaks MongoDB's protocol: FerretDB 1.24 on SQLite, an emulator, built by Go once into
SERVER_CACHE (minutes) and started on a free loopback port. `MONGODB_URL` puts a server of a user's own in its place.
It has no accounts, transactions or change streams, and ends the connection of who sends it a Decimal128, a NaN or a
MinKey."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platform_tests.kafka_servers import cache
from platform_tests.servers import free_port, require_servers, wait_for_port

from data_platform.ingestion.debezium.runtime import filled_once

MODULE = "github.com/FerretDB/FerretDB"
VERSION = "v1.24.2"
SOURCE = Path(__file__).parent / "ferretdb" / "main.go"


def mongodb_can_run() -> bool:
    """Whether such a server can be had: the user's own, or the program, or Go to build it."""
    return bool(os.environ.get("MONGODB_URL")) or _folder().exists() or shutil.which("go") is not None


def _folder() -> Path:
    return cache() / f"ferretdb-{VERSION}"


@dataclass
class Mongodb:
    """A running server. `folder` is None for one that is not ours to stop."""

    url: str
    folder: Path | None = None
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it (again), at the same address and with what it stored."""
        assert self.folder is not None, "a server given by MONGODB_URL is not ours to start"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_folder() / "ferretdb"), f"127.0.0.1:{self.port}", str(self.folder / "data")],
                stdout=log,
                stderr=log,
            )
        wait_for_port(self.port, self.process, self.folder / "log")

    def kill(self) -> None:
        """Stop it as a power cut would."""
        assert self.process is not None, "a server given by MONGODB_URL is not ours to stop"
        self.process.kill()
        self.process.wait()


@contextmanager
def running_mongodb() -> Iterator[Mongodb]:
    """The server that `MONGODB_URL` names, else one of our own for as long as the block lasts (1 s to start)."""
    if given := os.environ.get("MONGODB_URL"):
        yield Mongodb(given.rstrip("/"))
        return
    require_servers()
    _build()
    folder, port = Path(tempfile.mkdtemp(prefix="ferretdb-")), free_port()
    (folder / "data").mkdir()
    server = Mongodb(f"mongodb://127.0.0.1:{port}", folder, port)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


def _build() -> None:
    with filled_once(_folder()) as folder:
        if folder is None:
            return
        shutil.copy(SOURCE, folder)
        for command in (
            ["go", "mod", "init", "ferretdb"],
            ["go", "get", f"{MODULE}@{VERSION}"],
            ["go", "mod", "tidy"],
            ["go", "build", "-trimpath", "-o", "ferretdb", "."],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
