"""A reader of PostgreSQL's log that is killed at random instants, with writers at the source all along: nothing is
lost, nothing comes twice, no transaction is seen by half, and the source is told of nothing that is not committed."""

import random
import time

import pytest
from platform_tests import workers
from platform_tests.ingestion.changes.postgresql.following import follow, position, query, run, source
from platform_tests.ingestion.changes.postgresql.test_histories import (
    SETUP,
    TABLES,
    check_equal,
    check_halves,
    check_once,
    writing,
)
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.kills import KILLS
from platform_tests.servers import Postgres, fresh_database

from data_platform.ingestion.changes.postgresql.place import from_lsn
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

MORE_ROWS = "insert into keyed select i, nextval('versions'), 'more' from generate_series(1000, 1800) i"
"""So that the copy of a table is killed in its middle."""


def confirmed(url: str) -> int:
    (found,) = query(
        url, "select max(confirmed_flush_lsn)::text from pg_replication_slots where database = current_database()"
    )
    return from_lsn(found[0]) if found[0] else 0


def killed(settings: Settings, postgres: Postgres, kills: int) -> None:
    """Kill a reader so many times, each some time after its first commit, and compare in the end."""
    instants = random.Random(f"changes {settings.catalog_is_sqlite}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    with fresh_database(postgres) as url:
        run(url, SETUP, MORE_ROWS)
        try:
            with writing(url, kills, writers=2):
                for _ in range(kills):
                    with open_lakehouse(settings) as lake:
                        before = dict(position(lake))
                    worker = workers.start(settings, "follow_changes", url)
                    until = time.monotonic() + 90
                    while True:
                        assert time.monotonic() < until, "the worker committed nothing"
                        assert worker.poll() is None, "the worker has ended"
                        with open_lakehouse(settings, read_only=True) as lake:
                            if dict(position(lake)) != before:
                                break
                        time.sleep(0.01)
                    time.sleep(instants.uniform(0, 0.7))
                    worker.kill()
                    worker.wait()
                    # What was acknowledged is committed.
                    acknowledged = confirmed(url)
                    with open_lakehouse(settings) as lake:
                        assert acknowledged <= from_lsn(position(lake)["lsn"])
                        if '"copied"' not in str(position(lake)):
                            check_halves(lake)
            with open_lakehouse(settings) as lake:
                follow(lake, source(url, TABLES))
                check_once(lake)
                check_halves(lake)
                check_equal(lake, url)
        finally:
            source(url, TABLES).drop()


@ON_SQLITE
def test_a_reader_that_is_killed_a_few_times_loses_nothing_and_repeats_nothing(
    settings: Settings, postgres: Postgres
) -> None:
    killed(settings, postgres, 2)


@pytest.mark.crash
def test_a_reader_that_is_killed_time_and_again_loses_nothing_and_repeats_nothing(
    settings: Settings, postgres: Postgres
) -> None:
    killed(settings, postgres, KILLS)
