"""A lakehouse for each test of datasets, and a way to fill tables of it as staging would."""

from pathlib import Path

import pytest
from platform_tests.prepared import copy

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def settings(prepared_sqlite: Settings, home: Path, tmp_path: Path) -> Settings:
    """A lakehouse of this test's own; that of its catalog makes no difference here."""
    return copy(prepared_sqlite, Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data")))
