"""How each real flight becomes rows of the operations database: its course in time, and its dirt.

Pure functions of the seed and the day. Writing is `operations`, the facts are `package`.

A flight is published on the eve at 16:00 UTC or a little later, updated at departure and at landing, or cancelled.
The database is polled by its users at best once a day here, so a day's write holds only the last state reached.
An update carries the instant at which it was made (full five minutes: several rows share one) in `updated_at`, but
one in fifty reaches the table up to six hours later, and out of order: a reader needs an overlap of six hours.
"""

from datetime import timedelta
from functools import cache

import polars as pl

from nyc_flights.simulator import dirt, draws, package
from nyc_flights.simulator.days import FIRST_DAY, day_of

LATE = 0.02
LATEST = timedelta(hours=6)
"""How long after its `updated_at` an update may reach the table."""

NEW_YORK = ["EWR", "JFK", "LGA"]

STATUS_VARIANTS = {
    "landed": ["Landed", "LANDED ", "landd", "lnaded", "arrived"],
    "cancelled": ["Cancelled", "CANCELLED", "canceled", "cancled", "cnx"],
    "departed": ["Departed", "DEPARTED ", "deprated", "airborne", "off"],
}
TAIL_NUMBER_PLACEHOLDERS = ["", "N/A", "-", "UNKNOWN", "none"]

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "flight_id": pl.String,
    "carrier": pl.String,
    "flight_number": pl.Int64,
    "tail_number": pl.String,
    "origin": pl.String,
    "destination": pl.String,
    "scheduled_departure": pl.Datetime("us", "UTC"),
    "departure": pl.Datetime("us", "UTC"),
    "dep_delay_min": pl.Float64,
    "arr_delay_min": pl.Float64,
    "air_time_min": pl.Float64,
    "distance_mi": pl.Float64,
    "status": pl.String,
    "updated_at": pl.Datetime("us", "UTC"),
}


def _zero_padded(column: str, width: int) -> pl.Expr:
    return pl.col(column).cast(pl.String).str.zfill(width)


def _poll(instant: pl.Expr) -> pl.Expr:
    """Up to the next full five minutes."""
    return (instant + pl.duration(minutes=5, microseconds=-1)).dt.truncate("5m")


@cache
def final() -> pl.DataFrame:
    """Every flight of the package in its final state: `number`, `day` and COLUMNS without `updated_at`.

    A flight is cancelled if it has no departure, landed if it has an arrival time, else it stays departed (458 that
    were diverted). Diverted flights have no arrival delay.
    """
    scheduled = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    date = pl.date("year", "month", "day")
    return (
        package.flights()
        .with_columns(
            day=((date - pl.lit(FIRST_DAY.date())).dt.total_days() + 1).cast(pl.Int32),
            # not pl.format: that of Polars 2.1 panics on some filtered frames
            flight_id=pl.concat_str(
                "carrier",
                "flight",
                pl.lit("-"),
                "year",
                _zero_padded("month", 2),
                _zero_padded("day", 2),
                pl.lit("-"),
                _zero_padded("sched_dep_time", 4),
            ),
            flight_number=pl.col("flight"),
            tail_number=pl.col("tailnum"),
            destination=pl.col("dest"),
            scheduled_departure=scheduled + pl.duration(minutes="minute"),
            dep_delay_min=pl.col("dep_delay").cast(pl.Float64),
            arr_delay_min=pl.col("arr_delay").cast(pl.Float64),
            air_time_min=pl.col("air_time").cast(pl.Float64),
            distance_mi=pl.col("distance").cast(pl.Float64),
            status=pl.when(pl.col("dep_delay").is_null())
            .then(pl.lit("cancelled"))
            .when(pl.col("arr_time").is_not_null())
            .then(pl.lit("landed"))
            .otherwise(pl.lit("departed")),
        )
        .with_columns(departure=pl.col("scheduled_departure") + pl.duration(minutes="dep_delay"))
        .select("number", "day", *[column for column in COLUMNS if column != "updated_at"])
    )


