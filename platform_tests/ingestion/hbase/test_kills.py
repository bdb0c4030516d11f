"""A process that loads and stages a table is killed at random instants while somebody writes all along: what is staged
is what is in HBase, each row once."""

import random
import threading
import time

import pytest
from platform_tests import workers
from platform_tests.ingestion.hbase.cells import Cells
from platform_tests.ingestion.hbase.killed import Writing, load_and_stage
from platform_tests.kills import OFTEN

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings


@pytest.mark.parametrize("kills", [2, OFTEN])
def test_after_any_number_of_kills_every_row_is_there_once_with_its_newest_value(
    settings: Settings, cells: Cells, kills: int
) -> None:
    writing = Writing(cells)
    writer = threading.Thread(target=writing.run)
    instants = random.Random(f"kills {kills}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    loads = 0
    for _ in range(kills):
        worker = workers.start(settings, "scan_hbase", cells.url, cells.name)
        until = time.monotonic() + 60
        with open_lakehouse(settings, read_only=True) as lake:
            before = loads
            while loads == before:
                assert worker.poll() is None, "the worker failed by itself"
                assert time.monotonic() < until, "the worker committed nothing"
                time.sleep(0.01)
                loads = ledger.last_landed(lake, "shop", "t")
        time.sleep(instants.uniform(0, 0.5))
        worker.kill()
        worker.wait()
    writing.stopped.set()
    writer.join()
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, cells.url, cells.name)
        staged = lake.connection.execute("SELECT id, n FROM staged_shop.t").fetchall()
        assert len(staged) == len(writing.newest)
        assert dict(staged) == writing.newest
