"""`dp doctor`, `dp ui` and Dagster's home."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from platform_tests.cli.conftest import Dp

from data_platform.cli import doctor
from data_platform.cli.instance import instance_file, prepare_dagster_home
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings, settings_from_environment


def findings(dp: Dp, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = dp("doctor", "--json", *arguments)
    return done.exit_code, {one["what"]: one for one in json.loads(done.stdout)}


def test_a_machine_that_has_everything_is_well(dp: Dp, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_MASK_KEY", "a key that is long enough")
    code, found = findings(dp)
    assert code == 0
    assert {name: one for name, one in found.items() if one["verdict"] not in ("ok", "info")} == {}
    assert found["platform acme"]["detail"] == "loads acme_example, modelled"
    assert "dp run" in found["lakehouse"]["remedy"]


def test_a_broken_source_is_an_error_with_its_reason(dp: Dp, package: Path) -> None:
    broken = package / "defs" / "second"
    shutil.copytree(package / "defs" / "acme_example", broken)
    text = (broken / "defs.yaml").read_text()
    (broken / "defs.yaml").write_text(text.replace("refuse_above", "refuse_abve"))
    code, found = findings(dp)
    assert code == 1
    assert found["acme/second"]["verdict"] == "error"
    assert "Did you mean 'refuse_above'?" in found["acme/second"]["detail"]
    assert found["platform acme"]["detail"] == "loads acme_example, modelled"


def test_a_variable_that_a_source_needs_is_named(dp: Dp, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    file = package / "defs" / "acme_example" / "defs.yaml"
    file.write_text(file.read_text().replace("folder: acme_example", 'folder: "{{ env.NO_SUCH_FOLDER }}"'))
    code, found = findings(dp)
    assert code == 0
    assert "NO_SUCH_FOLDER" in found["acme/acme_example"]["detail"]
    (settings_from_environment().home / "environment").write_text("NO_SUCH_FOLDER=x\n")
    assert "acme/acme_example" not in findings(dp)[1]
    monkeypatch.delenv("NO_SUCH_FOLDER")


def test_a_catalog_that_does_not_answer_is_an_error_without_its_password(
    dp: Dp, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", "postgresql://me:hunter2@127.0.0.1:1/nothing")
    done = dp("doctor", "--json")
    assert done.exit_code == 1
    assert "hunter2" not in done.stdout
    assert '"what": "lakehouse"' in done.stdout


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(tmp_path / "file" / "home", "", "")
    (finding,) = doctor.home(settings)
    assert finding.verdict == "error"
    assert "DATA_PLATFORM_HOME" in finding.remedy


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_BYTES", 2**60)
    (finding,) = doctor.disk(Settings(tmp_path / "not" / "yet", "", ""))
    assert finding.verdict == "warning"


def test_another_dagster_home_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (finding,) = doctor.dagster_home(settings_from_environment())
    assert finding.verdict == "warning"
    assert str(tmp_path) in finding.detail


def test_without_a_key_the_mask_is_a_warning_that_says_how_to_make_one() -> None:
    (finding,) = doctor.mask_key(settings_from_environment())
    assert finding.verdict == "warning"
    assert "openssl rand -hex 32" in finding.detail


def test_dagster_s_home_is_prepared_and_named_to_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/somewhere/else")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    settings = settings_from_environment()
    home = prepare_dagster_home(settings)
    assert home == settings.dagster_home == Path(os.environ["DAGSTER_HOME"])
    assert (home / "dagster.yaml").read_bytes() == instance_file().read_bytes()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_the_copy_of_the_settings_follows_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = prepare_dagster_home(settings_from_environment())
    (home / "dagster.yaml").write_text("old: settings\n")
    prepare_dagster_home(settings_from_environment())
    assert (home / "dagster.yaml").read_bytes() == instance_file().read_bytes()
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"]


def test_a_home_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="Set DATA_PLATFORM_HOME"):
        prepare_dagster_home(Settings(tmp_path / "file", "", ""))
