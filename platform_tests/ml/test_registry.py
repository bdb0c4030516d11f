"""Models as they are stored and loaded again, and the stages of their versions."""

import io
import zipfile

import lightgbm
import numpy as np
import polars as pl
import pytest
import skops.io
from platform_tests.ml.delays import FEATURES, boosted, flights, histograms, lake, logistic, own_code, recipe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import ConcurrentStepError
from data_platform.ml.registry import files, stages, store
from data_platform.ml.registry.inputs import Feature, features_of, matrix, prepared
from data_platform.ml.training.train import train

__all__ = ["lake"]


def execute(lake: Lakehouse, statement: str) -> None:
    lake.connection.execute(statement)


def history(lake: Lakehouse) -> list[tuple[int, str, str]]:
    return [(change.version, change.stage, change.reason) for change in ledger.stage_changes(lake, "delay")]


def test_a_file_of_another_type_than_estimators_have_is_refused_before_anything_of_it_is_made() -> None:
    data = skops.io.dumps(FunctionTransformer(own_code))
    with pytest.raises(PlatformError, match=r"holds platform_tests\.ml\.delays\.own_code, which is not loaded"):
        files.from_bytes("sklearn", data, "The model")


@pytest.mark.parametrize(
    ("framework", "data", "said"),
    [
        ("sklearn", b"\x80\x04.", "is no model of scikit-learn: BadZipFile"),
        ("lightgbm", b"tree\nversion=v4\n", "is no model of LightGBM"),
        ("lightgbm", b"\xff\xfe", "is no model of LightGBM"),
        ("pickle", b"", "was made by pickle, which this release does not know"),
    ],
)
def test_a_file_that_is_no_model_is_refused(framework: str, data: bytes, said: str) -> None:
    with pytest.raises(PlatformError, match=f"The model {said}"):
        files.from_bytes(framework, data, "The model")


def test_an_archive_without_a_model_is_refused() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(PlatformError, match="The model is no model of scikit-learn: TypeError"):
        files.from_bytes("sklearn", data.getvalue(), "The model")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(files, "import_module", missing)
    with pytest.raises(PlatformError, match=r"Models need the package skops.*pip install 'data-platform\[ml\]'"):
        files.require("skops.io")


@pytest.mark.parametrize("function", [boosted, logistic, histograms])
def test_a_model_predicts_to_the_bit_what_it_did_before_it_was_stored(function: object) -> None:
    rows = flights(600)
    features = features_of(rows, FEATURES, "defs.yaml")
    given = prepared(rows, features, "defs.yaml")
    model = function(given.with_columns(rows["late"].cast(pl.Int8)), None, {"num_threads": 1})  # type: ignore[operator]
    data = files.to_bytes(model, "The model")
    again = files.from_bytes(files.framework_of(model, "The model"), data, "The model")
    before, after = (files.predict(one, given, "classification", "The model") for one in (model, again))
    assert before.tobytes() == after.tobytes()
    assert 0 <= before.min() < before.max() <= 1


def test_estimators_of_lightgbm_are_given_by_their_booster() -> None:
    with pytest.raises(PlatformError, match="is a LGBMClassifier: give its `booster_`"):
        files.framework_of(lightgbm.LGBMClassifier(), "The model")


def test_a_model_of_three_classes_is_refused() -> None:
    rows = pl.DataFrame({"hour": np.arange(9.0)})
    model = LogisticRegression().fit(rows.to_numpy(), np.arange(9) % 3)
    with pytest.raises(PlatformError, match="The model tells 3 classes apart"):
        files.predict(model, rows, "classification", "The model")


def test_features_are_numbers_or_texts_that_were_trained_on() -> None:
    features = (Feature("hour"), Feature("carrier", ("AA", "B6")))
    rows = pl.DataFrame({"carrier": ["B6", "ZZ", None, "AA"], "hour": [1, None, 3, 4], "other": [0, 0, 0, 0]})
    np.testing.assert_array_equal(
        matrix(prepared(rows, features, "defs.yaml")), [[1, 1], [np.nan, np.nan], [3, np.nan], [4, 0]]
    )
    with pytest.raises(PlatformError, match=r"needs the feature carrier, which the rows do not have. They have: hour"):
        prepared(rows.select("hour", "other"), features, "defs.yaml")
    with pytest.raises(PlatformError, match="was trained on numbers in hour, which is a String here"):
        prepared(rows.with_columns(hour=pl.lit("noon")), features, "defs.yaml")
    with pytest.raises(PlatformError, match="the feature day is a Date"):
        features_of(pl.select(day=pl.date(2013, 1, 1)), ["day"], "defs.yaml")
    with pytest.raises(PlatformError, match="the feature id has 10,001 different texts"):
        features_of(pl.select(id=pl.int_range(10_001).cast(pl.String)), ["id"], "defs.yaml")


