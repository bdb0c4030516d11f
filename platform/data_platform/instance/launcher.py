"""How a run gets its process: forked from one that imported the libraries before, which saves the seconds that these
take. A run loads its platform's definitions itself, from the files as they are: only what is installed is imported
before.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, serialize_value

from data_platform.instance.liveness import hold, process_of

if TYPE_CHECKING:
    from dagster._config.config_schema import UserConfigSchema
    from dagster._serdes import ConfigurableClassData

PRELOADED = [
    "dagster._cli",
    "dagster._core.storage.fs_io_manager",
    "data_platform.components.platform",
    "data_platform.instance.storage",
    "data_platform.modelling.build",
    "data_platform.modelling.plugin",
    "dbt.adapters.duckdb.impl",
    "dbt.cli.main",
    "dbt.parser.manifest",
    "dbt.task.build",
]
"""What most runs import. A module that is not installed is passed over."""

BEGINS = 5.0
"""Seconds that a run which is to be ended has for saying which process executes it."""


class ForkingRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Starts the runs of this machine, each in a process of its own."""

    def __init__(self, inst_data: "ConfigurableClassData | None" = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> "ConfigurableClassData | None":
        return self._inst_data

    @classmethod
    def config_type(cls) -> "UserConfigSchema":
        return {}

    @classmethod
    def from_config_value(cls, inst_data: "ConfigurableClassData | None", config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run. Raises DagsterInvariantViolationError for a run whose code is not known,
        DagsterLaunchFailedError if its process ends before it begins."""
        run = context.dagster_run
        origin = run.job_code_origin
        if origin is None:
            raise dg.DagsterInvariantViolationError(f"Run {run.run_id} does not say which code it is to execute.")
        home = self._instance.root_directory
        arguments = serialize_value(ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()))
        # Held from here on, so that a run is found dead whenever it dies, and if this process ends before Dagster has
        # said that the launch failed.
        release = hold(home, run.run_id, begun=False)
        try:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            with receiver, sender:
                _start({"target": execute, "args": (home, run.run_id, arguments, sender)})
                sender.close()
                receiver.recv()
        except EOFError:
            reason = f"The process of run {run.run_id} ended before it began to execute it."
            raise DagsterLaunchFailedError(reason) from None  # type: ignore[no-untyped-call]
        finally:
            release()

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run, which ends it as cancelled; whether there is one."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        until = time.monotonic() + BEGINS
        while (process := process_of(self._instance, run_id)) is None:
            if time.monotonic() > until:
                self._instance.report_engine_event("No process of this machine executes this run.", run)
                return False
            time.sleep(0.1)
        os.kill(process, signal.SIGINT)
        return True


def _start(process: dict[str, Any]) -> None:
    if sys.platform == "linux":
        warm = multiprocessing.get_context("forkserver")
        warm.set_forkserver_preload(PRELOADED)
        warm.Process(**process).start()
    else:
        # On macOS a process whose libraries were used is not safe to go on after a fork.
        multiprocessing.get_context("spawn").Process(**process).start()


def execute(home: str, run_id: str, arguments: str, begun: Connection) -> None:
    """Execute a run in this process, which is its alone. `home` is Dagster's, `arguments` are those of its own command
    that executes a run, serialized; `begun` is sent True as soon as the run is held."""
    from dagster._cli.api import execute_run_command

    hold(home, run_id)
    with begun:
        begun.send(True)
    execute_run_command.main([arguments], standalone_mode=False)
