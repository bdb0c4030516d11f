"""`dp ui` as a process: what it starts, and that all of it ends with it. Processes, signals and ports are real; in the
place of Dagster, which takes ten seconds to start, stands a package that notes how it was started and waits. The real
UI is driven in `platform_tests/browser`. The stand-ins sleep until a signal ends them, at most a minute: one that a
failed test leaves behind ends by itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from platform_tests.cli.conftest import Dp
from platform_tests.servers import free_port

from data_platform.cli.ui import keep_small, require_free
from data_platform.lakehouse.settings import REPOSITORY

DAGSTER = """
import json, os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
told = {"arguments": sys.argv[1:], "cwd": os.getcwd(), "home": os.environ["DAGSTER_HOME"]}
told["prefix"] = os.environ.get("DAGSTER_WEBSERVER_PATH_PREFIX")
partial = Path(os.environ["TOLD"] + ".part")
partial.write_text(json.dumps(told))
partial.replace(os.environ["TOLD"])
print("a step of a run", flush=True)
print("an error of a sensor", file=sys.stderr, flush=True)
if os.environ.get("DIES"):
    sys.exit(int(os.environ["DIES"]))
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(0)
sys.exit(3)
"""
MANAGER = "class ProxyServerManager:\n    _process_monitoring_thread = None\n"
SERVICE = """
import sys
def command(settings):
    return [sys.executable, "-c", "import time; time.sleep(60)"]
def nothing(settings):
    return None
"""
ENTRY_POINTS = "[data_platform.services]\nsleeper = fake_service:command\nnone = fake_service:nothing\n"


class Ui:
    """A `dp ui` beside stand-ins of Dagster and of a package with a service, in a session as in a terminal."""

    def __init__(self, folder: Path, *arguments: str, ignores_interrupts: bool = False, **variables: str) -> None:
        self.told, self.port = folder / "told.json", free_port()
        (folder / "dagster").mkdir()
        (folder / "dagster" / "__init__.py").touch()
        (folder / "dagster" / "__main__.py").write_text(DAGSTER)
        (folder / "dagster" / "_cli").mkdir()
        (folder / "dagster" / "_cli" / "__init__.py").touch()
        (folder / "dagster" / "_cli" / "dev.py").write_text("from subprocess import Popen as open_ipc_subprocess")
        (folder / "dagster" / "_cli" / "proxy_server_manager.py").write_text(MANAGER)
        (folder / "fake_service.py").write_text(SERVICE)
        (folder / "fake-1.dist-info").mkdir()
        (folder / "fake-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1\n")
        (folder / "fake-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
        path = f"{folder}{os.pathsep}{REPOSITORY / 'platform'}"
        # What a shell's `&` does to the programs that it starts in the background.
        ignored = signal.SIG_IGN if ignores_interrupts else signal.SIG_DFL
        start = f"import os, sys, signal as s; s.signal(s.SIGINT, {int(ignored)}); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", start, sys.executable, "-m", "data_platform.cli"),
                *("ui", "--port", str(self.port), *arguments),
            ],
            env={**os.environ, "PYTHONPATH": path, "TOLD": str(self.told), **variables},
            cwd=folder,
            start_new_session=True,
            stdout=(folder / "terminal").open("w"),
            stderr=subprocess.STDOUT,
        )
        self.terminal = folder / "terminal"

    def started(self) -> dict[str, object]:
        """How Dagster was started, once it was."""
        wait_until(lambda: self.told.exists() or self.process.poll() is not None)
        told: dict[str, object] = json.loads(self.told.read_text())
        return told

    def processes(self) -> list[int]:
        """What still runs of all that it started, itself included."""
        listed = subprocess.run(["ps", "-axo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
        found = [line.split() for line in listed.splitlines()]
        of_ours = [(int(pid), state) for pid, session, state in found if int(session) == self.process.pid]
        return [pid for pid, state in of_ours if not state.startswith("Z")]

    def end(self) -> None:
        """Kill, by their ids, what a failed test left."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def wait_until(condition: Callable[[], bool], patience: float = 20) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


