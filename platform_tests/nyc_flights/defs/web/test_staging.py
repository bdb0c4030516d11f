"""The staging of the access log repairs what can be repaired; the reader and the contract refuse exactly the rest."""

import gzip
import io

import polars as pl
import pytest
from platform_tests.nyc_flights.auditing import Staged, assert_quarantined, assert_repaired, happened, stage

from data_platform.ingestion.files.formats import JsonLines, read
from nyc_flights.defs.web import contracts, staging
from nyc_flights.simulator import dirt, truth
from nyc_flights.simulator.world import World

KEY = ["request_id"]


@pytest.fixture(scope="session")
def log(world: World) -> tuple[pl.DataFrame, set[tuple[str, int]]]:
    """The rows of all files, and the places (file, line) that could not be read."""
    frames, rejects = [], set()
    for path in sorted((world.landing / "web").glob("access-*.jsonl.gz")):
        for parsed in read(JsonLines(type="json_lines"), io.BytesIO(gzip.decompress(path.read_bytes()))):
            frames.append(pl.DataFrame(pl.from_arrow(parsed.rows)).with_columns(_file=pl.lit(path.name)))
            rejects |= {(path.name, reject.line) for reject in parsed.rejects}
    return pl.concat(frames, how="diagonal"), rejects


@pytest.fixture(scope="session")
def staged(log: tuple[pl.DataFrame, set[tuple[str, int]]]) -> Staged:
    return stage(log[0], staging.visits, contracts.Visit, KEY)


def due(world: World) -> pl.DataFrame:
    return truth.read_truth(world.folder).filter(table="visits", expected="quarantined")


def test_every_kind_of_dirt_is_there_to_be_dealt_with(world: World) -> None:
    told = truth.read_truth(world.folder)
    assert happened(told, "visits") == {d.kind for d in dirt.DIRT if d.table == "visits"}


def test_exactly_the_lines_that_were_cut_off_or_are_not_utf8_cannot_be_read(
    world: World, log: tuple[pl.DataFrame, set[tuple[str, int]]]
) -> None:
    unreadable = due(world).filter(rule="unreadable record")
    assert log[1] == set(unreadable.select("file", "line").rows())


def test_visits_are_refused_for_exactly_what_was_spoiled_beyond_repair(world: World, staged: Staged) -> None:
    place = pl.concat_str("file", "line", separator=":")
    told = due(world).filter(pl.col("rule") != "unreadable record").with_columns(key=place)
    found = staged.bad.with_columns(key=pl.concat_str("_file", "_line", separator=":"))
    assert_quarantined(found, told)


def test_all_other_visits_are_repaired_to_what_was_meant(world: World, staged: Staged) -> None:
    missing = truth.missing_keys(world, "visits")
    expected = truth.expected_visits(world).filter(~pl.col("request_id").is_in(missing.implode()))
    assert_repaired(staged.good, expected, KEY)


def test_every_confirmed_booking_was_made_through_the_web(world: World, staged: Staged) -> None:
    confirmed = staged.good["booking_id"].drop_nulls().sort()
    made = truth.expected_bookings(world).filter(channel="web")["booking_id"].sort()
    assert confirmed.to_list() == made.to_list()


@pytest.mark.parametrize("written", ["S%C3%A3o+Paulo", "S%E3o+Paulo", "S%C3%83%C2%A3o+Paulo", "S%e3o%20Paulo"])
def test_search_terms_mean_the_same_in_every_encoding(written: str) -> None:
    assert staged_url(f"https://book.example.com/search?from=jfk&q={written}")["search_terms"].to_list() == [
        "São Paulo"
    ]


def test_a_visit_without_parameters_has_none() -> None:
    row = staged_url("https://book.example.com/")
    assert row.select("path", "origin_airport", "search_terms", "booking_id", "utm_source").row(0) == (
        "/", None, None, None, None,
    )  # fmt: skip


def staged_url(url: str) -> pl.DataFrame:
    raw = pl.DataFrame(
        {
            "ts": ["1357394602123"],
            "client_ip": ["hmac:0"],
            "url": [url],
            "status": ["200"],
            "user_agent": [None],
            "bytes": ["1"],
            "request_id": ["r"],
        },
        schema_overrides={"user_agent": pl.String},
    )
    return stage(raw, staging.visits, contracts.Visit, KEY).good
