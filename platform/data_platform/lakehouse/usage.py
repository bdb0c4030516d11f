"""What the present process has used so far: processor time and memory. What a step used is the difference, which its
row in the ledger keeps. Nothing here measures other processes: taps, Debezium's Java, servers.
"""

import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Usage:
    """`cpu_seconds` is the time of all processors between two moments, of all threads of the process: of steps that it
    does at the same time each has the time of all. `peak_bytes` is the most memory that the process held up to the
    second moment, since its beginning: a bound for the step."""

    cpu_seconds: float
    peak_bytes: int


def cpu_seconds() -> float:
    """The processor time of this process so far, of all its threads [s]."""
    return time.process_time()


def used_since(began: float) -> Usage:
    """What was used since `cpu_seconds` gave `began`."""
    return Usage(cpu_seconds() - began, peak_bytes())


def peak_bytes() -> int:
    """The most memory that this process held so far [bytes]."""
    # Not `ru_maxrss`, where there is better: that of a child begins with what its parent held.
    found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    if found is not None:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
