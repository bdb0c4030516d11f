"""A MariaDB for the tests of a module, and a database of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.ingestion.changes.mysql_shop import Shop, shop
from platform_tests.servers import running_mariadb


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_mariadb() as url:
        yield url


@pytest.fixture
def at(server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    with shop(server) as opened:
        yield opened
