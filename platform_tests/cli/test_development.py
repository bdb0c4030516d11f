"""What `dp ui` starts beside itself: it is started again when it is killed, and does not outlive what started it. The
real UI is killed in `platform_tests/crash`."""

import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._daemon import controller, sensor
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from platform_tests.cli.test_ui import wait_until

from data_platform.cli import daemon, development
from data_platform.cli.development import Kept, end_if_mute

CHILD = """
import time
from data_platform.cli.development import end_with_parent
end_with_parent()
print("there", flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def sleeping(code: str = "import time; time.sleep(60)") -> "Callable[[], subprocess.Popen[Any]]":
    return lambda: subprocess.Popen([sys.executable, "-c", code])


def test_what_a_signal_ended_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "LEAST_SECONDS", 0)
    kept = Kept(sleeping())
    first = kept.pid
    kept.kill()
    wait_until(lambda: kept.poll() is None and kept.pid != first)
    kept.kill()
    assert kept.wait(20) < 0


def test_what_is_killed_at_once_is_not_started_for_ever() -> None:
    kept = Kept(sleeping())
    kept.kill()
    wait_until(lambda: kept.poll() is not None)
    assert kept.poll() == -9


def test_what_ended_by_itself_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "LEAST_SECONDS", 0)
    kept = Kept(sleeping("raise SystemExit(3)"))
    wait_until(lambda: kept.poll() is not None)
    assert kept.poll() == 3


def test_a_process_ends_with_the_one_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "there\n"
    (child,) = _children(parent.pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not _lives(child))


class Server:
    """A code server of Dagster's whose answers are given; `killed` when it was."""

    def __init__(self, *answers: bool) -> None:
        self.answers, self.server_process, self.asked = list(answers), self, 0

    def create_client(self) -> "Server":
        return self

    def ping(self, _: str) -> None:
        self.asked += 1
        if not self.answers:
            raise SystemExit  # the thread that asks ends
        if not self.answers.pop(0):
            raise DagsterUserCodeUnreachableError("nobody is there")

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.answers.append(False)
        raise ProcessLookupError("it was killed")


@pytest.mark.parametrize(
    ("answers", "killed"),
    [((False, False, False), True), ((False, False, True, False, False, True), False), ((True,) * 5, False)],
)
def test_a_code_server_that_refuses_to_answer_is_killed_and_one_that_answers_now_and_then_is_not(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[bool, ...], killed: bool
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(ProcessLookupError if killed else SystemExit):
        end_if_mute(Server(*answers))


def _children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, of in map(str.split, listed.splitlines()) if int(of) == parent]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not stat.startswith("Z") and bool(stat)


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What `daemon.main` has begun; the settings that it makes for its process are undone afterwards."""
    begun: list[str] = []
    monkeypatch.setattr(sensor, "MIN_INTERVAL_LOOP_TIME", sensor.MIN_INTERVAL_LOOP_TIME)
    monkeypatch.setattr(controller, "QueuedRunCoordinatorDaemon", QueuedRunCoordinatorDaemon)
    monkeypatch.setattr(QueuedRunCoordinator, "submit_run", lambda _, context: context)
    monkeypatch.setattr(daemon, "end_with_parent", lambda: None)
    monkeypatch.setattr(runpy, "run_module", lambda name, **_: begun.append(name))
    yield begun
    daemon.PromptQueue.enqueued.set()


def test_the_daemon_looks_twice_a_second_which_sensors_are_due(daemons: list[str]) -> None:
    assert sensor.MIN_INTERVAL_LOOP_TIME == 5
    daemon.main()
    assert daemons == ["dagster._daemon"]
    assert sensor.MIN_INTERVAL_LOOP_TIME == 0.5
    # It is not a default that was bound before.
    assert "MIN_INTERVAL_LOOP_TIME" in sensor.execute_sensor_iteration_loop.__code__.co_names


def test_a_run_that_the_daemon_enqueues_is_launched_at_once(
    daemons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.main()
    assert daemons
    with dg.instance_for_test(
        overrides={"run_queue": {"dequeue_interval_seconds": 600}, "telemetry": {"enabled": False}}
    ) as instance:
        queue = controller.create_daemon_of_type(QueuedRunCoordinatorDaemon.daemon_type(), instance)
        looked: list[float] = []

        def look(*_: Any) -> Iterator[None]:
            looked.append(time.monotonic())
            yield from ()

        monkeypatch.setattr(type(queue), "run_iteration", look)
        loop = queue.core_loop(None, threading.Event())
        threading.Thread(target=lambda: [next(loop), next(loop)], daemon=True).start()
        wait_until(lambda: len(looked) == 1)
        assert instance.run_coordinator.submit_run("a run") == "a run"  # type: ignore[arg-type,comparison-overlap]
        wait_until(lambda: len(looked) == 2)
