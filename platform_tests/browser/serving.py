"""A real `dp ui` for the browser tests, and how they wait for it. What is seen in it belongs to the tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from platform_tests.servers import free_port

IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(
        shutil.which("chromium") is None and "DATA_PLATFORM_NO_SKIPS" not in os.environ,
        reason="chromium is not installed: apt-get install chromium",
    ),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 90
"""Seconds that a thing may take to show; two cores are shared with the daemon and its runs."""


def dp(*arguments: str, env: Mapping[str, str]) -> str:
    done = subprocess.run(["dp", *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], bool], reason: Callable[[], object] = str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, reason()
        time.sleep(0.2)


def environment(home: Path) -> dict[str, str]:
    """An environment for a platform of its own in `home`, with the `dp` of this Python."""
    foreign = ("DAGSTER_HOME", "PYTHONDONTWRITEBYTECODE", "LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {
        **kept,
        "DATA_PLATFORM_HOME": str(home),
        "WEATHER_URL": f"http://127.0.0.1:{free_port()}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def processes(session: int) -> list[int]:
    """The processes of a session that still run."""
    listed = subprocess.run(["ps", "-axo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, of, state in found if int(of) == session and not state.startswith("Z")]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:  # noqa: S310 - loopback
            return bool(json.load(answer)["dagster_version"])
    except OSError:
        return False


@contextmanager
def serving(home: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The address of a `dp ui` that runs; nothing of it is left afterwards. Its output is kept in `home/ui.log`."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", home / "ui.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            ["dp", "ui", "--port", str(port)], env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        said = home / "dagster" / "ui.log"
        wait_until(lambda: server.poll() is not None or answers(url), said.read_text)
        assert server.poll() is None, log.read_text()
        yield url
        server.terminate()
        server.wait(PATIENCE)
        # Its code servers end some seconds after it.
        wait_until(lambda: not processes(server.pid), lambda: processes(server.pid))
    finally:
        for pid in processes(server.pid):
            os.kill(pid, signal.SIGKILL)
        server.wait()
