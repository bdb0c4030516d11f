"""A few days of the whole platform: what the sources meant is what the staged tables and the marts say, to the row."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from platform_tests.nyc_flights import marts
from platform_tests.nyc_flights.leaks import leaks
from platform_tests.nyc_flights.playing import TABLES, Played, platform
from platform_tests.nyc_flights.reconciling import (
    assert_in_quarantine,
    assert_ledger,
    assert_staged,
    content,
    expected,
    is_missing,
)
from platform_tests.servers import Postgres, fresh_database
from polars.testing import assert_frame_equal

from data_platform.components.execution import errors
from data_platform.lakehouse.connect import open_lakehouse
from nyc_flights.demo_loads import follow_sensor, sensor_called, sensors
from nyc_flights.demo_report import model_of
from nyc_flights.simulator import truth
from nyc_flights.simulator.world import finish

MODELS = [
    "dim_airline",
    "dim_airport",
    "dim_aircraft",
    "fct_flight",
    "fct_web_visit",
    "departure_features",
    "mart_punctuality",
    "mart_weather_delay",
    "mart_campaign_conversion",
]
each_table = pytest.mark.parametrize(("source", "table"), TABLES, ids=["/".join(table) for table in TABLES])


@pytest.fixture(scope="module")
def played(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Five days, looked at after the first and the fifth; the sixth day's flights are published."""
    with platform(tmp_path_factory.mktemp("platform"), home / "extensions") as one:
        for days in (1, 4):
            one.play(days)
            one.follow()
        yield one


def test_the_sensors_ask_for_everything_and_every_run_passes(played: Played) -> None:
    assert errors(played.outcomes) == {}
    assert {outcome.state for outcome in played.outcomes} == {"done"}
    assert all(outcome.check_passed for outcome in played.outcomes)
    layers = {outcome.key.path[0] for outcome in played.outcomes}
    assert layers == {"raw", "staged", "modelled"}
    assert {outcome.name for outcome in played.outcomes} == {
        *(f"{layer}/{source}/{table}" for layer in ("raw", "staged") for source, table in TABLES),
        # Nobody has asked a model yet, and there is none before the sixth day.
        *("raw/predictions/lateness", "staged/predictions/lateness"),
        *(f"modelled/{model}" for model in MODELS),
    }


def test_what_is_learned_and_scored_comes_after_the_models_and_waits_for_days_enough(played: Played) -> None:
    order = [sensor.name for sensor in sensors(played.definitions)]
    assert order[-3:] == ["modelled_sensor", "retrain_lateness_sensor", "score_late_departure_sensor"]
    assert follow_sensor(sensor_called(order[-2], played.definitions), played.definitions, played.instance, print) == []
    with open_lakehouse(played.settings, read_only=True) as lake:
        assert model_of(lake) == {}


def test_enough_was_spoiled_for_the_rest_to_mean_something(played: Played) -> None:
    kinds = truth.read_truth(played.world.folder).group_by("expected").agg(pl.struct("table", "kind").n_unique())
    happened = dict(kinds.iter_rows())
    assert happened["repaired"] > 25
    assert happened["quarantined"] > 15


@each_table
def test_a_staged_table_is_the_truth_to_the_row(played: Played, source: str, table: str) -> None:
    assert_staged(played, source, table)


@each_table
def test_quarantine_holds_what_was_spoiled_beyond_repair_and_nothing_else(
    played: Played, source: str, table: str
) -> None:
    assert_in_quarantine(played, source, table)


@each_table
def test_the_ledger_accounts_for_every_row(played: Played, source: str, table: str) -> None:
    assert_ledger(played, source, table)


def test_nothing_private_is_anywhere_in_the_clear(played: Played) -> None:
    assert leaks(played) == {}


