"""The figures of the marts, worked out in Polars from flights, weather and visits as they really were. The models'
own SQL is not looked at: this is the second opinion."""

from datetime import timedelta

import polars as pl
from polars.testing import assert_frame_equal

GROUP = ["carrier", "origin", "destination", "month"]
ON_TIME_WITHIN_MIN = 15
WINDOW = timedelta(hours=24)
"""A visit belongs to the campaign by which the client last came within this time."""


def months(flights: pl.DataFrame) -> pl.DataFrame:
    """Flights with the month in which they were to leave, as New York counts."""
    local = pl.col("scheduled_departure").dt.convert_time_zone("America/New_York")
    return flights.with_columns(month=local.dt.date().dt.truncate("1mo"))


def _delays(column: str) -> list[pl.Expr]:
    delay = pl.col(column)
    return [
        delay.mean().alias(f"mean_{column}"),
        delay.median().alias(f"median_{column}"),
        delay.quantile(0.9, "linear").alias(f"p90_{column}"),
    ]


def departures(flights: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """What every mart says of groups of flights."""
    gone = pl.col("status").is_in(["departed", "landed"])
    return flights.group_by(by).agg(
        pl.len().cast(pl.Int64).alias("flights"),
        (pl.col("status") == "cancelled").sum().cast(pl.Int64).alias("cancelled"),
        gone.sum().cast(pl.Int64).alias("departed"),
        (pl.col("dep_delay_min") < ON_TIME_WITHIN_MIN).filter(gone).mean().alias("departed_on_time_share"),
        *_delays("dep_delay_min"),
    )


def punctuality(flights: pl.DataFrame) -> pl.DataFrame:
    """mart_punctuality without the airlines' names, from flights with their `month`."""
    arrivals = flights.group_by(GROUP).agg(*_delays("arr_delay_min"))
    return departures(flights, GROUP).join(arrivals, on=GROUP, nulls_equal=True)


def weather_delay(flights: pl.DataFrame, observations: pl.DataFrame) -> pl.DataFrame:
    """mart_weather_delay."""
    wind, sight, rain = pl.col("wind_speed_mph"), pl.col("visibility_mi"), pl.col("precipitation_in")
    both = flights.with_columns(observed_at=pl.col("scheduled_departure").dt.truncate("1h")).join(
        observations, left_on=["origin", "observed_at"], right_on=["station", "observed_at"], how="left", validate="m:1"
    )
    banded = both.with_columns(
        wind_band=_banded(wind, [(wind < 10, "under 10 mph"), (wind < 20, "10 to 20 mph"), (wind < 30, "20 to 30 mph")],
                          "30 mph and over"),
        visibility_band=_banded(sight, [(sight < 1, "under 1 mi"), (sight < 3, "1 to 3 mi"), (sight <= 5, "3 to 5 mi")],
                                "over 5 mi"),
        precipitation_band=_banded(rain, [(rain == 0, "none"), (rain <= 0.1, "light"), (rain <= 0.3, "moderate")],
                                   "heavy"),
    )  # fmt: skip
    return departures(banded, ["wind_band", "visibility_band", "precipitation_band"])


def _banded(value: pl.Expr, bands: list[tuple[pl.Expr, str]], beyond: str) -> pl.Expr:
    names = [pl.when(condition).then(pl.lit(name)) for condition, name in [(value.is_null(), "unknown"), *bands]]
    return pl.coalesce(*names, pl.lit(beyond))


def conversion(visits: pl.DataFrame, bookings: pl.DataFrame) -> pl.DataFrame:
    """mart_campaign_conversion, from staged visits and bookings as they are meant."""
    confirms = (pl.col("path") == "/booking/confirmed") & pl.col("booking_id").is_not_null()
    shown = (pl.col("status") < 400) & ~pl.col("path").str.starts_with("/assets/")
    people = visits.with_columns(is_confirmation=confirms).filter(
        shown & (pl.col("is_confirmation") | (pl.col("device") != "bot"))
    )
    touches = (
        people.filter(pl.col("utm_source").is_not_null() | pl.col("utm_campaign").is_not_null())
        .sort("visited_at", "request_id")
        .unique(["client_ip", "visited_at"], keep="last", maintain_order=True)
        .select("client_ip", "visited_at", touched_at="visited_at", source="utm_source", campaign="utm_campaign")
    )
    within = pl.col("touched_at") >= pl.col("visited_at") - WINDOW
    attributed = people.sort("visited_at", "request_id").join_asof(
        touches.sort("visited_at"), on="visited_at", by="client_ip", strategy="backward", check_sortedness=False
    )
    first = (
        people.filter("is_confirmation")
        .sort("visited_at", "request_id")
        .unique("booking_id", keep="first", maintain_order=True)
        .select("request_id", confirmed="booking_id")
        .join(bookings.select("fare_usd", confirmed="booking_id"), on="confirmed", how="left", validate="1:1")
    )
    return (
        attributed.join(first, on="request_id", how="left", validate="1:1")
        .group_by(
            month=pl.col("visited_at").dt.date().dt.truncate("1mo"),
            utm_source=pl.when(within).then("source").fill_null("(none)"),
            utm_campaign=pl.when(within).then("campaign").fill_null("(none)"),
        )
        .agg(
            visits=pl.len().cast(pl.Int64),
            searches=(pl.col("path") == "/search").sum().cast(pl.Int64),
            confirmed_bookings=pl.col("confirmed").count().cast(pl.Int64),
            unmatched_bookings=(pl.col("confirmed").is_not_null() & pl.col("fare_usd").is_null()).sum().cast(pl.Int64),
            revenue_usd=pl.col("fare_usd").sum(),
        )
        .with_columns(conversion_rate=pl.col("confirmed_bookings") / pl.col("visits"))
    )


def assert_same_figures(mart: pl.DataFrame, meant: pl.DataFrame, by: list[str]) -> None:
    """The same groups, counts to the unit, shares and means to the last digits, which depend on the order of sums."""
    assert mart.height > 0
    assert_frame_equal(mart.select(meant.columns).sort(by), meant.sort(by), rel_tol=1e-11, abs_tol=1e-9)
