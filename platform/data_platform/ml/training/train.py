"""A training: the rows of one version of a dataset, by key, into the function of a user; what it returns is stored,
loaded again, measured on the test split and held against its gates; then version, file and stage become visible in one
commit, or nothing does. Where the function and its options come from is the component's business.
"""

import hashlib
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from data_platform.contracts.causes import cause_of
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger import ModelVersion
from data_platform.lakehouse.transaction import taken_up
from data_platform.ml.datasets.reading import find as find_dataset
from data_platform.ml.datasets.reading import read
from data_platform.ml.datasets.version import DatasetVersion
from data_platform.ml.registry import files
from data_platform.ml.registry.files import SAMPLE_ROWS, Task, predict, prediction_hash
from data_platform.ml.registry.inputs import features_of, prepared
from data_platform.ml.registry.stages import find as find_model
from data_platform.ml.registry.stages import production_of, promote, stages
from data_platform.ml.registry.store import ModelFile, loaded, register_model
from data_platform.ml.training.gates import Gate, Measured, evaluate
from data_platform.ml.training.metrics import Values, calibration, importance, measure, roc, task_of
from data_platform.ml.training.options import TrainingOptions

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""The splits of a dataset that are used here; a dataset without the second one gives the function None."""

BY = "training"
"""Who promotes what passes its gates, where that is done by itself."""

Function = Callable[[pl.DataFrame, pl.DataFrame | None, Mapping[str, Any]], Any]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """What trains a model: its name, its options, the function, and the file that says so."""

    name: str
    options: TrainingOptions
    function: Function
    where: str

    @property
    def task(self) -> Task:
        return task_of(self.options.metrics)

    @property
    def code_version(self) -> str:
        """The hash of the file that the function is in. Raises PlatformError if there is none."""
        try:
            text = inspect.getsource(sys.modules[self.function.__module__])
        except (OSError, TypeError, KeyError):
            raise PlatformError(
                f"{self.where}: the code of {self.options.function} cannot be read, so it cannot be said which version "
                "of it trained a model. Put the function into a module of the platform."
            ) from None
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def said(self) -> dict[str, Any]:
        """All that decides what comes of a training, as it is stored."""
        besides = {"description", "pool", "dataset", "follow", "every", "retrain"}
        return self.options.model_dump(mode="json", exclude=besides)


@dataclass(frozen=True)
class Curves:
    """What is drawn of a version: the ROC curve (of probabilities), the groups of its calibration, and the shares of
    its features."""

    roc: list[tuple[float, float]]
    calibration: list[tuple[float, float, int]]
    importance: Mapping[str, float]


@dataclass(frozen=True)
class Trained:
    """What came of a training: the version (one that was there before if nothing `is_new`), the dataset, what the
    version in production reaches on the same rows, whether it was promoted, and notes."""

    version: ModelVersion
    is_new: bool
    dataset: DatasetVersion
    gates: list[Gate]
    production: int | None
    production_metrics: Mapping[str, float]
    promoted: bool
    curves: Curves
    notes: list[str]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class _Fitted:
    """A model that was trained, stored and loaded again, with what it predicts of the test split."""

    recipe: Recipe
    dataset: DatasetVersion
    file: ModelFile
    framework: str
    test: pl.DataFrame
    labels: Values
    predictions: Values
    curves: Curves

    @property
    def prediction_hash(self) -> str:
        return prediction_hash(self.predictions[:SAMPLE_ROWS])


def train(
    lake: Lakehouse,
    recipe: Recipe,
    *,
    run_id: str,
    say: Say = lambda _: None,
    dataset_version: int | None = None,
    why: str = "",
) -> Trained:
    """Train a model on a version of its dataset (by default the newest), and keep it, with what its gates say of it,
    and `why` it was trained, if there is a reason to be named. The same version of the dataset, code and options give
    the same predictions, and no new version of the model.

    Raises PlatformError if the dataset, its columns or its splits do not fit, or the function fails or returns what
    cannot be stored, loaded and asked for predictions; then nothing is changed.
    """
    fitted = _fit(lake, recipe, find_dataset(lake, recipe.options.dataset, dataset_version), say)
    return taken_up(lambda: _kept(lake, fitted, run_id, say, why))


def _fit(lake: Lakehouse, recipe: Recipe, dataset: DatasetVersion, say: Say) -> _Fitted:
    options, where = recipe.options, f"{recipe.where}: the dataset {dataset.name}, version {dataset.version}"
    label = options.label or dataset.label
    if label is None:
        raise PlatformError(f"{where} names no label: say here which column is to be predicted (`label`).")
    if label in options.features:
        raise PlatformError(
            f"{where}: its label {label} is among the features: the model would be given what it is to say."
        )
    rows = {
        split: read(lake, dataset, split)
        for split in (TRAIN, VALIDATION, TEST)
        if split != VALIDATION or VALIDATION in dataset.splits
    }
    for split, frame in rows.items():
        if frame.is_empty():
            raise PlatformError(f"{where} has no rows in the split {split}.")
    say(f"Dataset {dataset.name}, version {dataset.version}: " + ", ".join(f"{len(f):,} {s}" for s, f in rows.items()))
    features = features_of(rows[TRAIN], options.features, where)
    inputs = {split: prepared(frame, features, where) for split, frame in rows.items()}
    labels = {split: _labels(frame, label, recipe.task, f"{where}, split {split}") for split, frame in rows.items()}
    given = {split: frame.with_columns(labels[split]) for split, frame in inputs.items()}
    model = _called(recipe, given[TRAIN], given.get(VALIDATION), say)
    name = f"What {options.function} returned"
    framework = files.framework_of(model, name)
    data = files.to_bytes(model, name)
    # What counts is what the file predicts: that is what will be asked.
    again = files.from_bytes(framework, data, name)
    _require_width(again, framework, len(features), name)
    predictions = predict(again, inputs[TEST], recipe.task, name)
    file = ModelFile(data, features, recipe.task, label, inputs[TEST].head(SAMPLE_ROWS))
    truth = labels[TEST].to_numpy()
    is_curved = recipe.task == "classification" and labels[TEST].n_unique() == 2
    curves = Curves(
        roc(truth, predictions) if is_curved else [],
        calibration(truth, predictions) if recipe.task == "classification" else [],
        importance(again, options.features),
    )
    return _Fitted(recipe, dataset, file, framework, rows[TEST], truth, predictions, curves)


def _labels(rows: pl.DataFrame, label: str, task: Task, where: str) -> pl.Series:
    if label not in rows.columns:
        raise PlatformError(f"{where} has no column {label} to be predicted. It has: {', '.join(rows.columns)}.")
    column = rows[label]
    if column.null_count():
        raise PlatformError(f"{where}: {column.null_count():,} of {len(rows):,} rows have no {label}. Leave them out.")
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise PlatformError(f"{where}: the label {label} is a {column.dtype}, not a number or true or false.")
    if task == "regression":
        return column.cast(pl.Float64)
    values = column.cast(pl.Float64)
    others = values.filter(~values.is_in([0.0, 1.0]))
    if len(others):
        raise PlatformError(
            f"{where}: the label {label} has the value {others[0]:g} in {len(others):,} rows, and is to be true or "
            "false, or 1 or 0. For numbers name `metrics` of numbers: mae, rmse."
        )
    return values.cast(pl.Int8)


def _called(recipe: Recipe, train: pl.DataFrame, validation: pl.DataFrame | None, say: Say) -> Any:
    """What the function of a user returns, with its threads limited and all that is random seeded."""
    options = recipe.options
    files.require("lightgbm")  # its threads are only limited once it is there
    began = datetime.now(UTC)
    try:
        with _seeded(options.seed), files.require("threadpoolctl").threadpool_limits(options.threads):
            model = recipe.function(train, validation, {**options.parameters, "seed": options.seed})
    except PlatformError:
        raise
    except Exception as error:
        raise PlatformError(
            f"{recipe.where}: the training function {options.function} failed.\n  {cause_of(error, private=True)}"
        ) from error
    took = (datetime.now(UTC) - began).total_seconds()
    say(f"{options.function} returned a {type(model).__name__} after {took:.1f} s")
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's own random numbers begin at a seed in the block, and go on as before after it."""
    np = files.require("numpy")
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _require_width(model: Any, framework: str, features: int, name: str) -> None:
    width = model.num_feature() if framework == "lightgbm" else getattr(model, "n_features_in_", features)
    if width != features:
        raise PlatformError(
            f"{name} was trained on {width} columns, and `features` names {features}: it must be given these, in their "
            "order, and not the label: `matrix(train.drop(label))`."
        )


