"""What of PostgreSQL's log cannot be read, before anything is made at the source, and what is no longer there: each is
told with what to do."""

from typing import Any

import pytest
from platform_tests.ingestion.changes.postgresql.following import KEYED, Follower, query, run, source, table
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
from data_platform.ingestion.changes.postgresql.source import PostgresqlChanges


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
        (
            f"{KEYED}; create table more (x int, primary key (id)) inherits (t)",
            r"has tables that inherit from it \(more\)",
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


def test_a_table_that_two_names_stand_for_is_refused(url: str) -> None:
    run(url, KEYED)
    of = source(url, {"t": table("id"), "slim": table("id", table="public.t", columns=["id"])})
    assert "The tables t and slim of the source are both" in refusal(of)
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


def test_a_standby_is_refused() -> None:
    server = start_postgres()
    assert server.folder is not None
    try:
        run(server.url, KEYED, "checkpoint")
        kill_postgres(server)
        (server.folder / "data" / "standby.signal").touch()
        restart_postgres(server)
        assert "is a standby" in refusal(source(server.url, {"t": table("id")}))
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
        (
            "select pg_create_logical_replication_slot('s4', 'pgoutput', false, true)",
            {"slot": "s4"},
            r"before it is known whether they are committed \(two_phase\)",
        ),
    ],
)
def test_what_a_person_made_must_fit(url: str, statement: str, changes: dict[str, Any], says: str) -> None:
    run(url, KEYED, "create table u (id int primary key)", statement)
    try:
        with pytest.raises(PlatformError, match=says):
            raise PlatformError(refusal(source(url, {"t": table("id")}, **changes)))
    finally:
        run(url, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like 's_'")


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


@pytest.mark.parametrize("options", ["publish = 'insert, update'", "publish_via_partition_root = false"])
def test_a_publication_whose_options_were_altered_has_left_out_what_nobody_knows(
    follower: Follower, url: str, options: str
) -> None:
    all_of_it = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    run(url, f"alter publication data_platform_shop set ({options})", "delete from t where id = 1")
    assert "the options of the publication data_platform_shop (or its owner) were altered" in lost(follower)
    run(url, f"alter publication data_platform_shop set ({all_of_it})")
    assert "were altered" in lost(follower)  # though they are as before
    run(url, f"alter publication data_platform_shop set ({options})")
    follower.position = {}
    assert [row[1] for row in follower.changes()] == [2]
    run(url, "delete from t where id = 2")
    assert [row[:2] for row in follower.changes()] == [("delete", 2)]


@pytest.mark.parametrize("part", ["(id)", "where (id > 1)"])
def test_a_table_of_which_only_a_part_was_published_for_a_while_is_copied_again(
    follower: Follower, url: str, part: str
) -> None:
    run(url, f"alter publication data_platform_shop set table t {part}", "update t set v = 'unseen' where id = 1")
    assert follower.changes() == [("truncate", None, None), ("insert", 1, "unseen"), ("insert", 2, "b")]
    run(url, "update t set v = 'seen' where id = 1")
    assert follower.changes() == [("update", 1, "seen")]


def test_of_a_publication_of_some_rows_the_copy_has_those_that_the_log_gives(url: str) -> None:
    run(
        url,
        "create table t (id int primary key, v text)",
        "insert into t values (1, 'a'), (500, 'b')",
        "create publication few for table t where (id < 100) with (publish_via_partition_root = true)",
    )
    follower = Follower(source(url, {"t": table("id")}, publication="few"))
    assert follower.changes() == [("insert", 1, "a")]
    run(url, "insert into t values (2, 'c'), (501, 'd')", "update t set id = 502 where id = 1")
    assert [row[:2] for row in follower.changes()] == [("insert", 2), ("delete", 1)]
