"""PostgreSQL read by its log, on a real server: what cannot be read and why, what is lost, and what each change
becomes. Random histories are in `test_postgresql_histories`, types in `test_postgresql_types`."""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from platform_tests.ingestion.changes.following import Follower, query, run, source, table
from platform_tests.proxy import proxy_to
from platform_tests.servers import (
    Postgres,
    fresh_database,
    kill_postgres,
    restart_postgres,
    start_postgres,
    stop_postgres,
)

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.held import ChangeSource
from data_platform.ingestion.changes.postgresql import log as log_module
from data_platform.ingestion.changes.postgresql import slot as slot_module
from data_platform.ingestion.changes.postgresql.copied import Copied, Snapshot
from data_platform.ingestion.changes.postgresql.source import PostgresqlChanges
from data_platform.ingestion.sql.dialects import Timeouts

KEYED = "create table t (id int primary key, v text)"


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A fresh database; whatever slots its test makes are gone with it."""
    yield postgres_url
    run(
        postgres_url,
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
        "where database = current_database() and not active",
    )


@pytest.fixture
def follower(url: str) -> Follower:
    """A table of two rows, copied."""
    run(url, KEYED, "insert into t values (1, 'a'), (2, 'b')")
    found = Follower(source(url, {"t": table("id")}))
    assert found.changes() == [("insert", 1, "a"), ("insert", 2, "b")]
    return found


def refusal(of: PostgresqlChanges) -> str:
    """Why a first reading is refused; nothing was made at the source."""
    with pytest.raises(PlatformError) as caught, of.reading(list(of.options), {}) as reading:
        list(reading)
    return str(caught.value)


def made(url: str) -> list[tuple[Any, ...]]:
    """What there is at the source of a platform's."""
    return query(
        url,
        "select slot_name::text from pg_replication_slots where database = current_database() "
        "union all select pubname from pg_publication",
    )


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("create table t (id int, v text)", "no primary key.*REPLICA IDENTITY FULL"),
        (f"{KEYED}; alter table t replica identity nothing", "REPLICA IDENTITY NOTHING.*every UPDATE and DELETE"),
        ("create table t (id int primary key deferrable, v text)", "no primary key"),
        (
            "create table t (id int, code int not null unique); alter table t replica identity using index t_code_key",
            "`key` has the column id, which the log does not give",
        ),
        ("create view t as select 1 as id", "is a view"),
        ("create materialized view t as select 1 as id", "is a materialized view"),
        ("create unlogged table t (id int primary key)", "is unlogged"),
        ("create table tt (id int primary key)", "no table t.*Did you mean tt"),
        ('create table t (id int primary key, "_order" int)', "a name that the platform uses itself"),
    ],
)
def test_a_table_whose_changes_cannot_be_read_is_refused_before_anything_is_made(
    url: str, statements: str, says: str
) -> None:
    run(url, *statements.split("; "))
    with pytest.raises(PlatformError, match=says):
        raise PlatformError(refusal(source(url, {"t": table("id")})))
    assert made(url) == []


def test_an_account_that_may_not_read_the_log_is_told_what_to_ask_for(postgres: Postgres, url: str) -> None:
    run(url, KEYED, "grant select on t to public")
    run(postgres.url, "do $$ begin create role plain login; exception when duplicate_object then null; end $$")
    message = refusal(source(url.replace("postgres@", "plain@"), {"t": table("id")}))
    assert 'ALTER ROLE "plain" REPLICATION' in message
    assert made(url) == []


