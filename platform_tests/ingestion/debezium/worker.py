"""A process that loads and stages a shop's changes again and again, until somebody kills it:
`python -m platform_tests.ingestion.debezium.worker KIND URL`, with the lakehouse named by the environment."""

import os
import subprocess
import sys

from platform_tests.ingestion.debezium.shop import TABLES, Shop
from platform_tests.workers import ROOT

from data_platform.contracts import Contract, Field
from data_platform.ingestion import load as load_module
from data_platform.ingestion.debezium import reading
from data_platform.ingestion.load import load_tables
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

READING = "changes"


class Row(Contract):
    """A row of either table: those of one number are written together."""

    id: int
    total: int = Field(nullable=True)


def load_and_stage(lake: Lakehouse, at: Shop) -> None:
    """Land what is new, and stage it."""
    load_tables(lake, "shop", at.source(), READING, TABLES, run_id="run-1")
    for name in TABLES:
        stage_table(lake, Recipe("shop", name, ("id",), Row), run_id="run-1")


def start(settings: Settings, at: Shop) -> "subprocess.Popen[bytes]":
    """Start the process on a lakehouse."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    command = [sys.executable, "-m", "platform_tests.ingestion.debezium.worker", at.kind, at.url]
    return subprocess.Popen(command, env=environment, cwd=ROOT)


def main(kind: str, url: str) -> None:
    # So that there are many commits to be killed in.
    load_module.CHUNK_ROWS, reading.FLUSH_ROWS, reading.FLUSH_SECONDS = 60, 30, 0.05
    with open_lakehouse(settings_from_environment()) as lake:
        while True:
            load_and_stage(lake, Shop(kind, url))


if __name__ == "__main__":
    main(*sys.argv[1:])
