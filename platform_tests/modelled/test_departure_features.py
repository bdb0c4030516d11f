"""Nothing that became known after the instant of prediction enters a flight's features: on rows made by hand, and on
real flights against a loop that looks at one flight at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from platform_tests.modelled import rendered
from polars.testing import assert_frame_equal

from nyc_flights.simulator import flights, observations
from nyc_flights.simulator.observations import FIELDS

NOON = datetime(2013, 5, 6, 12, tzinfo=UTC)
"""Noon of a Monday: when the flight of these tests is predicted; it is scheduled three hours later."""

FLIGHTS = dict(flights.COLUMNS)
OBSERVATIONS: dict[str, Any] = {
    "station": pl.String,
    "observed_at": pl.Datetime("us", "UTC"),
    **dict.fromkeys(FIELDS, pl.Float64),
    "published_at": pl.Datetime("us", "UTC"),
}
LATE = timedelta(minutes=60)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def flight(name: str, scheduled: datetime, delay: timedelta | None = None, **more: Any) -> dict[str, Any]:
    """A flight as it is staged at last: one with a delay has landed after two hours in the air."""
    left = scheduled + delay if delay is not None else None
    return {
        "flight_id": name,
        "carrier": "UA",
        "flight_number": 1,
        "tail_number": None,
        "origin": "EWR",
        "destination": "IAH",
        "scheduled_departure": scheduled,
        "departure": left,
        "dep_delay_min": delay / timedelta(minutes=1) if delay is not None else None,
        "air_time_min": 120.0 if left else None,
        "distance_mi": 1400.0,
        "status": "landed" if left else "scheduled",
        "updated_at": left + hours(2) + timedelta(minutes=20) if left else scheduled - hours(20),
    } | more


def observed(at: datetime, published: datetime, wind: float, station: str = "EWR") -> dict[str, Any]:
    return {"station": station, "observed_at": at, "published_at": published, "wind_speed_mph": wind}


Row = Mapping[str, Any]
Features = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with rendered.database() as connection:
        yield connection


@pytest.fixture
def all_features(database: duckdb.DuckDBPyConnection) -> Callable[..., pl.DataFrame]:
    """What is known of some flights."""

    def found(*rows: Row, weather: Sequence[Row] = ()) -> pl.DataFrame:
        given = pl.DataFrame(rows, schema=FLIGHTS), pl.DataFrame(weather, schema=OBSERVATIONS)
        return rendered.departure_features(database, *given)

    return found


@pytest.fixture
def features(all_features: Callable[..., pl.DataFrame]) -> Features:
    """What is known of a flight that is scheduled three hours after noon, beside others; it left an hour late."""

    def known(*others: Row, weather: Sequence[Row] = (), **flown: Any) -> dict[str, Any]:
        found = all_features(flight("the flight", NOON + hours(3), LATE, **flown), *others, weather=weather)
        return found.row(by_predicate=pl.col("flight_id") == "the flight", named=True)

    return known


@pytest.fixture
def previous(features: Features) -> Features:
    """What the plane's leg some hours before noon lets the flight know: delay, minutes overdue, gap."""

    def known(delay: timedelta | None, hours_before: float = 5, **more: Any) -> dict[str, Any]:
        leg = flight("previous", NOON - hours(hours_before), delay, tail_number="N1", carrier="AA", **more)
        later = flight("later", NOON + hours(9), timedelta(minutes=200), tail_number="N1")
        found = features(leg, later, tail_number="N1")
        return {
            name: found[name] for name in ("previous_leg_delay_min", "previous_leg_overdue_min", "aircraft_gap_min")
        }

    return known


def test_an_observation_that_was_published_later_does_not_enter(features: Features) -> None:
    weather = [
        observed(NOON - hours(2), NOON - hours(1.8), 10.0),
        observed(NOON - hours(1), NOON + timedelta(seconds=1), 99.0),
        observed(NOON, NOON + hours(0.1), 99.0),
    ]
    known = features(weather=weather)
    assert (known["wind_speed_mph"], known["observation_age_min"]) == (10.0, 120.0)
    on_time = features(weather=[*weather[:1], observed(NOON - hours(1), NOON, 20.0)])
    assert (on_time["wind_speed_mph"], on_time["observation_age_min"]) == (20.0, 60.0)


def test_an_observation_that_arrives_late_does_not_replace_a_newer_one_that_came_before_it(features: Features) -> None:
    weather = [
        observed(NOON - hours(1), NOON - hours(0.8), 10.0),
        observed(NOON - hours(5), NOON - hours(0.1), 99.0),
    ]
    assert features(weather=weather)["wind_speed_mph"] == 10.0


