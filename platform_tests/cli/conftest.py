"""A small lakehouse that the commands look at, and a platform package of its own for those that need definitions."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders, rejects
from platform_tests.workers import publish_query
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.cli.init import init_platform
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, Settings, settings_from_environment
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import StagingRefusedError, stage_table

AT = "2026-01-05T08:00:00Z"
GOOD = 60
Dp = Callable[..., Result]


def build_lakehouse(home: Path) -> Settings:
    """A lakehouse: shop/orders with three entries in quarantine, shop/refunds refused, mart published."""
    settings = settings_from_environment({"DATA_PLATFORM_HOME": str(home)})
    good = [(number, number, "paid", AT) for number in range(1, GOOD + 1)]
    batch = batch_of(
        orders(*good, (101, -5, "paid", AT), (102, 7, "lost", AT)),
        {"cursor": "1"},
        rejects(("orders.csv", 7, "103;;", "1 field instead of 4")),
    )
    refunds = batch_of(orders((1, 1, "nowhere", AT)), {"cursor": "1"})
    with open_lakehouse(settings) as lake:
        load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="run-1")
        stage_table(lake, RECIPE, run_id="run-1")
        load_table(lake, "shop", MemorySource([refunds]), "refunds", TABLE, run_id="run-2")
        with pytest.raises(StagingRefusedError):
            stage_table(lake, Recipe("shop", "refunds", RECIPE.key, RECIPE.contract), run_id="run-2")
        publish_query(lake, "mart", "SELECT 42 AS answer", {"shop/orders": 1}, run_id="run-3")
    return settings


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a lakehouse for tests that only look."""
    home = tmp_path_factory.mktemp("shared")
    build_lakehouse(home)
    return home


def new_home(home: Path, shared: Path) -> Path:
    """A home of its own that shares the extensions: they are 170 MB, and take seconds to copy and verify."""
    home.mkdir(0o700)
    (home / "extensions").symlink_to(shared / "extensions")
    return home


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Commands add variables to the environment of their process; in a test they go with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_home: Path) -> None:
    """Tests never look into the developer's own state."""
    new_home(tmp_path / "home", shared_home)
    for name in ("LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA", "DAGSTER_HOME", "DATA_PLATFORM_MASK_KEY", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path / "home"))


@pytest.fixture
def dp() -> Dp:
    """Run a command in this process."""

    def run(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=text)

    return run


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch, shared_home: Path) -> Path:
    """Commands look at the shared lakehouse. Tests that use it change nothing."""
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(shared_home))
    return shared_home


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_home: Path) -> Settings:
    """A copy of the shared lakehouse's catalog. New files lie among the shared ones, but only the copy names them."""
    catalog = tmp_path / "catalog.sqlite"
    shutil.copyfile(shared_home / "lakehouse" / "catalog.sqlite", catalog)
    monkeypatch.setenv("LAKEHOUSE_CATALOG", str(catalog))
    monkeypatch.setenv("LAKEHOUSE_DATA", str(shared_home / "lakehouse" / "data"))
    return settings_from_environment()


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    """A checkout with the files that `dp init` touches, and no platform but the one that workspace.yaml names."""
    repository = tmp_path / "repository"
    (repository / "platform").mkdir(parents=True)
    for name in ("workspace.yaml", "pyproject.toml"):
        (repository / name).write_text((REPOSITORY / name).read_text())
    return repository


@pytest.fixture
def package(skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of a new platform `acme`, importable and the only one there is."""
    init_platform(skeleton, tmp_path / "home" / "landing", "acme")
    folder = skeleton / "platform" / "acme"
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: folder)
    monkeypatch.setattr("data_platform.components.workspace.platform_names", lambda: ["acme"])
    yield folder
    for module in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        del sys.modules[module]


def real_dp(
    *arguments: str, home: Path, repository: Path = REPOSITORY, text: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, of the code in `repository`."""
    environment = {**os.environ, "DATA_PLATFORM_HOME": str(home), "PYTHONPATH": str(repository / "platform")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-m", "data_platform.cli", *arguments],
        env=environment,
        cwd=repository,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
