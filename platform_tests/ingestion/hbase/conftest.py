"""What all tests of HBase share."""

from pathlib import Path

import pytest
from platform_tests.hbase_servers import Hbase
from platform_tests.ingestion.hbase.cells import Cells

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def cells(hbase: Hbase) -> Cells:
    """A table of this test's own."""
    return Cells.make(hbase.url)


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own: what comes of rows before the catalog hears of them cannot differ between
    catalogs."""
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
