"""What all tests of Kafka share."""

from pathlib import Path

import pytest
from platform_tests.ingestion.kafka.topics import Topics
from platform_tests.kafka_servers import Kafka

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def topics(kafka: Kafka) -> Topics:
    """Topics of this test's own."""
    return Topics(kafka.bootstrap)


@pytest.fixture
def settings(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own. What becomes of messages before the catalog hears of them cannot differ between
    catalogs: it is SQLite, unless a test says otherwise."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return Settings(home, request.getfixturevalue("postgres_url"), str(tmp_path / "data"))
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
