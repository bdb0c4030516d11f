"""The queue of the daemon that `dp ui` starts, in a process that ends while it launches a run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from data_platform.instance.liveness import end_dead_runs, hold, running

LAUNCHING = """
import os, signal, sys
from types import SimpleNamespace
import dagster as dg
from data_platform.cli.daemon import PromptQueue
from data_platform.instance.launcher import ForkingRunLauncher

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def end(*_):
    sys.exit(3)

def fail(*_):
    raise OSError("no process")

home, run_id, launch = sys.argv[1:]
ForkingRunLauncher.launch_run = globals()[launch]
with dg.DagsterInstance.from_config(home) as instance:
    runs = [instance.get_run_by_id(run_id)]
    workspace = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    queue, config = PromptQueue(interval_seconds=1), instance.get_concurrency_config()
    list(queue._dequeue_runs_iter(workspace, instance.run_coordinator, runs, config, fixed_iteration_time=None))
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    launcher = "{module: data_platform.instance.launcher, class: ForkingRunLauncher}"
    (tmp_path / "dagster.yaml").write_text(f"run_launcher: {launcher}\ntelemetry: {{enabled: false}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@dg.job
def empty() -> None:
    """Nothing."""


def queued(instance: dg.DagsterInstance) -> str:
    location = RegisteredCodeLocationOrigin("platform")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("empty")
    return instance.create_run_for_job(empty, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin).run_id


def launched(instance: dg.DagsterInstance, run_id: str, launch: str) -> int:
    """The exit code of what launched a run in this way."""
    code = subprocess.run([sys.executable, "-c", LAUNCHING, instance.root_directory, run_id, launch], check=False)
    return code.returncode


def status_of(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


@pytest.mark.parametrize(("launch", "code"), [("die", -9), ("end", 3)])
def test_a_run_is_found_dead_if_the_daemon_ends_after_it_said_that_the_run_starts(
    instance: dg.DagsterInstance, launch: str, code: int
) -> None:
    run_id = queued(instance)
    ended = launched(instance, run_id, launch)
    assert (ended, status_of(instance, run_id)) == (code, "STARTING")
    assert end_dead_runs(instance) == [run_id]
    assert (status_of(instance, run_id), running(instance)) == ("FAILURE", set())


def test_a_run_that_cannot_be_launched_fails_at_once_and_leaves_nothing_held(instance: dg.DagsterInstance) -> None:
    run_id = queued(instance)
    ended = launched(instance, run_id, "fail")
    assert (ended, status_of(instance, run_id)) == (0, "FAILURE")
    assert (end_dead_runs(instance), running(instance)) == ([], set())


def test_a_run_that_was_cancelled_in_the_queue_is_not_launched(instance: dg.DagsterInstance) -> None:
    run_id = queued(instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_canceled(run)
    ended = launched(instance, run_id, "die")
    assert (ended, status_of(instance, run_id)) == (0, "CANCELED")
    assert end_dead_runs(instance) == []


def test_a_run_that_was_to_be_launched_and_is_queued_still_is_launched_later(instance: dg.DagsterInstance) -> None:
    run_id = queued(instance)
    hold(instance.root_directory, run_id, begun=False)()
    assert end_dead_runs(instance) == []
    assert (status_of(instance, run_id), running(instance)) == ("QUEUED", set())
