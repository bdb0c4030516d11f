"""What all tests of lakes share: the REST catalog of the session, catalogs of a test's own, a lakehouse."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from platform_tests.ingestion.lakes.catalogs import Lake, Rest, lake_in, rest_can_run, running_rest
from platform_tests.servers import free_port, wait_for_port

from data_platform.lakehouse.settings import Settings


@pytest.fixture(scope="session")
def rest_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """One REST catalog for the whole session."""
    if not rest_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("no REST catalog here: install a JDK and Maven (its jars are downloaded)")
    with running_rest(tmp_path_factory.mktemp("rest")) as server:
        yield server


@pytest.fixture
def iceberg(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A catalog of this test's own, in SQLite unless the test says otherwise."""
    kind = getattr(request, "param", "sqlite")
    if kind == "rest_catalog":
        rest: Rest = request.getfixturevalue("rest_catalog")
        return rest.lake(tmp_path)
    if kind == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        made = lake_in(tmp_path, f"postgresql+psycopg://{url.partition('://')[2]}")
        return Lake(made.catalog, {**made.properties, "uri": url})
    return lake_in(tmp_path, f"sqlite:///{tmp_path}/iceberg.sqlite")


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own. What becomes of rows before its catalog hears of them cannot differ between
    catalogs: it is SQLite."""
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """moto's emulator of S3 with a bucket `lake`, and how it is reached. In a process of its own: delta-rs lets nothing
    else of this one run while it waits for an answer."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "log").open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for_port(port, server, tmp_path / "log")
        url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "reader", "aws_secret_access_key": "secret-of-the-bucket"}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="lake")
        given = {name.upper(): value for name, value in keys.items()}
        yield {**given, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    finally:
        server.kill()
        server.wait()
