"""From a file's arrival to its published mart: a real `dagster dev` with the platform of the flights, one day loaded,
and then the next day's access log put into the landing folder. The times are the ledger's and Dagster's own.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorTick
from platform_tests.benchmarks.measure import CaseError, Measured, Say
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.benchmarks.worker import peak_mib
from platform_tests.servers import free_port

from data_platform.components.models import SENSOR
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, Settings, settings_from_environment
from nyc_flights.simulator import web
from nyc_flights.simulator.weather import serve_weather
from nyc_flights.simulator.world import World

AIM = 6.0
"""Seconds from the tick that saw the file to the published mart."""

MART = "mart_campaign_conversion"
"""What the access log ends in."""

LOG = "web/visits"

PATIENCE = 600
LOOK = 0.2
"""Seconds between looks at the ledger and at the processes."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Times:
    """When a file arrived, was seen, was loaded and staged, and when what follows from it was seen and published."""

    arrived: datetime
    seen: datetime
    load_started: datetime
    landed: datetime
    staged: datetime
    models_asked: datetime
    published: datetime


@dataclass
class Watch:
    """The most memory that one process of a tree held [MiB], and the CPU time of all of them [s]."""

    root: int
    peak: float = 0.0
    cpu: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until told to stop."""
        before = _cpu(self.root)
        while not self.stop.wait(LOOK):
            for process in _tree(self.root):
                try:
                    self.peak = max(self.peak, peak_mib(Path(f"/proc/{process}/status")))
                except OSError:
                    continue  # it ended meanwhile
            self.cpu = _cpu(self.root) - before


def arrival(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """As many files as the scale says, one after the other."""
    settings = settings_from_environment()
    port = free_port()
    variables = {
        "DATA_PLATFORM_HOME": str(scratch / "home"),
        "OPERATIONS_URL": f"sqlite://{scratch}/home/operations.sqlite",
        "WEATHER_URL": f"http://127.0.0.1:{port}",
        "WEATHER_TOKEN": secrets.token_hex(16),
        "DATA_PLATFORM_MASK_KEY": secrets.token_hex(32),
    }
    shutil.copytree(settings.extensions, scratch / "home" / "extensions")
    before = {name: os.environ.get(name) for name in (*variables, "DAGSTER_HOME")}
    os.environ.update(variables)
    try:
        say("playing and loading the first day")
        _run([sys.executable, "-m", "data_platform.cli", "demo", "--days", "1"], scratch / "demo.log")
        yield from _arrivals(settings_from_environment(), scale.arrivals, port, scratch, say)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _arrivals(settings: Settings, count: int, port: int, scratch: Path, say: Say) -> Iterator[Row]:
    world = World(settings.home, os.environ["OPERATIONS_URL"])
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    log = scratch / "dagster.log"
    found: list[tuple[Times, Watch]] = []
    with (
        serve_weather(world, port),
        dg.DagsterInstance.get() as instance,
        _dagster(log) as root,
        open_lakehouse(settings, read_only=True) as lake,
    ):
        for number in range(1, count + 1):
            say("waiting until the sensors have nothing to ask for")
            _wait(lambda: _is_quiet(instance), "the sensors did not come to rest", log)
            say(f"a file arrives ({number} of {count})")
            found.append(_arrive(lake, instance, world, 1 + number, root, log))
    watch = Watch(root, max(w.peak for _, w in found), sorted(w.cpu for _, w in found)[len(found) // 2])
    stages = {
        "A file's arrival to its published mart": ("arrived", "published", None),
        "  the sensor's tick to the published mart": ("seen", "published", AIM),
        "  arrival to the sensor's tick": ("arrived", "seen", None),
        "  tick to the start of the load": ("seen", "load_started", None),
        "  load": ("load_started", "landed", None),
        "  staging": ("landed", "staged", None),
        "  staged to the tick of the models' sensor": ("staged", "models_asked", None),
        "  that tick to the published mart": ("models_asked", "published", None),
    }
    for what, (start, end, aim) in stages.items():
        # A tick that began before its cause came about saw it nevertheless: no time passed between them.
        spans = sorted(max(0.0, (getattr(t, end) - getattr(t, start)).total_seconds()) for t, _ in found)
        cpu = watch.cpu if end == "published" and start == "arrived" else 0.0
        yield Row("arrival", what, Measured(spans[len(spans) // 2], cpu, watch.peak, 1, tuple(spans)), aim=aim)


def _arrive(
    lake: Lakehouse, instance: dg.DagsterInstance, world: World, day: int, root: int, log: Path
) -> tuple[Times, Watch]:
    watch = Watch(root)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    before = _published(lake)
    arrived = datetime.now(UTC)
    web.deliver(world.landing / "web", world.seed, day)
    try:
        _wait(lambda: _published(lake)[2] != before[2], f"{MART} was not published", log)
    finally:
        watch.stop.set()
        thread.join()
    publication = _published(lake)
    load = _one(
        lake,
        "SELECT run_id, started_at, ended_at FROM platform.loads WHERE source = 'web' AND started_at >= ?",
        arrived,
    )
    staging = _one(lake, "SELECT ended_at FROM platform.stagings WHERE source = 'web' AND started_at >= ?", arrived)
    seen, asked = (_tick_of(instance, name, run) for name, run in (("web_sensor", load[0]), (SENSOR, publication[0])))
    return Times(arrived, seen, load[1], load[2], staging[0], asked, publication[1]), watch


def _published(lake: Lakehouse) -> Any:
    """Run and time of the mart's last publication, and the staging of the access log that it was built from."""
    return _one(
        lake,
        f"SELECT run_id, published_at, built_from->>'$.\"{LOG}\"' FROM platform.publications "
        f"WHERE model = '{MART}' ORDER BY publication_id DESC LIMIT 1",
    )


