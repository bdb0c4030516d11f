"""Here the lakehouse itself is tested, and how it begins: no test has one that was prepared."""

from pathlib import Path

import pytest

from data_platform.lakehouse.settings import Settings


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Settings:
    """Where a lakehouse of this test's own may be, with either catalog; nothing is there yet."""
    if request.param == "sqlite":
        return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
    return Settings(home, request.getfixturevalue("postgres_url"), str(tmp_path / "data"))