def _kept(lake: Lakehouse, fitted: _Fitted, run_id: str, say: Say, why: str) -> Trained:
    """Measure a model beside the one that is in production now, and keep it."""
    recipe, options, dataset = fitted.recipe, fitted.recipe.options, fitted.dataset
    ledger.ensure_ledger(lake)
    production = production_of(lake, recipe.name)
    theirs = _of_production(lake, recipe.name, production, fitted) if production is not None else None
    before = {} if isinstance(theirs, str | None) else measure(options.metrics, fitted.labels, theirs)
    made = ModelVersion(
        recipe.name,
        0,
        dataset.name,
        dataset.version,
        dataset.snapshot_id,
        recipe.code_version,
        recipe.said,
        measure(options.metrics, fitted.labels, fitted.predictions),
        [],
        fitted.framework,
        files.file_hash(fitted.file.data),
        fitted.prediction_hash,
        run_id,
        datetime.now(UTC),
    )
    known, notes = _known(lake, made)
    same = known is not None and known.version == production
    measured = Measured(fitted.test, fitted.labels, fitted.predictions, theirs, is_production=same)
    try:
        gates = evaluate(options.gates, measured)
    except PlatformError as error:
        raise PlatformError(f"{recipe.where}: {error}") from None
    for gate in gates:
        say(f"Gate {gate.name}: {'passed' if gate.passed else 'not passed'}. {gate.reason}")
    made = replace(made, gates=[asdict(gate) for gate in gates])
    wanted = options.promote == "automatically" and all(gate.passed for gate in gates)
    reason = _reason(gates, why)
    if known is None:
        kept = register_model(lake, made, fitted.file, promoted=wanted, production=production, by=BY, reason=reason)
        promoted = wanted
    else:
        kept, promoted = known, False
        notes = [f"Version {known.version} is this model already: the same rows, code, options and predictions."]
        if wanted and stages(lake, recipe.name)[recipe.name, known.version].stage == "candidate":
            promote(lake, recipe.name, known.version, by=BY, reason=reason, despite_gates=True)
            promoted = True
    for note in notes:
        say(note)
    return Trained(kept, known is None, dataset, gates, production, before, promoted, fitted.curves, notes)


