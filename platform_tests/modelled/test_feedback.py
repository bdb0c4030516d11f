"""The models that follow predictions, which are off until there are some; and drift told apart from what is usual."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from platform_tests.modelled import rendered
from platform_tests.modelled.conftest import statuses

SCIENCE = Path(__file__).resolve().parents[2] / "dbt_project" / "models" / "science"
MODELS = {path.stem for path in SCIENCE.glob("*.sql")}
DOCUMENTED = {model["name"]: model for model in yaml.safe_load((SCIENCE / "science.yml").read_text())["models"]}
MONDAY = datetime(2013, 1, 7, 17, tzinfo=UTC)
WEEKS, TRAINED = 12, 8
NUMBERS = {"departure_hour": 12, "departures_in_hour": 3, "distance_mi": 500.0, "observation_age_min": 30.0}
SEVERAL = [
    *("temperature_f", "humidity_pct", "wind_speed_mph", "precipitation_in", "pressure_mb", "visibility_mi"),
    *("aircraft_gap_min", "previous_leg_delay_min", "previous_leg_overdue_min"),
    *("origin_late_share_3h", "carrier_late_share_6h", "carrier_late_share_7d", "route_late_share_28d"),
]


def test_they_are_left_out_until_there_are_predictions_and_a_dataset(builds: Any) -> None:
    left = {name: one.waits_for for name, one in builds.first.results.items() if one.waits_for}
    assert set(left) == MODELS
    assert left["mart_feature_drift"] == ["datasets.departures"]
    assert left["mart_model_by_day"] == ["predictions/lateness", "scores.late_departure"]


def test_they_are_built_and_tested_on_what_was_predicted(builds: Any) -> None:
    lake = builds.lake
    lake.execute(
        "create schema scores",
        """create table scores.late_departure as select flight_id, 0.25 as score, 'late_departure' as model,
            1::bigint as model_version, timestamptz '2026-01-01 00:00:00+00' as scored_at
            from modelled.departure_features where left_late is not null""",
        "create schema datasets",
        "create table datasets.departures as select *, 'train' as split from modelled.departure_features",
        "create schema staged_predictions",
        """create table staged_predictions.lateness as select 'a' as prediction_id, 1::bigint as model_version,
            timestamptz '2026-01-01 00:00:00+00' as predicted_at, 0.5 as score,
            json_object('flight_id', min(flight_id))::varchar as inputs from modelled.departure_features""",
    )
    outcome = lake.dbt("build", "--select", "path:models/science")
    found = statuses(outcome)
    assert set(found.values()) == {"success", "pass"}
    assert set(found) >= MODELS
    assert sum(result.node.resource_type == "unit_test" for result in outcome.result) == 3


Drift = Callable[[Callable[[dict[str, Any]], dict[str, Any]]], pl.DataFrame]


@pytest.fixture(scope="module")
def drift() -> Iterator[Drift]:
    """What mart_feature_drift says of twelve weeks, the model being trained on eight, if each flight is changed so."""
    rows = [
        {
            "flight_id": f"{airport}-{day}-{number}",
            "origin": airport,
            "scheduled_departure": MONDAY + timedelta(days=day),
            "predicted_at": MONDAY + timedelta(days=day, hours=-3),
            **NUMBERS,
            # Every week the same 42 values, whose mean differs by day as weather does.
            **dict.fromkeys(SEVERAL, float(7 * number + day % 7)),
        }
        for airport in ("EWR", "JFK", "LGA")
        for day in range(7 * WEEKS)
        for number in range(6)
    ]
    last = MONDAY + timedelta(days=7 * TRAINED - 1)
    trained = [{"scheduled_departure": at, "split": "train"} for at in (MONDAY, last)]
    query = rendered.rendered("mart_feature_drift")
    with rendered.database() as connection:
        rendered.put(connection, "datasets.departures", pl.DataFrame(trained))

        def found(change: Callable[[dict[str, Any]], dict[str, Any]]) -> pl.DataFrame:
            changed = pl.DataFrame([row | change(row) for row in rows], infer_schema_length=None)
            rendered.put(connection, "modelled.departure_features", changed)
            return connection.execute(query).pl()

        yield found


def since(week: int, **values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Change the flights of LGA from a week on, counted from 0."""
    first = MONDAY + timedelta(weeks=week)
    return lambda row: values if row["origin"] == "LGA" and row["scheduled_departure"] >= first else {}


