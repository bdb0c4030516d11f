"""The staging of the operations database repairs what can be repaired, and its contracts refuse exactly the rest."""

from pathlib import Path

import polars as pl
import pytest
from platform_tests.ingestion.reading import read_all
from platform_tests.nyc_flights.auditing import Staged, assert_quarantined, assert_repaired, happened, stage

from data_platform.ingestion.sql.source import Relational, SqlTable
from nyc_flights.defs.operations import contracts, staging
from nyc_flights.simulator import dirt, truth
from nyc_flights.simulator.world import World, advance, start

PRIVATE = ["passenger_name", "passenger_email", "passenger_phone"]


def raw(world: World, table: str) -> pl.DataFrame:
    """The rows of a table as the platform reads them."""
    options = SqlTable(key=["any"], contract="any")
    batches = read_all(Relational(world.operations_url, {table: options}), table)
    return pl.concat([pl.DataFrame(pl.from_arrow(batch.rows)) for batch in batches])


def due(world: World, table: str) -> pl.DataFrame:
    return truth.visible_truth(world).filter(table=table, expected="quarantined")


@pytest.fixture(scope="session")
def flights(world: World) -> Staged:
    known = {
        "reference/airlines": pl.Series(["UA", "AA"]),
        "reference/airports": truth.expected_airports(world)["airport"],
        "operations/aircraft": truth.expected_aircraft(world)["tail_number"],
    }
    return stage(raw(world, "flights"), staging.flights, contracts.Flight, ["flight_id"], known)


@pytest.fixture(scope="session")
def aircraft(world: World) -> Staged:
    return stage(raw(world, "aircraft"), staging.aircraft, contracts.Aircraft, ["tail_number"])


@pytest.fixture(scope="session")
def bookings(world: World, flights: Staged) -> Staged:
    known = {"operations/flights": flights.good["flight_id"]}
    return stage(raw(world, "bookings"), staging.bookings, contracts.Booking, ["booking_id"], known)


@pytest.mark.parametrize("table", ["flights", "aircraft", "bookings"])
def test_every_kind_of_dirt_is_there_to_be_dealt_with(world: World, table: str) -> None:
    assert happened(truth.read_truth(world.folder), table) == {d.kind for d in dirt.DIRT if d.table == table}


def test_flights_are_refused_for_exactly_what_was_spoiled_beyond_repair(world: World, flights: Staged) -> None:
    assert_quarantined(flights.bad.rename({"flight_id": "key"}), due(world, "flights"))


def test_all_other_flights_are_repaired_to_what_really_happened(world: World, flights: Staged) -> None:
    missing = truth.missing_keys(world, "flights")
    expected = truth.flights_now(world).filter(~pl.col("flight_id").is_in(missing.implode()))
    assert_repaired(flights.good, expected, ["flight_id"])


def test_flights_to_airports_outside_the_directory_are_kept_and_counted(flights: Staged) -> None:
    (kept,) = (one for one in flights.audited.violations if not one.fatal and one.column == "destination")
    assert kept.check == "not in reference/airports.airport"
    assert kept.rows > 0


def test_aircraft_are_refused_for_exactly_what_was_spoiled_beyond_repair(world: World, aircraft: Staged) -> None:
    assert_quarantined(aircraft.bad.rename({"tail_number": "key"}), due(world, "aircraft"))


def test_all_other_aircraft_have_their_specification_in_columns(world: World, aircraft: Staged) -> None:
    missing = truth.missing_keys(world, "aircraft")
    expected = truth.expected_aircraft(world).filter(~pl.col("tail_number").is_in(missing.implode()))
    assert_repaired(aircraft.good, expected, ["tail_number"])


def test_a_specification_that_is_no_json_is_refused_for_nothing_but_left_empty(aircraft: Staged) -> None:
    broken = pl.DataFrame({"tail_number": ["N10156"], "registered_year": [2000], "specification": ['{"seats": 1']})
    staged = stage(broken, staging.aircraft, contracts.Aircraft, ["tail_number"]).good
    assert staged.select("seats", "manufacturer").row(0) == (None, None)
    assert staged.schema == aircraft.good.schema


