"""Runs whose process was killed: what is noticed of them, what becomes of their slots, and what is left alone."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from data_platform.instance.liveness import FOLDER, end_dead_runs, hold, process_of, running, watched

POOL = "shop"
HOLDING = """
import sys
import dagster as dg
from data_platform.instance.liveness import hold
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    hold(instance.root_directory, sys.argv[2])
    instance.event_log_storage.claim_concurrency_slot("shop", sys.argv[2], "load")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {default_limit: 1}}\ntelemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
        yield instance


@dg.op
def load() -> None:
    """What a run under way has begun."""


@dg.job
def loading() -> None:
    load()


def new_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
    return instance.create_run_for_job(loading, status=status).run_id


@contextmanager
def executed(instance: dg.DagsterInstance, run_id: str) -> "Iterator[subprocess.Popen[str]]":
    """A process that executes a run, and has a slot of the pool."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, instance.root_directory, run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def status(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def holders(instance: dg.DagsterInstance) -> set[str]:
    return instance.event_log_storage.get_concurrency_info(POOL).active_run_ids


def files(instance: dg.DagsterInstance) -> list[str]:
    return [file.name for file in (Path(instance.root_directory) / FOLDER).iterdir()]


@pytest.mark.parametrize(
    ("before", "after"),
    [("STARTED", "FAILURE"), ("STARTING", "FAILURE"), ("CANCELING", "CANCELED"), ("SUCCESS", "SUCCESS")],
)
def test_a_run_whose_process_was_killed_is_ended_and_its_slot_is_free(
    instance: dg.DagsterInstance, before: str, after: str
) -> None:
    run_id = new_run(instance, dg.DagsterRunStatus(before))
    with executed(instance, run_id) as process:
        assert (end_dead_runs(instance), running(instance)) == ([], {run_id})
        assert (status(instance, run_id), holders(instance)) == (before, {run_id})
        process.kill()
        process.wait()
        assert end_dead_runs(instance) == ([run_id] if before != after else [])
    assert (status(instance, run_id), holders(instance), files(instance)) == (after, set(), [])
    messages = [entry.message for entry in instance.all_logs(run_id)]
    assert sum("The process that executed this run is gone" in message for message in messages) == (before != after)
    assert end_dead_runs(instance) == []


def test_runs_that_are_executed_elsewhere_or_have_not_begun_are_left_alone(instance: dg.DagsterInstance) -> None:
    runs = {one: new_run(instance, one) for one in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED)}
    claimed = instance.event_log_storage.claim_concurrency_slot(POOL, runs[dg.DagsterRunStatus.STARTED], "load")
    assert claimed.is_claimed
    assert (end_dead_runs(instance), running(instance)) == ([], set())
    assert holders(instance) == {runs[dg.DagsterRunStatus.STARTED]}
    assert {status(instance, run_id) for run_id in runs.values()} == {"NOT_STARTED", "STARTED"}


def test_slots_of_runs_that_have_ended_or_were_deleted_are_free(instance: dg.DagsterInstance) -> None:
    for ended in (new_run(instance, dg.DagsterRunStatus.FAILURE), "00000000-0000-0000-0000-000000000000"):
        assert instance.event_log_storage.claim_concurrency_slot(POOL, ended, "load").is_claimed
        end_dead_runs(instance)
        assert holders(instance) == set()


def test_a_run_that_ended_well_leaves_nothing_behind(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance)
    release = hold(instance.root_directory, run_id)
    assert (running(instance), end_dead_runs(instance)) == ({run_id}, [])
    release()
    assert (running(instance), end_dead_runs(instance), files(instance)) == (set(), [], [])
    assert status(instance, run_id) == "STARTED"


def test_an_executor_is_watched_without_another_name_or_other_options() -> None:
    for executor in (dg.in_process_executor, dg.multiprocess_executor):
        one = watched(executor)
        assert (one.name, one.config_schema.config_type) == (executor.name, executor.config_schema.config_type)


def test_a_run_is_taken_over_from_what_launched_it(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance, dg.DagsterRunStatus.STARTING)
    release = hold(instance.root_directory, run_id, begun=False)
    assert (running(instance), process_of(instance, run_id), end_dead_runs(instance)) == ({run_id}, None, [])
    with executed(instance, run_id) as process:
        release()
        assert (running(instance), process_of(instance, run_id)) == ({run_id}, process.pid)
        assert end_dead_runs(instance) == []


def test_a_run_that_was_launched_and_whose_process_never_began_is_ended(instance: dg.DagsterInstance) -> None:
    run_id = new_run(instance, dg.DagsterRunStatus.STARTING)
    release = hold(instance.root_directory, run_id, begun=False)
    assert end_dead_runs(instance) == []
    release()
    assert end_dead_runs(instance) == [run_id]
    assert (status(instance, run_id), files(instance)) == ("FAILURE", [])


def test_what_was_left_by_a_process_killed_before_its_file_had_its_name_is_removed(
    instance: dg.DagsterInstance,
) -> None:
    folder = Path(instance.root_directory) / FOLDER
    folder.mkdir()
    left, held = folder / ".left", folder / ".held"
    left.touch()
    descriptor = os.open(held, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert end_dead_runs(instance) == []
    assert (left.exists(), held.exists()) == (False, True)
    os.close(descriptor)


def test_runs_are_held_while_others_remove_what_was_left(instance: dg.DagsterInstance) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            end_dead_runs(instance)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(300):
            release = hold(instance.root_directory, "run")
            assert running(instance) == {"run"}
            release()
    finally:
        over.set()
        looking.join()
