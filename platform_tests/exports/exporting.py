"""The process whose children export and are killed, for tests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from platform_tests.workers import ROOT

from data_platform.lakehouse.settings import Settings


@pytest.fixture(scope="module")
def exporter() -> Iterator["subprocess.Popen[str]"]:
    """The process whose children are killed."""
    command = [sys.executable, "-m", "platform_tests.exports.killed"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def killed(exporter: "subprocess.Popen[str]", settings: Settings, kind: str, url: str, mode: str, point: str) -> bool:
    """Export in a process of its own that dies at a point; whether it came there."""
    assert exporter.stdin is not None
    assert exporter.stdout is not None
    given = [kind, url, mode, point, str(settings.home), settings.catalog, settings.data]
    print(json.dumps(given), file=exporter.stdin, flush=True)
    status = int(exporter.stdout.readline())
    assert status in (0, -signal.SIGKILL)
    return status != 0
