"""A process that loads and stages a table of a lake is killed at random instants while rows are appended and deleted:
what is staged in the end is what the table holds."""

import random
import threading
import time
from pathlib import Path

import pytest
from platform_tests import workers
from platform_tests.ingestion.lakes.killed import KINDS, Writing, content, load_and_stage
from platform_tests.kills import OFTEN

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings


@pytest.mark.parametrize("kills", [2, OFTEN])
@pytest.mark.parametrize("kind", KINDS)
def test_after_any_number_of_kills_what_is_staged_is_what_the_table_holds(
    settings: Settings, tmp_path: Path, kind: str, kills: int
) -> None:
    writing = Writing(kind, tmp_path, settings)
    writing.make()
    writer, instants = threading.Thread(target=writing.run), random.Random(f"{kind} {kills}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    loads = 0
    try:
        for _ in range(kills):
            worker = workers.start(settings, "follow_lake", kind, tmp_path)
            until, before = time.monotonic() + 60, loads
            with open_lakehouse(settings, read_only=True) as lake:
                while loads == before:
                    assert worker.poll() is None, "the worker failed by itself"
                    assert time.monotonic() < until, "the worker committed nothing"
                    time.sleep(0.01)
                    loads = ledger.last_landed(lake, "lake", "t")
            time.sleep(instants.uniform(0, 0.7))
            worker.kill()
            worker.wait()
    finally:
        writing.stopped.set()
        writer.join()
    assert writing.failure == []
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, kind, tmp_path)
        staged = lake.connection.execute("SELECT id, name FROM staged_lake.t ORDER BY id").fetchall()
    assert staged == content(kind, tmp_path, settings)
    assert len(staged) > 1
