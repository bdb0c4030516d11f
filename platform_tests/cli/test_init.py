"""`dp init`: a platform that works from the first minute, beside what was there."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from platform_tests.cli.conftest import Dp, real_dp

from data_platform.cli.init import init_platform, project_text, workspace_text
from data_platform.components.platform import broken_sources, source_spec
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, settings_from_environment
from data_platform.staging.step import stage_table


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["Acme", "my-platform", "1st", "class", "../acme", ""])
def test_a_name_that_cannot_be_a_package_is_refused(skeleton: Path, tmp_path: Path, name: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(PlatformError, match="cannot name a platform"):
        init_platform(skeleton, tmp_path / "landing", name)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["json", "polars", "nyc_flights"])
def test_a_name_that_would_hide_another_package_is_refused(skeleton: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PlatformError, match="which it would hide"):
        init_platform(skeleton, tmp_path / "landing", name)


def test_what_exists_is_never_overwritten(skeleton: Path, tmp_path: Path) -> None:
    mine = skeleton / "platform" / "acme" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    before = everything(skeleton)
    with pytest.raises(PlatformError, match="exists already"):
        init_platform(skeleton, tmp_path / "landing", "acme")
    assert everything(skeleton) == before


def test_a_project_file_without_the_list_of_packages_stops_it_before_anything_is_written(
    skeleton: Path, tmp_path: Path
) -> None:
    (skeleton / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    before = everything(skeleton)
    with pytest.raises(PlatformError, match="has no list `packages`"):
        init_platform(skeleton, tmp_path / "landing", "acme")
    assert everything(skeleton) == before


def test_the_workspace_keeps_its_comments_and_gains_an_entry(skeleton: Path, tmp_path: Path) -> None:
    file = tmp_path / "workspace.yaml"
    file.write_text(
        "# Ours.\nload_from:\n  # The first.\n  - python_module:\n      module_name: a.definitions  # why\n"
        "      location_name: a\n  # Behind the last one.\n\n# The end.\n"
    )
    text = workspace_text(file, "acme")
    for comment in ("# Ours.", "  # The first.", "  # why", "  # Behind the last one.", "# The end."):
        assert comment in text
    entries = yaml.safe_load(text)["load_from"]
    assert [entry["python_module"]["module_name"] for entry in entries] == ["a.definitions", "acme.definitions"]
    assert entries[1]["python_module"]["working_directory"] == "platform"
    assert text.index("acme.definitions") < text.index("# Behind")


def test_a_list_without_indentation_is_extended_in_its_own_style(tmp_path: Path) -> None:
    file = tmp_path / "workspace.yaml"
    file.write_text("load_from:\n- python_module:\n    module_name: a.definitions\nother: 1\n")
    read = yaml.safe_load(workspace_text(file, "acme"))
    assert [entry["python_module"]["module_name"] for entry in read["load_from"]] == [
        "a.definitions",
        "acme.definitions",
    ]
    assert read["other"] == 1


@pytest.mark.parametrize(
    "text", ["load_from: []\n", "load_from: [{python_module: {module_name: a.b}}]\n", "other: 1\n", ""]
)
def test_a_workspace_that_cannot_be_extended_says_what_to_add_by_hand(tmp_path: Path, text: str) -> None:
    file = tmp_path / "workspace.yaml"
    file.write_text(text)
    with pytest.raises(PlatformError, match=r"module_name: acme\.definitions"):
        workspace_text(file, "acme")


def test_the_wheel_holds_the_new_package_and_the_rest_of_the_project_stays(skeleton: Path) -> None:
    before = (skeleton / "pyproject.toml").read_text()
    after = project_text(skeleton / "pyproject.toml", "acme")
    packages = tomllib.loads(after)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages[-1] == "platform/acme"
    assert set(before.splitlines()) - set(after.splitlines()) == {
        line for line in before.splitlines() if line.startswith("packages = ")
    }


def test_the_new_platform_loads_and_its_example_is_staged_with_one_row_in_quarantine(package: Path) -> None:
    assert broken_sources(package) == {}
    spec = source_spec(package, "acme_example")
    with open_lakehouse(settings_from_environment()) as lake, spec.open() as source:
        table = spec.tables["orders"]
        load_table(lake, spec.name, source, table.name, table.table, run_id="run")
        result = stage_table(lake, table.recipe(spec.name), run_id="run")
        amounts = lake.connection.execute(
            "SELECT amount_usd FROM staged_acme_example.orders ORDER BY order_id"
        ).fetchall()
    assert (result.rows_inserted, result.rows_quarantined) == (7, 1)
    assert [amount for (amount,) in amounts] == [1249.0, 18.5, 42.0, 0.0, 75.25, None, 310.0]


def test_the_example_comes_with_tests_that_pass(package: Path, skeleton: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "platform_tests/acme"],
        cwd=skeleton,
        env={**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{REPOSITORY / 'platform'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_from_nothing_to_a_table_of_ones_own_published_and_repaired(skeleton: Path, tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "platform", skeleton / "platform", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    home = tmp_path / "home"

    def dp(*arguments: str) -> str:
        done = real_dp(*arguments, home=home, repository=skeleton)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dp("init", "acme")
    folder = home / "landing" / "stock"
    folder.mkdir(parents=True)
    (folder / "stock.csv").write_text("sku,pieces\na,3\nb,\n")
    assert "dp run stock\n" in dp("add", "source", "stock", "--folder", "stock", "--platform", "acme")
    outcomes = {one["asset"]: one for one in json.loads(dp("run", "--platform", "acme", "--json"))}
    assert {name: one["state"] for name, one in outcomes.items()} == {
        "raw/acme_example/orders": "done",
        "staged/acme_example/orders": "done",
        "raw/stock/stock": "done",
        "staged/stock/stock": "done",
    }
    contracts = skeleton / "platform" / "acme" / "defs" / "acme_example" / "contracts.py"
    contracts.write_text(contracts.read_text().replace("ge=0, unit", "unit"))
    replayed = json.loads(dp("quarantine", "replay", "acme_example/orders", "--json"))
    assert (len(replayed["passed"]), replayed["failing"]) == (1, [])
    tables = {one["table"]: one for one in json.loads(dp("status", "--json"))["tables"]}
    assert (tables["orders"]["staged_rows"], tables["orders"]["quarantined"]) == (8, 0)
    assert (tables["stock"]["staged_rows"], tables["stock"]["passed"]) == (2, True)


def test_the_command_says_what_was_made_and_what_is_next(
    dp: Dp, skeleton: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("data_platform.lakehouse.settings.REPOSITORY", skeleton)
    done = dp("init", "bolts")
    assert done.exit_code == 0
    assert "dp run --platform bolts" in done.stdout
    assert (skeleton / "platform" / "bolts" / "definitions.py").exists()
    assert list((tmp_path / "home" / "landing" / "bolts_example").iterdir())
    assert json.dumps("platform/bolts") in (skeleton / "pyproject.toml").read_text()
