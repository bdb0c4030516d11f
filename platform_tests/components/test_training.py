"""The component `Training`: what its asset shows, its check, its sensor, and `dp model` on what it made."""

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import pytest
from platform_tests.components.shop import Shop, failures, materialized, names_of
from platform_tests.ml.delays import add_version, flights
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.components.execution import in_runs
from data_platform.components.plots import calibration_plot, importance_plot, roc_plot
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.ml.registry.files import from_bytes

DEFS = """
type: data_platform.components.Training
attributes:
  description: Whether a flight is late.
  dataset: delays
  function: platform_tests.ml.delays.{function}
  features: [hour, distance, is_weekend, carrier]
  metrics: [auc, brier]
  parameters: {{num_leaves: {leaves}}}
  gates: {{better_than_production: {{metric: auc, by: 0.002}}, at_least: {{auc: 0.6}}}}
  promote: automatically
  follow: true
"""


def add_model(shop: Shop, name: str = "delay", function: str = "boosted", leaves: int = 8) -> None:
    folder = shop.package / "defs" / name
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(DEFS.format(function=function, leaves=leaves))
    vars(shop).pop("definitions", None)


def add_dataset(seed: int = 1) -> None:
    with open_lakehouse(settings_from_environment()) as lake:
        add_version(lake, flights(seed=seed))


def dp(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def checked(result: dg.ExecuteInProcessResult) -> tuple[bool, str]:
    (found,) = result.get_asset_check_evaluations()
    return found.passed, str(found.description)


def test_a_mirror_that_is_gone_fails_no_training_and_no_promotion(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    add_model(shop)
    add_dataset()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = shop.run("models/delay")
    assert result.success
    said = "Not mirrored to MLflow yet: MLflow, at http://127.0.0.1:1, did not take it: "
    assert materialized(result)["models/delay"]["mirror"].startswith(said)
    code, output = dp("model", "retire", "delay", "1", "--reason", "it is wrong")
    assert (code, said in output) == (0, True)
    code, output = dp("model", "mirror")
    assert (code, said.partition(": ")[2] in output) == (1, True)


def test_a_model_is_trained_promoted_followed_and_exported(shop: Shop, tmp_path: Path) -> None:
    add_model(shop)
    add_dataset()
    assert [group for group, _ in in_runs([dg.AssetKey(["models", "delay"]), dg.AssetKey(["modelled", "m"])])] == [
        "modelled",
        "models/delay",
    ]
    request = shop.tick("train_delay_sensor")
    assert names_of(request.asset_selection) == ["models/delay"]
    result = shop.follow(request)
    assert result.success
    assert checked(result) == (True, "Version 1 passed all 2 gates.")
    shown = materialized(result)["models/delay"]
    assert shown["in production"] == "this version"
    (auc, brier) = [dict(record.data) for record in shown["metrics"].records]
    assert (auc["metric"], auc["production"], brier["metric"]) == ("auc", None, "brier")
    assert shown["plots"].count("data:image/svg+xml;base64,") == 3
    assert "newest version of the dataset" in str(shop.tick("train_delay_sensor"))
    # A worse one is kept as a candidate, and a person decides.
    add_model(shop, leaves=2)
    add_dataset(seed=2)
    result = shop.follow(shop.tick("train_delay_sensor"))
    passed, said = checked(result)
    assert result.success
    assert (passed, said.startswith("Version 2 did not pass 1 of 2 gates. better than production: auc is")) == (
        False,
        True,
    )
    code, output = dp("model", "list", "--json")
    assert [(one["version"], one["stage"]) for one in json.loads(output)] == [(1, "production"), (2, "candidate")]
    code, output = dp("model", "list", "delay")
    assert [line.split()[:3] for line in output.splitlines()[1:]] == [
        ["delay", "1", "production"],
        ["delay", "2", "candidate"],
    ]
    assert "1 of 2 passed" in output
    code, output = dp("model", "show", "delay", "--version", "2", "--json")
    assert json.loads(output)["production"]["version"] == 1
    code, output = dp("model", "promote", "delay", "2", "--reason", "the season changed")
    assert code == 1
    code, output = dp("model", "promote", "delay", "2", "--reason", "the season changed", "--despite-gates")
    assert (code, output) == (0, "Version 2 of delay is in production. Version 1 is retired.\n")
    code, output = dp("model", "show", "delay", "--version", "1")
    assert "retired, by" in output
    assert "replaced by version 2: the season changed" in output
    file = tmp_path / "delay.txt"
    assert dp("model", "export", "delay", str(file))[0] == 0
    assert from_bytes("lightgbm", file.read_bytes(), "it").num_feature() == 4
    assert dp("model", "export", "delay", str(file))[0] == 1
    assert dp("model", "retire", "delay", "2", "--reason", " ")[0] == 1
    code, output = dp("model", "retire", "delay", "2", "--reason", "it is wrong")
    assert output.endswith("No version of delay is in production now.\n")


def test_a_mistake_is_reported_with_its_file(shop: Shop) -> None:
    add_model(shop, function="bosted")
    with pytest.raises(PlatformError, match=r"defs\.yaml.*has no 'bosted'. It defines: .*boosted"):
        _ = shop.definitions
    add_model(shop, function="__name__")
    with pytest.raises(PlatformError, match=r"__name__ is a str"):
        _ = shop.definitions


def test_a_training_without_its_dataset_fails_without_a_check(shop: Shop) -> None:
    add_model(shop)
    result = shop.run("models/delay")
    assert not result.success
    assert result.get_asset_check_evaluations() == []
    assert "There is no dataset delays" in failures(result)["models__delay"]


def test_plots_are_images_that_names_do_not_break() -> None:
    for text in (
        roc_plot([(0, 0), (0.2, 0.7), (1, 1)], 0.75),
        calibration_plot([(0.1, 0.2, 5), (0.8, 0.7, 5)]),
        importance_plot({"a<b>&": 0.6, **{f"feature {n}": 0.02 for n in range(20)}}),
    ):
        ElementTree.fromstring(base64.b64decode(text.split("base64,")[1].rstrip(")")))  # noqa: S314 - our own
