"""Changes of a real MariaDB all the way into the lakehouse: through faults of the network, and killed at any instant,
each change lands once, whole transactions at a time."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import duckdb
import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.changes import mysql_worker
from platform_tests.ingestion.changes.mysql_shop import (
    Shop,
    changes,
    nowhere,
    of,
    read,
    table,
    writing,
)
from platform_tests.ingestion.changes.mysql_worker import READING, TABLES, load_and_stage
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.replay import replayed
from platform_tests.kills import OFTEN
from platform_tests.proxy import proxy_to

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.changes.mysql import reading as reading_module
from data_platform.ingestion.changes.mysql.connection import Connection
from data_platform.ingestion.load import LoadResult, load_tables
from data_platform.ingestion.source import Batch
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

pytestmark = with_mariadb

STARTED_SECONDS = 120

WRITES = (
    "begin",
    "insert into t values ({n}, {n})",
    "insert into u values ({n}, {n})",
    "update t set total = total + 1 where id between {n} - 9 and {n} - 6",
    "update u set total = total + 1 where id between {n} - 9 and {n} - 6",
    "delete from t where id = {n} - 12 and id % 3 = 0",
    "delete from u where id = {n} - 12 and id % 3 = 0",
    "update t set id = id + 10000000 where id = {n} - 20",
    "update u set id = id + 10000000 where id = {n} - 20",
    "commit",
    "do sleep(0.03)",
)
"""A transaction after which both tables hold the same, and a rest: a load must be faster than the writer."""


@pytest.fixture
def at(at: Shop) -> Shop:
    """The shop with two tables, which each transaction changes alike."""
    at.run("create table t (id int primary key, total int)", "create table u (id int primary key, total int)")
    return at


def follow(lake: Lakehouse, at: Shop, **options: Any) -> dict[str, LoadResult]:
    return load_tables(lake, "shop", changes(at.url, TABLES), READING, TABLES, run_id="run-1", **options)


def require_as_source(lake: Lakehouse, at: Shop, *, once: bool = True) -> None:
    """Staged holds what the source has, and raw as well; unless a full refresh put two copies there."""
    for name in TABLES:
        there = at.rows(f"select id, total from {name} order by 1")
        assert not once or replayed(lake, name) == there
        staged = lake.connection.execute(f"SELECT id, total FROM staged_shop.{name} ORDER BY 1").fetchall()
        assert staged == there


def require_whole(lake: Lakehouse) -> int:
    """At each snapshot from the end of the first copy on, both tables hold the same; how many there were."""
    snapshots = lake.connection.execute("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY 1").fetchall()
    seen = 0
    for (snapshot,) in snapshots[-60:]:
        version = f"AT (VERSION => {snapshot})"
        try:
            copied = lake.connection.execute(
                f"SELECT count(*) FROM platform.positions {version} WHERE partition LIKE 'copied %' AND value = 'done'"
            ).fetchone()
        except duckdb.CatalogException:  # there was no ledger yet
            continue
        if copied == (len(TABLES),):
            assert replayed(lake, "t", version) == replayed(lake, "u", version), snapshot
            seen += 1
    return seen


@ON_SQLITE
def test_transactions_land_whole_while_others_write(lake: Lakehouse, at: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 100)
    monkeypatch.setattr(reading_module, "FLUSH_ROWS", 30)
    at.run("insert into t select seq, seq from seq_90000000_to_90000100", "insert into u select * from t")
    with writing(at, *WRITES):
        for _ in range(3):
            load_and_stage(lake, at.url)
    load_and_stage(lake, at.url)
    require_as_source(lake, at)
    assert require_whole(lake) > 5
    assert all(not result.loads for result in follow(lake, at).values())


@ON_SQLITE
def test_a_full_refresh_replaces_what_landed_and_the_log_goes_on_from_it(lake: Lakehouse, at: Shop) -> None:
    at.run("insert into t values (1, 1), (2, 2)")
    load_and_stage(lake, at.url)
    at.run("delete from t where id = 1", "insert into t values (3, 3)")
    follow(lake, at, full_refresh=True)
    at.run("update t set total = 7 where id = 3")
    load_and_stage(lake, at.url)
    require_as_source(lake, at, once=False)


@ON_SQLITE
def test_a_lost_log_loses_nothing_that_landed_and_a_full_refresh_mends_it(lake: Lakehouse, at: Shop) -> None:
    at.run("insert into t values (1, 1)")
    load_and_stage(lake, at.url)
    at.run("update t set total = 5", "flush binary logs")
    until = time.monotonic() + 20
    while len(at.rows("show binary logs")) > 1 and time.monotonic() < until:
        at.run(f"purge binary logs to '{at.value('show master status')}'")
    before = ledger.head(lake, "raw", "shop", READING)
    with pytest.raises(PlatformError, match="was purged"):
        load_and_stage(lake, at.url)
    assert ledger.head(lake, "raw", "shop", READING) == before
    assert replayed(lake, "t") == [(1, 1)]
    follow(lake, at, full_refresh=True)
    load_and_stage(lake, at.url)
    require_as_source(lake, at, once=False)


@ON_SQLITE
def test_private_columns_are_masked_in_every_change(lake: Lakehouse, at: Shop) -> None:
    at.run(
        "create table people (id int primary key, email varchar(50))", "insert into people values (1, 'a@secret.com')"
    )
    lake = replace(lake, settings=replace(lake.settings, mask_secret="0123456789abcdef" * 2))
    tables = {"people": table(mask=["email"])}
    for _ in range(2):
        load_tables(lake, "shop", changes(at.url, tables), READING, tables, run_id="run-1")
        at.run("update people set email = 'b@secret.com'", "delete from people")
    rows = lake.connection.execute("SELECT _operation, email FROM raw_shop.people ORDER BY _order").fetchall()
    assert [operation for operation, _ in rows] == ["insert", "update", "delete"]
    assert not any("secret" in email for _, email in rows)


# Faults of the network


def slow(url: str, **seconds: float) -> Any:
    return changes(url, {"t": table()}, **{name: timedelta(seconds=one) for name, one in seconds.items()})


def test_a_server_that_does_not_answer_is_given_up_at_the_limit_of_connecting(at: Shop) -> None:
    with proxy_to(at.url) as proxy:
        proxy.stall()
        with pytest.raises(TransientError, match="2 s, the limit `connect_timeout`"):
            read(slow(proxy.url, connect=2, idle=2), {})


@pytest.mark.parametrize("what", ["copy", "log"])
def test_a_server_that_falls_silent_is_given_up_at_the_limit_and_nothing_is_lost(at: Shop, what: str) -> None:
    position = nowhere()
    found: list[Batch] = []
    if what == "log":
        found += read(slow(at.url), position)
    # More than the buffers of the connections between hold.
    at.run("alter table t add column v varchar(255)")
    at.run("insert into t select seq, seq, repeat('x', 250) from seq_1_to_60000")
    with proxy_to(at.url) as proxy:
        source = slow(proxy.url, connect=5, idle=1)
        with source.reading(["t"], dict(position)) as reading:
            batches = iter(reading)
            proxy.stall_after = proxy.forwarded + 6_000_000
            started = time.monotonic()
            with pytest.raises(TransientError, match=r"said nothing for 1 s, the limit `idle_timeout`"):
                found.extend(kept(batches, position))
            assert time.monotonic() - started < 60
    found += read(slow(at.url), position)
    assert [row["id"] for row in of(found)] == list(range(1, 60001))


def kept(batches: Iterator[Batch], position: dict[str, str]) -> Iterator[Batch]:
    """The batches that have a position, with which `position` moves: in the middle of a transaction none has."""
    for batch in batches:
        if batch.position is not None:
            position.update(batch.position)
            yield batch


def test_a_connection_that_is_cut_is_a_passing_failure(at: Shop) -> None:
    read(slow(at.url), position := nowhere())
    at.run("insert into t select seq, seq from seq_1_to_60000")
    with proxy_to(at.url) as proxy, slow(proxy.url, idle=30).reading(["t"], position) as reading:
        batches = iter(reading)
        proxy.stall_after = proxy.forwarded + 300_000
        cut = threading.Timer(1, proxy.end)
        cut.start()
        with pytest.raises(TransientError, match=r"The connection to MySQL at .* broke"):
            list(batches)
        cut.join()
    assert len(of(read(slow(at.url), position))) == 60_000


def test_an_event_that_comes_damaged_is_found_by_its_checksum(at: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    if at.value("select @@global.binlog_checksum") == "NONE":
        pytest.skip("the server writes no checksums")
    read(slow(at.url), position := nowhere())
    at.run("insert into t values (1, 1)")
    packets = Connection._packets

    def damaged(self: Any) -> Iterator[bytes]:
        for packet in packets(self):
            yield packet[:40] + bytes([packet[40] ^ 1]) + packet[41:] if len(packet) > 41 else packet

    monkeypatch.setattr(Connection, "_packets", damaged)
    with pytest.raises(TransientError, match="came damaged: its checksum is wrong"):
        read(slow(at.url), position)


# Kills


@pytest.mark.parametrize("kills", [3, OFTEN])
def test_after_any_number_of_kills_every_change_is_there_once(settings: Settings, at: Shop, kills: int) -> None:
    instants = random.Random(f"mysql {kills} {settings.catalog_is_sqlite}")
    at.run("insert into t select seq, seq from seq_90000000_to_90003000", "insert into u select * from t")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    loads = 0
    with writing(at, *WRITES):
        for _ in range(kills):
            worker = mysql_worker.start(settings, at.url)
            loads = wait_for_load(settings, loads, worker)
            time.sleep(instants.uniform(0, 1))
            worker.kill()
            worker.wait()
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, at.url)
        require_as_source(lake, at)
        require_whole(lake)


def wait_for_load(settings: Settings, before: int, worker: Any) -> int:
    """Wait until a process has landed something: what it does from then on may be anything."""
    until = time.monotonic() + STARTED_SECONDS
    with open_lakehouse(settings, read_only=True) as lake:
        while True:
            row = lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone()
            if row is not None and row[0] > before:
                return int(row[0])
            assert worker.poll() is None, "the worker failed by itself"
            assert time.monotonic() < until, "the worker landed nothing"
            time.sleep(0.02)
