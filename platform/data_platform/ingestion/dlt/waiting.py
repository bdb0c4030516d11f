"""How long other people's code is waited for: a resource of dlt is Python that may wait for ever. What it gives is
`source`'s business.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue

import pyarrow as pa

from data_platform.errors import TransientError

LEAVING_SECONDS = 5.0
"""How long code that is wanted no more is waited for, so that it can close what it has open."""

LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """Seconds: how long a resource may give nothing, and how long all of a reading may take."""

    idle: float
    total: float


class Progress:
    """When the code last gave something, on the clock of `time.monotonic`."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def made(self) -> None:
        """Something was given."""
        self.last = time.monotonic()


def in_time(
    read: Callable[[Progress], Iterator[pa.Table]], limits: Limits, where: str, name: str
) -> Iterator[pa.Table]:
    """What `read` gives, which runs in a thread of its own and tells its progress.

    Raises what it raises, and TransientError when a limit has passed. No thread can be ended from outside: that which
    was waited for in vain is left behind, and ends with the process.
    """
    progress, ended = Progress(), threading.Event()
    given: Queue[pa.Table | BaseException | None] = Queue(maxsize=1)

    def put(one: pa.Table | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                given.put(one, timeout=LOOK_SECONDS)
            except Full:
                continue
            progress.made()
            return True
        return False

    def run() -> None:
        tables = read(progress)
        try:
            for table in tables:
                if not put(table):
                    break
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, which raises it
            put(error)
        finally:
            close = getattr(tables, "close", None)
            if close is not None:
                close()
            put(None)

    thread = threading.Thread(target=run, name=f"dlt {name}", daemon=True)
    began = time.monotonic()
    thread.start()
    late = False
    try:
        while True:
            try:
                one = given.get(timeout=min(LOOK_SECONDS, limits.idle / 4, limits.total / 4))
            except Empty:
                _refuse_silent(progress, limits, where, name)
                _refuse_long(began, limits, where, name)
                continue
            _refuse_long(began, limits, where, name)
            if one is None:
                return
            if isinstance(one, BaseException):
                raise one
            yield one
    except TransientError:
        late = True
        raise
    finally:
        ended.set()
        thread.join(LEAVING_SECONDS)
        if late and thread.is_alive():
            # Python has no public place for what is to be done before it waits for the threads of pools, which dlt's
            # are, for ever.
            threading._register_atexit(_end_process, thread)  # type: ignore[attr-defined]


def _end_process(thread: threading.Thread) -> None:
    """At the end of the main thread: end the process, whose load failed, if the resource is still waited for."""
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _refuse_silent(progress: Progress, limits: Limits, where: str, name: str) -> None:
    if time.monotonic() - progress.last > limits.idle:
        raise TransientError(
            f"{where} gave nothing of {name} for {limits.idle:g} s (`idle_timeout`). It is tried again by the next "
            "load. Look what it waits for, and give its own requests a time-out."
        )


def _refuse_long(began: float, limits: Limits, where: str, name: str) -> None:
    if time.monotonic() - began > limits.total:
        raise TransientError(
            f"{where} took longer than {limits.total:g} s to give {name} (`load_timeout`). Nothing of it was kept "
            "that had not been committed. Give it an incremental, or raise the limit."
        )
