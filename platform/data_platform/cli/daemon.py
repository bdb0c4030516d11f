"""`python -m data_platform.cli.daemon`: Dagster's daemon as `dp ui` starts it, which does not outlive the process that
started it, looks twice a second which sensors are due, and launches at once the runs that they ask for. The options are
those of `dagster-daemon`. What else the UI starts belongs to `development`.
"""

import runpy
import threading
from typing import Any

import dagster as dg
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._daemon import controller, sensor
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from data_platform.cli.development import end_with_parent
from data_platform.instance.liveness import hold

LOOK_SECONDS = 0.5
"""How often the daemon looks which sensors are due. Dagster's own five seconds are half of the time between rows that
were staged and the models that follow them."""


class PromptQueue(QueuedRunCoordinatorDaemon):
    """Launches queued runs as soon as this process has enqueued one, and otherwise at Dagster's interval
    (`dequeue_interval_seconds`): for those of the UI, and for those that waited for a slot."""

    enqueued = threading.Event()

    def core_loop(self, workspace_process_context: Any, shutdown_event: threading.Event) -> Any:  # noqa: ARG002
        while True:
            # Before the queue is read: what is enqueued from here on is either read now, or ends the wait.
            self.enqueued.clear()
            yield from self.run_iteration(workspace_process_context)
            self.enqueued.wait(self.interval_seconds)
            yield None

    def _dequeue_run(
        self, instance: dg.DagsterInstance, workspace: Any, run: dg.DagsterRun, *options: Any, **more: Any
    ) -> bool:
        queued = instance.get_run_by_id(run.run_id)
        if queued is None or queued.status is not dg.DagsterRunStatus.QUEUED:
            return super()._dequeue_run(instance, workspace, run, *options, **more)
        # Dagster says that the run starts, and launches it after that: killed between the two, nobody would know that
        # it is dead.
        release = hold(instance.root_directory, run.run_id, begun=False)
        try:
            return super()._dequeue_run(instance, workspace, run, *options, **more)
        finally:
            release()


def prompt() -> None:
    """Let Dagster's daemon, in this process, look and launch as promptly as is said above."""
    enqueue = QueuedRunCoordinator.submit_run

    def submit_run(self: QueuedRunCoordinator, context: Any) -> Any:
        run = enqueue(self, context)
        PromptQueue.enqueued.set()
        return run

    sensor.MIN_INTERVAL_LOOP_TIME = LOOK_SECONDS  # type: ignore[assignment]
    QueuedRunCoordinator.submit_run = submit_run  # type: ignore[method-assign,assignment]
    controller.QueuedRunCoordinatorDaemon = PromptQueue  # type: ignore[attr-defined]


def main() -> None:
    """The entry point."""
    end_with_parent()
    prompt()
    runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
