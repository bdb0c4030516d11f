"""An Apache Kafka of one broker: its jars by Maven, its settings, its process. The demo's lies in the platform's home.
What is sent to it is in `gates`.
"""

import base64
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_platform.errors import PlatformError
from data_platform.ingestion.debezium.runtime import filled_once
from nyc_flights.simulator.server import is_listening, is_running

PORT = 8715
HOST = "127.0.0.1"
VERSION = "4.4.0"
SECONDS = 90
"""How long a broker may take to start, or to end."""

JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""Java that starts soon rather than runs fast."""

ALONE: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "log.retention.ms": -1,
}
"""Settings of a broker that is alone. Messages are as old as they say, and those of 2013 are to stay."""

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>data-platform</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{}</version>
</dependency></dependencies></project>"""

LOG_SETTINGS = """status=WARN
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.c.ref=C
"""


def jars_in(folder: Path) -> Path:
    """Where the jars lie in a folder of downloads."""
    return folder / f"kafka-{VERSION}"


def require(jars: Path) -> None:
    """Raise PlatformError, saying what to install, if no broker can be had: Java runs it, Maven gets its jars."""
    missing = [] if shutil.which("java") else [("Java 17 or later", "openjdk-17-jre-headless")]
    missing += [] if jars.exists() or shutil.which("mvn") else [("Maven, which downloads it", "maven")]
    if missing:
        raise PlatformError(
            f"The demo's Kafka needs {' and '.join(name for name, _ in missing)}: apt-get install "
            f"{' '.join(package for _, package in missing)}. Or name a broker of yours by GATES_BOOTSTRAP (host:port)."
        )


def download(jars: Path) -> None:
    """Have Maven fill the folder of jars, once. Raises PlatformError if it cannot."""
    require(jars)
    with filled_once(jars) as folder:
        if folder is not None:
            (folder / "pom.xml").write_text(POM.format(VERSION), encoding="utf-8")
            copied = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}/lib"]
            _checked(["mvn", "-B", "-q", "-f", str(folder / "pom.xml"), *copied], "Maven cannot get the jars of Kafka")


def prepare(folder: Path, jars: Path, settings: Mapping[str, object]) -> None:
    """Write the settings of a broker into its folder and format its storage, which is the folder `data` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(LOG_SETTINGS, encoding="utf-8")
    lines = "".join(f"{name}={value}\n" for name, value in {**ALONE, "log.dirs": folder / "data", **settings}.items())
    (folder / "server.properties").write_text(lines, encoding="utf-8")
    if (folder / "data" / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    tool = ["java", "-Xmx128m", *JAVA, "-cp", f"{jars}/lib/*", "kafka.tools.StorageTool"]
    _checked(
        [*tool, "format", "-t", cluster, "-c", str(folder / "server.properties")], "Kafka's storage cannot be made"
    )


def start(folder: Path, jars: Path) -> "subprocess.Popen[bytes]":
    """Start the broker of a folder that was prepared; it may not answer yet. What it says is in `server.log` there."""
    logging = f"-Dlog4j2.configurationFile=file:{folder}/log4j2.properties"
    program = ["kafka.Kafka", str(folder / "server.properties")]
    with (folder / "server.log").open("ab") as output:
        # Of a session of its own: an interrupt of the terminal ends what reads and writes first.
        return subprocess.Popen(  # noqa: S603 - Java, with arguments of ours
            [shutil.which("java") or "java", "-Xms128m", "-Xmx512m", *JAVA, logging, "-cp", f"{jars}/lib/*", *program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def bootstrap_of(port: int = PORT) -> str:
    """The address of the demo's broker."""
    return f"{HOST}:{port}"


@contextmanager
def serving(folder: Path, jars: Path, bootstrap: str) -> Iterator[None]:
    """The broker of `folder`, which is made if there is none, for the time of the block; none where one listens at the
    address already, or the address is that of somebody's own. Raises PlatformError if it cannot be had."""
    host, _, port = bootstrap.rpartition(":")
    if host != HOST or not port.isdecimal() or is_listening(HOST, int(port)):
        yield
        return
    if is_listening(HOST, int(port) + 1):
        raise PlatformError(
            f"The demo's Kafka needs port {int(port) + 1} of {HOST} beside {port}, and something else listens there. "
            "End that, or name other ports: GATES_BOOTSTRAP=127.0.0.1:PORT, of which the next one is free too."
        )
    download(jars)
    folder = folder.resolve()
    prepare(folder, jars, _settings(int(port)))
    server = start(folder, jars)
    (folder / "pid").write_text(str(server.pid), encoding="utf-8")
    try:
        _wait(server, int(port), folder / "server.log")
        yield
    finally:
        _end(server)
        (folder / "pid").unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove the broker and its messages. Raises PlatformError while it runs."""
    if is_running(folder / "pid"):
        raise PlatformError(f"The Kafka in {folder} is running: end the UI, or what else runs it, first.")
    shutil.rmtree(folder, ignore_errors=True)


def _settings(port: int) -> dict[str, object]:
    """The broker listens at the port, and to itself at the next one."""
    return {
        "controller.quorum.voters": f"1@{HOST}:{port + 1}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{port + 1}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
    }


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    ends = time.monotonic() + SECONDS
    while not is_listening(HOST, port):
        if server.poll() is not None or time.monotonic() > ends:
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
            how = f"did not answer within {SECONDS} s" if server.poll() is None else "ended as it started"
            raise PlatformError(f"The demo's Kafka at {HOST}:{port} {how}: {said}")
        time.sleep(0.1)


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _checked(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - commands of ours
    if done.returncode:
        raise PlatformError(f"{what}: {(done.stdout + done.stderr).strip()[-1000:]}")


def main() -> None:
    """Run the broker in the folder that is the first argument, with the jars of the second, at the address that is the
    third, until ended."""
    folder, jars, bootstrap = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with serving(Path(folder), Path(jars), bootstrap):
        signal.pause()


if __name__ == "__main__":
    main()