@cache
def course(seed: int) -> pl.DataFrame:
    """`final()` and when things happen to each flight.

    `inserted_at`, `departed_at`, `final_at`, `corrected_at` are the `updated_at` of its states (null: no such state);
    `inserted_on`, `departed_on`, `final_on`, `corrected_on` the days whose write shows them first (Int32);
    `kind` how its final state is spoiled (null: not).
    """
    number = pl.col("number")
    in_air = pl.duration(minutes=pl.col("air_time_min").fill_null(240) + 20)
    cancelled = pl.col("status") == "cancelled"
    eve = pl.lit(FIRST_DAY) + pl.duration(days=pl.col("day") - 2, hours=16)
    before = pl.duration(minutes=draws.integer(number, seed, "cancelled before", 0, 180))
    late = pl.duration(
        seconds=pl.when(draws.uniform(number, seed, "late") < LATE)
        .then(draws.integer(number, seed, "lateness", 60, int(LATEST.total_seconds())))
        .otherwise(0)
    )
    kinds = draws.kind(
        number,
        seed,
        "flight dirt",
        dirt.rates(
            "flights",
            "status_misspelt",
            "carrier_missing",
            "route_swapped",
            "tail_number_untidy",
            "delay_impossible",
            "distance_impossible",
            "destination_missing",
            "status_unknown",
        ),
    )
    placeholder = draws.kind(number, seed, "flight placeholder", dirt.rates("flights", "tail_number_placeholder"))
    eligible = (
        pl.when(pl.col("kind") == "route_swapped")
        .then(~pl.col("destination").is_in(NEW_YORK))
        .when(pl.col("kind") == "delay_impossible")
        .then(~cancelled)
        .when(pl.col("kind") == "tail_number_untidy")
        .then(pl.col("tail_number").is_not_null())
        .otherwise(pl.lit(True))
    )
    correction = (draws.uniform(number, seed, "flight corrected") < dirt.CORRECTED) & pl.col("kind").is_in(
        dirt.quarantined("flights")
    )
    return (
        final()
        .with_columns(
            inserted_at=eve + pl.duration(minutes=5 * draws.integer(number, seed, "published", 0, 11)),
            departed_at=pl.when(~cancelled).then(_poll(pl.col("departure"))),
            final_at=_poll(
                pl.when(cancelled)
                .then(pl.col("scheduled_departure") - before)
                .when(pl.col("status") == "landed")
                .then(pl.col("departure") + in_air)
                .otherwise(pl.col("departure"))
            ),
            kind=kinds,
        )
        .with_columns(kind=pl.when(eligible).then(pl.col("kind")))
        .with_columns(kind=pl.when(pl.col("tail_number").is_null()).then(pl.coalesce("kind", placeholder))
                      .otherwise(pl.col("kind")))
        .with_columns(
            inserted_on=pl.col("day") - 1,
            departed_on=day_of(pl.col("departed_at")).cast(pl.Int32),
            final_on=day_of(pl.col("final_at") + late).cast(pl.Int32),
        )
        .with_columns(
            corrected_on=pl.when(correction)
            .then(pl.col("final_on") + draws.integer(number, seed, "flight correction after", 1, 3))
            .cast(pl.Int32)
        )
        .with_columns(
            corrected_at=pl.lit(FIRST_DAY)
            + pl.duration(days=pl.col("corrected_on") - 1, hours=9, minutes=5 * (number % 200))
        )
    )  # fmt: skip


def _in_state(rows: pl.DataFrame, state: pl.Expr) -> pl.DataFrame:
    """The rows as the database shows them in a state: inserted, departed, final, corrected."""
    settled = pl.col("state").is_in(["final", "corrected"])
    gone = settled | (pl.col("state") == "departed")
    updated_at = (
        pl.when(pl.col("state") == "inserted").then("inserted_at")
        .when(pl.col("state") == "departed").then("departed_at")
        .when(pl.col("state") == "final").then("final_at")
        .otherwise("corrected_at")
    )  # fmt: skip
    return rows.with_columns(state=state).with_columns(
        departure=pl.when(gone).then("departure"),
        dep_delay_min=pl.when(gone).then("dep_delay_min"),
        arr_delay_min=pl.when(settled).then("arr_delay_min"),
        air_time_min=pl.when(settled).then("air_time_min"),
        status=pl.when(settled).then("status").when(gone).then(pl.lit("departed")).otherwise(pl.lit("scheduled")),
        updated_at=updated_at,
        kind=pl.when(pl.col("state") == "final").then("kind"),
    )


