"""Models as ONNX: what is written scores as the model does, and what would not is refused."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import lightgbm
import numpy as np
import polars as pl
import pytest
from platform_tests.ml.delays import FEATURES, boosted, flights, logistic
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from data_platform.errors import PlatformError
from data_platform.lakehouse.ledger import ModelVersion
from data_platform.ml.registry import onnx_file
from data_platform.ml.registry.files import Task, framework_of, predict
from data_platform.ml.registry.inputs import features_of, matrix, prepared
from data_platform.ml.registry.onnx_file import TOLERANCE, scores, to_onnx
from data_platform.ml.registry.store import LoadedModel, ModelFile

ROWS = flights(600)
GIVEN = prepared(ROWS, features_of(ROWS, FEATURES, "defs.yaml"), "defs.yaml")


def trained(function: Any, task: Task = "classification") -> tuple[LoadedModel, ModelFile]:
    """A model as it is loaded, and the file that it has."""
    features = features_of(ROWS, FEATURES, "defs.yaml")
    label = ROWS["late"].cast(pl.Int8) if task == "classification" else ROWS["delay"].alias("late") * 100
    model = function(GIVEN.with_columns(label), None, {"num_threads": 1, "seed": 1})
    version = ModelVersion(
        *("delay", 3, "delays", 1, 1, "code", {}, {}, [], framework_of(model, "The model"), "hash", "hash", "run"),
        datetime.now(UTC),
    )
    file = ModelFile(b"", features, task, "late", GIVEN.head(300))
    return LoadedModel(version, features, task, "late", model), file


def by_category(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """Boosted trees that split by sets of carriers."""
    data = lightgbm.Dataset(matrix(train.drop("late")), train["late"].to_numpy(), categorical_feature=[3])
    given = {"objective": "binary", "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1, **parameters}
    return lightgbm.train(given, data, num_boost_round=20)


def numbers(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> lightgbm.Booster:
    """Boosted trees of a number in the thousands."""
    data = lightgbm.Dataset(matrix(train.drop("late")), train["late"].to_numpy())
    return lightgbm.train({"objective": "regression", "verbose": -1, **parameters}, data, num_boost_round=20)


def imputed(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    steps = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=200))
    return steps.fit(matrix(train.drop("late")), train["late"].to_numpy())


def line(train: pl.DataFrame, validation: Any, parameters: Mapping[str, Any]) -> Any:
    """An estimator that takes no unknown values."""
    return make_pipeline(SimpleImputer(), Ridge()).fit(matrix(train.drop("late")), train["late"].to_numpy())


@pytest.mark.parametrize(
    ("function", "task"),
    [
        (boosted, "classification"),
        (by_category, "classification"),
        (imputed, "classification"),
        (numbers, "regression"),
        (line, "regression"),
    ],
)
def test_an_exported_model_scores_rows_that_were_not_compared_as_it_does(function: Any, task: Task) -> None:
    model, file = trained(function, task)
    data = to_onnx(model, file)
    later = GIVEN.tail(300)
    expected = predict(model.model, later, task, "The model")
    found = scores(data, matrix(later), task)
    assert np.max(np.abs(found - expected)) / max(1, np.max(np.abs(expected))) <= TOLERANCE
    assert len(np.unique(found)) > 50
    import onnx

    said = {one.key: one.value for one in onnx.load_model_from_string(data).metadata_props}
    assert (said["model"], said["version"]) == ("delay", "3")
    assert '"categories": ["9E", "AA", "B6", "UA"]' in said["features"]


def test_a_model_that_scores_otherwise_as_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = trained(by_category)
    other, _ = trained(boosted)
    convert = onnx_file._converted
    monkeypatch.setattr(onnx_file, "_converted", lambda _, width: convert(other, width))
    with pytest.raises(
        PlatformError, match=r"Version 3 of the model delay is not exported: as ONNX it scores \d+ of the"
    ):
        to_onnx(model, file)


def test_what_differs_only_where_a_feature_is_unknown_is_refused_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = trained(boosted)
    whole = file.sample.drop_nulls()
    as_zero = lambda data, given, task: scores(data, np.nan_to_num(given), task)  # noqa: E731
    monkeypatch.setattr(onnx_file, "scores", as_zero)
    with pytest.raises(PlatformError, match=r"otherwise, by up to .*"):
        to_onnx(model, replace(file, sample=whole))


def test_models_that_no_converter_takes_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = trained(logistic)
    with pytest.raises(
        PlatformError, match=r"was fitted on a frame, by names, and is not converted\. Fit it on `matrix"
    ):
        to_onnx(model, file)
    model, file = trained(imputed)
    with pytest.raises(PlatformError, match="Version 3 of the model delay cannot be converted to ONNX"):
        to_onnx(replace(model, model=object()), file)
    monkeypatch.setitem(__import__("sys").modules, "onnxmltools", None)
    with pytest.raises(
        PlatformError, match=r"ONNX needs the package onnxmltools.*pip install 'data-platform\[ml,onnx\]'"
    ):
        to_onnx(*trained(boosted))
