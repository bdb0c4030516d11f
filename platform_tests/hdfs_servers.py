"""A real HDFS for the tests, of one NameNode and one DataNode: jars from Maven Central, downloaded once into
SERVER_CACHE, started by Java on free loopback ports and stopped again. Nothing here is a fake."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from platform_tests.kafka_servers import cache
from platform_tests.servers import free_port, require_servers, wait_for_port

from data_platform.ingestion.debezium.runtime import filled_once

VERSION = "3.5.0"
SECONDS = 60
"""How long a part of it may take to come up."""

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>data-platform</groupId><artifactId>hdfs</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-minicluster</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>"""

SERVERS = "org.apache.hadoop.hdfs.server"
OPENED = ("java.base/java.lang", "java.base/java.util", "java.base/java.nio", "java.base/sun.nio.ch")
JAVA = (
    *("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
    *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED),
)


def hdfs_can_run() -> bool:
    """Whether an HDFS can be had: Java and the jars, or Java and Maven to get them."""
    return shutil.which("java") is not None and (_jars().exists() or shutil.which("mvn") is not None)


def _jars() -> Path:
    return cache() / f"hadoop-{VERSION}"


@dataclass
class Hdfs:
    """A running HDFS."""

    folder: Path
    ports: list[int]
    name_node: "subprocess.Popen[bytes] | None" = None
    data_node: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"hdfs://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        """Start what does not run, with what was stored, and wait until files can be written."""
        if self.name_node is None:
            self.name_node = self._started("namenode.NameNode")
        if self.data_node is None:
            self.data_node = self._started("datanode.DataNode")
        wait_for_port(self.ports[2], self.data_node, self.folder / "log")
        until = time.monotonic() + SECONDS
        about = f"http://127.0.0.1:{self.ports[1]}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystem*"
        while True:
            with suppress(requests.RequestException):
                state = requests.get(about, timeout=5).text.replace(" ", "")
                if '"NumLiveDataNodes":1' in state and '"FSState":"Operational"' in state:
                    return
            for process in (self.name_node, self.data_node):
                assert process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.1)

    def kill_data_node(self) -> None:
        """Stop what has the bytes, as a power cut would; the names stay."""
        assert self.data_node is not None
        self.data_node.kill()
        self.data_node.wait()
        self.data_node = None

    def remove(self) -> None:
        """Stop it and remove what it stored."""
        for process in (self.name_node, self.data_node):
            if process is not None:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)

    def format(self) -> None:
        """Make it new."""
        process = self._started("namenode.NameNode", "-format", "-nonInteractive")
        assert process.wait(SECONDS) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def _started(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        path = f"{self.folder / 'conf'}:{_jars()}/lib/*"
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["java", *JAVA, "-cp", path, f"{SERVERS}.{program}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )


@contextmanager
def running_hdfs() -> Iterator[Hdfs]:
    """An HDFS for as long as the block lasts."""
    require_servers()
    _download()
    folder = Path(tempfile.mkdtemp(prefix="hdfs-"))
    server = Hdfs(folder, [free_port() for _ in range(5)])
    (folder / "conf").mkdir()
    for name, given in _settings(folder, server.ports).items():
        lines = "".join(
            f"<property><name>{key}</name><value>{value}</value></property>\n" for key, value in given.items()
        )
        (folder / "conf" / name).write_text(f"<configuration>\n{lines}</configuration>\n", encoding="utf-8")
    try:
        server.format()
        server.start()
        yield server
    finally:
        server.remove()


def _settings(folder: Path, ports: list[int]) -> dict[str, dict[str, object]]:
    names, about, *of_data = (f"127.0.0.1:{port}" for port in ports)
    return {
        "core-site.xml": {"fs.defaultFS": f"hdfs://{names}", "hadoop.tmp.dir": folder / "tmp"},
        "hdfs-site.xml": {
            "dfs.namenode.name.dir": folder / "names",
            "dfs.datanode.data.dir": folder / "data",
            "dfs.replication": 1,
            "dfs.namenode.rpc-address": names,
            "dfs.namenode.http-address": about,
            "dfs.datanode.address": of_data[0],
            "dfs.datanode.http.address": of_data[1],
            "dfs.datanode.ipc.address": of_data[2],
            "dfs.datanode.hostname": "localhost",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.safemode.extension": 0,
            "dfs.namenode.fs-limits.min-block-size": 1024,
            "dfs.datanode.du.reserved": 0,
        },
    }


def _download() -> None:
    with filled_once(_jars()) as folder:
        if folder is None:
            return
        (folder / "pom.xml").write_text(POM, encoding="utf-8")
        copied = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}/lib"]
        done = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(folder / "pom.xml"), *copied], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"Maven cannot get the jars of Hadoop:\n{done.stdout}{done.stderr}")
