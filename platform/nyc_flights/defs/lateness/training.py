"""How models of late departures are trained: boosted trees, and the two that they have to be better than. A function
takes the features of departures and their label as they come from the dataset; how well a model does is measured
elsewhere.

Features are numbers, or texts of a known set (Enum), which become their numbers; what is not known is NaN. Libraries of
the extra `ml` are imported when something is trained: definitions load without them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import lightgbm
    import numpy as np
    from sklearn.pipeline import Pipeline

LABEL = "left_late"

PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.8,
    "cat_smooth": 50,
    "verbosity": -1,
    # The same rows in the same order give the same trees, to the bit.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 1,
}
ROUNDS = 1_000
WITHOUT_PROGRESS = 30
"""Rounds without a better log loss of the validation rows after which training ends."""

WITHOUT_VALIDATION = 150
"""Rounds where there are no rows to validate by."""


def train(train: pl.DataFrame, validation: pl.DataFrame | None, parameters: Mapping[str, Any]) -> "lightgbm.Booster":
    """Boosted trees, as many as the validation rows ask for. `parameters` are LightGBM's, in the place of PARAMETERS;
    `rounds` are how many trees there may be."""
    import lightgbm

    given = {**PARAMETERS, **parameters}
    rounds = int(given.pop("rounds", ROUNDS if validation is not None else WITHOUT_VALIDATION))
    texts = [name for name, kind in train.schema.items() if kind == pl.Enum]
    rows = lightgbm.Dataset(
        matrix(train), label(train), feature_name=features(train), categorical_feature=texts, params={"verbosity": -1}
    )
    if validation is None:
        return lightgbm.train(given, rows, rounds)
    held_out = lightgbm.Dataset(matrix(validation), label(validation), reference=rows)
    enough = lightgbm.early_stopping(WITHOUT_PROGRESS, verbose=False)
    return lightgbm.train(given, rows, rounds, valid_sets=[held_out], callbacks=[enough])


def logistic_regression(
    train: pl.DataFrame,
    validation: pl.DataFrame | None,  # noqa: ARG001 - a function that trains is given it
    parameters: Mapping[str, Any],
) -> "Pipeline":
    """A logistic regression on the same features: texts one-hot, numbers scaled, an unknown number at its mean with a
    column that says so. `parameters` are scikit-learn's for the regression; nothing is chosen by validation rows."""
    return _regression(train, features(train), parameters)


def carrier_share(
    train: pl.DataFrame,
    validation: pl.DataFrame | None,  # noqa: ARG001 - a function that trains is given it
    parameters: Mapping[str, Any],
) -> "Pipeline":
    """The share of late departures of each carrier in the rows to train on: a regression on the carrier alone comes to
    just that."""
    return _regression(train, ["carrier"], {"C": 1e6, **parameters})


def features(rows: pl.DataFrame) -> list[str]:
    """The columns that a model is given, in their order: all but the label."""
    return [name for name in rows.columns if name != LABEL]


def matrix(rows: pl.DataFrame) -> "np.ndarray[Any, Any]":
    """The features as floats, a row each: texts as their numbers, what is not known as NaN."""
    numbers = [
        (pl.col(name).to_physical() if rows.schema[name] == pl.Enum else pl.col(name)).cast(pl.Float64)
        for name in features(rows)
    ]
    return rows.select(numbers).to_numpy(order="c")


def label(rows: pl.DataFrame) -> "np.ndarray[Any, Any]":
    """The label as 0 and 1."""
    return rows[LABEL].cast(pl.Int8).to_numpy()


def _regression(train: pl.DataFrame, used: list[str], parameters: Mapping[str, Any]) -> "Pipeline":
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    given = {**parameters}
    seed = given.pop("seed", 1)
    places = {name: place for place, name in enumerate(features(train)) if name in used}
    texts = [place for name, place in places.items() if train.schema[name] == pl.Enum]
    numbers = [place for place in places.values() if place not in texts]
    prepared = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        ]
    )
    regression = LogisticRegression(**{"max_iter": 1_000, "random_state": seed, **given})
    return make_pipeline(prepared, regression).fit(matrix(train), label(train))