def test_a_file_that_was_changed_or_lost_is_not_loaded(lake: Lakehouse) -> None:
    version = train(lake, recipe(), run_id="run").version
    assert store.load(lake, "delay", 1).predict(flights(4)).shape == (4,)
    execute(lake, "update models.files set file = replace(file::varchar, 'leaf_value=', 'leaf_value=1')::blob")
    with pytest.raises(PlatformError, match="Version 1 of the model delay is not used: its file is not the one that"):
        store.load(lake, "delay", 1)
    assert version.framework == "lightgbm"
    execute(lake, "delete from models.files")
    with pytest.raises(PlatformError, match=r"has 0 files in models\.files, not one"):
        store.load(lake, "delay", 1)
    again = train(lake, recipe(), run_id="run")
    assert (again.is_new, again.version.version) == (True, 2)
    assert "There was this model already, which cannot be used any more. Version 1" in again.notes[0]
    assert store.load(lake, "delay", 2).predict(flights(4)).shape == (4,)


def test_a_model_that_predicts_otherwise_than_when_it_was_registered_is_refused(lake: Lakehouse) -> None:
    train(lake, recipe(histograms), run_id="run")
    execute(lake, "update platform.models set prediction_hash = 'that of another release'")
    with pytest.raises(PlatformError, match="predicts otherwise than when it was registered, for the 600 rows"):
        store.load(lake, "delay", 1)


def test_a_version_does_not_take_the_place_of_another_one_than_it_was_compared_with(lake: Lakehouse) -> None:
    train(lake, recipe(parameters={"num_leaves": 2}), run_id="run")
    train(lake, recipe(), run_id="run")
    stages.promote(lake, "delay", 1, by="ada", reason="first")
    with pytest.raises(ConcurrentStepError, match="went into production meanwhile"):
        stages.promote(lake, "delay", 2, by="training", reason="better than none", in_place_of=None)
    assert stages.production_of(lake, "delay") == 1
    assert stages.promote(lake, "delay", 2, by="training", reason="better than 1", in_place_of=1) == 1


def test_what_does_not_exist_is_answered_with_what_does(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError, match=r"There is no model delay\. None was trained yet"):
        store.load(lake, "delay")
    train(lake, recipe(), run_id="run")
    with pytest.raises(PlatformError, match=r"There is no model delays\. There are: delay"):
        store.load(lake, "delays")
    with pytest.raises(PlatformError, match=r"No version of the model delay is in production. It has: 1 \(candidate\)"):
        store.load(lake, "delay")
    with pytest.raises(PlatformError, match=r"has no version 7. It has: 1 \(candidate\)"):
        stages.promote(lake, "delay", 7, by="ada", reason="it is lucky")


def test_one_version_is_in_production_and_the_history_says_who_and_why(lake: Lakehouse) -> None:
    train(lake, recipe(), run_id="run")
    train(lake, recipe(seed=2, gates={"at_least": {"auc": 0.99}}), run_id="run")
    assert stages.promote(lake, "delay", 1, by="ada", reason="the first") is None
    with pytest.raises(PlatformError, match="is in production already"):
        stages.promote(lake, "delay", 1, by="ada", reason="again")
    with pytest.raises(PlatformError, match=r"did not pass 1 of its gates: auc at least 0\.99: .*--despite-gates"):
        stages.promote(lake, "delay", 2, by="ada", reason="newer")
    assert stages.promote(lake, "delay", 2, by="ada", reason="newer", despite_gates=True) == 1
    assert stages.production_of(lake, "delay") == 2
    assert stages.retire(lake, "delay", 2, by="bob", reason="it is wrong") == "production"
    with pytest.raises(PlatformError, match=r"is retired already, since .* by bob: it is wrong"):
        stages.retire(lake, "delay", 2, by="bob", reason="again")
    assert stages.production_of(lake, "delay") is None
    assert history(lake) == [
        (1, "candidate", "trained; passed no gates, as there are none"),
        (2, "candidate", "trained; did not pass: auc at least 0.99"),
        (1, "production", "the first"),
        (1, "retired", "replaced by version 2: newer"),
        (2, "production", "newer"),
        (2, "retired", "it is wrong"),
    ]
