"""The whole year through the whole platform, reconciled to the package's own CSV: every flight is staged as it flew or
is in quarantine for its reason, the delays add up to the minute, and the ledger explains every row on the way."""

import zipfile
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
from polars.testing import assert_frame_equal

from data_platform.components.execution import errors
from nyc_flights.simulator import dirt, package, truth

pytestmark = [pytest.mark.year, pytest.mark.timeout(3000)]

LOOK_EVERY = 7
MODEL_EVERY = 28
"""Days. The platform looks at its sources once a week and builds its models every fourth, to save time."""

each_table = pytest.mark.parametrize(("source", "table"), TABLES, ids=["/".join(table) for table in TABLES])


@pytest.fixture(scope="module")
def year(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with platform(tmp_path_factory.mktemp("year"), home / "extensions", seed=2013) as one:
        for day in range(1, 366):
            one.play()
            if day % LOOK_EVERY == 0:
                one.follow(models=day % MODEL_EVERY == 0)
        one.run()
        yield one


@pytest.fixture(scope="module")
def csv() -> pl.DataFrame:
    """The flights as the package gives them, under the names of the staged table; `flight_id` made anew."""
    with zipfile.ZipFile(package.folder() / "flights.csv.zip") as archive:
        rows = pl.read_csv(archive.read("flights.csv"), null_values="NA", infer_schema_length=None)
    widths = {"month": 2, "day": 2, "sched_dep_time": 4}
    month, day, time = (pl.col(name).cast(pl.String).str.zfill(width) for name, width in widths.items())
    return rows.select(
        "carrier",
        "origin",
        flight_id=pl.concat_str("carrier", "flight", pl.lit("-"), "year", month, day, pl.lit("-"), time),
        destination="dest",
        month=pl.date("year", "month", 1),
        dep_delay_min=pl.col("dep_delay").cast(pl.Float64),
        arr_delay_min=pl.col("arr_delay").cast(pl.Float64),
        status=pl.when(pl.col("dep_delay").is_null()).then(pl.lit("cancelled"))
        .when(pl.col("arr_time").is_null()).then(pl.lit("departed"))
        .otherwise(pl.lit("landed")),
    )  # fmt: skip


def test_every_run_passed(year: Played) -> None:
    assert errors(year.outcomes) == {}
    assert {outcome.state for outcome in year.outcomes} == {"done"}


def test_every_kind_of_dirt_happened(year: Played) -> None:
    assert set(truth.read_truth(year.world.folder)["kind"]) == {one.kind for one in dirt.DIRT}


def test_every_flight_of_the_csv_is_staged_as_it_flew_or_in_quarantine(year: Played, csv: pl.DataFrame) -> None:
    assert csv.height == 336_776
    staged = year.query('SELECT * FROM staged_operations."flights"')
    listed = year.query(
        "SELECT DISTINCT record->>'flight_id' AS flight_id FROM quarantine_operations.flights WHERE status = 'open'"
    )
    final = staged.join(csv, on=csv.drop("month").columns, how="semi", nulls_equal=True)
    lost = csv.join(final, on="flight_id", how="anti")
    assert final.height + lost.height == 336_776
    assert lost.join(listed, on="flight_id", how="anti").is_empty()
    assert lost["flight_id"].sort().equals(truth.missing_keys(year.world, "flights").alias("flight_id"))
    assert 200 < lost.height < 1000


@pytest.mark.parametrize("delay", ["dep_delay_min", "arr_delay_min"])
def test_the_delays_of_each_carrier_add_up_to_the_minute(year: Played, csv: pl.DataFrame, delay: str) -> None:
    facts = year.query("SELECT * FROM modelled.fct_flight").filter(~is_missing(year.world, "flights"))
    lost = csv.filter(is_missing(year.world, "flights"))
    together = pl.concat([frame.select("carrier", delay) for frame in (facts, lost)])
    by_carrier = [f.group_by("carrier").agg(pl.len(), pl.col(delay).sum()).sort("carrier") for f in (together, csv)]
    assert by_carrier[0].equals(by_carrier[1])
    assert by_carrier[1].height == 16


@each_table
def test_a_staged_table_is_the_truth_to_the_row(year: Played, source: str, table: str) -> None:
    assert_staged(year, source, table)


@each_table
def test_quarantine_holds_what_was_spoiled_beyond_repair_and_nothing_else(
    year: Played, source: str, table: str
) -> None:
    assert_in_quarantine(year, source, table)


@each_table
def test_the_ledger_accounts_for_every_row(year: Played, source: str, table: str) -> None:
    assert_ledger(year, source, table)


def test_the_fact_is_the_staged_table(year: Played) -> None:
    staged = year.staged("operations", "flights").drop("_load_id", "_row", "_staged_at").sort("flight_id")
    fact = year.query("SELECT * FROM modelled.fct_flight").select(staged.columns).sort("flight_id")
    assert_frame_equal(fact, staged)


def test_punctuality_is_that_of_the_csv(year: Played, csv: pl.DataFrame) -> None:
    unsure = csv.filter(is_missing(year.world, "flights")).select(marts.GROUP).unique()
    mart = year.query("SELECT * FROM modelled.mart_punctuality").join(unsure, on=marts.GROUP, how="anti")
    meant = marts.punctuality(csv.join(unsure, on=marts.GROUP, how="anti"))
    marts.assert_same_figures(mart, meant, marts.GROUP)
    assert mart["flights"].sum() > 200_000


def test_weather_delays_are_those_of_the_staged_flights_in_the_weather_as_it_was(year: Played) -> None:
    weather = expected(year.world, "observations").filter(~is_missing(year.world, "observations"))
    meant = marts.weather_delay(year.staged("operations", "flights"), weather)
    by = ["wind_band", "visibility_band", "precipitation_band"]
    marts.assert_same_figures(year.query("SELECT * FROM modelled.mart_weather_delay"), meant, by)


def test_conversions_are_those_of_the_visits_and_bookings_as_they_were(year: Played) -> None:
    visits = expected(year.world, "visits").filter(~is_missing(year.world, "visits"))
    bookings = expected(year.world, "bookings").filter(~is_missing(year.world, "bookings"))
    mart = year.query("SELECT * FROM modelled.mart_campaign_conversion")
    marts.assert_same_figures(mart, marts.conversion(visits, bookings), ["month", "utm_source", "utm_campaign"])


def test_the_history_of_the_aircraft_knows_what_was_learnt_later(year: Played) -> None:
    history = year.query("SELECT * FROM modelled.dim_aircraft")
    assert history["is_current"].sum() == year.staged("operations", "aircraft").height
    learnt = history.sort("version").group_by("tail_number", maintain_order=True).agg("registered_year").filter(
        pl.col("registered_year").list.len() == 2
    )  # fmt: skip
    first, last = (learnt["registered_year"].list.get(position) for position in (0, 1))
    assert (first.is_null() & last.is_not_null()).sum() > 50


def test_nothing_private_is_anywhere_in_the_clear(year: Played) -> None:
    assert leaks(year) == {}


def test_a_full_refresh_of_the_facts_is_what_was_built_in_steps(year: Played) -> None:
    facts = {"fct_flight": "flight_id", "fct_web_visit": "request_id"}
    published = {model: year.query(f"SELECT * FROM modelled.{model}") for model in facts}
    assert errors(year.run("modelled", models={"full_refresh": True})) == {}
    for model, key in facts.items():
        assert_frame_equal(year.query(f"SELECT * FROM modelled.{model}").sort(key), published[model].sort(key))


def test_staged_tables_rebuilt_from_raw_are_what_was_staged_week_by_week(year: Played) -> None:
    before = content(year)
    assert errors(year.run("staged", config={"rebuild": True})) == {}
    after = content(year)
    for name, frame in before.items():
        assert_frame_equal(after[name], frame)
