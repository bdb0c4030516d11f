"""Real `dp run` processes, killed while they load, and those that come after them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.ingestion.http.server import Answer, Api, Asked, running_api
from platform_tests.lineage_receiver import receiver

from data_platform.cli.init import init_platform
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import REPOSITORY, settings_from_environment

pytestmark = pytest.mark.crash

DEFS = """\
type: data_platform.components.RestSource
attributes:
  url: "{{ env.SHOP_URL }}"
  tables:
    orders: {key: [id], path: /orders, contract: acme.defs.shop.contracts.Order}
"""
CONTRACT = """\
from data_platform.contracts import Contract


class Order(Contract):
    \"\"\"An order.\"\"\"

    id: int
"""
WAITED_SECONDS = 60
"""How long a test waits for a process to do something, on a machine that is busy."""


class Shop:
    """A source that answers when it is told to, and a platform of its own that reads it."""

    def __init__(self, folder: Path, extensions: Path, api: Api) -> None:
        self.repository, self.home, self.api = folder / "repository", folder / "home", api
        self.answers = threading.Event()
        self.environment: dict[str, str] = {}
        api.answer = self._answer
        platform = self.repository / "platform"
        shutil.copytree(REPOSITORY / "platform", platform, ignore=shutil.ignore_patterns("__pycache__", "nyc_flights"))
        for name in ("workspace.yaml", "pyproject.toml"):
            shutil.copyfile(REPOSITORY / name, self.repository / name)
        init_platform(self.repository, self.home / "landing", "acme")
        (self.home / "extensions").symlink_to(extensions)
        source = platform / "acme" / "defs" / "shop"
        source.mkdir()
        (source / "__init__.py").touch()
        (source / "contracts.py").write_text(CONTRACT)
        (source / "defs.yaml").write_text(DEFS)

    def _answer(self, asked: Asked) -> Answer:
        self.answers.wait(WAITED_SECONDS)
        return Answer([{"id": 1}, {"id": 2}])

    def run(self) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "DATA_PLATFORM_HOME": str(self.home),
            "PYTHONPATH": str(self.repository / "platform"),
            "SHOP_URL": self.api.url,
            **self.environment,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "data_platform.cli", "run", "shop", "--platform", "acme"],
            env=environment,
            cwd=self.repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_asked(self, times: int, run: "subprocess.Popen[str]") -> None:
        """Wait until the source was asked as often, of late by `run`."""
        until = time.monotonic() + WAITED_SECONDS
        while len(self.api.asked) < times:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until, "nobody asked"
            time.sleep(0.05)

    def orders(self) -> list[tuple[int]]:
        with open_lakehouse(settings_from_environment({"DATA_PLATFORM_HOME": str(self.home)}), read_only=True) as lake:
            return lake.connection.execute("SELECT id FROM staged_shop.orders ORDER BY id").fetchall()


@pytest.fixture
def shop(home: Path, tmp_path: Path) -> Iterator[Shop]:
    with running_api(lambda _: Answer([])) as api:
        (home / "extensions").mkdir(exist_ok=True)
        yield Shop(tmp_path, home / "extensions", api)


def test_after_a_run_was_killed_while_it_read_the_next_one_loads_and_reports_its_end(shop: Shop) -> None:
    with receiver() as (url, events):
        shop.environment["OPENLINEAGE_URL"] = url
        killed = shop.run()
        shop.wait_until_asked(1, killed)
        until = time.monotonic() + WAITED_SECONDS
        while not events and time.monotonic() < until:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        shop.answers.set()
        output, _ = shop.run().communicate(timeout=WAITED_SECONDS)
    assert shop.orders() == [(1,), (2,)], output
    said = [event["eventType"] for event in events if event["run"]["runId"] == events[0]["run"]["runId"]]
    assert said == ["START", "FAIL"]
    assert [event["eventType"] for event in events].count("FAIL") == 1


def test_a_run_that_waits_for_one_that_is_killed_goes_on_and_says_for_what_it_waited(shop: Shop) -> None:
    killed = shop.run()
    shop.wait_until_asked(1, killed)
    waiting = shop.run()
    assert waiting.stdout is not None
    said = next(line for line in waiting.stdout if "waits for a slot" in line)
    assert said.startswith("raw/shop/orders waits for a slot of pool shop, held by run")
    assert len(shop.api.asked) == 1, "two runs read the source at once"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    shop.wait_until_asked(2, waiting)
    shop.answers.set()
    output, _ = waiting.communicate(timeout=WAITED_SECONDS)
    assert shop.orders() == [(1,), (2,)], output


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_while_it_reads_ends_at_once_and_the_next_one_loads(
    shop: Shop, told: signal.Signals
) -> None:
    # A shell that starts the tests in the background has SIGINT ignored, which the run would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = shop.run()
    shop.wait_until_asked(1, stopped)
    shop.answers.set()
    stopped.send_signal(told)
    output, _ = stopped.communicate(timeout=WAITED_SECONDS)
    assert stopped.returncode in (130, -told), output
    output, _ = shop.run().communicate(timeout=WAITED_SECONDS)
    assert shop.orders() == [(1,), (2,)], output
