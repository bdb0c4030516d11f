"""Models as files, and files as models: LightGBM's boosters as their text, which is the same from run to run;
estimators of scikit-learn by skops, of which only the types that are listed here are loaded. Nothing is ever unpickled.
Where files are kept is in `store`.
"""

import hashlib
import re
import zipfile
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from data_platform.errors import PlatformError
from data_platform.ml.registry.inputs import matrix
from data_platform.redaction import first_line

if TYPE_CHECKING:
    import numpy as np

Framework = Literal["lightgbm", "sklearn"]
Task = Literal["classification", "regression"]
"""Whether a model gives the probability that the label is true, or a number."""

SAMPLE_ROWS = 1_000
"""Rows, the first of the test split by key, whose predictions are compared each time a model is loaded."""

TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
)
"""Types of scikit-learn's own estimators that skops does not know by itself. All of them only hold numbers or call what
is trusted as well. What a file says of itself is never added."""


class RowsError(PlatformError):
    """A model fails on the rows that it is asked about, as on a null that it makes nothing of."""


def require(package: str) -> Any:
    """A package of the extra `ml`. Raises PlatformError, saying what to install, if it is not there."""
    try:
        return import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"Models need the package {package.partition('.')[0]}, which cannot be imported ({error}). Install it "
            "where Dagster runs: pip install 'data-platform[ml]'."
        ) from None


def framework_of(model: object, where: str) -> Framework:
    """By what a model is stored. Raises PlatformError, beginning with `where`, if it is of no kind that can be."""
    lightgbm, sklearn = require("lightgbm"), require("sklearn.base")
    if isinstance(model, lightgbm.Booster):
        return "lightgbm"
    if isinstance(model, lightgbm.LGBMModel):
        raise PlatformError(f"{where} is a {type(model).__name__}: give its `booster_`, which is stored as text.")
    if isinstance(model, sklearn.BaseEstimator):
        return "sklearn"
    raise PlatformError(
        f"{where} is a {type(model).__qualname__} of {type(model).__module__}. A lightgbm.Booster or an estimator of "
        "scikit-learn can be stored."
    )


def to_bytes(model: Any, where: str) -> bytes:
    """The file of a model. Raises PlatformError, beginning with `where`, for one that could not be loaded again, or
    would not be the same again."""
    if framework_of(model, where) == "lightgbm":
        text = str(model.model_to_string())
        said = {line for line in text.splitlines() if line.startswith("[")}
        if "[deterministic: 1]" not in said or not said & {"[force_row_wise: 1]", "[force_col_wise: 1]"}:
            raise PlatformError(
                f"{where} would not be the same again: LightGBM chooses by measuring time how it adds numbers up. Give "
                "lightgbm.train the parameters `deterministic: true` and `force_row_wise: true`."
            )
        return text.encode()
    skops = require("skops.io")
    try:
        data = bytes(skops.dumps(model))
    except Exception as error:  # noqa: BLE001 - parts of an estimator may be of any code
        raise PlatformError(
            f"{where} cannot be stored by skops: {type(error).__name__}: {error}. Leave out what is no part of "
            "scikit-learn."
        ) from None
    _refuse_untrusted(skops, data, where)
    return data


def _refuse_untrusted(skops: Any, data: bytes, where: str) -> None:
    others = sorted(set(skops.get_untrusted_types(data=data)) - set(TRUSTED))
    if others:
        raise PlatformError(
            f"{where} holds {', '.join(others)}, which is not loaded from a file: it might run anything. Use what "
            "scikit-learn has itself; prepare features in the dataset."
        )


def from_bytes(framework: str, data: bytes, where: str) -> Any:
    """The model in a file. Raises PlatformError, beginning with `where`, for a file that is none, or holds other types
    than models do."""
    if framework == "lightgbm":
        lightgbm = require("lightgbm")
        try:
            return lightgbm.Booster(model_str=data.decode())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError, ValueError) as error:
            raise PlatformError(f"{where} is no model of LightGBM: {error}") from None
    if framework != "sklearn":
        raise PlatformError(f"{where} was made by {framework}, which this release does not know.")
    skops = require("skops.io")
    try:
        _refuse_untrusted(skops, data, where)
        return skops.loads(data, trusted=list(TRUSTED))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, ImportError, AttributeError) as error:
        raise PlatformError(f"{where} is no model of scikit-learn: {type(error).__name__}: {error}") from None


def predict(model: Any, rows: pl.DataFrame, task: Task, where: str) -> "np.ndarray[Any, Any]":
    """What a model says of prepared features, one 64-bit float a row: the probability that the label is true, or the
    number itself. Raises PlatformError, beginning with `where`, if it does not say that, and RowsError if it fails."""
    numpy = require("numpy")
    try:
        if framework_of(model, where) == "lightgbm":
            if model.num_model_per_iteration() != 1:
                raise PlatformError(
                    f"{where} tells more than two classes apart: a label is true or false, or a number."
                )
            found = model.predict(matrix(rows))
        else:
            given = rows if hasattr(model, "feature_names_in_") else matrix(rows)
            found = _estimated(model, given, task, where)
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - parts of a model may raise anything
        raise RowsError(
            f"{where} cannot be asked about these rows: {type(error).__name__}: {_without_lists(first_line(error))} "
            "Of a null or a text that it was not trained on a model may make nothing: put an imputer into the pipeline."
        ) from None
    values: np.ndarray[Any, Any] = numpy.asarray(found, dtype=numpy.float64).reshape(-1)
    wrong = ~numpy.isfinite(values) if task == "regression" else ~((values >= 0) & (values <= 1))
    if len(values) != len(rows) or wrong.any():
        expected = "numbers" if task == "regression" else "probabilities from 0 to 1 (`objective: binary`)"
        example = f", the first that is none is {values[wrong][0]}" if wrong.any() else ""
        raise PlatformError(
            f"{where} does not predict {expected}: {len(rows):,} rows gave {len(values):,} values, of which "
            f"{int(wrong.sum()):,} are none{example}."
        )
    return values


def _without_lists(text: str) -> str:
    """A message without what it lists or quotes, which may be values of rows."""
    return re.sub(r"\[.*\]|'[^']*'", "...", text)


def _estimated(model: Any, given: Any, task: Task, where: str) -> Any:
    if task == "regression":
        return model.predict(given)
    if not hasattr(model, "predict_proba"):
        raise PlatformError(
            f"{where} is a {type(model).__name__}, which gives no probabilities (`predict_proba`). Put it into a "
            "CalibratedClassifierCV, or take another one."
        )
    found = model.predict_proba(given)
    if getattr(found, "ndim", 0) != 2:
        raise PlatformError(f"{where} predicts several labels at once: there is one, which is true or false.")
    if found.shape[1] != 2:
        raise PlatformError(f"{where} tells {found.shape[1]} classes apart: a label is true or false.")
    classes = list(getattr(model, "classes_", (0, 1)))
    if classes != [0, 1]:
        raise PlatformError(
            f"{where} was fitted on the classes {classes[0]} and {classes[1]}, of which nothing says which is true: "
            "fit it on the label as it is given, 0 or 1."
        )
    return found[:, 1]


def prediction_hash(values: "np.ndarray[Any, Any]") -> str:
    """The hash of predictions, to the bit."""
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()


def file_hash(data: bytes) -> str:
    """The hash of a file."""
    return hashlib.sha256(data).hexdigest()