def _one(lake: Lakehouse, query: str, *parameters: object) -> Any:
    row = lake.connection.execute(query, list(parameters)).fetchone()
    assert row is not None, f"nothing in the ledger for {query}"
    return row


def _ticks(instance: dg.DagsterInstance, sensor: str) -> list[InstigatorTick]:
    """The sensor's last ticks, the newest first; none before its first."""
    for state in instance.all_instigator_state():
        if state.instigator_name == sensor:
            return list(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=100))
    return []


def _tick_of(instance: dg.DagsterInstance, sensor: str, run: str) -> datetime:
    """When the sensor looked that asked for a run."""
    for tick in _ticks(instance, sensor):
        if run in tick.run_ids:
            return datetime.fromtimestamp(tick.timestamp, UTC)
    raise CaseError(f"no tick of {sensor} asked for run {run}")


def _is_quiet(instance: dg.DagsterInstance) -> bool:
    """Whether nothing runs and the last look of both sensors found nothing."""
    if any(not record.dagster_run.is_finished for record in instance.get_run_records(limit=20)):
        return False
    last = [_ticks(instance, name)[:1] for name in ("web_sensor", SENSOR)]
    return all(tick and tick[0].status.name == "SKIPPED" for tick in last)


@contextmanager
def _dagster(log: Path) -> Iterator[int]:
    """`dagster dev` as `dp ui` starts it; the id of its process."""
    command = [sys.executable, "-m", "data_platform.cli", "ui", "--port", str(free_port())]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=stream, stderr=stream, start_new_session=True)
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _run(command: list[str], log: Path) -> None:
    with log.open("w") as stream:
        status = subprocess.run(command, cwd=REPOSITORY, stdout=stream, stderr=stream, check=False).returncode
    if status:
        raise CaseError(f"{' '.join(command[1:])} ended with status {status}:\n{log.read_text()[-4000:]}")


def _wait(done: Any, otherwise: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if done():
            return
        time.sleep(LOOK)
    raise CaseError(f"after {PATIENCE} s {otherwise}. Dagster said:\n{log.read_text()[-4000:]}")


def _tree(root: int) -> list[int]:
    """A process and all below it that run now."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(_fields(status)[1]), []).append(int(status.parent.name))
        except OSError:
            continue  # it ended meanwhile
    found, below = [], [root]
    while below:
        found += below
        below = [child for process in below for child in parents.get(process, [])]
    return found


def _cpu(root: int) -> float:
    """CPU time of a tree of processes, those that ended and were waited for included [s]."""
    total = 0
    for process in _tree(root):
        try:
            total += sum(map(int, _fields(Path(f"/proc/{process}/stat"))[11:15]))
        except OSError:
            continue  # it ended meanwhile
    return total / TICKS


def _fields(status: Path) -> list[str]:
    """What /proc says of a process after its name, which may hold anything."""
    return status.read_text(errors="replace").rpartition(")")[2].split()