@pytest.mark.parametrize(("age", "wind"), [(6, 10.0), (6.1, None), (22, None)])
def test_an_observation_older_than_six_hours_does_not_enter(age: float, wind: float | None, features: Features) -> None:
    known = features(weather=[observed(NOON - hours(age), NOON - hours(age - 0.2), 10.0)])
    assert known["wind_speed_mph"] == wind
    assert (known["observation_age_min"] is None) == (wind is None)


def test_the_weather_of_another_airport_does_not_enter(features: Features) -> None:
    assert features(weather=[observed(NOON - hours(1), NOON - hours(0.8), 10.0, "JFK")])["wind_speed_mph"] is None


@pytest.mark.parametrize(
    ("delay", "known", "overdue"),
    [
        (hours(1), 60.0, None),
        (hours(5) - timedelta(minutes=5), 295.0, None),
        (hours(5) - timedelta(minutes=4), None, 300.0),  # it had left, but the report was under way
        (hours(6), None, 300.0),
        (None, None, 300.0),
    ],
)
def test_a_previous_leg_that_was_not_reported_to_have_left_is_overdue_and_its_delay_does_not_enter(
    delay: timedelta | None, known: float | None, overdue: float | None, previous: Features
) -> None:
    assert previous(delay) == {
        "previous_leg_delay_min": known,
        "previous_leg_overdue_min": overdue,
        "aircraft_gap_min": 480.0,
    }


def test_a_previous_leg_that_is_not_due_yet_is_not_overdue(previous: Features) -> None:
    assert previous(hours(1), hours_before=-1)["previous_leg_overdue_min"] == 0


def test_a_leg_of_another_day_says_nothing_of_the_plane(previous: Features) -> None:
    assert set(previous(hours(1), hours_before=24.1).values()) == {None}
    assert previous(hours(1), hours_before=24)["previous_leg_delay_min"] == 60


def test_a_flight_without_a_plane_has_no_previous_leg(features: Features) -> None:
    other = flight("other", NOON - hours(5), hours(1))
    assert features(other)["aircraft_gap_min"] is None


def test_a_delay_that_was_corrected_counts_from_its_correction(previous: Features) -> None:
    corrected = previous(hours(1), updated_at=NOON + timedelta(seconds=1))
    assert (corrected["previous_leg_delay_min"], corrected["previous_leg_overdue_min"]) == (None, 300.0)
    assert previous(hours(1), updated_at=NOON)["previous_leg_delay_min"] == 60


def test_shares_count_the_departures_reported_in_their_time_and_not_the_flight_itself(features: Features) -> None:
    def left(name: str, reported: datetime, delay: float, **more: Any) -> dict[str, Any]:
        late = timedelta(minutes=delay)
        return flight(name, reported - timedelta(minutes=5) - late, late, **more)

    known = features(
        left("now", NOON, 16),
        left("a minute later", NOON + timedelta(minutes=1), 500),
        left("just not late", NOON - hours(2), 15),
        left("three hours ago", NOON - hours(3), 16),
        left("five hours ago", NOON - hours(5), 0),
        left("another carrier", NOON - hours(1), 0, carrier="AA"),
        left("another airport", NOON - hours(1), 30, origin="JFK"),
        left("six days ago", NOON - hours(24 * 6), 30),
        left("eight days ago", NOON - hours(24 * 8), 0, destination="MIA"),
        left("nine days ago", NOON - hours(24 * 9), 0),
        left("a month ago", NOON - hours(24 * 29), 30),
        flight("cancelled", NOON - hours(2), status="cancelled"),
    )
    assert known["origin_late_share_3h"] == pytest.approx(2 / 4)
    assert known["carrier_late_share_6h"] == pytest.approx(3 / 5)
    assert known["carrier_late_share_7d"] == pytest.approx(4 / 6)
    assert known["route_late_share_28d"] == pytest.approx(3 / 7)


def test_nothing_is_known_of_an_airport_at_which_nobody_left(features: Features) -> None:
    known = features()
    assert {known[name] for name in known if "share" in name} == {None}


@pytest.mark.parametrize(("delay", "late"), [(15, False), (16, True), (-3, False), (None, None)])
def test_a_flight_left_late_beyond_fifteen_minutes_and_only_once_it_has_left(
    delay: int | None, late: bool, all_features: Callable[..., pl.DataFrame]
) -> None:
    one = flight("one", NOON, timedelta(minutes=delay) if delay is not None else None)
    rows = [one, flight("newest", NOON, timedelta())]
    found = all_features(*rows)
    assert found.filter(flight_id="one")["left_late"].to_list() == [late]