def test_an_account_that_may_not_publish_is_given_the_statement_for_the_owner(postgres: Postgres, url: str) -> None:
    run(url, KEYED, "grant select on t to public")
    run(
        postgres.url,
        "do $$ begin create role reads_logs login replication; exception when duplicate_object then null; end $$",
    )
    message = refusal(source(url.replace("postgres@", "reads_logs@"), {"t": table("id")}))
    statement = message.partition("`changes: publication:`: ")[2]
    assert made(url) == []
    run(url, statement)
    follower = Follower(
        source(url.replace("postgres@", "reads_logs@"), {"t": table("id")}, publication="data_platform_shop")
    )
    assert follower.rows() == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["wal_level=replica"], "wal_level = replica.*ALTER SYSTEM SET wal_level = 'logical'.*restart"),
        (["max_replication_slots=0"], "0 replication slots, as many as its max_replication_slots"),
        (["max_wal_senders=0"], "takes no further reader of its log.*max_wal_senders"),
    ],
)
def test_a_server_that_is_not_set_up_for_it_is_refused_with_the_setting(settings: list[str], says: str) -> None:
    server = start_postgres(settings)
    try:
        run(server.url, KEYED)
        with pytest.raises(PlatformError, match=says):
            raise PlatformError(refusal(source(server.url, {"t": table("id")})))
        if "senders" not in says:
            assert made(server.url) == []
    finally:
        stop_postgres(server)


