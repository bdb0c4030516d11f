"""A process that loads, stages and publishes is killed at random instants and started again. Afterwards every row is
there once, and at no time did a reader see anything that was not whole and audited.

The short version runs with all other tests; `-m crash` kills often enough to hit every statement of a step.
"""

import random
import subprocess
import time
from pathlib import Path

import pytest
from platform_tests import workers
from platform_tests.kills import OFTEN

from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings
from data_platform.staging.step import stage_table

STARTED_SECONDS = 60


@pytest.mark.parametrize("kills", [3, OFTEN])
def test_after_any_number_of_kills_every_row_is_there_once(settings: Settings, tmp_path: Path, kills: int) -> None:
    instants = random.Random(f"kill {kills} {settings.catalog_is_sqlite}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    reader = workers.start(settings, "read", tmp_path)
    published = 0
    for _ in range(kills):
        worker = workers.start(settings, "work")
        published = wait_for_publication(settings, published, worker)
        time.sleep(instants.uniform(0, 1))
        worker.kill()
        worker.wait()
    (tmp_path / "stop").touch()
    seen = workers.outcome(reader)
    assert seen["wrong"] == []
    assert seen["looks"] >= kills
    with writer_lock(settings, 1), open_lakehouse(settings) as lake:
        check_published(lake)
    with open_lakehouse(settings) as lake:
        load_table(lake, "growing", workers.Growing(batches=1), "entries", workers.TABLE, run_id="last")
        stage_table(lake, workers.RECIPE, run_id="last")
        check_rows(lake)


def wait_for_publication(settings: Settings, published: int, worker: subprocess.Popen[bytes]) -> int:
    """Wait until a worker has been through all of its steps: what it does from then on may be anything."""
    until = time.monotonic() + STARTED_SECONDS
    with open_lakehouse(settings, read_only=True) as lake:
        while True:
            row = lake.connection.execute("SELECT count(*) FROM platform.publications").fetchone()
            if row is not None and row[0] > published:
                return int(row[0])
            assert worker.poll() is None, "the worker failed by itself"
            assert time.monotonic() < until, "the worker published nothing"
            time.sleep(0.01)


def check_rows(lake: Lakehouse) -> None:
    """Raw holds each booking up to the position once, the staged table what the oracle says of them."""
    connection = lake.connection
    head = ledger.head(lake, "raw", "growing", "entries")
    upto = int(head.position["number"])
    raw = connection.execute(
        "SELECT count(*), count(DISTINCT (number, side)), min(number), max(number) + 1, "
        "count(DISTINCT (_load_id, _row)) FROM raw_growing.entries"
    ).fetchone()
    assert raw == (2 * upto, 2 * upto, 0, upto, 2 * upto)
    loads = connection.execute("SELECT count(*), max(load_id), sum(rows_landed)::BIGINT FROM platform.loads").fetchone()
    assert loads == (head.number, head.number, 2 * upto)
    staged = connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
    assert staged == workers.expected_staged(upto)
    bad = connection.execute(
        "SELECT count(*), count(DISTINCT quarantine_id), count(*) FILTER (status = 'open') "
        "FROM quarantine_growing.entries"
    ).fetchone()
    spoiled = 2 * len(range(0, upto, 11))
    assert bad == (spoiled, spoiled, workers.expected_open(upto))
    assert ledger.head(lake, "staged", "growing", "entries").position["load_id"] == str(head.number)


def check_published(lake: Lakehouse) -> None:
    """The view shows the last publication: as many rows, and those of the snapshot that was audited."""
    connection = lake.connection
    last = connection.execute(
        "SELECT snapshot_id, rows FROM platform.publications ORDER BY publication_id DESC LIMIT 1"
    ).fetchone()
    assert last is not None
    published = connection.execute("SELECT key, total, number FROM modelled.totals ORDER BY ALL").fetchall()
    assert len(published) == last[1]
    audited = connection.execute(
        "SELECT key, sum(side * amount), max(number) FROM staged_growing.entries "
        f"AT (VERSION => {int(last[0])}) GROUP BY key ORDER BY ALL"
    ).fetchall()
    assert published == audited
