"""A process that loads and stages a collection is killed at random instants while somebody writes all along: what is
staged is what is in MongoDB, each document once."""

import threading

import pytest
from platform_tests.ingestion.mongodb.documents import Documents
from platform_tests.ingestion.mongodb.killed import Writing, load_and_stage
from platform_tests.kills import OFTEN, kill_amid_loads

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings


@pytest.mark.parametrize("kills", [OFTEN])
def test_after_any_number_of_kills_every_document_is_there_once_with_its_newest_value(
    settings: Settings, documents: Documents, kills: int
) -> None:
    writing = Writing(documents)
    writer = threading.Thread(target=writing.run)
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    kill_amid_loads(settings, kills, "read_mongodb", documents.url, documents.name)
    writing.stopped.set()
    writer.join()
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, documents.url, documents.name)
        staged = lake.connection.execute("SELECT id, n FROM staged_shop.t").fetchall()
        assert len(staged) == len(writing.newest)
        assert dict(staged) == writing.newest
