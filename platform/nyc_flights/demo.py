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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from data_platform.components.execution import Outcome
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.settings import Settings
    from nyc_flights.simulator.world import World

WEATHER_PORT = 8713
OPERATIONS = "operations.sqlite"
ATTEMPTS = 3
FIRST_PAGE = "operations"
MODEL = "lateness"
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
        outcomes = play_and_load(world, days, console)
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


def play_and_load(world: "World", days: int, console: "Console") -> list["Outcome"]:
    """Advance day by day; each day the sensors are evaluated, and what they request is run. The outcomes of all
    runs."""
    import dagster as dg
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from data_platform.components.dashboards import SENSOR as PAGES
    from data_platform.components.models import SENSOR as MODELS
    from data_platform.components.platform import platform_definitions
    from data_platform.lakehouse.connect import shared_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from nyc_flights.simulator.days import date_of
    from nyc_flights.simulator.world import advance

    left = days_left(world, days)
    outcomes: list[Outcome] = []
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    columns.append(TextColumn("[dim]{task.fields[doing]}"))
    lakehouse = shared_lakehouse(settings_from_environment())
    with dg.DagsterInstance.get() as instance, lakehouse, Progress(*columns, console=console) as bar:
        task = bar.add_task("days", total=left, doing="loading definitions")
        definitions = platform_definitions(Path(__file__).parent)

        def shown(outcome: "Outcome") -> None:
            bar.update(task, doing=outcome.name)

        for _ in range(left):
            now = advance(world)
            bar.update(task, description=date_of(now.day), doing="evaluating the sensors")
            outcomes += follow_sensors(definitions, instance, shown)
            bar.advance(task)
        bar.update(task, doing="building the pages")
        # Once, of the last day: those of the days before nobody would see. First the models, which follow its scores.
        for name in (MODELS, PAGES):
            outcomes += follow_sensor(sensor_called(name, definitions), definitions, instance, shown)
        bar.update(task, doing="")
    return outcomes


def follow_sensors(definitions: "dg.Definitions", instance: "dg.DagsterInstance", shown: Any) -> list["Outcome"]:
    """Evaluate the sensors, each after those whose work it follows, and execute what they ask for; what became of
    all."""
    return [o for sensor in sensors(definitions) for o in follow_sensor(sensor, definitions, instance, shown)]


def sensors(definitions: "dg.Definitions") -> list["dg.SensorDefinition"]:
    """The sensors in the order of a day: sources, models, what is trained on the models, what is scored by that. The
    models take in the scores on the next day. That of the pages is left out."""
    from data_platform.components.dashboards import SENSOR as PAGES
    from data_platform.components.keys import MODELS_JOB, retraining_job, scoring_job

    found = [sensor for sensor in _all_sensors(definitions) if sensor.name != PAGES]
    later = (MODELS_JOB, retraining_job(""), scoring_job(""))
    days: list[list[dg.SensorDefinition]] = [[] for _ in range(1 + len(later))]
    for sensor in found:
        jobs = [job.name for job in sensor.jobs] if sensor.has_jobs else []
        place = next((i for i, name in enumerate(later, 1) if any(job.startswith(name) for job in jobs)), 0)
        days[place].append(sensor)
    return [sensor for group in days for sensor in group]


def sensor_called(name: str, definitions: "dg.Definitions") -> "dg.SensorDefinition":
    """A sensor by its name."""
    return next(sensor for sensor in _all_sensors(definitions) if sensor.name == name)


def _all_sensors(definitions: "dg.Definitions") -> list["dg.SensorDefinition"]:
    import dagster as dg

    return [sensor for sensor in definitions.sensors or [] if isinstance(sensor, dg.SensorDefinition)]


def follow_sensor(
    sensor: "dg.SensorDefinition", definitions: "dg.Definitions", instance: "dg.DagsterInstance", shown: Any
) -> list["Outcome"]:
    """Evaluate one sensor and execute what it requests. A source that does not answer is probed ATTEMPTS times: the day
    would be over before a sensor that ticks by the clock probed it again."""
    import dagster as dg

    from data_platform.components.execution import execute
    from data_platform.components.workspace import code_location

    outcomes: list[Outcome] = []
    location = code_location(Path(__file__).parent)
    for _ in range(ATTEMPTS):
        with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
            try:
                requests = sensor.evaluate_tick(context).run_requests or []
            except dg.Failure:
                continue
        for request in requests:
            outcomes += execute(
                definitions,
                instance,
                request.asset_selection or [],
                tags=request.tags,
                on_change=shown,
                location=location,
            )
        break
    return outcomes


