"""What reads by programs of others, a tap and a resource of dlt, is killed at random instants, the tap by itself too,
with a writer at the source all along: nothing is lost, nothing comes twice but the row at a tap's bookmark, the order
is kept, and no tap outlives who started it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
from platform_tests import workers
from platform_tests.ingestion.followed import READINGS, SETUP, check, follow, processes, writing
from platform_tests.kills import KILLS
from platform_tests.servers import Postgres, fresh_database

from data_platform.ingestion.singer.tap import installed
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

CASES = [
    pytest.param("tap", "sqlite", 2),
    pytest.param("dlt", "sqlite", 2),
    *(
        pytest.param(kind, catalog, KILLS, marks=pytest.mark.crash)
        for kind in ("tap", "dlt")
        for catalog in ("sqlite", "postgresql")
    ),
]
PATIENCE = 120


@pytest.mark.parametrize(("kind", "settings", "kills"), CASES, indirect=["settings"])
def test_after_any_number_of_kills_every_row_is_there_in_order_and_no_tap_is_left(
    settings: Settings, postgres: Postgres, kind: str, kills: int
) -> None:
    with fresh_database(postgres) as url:
        with psycopg.connect(url, autocommit=True) as server:
            for statement in SETUP:
                server.execute(statement.encode())
        with writing(url) as writer:
            killed(settings, kind, url, kills)
        with open_lakehouse(settings) as lake:
            follow(lake, kind, url)
            check(lake, writer.last)


def killed(settings: Settings, kind: str, url: str, kills: int) -> None:
    """Kill a worker, or the tap that it runs, that often: every third time some time after it has committed, else
    whatever it does, its start included."""
    instants = random.Random(f"{kind} {kills} {settings.catalog_is_sqlite}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    worker = workers.start(settings, "follow_program", kind, url)
    for number in range(kills):
        if number % 3 == 0:
            wait_for(partial(has_moved, settings, kind, position(settings, kind)), worker, "nothing was committed")
        time.sleep(instants.uniform(0, 6))
        if kind == "tap" and number % 2:
            wait_for(lambda: processes(settings), worker, "no tap was started")
            time.sleep(instants.uniform(0, 2))
            for tap in processes(settings):
                # It may have ended by itself meanwhile.
                with suppress(ProcessLookupError):
                    os.kill(tap, signal.SIGKILL)
        else:
            worker.kill()
            worker.wait()
            left(settings)
            worker = workers.start(settings, "follow_program", kind, url)
    worker.kill()
    worker.wait()
    left(settings)


def position(settings: Settings, kind: str) -> str:
    with open_lakehouse(settings, read_only=True) as lake:
        return str(ledger.head(lake, "raw", "crm", READINGS[kind]).position)


def has_moved(settings: Settings, kind: str, before: str) -> bool:
    return position(settings, kind) != before


def wait_for(happened: Callable[[], object], worker: "subprocess.Popen[bytes]", otherwise: str) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        assert worker.poll() is None, "the worker has ended"
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


def left(settings: Settings) -> None:
    """No tap is left of a worker that was killed."""
    until = time.monotonic() + 20
    while processes(settings):
        assert time.monotonic() < until, "a tap outlives who started it"
        time.sleep(0.1)


@pytest.mark.crash
def test_an_installation_that_is_killed_is_begun_anew_and_no_pip_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from data_platform.ingestion.singer.tap import installed\n"
        "installed('tap-jsonl==0.3.1', 'tap-jsonl', Path(sys.argv[1]))\n"
    )
    for seconds in (0.5, 4.0):
        killed = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        while not list(tmp_path.glob("taps/*/bin/python")):
            time.sleep(0.05)
        time.sleep(seconds)
        killed.kill()
        killed.wait()
    until = time.monotonic() + 20
    while subprocess.run(["pgrep", "-f", f"{tmp_path}/taps"], capture_output=True, check=False).stdout:
        assert time.monotonic() < until, "pip goes on"
        time.sleep(0.2)
    program = installed("tap-jsonl==0.3.1", "tap-jsonl", tmp_path)
    assert subprocess.run([program, "--version"], capture_output=True, check=True).stdout
