"""A real Apache HBase for the tests, with its REST gateway: jars from Maven Central, downloaded once into SERVER_CACHE,
started by Java on free loopback ports and stopped again. Nothing here is a fake."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from platform_tests.kafka_servers import cache
from platform_tests.servers import free_port, require_servers, wait_for_port

from data_platform.ingestion.debezium.runtime import filled_once

VERSION = "2.6.1"
SECONDS = 60
"""How long HBase may take to answer its first request."""

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>data-platform</groupId><artifactId>hbase</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{}</dependencies></project>"""

DEPENDENCY = (
    "<dependency><groupId>org.apache.hbase</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)

IN_THE_WAY = (
    "servlet-api-2.5",
    "jersey-client-1",
    "jersey-core-1",
    "jersey-guice-1",
    "jersey-json-1",
    "jersey-server-1",
)
"""Older classes of the names that the gateway needs in later versions: it is started without these jars."""

OPENED = (
    *("java.base/java.lang", "java.base/java.nio", "java.base/sun.nio.ch", "java.base/java.util"),
    *("java.base/java.util.concurrent", "java.base/java.lang.reflect", "java.base/jdk.internal.ref"),
)
"""Packages of Java's own that HBase reaches into."""

JAVA = (
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"),
    *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED),
    "--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true",
)


def hbase_can_run() -> bool:
    """Whether an HBase can be had: Java and the jars, or Java and Maven to get them."""
    return shutil.which("java") is not None and (_jars().exists() or shutil.which("mvn") is not None)


def _jars() -> Path:
    return cache() / f"hbase-{VERSION}"


@dataclass
class Hbase:
    """A running HBase: the server in one process, the gateway in another."""

    folder: Path
    ports: list[int]
    server: "subprocess.Popen[bytes] | None" = None
    gateway: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.ports[3]}"

    def start(self) -> None:
        """Start what does not run, with what was stored, and wait until it answers."""
        if self.server is None:
            self.server = self._started("server", 512, "lib/*", "org.apache.hadoop.hbase.master.HMaster")
        if self.gateway is None:
            self.gateway = self._started("gateway", 256, "rest/*", "org.apache.hadoop.hbase.rest.RESTServer")
        wait_for_port(self.ports[3], self.gateway, self.folder / "gateway.log")
        until = time.monotonic() + SECONDS
        while True:
            assert self.server.poll() is None, (self.folder / "server.log").read_text()
            try:
                # Only a master that is ready makes a namespace.
                if requests.post(f"{self.url}/namespaces/n{time.time_ns()}", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            assert time.monotonic() < until, (self.folder / "server.log").read_text()[-3000:]
            time.sleep(0.1)

    def kill_server(self) -> None:
        """Stop the server as a power cut would; the gateway runs on."""
        assert self.server is not None
        _kill(self.server)
        self.server = None

    def kill_gateway(self) -> None:
        """Stop the gateway as a power cut would; the server runs on."""
        assert self.gateway is not None
        _kill(self.gateway)
        self.gateway = None

    def remove(self) -> None:
        """Stop it and remove what it stored."""
        for process in (self.server, self.gateway):
            if process is not None:
                _kill(process)
        shutil.rmtree(self.folder)

    def _started(self, name: str, memory: int, jars: str, program: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["java", f"-Xmx{memory}m", *JAVA, "-cp", f"{self.folder / name}:{_jars()}/{jars}", program, "start"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


@contextmanager
def running_hbase() -> Iterator[Hbase]:
    """An HBase for as long as the block lasts."""
    require_servers()
    _download()
    folder = Path(tempfile.mkdtemp(prefix="hbase-"))
    server = Hbase(folder, [free_port() for _ in range(4)])
    settings = _settings(folder, server.ports)
    for name, given in {"server": settings, "gateway": {**settings, **IMPATIENT}}.items():
        lines = "".join(
            f"<property><name>{key}</name><value>{value}</value></property>\n" for key, value in given.items()
        )
        (folder / name).mkdir()
        (folder / name / "hbase-site.xml").write_text(f"<configuration>\n{lines}</configuration>\n", encoding="utf-8")
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _settings(folder: Path, ports: list[int]) -> dict[str, object]:
    keeper, master, region, gateway = ports
    return {
        "hbase.rootdir": f"file://{folder}/data",
        "hbase.tmp.dir": folder / "tmp",
        "hbase.zookeeper.property.dataDir": folder / "zookeeper",
        "hbase.zookeeper.property.clientPort": keeper,
        "hbase.zookeeper.property.clientPortAddress": "127.0.0.1",
        "hbase.zookeeper.property.admin.enableServer": "false",
        "hbase.zookeeper.quorum": "127.0.0.1",
        "hbase.cluster.distributed": "false",
        "hbase.unsafe.stream.capability.enforce": "false",
        "hbase.wal.provider": "filesystem",
        "hbase.master.hostname": "localhost",
        "hbase.unsafe.regionserver.hostname": "localhost",
        "hbase.master.ipc.address": "127.0.0.1",
        "hbase.regionserver.ipc.address": "127.0.0.1",
        "hbase.master.port": master,
        "hbase.regionserver.port": region,
        "hbase.master.info.port": -1,
        "hbase.regionserver.info.port": -1,
        "hbase.localcluster.assign.random.ports": "false",
        "hbase.regionserver.handler.count": 6,
        "hbase.rest.host": "127.0.0.1",
        "hbase.rest.port": gateway,
        "hbase.rest.info.port": -1,
        # Of the one server that there is.
        "hbase.regionserver.msginterval": 200,
        "hbase.master.wait.on.regionservers.maxtostart": 1,
        "hbase.master.wait.on.regionservers.timeout": 200,
        "hbase.master.wait.on.regionservers.interval": 100,
    }


IMPATIENT: dict[str, object] = {
    "hbase.client.retries.number": 2,
    "hbase.client.pause": 50,
    "hbase.rpc.timeout": 3000,
    "hbase.client.operation.timeout": 4000,
    "hbase.client.meta.operation.timeout": 4000,
    "hbase.client.scanner.timeout.period": 4000,
    "zookeeper.recovery.retry": 1,
}
"""The gateway gives up on a server that is gone within seconds, not after minutes."""


def _download() -> None:
    with filled_once(_jars()) as folder:
        if folder is None:
            return
        needed = "".join(DEPENDENCY.format(name, VERSION) for name in ("hbase-server", "hbase-rest"))
        (folder / "pom.xml").write_text(POM.format(needed), encoding="utf-8")
        copied = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}/lib"]
        done = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(folder / "pom.xml"), *copied], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"Maven cannot get the jars of HBase:\n{done.stdout}{done.stderr}")
        (folder / "rest").mkdir()
        for jar in (folder / "lib").glob("*.jar"):
            if not jar.name.startswith((*IN_THE_WAY, "jetty-6", "jetty-sslengine-6")):
                (folder / "rest" / jar.name).symlink_to(f"../lib/{jar.name}")
