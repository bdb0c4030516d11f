"""A process on a disk of its own that it fills: `python -m platform_tests.attack.filling FOLDER HOME`, which prints as
JSON what each step said. The disk is a small file system in memory, mounted by whoever starts it (`on_small_disk`)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from platform_tests import workers

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.step import stage_table

ROWS = 500
MEGABYTES = 6


def on_small_disk(folder: Path, *command: str) -> "subprocess.CompletedProcess[str] | None":
    """Run a command that sees a file system of MEGABYTES in `folder`; None where this user may not mount one."""
    mount = f'mount -t tmpfs -o size={MEGABYTES}m tmpfs "$0" && exec "$@"'
    for namespace in (["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"]):
        if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
            continue
        return subprocess.run(
            [*namespace, "sh", "-c", mount, str(folder), *command], capture_output=True, text=True, check=False
        )
    return None


def said(step: Callable[[], Any]) -> str:
    """What a step says that fails, as people are told; empty if it does not fail."""
    try:
        step()
    except PlatformError as error:
        return str(error)
    return ""


def load(settings: Settings) -> None:
    with open_lakehouse(settings) as lake:
        load_table(lake, "growing", workers.Growing(1, ROWS), "entries", workers.TABLE, run_id="r")


def stage(settings: Settings) -> None:
    with open_lakehouse(settings) as lake:
        stage_table(lake, workers.RECIPE, run_id="r")


def fill(path: Path) -> None:
    """Leave no byte free."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        return


def fill_and_load(settings: Settings, path: Path) -> None:
    with open_lakehouse(settings) as lake:
        fill(path)
        load_table(lake, "growing", workers.Growing(1, ROWS), "entries", workers.TABLE, run_id="r")


def main(folder: Path, home: Path) -> None:
    settings = Settings(home, str(folder / "catalog.sqlite"), str(folder / "data"))
    load(settings)
    found = {"load that is under way": said(lambda: fill_and_load(settings, folder / "filler"))}
    for name, step in {"load": load, "stage": stage}.items():
        found[name] = said(lambda step=step: step(settings))  # type: ignore[misc]
    (folder / "filler").unlink()
    load(settings)
    stage(settings)
    with open_lakehouse(settings) as lake:
        counts = "SELECT (SELECT count(*) FROM raw_growing.entries), (SELECT sum(rows_landed) FROM platform.loads)"
        found["rows"] = str(lake.connection.execute(counts).fetchone())
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