def test_a_flight_is_there_once_the_data_reach_its_prediction_and_hours_are_counted_whole(
    all_features: Callable[..., pl.DataFrame],
) -> None:
    rows = [
        flight("newest", NOON, timedelta(), updated_at=NOON + hours(3)),
        flight("reached", NOON + hours(6)),
        flight("not reached", NOON + hours(6.1)),
    ]
    found = all_features(*rows)
    assert found.select("flight_id", "departures_in_hour", "departure_hour", "weekday").rows() == [
        ("newest", 1, 8, 1),
        ("reached", 2, 14, 1),
    ]


def test_real_flights_know_what_a_loop_over_them_finds(database: duckdb.DuckDBPyConnection) -> None:
    staged = flights.clean_on(2013, 20, False).drop("state")
    weather = (
        observations.published(2013)
        .filter(pl.col("published_at") <= staged["updated_at"].max())
        .unique(["station", "observed_at"], keep="last", maintain_order=True)
        .select("station", "observed_at", pl.col(*FIELDS).cast(pl.Float64), "published_at")
    )
    found = rendered.departure_features(database, staged, weather)
    assert found.height > 15_000
    overdue = found.filter(pl.col("previous_leg_overdue_min") > 0)
    some = pl.concat([found.sample(100, seed=1), overdue.sample(30, seed=1)])
    meant = pl.DataFrame([one_by_one(row, staged, weather) for row in some.iter_rows(named=True)], schema=some.schema)
    assert_frame_equal(some, meant)
    assert meant["previous_leg_delay_min"].count() > 20


def one_by_one(row: dict[str, Any], staged: pl.DataFrame, weather: pl.DataFrame) -> dict[str, Any]:
    """The features of one flight, from what had been reported by then and nothing else."""
    flown = staged.row(by_predicate=pl.col("flight_id") == row["flight_id"], named=True)
    at = flown["scheduled_departure"] - hours(3)
    minutes = pl.col("air_time_min").fill_null(0).cast(pl.Int64) + 30
    corrected = pl.col("updated_at") > pl.col("departure") + pl.duration(minutes=minutes)
    left = staged.filter(pl.col("departure").is_not_null()).with_columns(
        reported_at=pl.when(corrected).then("updated_at").otherwise(pl.col("departure") + timedelta(minutes=5))
    )
    known = left.filter(pl.col("reported_at") <= at)

    def share(since: timedelta, *same: str) -> float | None:
        of = known.filter(pl.col("reported_at") >= at - since, *(pl.col(one) == flown[one] for one in same))
        return (of["dep_delay_min"] > 15).mean()  # type: ignore[return-value]

    seen = weather.filter(
        pl.col("station") == flown["origin"], pl.col("published_at") <= at, pl.col("observed_at") >= at - hours(6)
    ).sort("observed_at")
    newest = seen.row(-1, named=True) if seen.height else dict.fromkeys(OBSERVATIONS)
    order = pl.struct("scheduled_departure", "flight_id")
    legs = staged.filter(pl.col("tail_number") == pl.lit(flown["tail_number"])).sort(order)
    place = legs["flight_id"].to_list().index(flown["flight_id"]) if legs.height else 0
    leg = legs.row(place - 1, named=True) if place else None
    if leg is not None and leg["scheduled_departure"] < at - hours(24):
        leg = None
    reported = known.filter(pl.col("flight_id") == leg["flight_id"]) if leg else known.clear()
    overdue = max((at - leg["scheduled_departure"]) / timedelta(minutes=1), 0.0) if leg else None
    hour = flown["scheduled_departure"].replace(minute=0)
    same_hour = staged.filter(
        pl.col("origin") == flown["origin"], pl.col("scheduled_departure").is_between(hour, hour + hours(1), "left")
    )
    local = flown["scheduled_departure"] - hours(5)
    return {
        **{name: flown[name] for name in row if name in flown},
        **{name: newest[name] for name in row if name in FIELDS},
        "predicted_at": at,
        "departure_hour": local.hour,
        "weekday": local.isoweekday(),
        "departures_in_hour": same_hour.height,
        "observation_age_min": (at - newest["observed_at"]) // timedelta(minutes=1) * 1.0 if seen.height else None,
        "aircraft_gap_min": (flown["scheduled_departure"] - leg["scheduled_departure"]) / timedelta(minutes=1)
        if leg
        else None,
        "previous_leg_delay_min": reported["dep_delay_min"].first(),
        "previous_leg_overdue_min": None if reported.height else overdue,
        "origin_late_share_3h": share(hours(3), "origin"),
        "carrier_late_share_6h": share(hours(6), "carrier"),
        "carrier_late_share_7d": share(hours(24 * 7), "carrier"),
        "route_late_share_28d": share(hours(24 * 28), "origin", "destination"),
        "left_late": flown["dep_delay_min"] > 15 if flown["departure"] is not None else None,
    }
