"""A model as ONNX, for programs without Python: converted, run, and held against what the model itself predicts before
anybody gets it, as converters leave out what they do not know. Nothing here writes files or reads the lakehouse.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import polars as pl

from data_platform.errors import PlatformError, shortened
from data_platform.ml.registry.files import Task, predict
from data_platform.ml.registry.inputs import as_json, matrix
from data_platform.ml.registry.store import LoadedModel, ModelFile

if TYPE_CHECKING:
    import numpy as np

INPUT = "features"
"""The one input: 32-bit floats, a row each, texts as the place of their category, NaN for what is unknown."""

OPSET = 15
"""Of ONNX's operators: as old as the converters allow, so that as many programs as possible run it."""

TOLERANCE = 1e-5
"""By how much a score may differ, where they go beyond 1 as a share of the largest: ONNX has sums of 32-bit floats, of
which the rounding is about a hundredth of this. What was left out by a converter differs by far more."""

UNKNOWN_ROWS = 50
"""Rows for each feature on which it is tried as unknown, beside the kept sample."""

REASON_CHARACTERS = 300


def to_onnx(model: LoadedModel, file: ModelFile) -> bytes:
    """The file of a model as ONNX: given `features`, its last output is the probability that the label is true (the
    second of two columns), or the number. Features and version are in its metadata.

    Raises PlatformError if the extra is not there, the converter cannot, or ONNX scores the rows that are kept with the
    model, or the same ones with unknown features, otherwise than the model does.
    """
    name = model.name
    if hasattr(model.model, "feature_names_in_"):
        raise PlatformError(
            f"{name} was fitted on a frame, by names, and is not converted. Fit it on `matrix(train.drop(label))`, "
            "whose columns are numbers, or export it as .skops."
        )
    onnx = _converted(model, len(file.features))
    facts = {
        "model": model.version.model,
        "version": str(model.version.version),
        "file_hash": model.version.file_hash,
        "features": json.dumps(as_json(file.features)),
        "label": file.label,
        "task": file.task,
    }
    require("onnx.helper").set_model_props(onnx, facts)
    data = bytes(onnx.SerializeToString())
    require_same(model, file.sample, data, f"the {len(file.sample):,} rows that are kept with it")
    for feature in file.features:
        unknown = file.sample.head(UNKNOWN_ROWS).with_columns(
            pl.lit(None, file.sample.schema[feature.name]).alias(feature.name)
        )
        require_same(model, unknown, data, f"rows of which {feature.name} is unknown")
    return data


def require_same(model: LoadedModel, rows: pl.DataFrame, data: bytes, which: str) -> None:
    """Raise PlatformError if ONNX scores rows otherwise than the model. Rows that the model itself refuses are passed
    over."""
    numpy = require("numpy")
    try:
        expected = predict(model.model, rows, model.task, model.name)
    except (PlatformError, ValueError):  # of an estimator that takes no unknown values
        return
    found = scores(data, matrix(rows), model.task)
    apart = numpy.abs(found - expected) / max(1.0, numpy.abs(expected).max(initial=0))
    wrong = ~(apart <= TOLERANCE)
    if wrong.any():
        raise PlatformError(
            f"{model.name} is not exported: as ONNX it scores {int(wrong.sum()):,} of {which} otherwise, by up to "
            f"{numpy.nanmax(apart):.3g} where {TOLERANCE:g} is allowed. The converter leaves out something that the "
            "model needs. Export it as its own file (.txt, .skops), or answer by `dp serve`."
        )


def scores(data: bytes, given: "np.ndarray[Any, Any]", task: Task) -> "np.ndarray[Any, Any]":
    """What an ONNX file gives for rows of a matrix, as 64-bit floats."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it warns of shapes that the converter declares
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (last,) = session.run([session.get_outputs()[-1].name], {INPUT: given.astype("float32")})
    found: np.ndarray[Any, Any] = last.astype("float64")
    return found[:, 1] if task == "classification" and found.ndim == 2 else found.reshape(-1)


def _converted(model: LoadedModel, width: int) -> Any:
    lightgbm = model.version.framework == "lightgbm"
    converter = require("onnxmltools" if lightgbm else "skl2onnx")
    types = require(
        "onnxmltools.convert.common.data_types" if lightgbm else "skl2onnx.common.data_types"
    ).FloatTensorType
    inputs = [(INPUT, types([None, width]))]
    try:
        with _quiet():
            if lightgbm:
                return converter.convert_lightgbm(model.model, initial_types=inputs, zipmap=False, target_opset=OPSET)
            options = {"zipmap": False} if model.task == "classification" else None
            return converter.convert_sklearn(model.model, initial_types=inputs, options=options, target_opset=OPSET)
    except Exception as error:  # noqa: BLE001 - converters raise anything
        reason = shortened(" ".join(f"{type(error).__name__}: {error}".split()), REASON_CHARACTERS)
        raise PlatformError(f"{model.name} cannot be converted to ONNX: {reason}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Converters log and warn of what is compared afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def require(package: str) -> Any:
    """A package of the extra `onnx`. Raises PlatformError, saying what to install, if it is not there."""
    try:
        return import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"ONNX needs the package {package.partition('.')[0]}, which cannot be imported ({error}). Install it: "
            "pip install 'data-platform[ml,onnx]'."
        ) from None
