"""A world is played day by day, always in the same way, and survives what happens to processes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import adbc_driver_sqlite.dbapi
import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from data_platform.errors import PlatformError
from nyc_flights.simulator import flights, truth
from nyc_flights.simulator.days import closes
from nyc_flights.simulator.world import Clock, World, advance, clock, finish, start

TABLES = {"flights": "flight_id", "aircraft": "tail_number", "bookings": "booking_id"}
INSTANTS = ["scheduled_departure", "departure", "updated_at"]


def new_world(folder: Path, seed: int = 7) -> World:
    return World(folder, str(folder / "operations.sqlite"), seed)


def table(world: World, name: str) -> pl.DataFrame:
    with adbc_driver_sqlite.dbapi.connect(world.operations_url) as connection:
        rows = pl.read_database(f"select * from {name} order by {TABLES[name]}", connection)
    instants = [column for column in INSTANTS if column in rows.columns]
    return rows.with_columns(
        # the driver takes a column of nulls alone for numbers
        pl.col(instants).cast(pl.String).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    )


def contents(world: World) -> dict[str, str]:
    """Everything that the world consists of: hashes of files, and of the rows of the tables."""
    files = [path for path in sorted(world.folder.rglob("*")) if path.is_file() and "operations" not in path.name]
    hashes = {str(path.relative_to(world.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashes | {name: hashlib.sha256(table(world, name).write_ndjson().encode()).hexdigest() for name in TABLES}


def test_the_same_seed_gives_the_same_bytes_however_the_days_are_cut(tmp_path: Path) -> None:
    one, other = new_world(tmp_path / "one"), new_world(tmp_path / "other")
    for world in (one, other):
        start(world)
    advance(one, 3)
    for _ in range(3):
        advance(other)
    assert contents(one) == contents(other)
    assert len(contents(one)) > 10


def test_another_seed_gives_other_data(tmp_path: Path) -> None:
    one, other = new_world(tmp_path / "one", 1), new_world(tmp_path / "other", 2)
    for world in (one, other):
        start(world)
        advance(world)
    same = {name for name, value in contents(one).items() if contents(other)[name] == value}
    assert same == {"landing/reference/airlines.csv"} & same


def test_another_process_goes_on_where_this_one_stopped(tmp_path: Path) -> None:
    world, whole = new_world(tmp_path / "parts"), new_world(tmp_path / "whole")
    for each in (world, whole):
        start(each)
    advance(whole, 2)
    advance(world)
    code = (
        "import sys; from pathlib import Path; from nyc_flights.simulator.world import World, advance;"
        "print(advance(World(Path(sys.argv[1]), sys.argv[2], 7)).day)"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(world.folder), world.operations_url],
        cwd=Path(__file__).parents[3] / "platform",
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == "2"
    assert contents(world) == contents(whole)


@pytest.mark.parametrize("written", [["truth"], ["truth", "landing"], ["truth", "landing", "tables"]])
def test_a_day_that_was_cut_short_is_played_again_to_the_same_result(tmp_path: Path, written: list[str]) -> None:
    world, whole = new_world(tmp_path / "cut"), new_world(tmp_path / "whole")
    for each in (world, whole):
        start(each)
        advance(each)
    before = {name: table(world, name) for name in TABLES}
    state = (world.folder / "clock.json").read_bytes()
    advance(world)
    if "tables" not in written:
        with adbc_driver_sqlite.dbapi.connect(world.operations_url) as connection, connection.cursor() as cursor:
            for name, key in TABLES.items():
                cursor.execute(f"delete from {name}")
                rows = before[name].with_columns(pl.col(pl.Datetime("us", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
                assert cursor.adbc_ingest(name, rows.to_arrow(), mode="append") in (-1, rows.height)
                assert key in rows.columns
            connection.commit()
    if "landing" not in written:
        (world.landing / "web" / "access-2013-01-02.jsonl.gz").unlink()
    (world.folder / "clock.json").write_bytes(state)
    assert advance(world) == Clock(2, 7, finished=False)
    advance(whole)
    assert contents(world) == contents(whole)


def test_on_the_eve_flights_are_scheduled_and_the_day_after_they_have_flown(world: World) -> None:
    rows = table(world, "flights").with_columns(day=pl.col("flight_id").str.extract(r"-(\d{8})-"))
    eve = rows.filter(day="20130131")
    assert set(eve["status"]) <= {"scheduled", "cancelled"}
    assert eve.filter(status="scheduled")["departure"].null_count() == eve.filter(status="scheduled").height
    flown = rows.filter(day="20130115")
    assert flown.filter(status="scheduled").is_empty()
    assert rows["day"].max() == "20130131"


def test_the_database_differs_from_the_truth_exactly_where_the_truth_table_says(world: World) -> None:
    shown = table(world, "flights")
    clean = truth.flights_now(world).sort("flight_id")
    assert shown["flight_id"].to_list() == clean["flight_id"].to_list()
    values = [column for column in shown.columns if column not in INSTANTS]
    found = set()
    for column in [*values, "departure", "scheduled_departure", "updated_at"]:
        differs = shown[column].ne_missing(clean[column])
        found |= {(key, column) for key in shown.filter(differs)["flight_id"]}
    told = truth.visible_truth(world).filter(table="flights")
    assert found == set(told.select("key", "column").rows())
    assert len(found) > 100


def test_some_updates_come_late_but_never_later_than_six_hours(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    start(world)
    late = 0
    for day in range(1, 6):
        before = table(world, "flights").select("flight_id", was="updated_at")
        advance(world)
        after = table(world, "flights").join(before, on="flight_id", how="left")
        written = after.filter(pl.col("was").is_null() | (pl.col("was") != pl.col("updated_at")))["updated_at"]
        assert written.min() > closes(day - 1) - flights.LATEST  # type: ignore[operator]
        assert written.max() <= closes(day)  # type: ignore[operator]
        late += int((written <= closes(day - 1)).sum())
        assert written.n_unique() < written.len() / 2  # several rows share one instant
    assert late > 0


def test_the_end_settles_all_flights_of_the_days_played_and_their_delays_add_up(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    start(world)
    advance(world, 3)
    assert finish(world) == Clock(3, 7, finished=True)
    assert finish(world) == Clock(3, 7, finished=True)
    facts = truth.expected_flights(3)
    spoiled = truth.visible_truth(world).filter(table="flights", expected="quarantined")
    assert spoiled["corrected_on"].null_count() == spoiled.height
    shown = table(world, "flights").filter(pl.col("flight_id").is_in(facts["flight_id"].implode()))
    assert shown.height == facts.height
    delay = pl.col("arr_delay_min").sum()
    assert shown.select(delay).item() == facts.select(delay).item()
    with pytest.raises(PlatformError, match="stands at day 3 and is finished"):
        advance(world)


def test_postgresql_holds_the_same_rows_as_sqlite(tmp_path: Path, postgres_url: str) -> None:
    here, there = new_world(tmp_path / "sqlite"), World(tmp_path / "postgres", postgres_url, 7)
    for each in (here, there):
        start(each)
        advance(each, 3)
        finish(each)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("set time zone 'UTC'")
        for name, key in TABLES.items():
            collation = "" if name == "bookings" else 'collate "C"'
            cursor = connection.execute(f"select * from {name} order by {key} {collation}")
            rows = cursor.fetchall()
            names = [column.name for column in cursor.description or ()]
            shown = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
            expected = table(here, name)
            if name == "aircraft":
                shown = shown.with_columns(specification=pl.Series([json.dumps(row[2]) for row in rows]))
                expected = expected.with_columns(
                    specification=pl.Series([json.dumps(json.loads(text)) for text in expected["specification"]])
                )
            assert_frame_equal(shown, expected, check_dtypes=False)
        types: dict[str, str] = dict(connection.execute(
            "select column_name, data_type from information_schema.columns where table_name = 'flights'"
        ).fetchall())  # fmt: skip
        assert types["updated_at"] == "timestamp with time zone"
        indexes = connection.execute("select indexname from pg_indexes where indexname like '%updated_at'").fetchall()
        assert {name for (name,) in indexes} == {"flights_updated_at", "bookings_updated_at"}


def test_a_world_is_not_started_twice_nor_over_another_one_s_tables(tmp_path: Path) -> None:
    world = new_world(tmp_path / "one")
    start(world)
    with pytest.raises(PlatformError, match="already holds a world"):
        start(world)
    with pytest.raises(PlatformError, match="A new world needs a database without the tables"):
        start(World(tmp_path / "two", world.operations_url, 7))
    with pytest.raises(PlatformError, match="There is no world in"):
        clock(World(tmp_path / "two", world.operations_url, 7))


def test_a_world_keeps_to_its_seed(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    start(world)
    with pytest.raises(PlatformError, match="started with seed 7, not 8"):
        advance(World(world.folder, world.operations_url, 8))


def test_more_days_than_the_year_has_are_refused_before_the_first_is_played(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    start(world)
    with pytest.raises(PlatformError, match="ends with day 365"):
        advance(world, 366)
    assert clock(world).day == 0


@pytest.mark.parametrize("url", ["oracle://u:secret@127.0.0.1/x", "postgresql://u:secret@127.0.0.1:1/x"])
def test_a_database_that_cannot_be_had_is_reported_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(PlatformError, match="operations database") as error:
        start(World(tmp_path, url, 7))
    assert "secret" not in str(error.value)
    assert not (tmp_path / "clock.json").exists()


@pytest.mark.parametrize("form", ["{path}", "sqlite://{path}"])
def test_a_sqlite_file_is_named_by_path_or_url(tmp_path: Path, form: str) -> None:
    path = tmp_path / "operations.sqlite"
    start(World(tmp_path, form.format(path=path), 7))
    assert path.exists()
