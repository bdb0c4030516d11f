"""What `dp demo` loads while it plays: day by day the platform's own sensors are evaluated, and what they ask for is
run in this process. What the sources do is in `simulator`, what is said at the end in `demo_report`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from data_platform.components.execution import Outcome
    from nyc_flights.simulator.world import World

ATTEMPTS = 3


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
        task = bar.add_task("days", total=days, doing="loading definitions")
        definitions = platform_definitions(Path(__file__).parent)

        def shown(outcome: "Outcome") -> None:
            bar.update(task, doing=outcome.name)

        for _ in range(days):
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
