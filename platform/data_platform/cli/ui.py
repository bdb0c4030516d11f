"""`dp ui`: the Dagster UI with its daemon, on this machine alone."""

import os
import sys
from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
) -> None:
    """Start the Dagster UI, with the daemon that runs sensors and schedules."""
    from data_platform.cli.instance import prepare_dagster_home
    from data_platform.lakehouse.settings import REPOSITORY, settings_from_environment

    prepare_dagster_home(settings_from_environment())
    workspace = REPOSITORY / "workspace.yaml"
    # `working_directory` in workspace.yaml counts from the folder in which the server starts.
    os.chdir(REPOSITORY)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    print(f"http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    # In the place of this process, so that signals reach the server.
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