def drifting(found: pl.DataFrame) -> set[tuple[str, str, int]]:
    """Feature, airport and week of what is said to drift."""
    weeks = ((pl.col("week") - MONDAY.date()).dt.total_days() // 7).alias("week")
    return set(found.filter("is_drifting").select("feature", "airport", weeks).rows())


def test_weeks_like_those_of_the_training_do_not_drift_and_those_count_as_such(drift: Drift) -> None:
    found = drift(lambda row: {})
    assert drifting(found) == set()
    assert found["psi"].abs().max() < 1e-9  # type: ignore[operator]
    assert found.filter(feature="pressure_mb", airport="all")["flights"].to_list() == [126] * WEEKS
    assert found.filter("is_training")["week"].n_unique() == TRAINED


def test_values_that_became_others_drift_from_their_week_on_where_they_did_and_nothing_else(drift: Drift) -> None:
    found = drifting(drift(since(9, humidity_pct=3.0)))
    assert found == {("humidity_pct", airport, week) for airport in ("LGA", "all") for week in (9, 10, 11)}


def test_values_that_are_missing_drift_too(drift: Drift) -> None:
    found = drifting(drift(since(10, visibility_mi=None)))
    assert found == {("visibility_mi", airport, week) for airport in ("LGA", "all") for week in (10, 11)}


def test_what_the_training_has_seen_is_usual(drift: Drift) -> None:
    def stormy(row: dict[str, Any]) -> dict[str, Any]:
        week = (row["scheduled_departure"] - MONDAY) // timedelta(weeks=1)
        is_low = week == 4 or (week == 9 and row["flight_id"].endswith(("-0", "-1", "-2", "-3")))
        return {"pressure_mb": 3.0} if is_low and row["origin"] == "LGA" else {}

    assert drifting(drift(stormy)) == set()


def test_wind_that_everybody_has_is_no_drift_beside_the_others(drift: Drift) -> None:
    last = MONDAY + timedelta(weeks=11)

    def storm(row: dict[str, Any]) -> dict[str, Any]:
        return {"wind_speed_mph": row["wind_speed_mph"] + 40} if row["scheduled_departure"] >= last else {}

    found = drifting(drift(storm))
    assert found == {("wind_speed_mph", airport, 11) for airport in ("EWR", "JFK", "LGA", "all")}


def test_a_week_that_is_not_over_is_not_judged(drift: Drift) -> None:
    sunday = MONDAY + timedelta(weeks=WEEKS, days=-1)
    found = drift(lambda row: {"scheduled_departure": MONDAY} if row["scheduled_departure"] == sunday else {})
    assert found["week"].n_unique() == WEEKS - 1


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_model_has_the_columns_that_are_documented(model: str, drift: Drift) -> None:
    flights = {"carrier": "UA", "is_departed": True, "is_cancelled": False, "dep_delay_min": 0.0}
    score = {"flight_id": "a", "score": 0.5, "model_version": 1, "scored_at": MONDAY}
    flight = {"flight_id": "a", "origin": "EWR", "scheduled_departure": MONDAY, "predicted_at": MONDAY}
    with rendered.database() as connection:
        rendered.put(connection, "scores.late_departure", pl.DataFrame([score]))
        served = {"inputs": '{"flight_id": "a"}', "score": 0.5, "model_version": 1, "predicted_at": MONDAY}
        rendered.put(connection, "staged_predictions.lateness", pl.DataFrame([served]))
        rendered.put(connection, "modelled.fct_flight", pl.DataFrame([flight | flights]))
        features = NUMBERS | dict.fromkeys(SEVERAL, 1.0)
        rendered.put(connection, "modelled.departure_features", pl.DataFrame([flight | features]))
        rendered.put(connection, "datasets.departures", pl.DataFrame([flight | {"split": "train"}]))
        connection.execute(f"create table modelled.fct_prediction as {rendered.rendered('fct_prediction')}")
        described = connection.execute(f"describe {rendered.rendered(model)}").fetchall()
    assert [(name, kind.lower()) for name, kind, *_ in described] == [
        (column["name"], column["data_type"]) for column in DOCUMENTED[model]["columns"]
    ]
