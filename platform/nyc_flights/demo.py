"""`dp demo`: plays the source systems day by day and lets the platform's own sensors pick up what is new.
What the sources do is in `simulator`; nothing here loads anything by itself.

By default the sensors are evaluated and their runs executed in this process, day by day, and a table at the end says
what landed, was repaired, quarantined and published. With `--play` only the sources move, slowly: a running UI's
sensors pick it up.
"""

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

    from data_platform.lakehouse.settings import Settings
    from nyc_flights.simulator.world import World

WEATHER_PORT = 8713
OPERATIONS = "operations.sqlite"
SOURCES = ("sqlite", "postgresql", "kafka")


def demo(
    days: Annotated[int, typer.Option(min=1, max=365, help="How many days of 2013 to play.")] = 14,
    play: Annotated[bool, typer.Option("--play", help="Only play the sources, for a running UI to pick up.")] = False,
    seconds: Annotated[float, typer.Option(help="With --play: seconds that a day takes.")] = 30.0,
    reset: Annotated[bool, typer.Option("--reset", help="Forget everything and begin on 1 January again.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            help="sqlite; postgresql: that is the operations database, read by its log of changes; kafka: a topic of "
            "gate events comes besides (Java and Maven are needed)."
        ),
    ] = None,
) -> None:
    """Play real flights of 2013 through the platform, from the source systems to published marts."""
    from rich.console import Console

    from data_platform.cli.environment import load_environment, remember
    from data_platform.cli.instance import prepare_dagster_home
    from data_platform.components.workspace import platform_package
    from data_platform.lakehouse.settings import settings_from_environment
    from nyc_flights.demo_loads import play_and_load
    from nyc_flights.demo_report import report
    from nyc_flights.simulator.world import World

    platform_package(Path(__file__).parent.name)  # in another project it would fill that one's lakehouse
    settings = settings_from_environment()
    if reset:
        forget(settings)
    choose(settings, source)
    remember(settings.home, defaults(settings))
    load_environment(settings.home)
    prepare_dagster_home(settings)
    world = World(
        settings.home, _variable("OPERATIONS_URL"), gates=os.environ.get("GATES_BOOTSTRAP") if is_kafka() else None
    )
    console = Console()
    with sources(world, console):
        if play:
            play_slowly(world, days, seconds, console)
            return
        outcomes = play_and_load(world, days_left(world, days), console)
    good = report(settings, world, outcomes, console)
    raise typer.Exit(0 if good else 1)


def defaults(settings: "Settings") -> dict[str, str]:
    """What the demo's sources need in the environment, with a masking key and a token of this machine's own."""
    return {
        "OPERATIONS_URL": f"sqlite://{settings.home / OPERATIONS}",
        "WEATHER_URL": f"http://127.0.0.1:{WEATHER_PORT}",
        "WEATHER_TOKEN": secrets.token_hex(16),
        "DATA_PLATFORM_MASK_KEY": secrets.token_hex(32),
    }


def choose(settings: "Settings", source: str | None) -> None:
    """Have the demo be of a kind: two variables say so, which are kept with the others. Raises PlatformError for
    another kind, if the world that is there was begun with another, or if what it needs is missing."""
    from data_platform.cli.environment import remember
    from data_platform.components.component import VARIANT
    from nyc_flights.simulator.server import url_of

    if source is None:
        return
    if source not in SOURCES:
        raise PlatformError(f"The demo has no source {source!r}, but one of: {', '.join(SOURCES)}.")
    before = os.environ.get(VARIANT) or SOURCES[0]
    if before == source:
        return
    if (settings.home / "clock.json").exists():
        raise PlatformError(
            f"The demo in {settings.home} was begun with {before}. Begin again with "
            f"`dp demo --reset --source {source}`, or name another home by DATA_PLATFORM_HOME."
        )
    if before != SOURCES[0]:
        raise PlatformError(f"{VARIANT} is set to {before}. Unset it for a demo of {source}.")
    if source == "postgresql":
        url = os.environ.get("OPERATIONS_URL", "")
        address = {"OPERATIONS_URL": url if url.startswith(("postgresql://", "postgres://")) else url_of()}
    else:
        address = {"GATES_BOOTSTRAP": broker_address(settings)}
    os.environ |= address | {VARIANT: source}
    remember(settings.home, address | {VARIANT: source})


def broker_address(settings: "Settings") -> str:
    """Where the gates' Kafka is: somebody's own, else that of the demo. Raises PlatformError, saying what to install,
    if the client is missing, or what runs the demo's."""
    from data_platform.components.kafka import require_client
    from nyc_flights.simulator.broker import bootstrap_of, jars_in, require

    require_client()
    if given := os.environ.get("GATES_BOOTSTRAP"):
        return given
    require(jars_in(settings.home))
    return bootstrap_of()


