"""PostgreSQL read by its log, on a real server: what each change becomes, and what is read when. What is refused or
lost is in `test_refusals`, random histories are in `test_histories`."""

import datetime as dt
import time
from urllib.parse import urlsplit

import psycopg
import pytest
from platform_tests.ingestion.changes.postgresql.following import KEYED, Follower, query, run, source, table
from platform_tests.servers import Postgres, start_postgres, stop_postgres

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.postgresql import copy as copy_module
from data_platform.ingestion.changes.postgresql import log as log_module
from data_platform.ingestion.changes.postgresql import slot as slot_module
from data_platform.ingestion.changes.postgresql.copied import Copied, Snapshot


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


def test_a_prepared_transaction_comes_once_when_it_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_module, "WAIT", dt.timedelta(seconds=0.3))
    server = start_postgres(["max_prepared_transactions=5"])
    try:
        run(server.url, KEYED, "insert into t values (1, 'a')")
        first = Follower(source(server.url, {"t": table("id")}))
        first.read()
        run(server.url, "begin; insert into t values (2, 'prepared'); prepare transaction 'one'")
        run(server.url, "begin; update t set v = 'b' where id = 1; prepare transaction 'two'", "commit prepared 'two'")
        assert first.changes() == [("update", 1, "b")]
        with pytest.raises(TransientError, match="prepared one"):
            Follower(source(server.url, {"t": table("id")})).read()
        run(server.url, "commit prepared 'one'")
        assert first.changes() == [("insert", 2, "prepared")]
    finally:
        stop_postgres(server)


def test_a_transaction_under_way_holds_up_nothing(follower: Follower, url: str) -> None:
    with psycopg.connect(url) as slow:
        for size in (100, 9_000, 70_000):
            slow.execute("insert into t select max(id) + 1, repeat(md5(random()::text), %s) from t", [size])
            started = time.monotonic()
            run(url, f"insert into t values ({-size}, 'quick')")
            assert follower.changes() == [("insert", -size, "quick")]
            assert time.monotonic() - started < 8
        slow.commit()
    assert len(follower.changes()) == 3


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


@pytest.mark.parametrize(
    ("statements", "note"),
    [
        (["alter table t detach partition t1"], "1 partitions of t were detached or dropped"),
        (["drop table t1"], "1 partitions of t were detached or dropped"),
        (["truncate t1"], "partitions of t were truncated or rewritten: t1."),
        (
            ["create table t3 (id int primary key)", "alter table t attach partition t3 for values from (20) to (30)"],
            "tables became partitions of t: t3.",
        ),
        (["create table t3 partition of t for values from (20) to (30)"], None),
        (["truncate t"], None),
        (["insert into t values (2), (12)"], None),
    ],
)
def test_what_is_done_to_partitions_without_the_log_is_noted_once(
    url: str, statements: list[str], note: str | None
) -> None:
    run(
        url,
        "create table t (id int primary key) partition by range (id)",
        "create table t1 partition of t for values from (0) to (10)",
        "create table t2 partition of t for values from (10) to (20)",
        "insert into t values (1), (11)",
    )
    follower = Follower(source(url, {"t": table("id")}))
    follower.read()
    run(url, *statements)
    notes = [one for batch in follower.read() for one in batch.notes]
    assert [one.startswith(note) for one in notes] == [True] if note else notes == []
    assert [one for batch in follower.read() for one in batch.notes] == []


def test_a_table_that_others_come_to_inherit_from_is_read_on_without_their_rows(follower: Follower, url: str) -> None:
    run(url, "create table more (x int, primary key (id)) inherits (t)", "insert into more values (9, 'more', 1)")
    run(url, "insert into t values (3, 'c')")
    batches = follower.read()
    assert [row["id"] for batch in batches for row in batch.rows.to_pylist()] == [3]
    assert "rows of the tables that inherit from t are not in it: more." in [n for one in batches for n in one.notes]


def test_limits_that_a_role_sets_on_its_transactions_do_not_end_a_copy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "BATCH_ROWS", 10)
    database = urlsplit(url).path[1:]
    run(
        url,
        f"{KEYED}; insert into t select i, repeat('x', 4000) from generate_series(1, 5000) i",
        f"alter database {database} set transaction_timeout = '300ms'",
        f"alter database {database} set idle_in_transaction_session_timeout = '300ms'",
    )
    of, count = source(url, {"t": table("id")}), 0
    with of.reading(["t"], {}) as reading:
        for number, batch in enumerate(reading):
            count += batch.rows.num_rows
            time.sleep(0.4 if number < 3 else 0)
    assert count == 5000


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
