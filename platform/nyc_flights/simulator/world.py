"""The way in: a world is a folder, an operations database and a seed; `start` makes it, `advance` plays days.

Beside the sources lie the clock (`clock.json`, moved last, so that a day that was cut short is played again, to the
same result) and the truth about all that was spoiled (`truth/`). Everything else is decided by the other modules.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from data_platform.errors import PlatformError
from nyc_flights.simulator import aircraft, bookings, flights, gates, observations, operations, reference, web
from nyc_flights.simulator.days import LAST_DAY, closes


@dataclass(frozen=True)
class World:
    """A simulated company. The landing folder is `folder/landing`, and `operations_url` is a path, `sqlite:///path`
    or `postgresql://...`. Gate events go to the Kafka at `gates` (host:port); None: to nobody. The same seed always
    gives the same data."""

    folder: Path
    operations_url: str
    seed: int = 2013
    gates: str | None = None

    @property
    def landing(self) -> Path:
        return self.folder / "landing"


@dataclass(frozen=True)
class Clock:
    """How far a world has been played: the last whole day (0: only begun; 1: 2013-01-01) and the seed.
    `finished`: its end has come, all that was under way has been settled, and it cannot be advanced."""

    day: int
    seed: int
    finished: bool

    @property
    def now(self) -> datetime:
        """The simulated instant: the close of the last day played, 08:00 UTC of the next date."""
        return closes(self.day)


def start(world: World) -> Clock:
    """Make the sources as they stand before day 1: the flights of day 1 are published, the reference files are there.

    Raises PlatformError if the folder already holds a world, or the database already holds its tables.
    """
    if (world.folder / "clock.json").exists():
        raise PlatformError(
            f"{world.folder} already holds a world. Go on with advance, or remove the folder and its database."
        )
    world.folder.mkdir(parents=True, exist_ok=True)
    _play(world, 0)
    return _set_clock(world, Clock(0, world.seed, finished=False))


def advance(world: World, days: int = 1) -> Clock:
    """Play the next days, one after the other; each is written whole before the clock moves.

    After the last day of the year (365) the world is finished by itself. Raises PlatformError if it was finished
    before, or if fewer than `days` are left.
    """
    now = clock(world)
    if now.finished or now.day + days > LAST_DAY:
        state = "is finished" if now.finished else "ends with day 365"
        raise PlatformError(
            f"The world in {world.folder} stands at day {now.day} and {state}: {days} more cannot be played."
        )
    for day in range(now.day + 1, now.day + days + 1):
        _play(world, day)
        now = _set_clock(world, Clock(day, world.seed, finished=False))
    return finish(world) if now.day == LAST_DAY else now


def finish(world: World) -> Clock:
    """Bring the world to its end after the last day played: flights still in the air land, late updates arrive, and
    corrections that were to follow are made at once. Flights of the day after stay published.

    Only now are all flights of the days played in their final state: one in two hundred would settle a day later.
    """
    now = clock(world)
    if not now.finished:
        rows = {
            "flights": flights.remaining(world.seed, now.day),
            "aircraft": aircraft.remaining(world.seed, now.day),
            "bookings": bookings.remaining(world.seed, now.day),
        }
        operations.write(world.operations_url, {table: changed for table, (changed, _) in rows.items()})
        _write_truth(world, "end", [truth for _, truth in rows.values()])
        now = _set_clock(world, Clock(now.day, world.seed, finished=True))
    return now


def clock(world: World) -> Clock:
    """Where the world stands, from disk. Raises PlatformError if it was not started, or started with another seed."""
    now = read_clock(world.folder)
    if now.seed != world.seed:
        raise PlatformError(f"The world in {world.folder} was started with seed {now.seed}, not {world.seed}.")
    return now


def read_clock(folder: Path) -> Clock:
    """The clock of the world in `folder`. Raises PlatformError if there is none."""
    try:
        text = (folder / "clock.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlatformError(
            f"There is no world in {folder}: begin one with nyc_flights.simulator.world.start."
        ) from None
    values = json.loads(text)
    return Clock(day=values["day"], seed=values["seed"], finished=values["finished"])


def _play(world: World, day: int) -> None:
    seed = world.seed
    rows = {"flights": flights.changes(seed, day)}
    truth = [observations.truth(seed, day), *reference.deliver(world.landing / "reference", seed, day)]
    if day > 0:
        rows |= {"aircraft": aircraft.changes(seed, day), "bookings": bookings.changes(seed, day)}
        truth.append(web.deliver(world.landing / "web", seed, day))
    _write_truth(world, f"day-{day:03}", [*truth, *[spoiled for _, spoiled in rows.values()]])
    operations.write(world.operations_url, {table: changed for table, (changed, _) in rows.items()}, create=day == 0)
    if world.gates is not None:
        gates.send(world.gates, seed, day)


def _write_truth(world: World, name: str, frames: list[pl.DataFrame]) -> None:
    folder = world.folder / "truth"
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{name}.tmp"
    pl.concat(frames).write_parquet(temporary)
    temporary.replace(folder / f"{name}.parquet")


def _set_clock(world: World, now: Clock) -> Clock:
    temporary = world.folder / ".clock.tmp"
    temporary.write_text(
        json.dumps({"day": now.day, "seed": now.seed, "finished": now.finished}) + "\n", encoding="utf-8"
    )
    temporary.replace(world.folder / "clock.json")
    return now
