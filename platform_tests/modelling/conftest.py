"""A small dbt project, on a lakehouse with a SQLite catalog (`small`) or, where the catalog matters, each (`each`)."""

from pathlib import Path

import pytest
from platform_tests.modelling.project import SmallProject, small_project

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def small(home: Path, tmp_path: Path) -> SmallProject:
    return small_project(tmp_path / "project", Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data")))


@pytest.fixture
def each(settings: Settings, tmp_path: Path) -> SmallProject:
    return small_project(tmp_path / "project", settings)
