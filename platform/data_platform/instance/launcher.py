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
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, serialize_value

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
        """Start the process of a run. Raises DagsterInvariantViolationError for a run whose code is not known."""
        run = context.dagster_run
        origin = run.job_code_origin
        if origin is None:
            raise dg.DagsterInvariantViolationError(f"Run {run.run_id} does not say which code it is to execute.")
        arguments = serialize_value(ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()))
        started: dict[str, Any] = {"target": execute, "args": (self._instance.root_directory, run.run_id, arguments)}
        if sys.platform == "linux":
            warm = multiprocessing.get_context("forkserver")
            warm.set_forkserver_preload(PRELOADED)
            warm.Process(**started).start()
        else:
            # On macOS a process whose libraries were used is not safe to go on after a fork.
            multiprocessing.get_context("spawn").Process(**started).start()

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run, which ends it as cancelled; whether there is one."""
        from data_platform.components.liveness import process_of

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


def execute(home: str, run_id: str, arguments: str) -> None:
    """Execute a run in this process, which is its alone. `home` is Dagster's, `arguments` are those of its own command
    that executes a run, serialized."""
    from dagster._cli.api import execute_run_command

    from data_platform.components.liveness import hold

    hold(home, run_id)
    execute_run_command.main([arguments], standalone_mode=False)
