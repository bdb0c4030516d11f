"""Connections to PostgreSQL's log that stall, break or are taken: nothing is lost, and the limit is named."""

import datetime as dt
import threading
import time

import pytest
from platform_tests.ingestion.changes.postgresql.following import KEYED, Follower, query, run, source, table
from platform_tests.proxy import proxy_to
from platform_tests.servers import (
    kill_postgres,
    restart_postgres,
    start_postgres,
    stop_postgres,
)

from data_platform.errors import TransientError
from data_platform.ingestion.changes.postgresql import copy as copy_module
from data_platform.ingestion.changes.postgresql import log as log_module
from data_platform.ingestion.changes.postgresql import slot as slot_module
from data_platform.ingestion.sql.dialects import Timeouts


def test_two_readers_of_one_slot_are_told_apart(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_platform.ingestion.changes.postgresql import server as server_module

    monkeypatch.setattr(server_module, "IN_USE_SECONDS", 0.3)
    with follower.source.reading(["t"], follower.position) as reading:
        list(reading)
        with pytest.raises(TransientError, match="read by somebody else"):
            follower.read()
    assert follower.rows() == []


LIMITS = Timeouts(dt.timedelta(seconds=2), dt.timedelta(seconds=1))


def test_a_server_that_falls_silent_ends_a_reading_at_the_limit(url: str) -> None:
    run(url, KEYED)
    with proxy_to(url) as proxy:
        follower = Follower(source(proxy.url, {"t": table("id")}, timeouts=LIMITS))
        follower.read()
        run(url, "insert into t select i, repeat('x', 1000) from generate_series(1, 20000) i")
        proxy.stall_after = proxy.forwarded + 2**20
        started = time.monotonic()
        with pytest.raises(TransientError, match="said nothing for 1 s, the limit `idle_timeout`"):
            follower.read()
        assert time.monotonic() - started < 15
    again = Follower(source(url, {"t": table("id")}))
    again.position = follower.position
    assert len(again.rows()) == 20_000


def test_a_connection_that_is_cut_loses_nothing(url: str) -> None:
    run(url, KEYED)
    with proxy_to(url) as proxy:
        follower = Follower(source(proxy.url, {"t": table("id")}, timeouts=LIMITS))
        follower.read()
        run(url, "insert into t select i, repeat('x', 1000) from generate_series(1, 10000) i")
        proxy.delay, proxy.chunk = 0.02, 100_000
        threading.Timer(0.7, proxy.end).start()
        with pytest.raises(TransientError, match="broke"):
            follower.read()
    again = Follower(source(url, {"t": table("id")}))
    again.position = follower.position
    assert len(again.rows()) == 10_000


def test_a_reader_that_takes_its_time_is_not_cut_and_then_acknowledges(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "ROWS", 10)
    run(url, KEYED, "alter system set wal_sender_timeout = '1s'", "select pg_reload_conf()")
    try:
        follower = Follower(source(url, {"t": table("id")}, timeouts=LIMITS))
        follower.read()
        for number in range(40):
            run(url, f"insert into t select i, repeat('x', 100000) from generate_series({number}0, {number}9) i")
        with follower.source.reading(["t"], follower.position) as reading:
            rows = 0
            for batch in reading:
                time.sleep(0 if rows else 3)
                rows += batch.rows.num_rows
                if batch.position is not None:
                    reading.committed(batch.position)
        assert rows == 400
        assert query(url, "select confirmed_flush_lsn::text from pg_replication_slots") == [
            ((batch.position or {})["lsn"],)
        ]
    finally:
        run(url, "alter system reset wal_sender_timeout", "select pg_reload_conf()")


def test_a_server_that_is_restarted_in_the_middle_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "ROWS", 100)
    server = start_postgres()
    try:
        run(server.url, KEYED)
        follower = Follower(source(server.url, {"t": table("id")}))
        follower.read()
        for number in range(30):
            run(server.url, f"insert into t select i, repeat('x', 9000) from generate_series({number}00, {number}99) i")
        seen: list[int] = []

        def read() -> None:
            with follower.source.reading(["t"], follower.position) as reading:
                for batch in reading:
                    seen.extend(batch.rows["id"].to_pylist())
                    if batch.position is not None:
                        follower.position |= batch.position
                    if len(seen) == 100:
                        kill_postgres(server)
                        reading.committed(follower.position)

        with pytest.raises(TransientError, match="broke"):
            read()
        restart_postgres(server)
        seen += [row["id"] for row in follower.rows()]
        assert sorted(seen) == list(range(3000))
    finally:
        stop_postgres(server)


def test_a_copy_goes_on_only_when_what_the_log_gave_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that waits for a synchronous standby is in the log, and nobody sees it: a copy would miss it."""
    monkeypatch.setattr(slot_module, "WAIT", dt.timedelta(seconds=1.5))
    monkeypatch.setattr(copy_module, "BATCH_ROWS", 10)
    server = start_postgres()
    try:
        run(server.url, KEYED, "insert into t select i, 'copied' from generate_series(1, 100) i")
        follower = Follower(source(server.url, {"t": table("id")}))
        with follower.source.reading(["t"], {}) as reading:
            for batch in reading:
                follower.position |= batch.position or {}
                if batch.rows.num_rows:
                    break
        run(server.url, "alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()")
        enough = threading.Event()

        def write() -> None:
            # The server takes note of the setting a moment later.
            for number in range(500, 5_000):
                if not enough.is_set():
                    run(server.url, f"insert into t values ({number}, 'waits')")

        waiting = threading.Thread(target=write)
        waiting.start()
        deadline = time.monotonic() + 20
        while not query(server.url, "select 1 from pg_stat_activity where wait_event = 'SyncRep'"):
            assert time.monotonic() < deadline, "nothing waits"
        enough.set()
        with pytest.raises(TransientError, match=r"cannot go on yet: the commit of the session \d+ waits for a sync"):
            follower.read()
        run(server.url, "alter system reset synchronous_standby_names", "select pg_reload_conf()")
        waiting.join(20)
        ids = [row["id"] for row in follower.rows()]
        assert sorted(ids) == [number for (number,) in query(server.url, "select id from t where id > 10 order by id")]
    finally:
        stop_postgres(server)