def test_punctuality_is_that_of_the_flights_as_they_flew(played: Played) -> None:
    flights = marts.months(expected(played.world, "flights"))
    unsure = flights.filter(is_missing(played.world, "flights")).select(marts.GROUP).unique()
    assert 0 < unsure.height < 50
    mart = played.query("SELECT * FROM modelled.mart_punctuality").join(unsure, on=marts.GROUP, how="anti")
    meant = marts.punctuality(flights.join(unsure, on=marts.GROUP, how="anti"))
    marts.assert_same_figures(mart, meant, marts.GROUP)


def test_weather_delays_are_those_of_the_staged_flights_in_the_weather_as_it_was(played: Played) -> None:
    weather = expected(played.world, "observations").filter(~is_missing(played.world, "observations"))
    meant = marts.weather_delay(played.staged("operations", "flights"), weather)
    by = ["wind_band", "visibility_band", "precipitation_band"]
    marts.assert_same_figures(played.query("SELECT * FROM modelled.mart_weather_delay"), meant, by)


def test_conversions_are_those_of_the_visits_and_bookings_as_they_were(played: Played) -> None:
    visits = expected(played.world, "visits").filter(~is_missing(played.world, "visits"))
    bookings = expected(played.world, "bookings").filter(~is_missing(played.world, "bookings"))
    mart = played.query("SELECT * FROM modelled.mart_campaign_conversion")
    marts.assert_same_figures(mart, marts.conversion(visits, bookings), ["month", "utm_source", "utm_campaign"])
    assert mart["confirmed_bookings"].sum() > 500
    assert mart["unmatched_bookings"].sum() > 0


def test_dimensions_are_the_staged_tables_as_they_are_now(played: Played) -> None:
    aircraft = played.staged("operations", "aircraft").drop(pl.selectors.starts_with("_")).sort("tail_number")
    now = played.query("SELECT * FROM modelled.dim_aircraft WHERE is_current").select(aircraft.columns)
    assert_frame_equal(now.sort("tail_number"), aircraft)
    airports = played.staged("reference", "airports")["airport"].sort()
    assert played.query("SELECT airport FROM modelled.dim_airport")["airport"].sort().equals(airports)


def test_a_full_refresh_of_the_models_is_what_was_built_day_by_day(played: Played) -> None:
    published = {model: played.query(f"SELECT * FROM modelled.{model}") for model in MODELS}
    assert errors(played.run("modelled", models={"full_refresh": True})) == {}
    for model, before in published.items():
        order = before.select(~pl.selectors.float()).columns
        rebuilt = played.query(f"SELECT * FROM modelled.{model}")
        assert_frame_equal(rebuilt.sort(order), before.sort(order), rel_tol=1e-11)


def test_nothing_is_asked_for_when_nothing_moved(played: Played) -> None:
    assert played.follow() == []


def test_staged_tables_rebuilt_from_raw_are_what_was_staged_day_by_day(played: Played) -> None:
    before = content(played)
    assert errors(played.run("staged", config={"rebuild": True})) == {}
    after = content(played)
    for name, frame in before.items():
        assert_frame_equal(after[name], frame)
    for source, table in TABLES:
        assert_in_quarantine(played, source, table)


@pytest.mark.year
def test_on_postgresql_it_is_the_same(home: Path, tmp_path: Path, postgres: Postgres) -> None:
    with (
        fresh_database(postgres) as operations,
        fresh_database(postgres) as catalog,
        platform(tmp_path, home / "extensions", operations=operations, catalog=catalog) as one,
    ):
        one.play(1)
        one.follow()
        one.play(2)
        finish(one.world)
        one.follow()
        assert errors(one.outcomes) == {}
        for source, table in TABLES:
            assert_staged(one, source, table)
            assert_in_quarantine(one, source, table)
            assert_ledger(one, source, table)
        assert leaks(one, [catalog]) == {}
        flights = one.staged("operations", "flights")
        final = truth.expected_flights(3).filter(~is_missing(one.world, "flights"))
        assert flights.join(final, on=final.columns, how="semi", nulls_equal=True).height == final.height > 2500
