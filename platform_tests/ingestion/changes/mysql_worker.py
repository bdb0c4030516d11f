"""A process that loads and stages the shop's changes again and again, until somebody kills it:
`python -m platform_tests.ingestion.changes.mysql_worker URL`, with the lakehouse named by the environment."""

import os
import subprocess
import sys

from platform_tests.ingestion.changes.mysql_shop import changes, table
from platform_tests.workers import ROOT

from data_platform.contracts import Contract, Field
from data_platform.ingestion import load as load_module
from data_platform.ingestion.changes.mysql import copy, reading
from data_platform.ingestion.load import load_tables
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

READING = "changes"
TABLES = {"t": table(), "u": table()}


class Row(Contract):
    """A row of either table: those of one number are written together."""

    id: int
    total: int = Field(nullable=True)


def load_and_stage(lake: Lakehouse, url: str) -> None:
    """Land what is new, and stage it."""
    load_tables(lake, "shop", changes(url, TABLES), READING, TABLES, run_id="run-1")
    for name in TABLES:
        stage_table(lake, Recipe("shop", name, ("id",), Row), run_id="run-1")


def start(settings: Settings, url: str) -> "subprocess.Popen[bytes]":
    """Start the process on a lakehouse."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    command = [sys.executable, "-m", "platform_tests.ingestion.changes.mysql_worker", url]
    return subprocess.Popen(command, env=environment, cwd=ROOT)


def main(url: str) -> None:
    # So that there are many commits to be killed in.
    load_module.CHUNK_ROWS, copy.COPY_ROWS, reading.FLUSH_ROWS = 100, 40, 60
    with open_lakehouse(settings_from_environment()) as lake:
        while True:
            load_and_stage(lake, url)


if __name__ == "__main__":
    main(sys.argv[1])
