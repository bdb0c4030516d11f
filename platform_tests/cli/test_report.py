"""`dp report`: what a job of another orchestrator has made, said from outside."""

from pathlib import Path

import dagster as dg
import pytest
from platform_tests.cli.conftest import Dp

from data_platform.cli.instance import dagster_storage, prepare_dagster_home
from data_platform.lakehouse.settings import settings_from_environment

JOB = """
type: data_platform.components.ExternalJob
attributes:
  makes: {events: {}, sums: {}}
"""


def add_job(package: Path) -> None:
    folder = package / "defs" / "etl"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(JOB)


def test_what_was_made_is_an_event_of_its_asset_with_its_rows(dp: Dp, package: Path) -> None:
    add_job(package)
    done = dp("report", "etl/events", "--rows", "1200", "--run", "nightly-7")
    assert done.exit_code == 0, done.output
    assert done.output == "reported: external/etl/events\n"
    settings = settings_from_environment()
    prepare_dagster_home(settings)
    with dagster_storage(settings), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["external", "etl", "events"]))
        assert instance.get_latest_materialization_event(dg.AssetKey(["external", "etl", "sums"])) is None
    assert event is not None
    assert event.asset_materialization is not None
    said = {name: one.value for name, one in event.asset_materialization.metadata.items()}
    assert said == {"dagster/row_count": 1200, "run": "nightly-7"}


def test_what_no_job_makes_cannot_be_reported(dp: Dp, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = dp("report", "etl/events")
    assert done.exit_code == 1
    assert "No ExternalJob of this platform" in done.output + capsys.readouterr().err
    add_job(package)
    done = dp("report", "etl/nothing")
    assert done.exit_code == 1
    assert "etl/nothing" in done.output + capsys.readouterr().err