def test_bookings_are_refused_for_exactly_what_was_spoiled_beyond_repair(world: World, bookings: Staged) -> None:
    found = bookings.bad.with_columns(key=pl.col("booking_id").cast(pl.String))
    assert_quarantined(found, due(world, "bookings"))


def test_all_other_bookings_are_repaired_to_what_was_meant(world: World, bookings: Staged) -> None:
    missing = truth.missing_keys(world, "bookings").cast(pl.Int64)
    expected = truth.expected_bookings(world).filter(~pl.col("booking_id").is_in(missing.implode()))
    assert_repaired(bookings.good, expected, ["booking_id"])


@pytest.mark.parametrize(
    ("written", "fare"),
    [
        ("1,234.50", 1234.5),
        ("1.234,50", 1234.5),
        ("$ 99", 99.0),
        ("USD 1,234.50", 1234.5),
        ("99,50", 99.5),
        ("99.5", 99.5),
    ],
)
def test_a_fare_means_the_same_in_every_hand(written: str, fare: float) -> None:
    assert staged_booking(fare=written)["fare_usd"].to_list() == [fare]


@pytest.mark.parametrize("written", ["TBD", "", "€ 99", "12.3.4", None])
def test_a_fare_that_is_no_amount_of_dollars_is_refused(written: str | None) -> None:
    assert staged_booking(fare=written).is_empty()


@pytest.mark.parametrize(
    "written",
    [
        "2013-01-05T14:03:22Z",
        "2013-01-05 14:03:22",
        "2013-01-05T09:03:22-05:00",
        "05.01.2013 14:03:22",
        "01/05/2013 02:03:22 PM",
        "1357394602",
    ],
)
def test_an_instant_means_the_same_in_every_hand(written: str) -> None:
    staged = staged_booking(booked_at=written)["booked_at"]
    assert staged.dt.strftime("%Y-%m-%dT%H:%M:%SZ").to_list() == ["2013-01-05T14:03:22Z"]


@pytest.mark.parametrize("written", ["31.02.2013 10:00:00", "13/01/2013 02:03:22 PM", "soon", "", None])
def test_an_instant_that_cannot_be_is_refused(written: str | None) -> None:
    assert staged_booking(booked_at=written).is_empty()


def test_a_channel_in_the_place_of_the_campaign_is_put_back() -> None:
    staged = staged_booking(channel="spring-break", campaign=" Online")
    assert staged.select("channel", "campaign").row(0) == ("web", "spring-break")


def test_a_campaign_that_is_named_like_a_channel_stays_where_the_channel_is_known() -> None:
    staged = staged_booking(channel="agent", campaign="web")
    assert staged.select("channel", "campaign").row(0) == ("agent", "web")


def staged_booking(**changes: str | None) -> pl.DataFrame:
    values: dict[str, object] = {
        "booking_id": 1,
        "flight_id": "UA1545-20130101-0515",
        "fare": "99.50",
        "booked_at": "2013-01-01T09:00:00Z",
        "channel": "web",
        "campaign": None,
        "updated_at": "2013-01-01T09:00:00Z",
        **dict.fromkeys(PRIVATE, "hmac:0"),
    }
    text = {name: pl.String for name in values if name != "booking_id"}
    row = pl.DataFrame({name: [value] for name, value in (values | changes).items()}, schema_overrides=text)
    return stage(row, staging.bookings, contracts.Booking, ["booking_id"]).good


def test_the_types_of_postgresql_are_staged_like_the_text_of_sqlite(tmp_path: Path, postgres_url: str) -> None:
    here = World(tmp_path / "sqlite", str(tmp_path / "operations.sqlite"), 7)
    there = World(tmp_path / "postgres", postgres_url, 7)
    for each in (here, there):
        start(each)
        advance(each, 2)
    for table, function, contract, key in (
        ("flights", staging.flights, contracts.Flight, "flight_id"),
        ("aircraft", staging.aircraft, contracts.Aircraft, "tail_number"),
        ("bookings", staging.bookings, contracts.Booking, "booking_id"),
    ):
        one, other = (stage(raw(world, table), function, contract, [key]) for world in (here, there))
        assert_repaired(one.good, other.good, [key])
        assert one.bad[key].cast(pl.String).sort().equals(other.bad[key].cast(pl.String).sort())
    assert raw(there, "flights").schema["updated_at"] == pl.Datetime("us", "UTC")
