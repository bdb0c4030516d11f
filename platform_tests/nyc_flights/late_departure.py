"""`python -m platform_tests.nyc_flights.late_departure`: how well late departures of a whole year are predicted, and
whether drift is found. Figures are printed for people to judge; nothing here fails because one is bad.

The staged tables are those of a year played to its end, without dirt, straight from the simulator's truth; features are
those of the dbt model, in the query that dbt would send. Train is all before September, validation September and
October, test November and December.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from platform_tests.modelled import rendered

from nyc_flights.defs import lateness
from nyc_flights.defs.lateness import training
from nyc_flights.simulator import flights, observations
from nyc_flights.simulator.days import LAST_DAY

SEED = 2013
SPLITS = {"train": datetime(2013, 9, 1, 4, tzinfo=UTC), "validation": datetime(2013, 11, 1, 4, tzinfo=UTC)}
"""When each ends (midnight in New York); what comes later is the test."""

DEFS = yaml.safe_load((Path(lateness.__path__[0]) / "defs.yaml").read_text())
FEATURES: Sequence[str] = DEFS["attributes"]["features"]

BINS = 10
Values = np.ndarray[Any, Any]


def year(*, drifting: bool) -> pl.DataFrame:
    """The features of all flights of the year, with or without the simulator's drift."""
    weather = observations.published(SEED, drifting=drifting).unique(
        ["station", "observed_at"], keep="last", maintain_order=True
    )
    weather = weather.select("station", "observed_at", pl.col(*observations.FIELDS).cast(pl.Float64), "published_at")
    with rendered.database() as connection:
        staged = flights.clean_on(SEED, LAST_DAY, True).drop("state")
        return rendered.departure_features(connection, staged, weather)


def drift(known: pl.DataFrame) -> pl.DataFrame:
    """What mart_feature_drift says of the whole weeks of a year, the model being trained on the first of SPLITS."""
    trained = split(known)["train"].select("scheduled_departure", split=pl.lit("train"))
    with rendered.database() as connection:
        rendered.put(connection, "modelled.departure_features", known)
        rendered.put(connection, "datasets.departures", trained)
        return connection.execute(rendered.rendered("mart_feature_drift")).pl().sort("feature", "airport", "week")


