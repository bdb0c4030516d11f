"""A replica read in the place of its primary: real ones, whose replay is held up and let go again."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.reading import probe, read_all
from platform_tests.servers import (
    Postgres,
    free_port,
    own_mariadb,
    start_postgres,
    start_postgres_replica,
    stop_postgres,
)

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql.dialects import MysqlSession, PostgresqlSession, Timeouts
from data_platform.ingestion.sql.options import Replica, SqlTable
from data_platform.ingestion.sql.replica import PRIMARY
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

WHOLE = SqlTable(contract="x", key=["id"])
BY_CURSOR = SqlTable(contract="x", key=["id"], cursor={"column": "n", "lag": 5})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pair:
    """A primary and its replica, each by a URL, and what runs a statement on one of them."""

    primary: str
    replica: str
    run: Callable[..., Any]

    def source(self, table: SqlTable = WHOLE, replica: str | None = None, **options: Any) -> Relational:
        return Relational(self.primary, {"t": table}, replica=Replica(url=replica or self.replica, **options))

    def until(self, condition: str, where: str | None = None) -> None:
        """Wait until a query of the replica gives true."""
        deadline = time.monotonic() + 20
        while not self.run(where or self.replica, condition)[0][0]:
            assert time.monotonic() < deadline, f"it never came to be: {condition}"
            time.sleep(0.02)

    def until_reached(self) -> None:
        """Wait until the replica shows all that the primary has."""
        place = self.run(self.primary, "select pg_current_wal_insert_lsn()::text")[0][0]
        self.until(f"select pg_last_wal_replay_lsn() >= '{place}'::pg_lsn")


def run_postgres(url: str, *statements: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        found = [connection.execute(statement.encode()) for statement in statements][-1]
        return found.fetchall() if found.description else []


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    primary = start_postgres()
    try:
        replica = start_postgres_replica(primary)
        try:
            yield primary, replica
        finally:
            stop_postgres(replica)
    finally:
        stop_postgres(primary)


@pytest.fixture
def pair(servers: tuple[Postgres, Postgres]) -> Iterator[Pair]:
    """With a table `t` of one row on both, and the replica replaying."""
    primary, replica = servers
    pair = Pair(primary.url, replica.url, run_postgres)
    create = "create table t (id int primary key, n int, word text)"
    run_postgres(primary.url, "drop table if exists t", create, "insert into t values (1, 10, 'first')")
    pair.until_reached()
    try:
        yield pair
    finally:
        run_postgres(replica.url, "select pg_wal_replay_resume()")
        pair.until_reached()


def pause(pair: Pair) -> None:
    run_postgres(pair.replica, "select pg_wal_replay_pause()")
    pair.until("select pg_get_wal_replay_pause_state() = 'paused'")


def fall_behind(pair: Pair, *statements: str) -> None:
    """Hold up the replay, and let the replica receive what it does not replay."""
    pause(pair)
    pair.run(pair.primary, *statements)
    pair.until("select pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")


def words(read: list[Batch]) -> list[str]:
    return [row["word"] for batch in read for row in batch.rows.to_pylist()]


def test_a_replica_that_has_all_of_an_idle_primary_is_not_behind(pair: Pair) -> None:
    with psycopg.connect(pair.replica) as replica:
        time.sleep(0.1)
        age = replica.execute("select clock_timestamp() - pg_last_xact_replay_timestamp()").fetchone()
    with PostgresqlSession(pair.replica, Timeouts()) as session:
        assert session.lag() is not None
        assert session.lag().total_seconds() == 0  # type: ignore[union-attr]
    assert age is not None
    assert age[0].total_seconds() > 0.1
    assert words(read_all(pair.source(max_lag="0s"))) == ["first"]


def test_rows_come_from_the_replica_and_the_position_is_what_it_shows(pair: Pair) -> None:
    fall_behind(pair, "insert into t values (2, 20, 'second')")
    source = pair.source(BY_CURSOR, max_lag="1h")
    read = read_all(source)
    assert words(read) == ["first"]
    position = read[-1].position or {}
    assert position["cursor"] == "10"
    assert not probe(source, "t", position)
    run_postgres(pair.replica, "select pg_wal_replay_resume()")
    pair.until_reached()
    assert probe(source, "t", position) == {"cursor": "20"}
    assert words(read_all(source, "t", position)) == ["first", "second"]


def test_one_that_is_too_far_behind_is_not_read_now_nor_probed(pair: Pair) -> None:
    fall_behind(pair, "insert into t values (2, 20, 'second')")
    time.sleep(0.05)
    source = pair.source(BY_CURSOR, max_lag="0s")
    message = r"The replica at .* is .*s behind, more than `max_lag` \(0s\) allows. Nothing was read"
    with pytest.raises(TransientError, match=message):
        read_all(source)
    with pytest.raises(TransientError, match=message):
        probe(source)


def test_one_whose_receiver_has_stopped_is_not_taken_for_one_that_has_all(pair: Pair) -> None:
    """What it received is replayed, and it receives nothing."""
    (kept,) = run_postgres(pair.replica, "show primary_conninfo")
    run_postgres(pair.replica, "alter system set primary_conninfo = ''", "select pg_reload_conf()")
    try:
        pair.until("select not exists (select from pg_stat_wal_receiver)")
        run_postgres(pair.primary, "insert into t values (2, 20, 'second')")
        time.sleep(0.05)
        with pytest.raises(TransientError, match="behind, more than `max_lag`"):
            read_all(pair.source(max_lag="0s"))
    finally:
        conninfo = kept[0].replace("'", "''")
        run_postgres(pair.replica, f"alter system set primary_conninfo = '{conninfo}'", "select pg_reload_conf()")
        pair.until("select exists (select from pg_stat_wal_receiver where status = 'streaming')")


def test_a_load_never_goes_back_to_what_the_replica_showed_before_the_primary_was_read(pair: Pair) -> None:
    fall_behind(pair, "update t set n = 11, word = 'later'")
    time.sleep(0.05)
    read = read_all(pair.source(BY_CURSOR, max_lag="0s", when_late="primary"))
    assert words(read) == ["later"]
    position = read[-1].position or {}
    assert PRIMARY in position
    (note,) = read[-1].notes
    assert note.startswith("Read of the primary: the replica at postgresql://")
    assert "behind, more than `max_lag` (0s) allows" in note
    # Within the lag of the cursor, the replica would give the row as it was before, as if that were news.
    read = read_all(pair.source(BY_CURSOR, max_lag="1h", when_late="primary"), "t", position)
    assert words(read) == ["later"]
    assert "does not show yet what the last load read of the primary" in read[-1].notes[0]
    with pytest.raises(TransientError, match="does not show yet"):
        read_all(pair.source(BY_CURSOR, max_lag="1h"), "t", position)
    run_postgres(pair.replica, "select pg_wal_replay_resume()")
    pair.until_reached()
    read = read_all(pair.source(BY_CURSOR, max_lag="1h", when_late="primary"), "t", position)
    assert (words(read), read[-1].notes) == (["later"], [])
    assert PRIMARY in read[-1].forget
    assert PRIMARY not in (read[-1].position or {})


def test_a_reconciliation_waits_for_the_replica_and_never_takes_the_primary(pair: Pair) -> None:
    fall_behind(pair, "insert into t values (2, 20, 'second')")
    time.sleep(0.05)
    source = pair.source(BY_CURSOR, max_lag="0s", when_late="primary")
    with pytest.raises(TransientError, match="behind, more than"):  # noqa: SIM117
        with source.comparing("t", {"cursor": "10"}, ["id", "n", "word"]):
            raise AssertionError("it was compared")


def test_loads_take_the_place_of_the_primary_into_the_position_and_out_again(
    pair: Pair, home: Path, tmp_path: Path
) -> None:
    fall_behind(pair, "insert into t values (2, 20, 'second')")
    time.sleep(0.05)
    source = pair.source(BY_CURSOR, max_lag="0s", when_late="primary")
    with open_lakehouse(Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))) as lake:
        loaded = load_table(lake, "shop", source, "t", BY_CURSOR, run_id="run")
        assert (loaded.rows_landed, PRIMARY in loaded.position) == (2, True)
        run_postgres(pair.replica, "select pg_wal_replay_resume()")
        pair.until_reached()
        loaded = load_table(lake, "shop", source, "t", BY_CURSOR, run_id="run")
        assert (loaded.rows_landed, PRIMARY in loaded.position) == (0, False)
        loaded = load_table(lake, "shop", source, "t", BY_CURSOR, run_id="run")
        assert loaded.loads == ()


def test_one_that_cannot_be_reached_fails_the_load_or_the_primary_is_read(pair: Pair) -> None:
    nowhere = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/db"
    with pytest.raises(PlatformError, match="Cannot connect to PostgreSQL") as caught:
        read_all(pair.source(replica=nowhere))
    read = read_all(pair.source(replica=nowhere, when_late="primary"))
    assert words(read) == ["first"]
    assert "could not be reached" in read[-1].notes[0]
    assert "s3cret" not in f"{caught.value} {read[-1].notes}"


def test_a_server_that_is_no_replica_is_refused_whatever_the_lag(pair: Pair) -> None:
    with pytest.raises(PlatformError, match=r"is no replica .* may have been promoted"):
        read_all(pair.source(replica=pair.primary, when_late="primary"))


def test_a_replica_of_another_kind_of_database_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"is sqlite://, and the database that it is to be one of is postgresql://"):
        pair.source(replica=str(tmp_path / "x.sqlite"))
    sqlite3.connect(tmp_path / "x.sqlite").close()
    path = str(tmp_path / "x.sqlite")
    with pytest.raises(PlatformError, match=r"SQLite has no replicas"):
        read_all(Relational(path, {"t": WHOLE}, replica=Replica(url=path)))


def test_several_connections_share_a_snapshot_of_a_replica(pair: Pair) -> None:
    run_postgres(pair.primary, "insert into t select n, n, 'x' from generate_series(2, 9000) n")
    pair.until_reached()
    table = SqlTable(contract="x", parallel=3)  # type: ignore[arg-type]
    assert len(words(read_all(pair.source(table)))) == 9000


def test_a_statement_that_the_replay_ends_is_tried_again(pair: Pair) -> None:
    run_postgres(pair.replica, "alter system set max_standby_streaming_delay = 0", "select pg_reload_conf()")
    try:
        with pair.source().reading(["t"], {}) as reading:
            run_postgres(pair.primary, "delete from t", "vacuum (freeze) t")
            pair.until_reached()
            with pytest.raises(TransientError, match=r"a replica, ended the statement.*hot_standby_feedback"):
                list(reading)
    finally:
        run_postgres(pair.replica, "alter system reset max_standby_streaming_delay", "select pg_reload_conf()")


def run_mariadb(url: str, *statements: str) -> Any:
    address = {"host": "127.0.0.1", "port": urlsplit(url).port or 0, "user": "root"}
    with pymysql.connect(**address, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Pair]:
    with own_mariadb() as primary, own_mariadb(["--server-id=2"]) as replica:
        port = urlsplit(primary.url).port
        run_mariadb(
            replica.url,
            f"change master to master_host = '127.0.0.1', master_port = {port}, master_user = 'root', "
            "master_password = '', master_use_gtid = slave_pos",
            "start slave",
        )
        run_mariadb(primary.url, "create database shop", "create table shop.t (id int primary key, n int, word text)")
        run_mariadb(primary.url, "insert into shop.t values (1, 10, 'first')")
        yield Pair(f"{primary.url}/shop", f"{replica.url}/shop", run_mariadb)


@pytest.fixture
def maria_pair(mariadb: Pair) -> Iterator[Pair]:
    caught_up(mariadb)
    try:
        yield mariadb
    finally:
        run_mariadb(mariadb.replica, "stop slave", "change master to master_delay = 0", "start slave")
        caught_up(mariadb)


def caught_up(pair: Pair) -> None:
    (place,) = pair.run(pair.primary, "select @@gtid_binlog_pos")[0]
    pair.until(f"select @@gtid_slave_pos = '{place}'")


MARIADB = pytest.mark.skipif("MYSQL_URL" in os.environ, reason="the replica must be one of ours")


@with_mariadb
@MARIADB
def test_a_replica_of_mariadb_is_read_while_it_is_near_enough(maria_pair: Pair) -> None:
    source = maria_pair.source(BY_CURSOR, max_lag="1h")
    assert words(read_all(maria_pair.source(max_lag="0s"))) == ["first"]
    run_mariadb(maria_pair.replica, "stop slave", "change master to master_delay = 600", "start slave")
    run_mariadb(maria_pair.primary, "update shop.t set n = 11, word = 'later'")
    with MysqlSession(maria_pair.replica, Timeouts()) as session:
        deadline = time.monotonic() + 20
        while not (lag := session.lag()) or lag.total_seconds() < 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert words(read_all(source)) == ["first"]
    with pytest.raises(TransientError, match="behind, more than `max_lag`"):
        read_all(maria_pair.source(BY_CURSOR, max_lag="0s"))
    read = read_all(maria_pair.source(BY_CURSOR, max_lag="0s", when_late="primary"))
    position = read[-1].position or {}
    assert (words(read), "-" in position[PRIMARY]) == (["later"], True)
    read = read_all(maria_pair.source(BY_CURSOR, max_lag="1h", when_late="primary"), "t", position)
    assert words(read) == ["later"]
    run_mariadb(maria_pair.replica, "stop slave", "change master to master_delay = 0", "start slave")
    caught_up(maria_pair)
    read = read_all(maria_pair.source(BY_CURSOR, max_lag="1h"), "t", position)
    assert (words(read), read[-1].notes, PRIMARY in read[-1].forget) == (["later"], [], True)
    run_mariadb(maria_pair.primary, "update shop.t set n = 10, word = 'first'")


@with_mariadb
@MARIADB
def test_a_replica_of_mariadb_that_has_stopped_is_not_read(maria_pair: Pair) -> None:
    for thread in ("sql_thread", "io_thread"):
        run_mariadb(maria_pair.replica, "start slave", f"stop slave {thread}")
        with pytest.raises(TransientError, match="does not replicate now"):
            read_all(maria_pair.source())


@with_mariadb
@MARIADB
def test_who_may_not_ask_mariadb_for_its_lag_is_told_what_to_grant(maria_pair: Pair) -> None:
    create = "create or replace user reader@'127.0.0.1' identified by 's3cret'"
    run_mariadb(maria_pair.primary, create, "grant select on shop.* to reader@'127.0.0.1'")
    caught_up(maria_pair)
    with pytest.raises(PlatformError, match="grant the account REPLICA MONITOR") as caught:
        read_all(maria_pair.source(replica=maria_pair.replica.replace("root@", "reader:s3cret@")))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(PlatformError, match="is no replica"):
        read_all(maria_pair.source(replica=maria_pair.primary))
