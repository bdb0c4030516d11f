"""Fixtures that several folders of tests share: servers and lakehouses. What only one folder needs stays there."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbt_common.tests import enable_test_caching
from platform_tests.hbase_servers import Hbase, hbase_can_run, running_hbase
from platform_tests.kafka_servers import Kafka, kafka_can_run, registry_can_run, running_kafka, running_registry
from platform_tests.mongo_servers import Mongodb, mongodb_can_run, running_mongodb
from platform_tests.prepared import copy, prepare
from platform_tests.servers import Postgres, fresh_database, running_postgres

from data_platform import redaction
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

ON_ONE_WORKER = "platform_tests/modelled/"
"""The folder whose modules look at the same builds, which take longer than all that looks at them."""

OF_SERVERS = (
    "cli/test_add_connectors.py",
    "cli/test_add_hbase.py",
    "cli/test_add_kafka.py",
    "cli/test_add_store.py",
    "components/test_changes.py",
    "components/test_kafka.py",
    "components/test_source_log.py",
    "crash/",
    "external/test_luigi.py",
    "ingestion/changes/",
    "ingestion/debezium/",
    "ingestion/files/test_hdfs.py",
    "ingestion/hbase/",
    "ingestion/kafka/",
    "ingestion/lakes/test_kills.py",
    "ingestion/singer/",
    "ingestion/sql/test_mysql.py",
    "ingestion/sql/test_postgresql.py",
    "ingestion/sql/test_replica.py",
    "nyc_flights/test_postgresql.py",
    "test_servers.py",
)
"""Tests below this folder that take servers and programs of others (the logs of databases, Kafka, taps, Debezium) or
kill processes: `make test-servers`, not `make test`."""

SERVERS = frozenset(
    {
        *("hbase", "kafka", "mariadb", "mongodb", "mysql", "postgres", "postgres_url", "postgresql", "registry"),
        *("mlflow", "rest_catalog", "snowflake"),
    }
)
"""The fixtures that start a server, and how a test's parameters name what it runs on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take a server, so that `make test` needs nothing but Python."""
    here = Path(__file__).parent
    for item in items:
        assert isinstance(item, pytest.Function)
        parameters = item.callspec.id.split("-") if hasattr(item, "callspec") else []
        takes_one = SERVERS.intersection([*item.fixturenames, *parameters])
        if takes_one or item.path.relative_to(here).as_posix().startswith(OF_SERVERS):
            item.add_marker("servers")


YOUNG, MIDDLE, OLD = 20_000, 20, 20
"""When Python looks for cycles during the tests. By default it does so after each 700 objects."""


def pytest_configure() -> None:
    """Look for no cycles while the tests are imported and collected: nothing of that is ever released. And let dbt keep
    for the session what it parsed of the same text, which are its own macros above all."""
    gc.disable()
    enable_test_caching()


def pytest_collection_finish() -> None:
    """Leave all that was imported and collected out of every later search for cycles."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope` each module goes to one worker, and the modules of ON_ONE_WORKER to the same one."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return ON_ONE_WORKER if nodeid.startswith(ON_ONE_WORKER) else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test does to the process as a whole ends with it: secrets that it knows, its hooks, its umask."""
    monkeypatch.setattr(redaction, "_known", {})
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    records, mask = logging.getLogRecordFactory(), os.umask(0o022)
    yield
    logging.setLogRecordFactory(records)
    os.umask(mask)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session, ours or the one that POSTGRES_URL names."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database of this test's own."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """One Kafka for the whole session, ours or the one that KAFKA_BOOTSTRAP names."""
    if not kafka_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("no Kafka here: install Java and Maven (its jars are downloaded), or set KAFKA_BOOTSTRAP")
    with running_kafka() as server:
        yield server


@pytest.fixture(scope="session")
def hbase() -> Iterator[Hbase]:
    """One HBase for the whole session."""
    if not hbase_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("no HBase here: install Java and Maven (its jars are downloaded)")
    with running_hbase() as server:
        yield server


@pytest.fixture(scope="session")
def mongodb() -> Iterator[Mongodb]:
    """One server of MongoDB's protocol for the whole session, ours or the one that MONGODB_URL names."""
    if not mongodb_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("no MongoDB here: install Go (FerretDB is built by it, in minutes, once), or set MONGODB_URL")
    with running_mongodb() as server:
        yield server


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """One schema registry for the whole session, ours or the one that SCHEMA_REGISTRY_URL names."""
    if not registry_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
        pytest.skip("no schema registry here: install Java and Maven (it is downloaded), or set SCHEMA_REGISTRY_URL")
    with running_registry() as url:
        yield url


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all lakehouses of the session, so that the extensions are copied once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def prepared_sqlite(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lakehouse to be copied, with its catalog in SQLite."""
    into = tmp_path_factory.mktemp("prepared")
    return prepare(Settings(home, str(into / "catalog.sqlite"), str(into / "data")))


@pytest.fixture(scope="session")
def prepared_postgresql(postgres: Postgres, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A lakehouse to be copied, with its catalog in PostgreSQL."""
    with fresh_database(postgres) as url:
        yield prepare(Settings(home, url, str(tmp_path_factory.mktemp("prepared") / "data")))


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Iterator[Settings]:
    """A lakehouse of this test's own, with either catalog, without a table."""
    prepared = request.getfixturevalue(f"prepared_{request.param}")
    if request.param == "sqlite":
        yield copy(prepared, Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data")))
        return
    server = request.getfixturevalue("postgres")
    with fresh_database(server, like=prepared.catalog) as url:
        yield copy(prepared, Settings(home, url, str(tmp_path / "data")), server)


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lakehouse]:
    """That lakehouse, open."""
    with open_lakehouse(settings) as lake:
        yield lake
