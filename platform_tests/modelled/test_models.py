"""What dbt makes of the staged tables, against the same figures worked out in Polars."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from platform_tests.modelled.conftest import MODELS, statuses
from polars.testing import assert_frame_equal

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


def same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """The same rows, in any order; floating point sums may differ in the last digits."""
    assert_frame_equal(left, right, check_row_order=False, check_column_order=False, check_dtypes=False)


def band(*rules: tuple[pl.Expr, str]) -> pl.Expr:
    """The name of the first rule that holds."""
    return pl.coalesce(*(pl.when(rule).then(pl.lit(name)) for rule, name in rules), pl.lit("unknown"))


@pytest.fixture(params=["first", "changed", "restaged"])
def one(builds: Any, request: pytest.FixtureRequest) -> Any:
    """Each of the builds that succeeded."""
    return getattr(builds, request.param)


def test_every_build_succeeds_and_an_unknown_carrier_is_worth_a_warning_alone(one: Any) -> None:
    assert {model for model, result in one.results.items() if result.published} == set(MODELS)
    assert all(result.waits_for for model, result in one.results.items() if model not in MODELS)
    worth_a_look = [(v.check, v.fatal) for result in one.results.values() for v in result.violations]
    assert worth_a_look == [("dbt test relationships_fct_flight_carrier__carrier__ref_dim_airline_", False)]


def test_every_staged_flight_is_in_the_fact_as_it_is_now_and_no_other(one: Any) -> None:
    staged = one.staged["staged_operations.flights"]
    fact = one.built["fct_flight"]
    same(fact.select(set(staged.columns) & set(fact.columns)), staged.select(set(staged.columns) & set(fact.columns)))


def test_every_staged_visit_is_in_the_fact_as_it_is_now_and_no_other(one: Any) -> None:
    staged = one.staged["staged_web.visits"].rename({"bytes": "response_bytes"})
    fact = one.built["fct_web_visit"]
    same(fact.select(set(staged.columns) & set(fact.columns)), staged.select(set(staged.columns) & set(fact.columns)))


def test_punctuality_is_what_polars_counts(one: Any) -> None:
    flights = one.staged["staged_operations.flights"]
    airlines = one.staged["staged_reference.airlines"].select("carrier", airline_name="name")
    left = pl.col("status").is_in(["departed", "landed"])
    local = pl.col("scheduled_departure").dt.convert_time_zone("America/New_York").dt.date()
    expected = (
        flights.join(airlines, on="carrier", how="left")
        .with_columns(
            pl.col("airline_name").fill_null("unknown"),
            month=pl.when(pl.col("origin") == "XXX").then(pl.col("scheduled_departure").dt.date()).otherwise(local),
        )
        .with_columns(pl.col("month").dt.month_start())
        .group_by("carrier", "airline_name", "origin", "destination", "month")
        .agg(
            flights=pl.len(),
            cancelled=(pl.col("status") == "cancelled").sum(),
            departed=left.sum(),
            departed_on_time_share=(pl.col("dep_delay_min").filter(left) < 15).mean(),
            mean_dep_delay_min=pl.col("dep_delay_min").mean(),
            median_dep_delay_min=pl.col("dep_delay_min").median(),
            p90_dep_delay_min=pl.col("dep_delay_min").quantile(0.9, "linear"),
            mean_arr_delay_min=pl.col("arr_delay_min").mean(),
            median_arr_delay_min=pl.col("arr_delay_min").median(),
            p90_arr_delay_min=pl.col("arr_delay_min").quantile(0.9, "linear"),
        )
    )
    same(one.built["mart_punctuality"], expected)


def test_a_month_is_that_of_the_clock_at_the_origin(builds: Any) -> None:
    mart = builds.first.built["mart_punctuality"]
    assert mart.filter(pl.col("destination") == "YYY")["month"].to_list() == [date(2013, 1, 1)]
    assert mart.filter(pl.col("origin") == "XXX")["month"].to_list() == [date(2013, 2, 1)]


def test_a_time_zone_that_nobody_knows_becomes_null_and_breaks_nothing(builds: Any) -> None:
    airports = builds.first.built["dim_airport"]
    assert airports.filter(pl.col("airport") == "LAX")["timezone"].to_list() == [None]
    assert airports.filter(pl.col("airport") == "EWR")["timezone"].to_list() == ["America/New_York"]


def test_weather_delay_is_what_polars_counts(one: Any) -> None:
    flights = one.staged["staged_operations.flights"]
    weather = one.staged["staged_weather.observations"].select(
        "station", "observed_at", "wind_speed_mph", "visibility_mi", "precipitation_in"
    )
    wind, visibility, rain = pl.col("wind_speed_mph"), pl.col("visibility_mi"), pl.col("precipitation_in")
    joined = flights.with_columns(hour=pl.col("scheduled_departure").dt.truncate("1h")).join(
        weather, left_on=["origin", "hour"], right_on=["station", "observed_at"], how="left"
    )
    assert joined.height == flights.height
    expected = (
        joined.with_columns(
            wind_band=band(
                (wind >= 30, "30 mph and over"),
                (wind >= 20, "20 to 30 mph"),
                (wind >= 10, "10 to 20 mph"),
                (wind >= 0, "under 10 mph"),
            ),
            visibility_band=band(
                (visibility > 5, "over 5 mi"),
                (visibility >= 3, "3 to 5 mi"),
                (visibility >= 1, "1 to 3 mi"),
                (visibility >= 0, "under 1 mi"),
            ),
            precipitation_band=band(
                (rain > 0.3, "heavy"), (rain > 0.1, "moderate"), (rain > 0, "light"), (rain == 0, "none")
            ),
        )
        .group_by("wind_band", "visibility_band", "precipitation_band")
        .agg(
            flights=pl.len(),
            cancelled=(pl.col("status") == "cancelled").sum(),
            departed=pl.col("status").is_in(["departed", "landed"]).sum(),
            mean_dep_delay_min=pl.col("dep_delay_min").mean(),
            p90_dep_delay_min=pl.col("dep_delay_min").quantile(0.9, "linear"),
        )
    )
    mart = one.built["mart_weather_delay"]
    same(mart.select(expected.columns), expected)
    assert mart.filter(pl.col("wind_band") == "unknown")["flights"].sum() > 0


def test_conversion_is_what_polars_counts(one: Any) -> None:
    visits = (
        one.staged["staged_web.visits"]
        .filter(
            pl.col("status") < 400,
            pl.col("path") != "/assets/app.css",
            (pl.col("device") != "bot") | (pl.col("booking_id").is_not_null()),
        )
        .sort("visited_at", "request_id")
    )
    touches = visits.filter(pl.col("utm_source").is_not_null()).select(
        "client_ip", "visited_at", touch_source="utm_source", touch_campaign="utm_campaign"
    )
    confirmed = (
        visits.filter((pl.col("path") == "/booking/confirmed") & pl.col("booking_id").is_not_null())
        .unique("booking_id", keep="first", maintain_order=True)
        .join(one.staged["staged_operations.bookings"].select("booking_id", "fare_usd"), on="booking_id", how="left")
        .select("request_id", confirmed="booking_id", fare_usd="fare_usd")
    )
    assert confirmed["fare_usd"].null_count() > 0, "the data must hold a booking that is not known"
    expected = (
        visits.join_asof(touches, on="visited_at", by="client_ip", tolerance="24h", check_sortedness=False)
        .join(confirmed, on="request_id", how="left")
        .with_columns(
            month=pl.col("visited_at").dt.date().dt.month_start(),
            utm_source=pl.col("touch_source").fill_null("(none)"),
            utm_campaign=pl.col("touch_campaign").fill_null("(none)"),
        )
        .group_by("month", "utm_source", "utm_campaign")
        .agg(
            visits=pl.len(),
            searches=(pl.col("path") == "/search").sum(),
            confirmed_bookings=pl.col("confirmed").count(),
            unmatched_bookings=(pl.col("confirmed").is_not_null() & pl.col("fare_usd").is_null()).sum(),
            conversion_rate=pl.col("confirmed").count() / pl.len(),
            revenue_usd=pl.col("fare_usd").sum(),
        )
    )
    assert expected["confirmed_bookings"].sum() > 10
    same(one.built["mart_campaign_conversion"], expected)


def test_a_refitted_plane_gets_a_version_a_vanished_one_is_closed_and_the_others_stay(builds: Any) -> None:
    before = builds.first.built["dim_aircraft"]
    after = builds.changed.built["dim_aircraft"]
    refitted, gone = before["tail_number"].min(), before["tail_number"].max()
    staged_at = datetime(2026, 1, 2, tzinfo=UTC)
    versions = after.filter(pl.col("tail_number") == refitted).sort("version")
    assert versions["aircraft_key"].to_list() == [f"{refitted}:1", f"{refitted}:2"]
    assert versions["valid_from"].to_list() == [BEGINNING, staged_at]
    assert versions["valid_to"].to_list() == [staged_at, None]
    assert versions["is_current"].to_list() == [False, True]
    assert versions["seats"].to_list()[1] == versions["seats"].to_list()[0] + 7
    closed = after.filter(pl.col("tail_number") == gone)
    assert closed.select("version", "valid_to", "is_current").rows() == [(1, staged_at, False)]
    assert after.filter(pl.col("tail_number") == "N0NEW").select("version", "valid_from").rows() == [(1, BEGINNING)]
    others = ~pl.col("tail_number").is_in([refitted, gone, "N0NEW"])
    same(after.filter(others), before.filter(others))


def test_a_full_refresh_after_staging_everything_again_changes_no_figure_and_no_history(
    builds: Any,
) -> None:
    for model, table in builds.restaged.built.items():
        same(table.drop("_staging_id", strict=False), builds.changed.built[model].drop("_staging_id", strict=False))
    assert set(builds.restaged.built["fct_flight"]["_staging_id"]) == {3}


@pytest.mark.parametrize("fact", ["fct_flight", "fct_web_visit"])
def test_updates_inserts_and_deletes_of_one_build_appear_in_one_snapshot(builds: Any, fact: str) -> None:
    first, last = builds.changed.snapshots
    changes = builds.lake.query(f"select * from ducklake_table_changes('lake', 'modelled', '{fact}', {first}, {last})")
    assert changes["snapshot_id"].n_unique() == 1
    assert set(changes["change_type"]) == {"delete", "insert"}


def test_only_the_rows_that_changed_are_written(builds: Any) -> None:
    first, last = builds.changed.snapshots
    changes = builds.lake.query(
        f"select change_type from ducklake_table_changes('lake', 'modelled', 'fct_flight', {first}, {last})"
    )
    assert changes.height < 60 < builds.changed.built["fct_flight"].height


def test_a_key_that_is_there_twice_fails_the_build_and_leaves_every_model_as_it_was(builds: Any) -> None:
    results = builds.refused.results
    assert not any(result.published for result in results.values())
    (broken,) = [violation for violation in results["fct_flight"].violations if violation.fatal]
    assert (broken.check, broken.rows) == ("dbt test unique_fct_flight_flight_id", 1)
    for mart in ("mart_punctuality", "mart_weather_delay"):
        assert results[mart].verdict == "Not built: skipped: something that it needs failed"
    for model, table in builds.restaged.built.items():
        same(builds.refused.built[model], table)


def test_all_models_of_a_build_appear_in_one_snapshot(builds: Any) -> None:
    first, last = builds.changed.snapshots
    assert first == last


def test_a_model_is_read_as_it_was_at_an_earlier_version(builds: Any) -> None:
    _, version = builds.first.snapshots
    for model, table in builds.first.built.items():
        same(builds.lake.query(f"select * from modelled.{model} at (version => {version})"), table)


def test_dbt_in_a_terminal_builds_and_tests_everything_and_publishes_nothing(builds: Any) -> None:
    lake = builds.lake
    before = lake.query("select * from ducklake_current_snapshot('lake')").item()
    files = set(lake.root.rglob("*.parquet"))
    outcome = statuses(lake.dbt("build", "--exclude", "fct_flight+", "departure_features+"))
    assert set(outcome.values()) == {"success", "pass"}
    assert {"dim_airline", "fct_web_visit", "mart_campaign_conversion"} <= set(outcome)
    # What is not selected is read as it is published, without the key that is staged twice.
    outcome = statuses(lake.dbt("build", "--select", "mart_weather_delay"))
    assert outcome["mart_weather_delay"] == "success"
    assert lake.query("select * from ducklake_current_snapshot('lake')").item() == before
    assert set((lake.root / "lakehouse").rglob("*.parquet")) == {one for one in files if "lakehouse" in one.parts}
