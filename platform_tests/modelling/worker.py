"""What other processes do while a test watches: `python -m platform_tests.modelling.worker TASK ARGUMENT...`, with the
lakehouse named by the environment. Each prints one line of JSON when it ends."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from platform_tests import workers
from platform_tests.modelling.project import SmallProject

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment


def load(settings: Settings, stop: str) -> dict[str, Any]:
    """Load again and again until the file `stop` exists: when each load began, and the seconds that it took."""
    loads = []
    with open_lakehouse(settings) as lake:
        while not Path(stop).exists():
            began = time.time()
            load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="load")
            loads.append((began, time.time() - began))
    return {"loads": loads}


def build(settings: Settings, folder: str) -> dict[str, Any]:
    """Build all models once."""
    try:
        results = SmallProject(Path(folder), settings).build()
    except PlatformError as error:
        return {"refused": str(error)}
    return {"published": [model for model, result in results.items() if result.published]}


def build_forever(settings: Settings, folder: str) -> dict[str, Any]:
    """Stage a sale and build all models, until somebody ends this process."""
    project = SmallProject(Path(folder), settings)
    while True:
        project.stage("INSERT INTO staged_shop.sales SELECT max(number) + 1, 'more' FROM staged_shop.sales")
        project.build()


def start(settings: Settings, *arguments: object) -> subprocess.Popen[bytes]:
    """Start a worker on the lakehouse of `settings`."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{workers.ROOT / 'platform'}{os.pathsep}{workers.ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    command = [sys.executable, "-m", "platform_tests.modelling.worker", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=workers.ROOT, stdout=subprocess.PIPE)


def main(arguments: Sequence[str]) -> None:
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"load": load, "build": build, "build_forever": build_forever}
    print(json.dumps(tasks[arguments[0]](settings_from_environment(), *arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])
