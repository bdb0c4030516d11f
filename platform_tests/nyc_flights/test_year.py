"""The whole year: every flight of the package, all that was spoiled repaired to the truth or refused for its reason.
The shorter tests say the same of a month; rare kinds of dirt and rare coincidences need the year."""

import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from platform_tests.ingestion.reading import read_all
from platform_tests.nyc_flights.auditing import assert_quarantined, assert_repaired, stage

from data_platform.ingestion.files.formats import JsonLines, read
from data_platform.ingestion.sql.source import Relational, SqlTable
from nyc_flights.defs.operations import contracts as operations_contracts
from nyc_flights.defs.operations import staging as operations
from nyc_flights.defs.web import contracts as web_contracts
from nyc_flights.defs.web import staging as web
from nyc_flights.simulator import truth
from nyc_flights.simulator.world import Clock, World, advance, clock, start

pytestmark = [pytest.mark.year, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("year")
    world = World(folder, str(folder / "operations.sqlite"))
    start(world)
    advance(world, 365)
    return world


def raw(world: World, table: str) -> pl.DataFrame:
    batches = read_all(Relational(world.operations_url, {table: SqlTable(key=["any"], contract="any")}), table)
    return pl.concat([pl.DataFrame(pl.from_arrow(batch.rows)) for batch in batches])


def due(world: World, table: str) -> pl.DataFrame:
    return truth.visible_truth(world).filter(table=table, expected="quarantined")


def test_the_world_ends_by_itself_with_every_flight_in_its_final_state(year: World) -> None:
    assert clock(year) == Clock(365, year.seed, finished=True)
    assert (
        truth.flights_now(year).drop("updated_at").sort("flight_id").equals(truth.expected_flights().sort("flight_id"))
    )


def test_flights_are_repaired_or_refused_and_the_delays_add_up(year: World) -> None:
    staged = stage(raw(year, "flights"), operations.flights, operations_contracts.Flight, ["flight_id"])
    assert_quarantined(staged.bad.rename({"flight_id": "key"}), due(year, "flights"))
    facts = truth.expected_flights()
    missing = truth.missing_keys(year, "flights")
    kept = facts.filter(~pl.col("flight_id").is_in(missing.implode()))
    assert_repaired(staged.good.drop("updated_at"), kept, ["flight_id"])
    assert staged.good.height + missing.len() == facts.height == 336_776
    lost = facts.filter(pl.col("flight_id").is_in(missing.implode()))
    delays = pl.col("dep_delay_min", "arr_delay_min")
    assert pl.concat([staged.good.select(delays), lost.select(delays)]).sum().equals(facts.select(delays).sum())


def test_aircraft_are_repaired_or_refused(year: World) -> None:
    staged = stage(raw(year, "aircraft"), operations.aircraft, operations_contracts.Aircraft, ["tail_number"])
    assert_quarantined(staged.bad.rename({"tail_number": "key"}), due(year, "aircraft"))
    missing = truth.missing_keys(year, "aircraft")
    kept = truth.expected_aircraft(year).filter(~pl.col("tail_number").is_in(missing.implode()))
    assert_repaired(staged.good, kept, ["tail_number"])


def test_bookings_are_repaired_or_refused(year: World) -> None:
    known = {"operations/flights": truth.expected_flights()["flight_id"]}
    staged = stage(raw(year, "bookings"), operations.bookings, operations_contracts.Booking, ["booking_id"], known)
    assert_quarantined(staged.bad.with_columns(key=pl.col("booking_id").cast(pl.String)), due(year, "bookings"))
    missing = truth.missing_keys(year, "bookings").cast(pl.Int64)
    kept = truth.expected_bookings(year).filter(~pl.col("booking_id").is_in(missing.implode()))
    assert_repaired(staged.good, kept, ["booking_id"])


def test_visits_are_repaired_or_refused(year: World) -> None:
    frames, unread = [], set()
    for path in sorted((year.landing / "web").iterdir()):
        for parsed in read(JsonLines(type="json_lines"), io.BytesIO(gzip.decompress(path.read_bytes()))):
            frames.append(pl.DataFrame(pl.from_arrow(parsed.rows)).with_columns(_file=pl.lit(path.name)))
            unread |= {(path.name, reject.line) for reject in parsed.rejects}
    told = due(year, "visits")
    assert unread == set(told.filter(rule="unreadable record").select("file", "line").rows())
    staged = stage(pl.concat(frames, how="diagonal"), web.visits, web_contracts.Visit, ["request_id"])
    place = pl.concat_str("file", "line", separator=":")
    found = staged.bad.with_columns(key=pl.concat_str("_file", "_line", separator=":"))
    assert_quarantined(found, told.filter(pl.col("rule") != "unreadable record").with_columns(key=place))
    missing = truth.missing_keys(year, "visits")
    kept = truth.expected_visits(year).filter(~pl.col("request_id").is_in(missing.implode()))
    assert_repaired(staged.good, kept, ["request_id"])