def _state_on(day: int) -> pl.Expr:
    return (
        pl.when(pl.col("corrected_on") <= day).then(pl.lit("corrected"))
        .when(pl.col("final_on") <= day).then(pl.lit("final"))
        .when(pl.col("departed_on") <= day).then(pl.lit("departed"))
        .otherwise(pl.lit("inserted"))
    )  # fmt: skip


def clean_on(seed: int, day: int, finished: bool) -> pl.DataFrame:
    """The table as it would stand at the close of `day` without dirt: COLUMNS and `state`.

    `finished`: the world has come to its end, and all that was under way on the days played has been settled.
    """
    rows = course(seed).filter(pl.col("inserted_on") <= day)
    return _in_state(rows, _final_state(day) if finished else _state_on(day)).select(*COLUMNS, "state")


def _final_state(day: int) -> pl.Expr:
    """The state in which the end of the world after `day` leaves each flight: those of the next day stay published."""
    return (
        pl.when(pl.col("day") > day).then(_state_on(day))
        .when(pl.col("corrected_on").is_not_null()).then(pl.lit("corrected"))
        .otherwise(pl.lit("final"))
    )  # fmt: skip


def changes(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that the write of `day` inserts or updates (COLUMNS), and the truth about those spoiled."""
    all_rows = course(seed)
    today = pl.any_horizontal(pl.col("inserted_on", "departed_on", "final_on", "corrected_on") == day)
    # A cancellation on the eve itself, or a departure that was known early, finds the row just inserted.
    rows = all_rows.filter(today & (pl.col("inserted_on") <= day))
    return _spoil(seed, _in_state(rows, _state_on(day)), day)


def remaining(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the end of the world after `day` still writes: as `changes`."""
    rows = course(seed).filter(pl.col("day") <= day).with_columns(state_now=_state_on(day), state=_final_state(day))
    rows = rows.filter(pl.col("state") != pl.col("state_now"))
    return _spoil(seed, _in_state(rows, pl.col("state")), day)


def _spoil(seed: int, rows: pl.DataFrame, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    number = pl.col("number")
    variant = draws.integer(number, seed, "status variant", 0, 4)
    misspelt = (
        pl.when(pl.col("status") == "landed").then(draws.pick(variant, STATUS_VARIANTS["landed"]))
        .when(pl.col("status") == "cancelled").then(draws.pick(variant, STATUS_VARIANTS["cancelled"]))
        .otherwise(draws.pick(variant, STATUS_VARIANTS["departed"]))
    )  # fmt: skip
    spoiled, done = dirt.spoil(
        rows,
        "kind",
        {
            "status_misspelt": {"status": misspelt},
            "carrier_missing": {"carrier": pl.lit(None, dtype=pl.String)},
            "route_swapped": {"origin": pl.col("destination"), "destination": pl.col("origin")},
            "tail_number_untidy": {
                "tail_number": pl.concat_str(pl.lit("  "), pl.col("tail_number").str.to_lowercase(), pl.lit(" "))
            },
            "tail_number_placeholder": {
                "tail_number": draws.choice(number, seed, "tail number placeholder", TAIL_NUMBER_PLACEHOLDERS)
            },
            "delay_impossible": {
                "dep_delay_min": pl.when(number % 2 == 0).then(pl.lit(-9999.0)).otherwise(pl.lit(99999.0))
            },
            "distance_impossible": {"distance_mi": -pl.col("distance_mi")},
            "destination_missing": {"destination": pl.lit(None, dtype=pl.String)},
            "status_unknown": {"status": draws.choice(number, seed, "unknown status", ["?", "7", "tbc"])},
        },
        ["corrected_on", pl.col("flight_id").alias("key")],
    )
    truth = done.with_columns(replaced_on=pl.col("corrected_on"))
    return spoiled.select(*COLUMNS), dirt.record(truth, "flights", day)


@cache
def steady(seed: int) -> pl.DataFrame:
    """Flights that no kind of dirt will send to quarantine: `number`, `flight_id`, `day`, and the fields that
    bookings are made of. Bookings name only these, so that an unknown flight is unknown on purpose."""
    return course(seed).filter(~pl.col("kind").is_in(dirt.quarantined("flights")) | pl.col("kind").is_null()).select(
        "number", "flight_id", "day", "origin", "destination", "scheduled_departure", "distance_mi"
    )  # fmt: skip
