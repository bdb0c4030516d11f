"""What the platform writes is closed to others, whatever the umask; what is open is found."""

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from platform_tests.drawing import PLATFORM
from platform_tests.tables import TABLE, MemorySource, batch_of

from data_platform.cli import doctor
from data_platform.cli.environment import environment_file, load_environment, remember
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.state import keep_private, loose, make_folder


def modes(folder: Path) -> dict[str, int]:
    """The permissions of everything below a folder but for links, by path."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_all_that_a_command_writes_is_its_owner_s_alone_though_the_shell_s_umask_takes_nothing_away(
    tmp_path: Path, home: Path
) -> None:
    state = tmp_path / "state"
    make_folder(state, Settings(state, "", ""))
    (home / "extensions").mkdir(exist_ok=True)
    (state / "extensions").symlink_to(home / "extensions")
    (state / "landing" / "acme_example").mkdir(parents=True, mode=0o700)
    (state / "landing").chmod(0o700)
    kept = ("LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA", "DAGSTER_HOME", "WEATHER_URL")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    environment |= {"DATA_PLATFORM_HOME": str(state), "PYTHONPATH": str(PLATFORM)}
    done = subprocess.run(
        [sys.executable, "-m", "data_platform.cli", "run", "weather"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        umask=0o000,
    )
    assert "variable WEATHER_URL, which is not set" in " ".join(done.stdout.split()), done.stdout + done.stderr
    found = modes(state)
    assert any(path.endswith("catalog.sqlite") for path in found)
    assert any("history" in path for path in found), "Dagster's storage"
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


@pytest.mark.parametrize(("group", "folder", "file"), [(False, 0o700, 0o600), (True, 0o2770, 0o660)])
def test_the_lakehouse_itself_is_closed_where_nobody_set_an_umask(
    tmp_path: Path, home: Path, *, group: bool, folder: int, file: int
) -> None:
    os.umask(0o000)
    settings = Settings(home, str(tmp_path / "a" / "catalog.sqlite"), str(tmp_path / "b" / "data"), group_access=group)
    with open_lakehouse(settings) as lake:
        source = MemorySource([batch_of(pa.table({"order_id": ["1"]}), {"cursor": "1"})])
        load_table(lake, "shop", source, "orders", TABLE, run_id="r")
    for path, mode in {"a": folder, "a/catalog.sqlite": file, "b": folder, "b/data": folder}.items():
        assert oct(stat.S_IMODE((tmp_path / path).stat().st_mode)) == oct(mode), path


def test_with_access_for_the_group_the_files_of_a_process_are_open_to_it_and_to_nobody_else(tmp_path: Path) -> None:
    keep_private(Settings(tmp_path, "", "", group_access=True))
    (tmp_path / "file").touch()
    assert oct(stat.S_IMODE((tmp_path / "file").stat().st_mode)) == "0o660"
    keep_private(Settings(tmp_path, "", ""))
    (tmp_path / "other").touch()
    assert oct(stat.S_IMODE((tmp_path / "other").stat().st_mode)) == "0o600"
    assert settings_from_environment({"DATA_PLATFORM_GROUP_ACCESS": "1"}).group_access


def test_what_others_may_read_is_named_with_the_command_that_closes_it(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "shared data"
    catalog = tmp_path / "catalog.sqlite"
    for path in (home, data):
        path.mkdir()
        path.chmod(0o750)
    catalog.touch()
    catalog.chmod(0o644)
    settings = Settings(home, str(catalog), str(data))
    assert [path for path, _ in loose(settings)] == [home, catalog, data]
    findings = list(doctor.access(settings))
    assert [finding.verdict for finding in findings] == ["warning"] * 3
    assert f"{home} is open to others than its owner (mode 0750)" in findings[0].detail
    for finding in findings:
        command = finding.remedy.split(";")[0]
        subprocess.run(["sh", "-c", command], check=True)
    (finding,) = doctor.access(settings)
    assert finding.verdict == "ok"
    home.chmod(0o770)
    assert list(loose(replace(settings, group_access=True))) == []
    home.chmod(0o775)
    assert "chmod -R o-rwx" in next(doctor.access(replace(settings, group_access=True))).remedy


def test_what_lies_in_a_closed_folder_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0o700)
    (home / "data").mkdir(0o777)
    assert list(loose(Settings(home, str(home / "catalog.sqlite"), str(home / "data")))) == []


def test_the_file_with_secrets_is_closed_whoever_opened_it(tmp_path: Path) -> None:
    remember(tmp_path, {"A": "1"})
    file = environment_file(tmp_path)
    assert oct(stat.S_IMODE(file.stat().st_mode)) == "0o600"
    file.chmod(0o644)
    load_environment(tmp_path, {})
    assert oct(stat.S_IMODE(file.stat().st_mode)) == "0o600"
    file.chmod(0o664)
    load_environment(tmp_path, {"DATA_PLATFORM_GROUP_ACCESS": "1"})
    assert oct(stat.S_IMODE(file.stat().st_mode)) == "0o660"
