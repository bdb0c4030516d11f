"""A real Luigi beside the platform: its scheduler's API and the marker of its task say that the task has ended."""

import os
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from platform_tests.servers import free_port, require_servers

from data_platform.external.commands import run_command
from data_platform.external.markers import file_version, http_value
from data_platform.external.options import CommandStart, HttpMarker
from data_platform.ingestion.files.storage.local import LocalFolder

RELEASE = "3.8.1"

TASK = """
import luigi

class Report(luigi.Task):
    def output(self):
        return luigi.LocalTarget("out/_SUCCESS")

    def run(self):
        with self.output().open("w") as marker:
            marker.write("done")
"""


@pytest.fixture(scope="module")
def luigi() -> Path:
    """The folder of Luigi's programs, installed once into a cache outside of the checkout."""
    cache = Path(os.environ.get("SERVER_CACHE", "~/.cache/data_platform_servers")).expanduser() / f"luigi-{RELEASE}"
    programs = cache / "bin"
    if not (programs / "luigid").exists():
        venv.create(cache, with_pip=True)
        installed = subprocess.run(
            [programs / "python", "-m", "pip", "install", "--quiet", f"luigi=={RELEASE}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
            pytest.skip(f"no Luigi here: it cannot be installed ({installed.stderr.strip()[-200:]})")
        assert not installed.returncode, installed.stderr
    return programs


@pytest.fixture(scope="module")
def luigid(luigi: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Luigi's scheduler."""
    require_servers()
    folder, port = tmp_path_factory.mktemp("luigid"), free_port()
    command = [f"{luigi}/luigid", "--address", "127.0.0.1", "--port", str(port), "--state-path", f"{folder}/state"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                requests.get(f"{url}/api/task_list", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url
        process.terminate()


def test_a_task_of_luigi_is_known_by_its_scheduler_and_by_its_marker(luigi: Path, luigid: str, tmp_path: Path) -> None:
    (tmp_path / "report.py").write_text(TASK)
    (tmp_path / "out").mkdir()
    path = "/api/task_list?data=%7B%22status%22%3A%20%22DONE%22%2C%20%22upstream_status%22%3A%20%22%22%7D"
    task = "Report__99914b932b"
    given = {"type": "http", "url": luigid, "path": path, "value": ["response", task, "status"], "equals": "DONE"}
    scheduler, place = HttpMarker.model_validate(given), LocalFolder(tmp_path / "out")
    assert http_value(scheduler) is None
    assert file_version(place, "_SUCCESS") is None
    port = luigid.rpartition(":")[2]
    line = [str(luigi / "luigi"), "--module", "report", "Report", "--scheduler-host", "127.0.0.1"]
    options = CommandStart(
        type="command", command=["/usr/bin/env", f"PYTHONPATH={tmp_path}", *line, "--scheduler-port", port]
    )
    said: list[str] = []
    run_command("report", options, tmp_path, said.append)
    assert http_value(scheduler) == "DONE", said
    assert (file_version(place, "_SUCCESS") or "").startswith("_SUCCESS ")
