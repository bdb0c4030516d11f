"""Iceberg catalogs for the tests: in SQLite, in PostgreSQL, and Apache's own REST catalog, which Java runs on a port of
the loopback (`Lakes.java`; its jars come by Maven, once). Tables are written by PyIceberg, and where that cannot write
what is to be read, by Iceberg's Java library."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from platform_tests.kafka_servers import cache
from platform_tests.servers import free_port, wait_for_port
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table

from data_platform.ingestion.debezium.runtime import filled_once
from data_platform.ingestion.lakes.iceberg import Iceberg
from data_platform.ingestion.lakes.options import IcebergTable

VERSION = "1.9.2"
TOKEN = "token-of-the-rest-catalog"

JARS = (
    f"org.apache.iceberg:iceberg-core:{VERSION}",
    f"org.apache.iceberg:iceberg-core:{VERSION}:tests",
    "org.eclipse.jetty:jetty-servlet:11.0.25",
    "org.xerial:sqlite-jdbc:3.50.3.0",
    "org.apache.hadoop:hadoop-client-api:3.4.1",
    "org.apache.hadoop:hadoop-client-runtime:3.4.1",
)

ROWS = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])


def items(*rows: tuple[int, str]) -> pa.Table:
    return pa.Table.from_pylist([{"id": number, "name": name} for number, name in rows], ROWS)


def contract_of(**options: Any) -> IcebergTable:
    """A table in `defs.yaml`, of which the contract does not matter."""
    return IcebergTable.model_validate({"contract": "x.y.Z", **options})


@dataclass(frozen=True)
class Lake:
    """A catalog with one namespace, `shop`. `properties` are those by which it is read."""

    catalog: Catalog
    properties: Mapping[str, str]

    def make(self, name: str = "items", schema: pa.Schema = ROWS, **options: Any) -> Table:
        return self.catalog.create_table(f"shop.{name}", schema=schema, **options)

    def source(self, name: str = "items", **options: Any) -> Iceberg:
        """The source of one table, called `t`."""
        named = {} if "path" in options else {"table": f"shop.{name}"}
        return Iceberg("lake", self.properties, {"t": contract_of(**named, **options)})


def lake_in(folder: Path, uri: str) -> Lake:
    """A catalog in a database, made where it is not there yet."""
    properties = {"type": "sql", "uri": uri, "warehouse": f"file://{folder}/warehouse"}
    catalog = load_catalog("default", **properties)
    catalog.create_namespace("shop")
    return Lake(catalog, properties)


def rest_can_run() -> bool:
    """Whether the REST catalog can be had: Java that compiles, and the jars or Maven to get them."""
    return shutil.which("javac") is not None and (_jars().exists() or shutil.which("mvn") is not None)


def _jars() -> Path:
    return cache() / f"iceberg-rest-{VERSION}"


@dataclass(frozen=True)
class Rest:
    """A running REST catalog."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"

    def lake(self, folder: Path) -> Lake:
        """The catalog with a fresh namespace, which is called as in other catalogs."""
        properties = {"type": "rest", "uri": f"http://127.0.0.1:{self.port}", "token": TOKEN}
        catalog = load_catalog("default", **properties)
        if ("shop",) in catalog.list_namespaces():
            for one in catalog.list_tables("shop"):
                catalog.drop_table(one)
        else:
            catalog.create_namespace("shop")
        return Lake(catalog, properties)

    def act(self, what: str, table: Table, file: Path, rows: int) -> None:
        """Have Iceberg's Java library commit a file: `compact`, `delete` or `equality`."""
        name = ".".join(table.name())
        given: dict[str, str | int] = {"do": what, "table": name, "file": str(file), "rows": rows}
        requests.post(f"http://127.0.0.1:{self.port}/act", params=given, timeout=30).raise_for_status()


@contextmanager
def running_rest(folder: Path) -> Iterator[Rest]:
    """Apache's REST catalog, for as long as the block lasts (2 s to start)."""
    with filled_once(_jars()) as filling:
        if filling is not None:
            (filling / "pom.xml").write_text(_project(), encoding="utf-8")
            copied = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={filling}/lib"]
            subprocess.run(["mvn", "-B", "-q", "-f", str(filling / "pom.xml"), *copied], check=True)
    port, program = free_port(), Path(__file__).with_name("Lakes.java")
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{_jars()}/lib/*"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*java, str(program), str(port), str(folder), TOKEN], stdout=log, stderr=log)
    try:
        wait_for_port(port, process, folder / "log")
        yield Rest(port, folder, process)
    finally:
        process.kill()
        process.wait()


def _project() -> str:
    dependencies = ""
    for jar in JARS:
        group, artifact, version, *classifier = jar.split(":")
        dependencies += f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        dependencies += f"<version>{version}</version>"
        dependencies += "".join(f"<classifier>{one}</classifier>" for one in classifier) + "</dependency>"
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>data-platform</groupId><artifactId>iceberg-rest</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )


def with_ids(rows: pa.Table, ids: Sequence[int]) -> pa.Table:
    """Rows whose columns have the ids by which Iceberg knows them."""
    fields = [field.with_metadata({"PARQUET:field_id": str(one)}) for field, one in zip(rows.schema, ids, strict=True)]
    return rows.cast(pa.schema(fields))


def write(folder: Path, rows: pa.Table, ids: Sequence[int]) -> Path:
    """A Parquet file of rows."""
    path = folder / f"written-{len(list(folder.iterdir()))}.parquet"
    pq.write_table(with_ids(rows, ids), path)
    return path


def positions(file: str, *places: int) -> tuple[pa.Table, tuple[int, int]]:
    """What a file of deletes by position holds, and the ids of its columns."""
    schema = pa.schema([pa.field("file_path", pa.string(), False), pa.field("pos", pa.int64(), False)])
    return pa.table([[file] * len(places), list(places)], schema=schema), (2147483546, 2147483545)
