"""Gates: what a new version has to reach on the test split to go into production, each with its figures. How metrics
are computed is in `metrics`; who is promoted, `train` decides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from data_platform.errors import PlatformError, shortened
from data_platform.ml.training.metrics import MORE_IS_BETTER, Metric, Values, measure
from data_platform.ml.training.options import BetterThanProduction, Gates, Segments

T = TypeVar("T")

NAMED = 5
"""How many groups a reason names."""


@dataclass(frozen=True)
class Gate:
    """What one gate found: its name, whether it was passed, and why or why not, with the figures."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Measured:
    """The rows of a test split, their labels, and what the new version predicts of them. `production` is what the
    version in production predicts of the same rows: None if there is none, a text that says why it cannot be asked.
    `is_production` says that it is this very model."""

    rows: pl.DataFrame
    labels: Values
    predictions: Values
    production: "Values | str | None"
    is_production: bool = False


def evaluate(gates: Gates, measured: Measured) -> list[Gate]:
    """What each gate found. Raises PlatformError for a column of segments that the dataset does not have."""
    return list(_evaluated(gates, measured))


def _evaluated(gates: Gates, measured: Measured) -> Iterator[Gate]:
    if gates.better_than_production is not None:
        yield _compared(gates.better_than_production, measured)
    for limits, word in ((gates.at_least, "at least"), (gates.at_most, "at most")):
        for metric, limit in limits.items():
            yield _limited(metric, limit, word, measured)
    for segments in gates.segments:
        yield _of_segments(segments, measured)


def _figure(metric: Metric, labels: Values, predictions: Values) -> float | None:
    return measure([metric], labels, predictions).get(metric)


def _compared(gate: BetterThanProduction, measured: Measured) -> Gate:
    name, metric = "better than production", gate.metric
    before = measured.production
    if before is None:
        return Gate(name, True, "No version is in production yet.")
    if measured.is_production:
        return Gate(name, True, "The version in production is this very model.")
    if isinstance(before, str):
        return Gate(name, False, f"The version in production cannot be compared: {before}")
    ours, theirs = (_figure(metric, measured.labels, one) for one in (measured.predictions, before))
    if ours is None or theirs is None:
        return Gate(name, False, _undefined(metric, measured.labels))
    ahead = ours - theirs if metric in MORE_IS_BETTER else theirs - ours
    said = f"{metric} is {ours:.6g}, that of the version in production on the same rows {theirs:.6g}"
    return Gate(name, ahead >= gate.by, f"{said}: better by {ahead:.6g}, at least {gate.by:g} is asked.")


def _limited(metric: Metric, limit: float, word: str, measured: Measured) -> Gate:
    figure = _figure(metric, measured.labels, measured.predictions)
    if figure is None:
        return Gate(f"{metric} {word} {limit:g}", False, _undefined(metric, measured.labels))
    passed = figure >= limit if word == "at least" else figure <= limit
    return Gate(f"{metric} {word} {limit:g}", passed, f"{metric} is {figure:.6g}, {word} {limit:g} is asked.")


def _of_segments(gate: Segments, measured: Measured) -> Gate:
    """Every group of enough rows has to be within the limit; which are not measured is said."""
    limit, word = (gate.at_least, "at least") if gate.at_least is not None else (gate.at_most, "at most")
    assert limit is not None  # noqa: S101 - the options have one of both
    name = f"{gate.metric} {word} {limit:g} in each {gate.column}"
    if gate.column not in measured.rows.columns:
        raise PlatformError(
            f"`segments` names the column {gate.column}, which the dataset does not have. It has: "
            f"{', '.join(measured.rows.columns)}."
        )
    kind = measured.rows.schema[gate.column]
    if kind.is_nested() or kind == pl.Object:
        raise PlatformError(f"`segments` names the column {gate.column}, a {kind}: rows are grouped by single values.")
    groups = measured.rows.select(pl.col(gate.column).alias("group")).with_row_index("row")
    # A list, not a mapping by text: two long values may have the same beginning, and a text may say "(null)".
    found, few, undefined = list[tuple[str, tuple[float, int]]](), 0, list[str]()
    for rows in groups.partition_by("group", maintain_order=True):
        places, value = rows["row"].to_numpy(), rows["group"][0]
        if len(places) < gate.rows:
            few += 1
            continue
        figure = _figure(gate.metric, measured.labels[places], measured.predictions[places])
        label = shortened("(null)" if value is None else str(value), 40)
        if figure is None:
            undefined.append(label)
        else:
            found.append((label, (figure, len(places))))
    worst = sorted(found, key=lambda one: one[1][0], reverse=word == "at most")
    failing = [one for one in worst if (one[1][0] < limit if word == "at least" else one[1][0] > limit)]
    shown = _listed(failing or worst[:1], lambda one: f"{one[0]} {one[1][0]:.6g} ({one[1][1]:,} rows)")
    reason = [
        f"{len(failing)} of {len(found)} groups that were measured miss it: {shown}." if failing
        else f"All {len(found)} groups that were measured reach it, the worst is {shown}." if found
        else "No group could be measured."
    ]  # fmt: skip
    if few:
        reason.append(f"{few} groups of fewer than {gate.rows:,} rows were not measured.")
    if undefined:
        why = "All rows have the same label" if gate.metric == "auc" else "The figures are too large"
        reason.append(f"{why} in {_listed(undefined, str)}: no {gate.metric}.")
    # Of labels that are all alike there is no AUC; of a figure that is no number nothing says that it keeps a limit.
    unknown = bool(undefined) and gate.metric != "auc"
    return Gate(name, bool(found) and not failing and not unknown, " ".join(reason))


def _listed(values: Sequence[T], text: Callable[[T], str]) -> str:
    more = len(values) - NAMED
    return ", ".join(text(one) for one in values[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _undefined(metric: str, labels: Values) -> str:
    if not len(labels):
        return f"There is no {metric}: the test split has no rows."
    if metric != "auc":
        return f"There is no {metric}: the figures are too large to be added up."
    return f"There is no {metric}: all {len(labels):,} rows of the test split have the label {labels[0]:g}."
