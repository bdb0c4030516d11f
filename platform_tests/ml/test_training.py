"""Training: what is refused, what is reproduced, what gates find, and what a version leaves."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from platform_tests.drawing import PLATFORM, ROOT
from platform_tests.ml import delays
from platform_tests.ml.delays import add_version, boosted, flights, histograms, lake, recipe, untrained
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import column_types
from data_platform.ml.registry import stages, store
from data_platform.ml.training.gates import Gate, Measured, evaluate
from data_platform.ml.training.metrics import calibration, measure
from data_platform.ml.training.options import Gates, TrainingOptions
from data_platform.ml.training.train import Trained, train

__all__ = ["lake", "untrained"]

AUTOMATICALLY = {"promote": "automatically", "gates": {"better_than_production": {"metric": "auc", "by": 0.002}}}


def trained(lake: Lakehouse, function: Any = boosted, **options: Any) -> Trained:
    return train(lake, recipe(function, **options), run_id="run")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (delays.nothing, "returned is a NoneType of builtins"),
        (delays.failing, r"failed\.\n  ColumnNotFoundError: .*horsepower.*\n  .*delays\.py, line [0-9]+"),
        (delays.boosted_by_time, "would not be the same again: .*`deterministic: true`"),
        (delays.with_own_code, r"holds platform_tests\.ml\.delays\.own_code"),
        (delays.of_all_columns, "was trained on 5 columns, and `features` names 4"),
        (delays.in_another_order, "was trained on carrier, distance, hour, .* and `features` names hour, distance"),
        (delays.of_other_classes, "was fitted on the classes late and on time, of which nothing says which is true"),
        (delays.of_several_labels, "predicts several labels at once"),
        (delays.without_nulls, "cannot be asked about these rows: ValueError: Input X contains NaN"),
        (delays.leaving, r"ended its process \(exit 3\) and returned no model"),
        (delays.raw_scores, r"does not predict probabilities from 0 to 1 \(`objective: binary`\)"),
    ],
)
def test_a_function_that_gives_no_model_leaves_nothing(untrained: Lakehouse, function: Any, said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        trained(untrained, function)
    assert ledger.model_versions(untrained) == []
    assert not column_types(untrained.connection, store.FILES)


PILOTS = {"column": "pilot", "metric": "auc", "at_least": 0.6}


def no_label(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(late=pl.when(pl.col("flight_id") % 100 == 0).then(None).otherwise("late"))


def endless(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(delay=pl.when(pl.col("flight_id") < 2990).then("delay").otherwise(float("nan")))


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, {"dataset": "delay"}, r"There is no dataset delay\. There are: delays"),
        (None, {"features": ["hour", "weather"]}, "has no column weather to be a feature. It has: flight_id, hour"),
        (None, {"label": "cancelled"}, "split train has no column cancelled to be predicted"),
        (None, {"label": "carrier", "features": ["hour"]}, "the label carrier is a String"),
        (None, {"label": "delay"}, "the label delay has the value .* For numbers name `metrics` of numbers: mae, rmse"),
        (None, {"features": ["hour", "late"]}, "its label late is among the features"),
        (no_label, {}, "18 of 1,800 rows have no late. Leave them out"),
        (endless, {"label": "delay", "metrics": ["rmse"]}, "delay is NaN or infinite in 10 of 600 rows"),
        (lambda rows: rows.filter(pl.col("split") != "test"), {}, "has no split test. It has: "),
        (
            None,
            {"gates": {"segments": [PILOTS]}},
            "names the column pilot, which the dataset does not have",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_with_what_it_has(
    untrained: Lakehouse, change: Callable[[pl.DataFrame], pl.DataFrame] | None, options: dict[str, Any], said: str
) -> None:
    if change is not None:
        add_version(untrained, change(flights()), "incomplete")
        options = {**options, "dataset": "incomplete"}
    with pytest.raises(PlatformError, match=said):
        trained(untrained, **options)
    assert ledger.model_versions(untrained) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics": ["auc", "rmse"]}, "either of probabilities .* or of numbers"),
        ({"gates": {"at_most": {"rmse": 5}}}, "either of probabilities .* or of numbers"),
        ({"gates": {"at_least": {"log_loss": 0.5}}}, "less of log_loss is better: write `at_most`"),
        ({"gates": {"at_most": {"auc": 0.5}}}, "more of auc is better: write `at_least`"),
        ({"gates": {"segments": [{"column": "c", "metric": "auc"}]}}, "either `at_least` or `at_most`"),
        ({"gates": {"segments": [{"column": "c", "metric": "auc", "at_most": 1}]}}, "more of auc is better"),
        ({"features": ["hour", "hour"]}, "named twice: hour"),
        ({"gates": {"at_least": {"auc": float("nan")}}}, "a finite number"),
        ({"label": "hour"}, "the label hour is among the features"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_options_that_contradict_themselves_are_refused(options: dict[str, Any], said: str) -> None:
    given = {"dataset": "delays", "function": "f", "features": ["hour"], "metrics": ["auc"], **options}
    with pytest.raises(ValidationError, match=said):
        TrainingOptions.model_validate(given)


def test_the_same_rows_and_code_make_the_same_model_and_no_new_version(lake: Lakehouse) -> None:
    first = trained(lake, histograms)
    np.random.seed(99)
    again = trained(lake, histograms)
    assert (first.is_new, again.is_new, again.version) == (True, False, first.version)
    assert "Version 1 is this model already" in again.notes[0]
    assert trained(lake, histograms, seed=2).version.version == 2


def test_samples_of_polars_are_seeded_and_parameters_are_kept_as_they_were_given(lake: Lakehouse) -> None:
    given = {"parameters": {"trees": {"num_leaves": 5}}}
    first, again = (trained(lake, delays.sampled, **given) for _ in range(2))
    assert (first.is_new, again.is_new) == (True, False)
    assert again.version.parameters["parameters"] == given["parameters"]


def test_a_model_that_comes_out_otherwise_from_the_same_rows_and_code_is_told(lake: Lakehouse) -> None:
    trained(lake)
    lake.connection.execute("update platform.models set prediction_hash = 'of a run that saw other rows'")
    assert "It is not reproducible: version 1 has the same rows" in trained(lake).notes[0]


def test_another_process_with_more_threads_trains_the_same_model_to_the_bit(lake: Lakehouse, tmp_path: Path) -> None:
    here = trained(lake).version
    code = (
        "import sys; from platform_tests.ml.delays import fitted_again\n"
        "print(fitted_again(sys.argv[1], sys.argv[2], sys.argv[3]), end='')"
    )
    places = [str(lake.settings.home), lake.settings.catalog, lake.settings.data]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{PLATFORM}", "OMP_NUM_THREADS": "2"}
    run = [sys.executable, "-c", code, *places]
    there = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert there == f"{here.file_hash} {here.prediction_hash} False"


def test_a_better_version_goes_into_production_and_a_worse_one_does_not(lake: Lakehouse) -> None:
    assert trained(lake, **AUTOMATICALLY, parameters={"num_leaves": 2, "learning_rate": 0.01}).promoted
    better = trained(lake, **AUTOMATICALLY)
    assert better.promoted
    assert better.production == 1
    assert better.version.metrics["auc"] > better.production_metrics["auc"] + 0.002
    same = trained(lake, **AUTOMATICALLY)
    assert (same.is_new, same.passed) == (False, True)
    worse = trained(lake, **AUTOMATICALLY, parameters={"num_leaves": 2})
    assert (worse.passed, worse.promoted, worse.version.version) == (False, False, 3)
    assert "that of the version in production on the same rows" in worse.gates[0].reason
    assert stages.production_of(lake, "delay") == 2
    assert [gate["passed"] for gate in ledger.model_versions(lake, "delay")[2].gates] == [False]


def test_production_is_measured_on_the_rows_of_the_new_version(lake: Lakehouse) -> None:
    first = trained(lake, **AUTOMATICALLY)
    add_version(lake, flights(seed=7, noise=3))
    second = trained(lake, **AUTOMATICALLY)
    assert second.dataset.version == 2
    assert second.production_metrics["auc"] != first.version.metrics["auc"]


def test_a_version_in_production_that_cannot_be_asked_fails_the_gate_with_the_reason(lake: Lakehouse) -> None:
    trained(lake, **AUTOMATICALLY)
    add_version(lake, flights().rename({"distance": "miles"}))
    after = trained(lake, **AUTOMATICALLY, features=["hour", "miles"])
    assert not after.promoted
    assert (
        "cannot be compared: Version 1 of the model delay: the model needs the feature distance"
        in after.gates[0].reason
    )


def test_numbers_are_predicted_and_measured_too(lake: Lakehouse) -> None:
    found = trained(
        lake, delays.ridge, label="delay", features=["hour"], metrics=["mae", "rmse"], gates={"at_most": {"mae": 6}}
    )
    assert found.passed
    assert 4 < found.version.metrics["mae"] < found.version.metrics["rmse"] < 9


def figures(rows: int = 1_000) -> Measured:
    random = np.random.default_rng(3)
    predictions = random.random(rows)
    carriers = pl.DataFrame({"carrier": random.choice(["AA", "B6"], rows)})
    labels = (random.random(rows) < predictions).astype(int)
    return Measured(carriers, labels, predictions, None)


def gates(**said: Any) -> list[Gate]:
    return evaluate(Gates.model_validate(said), figures())


def test_a_gate_says_figure_and_limit() -> None:
    (low,), (high,) = gates(at_least={"auc": 0.9}), gates(at_most={"log_loss": 0.9})
    assert not low.passed
    assert low.reason.startswith("auc is 0.8")
    assert high.passed


def test_one_group_below_its_limit_is_enough_to_fail_and_is_named() -> None:
    measured = figures()
    of_aa = (measured.rows["carrier"] == "AA").to_numpy()
    turned = np.where(of_aa, 1 - measured.predictions, measured.predictions)
    asked = Gates.model_validate({"segments": [{"column": "carrier", "metric": "auc", "at_least": 0.6}]})
    (gate,) = evaluate(asked, Measured(measured.rows, measured.labels, turned, None))
    assert not gate.passed
    assert gate.reason.startswith("1 of 2 groups that were measured miss it: AA 0.1")
    (gate,) = evaluate(asked, measured)
    assert gate.passed


def test_groups_that_cannot_be_measured_are_told_and_pass_nothing() -> None:
    (few,) = gates(segments=[{"column": "carrier", "metric": "auc", "at_least": 0.6, "rows": 10_000}])
    assert few == Gate(
        "auc at least 0.6 in each carrier",
        False,
        "No group could be measured. 2 groups of fewer than 10,000 rows were not measured.",
    )
    alike = Measured(figures().rows, np.ones(1_000, int), figures().predictions, None)
    asked = {"at_least": {"auc": 0.6}, "segments": [{"column": "carrier", "metric": "auc", "at_least": 0.6}]}
    whole, groups = evaluate(Gates.model_validate(asked), alike)
    assert whole.reason == "There is no auc: all 1,000 rows of the test split have the label 1."
    assert "All rows have the same label in" in groups.reason
    assert not groups.passed


def test_a_group_is_measured_by_itself_whatever_its_name_looks_like_and_whatever_its_figure_is() -> None:
    asked = Gates.model_validate({"segments": [{"column": "name", "metric": "mae", "at_most": 1}]})
    labels = np.arange(600.0)
    far = np.where(labels < 300, labels + 100, labels)
    for one, other in ((None, "(null)"), ("x" * 50 + "1", "x" * 50 + "2")):
        (gate,) = evaluate(asked, Measured(pl.DataFrame({"name": [one] * 300 + [other] * 300}), labels, far, None))
        assert not gate.passed
        assert gate.reason.startswith("1 of 2 groups that were measured miss it")
    groups = pl.DataFrame({"name": ["a"] * 300 + ["b"] * 300})
    (gate,) = evaluate(asked, Measured(groups, np.where(labels < 1, np.inf, labels), labels, None))
    assert not gate.passed
    with pytest.raises(PlatformError, match=r"the column name, a List\(Int64\): rows are grouped by single values"):
        evaluate(asked, Measured(pl.DataFrame({"name": [[1]] * 600}), labels, far, None))


def test_calibration_compares_what_is_said_with_what_was() -> None:
    labels = np.array([0] * 60 + [1] * 40)
    assert measure(["calibration_error", "brier", "accuracy"], labels, np.full(100, 0.4)) == pytest.approx(
        {"calibration_error": 0.0, "brier": 0.24, "accuracy": 0.6}
    )
    assert measure(["calibration_error"], labels, np.full(100, 0.9)) == pytest.approx({"calibration_error": 0.5})
    np.testing.assert_allclose(calibration(labels, np.repeat([0.2, 0.6], 50)), [(0.2, 0.0, 50), (0.6, 0.8, 50)])
