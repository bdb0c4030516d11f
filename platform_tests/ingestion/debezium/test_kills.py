"""Changes that Debezium reads, all the way into the lakehouse: killed at any instant, the platform's process or Java's,
each change lands once, whole transactions at a time."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from platform_tests.ingestion.debezium import worker
from platform_tests.ingestion.debezium.shop import TABLES, Shop
from platform_tests.ingestion.debezium.worker import load_and_stage
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.replay import replayed
from platform_tests.kills import KILLS

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

STARTED_SECONDS = 120


WRITES = (
    "begin",
    "insert into {table} values ({n}, {n})",
    "update {table} set total = total + 1 where id between {n} - 9 and {n} - 6",
    "delete from {table} where id = {n} - 12 and id % 3 = 0",
    "update {table} set id = id + 10000000 where id = {n} - 20",
    "commit",
)
"""A transaction after which both tables hold the same."""


@contextmanager
def writing(shop: Shop, begin: int) -> Iterator[None]:
    """Somebody who writes transactions while the block runs, to both tables in each."""
    stop = threading.Event()

    def run() -> None:
        with shop.connected() as cursor:
            number = begin
            while not stop.is_set():
                number += 1
                for statement in WRITES:
                    for name in TABLES if "{table}" in statement else [""]:
                        cursor.execute(statement.replace("{table}", name).replace("{n}", str(number)))
                time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def require_as_source(lake: Lakehouse, at: Shop) -> None:
    """Staged holds what the source has, and raw as well."""
    for name in TABLES:
        there = at.rows(f"select id, total from {name} order by 1")
        assert replayed(lake, name) == there
        assert lake.connection.execute(f"SELECT id, total FROM staged_shop.{name} ORDER BY 1").fetchall() == there


def require_whole(lake: Lakehouse) -> int:
    """At each snapshot of the lakehouse both tables hold the same; how many there were."""
    snapshots = lake.connection.execute("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY 1").fetchall()
    seen = 0
    for (snapshot,) in snapshots[-40:]:
        version = f"AT (VERSION => {snapshot})"
        try:
            assert replayed(lake, "t", version) == replayed(lake, "u", version), snapshot
        except duckdb.CatalogException:  # nothing landed yet
            continue
        seen += 1
    return seen


def java_of(process: Any) -> list[int]:
    """The processes of Java that a worker has started."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return [pid for pid in found if b"Reader" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@ON_SQLITE
@pytest.mark.crash
def test_after_any_number_of_kills_every_change_is_there_once(settings: Settings, shop: Shop) -> None:
    instants = random.Random(f"debezium {shop.kind}")
    for name in TABLES:
        values = ", ".join(f"({number}, {number})" for number in range(90000000, 90003000))
        shop.run(f"insert into {name} values {values}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    loads = 0
    with writing(shop, 1000):
        for number in range(KILLS):
            process = worker.start(settings, shop)
            # The first are killed wherever they are: in the first copy, too.
            if number % 3 == 0:
                time.sleep(instants.uniform(2, 12))
            else:
                loads = wait_for_load(settings, loads, process)
                time.sleep(instants.uniform(0, 6))
            java = java_of(process)
            if number % 2 and java:
                os.kill(java[0], 9)
                time.sleep(instants.uniform(0, 1))
            process.kill()
            process.wait()
            until = time.monotonic() + 20
            while any(b"Reader" in command_of(pid) for pid in java):
                assert time.monotonic() < until, "Java outlives the process that started it"
                time.sleep(0.05)
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, shop)
        require_as_source(lake, shop)
        assert require_whole(lake) > 1


def wait_for_load(settings: Settings, before: int, process: Any) -> int:
    """Wait until a process has landed something: what it does from then on may be anything."""
    until = time.monotonic() + STARTED_SECONDS
    with open_lakehouse(settings, read_only=True) as lake:
        while True:
            row = lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone()
            if row is not None and row[0] > before:
                return int(row[0])
            assert process.poll() is None, "the worker failed by itself"
            assert time.monotonic() < until, "the worker landed nothing"
            time.sleep(0.02)
