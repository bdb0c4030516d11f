"""The staging of the weather service repairs what can be repaired, and its contract refuses exactly the rest."""

import json

import polars as pl
import pytest
from platform_tests.nyc_flights.auditing import Staged, assert_quarantined, assert_repaired, happened, stage

from nyc_flights.defs.weather import contracts, staging
from nyc_flights.simulator import dirt, observations, truth
from nyc_flights.simulator.world import World, clock

KEY = ["station", "observed_at"]


def raw(world: World) -> pl.DataFrame:
    """What the service sends, as the platform lands it: every scalar as text."""
    sent = observations.records(world.seed).filter(pl.col("published_at") <= clock(world).now)
    rows = [json.loads(record, parse_float=str, parse_int=str) for record in sent["json"]]
    return pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))


def keyed(bad: pl.DataFrame) -> pl.DataFrame:
    """With the true key: an unknown station is told by nothing but the instant, so it is taken from the truth."""
    return bad.with_columns(key=pl.concat_str("station", "observed_at", separator=" "))


@pytest.fixture(scope="session")
def staged(world: World) -> Staged:
    return stage(raw(world), staging.observations, contracts.Observation, KEY)


def test_every_kind_of_dirt_happens_within_the_year() -> None:
    year = pl.concat([observations.truth(7, day) for day in range(366)])
    assert happened(year, "observations") == {d.kind for d in dirt.DIRT if d.table == "observations"}


def test_observations_are_refused_for_exactly_what_was_spoiled_beyond_repair(world: World, staged: Staged) -> None:
    due = truth.visible_truth(world).filter(table="observations", expected="quarantined")
    elsewhere = due.filter(kind="station_unknown").select("key", spoiled=pl.lit("XXX") + pl.col("key").str.slice(3))
    names = dict(elsewhere.select("spoiled", "key").rows())
    assert_quarantined(keyed(staged.bad).with_columns(pl.col("key").replace(names)), due)


def test_all_other_observations_are_repaired_to_what_was_measured(world: World, staged: Staged) -> None:
    missing = truth.missing_keys(world, "observations")
    instant = pl.col("observed_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    key = pl.concat_str("station", instant, separator=" ")
    expected = truth.expected_observations(world).filter(~key.is_in(missing.implode()))
    assert_repaired(staged.good, expected, KEY)


def test_the_whole_year_is_repaired_too_and_the_package_s_own_gale_refused() -> None:
    sent = observations.records(7)["json"]
    rows = [json.loads(record, parse_float=str, parse_int=str) for record in sent]
    year = pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))
    staged = stage(year, staging.observations, contracts.Observation, KEY)
    assert staged.bad.filter(column="wind_speed_mph")["value"].to_list() == ["1048.36058"]
    told = pl.concat([observations.truth(7, day) for day in range(366)]).filter(expected="quarantined")
    assert staged.bad.height == told.height


def test_typed_numbers_are_staged_like_text(world: World, staged: Staged) -> None:
    clean = raw(world).filter(~pl.any_horizontal(pl.col(staging.MEASURED).str.contains("[M,]")))
    typed = clean.with_columns(pl.col(staging.MEASURED).cast(pl.Float64))
    assert_repaired(
        stage(typed, staging.observations, contracts.Observation, KEY).good,
        stage(clean, staging.observations, contracts.Observation, KEY).good,
        KEY,
    )
