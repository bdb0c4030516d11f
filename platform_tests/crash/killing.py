"""Kills real processes of a project, `dp run` and `dp ui`, at random instants of all that they do, and measures how
long it takes until the next run works: from the kill to the start of its first step.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from platform_tests.crash.project import Project, processes_of
from platform_tests.servers import free_port

from data_platform.components.sensors import UNDER_WAY
from data_platform.instance.liveness import process_of, running
from data_platform.lakehouse.lock import ADVISORY_LOCK

PATIENCE = 180
"""Seconds that anything may take before it counts as hanging, on a machine that is busy."""

LOOK = 0.05
"""Seconds between looks at the runs."""

PHASES = ("start", "load", "commit", "stage", "models", "end")
"""Where in `dp run` a kill falls: before the first step, within a kind of step, while it may commit, after the last."""

STEPS = {"load": "raw__", "stage": "staged__", "models": "models"}
LONGEST = {"start": 4.0, "load": 0.4, "commit": 0.03, "stage": 0.4, "models": 2.5, "end": 0.6}
"""How long each phase lasts [s], within which the instant is chosen."""

MOST_COMMITS = 8
"""A run commits more often than that; in which of the first ones a kill falls is chosen."""

RUN_KINDS = (
    "SIGKILL of the group",
    "SIGKILL of dp run",
    "SIGTERM",
    "SIGINT",
    "SIGKILL of a step",
    "SIGKILL of the parent",
)
"""The last two are of runs whose steps are processes of their own: one of these, or the process that started them."""

UI_KINDS = (
    "SIGKILL of the run",
    "SIGKILL of the UI",
    "SIGKILL of the daemon",
    "SIGKILL of what runs are forked from",
    "SIGKILL of the code server",
    "SIGKILL of the code server's parent",
    "SIGKILL of the web server",
    "SIGKILL of dp ui",
    "SIGTERM of the UI",
    "SIGINT of the group",
)
PARTS = {
    "SIGKILL of the daemon": "data_platform.cli.daemon",
    "SIGKILL of what runs are forked from": "multiprocessing.forkserver",
    "SIGKILL of the code server": "dagster api grpc",
    "SIGKILL of the code server's parent": "dagster code-server start",
    "SIGKILL of the web server": "data_platform.cli.webserver",
    "SIGKILL of dp ui": "data_platform.cli ui",
}
"""Which process of a `dp ui` each kind is about, by its command line."""


@dataclass(frozen=True)
class Kill:
    """One kill: of what, where it fell, seconds until the next run's first step started. `ended` is how long what was
    killed took to end, where it was asked to."""

    by: str
    kind: str
    phase: str
    recovered: float
    ended: float = 0.0

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Killer:
    """Kills what runs in a project. `instants` decides when; `log` is where the processes write."""

    project: Project
    instance: dg.DagsterInstance
    instants: random.Random
    log: Path
    kills: list[Kill] = field(default_factory=list)
    say: Callable[[str], object] = print

    # What runs are there, and what they do

    def runs(self) -> set[str]:
        return set(self.instance.get_run_ids(limit=30))

    def first_step(self, before: set[str], since: float = 0.0) -> float | None:
        """When the first step started of a run that was not there before, or of any run after a time."""
        started = [at for at, _ in self._steps(before) if at >= since]
        return min(started, default=None)

    def _steps(self, before: set[str]) -> list[tuple[float, str]]:
        return [step for run_id in self.runs() - before for step in self._steps_of(run_id)]

    def _steps_of(self, run_id: str) -> list[tuple[float, str]]:
        records = self.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_START).records
        return [(one.event_log_entry.timestamp, str(one.event_log_entry.step_key)) for one in records]

    def _models_ended(self, before: set[str]) -> bool:
        for run_id in self.runs() - before:
            for one in self.instance.get_records_for_run(
                run_id, of_type={dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}
            ).records:
                if one.event_log_entry.step_key == "models":
                    return True
        return False

    def _is_committing(self) -> bool:
        if not self.project.settings.catalog_is_sqlite:
            query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = %s"
            low = ADVISORY_LOCK % 2**32
            with psycopg.connect(self.project.catalog) as connection:
                return connection.execute(query, [low]).fetchone() != (0,)
        lock = Path(f"{self.project.catalog}.writer.lock")
        return lock.exists() and any(
            line.split()[5].endswith(f":{lock.stat().st_ino}") for line in Path("/proc/locks").read_text().splitlines()
        )

    # dp run

    def start_run(self, **more: str) -> "subprocess.Popen[bytes]":
        return self.project.start("run", log=self.log, **more)

    def kill_runs(self, count: int) -> None:
        """Kill that many `dp run`, each started as soon as the one before is dead."""
        phases, kinds = _mixed(PHASES, count, self.instants), _mixed_kinds(count, self.instants)
        before, began = self.runs(), time.time()
        first = self.start_run()
        self._note("dp run", "nothing, at first", "none", self._until_step(first, before) - began, 0.0)
        running: tuple[subprocess.Popen[bytes], set[str]] | None = (first, before)
        for phase, kind in zip(phases, kinds, strict=True):
            apart = {"DATA_PLATFORM_EXECUTOR": "multiprocess"} if kind in RUN_KINDS[4:] else {}
            while True:
                if running is not None and (apart or phase == "start"):
                    self._let_end(running[0])
                    running = None
                before = self.runs() if running is None else running[1]
                victim = self.start_run(**apart) if running is None else running[0]
                running = None
                if self._wait_for(victim, phase, before, kind):
                    break
                self._let_end(victim)
            running = self._kill_run(victim, kind, phase)
        if running is not None:
            self._let_end(running[0])

    def _kill_run(self, victim: "subprocess.Popen[bytes]", kind: str, phase: str) -> "tuple[Any, set[str]]":
        killed = time.time()
        if kind == "SIGKILL of a step":
            steps = [one for one in _children(victim.pid) if "spawn_main" in _command(one)]
            if steps:
                os.kill(self.instants.choice(steps), signal.SIGKILL)
            else:
                kind = "SIGKILL of the parent"
        if kind == "SIGKILL of the group":
            os.killpg(victim.pid, signal.SIGKILL)
        elif kind in ("SIGKILL of dp run", "SIGKILL of the parent"):
            victim.send_signal(signal.SIGKILL)
        elif kind == "SIGTERM":
            victim.send_signal(signal.SIGTERM)
        elif kind == "SIGINT":
            os.killpg(victim.pid, signal.SIGINT)
        victim.wait(PATIENCE)
        ended = time.time() - killed
        # What was asked to end may have begun a run meanwhile.
        before = self.runs()
        following = self.start_run()
        recovered = self._until_step(following, before, since=killed if kind == "SIGKILL of a step" else 0.0)
        self._note("dp run", kind, phase, recovered - killed, ended)
        return following, before

    def _wait_for(self, victim: "subprocess.Popen[bytes]", phase: str, before: set[str], kind: str) -> bool:
        """Wait until a run is in a phase, and then some; whether it is there yet."""
        commits, step = self.instants.randint(1, MOST_COMMITS), STEPS.get(phase)
        until = time.monotonic() + PATIENCE
        while phase != "start":
            assert time.monotonic() < until, f"dp run did not come to {phase}:\n{self.tail()}"
            if victim.poll() is not None:
                return False
            if phase == "commit":
                if self.first_step(before) is not None:
                    for _ in range(commits):
                        while not self._is_committing() and victim.poll() is None:
                            time.sleep(0.002)
                        time.sleep(0.01)
                    break
            elif phase == "end":
                if self._models_ended(before):
                    break
            elif any(name.startswith(str(step)) for _, name in self._steps(before)):
                break
            time.sleep(LOOK)
        longer = 4 if kind in RUN_KINDS[4:] and phase in STEPS else 1
        time.sleep(self.instants.uniform(0, LONGEST[phase] * longer))
        return victim.poll() is None

    def _until_step(self, process: "subprocess.Popen[bytes]", before: set[str], since: float = 0.0) -> float:
        until = time.monotonic() + PATIENCE
        while (at := self.first_step(set() if since else before, since)) is None:
            assert time.monotonic() < until, f"no run began its first step:\n{self.tail()}"
            assert process.poll() in (None, 0), f"what followed failed:\n{self.tail()}"
            time.sleep(LOOK)
        return at

    def _let_end(self, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait(PATIENCE)
        if code:
            self.say(f"a run ended with {code}:\n{self.tail()}")

    # dp ui

    @contextmanager
    def ui(self) -> Iterator["Ui"]:
        ui = Ui(self.project, self.log)
        ui.start()
        try:
            yield ui
        finally:
            ui.stop()

    def kill_uis(self, count: int) -> None:
        """Kill parts of a `dp ui` that many times while its sensors run what comes."""
        before, began = self.runs(), time.time()
        with self.ui() as ui:
            self._note("dp ui", "nothing, at first", "none", self._until_ui(ui, before, set()) - began, 0.0)
            for kind in _mixed(UI_KINDS, count, self.instants):
                victim = self._run_process(ui)
                time.sleep(self.instants.uniform(0, 8))
                part, ends = PARTS.get(kind), kind not in (*PARTS, "SIGKILL of the run")
                if kind == "SIGKILL of the run" and not Path(f"/proc/{victim}").exists():
                    victim = self._run_process(ui)
                before, jobs = self.runs(), self._jobs_under_way()
                killed = time.time()
                if kind == "SIGKILL of the run":
                    _kill(victim)
                elif part is not None:
                    for process in [pid for pid, command in ui.processes().items() if part in command]:
                        _kill(process)
                elif kind == "SIGKILL of the UI":
                    for process in ui.processes():
                        _kill(process)
                elif kind == "SIGTERM of the UI":
                    ui.process.terminate()
                else:
                    os.killpg(ui.process.pid, signal.SIGINT)
                ended = 0.0
                if ends:
                    ui.process.wait(PATIENCE)
                    ended = time.time() - killed
                if Path(f"/proc/{victim}").exists():
                    jobs = set()  # that run goes on, and the next of its source comes after it
                recovered = self._until_ui(ui, before, jobs)
                self._note("dp ui", kind, ", ".join(sorted(jobs)) or "none", recovered - killed, ended)

    def _run_process(self, ui: "Ui") -> int:
        """The process of a run, once there is one."""
        until = time.monotonic() + PATIENCE
        while True:
            executing = {process_of(self.instance, run_id) for run_id in running(self.instance)}
            found = [pid for pid in ui.processes() if pid in executing]
            if found:
                return max(found)
            assert time.monotonic() < until, f"no run began:\n{ui.tail()}"
            ui.keep()
            time.sleep(LOOK)

    def _jobs_under_way(self) -> set[str]:
        return {run.job_name for run in self.instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))}

    def _until_ui(self, ui: "Ui", before: set[str], jobs: set[str]) -> float:
        """When the first step started of new runs: of one of each of `jobs`, or of any."""
        until, found = time.monotonic() + PATIENCE, dict[str, float]()
        while not found or jobs - set(found):
            assert time.monotonic() < until, f"no run of {jobs - set(found)} began its first step:\n{ui.tail()}"
            ui.keep()
            time.sleep(LOOK)
            for run in self.instance.get_runs(limit=30):
                steps = self._steps_of(run.run_id) if run.run_id not in before and run.job_name not in found else []
                if steps:
                    found[run.job_name] = min(at for at, _ in steps)
        return max(found[job] for job in jobs) if jobs else min(found.values())

    def _note(self, by: str, kind: str, phase: str, recovered: float, ended: float) -> None:
        kill = Kill(by, kind, phase, round(recovered, 2), round(ended, 2))
        self.kills.append(kill)
        self.say(f"{len(self.kills):3} {kill.by}: {kind}, {phase}: {recovered:.1f} s (ended after {ended:.1f} s)")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Ui:
    """A `dp ui` that is started again when it ends, as a service manager does."""

    def __init__(self, project: Project, log: Path) -> None:
        self.project, self.log, self.port = project, log, free_port()

    def start(self) -> None:
        self.process = self.project.start("ui", "--port", str(self.port), log=self.log)

    def keep(self) -> None:
        """Start it again if it ended."""
        if self.process.poll() is not None:
            self.start()

    def processes(self) -> dict[int, str]:
        """The processes that it started, and their command lines."""
        return {pid: command for pid in _session(self.process.pid) if (command := _command(pid))}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for process in self.processes():
                _kill(process)
            self.process.wait()

    def tail(self) -> str:
        said = self.project.home / "dagster" / "ui.log"
        return f"{self.log.read_text(errors='replace')[-1000:]}\n{said.read_text(errors='replace')[-3000:]}"


def wait_until_nothing_runs(project: Project, seconds: float = 120) -> list[str]:
    """Wait until no process of a project is there; those that are for all that."""
    until = time.monotonic() + seconds
    while (left := processes_of(project)) and time.monotonic() < until:
        time.sleep(0.2)
    return [f"{pid}: {command[:150]}" for pid, command in left.items()]


def _mixed(choices: tuple[str, ...], count: int, instants: random.Random) -> list[str]:
    """So many of the choices, each as often as the others, in any order."""
    found = [choices[number % len(choices)] for number in range(count)]
    instants.shuffle(found)
    return found


def _mixed_kinds(count: int, instants: random.Random) -> list[str]:
    """Of the kinds that need a process for each step, which take long, a fourth as many as of the others."""
    return _mixed((*RUN_KINDS[:4] * 4, *RUN_KINDS[4:]), count, instants)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _session(session: int) -> list[int]:
    return [pid for pid, of, _ in _listed() if of == session]


def _children(parent: int) -> list[int]:
    """The processes below one."""
    listed, found = _listed(), [parent]
    for one in found:
        found += [pid for pid, _, of in listed if of == one]
    return found[1:]


def _listed() -> list[tuple[int, int, int]]:
    """Process, session and parent of all that run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parts = status.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if parts[0] != "Z":
            found.append((int(status.parent.name), int(parts[3]), int(parts[1])))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
