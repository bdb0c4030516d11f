"""The staging of the reference files repairs what can be repaired; reader and contracts refuse exactly the rest."""

from pathlib import Path

import polars as pl
import pytest
from platform_tests.nyc_flights.auditing import assert_quarantined, assert_repaired, happened, stage

from data_platform.ingestion.files.formats import Csv, FixedColumn, FixedWidth, Format, read
from nyc_flights.defs.reference import contracts, staging
from nyc_flights.simulator import dirt, reference, truth
from nyc_flights.simulator.days import LAST_DAY
from nyc_flights.simulator.world import World

AIRPORTS = FixedWidth(
    type="fixed_width",
    columns=[FixedColumn(name=name, width=width) for name, width in reference.WIDTHS.items()],
    encoding="cp1252",
    header=1,
    trailer=r"TRAILER (\d{5})",
)
AIRLINES = Csv(type="csv")


def load(path: Path, options: Format) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a file, and the lines that could not be read."""
    with path.open("rb") as stream:
        parsed = list(read(options, stream))
    rows = pl.concat([pl.DataFrame(pl.from_arrow(part.rows)) for part in parsed])
    return rows, [reject.line for part in parsed for reject in part.rejects]


def test_every_kind_of_dirt_happens_within_the_year(tmp_path: Path) -> None:
    year = pl.concat([frame for day in range(LAST_DAY + 1) for frame in reference.deliver(tmp_path, 7, day)])
    for table in ("airports", "airlines"):
        assert happened(year, table) == {d.kind for d in dirt.DIRT if d.table == table}


@pytest.mark.parametrize("day", [0, 2])
def test_each_airports_directory_is_repaired_or_refused_as_it_was_spoiled(tmp_path: Path, day: int) -> None:
    (told, *_) = reference.deliver(tmp_path, 7, day)
    rows, unread = load(tmp_path / "airports.txt", AIRPORTS)
    staged = stage(rows, staging.airports, contracts.Airport, ["airport"])
    due = told.filter(expected="quarantined")
    assert unread == due.filter(kind="record_cut_off")["line"].sort().to_list()
    refused = due.filter(pl.col("kind") != "record_cut_off")
    assert refused.height > 0
    assert_quarantined(staged.bad.with_columns(key=pl.col("faa").str.strip_chars()), refused)
    expected = truth_of_airports(day).filter(~pl.col("airport").is_in(refused["key"].implode()))
    assert_repaired(staged.good, expected, ["airport"])


def truth_of_airports(day: int) -> pl.DataFrame:
    return reference.airports_on(7, day).select(
        airport="faa",
        name="name",
        latitude=pl.col("lat").cast(pl.Float64),
        longitude=pl.col("lon").cast(pl.Float64),
        altitude_ft=pl.col("alt").cast(pl.Int64),
        utc_offset_h=pl.col("tz").cast(pl.Float64),
        dst="dst",
        timezone="tzone",
    )


def test_the_directory_that_lies_in_the_landing_folder_is_the_expected_one(world: World) -> None:
    rows, _ = load(world.landing / "reference" / "airports.txt", AIRPORTS)
    missing = truth.missing_keys(world, "airports")
    expected = truth.expected_airports(world).filter(~pl.col("airport").is_in(missing.implode()))
    assert_repaired(stage(rows, staging.airports, contracts.Airport, ["airport"]).good, expected, ["airport"])


@pytest.mark.parametrize("day", [0, 3, 213, 300])
def test_each_airlines_file_is_repaired_and_stray_records_are_refused(tmp_path: Path, day: int) -> None:
    told = reference.deliver(tmp_path, 7, day)[-1]
    rows, unread = load(tmp_path / "airlines.csv", AIRLINES)
    assert unread == told.filter(expected="quarantined")["line"].sort().to_list()
    staged = stage(rows, staging.airlines, contracts.Airline, ["carrier"])
    assert staged.bad.is_empty()
    assert_repaired(staged.good, reference.airlines_on(day), ["carrier"])


def test_damaged_and_typographic_punctuation_becomes_plain() -> None:
    names = ["Chicago Oâ€™Hare Intl", "Chicago O’Hare Intl", "Raleighâ€“Durham", "Raleigh – Durham "]
    raw = pl.DataFrame({"faa": ["A", "B", "C", "D"], "name": names}).with_columns(
        lat=pl.lit("1"), lon=pl.lit("1"), alt=pl.lit("1"), tz=pl.lit("1"), dst=pl.lit("A"), tzone=pl.lit("")
    )
    plain = staging.airports(raw.lazy()).collect()["name"].to_list()
    assert plain == ["Chicago O'Hare Intl", "Chicago O'Hare Intl", "Raleigh-Durham", "Raleigh - Durham"]
