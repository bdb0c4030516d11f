"""A job that is a command of this machine. It ends with whoever started it, also if that is killed: so it never runs
twice at the same time."""

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from data_platform.errors import PlatformError, shortened
from data_platform.external.options import CommandStart
from data_platform.external.runs import Ended
from data_platform.ingestion.singer.tap import started
from data_platform.options import duration_text
from data_platform.redaction import scrub

SAID_LINES, SAID_CHARACTERS = 20, 500
"""How much of what a command says stands in the message when it fails."""

VARIABLE = "DATA_PLATFORM_RUN"


def run_command(job: str, options: CommandStart, folder: Path, log: Callable[[str], object]) -> Ended:
    """Run a command in a folder to its end; what it prints is logged. Raises PlatformError if it fails or takes too
    long."""
    run, began = uuid4().hex, time.monotonic()
    command = [part.replace("{run}", run) for part in options.command]
    said: deque[str] = deque(maxlen=SAID_LINES)
    with started(["/usr/bin/env", f"{VARIABLE}={run}", *command], folder) as process, _heard(process, said, log):
        try:
            code = process.wait(options.within.total_seconds())
        except subprocess.TimeoutExpired:
            raise PlatformError(
                f"The command of {job} was ended: it took longer than {duration_text(options.within)} (`within`)."
                f"{_last(said)}"
            ) from None
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise PlatformError(f"The command of {job} ({command[0]}) {how}.{_last(said)}")
    return Ended(run, "0", time.monotonic() - began, False)


def _last(said: "deque[str]") -> str:
    lines = "\n".join(f"  {shortened(scrub(line), SAID_CHARACTERS)}" for line in said if line.strip())
    return f" The last that it said:\n{lines}\n" if lines else ""


@contextmanager
def _heard(process: "subprocess.Popen[bytes]", said: "deque[str]", log: Callable[[str], object]) -> Iterator[None]:
    """Log what a process prints, for the time of the block."""

    def listen(stream: IO[bytes]) -> None:
        for line in stream:
            spoken = line.decode(errors="replace").rstrip()
            said.append(spoken)
            log(shortened(scrub(spoken), SAID_CHARACTERS))

    streams = [one for one in (process.stdout, process.stderr) if one is not None]
    threads = [threading.Thread(target=listen, args=(one,), daemon=True) for one in streams]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        if process.poll() is not None:
            for thread in threads:
                thread.join(5)
