"""One case of a benchmark in a process of its own: `python -m platform_tests.benchmarks.worker FUNCTION ARGUMENTS`.

`FUNCTION` is `module:name`, `ARGUMENTS` its keyword arguments as JSON. A case prepares itself and returns what is
timed; that returns how many rows it made, so that a case which did nothing is found out. Nothing heavy is imported
here: the start of the process counts where the whole of it is measured.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mib(status: Path = STATUS) -> float:
    """The most memory that a process has held so far [MiB], by default this one.

    Not `ru_maxrss`, where there is better: that of a child begins with what its parent held.
    """
    if not status.exists():
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def main(function: str, arguments: str, outcome: str) -> None:
    """Run one case and write what it took to the file `outcome`."""
    module, _, name = function.partition(":")
    case: Callable[..., Callable[[], int]] = getattr(import_module(module), name)
    timed = case(**json.loads(arguments))
    wall, cpu = time.perf_counter(), cpu_seconds()
    rows = timed()
    figures = {"seconds": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "peak": peak_mib(), "rows": rows}
    Path(outcome).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
