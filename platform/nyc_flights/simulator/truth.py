"""What is true, for tests of the whole platform: which values were spoiled and how, and what each staged table should
hold once repaired. Read-only; nothing here looks at what the platform made of the data. What drifts (see drift) is no
dirt: what is expected has it as the source says it, from its day on.
"""

from pathlib import Path

import polars as pl

from nyc_flights.simulator import aircraft, bookings, dirt, flights, observations, reference, web
from nyc_flights.simulator.days import LAST_DAY
from nyc_flights.simulator.world import Clock, World, clock


def read_truth(folder: Path) -> pl.DataFrame:
    """Every spoiled value of the world in `folder`, as far as it was played, in the order of the days (dirt.TRUTH):

    `day` (on which it was written), `source`, `table`, `key` (the true key, text; of an observation: station, blank,
    instant), `file` and `line` (1-based, of files), `kind`, `column` (of the source; `record` for a whole line),
    `original` and `spoiled` (text), `expected` (repaired or quarantined), `failing_column` (of the staged table;
    empty for a record that cannot be read) and `rule` (see dirt.Dirt), `replaced_on` (day from which the source shows
    the spoiled value no longer; null: always) and `corrected_on` (day from which it shows a good version of the row;
    null: never).
    """
    days = sorted((folder / "truth").glob("*.parquet"))
    return pl.concat([pl.read_parquet(day) for day in days]) if days else pl.DataFrame(schema=dirt.TRUTH)


def visible_truth(world: World) -> pl.DataFrame:
    """The rows of `read_truth` whose spoiled values the sources show now: what a first load would meet."""
    now = clock(world)
    return read_truth(world.folder).filter(~_has_come("replaced_on", now))


def missing_keys(world: World, table: str) -> pl.Series:
    """The true keys (text) of rows of which the sources show no good version now: staged nowhere, if this is the
    first load; if there were earlier loads, an older good version of the row may be staged."""
    bad = visible_truth(world).filter(
        (pl.col("table") == table)
        & (pl.col("expected") == "quarantined")
        & ~pl.col("kind").is_in(["record_cut_off", "field_too_many"])  # the record itself stands elsewhere
        & ~_has_come("corrected_on", clock(world))
    )
    return bad["key"].unique().sort()


def _has_come(day: str, now: Clock) -> pl.Expr:
    """Whether the day in a column has come; all corrections of operations come with the end of the world."""
    ended = pl.lit(now.finished) & (pl.col("source") == dirt.OPERATIONS)
    return (pl.col(day).is_not_null() & ((pl.col(day) <= now.day) | ended)).fill_null(False)


def expected_flights(days: int = LAST_DAY) -> pl.DataFrame:
    """The flights scheduled on the first `days` days in their final state, straight from the package: the columns of
    the staged table but for `updated_at`. Holds for a finished world."""
    return flights.final().filter(pl.col("day") <= days).drop("number", "day")


def flights_now(world: World) -> pl.DataFrame:
    """The flights as the operations database would show them now without dirt: the columns of the staged table.

    Late updates included as they are: one flight in two hundred is not yet in its final state when its day closes.
    """
    now = clock(world)
    return flights.clean_on(world.seed, now.day, now.finished).drop("state")


def expected_aircraft(world: World) -> pl.DataFrame:
    """The aircraft seen so far, without dirt: the columns of the staged table."""
    now = clock(world)
    return aircraft.clean_on(world.seed, now.day, now.finished).select(
        "tail_number",
        "registered_year",
        "type",
        "manufacturer",
        "model",
        "engines",
        "seats",
        pl.col("speed").cast(pl.Float64).alias("speed_mph"),
        "engine",
    )


def expected_bookings(world: World) -> pl.DataFrame:
    """The bookings made so far, without dirt: the columns of the staged table, passengers not masked."""
    now = clock(world)
    rows = [bookings.clean(world.seed, day) for day in range(1, now.day + 1)]
    if not rows:
        rows = [bookings.clean(world.seed, 1).clear()]
    done = pl.lit(now.finished) | (pl.col("corrected_on") <= now.day)
    made = pl.concat(rows).with_columns(corrected_on=pl.when(done).then("corrected_on"))
    return bookings.corrected(made).select(
        "booking_id",
        "flight_id",
        "passenger_name",
        "passenger_email",
        "passenger_phone",
        pl.col("fare").cast(pl.Float64).alias("fare_usd"),
        pl.col("at").alias("booked_at"),
        "channel",
        "campaign",
        "updated_at",
    )


def expected_observations(world: World) -> pl.DataFrame:
    """The observations published so far, newest version of each, without dirt: the columns of the staged table.

    From day 305 on the wind at LGA is in metres per second, whatever its columns are called (drift.WIND_AT_LGA).
    """
    return (
        observations.published(world.seed)
        .filter(pl.col("published_at") <= clock(world).now)
        .unique(["station", "observed_at"], keep="last", maintain_order=True)
        .select("station", "observed_at", pl.col(*observations.FIELDS).cast(pl.Float64), "published_at")
    )


def expected_airports(world: World) -> pl.DataFrame:
    """The airports as the last delivery means them, without dirt: the columns of the staged table."""
    day = _last_delivery(world, "airports")
    return reference.airports_on(world.seed, day).select(
        pl.col("faa").alias("airport"),
        "name",
        pl.col("lat").cast(pl.Float64).alias("latitude"),
        pl.col("lon").cast(pl.Float64).alias("longitude"),
        pl.col("alt").cast(pl.Int64).alias("altitude_ft"),
        pl.col("tz").cast(pl.Float64).alias("utc_offset_h"),
        "dst",
        pl.col("tzone").alias("timezone"),
    )


def expected_airlines(world: World) -> pl.DataFrame:
    """The airlines as the last delivery means them, without dirt: `carrier`, `name`."""
    return reference.airlines_on(_last_delivery(world, "airlines"))


def _last_delivery(world: World, table: str) -> int:
    return max(day for day in reference.deliveries(world.seed, table) if day <= clock(world).day)


def expected_visits(world: World) -> pl.DataFrame:
    """The visits logged so far, without dirt: the columns of the staged table, addresses not masked."""
    days = [web.clean(world.seed, day) for day in range(1, clock(world).day + 1)]
    rows = pl.concat(days) if days else web.clean(world.seed, 1).clear()
    return rows.select(
        "request_id",
        pl.col("at").alias("visited_at"),
        "client_ip",
        "path",
        "origin_airport",
        "destination_airport",
        pl.col("q").alias("search_terms"),
        "utm_source",
        "utm_medium",
        "utm_campaign",
        "booking_id",
        "status",
        "device",
        "bytes",
    )