def is_kafka() -> bool:
    """Whether the demo has a topic of gate events."""
    from data_platform.components.component import VARIANT

    return os.environ.get(VARIANT) == "kafka"


def _variable(name: str) -> str:
    return os.environ[name]


def forget(settings: "Settings") -> None:
    """Remove the lakehouse, the sources and Dagster's memory of a demo. Only what lies in the platform's home goes.

    Raises PlatformError where the lakehouse lies elsewhere: that is no demo's.
    """
    from data_platform.cli.environment import forget as forget_variables
    from data_platform.components.component import VARIANT
    from nyc_flights.simulator import broker
    from nyc_flights.simulator.server import remove

    if not (settings.catalog_is_sqlite and Path(settings.catalog).is_relative_to(settings.home)):
        raise PlatformError("--reset only forgets a lakehouse in the platform's home; LAKEHOUSE_CATALOG names another.")
    # First what may be refused, so that nothing is gone then.
    remove(settings.home / "postgresql")
    broker.remove(settings.home / "kafka")
    for name in ("lakehouse", "dagster", "dashboards", "dbt", "landing", "spool", "truth"):
        shutil.rmtree(settings.home / name, ignore_errors=True)
    for name in (OPERATIONS, f"{OPERATIONS}-wal", f"{OPERATIONS}-shm", "clock.json"):
        (settings.home / name).unlink(missing_ok=True)
    forget_variables(settings.home, ["OPERATIONS_URL", "GATES_BOOTSTRAP", VARIANT])


@contextmanager
def sources(world: "World", console: "Console") -> Iterator[None]:
    """The source systems: begun if they are not there yet, the weather service answering for the time of the block,
    unless one answers already (beside the UI)."""
    from nyc_flights.simulator import broker
    from nyc_flights.simulator.operations import is_sqlite
    from nyc_flights.simulator.server import serving
    from nyc_flights.simulator.weather import serve_weather
    from nyc_flights.simulator.world import start

    url, jars = world.operations_url, broker.jars_in(world.folder)
    database = nullcontext() if is_sqlite(url) else serving(world.folder / "postgresql", url)
    kafka = broker.serving(world.folder / "kafka", jars, world.gates) if world.gates else nullcontext()
    with database, kafka:
        if not (world.folder / "clock.json").exists():
            with console.status("Making the source systems of 2013..."):
                start(world)
        with socket.socket() as probe:
            answers = probe.connect_ex(("127.0.0.1", weather_port())) == 0
        with nullcontext() if answers else serve_weather(world, weather_port()):
            yield


def weather_port() -> int:
    """The port of the weather service, from WEATHER_URL."""
    from urllib.parse import urlsplit

    return urlsplit(_variable("WEATHER_URL")).port or WEATHER_PORT


def weather_service(settings: "Settings") -> list[str] | None:
    """The command that serves the weather beside the UI (entry point `data_platform.services`); None without a demo."""
    if not (settings.home / "clock.json").exists():
        return None
    folder, port = str(settings.home), str(weather_port())
    return [sys.executable, "-m", "nyc_flights.simulator.weather", "--folder", folder, "--port", port]


def operations_service(settings: "Settings") -> list[str] | None:
    """The command that serves the demo's PostgreSQL beside the UI; None where there is none."""
    folder = settings.home / "postgresql"
    if not folder.exists():
        return None
    return [sys.executable, "-m", "nyc_flights.simulator.server", str(folder), _variable("OPERATIONS_URL")]


def gates_service(settings: "Settings") -> list[str] | None:
    """The command that runs the demo's Kafka beside the UI; None where there is none."""
    from nyc_flights.simulator.broker import jars_in

    folder = settings.home / "kafka"
    if not folder.exists() or not is_kafka():
        return None
    arguments = [str(folder), str(jars_in(settings.home)), _variable("GATES_BOOTSTRAP")]
    return [sys.executable, "-m", "nyc_flights.simulator.broker", *arguments]


def days_left(world: "World", days: int) -> int:
    """How many of `days` the year still has. Raises PlatformError if it is over."""
    from nyc_flights.simulator.days import LAST_DAY
    from nyc_flights.simulator.world import clock

    now = clock(world)
    if now.finished or now.day >= LAST_DAY:
        raise PlatformError("The year 2013 has been played to its end. Begin again with `dp demo --reset`.")
    return min(days, LAST_DAY - now.day)


def play_slowly(world: "World", days: int, seconds: float, console: "Console") -> None:
    """Advance the clock every `seconds`, for the sensors of a running UI."""
    from nyc_flights.simulator.days import date_of
    from nyc_flights.simulator.world import advance

    console.print(f"A day every {seconds:g} s. Watch the sensors in the UI (`make ui`); Ctrl-C stops the clock.")
    for _ in range(days_left(world, days)):
        now = advance(world)
        console.print(f"{date_of(now.day)}: flights flown, weather published, files delivered")
        time.sleep(seconds)
