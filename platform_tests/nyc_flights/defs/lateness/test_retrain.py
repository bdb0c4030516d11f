"""When the model of late departures is trained anew: the queries of `retrain.sql`, on rows made by hand."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from platform_tests.modelled import rendered

from nyc_flights.defs import lateness

FIRST, DRIFT, DECAY = duckdb.extract_statements((Path(lateness.__path__[0]) / "retrain.sql").read_text())
BEGIN = datetime(2013, 1, 1, 17, tzinfo=UTC)
LEARNED, NOW = 20, 28
"""The days that the version in production was trained and tested on, and those that are known by now."""


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with rendered.database() as connection:
        known(connection, NOW)
        put(connection, "datasets.departures", [{"scheduled_departure": BEGIN + timedelta(days=LEARNED - 1)}])
        models = [{"model": "lateness", "version": v, "metrics": json.dumps({"auc": 0.75})} for v in (1, 2)]
        put(connection, "platform.models", models)
        stages = [(1, "production", 1), (1, "retired", 2), (2, "candidate", 1), (2, "production", 2)]
        put(
            connection,
            "platform.model_stages",
            [{"model": "lateness", "version": v, "stage": stage, "since": at} for v, stage, at in stages],
        )
        yield connection


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    rendered.put(connection, table, pl.DataFrame(rows))


def known(connection: duckdb.DuckDBPyConnection, days: int) -> None:
    """So many days of flights of which it is known how they left, and one of which it is not."""
    put(
        connection,
        "modelled.departure_features",
        [
            {"scheduled_departure": BEGIN + timedelta(days=day), "left_late": None if day == days else False}
            for day in range(days + 1)
        ],
    )


def reasons(connection: duckdb.DuckDBPyConnection, statement: Any) -> list[str]:
    return [row[0] for row in connection.execute(statement.query).fetchall()]


def test_the_first_version_is_trained_once_enough_days_are_known(lake: Any) -> None:
    assert reasons(lake, FIRST) == []
    lake.execute("delete from platform.models")
    assert reasons(lake, FIRST) == ["there is no version yet"]
    known(lake, 6)
    assert reasons(lake, FIRST) == []
    lake.execute("delete from modelled.departure_features")
    assert reasons(lake, FIRST) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ["the wind at LGA is not what it was when it was trained"]),
        ({"airport": "all"}, []),
        ({"feature": "pressure_mb"}, []),
        ({"is_drifting": False}, []),
        ({"psi": 1.2}, []),
        ({"week": date(2013, 1, 7)}, []),
        ({"is_training": True}, []),
    ],
)
def test_it_is_trained_anew_for_wind_that_drifts_at_one_airport_in_the_latest_week(
    lake: Any, changes: dict[str, Any], found: list[str]
) -> None:
    latest = {"feature": "wind_against_others_mph", "airport": "LGA", "week": date(2013, 1, 21), "is_training": False}
    figures = {"psi": 3.3, "highest_in_training": 0.4}
    usual = latest | figures | {"airport": "EWR", "is_drifting": False}
    put(lake, "modelled.mart_feature_drift", [usual, latest | figures | {"is_drifting": True} | changes])
    assert reasons(lake, DRIFT) == found
    # It learned of these flights just now: what there is to learn of them it has.
    known(lake, LEARNED + 7)
    assert reasons(lake, DRIFT) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"auc": 0.66}, ["it ranks flights worse than when it was tested"]),
        ({"auc": None}, []),
        ({"mean_score": 0.3}, ["the share of late departures is not what it predicts"]),
        ({"auc": 0.66, "known": 285}, []),
        ({"auc": 0.66, "model_version": 1}, []),
    ],
)
def test_it_is_trained_anew_when_a_week_of_known_outcomes_is_worse_than_its_test(
    lake: Any, changes: dict[str, Any], found: list[str]
) -> None:
    good = {"model_version": 2, "channel": "batch", "known": 300, "auc": 0.72, "mean_score": 0.2, "late_share": 0.2}
    days = [good | {"day": BEGIN.date() + timedelta(days=day), "auc": 0.5} for day in range(NOW - 7)]
    days += [good | changes | {"day": BEGIN.date() + timedelta(days=day)} for day in range(NOW - 7, NOW)]
    # Those who asked it may have asked of other flights.
    days += [day | {"channel": "served", "auc": 0.5, "mean_score": 0.9} for day in days]
    # Nothing is known yet of the flights of tomorrow.
    days.append(good | {"day": BEGIN.date() + timedelta(days=NOW), "known": 0, "auc": None, "late_share": None})
    put(lake, "modelled.mart_model_by_day", days)
    assert reasons(lake, DECAY) == found
    known(lake, LEARNED + 7)
    assert reasons(lake, DECAY) == []