def model_of(lake: "Lakehouse") -> dict[str, str]:
    """What the table at the end says of the model, by column; nothing as long as no version is in production."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.tables import modelled_table
    from data_platform.ml.registry.stages import find, production_of

    if (version := production_of(lake, MODEL)) is None:
        return {}
    versions = len(ledger.model_versions(lake, MODEL))
    found = {
        "in production": f"version {version} of {versions}",
        "AUC in the test": f"{find(lake, MODEL, version).metrics['auc']:.3f}",
    }
    if "fct_prediction" in ledger.published(lake):
        row = lake.connection.execute(
            "SELECT count(DISTINCT flight_id), count(DISTINCT flight_id) FILTER (WHERE left_late IS NOT NULL) "
            f"FROM {modelled_table('fct_prediction').sql}"
        ).fetchone()
        scored, known = row if row is not None else (0, 0)
        found |= {"flights scored": f"{scored:,}", "outcomes known": f"{known:,}"}
    return found


def report(settings: "Settings", world: "World", outcomes: list["Outcome"], console: "Console") -> bool:
    """Print what became of the rows; whether every run passed and the quarantine holds what it should."""
    from rich.markup import escape
    from rich.table import Table

    from data_platform.components.execution import errors
    from data_platform.dashboards.build import file_of
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import row_count
    from data_platform.lakehouse.tables import all_tables, modelled_table, staged_table
    from nyc_flights.simulator.truth import read_truth
    from nyc_flights.simulator.world import clock

    spoiled = read_truth(world.folder).group_by("source", "table", "expected").len().rows()
    known = {(source, table, expected): count for source, table, expected, count in spoiled}
    with open_lakehouse(settings, read_only=True) as lake:
        learned = model_of(lake)
        totals = ledger.totals(lake)
        published = ledger.published(lake)
        there = set(all_tables(lake.connection))
        staged = {one: staged_table(one.source, one.table) for one in totals}
        counts = {one: row_count(lake, table) if table in there else 0 for one, table in staged.items()}
    tables = Table(title=f"From the sources to the staged tables, to day {clock(world).day}", title_justify="left")
    for name in ("table", "loads", "rows landed", "rows staged", "values spoiled, repaired", "rows quarantined"):
        tables.add_column(name, justify="left" if name == "table" else "right")
    for one in totals:
        tables.add_row(
            f"{one.source}/{one.table}",
            f"{one.loads:,}",
            f"{one.rows_landed:,}",
            f"{counts[one]:,}",
            f"{known.get((one.source, one.table, 'repaired'), 0):,}",
            f"{one.rows_quarantined:,}",
        )
    models = Table(title="Published", title_justify="left")
    for name in ("model", "rows", "publication"):
        models.add_column(name, justify="left" if name == "model" else "right")
    for model, last in sorted(published.items()):
        models.add_row(str(modelled_table(model)), f"{last.rows:,}", f"{last.publication_id:,}")
    console.print(tables)
    console.print(models)
    if learned:
        about = Table(title=f"Learned: {MODEL}", title_justify="left")
        for name in learned:
            about.add_column(name, justify="right")
        about.add_row(*learned.values())
        console.print(about)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for error, names in errors(outcomes).items():
        console.print(f"[red]{', '.join(names)}[/]: {escape(error)}", highlight=False)
    page = file_of(settings, FIRST_PAGE)
    console.print(
        f"Pages of figures and charts, for any browser (`dp dashboards {FIRST_PAGE} --open`): {page}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        "Look around: `make ui` (assets, checks, runs), `dp status`, `dp quarantine list`, "
        '`dp sql "from modelled.mart_punctuality limit 10"`. Play on: `dp demo --days 7`.',
        highlight=False,
    )
    return not failed and bool(published)
