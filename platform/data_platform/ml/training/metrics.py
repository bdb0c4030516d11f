"""Figures of how well predictions meet the labels of a test split. What is asked of them is in `gates`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from data_platform.ml.registry.files import Task, require

if TYPE_CHECKING:
    import numpy as np

ClassificationMetric = Literal["auc", "log_loss", "brier", "calibration_error", "accuracy"]
RegressionMetric = Literal["mae", "rmse"]
Metric = ClassificationMetric | RegressionMetric

CLASSIFICATION: tuple[Metric, ...] = ("auc", "log_loss", "brier", "calibration_error", "accuracy")
REGRESSION: tuple[Metric, ...] = ("mae", "rmse")
MORE_IS_BETTER = frozenset({"auc", "accuracy"})
"""The metrics of which more is better; of the others less is."""

BINS = 10
"""Into how many groups of equal size rows are put, by their predictions, to compare these with how often it was so."""

Values: TypeAlias = "np.ndarray[Any, Any]"


def task_of(metrics: Sequence[str]) -> Task:
    """What is measured by these metrics. Raises ValueError if they are of both kinds, or none are given."""
    kinds = {"classification" if metric in CLASSIFICATION else "regression" for metric in metrics}
    if len(kinds) != 1:
        raise ValueError(
            f"metrics are either of probabilities ({', '.join(CLASSIFICATION)}) or of numbers "
            f"({', '.join(REGRESSION)}), not {', '.join(metrics) or 'none'}"
        )
    return "classification" if "classification" in kinds else "regression"


def measure(metrics: Sequence[Metric], labels: Values, predictions: Values) -> dict[str, float]:
    """The metrics by name. One that is undefined for these labels (AUC of rows that are all alike) or no finite number
    is left out: no comparison with a limit would tell anything."""
    with require("numpy").errstate(over="ignore", invalid="ignore"):
        figures = {metric: _figure(metric, labels, predictions) for metric in metrics}
    return {metric: figure for metric, figure in figures.items() if figure is not None and math.isfinite(figure)}


def _figure(metric: Metric, labels: Values, predictions: Values) -> float | None:
    known, np = require("sklearn.metrics"), require("numpy")
    if not len(labels):
        return None
    if metric == "auc":
        return float(known.roc_auc_score(labels, predictions)) if len(np.unique(labels)) == 2 else None
    if metric == "log_loss":
        return float(known.log_loss(labels, predictions, labels=[0, 1]))
    if metric == "brier":
        return float(np.mean((predictions - labels) ** 2))
    if metric == "calibration_error":
        bins = calibration(labels, predictions)
        return float(sum(rows * abs(said - was) for said, was, rows in bins) / len(labels))
    if metric == "accuracy":
        return float(np.mean((predictions >= 0.5) == labels))
    if metric == "mae":
        return float(np.mean(np.abs(predictions - labels)))
    return float(np.sqrt(np.mean((predictions - labels) ** 2)))


def calibration(labels: Values, predictions: Values) -> list[tuple[float, float, int]]:
    """For each of BINS groups of rows, by their predictions: the mean prediction, the share of labels that are true,
    and the rows. Rows of the same prediction are in one group, whatever order they come in."""
    np = require("numpy")
    edges = np.unique(np.quantile(predictions, np.arange(1, BINS) / BINS))
    group = np.searchsorted(edges, predictions, side="right")
    rows = np.bincount(group)
    said, was = np.bincount(group, predictions), np.bincount(group, labels)
    return [
        (float(said[one] / rows[one]), float(was[one] / rows[one]), int(rows[one]))
        for one in range(len(rows))
        if rows[one]
    ]


def roc(labels: Values, predictions: Values) -> list[tuple[float, float]]:
    """The ROC curve: the share of false and of true labels above each threshold, from (0, 0) to (1, 1)."""
    false, true, _ = require("sklearn.metrics").roc_curve(labels, predictions)
    return [(float(x), float(y)) for x, y in zip(false, true, strict=True)]


def importance(model: Any, names: Sequence[str]) -> Mapping[str, float]:
    """The share of each feature in what a model learned, as its library tells it (the gain of its splits, impurity,
    coefficients), the largest first; empty if it tells none."""
    np = require("numpy")
    if hasattr(model, "feature_importance"):
        weights = model.feature_importance("gain")
    elif hasattr(model, "feature_importances_"):
        weights = model.feature_importances_
    elif hasattr(model, "coef_") and np.size(model.coef_) == len(names):
        weights = np.abs(np.ravel(model.coef_))
    else:
        return {}
    total = float(np.sum(weights)) or 1.0
    shares = {name: float(weight) / total for name, weight in zip(names, weights, strict=True)}
    return dict(sorted(shares.items(), key=lambda one: -one[1]))
