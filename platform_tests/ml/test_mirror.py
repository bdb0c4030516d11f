"""The registry of models, mirrored to a tracking server of MLflow, and what is said where there is none."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import lightgbm
import pytest
from platform_tests.ml.delays import add_version, flights, histograms, lake, new_lake, recipe
from platform_tests.mlflow_server import Mlflow, running_mlflow
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.ml.registry import mlflow_client
from data_platform.ml.registry.mirror import Sent, mirror, mirrored
from data_platform.ml.registry.stages import promote, retire
from data_platform.ml.training.train import train

__all__ = ["lake"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def mlflow(running: Mlflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    """The server, without models of other tests."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
    yield running
    client = client_of(running)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for run in runs(running):
        client.delete_run(run.info.run_id)


def client_of(server: Mlflow) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(server.url)


def runs(server: Mlflow) -> list[Any]:
    experiment = client_of(server).get_experiment_by_name("delay")
    return list(client_of(server).search_runs([experiment.experiment_id])) if experiment is not None else []


def versions(server: Mlflow) -> list[Any]:
    """The registered versions, the oldest first."""
    return sorted(client_of(server).search_model_versions("name='delay'"), key=lambda one: int(one.version))


def stages(server: Mlflow) -> list[str]:
    return [one.tags["data_platform.stage"] for one in versions(server)]


def in_production(server: Mlflow) -> str | None:
    found: str | None = client_of(server).get_registered_model("delay").aliases.get("production")
    return found