def _reason(gates: list[Gate], why: str) -> str:
    missed, trained = [gate.name for gate in gates if not gate.passed], f"trained ({why})" if why else "trained"
    if missed:
        return f"{trained}; did not pass: {', '.join(missed)}"
    return f"{trained}; passed {'all ' + str(len(gates)) + ' gates' if gates else 'no gates, as there are none'}"


def _of_production(lake: Lakehouse, model: str, version: int, fitted: _Fitted) -> "Values | str":
    """What the version in production predicts of the test split, or why it cannot."""
    try:
        there = loaded(lake, find_model(lake, model, version))
        if there.task != fitted.file.task or there.label != fitted.file.label:
            return f"version {version} predicts {there.label} ({there.task}), this one {fitted.file.label}."
        predicted: Values = there.predict(fitted.test)
    except PlatformError as error:
        return str(error)
    return predicted


def _known(lake: Lakehouse, made: ModelVersion) -> tuple[ModelVersion | None, list[str]]:
    """The newest version that is the same as one just made, if its file is whole; notes if it is not, or if one of the
    same origin predicts otherwise."""
    origin = [
        one
        for one in ledger.model_versions(lake, made.model)
        if (one.dataset, one.dataset_version, one.code_version, one.parameters, one.framework)
        == (made.dataset, made.dataset_version, made.code_version, made.parameters, made.framework)
    ]
    if not origin:
        return None, []
    if origin[-1].prediction_hash == made.prediction_hash:
        try:
            loaded(lake, origin[-1])
        except PlatformError as error:
            return None, [f"There was this model already, which cannot be used any more. {error}"]
        return origin[-1], []
    note = (
        f"It is not reproducible: version {origin[-1].version} has the same rows, code and options, and predicts "
        "otherwise. Does the function use random numbers without the seed, or something outside of its own file?"
    )
    return None, [note]
