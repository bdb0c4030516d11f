"""A process that loads and stages a collection is killed at random instants while somebody writes all along: what is
staged is what is in MongoDB, each document once."""

import random
import threading
import time

import pytest
from platform_tests import workers
from platform_tests.ingestion.mongodb.documents import Documents
from platform_tests.ingestion.mongodb.killed import Writing, load_and_stage

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

KILLS = 8


@pytest.mark.crash
def test_after_any_number_of_kills_every_document_is_there_once_with_its_newest_value(
    settings: Settings, documents: Documents
) -> None:
    writing = Writing(documents)
    writer = threading.Thread(target=writing.run)
    instants = random.Random(f"kills {KILLS}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    loads = 0
    for _ in range(KILLS):
        worker = workers.start(settings, "read_mongodb", documents.url, documents.name)
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
        load_and_stage(lake, documents.url, documents.name)
        staged = lake.connection.execute("SELECT id, n FROM staged_shop.t").fetchall()
        assert len(staged) == len(writing.newest)
        assert dict(staged) == writing.newest
