"""What all tests of MongoDB share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.ingestion.mongodb.documents import Documents
from platform_tests.mongo_servers import Mongodb

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def documents(mongodb: Mongodb) -> Iterator[Documents]:
    """A collection of this test's own."""
    made = Documents(mongodb.url)
    yield made
    made.client.close()


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own: what comes of documents before the catalog hears of them cannot differ between
    catalogs."""
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