def split(known: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Departures whose outcome is known, in the order of their key: train, validation and test."""
    at, (first, second) = pl.col("scheduled_departure"), SPLITS.values()
    rows = known.filter(pl.col("left_late").is_not_null()).sort("flight_id")
    return {
        "train": rows.filter(at < first),
        "validation": rows.filter(at >= first, at < second),
        "test": rows.filter(at >= second),
    }


def prepared(rows: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Features and label as a training gets them: numbers as floats, texts as an Enum of those to train on."""
    kinds = {
        name: pl.Enum(train[name].unique().sort()) if train.schema[name] == pl.String else pl.Float64
        for name in FEATURES
    }
    return rows.select(
        *[pl.col(name).cast(kind, strict=False) for name, kind in kinds.items()], pl.col("left_late").cast(pl.Int8)
    )


def predict(model: Any, rows: pl.DataFrame) -> Values:
    """The probability that each flight leaves late."""
    values = training.matrix(rows)
    found: Values = model.predict_proba(values)[:, 1] if hasattr(model, "predict_proba") else model.predict(values)
    return found


@dataclass(frozen=True)
class Figures:
    """How well probabilities meet what happened; AUC is NaN where all outcomes are alike."""

    rows: int
    late: float
    auc: float
    log_loss: float
    brier: float
    calibration_error: float


def figures(labels: Values, predictions: Values) -> Figures:
    """All figures of some flights. The calibration error is how far the mean prediction is from the share that left
    late, in the mean over BINS groups of equal size by prediction."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    both = len(np.unique(labels)) == 2
    order = np.argsort(predictions, kind="stable")
    groups = np.array_split(order, BINS)
    error = sum(len(one) * abs(predictions[one].mean() - labels[one].mean()) for one in groups if len(one))
    return Figures(
        rows=len(labels),
        late=float(labels.mean()),
        auc=float(roc_auc_score(labels, predictions)) if both else float("nan"),
        log_loss=float(log_loss(labels, predictions, labels=[0, 1])),
        brier=float(brier_score_loss(labels, predictions)),
        calibration_error=float(error / len(labels)),
    )


MODELS: Mapping[str, Callable[[pl.DataFrame, pl.DataFrame | None, Mapping[str, Any]], Any]] = {
    "carrier's share": training.carrier_share,
    "logistic regression": training.logistic_regression,
    "boosted trees": training.train,
}


def table(head: Sequence[str], rows: Iterator[tuple[str, Figures]]) -> str:
    """Figures as a table of Markdown."""
    lines = ["| " + " | ".join([*head, "flights", "late", "AUC", "log loss", "Brier", "calibration error"]) + " |"]
    lines.append("|" + "---|" * (len(head) + 6))
    lines += [
        f"| {name} | {one.rows:,} | {one.late:.1%} | {one.auc:.3f} | {one.log_loss:.4f} | {one.brier:.4f} | "
        f"{one.calibration_error:.3f} |"
        for name, one in rows
    ]
    return "\n".join(lines)


def by(rows: pl.DataFrame, group: pl.Expr, labels: Values, predictions: Values) -> Iterator[tuple[str, Figures]]:
    """The figures of each group of the rows."""
    names = rows.select(group.cast(pl.String)).to_series()
    for name in names.unique().sort():
        own = (names == name).to_numpy()
        yield name, figures(labels[own], predictions[own])


def report_drift(steady: pl.DataFrame, drifting: pl.DataFrame) -> None:
    """Print which weeks are said to drift without any drift, and what the injected one adds."""
    keys = ["feature", "airport", "week"]
    after = steady.filter(~pl.col("is_training"))
    false = after.group_by("feature").agg(
        weeks=pl.col("week").n_unique(),
        above_limit=((pl.col("airport") == "all") & (pl.col("psi") > 0.2)).sum(),
        all_airports=((pl.col("airport") == "all") & pl.col("is_drifting")).sum(),
        one_airport=((pl.col("airport") != "all") & pl.col("is_drifting")).sum(),
        of=(pl.col("airport") != "all").sum(),
    )
    print("\n## weeks said to drift where nothing was injected\n", false.sort("one_airport"))
    both = drifting.join(steady.select(*keys, was="psi", was_drifting="is_drifting"), on=keys)
    wind = pl.col("feature").is_in(["wind_speed_mph", "wind_against_others_mph"]) & ~pl.col("is_training")
    moved = both.filter(wind, pl.col("airport").is_in(["LGA", "all"]))
    print("\n## wind, with the injected drift and (was) without")
    print(moved.select(*keys, "psi", "was", "highest_in_training", "is_drifting", "was_drifting"))


def main() -> None:
    pl.Config.set_tbl_rows(-1)
    pl.Config.set_tbl_cols(-1)
    pl.Config.set_tbl_width_chars(160)
    steady, drifting = year(drifting=False), year(drifting=True)
    rows = split(steady)
    ready = {name: prepared(frame, rows["train"]) for name, frame in rows.items()}
    print(", ".join(f"{name} {len(frame):,} ({training.label(frame).mean():.1%} late)" for name, frame in rows.items()))
    fitted = {name: fit(ready["train"], ready["validation"], {}) for name, fit in MODELS.items()}
    labels = {name: training.label(frame) for name, frame in ready.items()}
    for name in ("validation", "test"):
        print(f"\n## {name}")
        print(table(["model"], ((one, figures(labels[name], predict(m, ready[name]))) for one, m in fitted.items())))
    trees, test = fitted["boosted trees"], rows["test"]
    predictions = predict(trees, ready["test"])
    month = pl.col("scheduled_departure").dt.convert_time_zone("America/New_York").dt.strftime("%Y-%m")
    print("\n## boosted trees, test, by month\n" + table(["month"], by(test, month, labels["test"], predictions)))
    held_out = by(rows["validation"], month, labels["validation"], predict(trees, ready["validation"]))
    print("\n## boosted trees, validation, by month\n" + table(["month"], held_out))
    print(
        "\n## boosted trees, test, by carrier\n"
        + table(["carrier"], by(test, pl.col("carrier"), labels["test"], predictions))
    )
    moved = prepared(split(drifting)["test"], rows["train"])
    print(
        "\n## boosted trees, test, wind at LGA in metres per second\n"
        + table(
            ["flights"],
            iter(
                [
                    ("as they were", figures(labels["test"], predictions)),
                    ("drifting", figures(labels["test"], predict(trees, moved))),
                ]
            ),
        )
    )
    lga = (test["origin"] == "LGA").to_numpy()
    print(
        table(
            ["flights from LGA"],
            iter(
                [
                    ("as they were", figures(labels["test"][lga], predictions[lga])),
                    ("drifting", figures(labels["test"][lga], predict(trees, moved)[lga])),
                ]
            ),
        )
    )
    report_drift(drift(steady), drift(drifting))
    again = training.train(ready["train"], ready["validation"], {})
    print("\ntrained twice, the same text:", again.model_to_string() == trees.model_to_string())
    gain = sorted(zip(trees.feature_importance("gain"), trees.feature_name(), strict=True), reverse=True)
    total = sum(one for one, _ in gain)
    print("gain:", ", ".join(f"{name} {one / total:.1%}" for one, name in gain))


if __name__ == "__main__":
    main()
