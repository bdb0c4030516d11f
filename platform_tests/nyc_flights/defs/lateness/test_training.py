"""What the functions that train return, on the departures of January; how good they are in a year is measured by
`python -m platform_tests.nyc_flights.late_departure`."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pandera.errors import SchemaErrors
from platform_tests.modelled import rendered
from platform_tests.nyc_flights.late_departure import FEATURES, figures, predict, prepared

from data_platform.contracts.contract import contract_columns
from nyc_flights.defs import departures as dataset
from nyc_flights.defs.departures.contracts import LateDeparture
from nyc_flights.defs.lateness import training
from nyc_flights.simulator import flights, observations

SMALL = {"rounds": 40}


@pytest.fixture(scope="module")
def departures() -> pl.DataFrame:
    """The dataset as its query gives it, of 30 days."""
    weather = observations.published(7).unique(["station", "observed_at"], keep="last", maintain_order=True)
    weather = weather.select("station", "observed_at", pl.col(*observations.FIELDS).cast(pl.Float64), "published_at")
    query = Path(next(iter(dataset.__path__))) / "departures.sql"
    with rendered.database() as connection:
        known = rendered.departure_features(connection, flights.clean_on(7, 30, False).drop("state"), weather)
        rendered.put(connection, "modelled.departure_features", known)
        rows = connection.execute(query.read_text()).pl().sort("flight_id")
    assert 0 < rows.height < known.height
    return rows


@pytest.fixture(scope="module")
def splits(departures: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is given to train on, the first three weeks, and the rest."""
    early = departures["scheduled_departure"].dt.day() <= 21
    train = departures.filter(early)
    return prepared(train, train), prepared(departures.filter(~early), train)


def test_the_dataset_keeps_its_contract_and_has_no_unknown_outcome(departures: pl.DataFrame) -> None:
    LateDeparture.validate(departures, lazy=True)
    unknown = departures.head(1).with_columns(left_late=pl.lit(None, dtype=pl.Boolean))
    with pytest.raises(SchemaErrors, match="left_late"):
        LateDeparture.validate(unknown, lazy=True)


def test_the_features_are_all_columns_but_key_times_and_label() -> None:
    others = {"flight_id", "scheduled_departure", "predicted_at", training.LABEL}
    assert {column.name for column in contract_columns(LateDeparture)} - others == set(FEATURES)


def test_the_same_rows_give_the_same_trees_to_the_bit_and_another_seed_gives_others(splits: Any) -> None:
    train, rest = splits
    texts = [training.train(train, rest, {**SMALL, "seed": seed}).model_to_string() for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_trees_stop_when_validation_gets_no_better_and_without_one_after_a_given_number(splits: Any) -> None:
    train, rest = splits
    fast = {"learning_rate": 0.5, "num_leaves": 127, "min_data_in_leaf": 20}
    assert training.train(train, rest, fast).best_iteration < training.ROUNDS / 2
    assert training.train(train, None, SMALL).num_trees() == SMALL["rounds"]


def test_what_is_known_of_a_flight_says_more_than_its_carrier(splits: Any) -> None:
    train, rest = splits
    labels = training.label(rest)
    auc = {
        name: figures(labels, predict(fit(train, rest, {}), rest)).auc
        for name, fit in {
            "share": training.carrier_share,
            "regression": training.logistic_regression,
            "trees": training.train,
        }.items()
    }
    assert auc["share"] < auc["regression"] - 0.05
    assert auc["share"] < auc["trees"] - 0.05


def test_the_share_of_a_carrier_is_that_of_its_departures_and_that_of_an_unknown_one_between(splits: Any) -> None:
    train, rest = splits
    shares = dict(train.group_by(pl.col("carrier").cast(pl.String)).agg(pl.col("left_late").mean()).rows())
    busy = rest.filter(pl.col("carrier").is_in(["UA", "B6", "EV", "DL"]))
    model = training.carrier_share(train, None, {})
    meant = [shares[name] for name in busy["carrier"].cast(pl.String)]
    assert np.allclose(predict(model, busy), meant, atol=0.002)
    unknown = busy.with_columns(carrier=pl.lit(None, dtype=busy.schema["carrier"]))
    assert 0 < predict(model, unknown)[0] < 1


@pytest.mark.parametrize("fit", [training.train, training.logistic_regression, training.carrier_share])
def test_a_flight_of_which_nothing_is_known_has_a_probability_too(fit: Any, splits: Any) -> None:
    train, rest = splits
    parameters = SMALL if fit is training.train else {}
    nothing = rest.head(1).with_columns(pl.lit(None).cast(kind).alias(name) for name, kind in rest.schema.items())
    (probability,) = predict(fit(train, rest, parameters), nothing)
    assert 0 < probability < 1


def test_a_parameter_that_no_library_knows_is_an_error(splits: Any) -> None:
    with pytest.raises(TypeError, match="shape"):
        training.logistic_regression(splits[0], None, {"shape": "round"})
