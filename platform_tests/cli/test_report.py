"""`dp report`: what a job of another orchestrator has made, said from outside."""

import json
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from platform_tests.cli.conftest import Dp
from starlette.testclient import TestClient

from data_platform.cli import webserver
from data_platform.cli.instance import dagster_storage, prepare_dagster_home
from data_platform.lakehouse.settings import settings_from_environment

JOB = """
type: data_platform.components.ExternalJob
attributes:
  makes: {events: {}, sums: {}}
"""


def statuses(dp: Dp) -> dict[str, tuple[str, int | None, str | None]]:
    """What `dp status` says of each thing that jobs make: its state, its rows, the run that made it."""
    made = json.loads(dp("status", "--json").stdout)["jobs"]
    return {one["asset"]: (one["state"], one["rows"], one["run"]) for one in made}


def add_job(package: Path, more: str = "") -> None:
    folder = package / "defs" / "etl"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(JOB + more)


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


def test_dagsters_own_endpoint_takes_a_report_as_well_and_the_status_shows_it(dp: Dp, package: Path) -> None:
    add_job(package)
    assert statuses(dp) == dict.fromkeys(["external/etl/events", "external/etl/sums"], ("never", None, None))
    settings = settings_from_environment()
    prepare_dagster_home(settings)
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
        TestClient(
            webserver.guarded(create_app_from_workspace_process_context(context), settings), "http://127.0.0.1:3000"
        ) as client,
    ):
        reported = client.post(
            "/report_asset_materialization/external/etl/events",
            json={"metadata": {"dagster/row_count": 7, "run": "n-8"}},
        )
        elsewhere = client.post("/report_asset_materialization/external/etl/sums", headers={"Host": "evil.example"})
    assert reported.status_code == 200, reported.text
    assert elsewhere.status_code == 403
    assert statuses(dp) == {"external/etl/events": ("reported", 7, "n-8"), "external/etl/sums": ("never", None, None)}
    shown = dp("status").output
    assert "external/etl/events" in shown
    assert "n-8" in shown


def test_what_is_only_reported_cannot_be_run_which_says_how_it_is_reported(
    dp: Dp, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(package)
    for named, how in (
        ("etl", "dp report etl/events"),
        ("external/etl/sums", "/external/etl/events to the web server"),
    ):
        done = dp("run", named)
        assert done.exit_code == 1
        said = " ".join((done.output + capsys.readouterr().err).split())
        assert f"{named} is what the job etl of another orchestrator makes, which is not started here" in said
        assert how in said


def test_a_run_that_failed_here_is_the_state_of_what_it_makes(dp: Dp, package: Path) -> None:
    add_job(package, '  start: {type: command, command: ["false"]}\n')
    assert dp("run", "etl").exit_code == 1
    assert {state for state, _, _ in statuses(dp).values()} == {"failed"}


def test_the_doctor_finds_what_comes_then_and_does_not_exist(dp: Dp, package: Path) -> None:
    add_job(package, "  then: [shpo/orders]\n")
    findings = [one for one in json.loads(dp("doctor", "--json").stdout) if one["what"].endswith("/etl")]
    (finding,) = findings
    assert finding["verdict"] == "error"
    assert "defs.yaml: `then`: Nothing is called shpo/orders. There are: " in finding["detail"]
