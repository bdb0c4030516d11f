"""A real Apache Kafka and a real schema registry (Apicurio) for the tests: jars from Maven Central, downloaded once
into a cache outside of the checkout (`SERVER_CACHE`), started by Java on free loopback ports and stopped again.
`KAFKA_BOOTSTRAP` and `SCHEMA_REGISTRY_URL` put servers of a user's own in their place. Nothing here is a fake."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from platform_tests.servers import free_port, require_servers, wait_for_port

from data_platform.ingestion.debezium.runtime import filled_once
from nyc_flights.simulator import broker

REGISTRY = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
"""The last line of releases that Java 17 runs."""

USER, PASSWORD = "platform", "s3cret-of-the-broker"
"""Who may use the listener that asks for a password."""


def cache() -> Path:
    """Where downloads of servers are kept."""
    return Path(os.environ.get("SERVER_CACHE", "~/.cache/data_platform_servers")).expanduser()


def kafka_can_run() -> bool:
    """Whether a Kafka can be had: the user's own, or Java and the jars, or Java and Maven to get them."""
    return bool(os.environ.get("KAFKA_BOOTSTRAP")) or _can_run(_kafka_folder())


def registry_can_run() -> bool:
    """Whether a schema registry can be had."""
    return bool(os.environ.get("SCHEMA_REGISTRY_URL")) or _can_run(_registry_folder())


def _can_run(folder: Path) -> bool:
    return shutil.which("java") is not None and (folder.exists() or shutil.which("mvn") is not None)


def _kafka_folder() -> Path:
    return broker.jars_in(cache())


def _registry_folder() -> Path:
    return cache() / f"apicurio-{REGISTRY.split(':')[2]}"


@dataclass
class Kafka:
    """A running Kafka of one broker. `folder` is None for one that is not ours to stop.

    Besides the listener of `bootstrap` it has one that asks for a password (`secured`), one with TLS (`encrypted`,
    whose certificate is in `certificate`), and one that it advertises at the port `proxied`, where nothing listens
    but a proxy that a test starts to the port `behind_proxy`.
    """

    bootstrap: str
    folder: Path | None = None
    ports: list[int] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def secured(self) -> str:
        return f"127.0.0.1:{self.ports[2]}"

    @property
    def encrypted(self) -> str:
        return f"127.0.0.1:{self.ports[3]}"

    @property
    def behind_proxy(self) -> int:
        return self.ports[4]

    @property
    def proxied(self) -> int:
        return self.ports[5]

    @property
    def certificate(self) -> Path:
        assert self.folder is not None
        return self.folder / "certificate.pem"

    def start(self) -> None:
        """Start it (again), at the same address and with what it stored."""
        assert self.folder is not None, "a server given by KAFKA_BOOTSTRAP is not ours to start"
        self.process = broker.start(self.folder, _kafka_folder())
        wait_for_port(self.ports[0], self.process, self.folder / "server.log")

    def kill(self) -> None:
        """Stop it as a power cut would."""
        assert self.process is not None, "a server given by KAFKA_BOOTSTRAP is not ours to stop"
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        """Stop it and remove what it stored."""
        if self.folder is not None:
            self.kill()
            shutil.rmtree(self.folder)


@contextmanager
def running_kafka() -> Iterator[Kafka]:
    """The Kafka that `KAFKA_BOOTSTRAP` names, else one of our own for as long as the block lasts (5 s to start)."""
    if given := os.environ.get("KAFKA_BOOTSTRAP"):
        yield Kafka(given)
        return
    server = start_kafka()
    try:
        yield server
    finally:
        server.remove()


def start_kafka() -> Kafka:
    """Download it if it is not there yet, format its storage and start it."""
    require_servers()
    broker.download(_kafka_folder())
    folder = Path(tempfile.mkdtemp(prefix="kafka-"))
    ports = [free_port() for _ in range(6)]
    _make_certificate(folder)
    broker.prepare(folder, _kafka_folder(), _settings(folder, ports))
    server = Kafka(f"127.0.0.1:{ports[0]}", folder, ports)
    server.start()
    return server


def _settings(folder: Path, ports: list[int]) -> dict[str, object]:
    plain, controller, secured, encrypted, behind_proxy, proxied = ports
    listeners = {
        "PLAINTEXT": plain,
        "CONTROLLER": controller,
        "SECURED": secured,
        "ENCRYPTED": encrypted,
        "PROXIED": behind_proxy,
    }
    advertised = {name: port for name, port in listeners.items() if name != "CONTROLLER"} | {"PROXIED": proxied}
    plain_login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in advertised.items()),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_PLAINTEXT,"
        "ENCRYPTED:SSL,PROXIED:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.name.secured.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secured.plain.sasl.jaas.config": f'{plain_login} required user_{USER}="{PASSWORD}";',
        "listener.name.encrypted.ssl.keystore.type": "PKCS12",
        "listener.name.encrypted.ssl.keystore.location": folder / "keys.p12",
        "listener.name.encrypted.ssl.keystore.password": PASSWORD,
        "log.cleaner.backoff.ms": 200,
        "log.retention.check.interval.ms": 500,
        "log.initial.task.delay.ms": 500,
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
    }


def _make_certificate(folder: Path) -> None:
    """A certificate of the server's own, as Java and as everybody else reads it."""
    keys, store = str(folder / "keys.p12"), ["-storetype", "PKCS12", "-storepass", PASSWORD]
    names = ["-dname", "CN=localhost", "-ext", "SAN=IP:127.0.0.1,DNS:localhost"]
    made = ["-genkeypair", "-alias", "kafka", "-keyalg", "EC", "-validity", "30", *names]
    _checked(["keytool", *made, "-keystore", keys, *store])
    exported = ["-exportcert", "-rfc", "-alias", "kafka", "-file", str(folder / "certificate.pem")]
    _checked(["keytool", *exported, "-keystore", keys, *store])


@contextmanager
def running_registry() -> Iterator[str]:
    """The URL of the registry that `SCHEMA_REGISTRY_URL` names, else of one of our own, in memory (some 7 s)."""
    if given := os.environ.get("SCHEMA_REGISTRY_URL"):
        yield given.rstrip("/")
        return
    _download_registry()
    folder, port = Path(tempfile.mkdtemp(prefix="registry-")), free_port()
    jar = next(_registry_folder().glob("*-runner.jar"))
    address = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["java", "-Xmx384m", *broker.JAVA, *address, "-jar", str(jar)], stdout=log, stderr=log
        )
    try:
        wait_for_port(port, server, folder / "log")
        yield f"http://127.0.0.1:{port}/apis/ccompat/v7"
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def _download_registry() -> None:
    with filled_once(_registry_folder()) as folder:
        if folder is not None:
            copied = ["dependency:copy", f"-Dartifact={REGISTRY}", f"-DoutputDirectory={folder}"]
            _checked(["mvn", "-B", "-q", *copied])
            archive = next(folder.glob("*.tar.gz"))
            _checked(["tar", "-xzf", str(archive), "-C", str(folder)])
            archive.unlink()


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