Start = Callable[..., Ui]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a `dp ui`; whatever becomes of the test, nothing of it is left."""
    begun: list[Ui] = []

    def begin(*arguments: str, ignores_interrupts: bool = False, **variables: str) -> Ui:
        (tmp_path / "stand_ins").mkdir()
        begun.append(Ui(tmp_path / "stand_ins", *arguments, ignores_interrupts=ignores_interrupts, **variables))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def test_a_taken_port_is_said_in_one_message_and_nothing_is_started(dp: Dp, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **_: started.append(command))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = dp("ui", "--port", str(port))
    assert result.exit_code == 1
    assert f"Port {port} on 127.0.0.1 is taken" in result.stderr
    assert f"dp ui --port {port + 1}" in result.stderr
    assert result.stdout == ""
    assert started == []


@pytest.mark.parametrize("prefix", ["lake", "/lake/", "/", "//lake", "/a b", "/../lake", "https://data.example.com"])
def test_a_prefix_that_is_no_path_is_refused(dp: Dp, prefix: str) -> None:
    result = dp("ui", "--path-prefix", prefix)
    assert result.exit_code == 1
    assert f"--path-prefix {prefix!r} is no path" in " ".join(result.stderr.split())


def test_a_port_whose_last_user_has_just_gone_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            # The side that closes first keeps the port for a minute (TIME_WAIT).
            server.accept()[0].close()
            assert client.recv(1) == b""
    require_free(port)


def test_dagster_serves_this_machine_alone_from_the_checkout_with_the_platforms_home(
    start: Start, tmp_path: Path
) -> None:
    ui = start()
    told = ui.started()
    arguments = " ".join(told["arguments"])  # type: ignore[arg-type]
    assert arguments == f"dev -w {REPOSITORY / 'workspace.yaml'} -h 127.0.0.1 -p {ui.port}"
    assert told["cwd"] == str(REPOSITORY)
    assert told["home"] == str(tmp_path / "home" / "dagster")
    assert told["prefix"] is None
    assert (tmp_path / "home" / "dagster" / "dagster.yaml").exists()


def test_the_terminal_shows_the_address_and_a_file_what_dagster_says(start: Start, tmp_path: Path) -> None:
    ui = start("--path-prefix", "/lake")
    assert ui.started()["prefix"] == "/lake"
    log = tmp_path / "home" / "dagster" / "ui.log"
    wait_until(lambda: "an error of a sensor" in log.read_text())
    assert "a step of a run" in log.read_text()
    (line,) = ui.terminal.read_text().splitlines()
    assert line.startswith(f"http://127.0.0.1:{ui.port}/lake (")
    assert line.endswith(str(log))


def test_a_log_that_has_become_large_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.cli.ui.LOG_BYTES", 10)
    log = tmp_path / "ui.log"
    keep_small(log)
    with log.open("ab", buffering=0) as out:
        for text in (b"short\n", b"and then longer\n", b"new\n"):
            out.write(text)
            keep_small(log)
    assert log.read_text() == "new\n"
    assert (tmp_path / "ui.log.1").read_text() == "short\nand then longer\n"


def test_ctrl_c_in_a_terminal_ends_dagster_and_the_services(start: Start) -> None:
    ui = start()
    ui.started()
    assert len(ui.processes()) == 3
    os.killpg(ui.process.pid, signal.SIGINT)
    assert ui.process.wait(20) == 0
    assert ui.processes() == []


def test_an_interrupt_of_the_ui_alone_ends_dagster_and_the_services(start: Start) -> None:
    ui = start()
    ui.started()
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(20) == 0
    assert ui.processes() == []


def test_a_ui_that_is_terminated_takes_dagster_and_the_services_along(start: Start) -> None:
    ui = start()
    ui.started()
    ui.process.terminate()
    assert ui.process.wait(20) == 0
    assert ui.processes() == []


def test_dagster_takes_interrupts_though_a_shell_started_the_ui_in_the_background(start: Start) -> None:
    ui = start(ignores_interrupts=True)
    ui.started()
    os.killpg(ui.process.pid, signal.SIGINT)
    assert ui.process.wait(20) == 0


def test_a_ui_whose_dagster_ends_ends_with_its_exit_code_and_takes_the_services_along(start: Start) -> None:
    ui = start(DIES="7")
    assert ui.process.wait(20) == 7
    assert "an error of a sensor" in ui.terminal.read_text()
    assert ui.processes() == []
