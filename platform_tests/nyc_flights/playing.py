"""A whole platform in a folder of its own, played for some days: real sources, real sensors, real runs.
What should come of it is told by `reconciling`."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import nyc_flights
from data_platform.cli.instance import prepare_dagster_home
from data_platform.components.execution import Outcome, executable_keys, execute, in_runs, op_names, select
from data_platform.components.models import SENSOR
from data_platform.components.platform import platform_definitions
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from nyc_flights.demo_loads import follow_sensor, sensors
from nyc_flights.simulator.weather import serve_weather
from nyc_flights.simulator.world import Clock, World, advance, clock, start

TABLES: Mapping[tuple[str, str], Sequence[str]] = {
    ("operations", "flights"): ["flight_id"],
    ("operations", "aircraft"): ["tail_number"],
    ("operations", "bookings"): ["booking_id"],
    ("weather", "observations"): ["station", "observed_at"],
    ("reference", "airports"): ["airport"],
    ("reference", "airlines"): ["carrier"],
    ("web", "visits"): ["request_id"],
}
"""The staged tables and their keys."""


@dataclass(frozen=True)
class Played:
    """A platform with its sources. `looks` are the clocks at which it looked at them, `outcomes` those of all runs."""

    world: World
    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    secrets: Sequence[str]
    looks: list[Clock] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def play(self, days: int = 1) -> None:
        """Let the sources live for some days."""
        advance(self.world, days)

    def follow(self, *, models: bool = True) -> list[Outcome]:
        """Let the sensors look, that of the models last, and run what they ask for; what became of it."""
        outcomes = []
        for sensor in sensors(self.definitions):
            if models or sensor.name != SENSOR:
                outcomes += follow_sensor(sensor, self.definitions, self.instance, lambda _: None)
        self.looks.append(clock(self.world))
        self.outcomes.extend(outcomes)
        return outcomes

    def run(
        self, *selection: str, config: Mapping[str, Any] | None = None, models: Mapping[str, Any] | None = None
    ) -> list[Outcome]:
        """What `dp run` does: each source in a run of its own, then the models. `config` is for staged tables, `models`
        for the models."""
        outcomes = []
        ops = op_names(self.definitions)
        for _, keys in in_runs(select(executable_keys(self.definitions), selection)):
            staged = [key for key in keys if key.path[0] == "staged"]
            given = {ops[key]: config for key in staged} if config else {}
            if models and any(key.path[0] == "modelled" for key in keys):
                given["models"] = models
            outcomes += execute(self.definitions, self.instance, keys, config=given)
        self.looks.append(clock(self.world))
        self.outcomes.extend(outcomes)
        return outcomes

    def query(self, statement: str) -> pl.DataFrame:
        """Rows of the lakehouse."""
        with open_lakehouse(self.settings, read_only=True) as lake:
            return lake.connection.execute(statement).pl()

    def staged(self, source: str, table: str) -> pl.DataFrame:
        return self.query(f'SELECT * FROM staged_{source}."{table}"')


@contextmanager
def platform(
    home: Path,
    extensions: Path,
    *,
    operations: str | None = None,
    gates: str | None = None,
    catalog: str | None = None,
    seed: int = 7,
) -> Iterator[Played]:
    """A platform in the folder `home` whose sources have just begun; the environment is its own for the time of the
    block. `extensions` is a folder of DuckDB's extensions that several platforms share."""
    home.mkdir(parents=True, exist_ok=True)
    extensions.mkdir(parents=True, exist_ok=True)
    (home / "extensions").symlink_to(extensions, target_is_directory=True)
    operations_url = operations or f"sqlite://{home / 'operations.sqlite'}"
    hidden = [secrets.token_hex(32), secrets.token_hex(16)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_PLATFORM_HOME", str(home))
        patch.setenv("DATA_PLATFORM_STRICT", "1")
        patch.setenv("DATA_PLATFORM_MASK_KEY", hidden[0])
        patch.setenv("WEATHER_TOKEN", hidden[1])
        patch.setenv("OPERATIONS_URL", operations_url)
        patch.delenv("LAKEHOUSE_DATA", raising=False)
        patch.setenv("LAKEHOUSE_CATALOG", catalog) if catalog else patch.delenv("LAKEHOUSE_CATALOG", raising=False)
        # Both are set by what follows: noted here, so that they are as before afterwards.
        patch.setenv("DAGSTER_HOME", str(home))
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        settings = settings_from_environment()
        prepare_dagster_home(settings)
        world = World(home, operations_url, seed, gates)
        start(world)
        with serve_weather(world, requests_per_second=1000) as weather, dg.DagsterInstance.get() as instance:
            patch.setenv("WEATHER_URL", weather.url)
            package = Path(next(iter(nyc_flights.__path__)))
            yield Played(world, settings, platform_definitions(package), instance, hidden)
