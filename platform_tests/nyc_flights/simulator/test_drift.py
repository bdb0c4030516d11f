"""The wind at LaGuardia is in another unit from one day on: the same on each replay, nothing before, nothing else."""

import json

import polars as pl
from polars.testing import assert_frame_equal

from nyc_flights.simulator import observations
from nyc_flights.simulator.days import day_of
from nyc_flights.simulator.drift import WIND_AT_LGA

BOTH = observations.published(7), observations.published(7, drifting=False)
KEY = ["station", "observed_at", "version"]


def test_nothing_differs_before_the_day_and_at_other_stations() -> None:
    steady = (day_of(pl.col("observed_at")) < WIND_AT_LGA.day) | (pl.col("station") != "LGA")
    drifting, as_before = (rows.filter(steady) for rows in BOTH)
    assert_frame_equal(drifting, as_before)
    assert drifting.filter(pl.col("station") == "LGA").height > 7_000


def test_from_the_day_on_wind_and_gusts_are_in_metres_per_second_and_nothing_else_differs() -> None:
    replaced = (day_of(pl.col("observed_at")) >= WIND_AT_LGA.day) & (pl.col("station") == "LGA")
    drifting, as_before = (rows.filter(replaced) for rows in BOTH)
    assert drifting.height > 1_400
    assert_frame_equal(drifting.drop(WIND_AT_LGA.columns), as_before.drop(WIND_AT_LGA.columns))
    for column in WIND_AT_LGA.columns:
        metres, miles = drifting[column].cast(pl.Float64), as_before[column].cast(pl.Float64)
        assert metres.null_count() == miles.null_count() < drifting.height
        assert ((metres - miles * 0.44704).abs().drop_nulls() <= 0.005 + 1e-9).all()


def test_the_service_sends_it_and_no_dirt_is_recorded_for_it() -> None:
    sent = [json.loads(record) for record in observations.records(7).tail(200)["json"]]
    winds = {row["wind_speed_mph"] for row in sent if row["station"] == "LGA"}
    published = BOTH[0].tail(400).filter(pl.col("station") == "LGA")["wind_speed_mph"].cast(pl.Float64)
    assert winds <= set(published)
    spoiled = pl.concat([observations.truth(7, day) for day in range(WIND_AT_LGA.day, 366)])
    assert spoiled.height > 300
    assert "wind_speed_mph" not in set(spoiled["column"])