@pytest.mark.parametrize(
    ("statement", "changes", "says"),
    [
        ("select 1", {"publication": "p"}, "no publication p.*Leave it out"),
        ("create publication p for table u", {"publication": "p"}, "has no table t.*ADD TABLE"),
        ("create publication p for table t with (publish = 'insert')", {"publication": "p"}, "update, delete, trunc"),
        ("create publication p for table t", {"publication": "p"}, "publish_via_partition_root"),
        ("select 1", {"slot": "s1"}, "no replication slot s1.*pg_create_logical_replication_slot"),
        ("select pg_create_physical_replication_slot('s2')", {"slot": "s2"}, "is a physical one"),
        ("select pg_create_logical_replication_slot('s3', 'test_decoding')", {"slot": "s3"}, "plugin test_decoding"),
    ],
)
def test_what_a_person_made_must_fit(url: str, statement: str, changes: dict[str, Any], says: str) -> None:
    run(url, KEYED, "create table u (id int primary key)", statement)
    try:
        with pytest.raises(PlatformError, match=says):
            raise PlatformError(refusal(source(url, {"t": table("id")}, **changes)))
    finally:
        run(url, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name in ('s2', 's3')")


def test_a_slot_of_another_database_is_refused(postgres: Postgres, url: str) -> None:
    with fresh_database(postgres) as other:
        run(other, "select pg_create_logical_replication_slot('data_platform_shop', 'pgoutput')")
        try:
            run(url, KEYED)
            assert "is of the database" in refusal(source(url, {"t": table("id")}))
        finally:
            run(other, "select pg_drop_replication_slot('data_platform_shop')")


def test_what_a_person_made_is_used_and_never_dropped(url: str) -> None:
    run(
        url,
        KEYED,
        "insert into t values (1, 'before')",
        "create publication p for all tables with (publish_via_partition_root = true)",
        "select pg_create_logical_replication_slot('own', 'pgoutput')",
    )
    run(url, "insert into t values (2, 'after the slot')", "create table other (id int primary key)")
    follower = Follower(source(url, {"t": table("id")}, slot="own", publication="p"))
    assert follower.changes() == [("insert", 1, "before"), ("insert", 2, "after the slot")]
    run(url, "insert into other values (1)", "insert into t values (3, 'new')")
    assert follower.changes() == [("insert", 3, "new")]
    assert [one.is_ours for one in follower.source.held(follower.position)] == [False, False]
    assert follower.source.drop() == []
    assert sorted(made(url)) == [("own",), ("p",)]


def test_what_is_held_says_how_far_it_is_behind_and_is_dropped_where_it_is_ours(follower: Follower, url: str) -> None:
    run(url, "insert into t select i, repeat('x', 1000) from generate_series(10, 500) i")
    changes: ChangeSource = follower.source
    slot, publication = changes.held(follower.position)
    assert (slot.kind, slot.name, slot.state) == ("replication slot", "data_platform_shop", "reserved, not in use")
    assert slot.behind is not None
    assert slot.behind > 400_000
    assert slot.retained is not None
    assert slot.retained >= slot.behind
    assert (publication.kind, publication.state) == ("publication", "1 tables")
    follower.read()
    assert (follower.source.held(follower.position)[0].behind or 0) < 400_000
    with follower.source.reading(["t"], follower.position) as reading:
        list(reading)
        with pytest.raises(PlatformError, match="is being read"):
            follower.source.drop()
    assert [one.kind for one in follower.source.drop()] == ["replication slot", "publication"]
    assert made(url) == []
    assert follower.source.held({}) == []


def lost(follower: Follower) -> str:
    with pytest.raises(PlatformError) as caught:
        follower.read()
    assert not isinstance(caught.value, TransientError)
    assert "dp run shop --full-refresh" in str(caught.value)
    probed = follower.source.probe(["t"], {"t": follower.position})["t"]
    assert str(probed.failure) == str(caught.value)
    return str(caught.value)


def test_a_slot_that_is_gone_is_never_made_anew_in_silence(follower: Follower, url: str) -> None:
    run(url, "select pg_drop_replication_slot('data_platform_shop')", "insert into t values (3, 'lost')")
    assert "slot data_platform_shop is gone" in lost(follower)
    assert made(url) == [("data_platform_shop",)]
    follower.position = {}
    assert [row[1] for row in follower.changes()] == [1, 2, 3]


def test_a_slot_that_somebody_else_moved_on_is_lost(follower: Follower, url: str) -> None:
    run(
        url,
        "insert into t values (3, 'missed')",
        "select pg_replication_slot_advance('data_platform_shop', pg_current_wal_lsn())",
    )
    assert "moved on to" in lost(follower)


def test_another_server_and_one_restored_from_a_backup_are_told(follower: Follower) -> None:
    there = dict(follower.position)
    follower.position = {**there, "system": "1"}
    assert "another system identifier" in lost(follower)
    follower.position = {**there, "lsn": "FFFF/0"}
    assert "restored from an older backup" in lost(follower)


def test_a_slot_that_the_server_gave_up_is_lost_and_made_anew_by_a_full_refresh() -> None:
    server = start_postgres(["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"])
    try:
        run(server.url, KEYED, "insert into t values (1, 'a')")
        follower = Follower(source(server.url, {"t": table("id")}))
        follower.read()
        for _ in range(4):
            run(server.url, "select pg_switch_wal()", "insert into t values (2, 'b') on conflict do nothing")
        run(server.url, "checkpoint", "select pg_switch_wal()", "checkpoint")
        message = lost(follower)
        assert "is lost (wal_removed)" in message
        assert "max_slot_wal_keep_size" in message
        assert "lost" in follower.source.held(follower.position)[0].state
        follower.position = {}
        assert [row[1] for row in follower.changes()] == [1, 2]
    finally:
        stop_postgres(server)


def test_a_publication_that_was_dropped_or_made_anew_has_published_nothing_meanwhile(
    follower: Follower, url: str
) -> None:
    run(url, "drop publication data_platform_shop", "insert into t values (3, 'unpublished')")
    assert "the publication data_platform_shop is gone" in lost(follower)
    run(url, "create publication data_platform_shop for table t with (publish_via_partition_root = true)")
    assert "was made anew" in lost(follower)


def test_a_table_that_was_unpublished_for_a_while_is_copied_again(follower: Follower, url: str) -> None:
    run(
        url,
        "alter publication data_platform_shop drop table t",
        "delete from t where id = 1",
        "alter publication data_platform_shop add table t",
        "update t set v = 'seen' where id = 2",
    )
    assert follower.changes() == [("truncate", None, None), ("insert", 2, "seen")]


def test_each_kind_of_change_is_a_row_in_the_order_of_the_log(follower: Follower, url: str) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    run(
        url,
        "insert into t values (3, 'c')",
        "update t set v = null where id = 1",
        "update t set id = 20 where id = 2",
        "delete from t where id = 3",
        "begin; delete from t where id = 1; insert into t values (1, 'again'); commit",
        "truncate t",
        "insert into t values (5, '')",
    )
    rows = follower.rows()
    assert [(row["_operation"], row["id"], row["v"]) for row in rows] == [
        ("insert", 3, "c"),
        ("update", 1, None),
        ("delete", 2, None),
        ("insert", 20, "b"),
        ("delete", 3, None),
        ("delete", 1, None),
        ("insert", 1, "again"),
        ("truncate", None, None),
        ("insert", 5, ""),
    ]
    orders = [row["_order"] for row in rows]
    assert orders == sorted(set(orders))
    assert all(before < row["_committed_at"] < before + dt.timedelta(minutes=1) for row in rows)
    assert follower.changes() == []


def test_transactions_come_in_the_order_of_their_commits_whatever_they_wrote_first(
    follower: Follower, url: str
) -> None:
    with psycopg.connect(url) as early, psycopg.connect(url) as late:
        early.execute("insert into t values (10, 'early, committed last')")
        late.execute("insert into t values (11, 'late, committed first')")
        late.commit()
        assert follower.changes() == [("insert", 11, "late, committed first")]
        early.execute("update t set v = 'newest' where id = 11")
        early.commit()
    rows = follower.rows()
    assert [(row["id"], row["v"]) for row in rows] == [(10, "early, committed last"), (11, "newest")]
    assert rows[0]["_order"] < rows[1]["_order"]


def test_what_was_not_acknowledged_is_kept_by_the_source_and_not_delivered_again(follower: Follower, url: str) -> None:
    run(url, "insert into t values (3, 'c')")
    before = query(url, "select confirmed_flush_lsn from pg_replication_slots")
    assert len(follower.rows(acknowledge=False)) == 1
    assert query(url, "select confirmed_flush_lsn from pg_replication_slots") == before
    run(url, "insert into t values (4, 'd')")
    assert follower.changes() == [("insert", 4, "d")]
    (after,) = query(url, "select confirmed_flush_lsn::text from pg_replication_slots")
    assert after == (follower.position["lsn"],)


def test_a_source_that_is_busy_with_other_tables_is_freed_of_its_log(follower: Follower, url: str) -> None:
    run(url, "create table other (v text)", "insert into other select repeat('x', 900) from generate_series(1, 3000)")
    assert (follower.source.held(follower.position)[0].behind or 0) > 2**20
    assert follower.rows() == []
    assert (follower.source.held(follower.position)[0].behind or 0) < 2**20


def test_an_unchanged_large_value_is_named_and_taken_from_the_old_row_where_the_log_has_it(
    follower: Follower, url: str
) -> None:
    run(
        url,
        "alter table t alter v set storage external",
        "insert into t values (3, repeat('x', 10000))",
        "alter table t add w int",
        "update t set w = 1 where id = 3",
        "update t set id = 4 where id = 3",
        "alter table t replica identity full",
        "update t set w = 2 where id = 4",
        "update t set id = 5 where id = 4",
        "delete from t where id = 5",
    )
    rows = follower.rows()
    seen = [(row["_operation"], row["id"], len(row["v"] or ""), row["_unchanged"], row.get("w")) for row in rows]
    assert seen == [
        ("insert", 3, 10000, None, None),
        ("update", 3, 0, ["v"], 1),
        ("delete", 3, 0, None, None),
        ("insert", 4, 0, ["v"], 1),  # it is no longer there under that key
        ("update", 4, 10000, None, 2),
        ("delete", 4, 10000, None, 2),
        ("insert", 5, 10000, None, 2),
        ("delete", 5, 10000, None, 2),
    ]


def test_a_large_value_of_a_row_with_a_new_key_is_taken_from_the_table(follower: Follower, url: str) -> None:
    run(
        url,
        "alter table t add b bytea",
        "alter table t alter v set storage external",
        "alter table t alter b set storage external",
        "insert into t values (3, repeat('☂', 5000), decode(repeat('00ff', 5000), 'hex')), (4, 'small', null)",
        "update t set id = id + 10 where id in (3, 4)",
        "update t set id = 23 where id = 13",
        "update t set b = 'new' where id = 23",
    )
    rows = {(row["_operation"], row["id"]): row for row in follower.rows()}
    assert rows["insert", 13]["_unchanged"] == ["v", "b"]
    moved = rows["insert", 23]
    assert (moved["v"], moved["b"], moved["_unchanged"]) == ("☂" * 5000, b"new", None)
    assert (rows["insert", 14]["v"], rows["insert", 14]["_unchanged"]) == ("small", None)
    assert (rows["update", 23]["v"], rows["update", 23]["_unchanged"]) == (None, ["v"])


def test_several_tables_are_one_transaction_up_to_a_position(follower: Follower, url: str) -> None:
    run(url, "create table u (id int primary key)")
    both = Follower(source(url, {"t": table("id"), "u": table("id")}))
    both.read()
    run(url, "begin; insert into u values (1); insert into t values (3, 'c'); insert into u values (2); commit")
    batches = [batch for batch in both.read() if batch.rows.num_rows]
    assert [(batch.table, batch.rows.num_rows, batch.position is None) for batch in batches] == [
        ("t", 1, True),
        ("u", 2, False),
    ]


def test_a_large_transaction_comes_in_bounded_batches_with_one_position(
    follower: Follower, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MOST_ROWS", 6_000)
    run(url, "insert into t select i, 'v' from generate_series(10, 40000) i")
    batches = follower.read()
    assert len(batches) > 4
    assert max(batch.rows.num_rows for batch in batches) < 12_000
    assert sum(batch.rows.num_rows for batch in batches) == 39_991
    assert [batch.position is not None for batch in batches][:-1] == [False] * (len(batches) - 1)


def test_partitions_are_read_as_their_table(url: str) -> None:
    run(
        url,
        "create table t (id int, day date, primary key (id, day)) partition by range (day)",
        "create table t1 partition of t for values from ('2020-01-01') to ('2021-01-01')",
        "create table t2 partition of t for values from ('2021-01-01') to ('2022-01-01')",
        "insert into t values (1, '2020-05-05')",
    )
    follower = Follower(source(url, {"t": table("id", "day")}))
    assert follower.changes() == [("insert", 1, dt.date(2020, 5, 5))]
    run(url, "insert into t values (2, '2021-05-05')", "update t set day = '2021-01-01' where id = 1")
    assert follower.changes() == [
        ("insert", 2, dt.date(2021, 5, 5)),
        ("delete", 1, dt.date(2020, 5, 5)),
        ("insert", 1, dt.date(2021, 1, 1)),
    ]


def test_a_table_that_was_made_anew_is_another_one(follower: Follower, url: str) -> None:
    run(url, "update t set v = 'old'", "drop table t", KEYED, "insert into t values (7, 'new')")
    assert follower.changes() == [("truncate", None, None), ("insert", 7, "new")]
    run(url, "insert into t values (8, 'newer')")
    assert follower.changes() == [("insert", 8, "newer")]


def test_a_table_that_is_named_later_waits_for_what_was_under_way(
    follower: Follower, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "WAIT", dt.timedelta(seconds=0.5))
    run(url, "create table u (id int primary key)")
    both = Follower(source(url, {"t": table("id"), "u": table("id")}))
    both.position = follower.position
    with psycopg.connect(url) as slow:
        slow.execute("insert into u values (1)")
        run(url, "insert into t values (3, 'c')")
        with both.source.reading(["t", "u"], both.position) as reading:
            found = list(reading)
        notes = [note for batch in found for note in batch.notes]
        assert sum(batch.rows.num_rows for batch in found) == 1
        assert len(notes) == 1
        assert "Not copied yet: the session" in notes[0]
        slow.execute("insert into u values (2)")
        slow.commit()
    run(url, "insert into u values (3)")
    assert both.changes("u") == [("truncate", None), ("insert", 1), ("insert", 2), ("insert", 3)]
    run(url, "insert into u values (4)")
    assert both.changes("u") == [("insert", 4)]


def test_a_slot_that_cannot_begin_because_of_a_transaction_says_which(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "WAIT", dt.timedelta(seconds=0.5))
    run(url, KEYED)
    follower = Follower(source(url, {"t": table("id")}))
    with psycopg.connect(url) as slow:
        slow.execute("insert into t values (1, 'under way')")
        with pytest.raises(TransientError, match=r"was not made: the session \d+ of postgres has had a transaction"):
            follower.read()
        assert query(url, "select count(*) from pg_replication_slots where database = current_database()") == [(0,)]
    assert follower.changes() == [("insert", 1, "under way")]


def test_a_probe_tells_changes_of_the_tables_and_takes_nothing(follower: Follower, url: str) -> None:
    def probe(after: dict[str, str]) -> tuple[bool, bool]:
        found = follower.source.probe(["t"], {"t": after})["t"]
        assert found.failure is None
        return bool(found.changes), found.complete

    assert probe({}) == (True, False)
    assert probe(follower.position) == (False, False)
    run(url, "create table other (id int)", "insert into other values (1)")
    assert probe(follower.position) == (False, False)
    run(url, "insert into t values (3, 'c')")
    assert probe(follower.position) == (True, False)
    assert follower.source.probe(["t"], {"t": follower.position}) == follower.source.probe(
        ["t"], {"t": follower.position}
    )
    with follower.source.reading(["t"], follower.position) as reading:
        assert sum(batch.rows.num_rows for batch in reading) == 1
        assert probe(follower.position) == (False, False), "a slot in use is no failure"
    assert follower.changes() == [("insert", 3, "c")]
    assert probe(follower.position) == (False, False)


def test_two_readers_of_one_slot_are_told_apart(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_platform.ingestion.changes.postgresql import server as server_module

    monkeypatch.setattr(server_module, "IN_USE_SECONDS", 0.3)
    with follower.source.reading(["t"], follower.position) as reading:
        list(reading)
        with pytest.raises(TransientError, match="read by somebody else"):
            follower.read()
    assert follower.rows() == []


def test_columns_that_are_not_wanted_are_left_out_and_the_key_is_still_followed(url: str) -> None:
    run(
        url, "create table t (id int primary key, v text, secret text, flag bool)", "insert into t values (1, 'a', 'x')"
    )
    follower = Follower(source(url, {"t": table("id", columns=["v", "flag"], as_text=["flag"])}))
    assert follower.changes() == [("insert", "a", None)]
    run(url, "insert into t values (2, 'b', 'y', true)", "update t set id = 3, flag = false where id = 2")
    assert follower.changes() == [("insert", "b", "true"), ("delete", None, None), ("insert", "b", "false")]


def test_what_the_server_says_of_a_masked_table_is_in_no_message(
    postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(url, KEYED, "insert into t values (1, 'a')")
    follower = Follower(source(url, {"t": table("id", mask=["v"])}))
    follower.read()
    monkeypatch.setattr(slot_module, "SLOT", "select 'secret'::int, %s")
    with pytest.raises(PlatformError) as caught:
        follower.read()
    assert "SQLSTATE 22P02 (not shown" in str(caught.value)
    assert "secret" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("xid", "sees"), [(9, True), (10, False), (11, True), (12, False), (2**32 - 1, False), (20, False)]
)
def test_a_snapshot_knows_transactions_by_their_last_32_bits(xid: int, sees: bool) -> None:
    assert Snapshot.parse("10:12:10").sees(xid) is (sees if xid < 2**31 else True)
    base = 5 * 2**32
    later = Snapshot.parse(f"{base + 2**32 - 2}:{base + 2**32 + 3}:{base + 2**32 + 1}")
    assert later.sees(2**32 - 3)
    assert later.sees(2**32 - 2)
    assert later.sees(0)
    assert not later.sees(1)
    assert later.sees(2)
    assert not later.sees(3)
    assert str(Snapshot.parse(str(later))) == str(later)


def test_what_was_copied_is_the_same_after_it_was_written_down() -> None:
    snapshot = Snapshot.parse("5:7:6")
    copied = Copied(1, 2, "f", 4).reaching(["a", "2"], snapshot, 9).reaching(["b", "1"], snapshot, 9)
    copied = copied.reaching(None, Snapshot.parse("8:8:"), 30)
    assert Copied.parse(str(copied)) == copied
    assert [stretch.upto for stretch in copied.stretches] == [("b", "1"), None]
    assert (copied.sees(4), copied.sees(6), copied.sees(9)) == (True, None, False)
    assert not copied.past(29).is_past
    assert Copied.parse(str(copied.past(30))).is_past
