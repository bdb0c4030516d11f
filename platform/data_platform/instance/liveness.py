"""Which runs are alive. A process that is killed cannot say so: its run would be under way for ever, and keep the slots
of its pools from every other run.

Whatever executes a run on this machine holds a lock of the operating system on a file of that run, below Dagster's
home, as long as its process lives. Each sensor's tick and each run looks for files that nobody holds any more, ends
their runs as failed and frees their slots. A run without a file is executed elsewhere, or waits in the queue: it is
left to Dagster's own monitoring.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg

from data_platform.instance.executors import with_around

FOLDER = "running"
"""Below Dagster's home: a file for each run that is, or was, executed on this machine, called by its id."""

WATCH_SECONDS = 3.0
"""How often a run that is under way looks for others that died: it may wait for their slots."""

DIED = (
    "The process that executed this run is gone: it was killed, ran out of memory, or the machine stopped. What it had "
    "committed stays, what it had not is not there. Its slots are free: run it again, or leave it to the sensor."
)


def hold(home: str, run_id: str, *, begun: bool = True) -> Callable[[], None]:
    """Hold the lock of a run from now on, until the process ends or what is returned is called. That belongs after
    the end of the run was recorded, which is why a process that executes a single run need not call it. `home` is
    Dagster's. Whoever holds a run that another process holds takes it over: from what launches it, which holds it
    before a process has `begun` to execute it, or the process itself once more. What launches a run and lets go of it
    leaves the file: unless a process took it over, the next look ends the run."""
    folder = _folder(home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file, partial = folder / run_id, folder / f".{run_id}"
    descriptor = _locked(partial)
    if begun:
        os.write(descriptor, str(os.getpid()).encode())
    # The file appears under its name once it is locked: nobody meets it free.
    partial.replace(file)

    def release() -> None:
        # Another process may have taken it over, with a file of its own in the place of ours.
        if begun and file.exists() and file.samefile(f"/dev/fd/{descriptor}"):
            file.unlink(missing_ok=True)
        os.close(descriptor)

    return release


def _locked(partial: Path) -> int:
    """Make a file and lock it. What a process that was killed here left free is removed by others: if they took this
    one for such, it is made again."""
    while True:
        descriptor = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists() and partial.samefile(f"/dev/fd/{descriptor}"):
            return descriptor
        os.close(descriptor)


def running(instance: dg.DagsterInstance) -> set[str]:
    """The ids of the runs that a process of this machine executes."""
    return {file.name for file in _files(instance) if not _is_free(file)}


def process_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The id of the process of this machine that executes a run; None if none does."""
    file = _folder(instance.root_directory) / run_id
    if not file.exists() or _is_free(file):
        return None
    process = file.read_text()
    return int(process) if process else None


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """End the runs whose process is gone, and free the slots of those that have ended; the ids of those that were
    ended here."""
    ended, alive = [], set()
    _remove_partial(instance)
    for file in _files(instance):
        with _seized(file) as free:
            if not free:
                alive.add(file.name)
                continue
            run = instance.get_run_by_id(file.name)
            # One that is queued still, or again, is launched later.
            if run is not None and not run.is_finished and run.status is not dg.DagsterRunStatus.QUEUED:
                _end(instance, run)
                ended.append(run.run_id)
            instance.event_log_storage.free_concurrency_slots_for_run(file.name)
            file.unlink(missing_ok=True)
    for run_id in instance.event_log_storage.get_concurrency_run_ids() - alive:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return ended


@contextmanager
def watching(instance: dg.DagsterInstance) -> Iterator[None]:
    """Look for dead runs now, and every few seconds in a thread while the block lasts."""
    from sqlalchemy.exc import SQLAlchemyError  # takes 80 ms, which the definitions need not wait for

    end_dead_runs(instance)
    over = Event()

    def look() -> None:
        while not over.wait(WATCH_SECONDS):
            try:
                end_dead_runs(instance)
            except (SQLAlchemyError, OSError) as error:
                logging.getLogger(__name__).warning("Could not look for dead runs: %s", error)

    thread = Thread(target=look, name="liveness", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def watched(definition: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor whose runs hold their lock as long as their process lives."""

    def around(events: Iterator[dg.DagsterEvent], plan_context: Any) -> Iterator[dg.DagsterEvent]:
        hold(plan_context.instance.root_directory, plan_context.run_id)
        with watching(plan_context.instance):
            yield from events

    return with_around(definition, around)


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, DIED)
    else:
        instance.report_run_failed(run, DIED)


def _folder(home: str) -> Path:
    return Path(home) / FOLDER


def _files(instance: dg.DagsterInstance) -> list[Path]:
    return sorted(file for file in _folder(instance.root_directory).glob("*") if not file.name.startswith("."))


def _remove_partial(instance: dg.DagsterInstance) -> None:
    """Remove what processes left that were killed before their file had its name."""
    for file in _folder(instance.root_directory).glob(".*"):
        with _seized(file) as free:
            if free:
                file.unlink(missing_ok=True)


def _is_free(file: Path) -> bool:
    with _seized(file) as free:
        return free


@contextmanager
def _seized(file: Path) -> Iterator[bool]:
    """Whether nobody holds a file; for the time of the block nobody else does."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its run ended just now.
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        # It may have been renamed, or removed and made anew, before the lock was ours.
        yield file.exists() and file.samefile(f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)
