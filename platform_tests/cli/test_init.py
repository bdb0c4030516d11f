"""`dp init`: a project of one's own, or a platform beside those of a project, that works from the first minute."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from platform_tests.cli.conftest import Dp, real_dp
from platform_tests.drawing import ROOT

from data_platform.cli.init import init_platform, init_project, project_text, workspace_text
from data_platform.cli.project_skeleton import installed_origin, project_files
from data_platform.components.platform import broken_sources, source_spec
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, settings_from_environment
from data_platform.staging.step import stage_table


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["Acme", "my-platform", "1st", "class", "../acme", "", "deploy", "data_platform"])
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
    after = project_text(skeleton / "pyproject.toml", "platform/acme")
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

    dp("init", "--here", "acme")
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
        "modelled/mart_acme_orders": "done",
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
    monkeypatch.chdir(skeleton)
    done = dp("init", "--here", "bolts")
    assert done.exit_code == 0
    assert "dp run --platform bolts" in done.stdout
    assert (skeleton / "platform" / "bolts" / "definitions.py").exists()
    assert list((tmp_path / "home" / "landing" / "bolts_example").iterdir())
    assert json.dumps("platform/bolts") in (skeleton / "pyproject.toml").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that was made in an empty folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    init_project(folder, tmp_path / "home" / "landing", "bolts")
    return folder


def test_a_project_has_the_layout_of_this_one_and_depends_on_what_is_installed(project: Path) -> None:
    ours = {path.name for path in ROOT.iterdir()}
    assert {path.name for path in project.iterdir()} - ours == {".env", ".env.example"}
    told = tomllib.loads((project / "pyproject.toml").read_text())
    assert told["project"]["dependencies"] == [f"data-platform=={version('data-platform')}"]
    assert told["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["platform/bolts"]
    assert (project / "dbt_project" / "platform_macros" / "materializations.sql").exists()
    assert os.access(project / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=project, check=True)
    assert "demo" in subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("told", "source"),
    [
        ({"url": "file:///a%20b/c", "dir_info": {"editable": True}}, '{ path = "/a b/c", editable = true }'),
        ({"url": "file:///a/data_platform-9-py3-none-any.whl", "archive_info": {}}, "data_platform-9-py3-none-any.whl"),
        ({"url": "https://x.test/r.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}, 'rev = "c0ffee"'),
        ({}, ""),
    ],
)
def test_the_project_finds_the_product_where_it_was_installed_from(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, object], source: str
) -> None:
    class Installed:
        version = "9"

        def read_text(self, name: str) -> str:
            return json.dumps(told) if name == "direct_url.json" else ""

    monkeypatch.setattr("data_platform.cli.project_skeleton.distribution", lambda name: Installed())
    number, origin = installed_origin()
    text = project_files("bolts", number, origin, "")["pyproject.toml"]
    assert source in text
    assert tomllib.loads(text)["project"]["dependencies"] == ["data-platform==9"]
    assert ("uv" in tomllib.loads(text)["tool"]) == bool(told)


def test_the_masking_key_is_the_owner_s_alone_and_each_project_has_its_own(project: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    init_project(tmp_path / "other", tmp_path / "landing", "nuts")
    texts = [(folder / ".env").read_text() for folder in (project, tmp_path / "other")]
    keys = [text.split("DATA_PLATFORM_MASK_KEY=")[1] for text in texts]
    assert keys[0] != keys[1]
    assert all(len(key.strip()) == 64 for key in keys)
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600
    (project / ".state").mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    ignored = ["git", "check-ignore", ".env", ".state", "dbt_project/platform_macros", ".env.example"]
    assert (
        subprocess.run(ignored, cwd=project, capture_output=True, text=True, check=False).stdout.split() == ignored[2:5]
    )


@pytest.mark.parametrize("taken", ["README.md", "platform/mine.py", ".env"])
def test_a_folder_that_is_not_empty_is_left_as_it_is_and_what_is_in_the_way_is_named(
    tmp_path: Path, taken: str
) -> None:
    file = tmp_path / "project" / taken
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(PlatformError, match=f"has {taken.split('/')[0]} already. Nothing was changed"):
        init_project(tmp_path / "project", tmp_path / "landing", "bolts")
    assert everything(tmp_path) == before


def test_a_project_within_a_project_is_refused_with_what_to_do(skeleton: Path, tmp_path: Path) -> None:
    inner = skeleton / "inner"
    inner.mkdir()
    with pytest.raises(PlatformError, match=r"is a project already.*dp init --here bolts"):
        init_project(inner, tmp_path / "landing", "bolts")
    assert not list(inner.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    write = Path.write_text

    def full(path: Path, text: str, **given: str) -> int:
        if path.name == "profiles.yml":
            raise OSError(28, "No space left on device", str(path))
        return write(path, text, **given)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PlatformError, match=r"profiles\.yml cannot be written: No space left"):
        init_project(folder, tmp_path / "landing", "bolts")
    assert not list(folder.iterdir())


def test_a_project_loads_models_and_publishes_its_example_and_its_tests_pass(project: Path, tmp_path: Path) -> None:
    def dp(*arguments: str) -> str:
        done = real_dp(*arguments, home=tmp_path / "home", repository=project)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    outcomes = {one["asset"]: one["state"] for one in json.loads(dp("run", "--json"))}
    assert set(outcomes) == {"raw/bolts_example/orders", "staged/bolts_example/orders", "modelled/mart_bolts_orders"}
    assert set(outcomes.values()) == {"done"}
    rows = json.loads(dp("sql", "select status, orders from modelled.mart_bolts_orders order by status", "-f", "json"))
    assert [tuple(row.values()) for row in rows] == [("cancelled", 1), ("open", 3), ("paid", 3)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != "DATA_PLATFORM_HOME"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=project, check=False).returncode == 0
    formatted = subprocess.run([sys.executable, "-m", "ruff", "format", "--check", "."], cwd=project, check=False)
    assert formatted.returncode == 0


def test_a_folder_without_a_project_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("data_platform.lakehouse.settings.REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    with pytest.raises(PlatformError, match=r"There is no project here.*dp init NAME"):
        settings_from_environment({})


def test_the_project_is_found_from_any_folder_within_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "platform" / "bolts" / "defs")
    assert settings_from_environment({}).home == project / ".state"
