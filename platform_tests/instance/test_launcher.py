"""Runs that are forked from a process which has imported the libraries: real runs of real jobs, in an instance that is
configured as the platform's is."""

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from data_platform.instance.launcher import PRELOADED, ForkingRunLauncher
from data_platform.instance.liveness import end_dead_runs, process_of

CODE = """
import os, sys, time
from pathlib import Path
import dagster as dg

@dg.op
def quick():
    Path(__file__).with_name("warm").write_text(str("data_platform.components.platform" in sys.modules))

@dg.op
def slow():
    Path(__file__).with_name("begun").touch()
    time.sleep(60)

@dg.job(executor_def=dg.in_process_executor)
def quick_job():
    quick()

@dg.job(executor_def=dg.in_process_executor)
def slow_job():
    slow()

defs = dg.Definitions(jobs=[quick_job, slow_job])
"""
FORKED = """
import multiprocessing, os, sys
from data_platform.instance.launcher import PRELOADED

def tell():
    print(len(os.listdir("/proc/self/task")), *sys.modules)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=tell)
    process.start()
    process.join()
"""
PATIENCE = 60


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "run_launcher: {module: data_platform.instance.launcher, class: ForkingRunLauncher}\n"
        "telemetry: {enabled: false}\n"
    )
    (tmp_path / "code.py").write_text(CODE)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        yield instance


def launched(instance: dg.DagsterInstance, folder: Path, job: str, code: str = "code.py") -> str:
    """The id of a run of a job, just launched."""
    origin = RepositoryPythonOrigin(sys.executable, FileCodePointer(str(folder / code), "defs", str(folder)))
    definition = runpy.run_path(str(folder / "code.py"))[job]
    run = instance.create_run_for_job(
        definition, job_code_origin=JobPythonOrigin(job, origin), status=dg.DagsterRunStatus.STARTING
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, None))
    return run.run_id


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.05)


def status(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def finished(instance: dg.DagsterInstance, run_id: str) -> str:
    until(lambda: dg.DagsterRunStatus(status(instance, run_id)) not in NOT_FINISHED)
    return status(instance, run_id)


NOT_FINISHED = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def test_a_run_ends_well_with_the_libraries_imported_before(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert isinstance(instance.run_launcher, ForkingRunLauncher)
    run_id = launched(instance, tmp_path, "quick_job")
    assert finished(instance, run_id) == "SUCCESS"
    assert (tmp_path / "warm").read_text() == "True"


def test_a_run_executes_the_code_as_it_is_now(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert finished(instance, launched(instance, tmp_path, "quick_job")) == "SUCCESS"
    (tmp_path / "code.py").write_text(CODE.replace('str("data_platform', 'str("changed" and "data_platform'))
    (tmp_path / "warm").unlink()
    (tmp_path / "code.py").write_text(CODE.replace('.with_name("warm")', '.with_name("changed")'))
    assert finished(instance, launched(instance, tmp_path, "quick_job")) == "SUCCESS"
    assert (tmp_path / "changed").exists()
    assert not (tmp_path / "warm").exists()


def test_a_run_that_is_terminated_ends_as_cancelled(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run_id = launched(instance, tmp_path, "slow_job")
    until((tmp_path / "begun").exists)
    assert instance.run_launcher.terminate(run_id)
    assert finished(instance, run_id) == "CANCELED"
    assert not instance.run_launcher.terminate(run_id)


def test_a_run_whose_process_is_killed_is_found_dead(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run_id = launched(instance, tmp_path, "slow_job")
    until((tmp_path / "begun").exists)
    process = process_of(instance, run_id)
    assert process is not None
    os.kill(process, 9)
    until(lambda: run_id in end_dead_runs(instance))
    assert status(instance, run_id) == "FAILURE"
    assert process_of(instance, run_id) is None


@pytest.mark.parametrize("text", ["import nothing_of_this_name\n", "defs = (\n", "raise SystemExit(3)\n"])
def test_a_run_whose_code_cannot_be_loaded_fails_within_seconds(
    instance: dg.DagsterInstance, tmp_path: Path, text: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    run_id = launched(instance, tmp_path, "quick_job", "broken.py")

    def over() -> bool:
        end_dead_runs(instance)
        return status(instance, run_id) == "FAILURE"

    until(over)


def test_a_run_that_nobody_executes_is_not_terminated(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.instance.launcher.BEGINS", 0.2)
    job = dg.JobDefinition(name="elsewhere", graph_def=dg.GraphDefinition(name="elsewhere"))
    run_id = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id
    assert not instance.run_launcher.terminate(run_id)
    assert "No process of this machine executes this run." in [entry.message for entry in instance.all_logs(run_id)]


def test_a_run_of_unknown_code_is_not_launched(instance: dg.DagsterInstance) -> None:
    job = dg.JobDefinition(name="unknown", graph_def=dg.GraphDefinition(name="unknown"))
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
    with pytest.raises(dg.DagsterInvariantViolationError, match="does not say which code"):
        instance.run_launcher.launch_run(LaunchRunContext(run, None))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_the_process_that_runs_are_forked_from_has_one_thread(tmp_path: Path) -> None:
    # One that has more may hold a lock in the moment of the fork, which nobody would ever release in the run.
    (tmp_path / "forked.py").write_text(FORKED)
    told = subprocess.run([sys.executable, "forked.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    threads, *imported = told.stdout.split()
    assert threads == "1"
    assert set(PRELOADED) <= set(imported)
