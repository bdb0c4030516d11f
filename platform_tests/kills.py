"""How often the tests kill what they test: a few times with all other tests, often with `make test-crash`; and how
those do it whose worker loads one table over and over."""

import os
import random
import time

import pytest
from platform_tests import workers

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

KILLS = int(os.environ.get("KILLS", "10"))
"""How often `make test-crash` kills in each of its tests: often enough to have found what there was to find, and few
enough for each change. `KILLS=25 make test-crash` looks longer."""

OFTEN = pytest.param(KILLS, marks=pytest.mark.crash)
"""The number of kills of a test that runs with `make test-crash` alone."""


def kill_amid_loads(settings: Settings, kills: int, action: str, *arguments: str, table: str = "t") -> None:
    """Start a worker that loads a table of `shop`, and kill it up to half a second after it has committed something, so
    many times."""
    instants, loads = random.Random(f"kills {kills}"), 0
    for _ in range(kills):
        worker = workers.start(settings, action, *arguments)
        until = time.monotonic() + 60
        with open_lakehouse(settings, read_only=True) as lake:
            before = loads
            while loads == before:
                assert worker.poll() is None, "the worker failed by itself"
                assert time.monotonic() < until, "the worker committed nothing"
                time.sleep(0.01)
                loads = ledger.last_landed(lake, "shop", table)
        time.sleep(instants.uniform(0, 0.5))
        worker.kill()
        worker.wait()