def test_without_an_address_nothing_is_mirrored_and_it_is_said_what_to_set(
    trained: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mirrored(trained, "delay") == ""
    with pytest.raises(PlatformError, match="There is no MLflow to send models to: set MLFLOW_TRACKING_URI"):
        mirror(trained)


@pytest.fixture(scope="module")
def trained(prepared_sqlite: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """A lakehouse with one version, in production, for tests that change nothing."""
    with new_lake(prepared_sqlite, tmp_path_factory.mktemp("trained")) as there:
        train(there, recipe(promote="automatically"), run_id="run 1")
        yield there


def test_a_server_that_is_gone_is_said_without_a_password_and_fails_nothing(
    trained: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:sesame-open@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = mirrored(trained, "delay")
    assert said.startswith("Not mirrored to MLflow yet: MLflow, at http://")
    assert said.endswith("It is sent with the next change, or by: dp model mirror delay")
    assert "sesame" not in said
    with pytest.raises(PlatformError, match=r"There is no model weather\. There are: delay"):
        mirror(trained, "weather")


def test_a_database_in_the_place_of_a_server_is_refused_at_once(
    trained: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:sesame-open@127.0.0.1:1/mlflow")
    with pytest.raises(
        PlatformError, match=r"MLFLOW_TRACKING_URI is postgresql://.*: models are sent to a tracking"
    ) as no:
        mirror(trained)
    assert "sesame" not in str(no.value)


def test_a_server_that_says_to_come_back_in_an_hour_is_not_waited_for(
    trained: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the handler's form
            """Nothing is shown."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    began = time.monotonic()
    try:
        assert "503" in mirrored(trained, "delay")
    finally:
        server.shutdown()
        server.server_close()
    assert time.monotonic() - began < 600


def test_without_the_extra_it_is_said_what_to_install(trained: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    assert "pip install 'data-platform[mlflow]', or unset MLFLOW_TRACKING_URI" in mirrored(trained, "delay")


def test_parameters_and_metrics_are_such_as_mlflow_takes(trained: Lakehouse) -> None:
    (version,) = ledger.model_versions(trained, "delay")
    given = {"num_leaves": 31, "début=1": True, "seed": 9, "note": "x" * 900, "steps": [1, 2]}
    shown = mlflow_client.parameters(replace(version, parameters={**version.parameters, "parameters": given}))
    assert (shown["num_leaves"], shown["d_but_1"], shown["steps"], shown["seed"]) == ("31", "true", "[1, 2]", "1")
    assert (len(shown["note"]), shown["note"][-2:]) == (500, "x…")
    assert json.loads(shown["features"]) == version.parameters["features"]
    reached = replace(version, metrics={"auc": 0.5, "log_loss": float("inf"), "brier": float("nan")})
    assert mlflow_client.figures(reached) == {"auc": 0.5}


def test_a_version_is_there_with_run_file_and_alias_and_is_sent_once(
    mlflow: Mlflow, lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(lake, recipe(promote="automatically", parameters={"num_leaves": 7}), run_id="run 1").version
    assert mirrored(lake, "delay") == "MLflow: delay: written: version 1; version 1 is in production"
    assert mirror(lake) == [Sent("delay", (), (), 1)]
    (run,), (there,) = runs(mlflow), versions(mlflow)
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("delay 1", "FINISHED", dict(first.metrics))
    assert (run.data.params["num_leaves"], run.data.params["function"]) == ("7", "platform_tests.ml.delays.boosted")
    facts = {name.removeprefix("data_platform."): tag for name, tag in run.data.tags.items()}
    assert (facts["dataset"], facts["dataset_version"], facts["snapshot"]) == ("delays", "1", str(first.snapshot_id))
    assert (facts["code_version"], facts["file_hash"], facts["gates"]) == (
        first.code_version,
        first.file_hash,
        "passed",
    )
    assert (there.run_id, in_production(mlflow), stages(mlflow)) == (run.info.run_id, there.version, ["production"])
    folder = Path(client_of(mlflow).download_artifacts(run.info.run_id, "model", str(tmp_path)))
    assert json.loads((folder / "version.json").read_text())["file_hash"] == first.file_hash
    assert json.loads((folder / "inputs.json").read_text())["features"][0]["name"] == "hour"
    assert lightgbm.Booster(model_file=str(folder / "model.lgb")).num_feature() == 4
    # What a person decides follows, and so does what nobody has sent yet.
    train(lake, recipe(histograms), run_id="run 2")
    promote(lake, "delay", 2, by="a person", reason="the season")
    assert mirror(lake) == [Sent("delay", (2,), (1, 2), 2)]
    assert (stages(mlflow), in_production(mlflow)) == (["retired", "production"], "2")
    assert "by a person: the season" in versions(mlflow)[1].tags["data_platform.stage_reason"]
    retire(lake, "delay", 2, by="a person", reason="wrong")
    assert mirrored(lake, "delay") == "MLflow: delay: nothing was missing; none is in production"
    assert (stages(mlflow), in_production(mlflow)) == (["retired", "retired"], None)
    for name, value in (("DATA_PLATFORM_HOME", "home"), ("LAKEHOUSE_CATALOG", "catalog"), ("LAKEHOUSE_DATA", "data")):
        monkeypatch.setenv(name, str(getattr(lake.settings, value)))
    done = CliRunner().invoke(app, ["model", "mirror", "--json"])
    assert json.loads(done.output) == [{"model": "delay", "versions": [], "staged": [], "production": None}]
    done = CliRunner().invoke(app, ["model", "mirror", "delay"])
    assert done.output == "delay: nothing was missing; none is in production\n"


def test_what_was_broken_off_is_sent_again_and_is_there_once(
    mlflow: Mlflow, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    train(lake, recipe(promote="automatically"), run_id="run 1")

    def broken(*_: object, **__: object) -> None:
        raise ConnectionResetError("the server went away")

    for method in ("log_artifacts", "create_model_version", "set_registered_model_alias"):
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, method, broken)
            with pytest.raises(PlatformError, match="did not take it: ConnectionResetError: the server went away"):
                mirror(lake)
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert "Not mirrored to MLflow yet" in mirrored(lake, "delay")
    assert mirror(lake) == [Sent("delay", (), (), 1)]
    assert [one.info.status for one in runs(mlflow)] == ["FINISHED"]
    assert [(one.version, in_production(mlflow)) for one in versions(mlflow)] == [("1", "1")]


def test_a_model_of_someone_else_and_a_lost_file_keep_no_other_model_from_being_sent(
    mlflow: Mlflow, lake: Lakehouse
) -> None:
    train(lake, recipe(), run_id="run 1")
    add_version(lake, flights(seed=2))
    train(lake, recipe(), run_id="run 2")
    train(lake, replace(recipe(), name="late"), run_id="run 3")
    lake.connection.execute("delete from models.files where model = 'delay' and version = 1")
    client_of(mlflow).create_registered_model("late")
    with pytest.raises(PlatformError) as refused:
        mirror(lake)
    assert "Version 1 of the model delay has 0 files in" in str(refused.value)
    assert "MLflow has a registered model late already, which was made by someone else. Rename it" in str(refused.value)
    assert [one.tags["data_platform.version"] for one in versions(mlflow)] == ["2"]
    assert client_of(mlflow).search_model_versions("name='late'") == []


def test_a_lakehouse_that_was_restored_says_which_versions_it_does_not_know(mlflow: Mlflow, lake: Lakehouse) -> None:
    train(lake, recipe(promote="automatically"), run_id="run 1")
    mirror(lake)
    for table in ("platform.models", "platform.model_stages", "models.files"):
        lake.connection.execute(f"delete from {table}")
    train(lake, recipe(histograms, promote="automatically"), run_id="run 2")
    assert mirror(lake) == [Sent("delay", (1,), (1,), 1)]
    assert (stages(mlflow), in_production(mlflow)) == (["not in the ledger", "production"], "2")


def test_an_experiment_that_was_deleted_is_said_with_how_it_is_restored(
    mlflow: Mlflow, trained: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "all models")
    client_of(mlflow).delete_experiment(client_of(mlflow).create_experiment("all models"))
    with pytest.raises(PlatformError, match=r"The experiment all models was deleted in MLflow\. Restore it"):
        mirror(trained)
