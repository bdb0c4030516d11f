"""`python -m data_platform.cli.development`: Dagster's command line, whose `dev` starts the web server with access
control in the place of Dagster's own, and starts again what of it is killed: the daemon, the web server, the process
that has loaded a code location. None of it outlives the process that started it. Nothing else of Dagster is changed.
"""

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

DAGSTERS_OWN = [sys.executable, "-m", "dagster_webserver"]
OURS = [sys.executable, "-m", "data_platform.cli.webserver"]
DAEMON = [sys.executable, "-m", "dagster._daemon"]
DAEMON_OF_OURS = [sys.executable, "-m", "data_platform.cli.daemon"]

LOOK_SECONDS = 1.0
"""How often a process looks whether those that it depends on are there."""

LEAST_SECONDS = 10.0
"""What is killed sooner after it was started would be killed again: it is not started once more."""

UNANSWERED = 3
"""How often in a row a code server must refuse to answer before it counts as dead."""


def with_access_control(command: Sequence[str]) -> list[str]:
    """A command, with the web server that controls access if it starts Dagster's, and the daemon that does not outlive
    us. Raises RuntimeError if it starts a web server in a way that is not known here, as another release of Dagster
    may: it would answer any web page."""
    own = len(DAGSTERS_OWN)
    if list(command[:own]) == DAGSTERS_OWN:
        return [*OURS, *command[own:]]
    if any("webserver" in part for part in command):
        raise RuntimeError(f"Dagster starts its web server by another command than {DAGSTERS_OWN}: {command}.")
    if list(command[: len(DAEMON)]) == DAEMON:
        return [*DAEMON_OF_OURS, *command[len(DAEMON) :]]
    return list(command)


class Kept:
    """A process that is started again once a signal ended it that was not ours, as the kernel's does that frees memory.
    To Dagster it is the process itself; one that ends with an exit code has ended."""

    def __init__(self, start: "Callable[[], subprocess.Popen[Any]]") -> None:
        self._start = start
        self._begin()

    def _begin(self) -> None:
        self._process, self._since = self._start(), time.monotonic()

    def poll(self) -> int | None:
        """The exit code, if it ended and stays so."""
        code = self._process.poll()
        if code is None or code >= 0 or time.monotonic() - self._since < LEAST_SECONDS:
            return code
        logging.getLogger(__name__).warning(
            "%s was ended by signal %d. It is started again.", self._process.args, -code
        )
        self._begin()
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def end_with_parent() -> None:
    """From now on, interrupt this process when the one that started it is gone: it would keep the UI's port, and run
    the sensors beside those of the next UI."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end_if_mute(server: Any) -> None:
    """Kill a code server of which the process is gone that has loaded the code: it would refuse to answer for ever.
    Dagster starts it again. `server` is Dagster's GrpcServerProcess."""
    from dagster._core.errors import DagsterUserCodeUnreachableError

    unanswered = 0
    while True:
        time.sleep(LOOK_SECONDS)
        asked = time.monotonic()
        try:
            server.create_client().ping("")
        except DagsterUserCodeUnreachableError:
            # One that is busy answers late: that is no refusal.
            unanswered = unanswered + 1 if time.monotonic() - asked < LOOK_SECONDS else 0
        else:
            unanswered = 0
        if unanswered >= UNANSWERED and server.server_process.poll() is None:
            server.server_process.kill()
            unanswered = 0
            time.sleep(LEAST_SECONDS)


def main() -> None:
    """The entry point: the arguments are those of `dagster`."""
    from dagster._cli import dev, proxy_server_manager

    end_with_parent()
    os.environ.setdefault("DAGSTER_CODE_SERVER_AUTO_RESTART_INTERVAL", str(int(LOOK_SECONDS)))
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]

    def start_kept(parts: Sequence[str], **options: Any) -> Any:
        return Kept(lambda: start(with_access_control(parts), **options))

    dev.open_ipc_subprocess = start_kept  # type: ignore[attr-defined]
    dev._CHECK_SUBPROCESS_INTERVAL = LOOK_SECONDS  # type: ignore[assignment]
    manager = proxy_server_manager.ProxyServerManager
    monitor = manager._process_monitoring_thread

    def monitor_both(self: Any, server: Any) -> None:
        threading.Thread(target=end_if_mute, args=(server,), name="code server", daemon=True).start()
        monitor(self, server)

    manager._process_monitoring_thread = monitor_both  # type: ignore[assignment,method-assign]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
