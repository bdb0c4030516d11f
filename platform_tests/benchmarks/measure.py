"""Cases are measured side by side: in turns, each in a process of its own, and the median counts. What is measured
belongs in the modules of the benchmarks; how it is shown in `report`.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_platform.lakehouse.settings import REPOSITORY

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A function of one of the benchmarks' modules (`module:name`) and its arguments, which JSON must be able to hold.

    It is also given `folder`, an empty one for each run. `whole` takes the time of its process from start to end rather
    than that of what it returns. `variables` are added to its environment.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a case took: medians of wall time and CPU time [s], and the most memory of any run [MiB]."""

    seconds: float
    cpu: float
    peak: float
    rows: int
    runs: tuple[float, ...] = ()


class CaseError(RuntimeError):
    """A case ended with an error; the message holds what it wrote."""


def measure(cases: Mapping[str, Case], scratch: Path, repeats: int, say: Say) -> dict[str, Measured]:
    """Run all cases in turns, `repeats` times. Raises CaseError if one fails."""
    runs: dict[str, list[Measured]] = {name: [] for name in cases}
    for turn in range(1, repeats + 1):
        for name, case in cases.items():
            say(f"{name} ({turn} of {repeats})")
            runs[name].append(run(case, scratch))
    return {name: _median(measured) for name, measured in runs.items()}


def _median(runs: Sequence[Measured]) -> Measured:
    return Measured(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu for run in runs),
        max(run.peak for run in runs),
        runs[-1].rows,
        tuple(run.seconds for run in runs),
    )


def run(case: Case, scratch: Path) -> Measured:
    """Run a case once. Raises CaseError, with its output, if it fails."""
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="run-"))
    outcome, log = folder / "outcome.json", folder / "log"
    arguments = json.dumps({**case.arguments, "folder": str(folder)})
    command = [sys.executable, "-m", "platform_tests.benchmarks.worker", case.function, arguments, str(outcome)]
    environment = {**os.environ, **case.variables}
    # Without compiled bytecode the imports of a process would be most of what it does.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        with log.open("w") as stream:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output = log.read_text(errors="replace")[-4000:]
            raise CaseError(f"{case.function} ended with status {process.returncode}:\n{output}")
        figures = json.loads(outcome.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if case.whole:
        figures |= {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime}
    return Measured(figures["seconds"], figures["cpu"], figures["peak"], figures["rows"])


def prepare(function: str, scratch: Path, **arguments: Any) -> Measured:
    """Run a case that only makes data for others, in a process of its own like them."""
    return run(Case(function, arguments), scratch)
