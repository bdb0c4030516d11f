"""`python -m data_platform.cli.development`: Dagster's command line, whose `dev` starts the web server with access
control in the place of Dagster's own. Nothing else of Dagster is changed.
"""

import runpy
import sys
from collections.abc import Sequence
from typing import Any

DAGSTERS_OWN = [sys.executable, "-m", "dagster_webserver"]
OURS = [sys.executable, "-m", "data_platform.cli.webserver"]


def with_access_control(command: Sequence[str]) -> list[str]:
    """A command, with the web server that controls access if it starts Dagster's. Raises RuntimeError if it starts that
    in a way that is not known here, as another release of Dagster may: it would answer any web page."""
    own = len(DAGSTERS_OWN)
    if list(command[:own]) == DAGSTERS_OWN:
        return [*OURS, *command[own:]]
    if any("webserver" in part for part in command):
        raise RuntimeError(f"Dagster starts its web server by another command than {DAGSTERS_OWN}: {command}.")
    return list(command)


def main() -> None:
    """The entry point: the arguments are those of `dagster`."""
    from dagster._cli import dev

    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]

    def start_guarded(parts: Sequence[str], **options: Any) -> Any:
        return start(with_access_control(parts), **options)

    dev.open_ipc_subprocess = start_guarded  # type: ignore[attr-defined]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
