"""Changes of a real MariaDB: what cannot be read is refused, what is lost is said, and what the log has arrives once,
in its order, whole transactions at a time."""

import json
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.changes.mysql_shop import (
    Shop,
    applied,
    changes,
    nowhere,
    of,
    operations,
    read,
    rows_of,
    shop,
    table,
    writing,
)
from platform_tests.servers import own_mariadb

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.mysql import copy, reading, source
from data_platform.ingestion.changes.mysql.copy import begin_locked_snapshot
from data_platform.ingestion.source import Batch

pytestmark = with_mariadb


# What cannot be read


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("binlog_format", "'MIXED'", "binlog_format is MIXED.*Set binlog_format = ROW"),
        ("binlog_format", "'STATEMENT'", "binlog_format is STATEMENT.*sessions that are open begin anew"),
        ("binlog_row_image", "'MINIMAL'", "binlog_row_image is MINIMAL.*Set binlog_row_image = FULL"),
        ("binlog_row_image", "'NOBLOB'", "binlog_row_image is NOBLOB"),
        ("binlog_row_metadata", "'MINIMAL'", "binlog_row_metadata is MINIMAL.*Set binlog_row_metadata = FULL"),
        ("binlog_row_metadata", "'NO_LOG'", "does not name the columns"),
    ],
)
def test_a_server_whose_log_does_not_say_enough_is_refused_with_what_to_set(
    at: Shop, variable: str, value: str, message: str
) -> None:
    at.run("create table t (id int primary key)", f"set global {variable} = {value}")
    with pytest.raises(PlatformError, match=message):
        read(changes(at.url, {"t": table()}), {})


def test_a_server_without_a_log_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    with own_mariadb(["--skip-log-bin"]) as server, shop(server.url) as at:
        at.run("create table t (id int primary key)")
        with pytest.raises(PlatformError, match=r"writes no binary log\. Set log_bin"):
            read(changes(at.url, {"t": table()}), {})


def test_an_account_without_the_rights_is_told_which_it_needs(at: Shop) -> None:
    at.run("create table t (id int primary key)", "drop user if exists 'reader'@'%'", "create user 'reader'@'%'")
    at.run("grant select on shop.* to 'reader'@'%'")
    url = at.url.replace("root@", "reader@")
    rights = "GRANT SELECT on the tables, and GRANT REPLICATION SLAVE, BINLOG MONITOR ON"
    with pytest.raises(PlatformError, match=rights):
        read(changes(url, {"t": table()}), {})
    at.run("grant binlog monitor on *.* to 'reader'@'%'")
    with pytest.raises(PlatformError, match=rights):
        read(changes(url, {"t": table()}), {})
    at.run("grant replication slave on *.* to 'reader'@'%'")
    read(changes(url, {"t": table()}), {})


def test_a_wrong_password_and_a_missing_database_are_reported(at: Shop) -> None:
    with pytest.raises(PlatformError, match=r"Cannot connect to MySQL at .*password") as caught:
        read(changes(at.url.replace("root@", "root:s3cret@"), {"t": table()}), {})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(PlatformError, match=r"Cannot connect to MySQL at .*nowhere"):
        read(changes(f"{at.server}/nowhere", {"t": table()}), {})
    with pytest.raises(PlatformError, match="names no database"):
        read(changes(at.server, {"t": table()}), {})


def test_tables_that_have_no_changes_are_refused(at: Shop) -> None:
    at.run("create table orders (id int primary key)", "create view v as select * from orders")
    at.run("create table m (id int primary key) engine = MyISAM")
    at.run(
        "create table s (id int primary key, a bigint unsigned generated always as row start, b bigint unsigned "
        "generated always as row end, period for system_time (a, b)) with system versioning"
    )
    for name, message in [
        ("order", r"There is no table order in .* Did you mean orders\?"),
        ("v", "shop.v is a view, whose changes the binary log does not have"),
        ("m", r"stored by MyISAM, which has no transactions.*ALTER TABLE m ENGINE = InnoDB"),
        ("s", r"shop.s keeps its versions by transactions \(b is bigint"),
    ]:
        with pytest.raises(PlatformError, match=message):
            read(changes(at.url, {name: table()}), {})
    with pytest.raises(PlatformError, match="The tables orders and o of the source are both"):
        read(changes(at.url, {"orders": table(), "o": table(table="shop.orders")}), {})
    with pytest.raises(PlatformError, match=r"has no column idd in the source\. Did you mean id\?"):
        read(changes(at.url, {"orders": table(columns=["idd"])}), {})


@pytest.mark.parametrize(
    ("before", "statement", "message"),
    [
        (
            "set session binlog_format = 'STATEMENT'",
            "insert into t values (1, 1)",
            "t was changed by a statement of which",
        ),
        ("set session binlog_format = 'STATEMENT'", "update shop.t set v = 2", "t was changed by a statement of which"),
        ("set session binlog_row_image = 'MINIMAL'", "update t set v = 3", "row of t has not all of its columns"),
    ],
)
def test_a_session_that_writes_otherwise_than_the_server_is_found_in_the_log(
    at: Shop, before: str, statement: str, message: str
) -> None:
    at.run("create table t (id int primary key, v int)", "create table u (id int)", "insert into t values (7, 7)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(before, "insert into u values (1)")
    read(changes(at.url, {"t": table()}), position)  # not one of ours
    at.run(statement)
    with pytest.raises(PlatformError, match=rf"{message}.*--full-refresh"):
        read(changes(at.url, {"t": table()}), position)


def test_transactions_prepared_by_xa_are_refused_when_they_have_rows_of_the_tables(at: Shop) -> None:
    at.run("create table t (id int primary key)", "create table u (id int primary key)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("xa start 'a'", "insert into u values (1)", "xa end 'a'", "xa prepare 'a'", "xa commit 'a'")
    at.run("insert into t values (1)")
    assert operations(read(changes(at.url, {"t": table()}), position), "id") == [("insert", 1)]
    at.run("xa start 'b'", "insert into t values (2)", "xa end 'b'", "xa prepare 'b'", "xa rollback 'b'")
    with pytest.raises(PlatformError, match="XA PREPARE"):
        read(changes(at.url, {"t": table()}), position)


# A position that is lost


def test_a_log_that_was_purged_is_an_error_that_says_what_to_do(at: Shop) -> None:
    at.run("create table t (id int primary key)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("insert into t values (1)", "flush binary logs")
    purge(at)
    with pytest.raises(PlatformError, match=r"what came between was purged.* dp run shop --full-refresh"):
        read(changes(at.url, {"t": table()}), position)


def purge(at: Shop) -> None:
    """Have the server remove all files of its log but the last, which it does once nobody reads them."""
    until = time.monotonic() + 20
    while len(at.rows("show binary logs")) > 1:
        at.run(f"purge binary logs to '{at.value('show master status')}'")
        assert time.monotonic() < until, "the server keeps its old files"
        time.sleep(0.05)


def test_the_position_moves_past_what_is_of_no_table_so_that_old_files_may_go(at: Shop) -> None:
    at.run("create table t (id int primary key)", "create table other (id int)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("insert into other values (1)", "flush binary logs")
    assert not of(read(changes(at.url, {"t": table()}), position))
    purge(at)
    at.run("insert into t values (1)")
    assert operations(read(changes(at.url, {"t": table()}), position), "id") == [("insert", 1)]


def test_another_server_or_a_restored_one_is_not_taken_for_the_one_that_was_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    with own_mariadb() as server, shop(server.url) as at:
        at.run("create table t (id int primary key)", "flush binary logs", "insert into t values (1)")
        read(changes(at.url, {"t": table()}), position := nowhere())
        at.run("insert into t values (2)")
        read(changes(at.url, {"t": table()}), position)
        beyond = {**position, "place": "999999"}
        with pytest.raises(PlatformError, match=r"has [\d,]+ bytes: this is another server, or one that was restored"):
            read(changes(at.url, {"t": table()}), beyond)
        at.run("insert into t values (3)")
        with pytest.raises(PlatformError, match=r"that is there was begun at .*this is another server"):
            read(changes(at.url, {"t": table()}), {**position, "created": "1"})
        at.run("reset master")
        with pytest.raises(PlatformError, match=r"ends with .*this is another server"):
            read(changes(at.url, {"t": table()}), position)
        # The file is there again, as long as it was, and has other events.
        at.run("flush binary logs", *(f"insert into t values ({number})" for number in range(10, 40)))
        with pytest.raises(PlatformError, match=r"this is another server, or one that was restored"):
            read(changes(at.url, {"t": table()}), position)
        read(changes(at.url, {"t": table()}), {})


def test_a_log_that_was_reset_after_the_copy_and_before_the_log_was_ever_read_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    with own_mariadb() as server, shop(server.url) as at:
        at.run("create table t (id int primary key)")
        time.sleep(1.1)
        at.run("reset master", "insert into t values (1)")
        read(changes(at.url, {"t": table()}), position := nowhere())
        time.sleep(1.1)
        # The same place is the end of an event again, and after that it is in the middle of one.
        at.run("reset master", "insert into t values (2)", "insert into t values (3)")
        for place in (int(position["place"]), int(position["place"]) - 7):
            with pytest.raises(PlatformError, match="this is another server, or one that was restored") as caught:
                read(changes(at.url, {"t": table()}), {**position, "place": str(place)})
            assert not isinstance(caught.value, TransientError)


def test_a_server_that_was_restarted_is_read_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    with own_mariadb() as server, shop(server.url) as at:
        at.run("create table t (id int primary key)", "insert into t values (1)")
        read(changes(at.url, {"t": table()}), position := nowhere())
        at.run("insert into t values (2)")
        server.kill()
        with pytest.raises(PlatformError, match="Cannot connect"):
            read(changes(at.url, {"t": table()}), position)
        server.restart()
        with shop(server.url, again=True) as again:
            again.run("insert into shop.t values (3)")
            found = operations(read(changes(at.url, {"t": table()}), position), "id")
        assert found == [("insert", 2), ("insert", 3)]


def test_a_replica_that_takes_over_is_read_on_by_its_gtid(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    options = ["--gtid-strict-mode=ON", "--log-slave-updates"]
    with own_mariadb(options) as first, own_mariadb([*options, "--server-id=2"]) as second, shop(first.url) as at:
        replica = Shop(second.url, again=True)
        port = first.url.rpartition(":")[2]
        replica.run(
            "reset master",
            "set global gtid_slave_pos = ''",
            f"change master to master_host='127.0.0.1', master_port={port}, master_user='root', "
            "master_use_gtid=slave_pos",
        )
        at.run("create table t (id int primary key)", "insert into t values (1)")
        read(changes(at.url, {"t": table()}), position := nowhere())
        at.run("insert into t values (2)")
        read(changes(at.url, {"t": table()}), position)
        replica.run("start slave")
        at.run("insert into t values (3)")
        reached = at.value("select @@gtid_binlog_pos")
        assert replica.value(f"select master_gtid_wait('{reached}', 30)") == 0
        replica.run("stop slave", "insert into shop.t values (4)", "flush binary logs", "insert into shop.t values (5)")
        moved = changes(replica.url, {"t": table()})
        assert operations(read(moved, position), "id") == [("insert", 3), ("insert", 4), ("insert", 5)]
        assert position["server"] == "server_id 2"
        replica.run("insert into shop.t values (6)")
        assert operations(read(moved, position), "id") == [("insert", 6)]
        # The one before knows nothing of what the other wrote.
        with pytest.raises(PlatformError, match=r"from GTID 0-2-.* on it cannot be read either"):
            read(changes(at.url, {"t": table()}), position)


# What the log has


def test_changes_come_once_in_their_order(at: Shop) -> None:
    at.run("create table t (id int primary key, v varchar(20))", "insert into t values (1, 'a'), (2, 'b')")
    source = changes(at.url, {"t": table()})
    position = nowhere()
    assert operations(read(source, position), "id", "v") == [("insert", 1, "a"), ("insert", 2, "b")]
    assert not read(source, position)
    at.run("update t set v = 'c' where id = 1", "delete from t where id = 2", "insert into t values (3, null)")
    at.run("begin", "insert into t values (4, 'rolled back')", "rollback")
    batches = read(source, position)
    assert operations(batches, "id", "v") == [("update", 1, "c"), ("delete", 2, "b"), ("insert", 3, None)]
    assert [row["_order"] for row in of(batches)] == [3, 4, 5]
    assert not read(source, position)


def test_a_row_that_gets_another_key_is_a_delete_and_an_insert(at: Shop) -> None:
    at.run(
        "create table t (id varchar(9) primary key, code int, v int)", "insert into t values ('a', 1, 1), ('b', 2, 2)"
    )
    tables = {"t": table("id", "code")}
    read(changes(at.url, tables), position := nowhere())
    at.run("update t set id = 'A' where id = 'a'", "update t set code = 9 where id = 'b'", "update t set v = 3")
    assert operations(read(changes(at.url, tables), position), "id", "code", "v") == [
        ("delete", "a", 1, 1),
        ("insert", "A", 1, 1),
        ("delete", "b", 2, 2),
        ("insert", "b", 9, 2),
        ("update", "A", 1, 3),
        ("update", "b", 9, 3),
    ]


def test_of_a_table_without_a_key_each_change_is_the_end_of_a_row_and_a_new_one(at: Shop) -> None:
    at.run("create table t (v int)", "insert into t values (1), (1)")
    tables = {"t": table("none")}
    position = nowhere()
    assert operations(read(changes(at.url, tables), position), "v") == [("insert", 1), ("insert", 1)]
    at.run("update t set v = 2 limit 1", "delete from t limit 1")
    found = operations(read(changes(at.url, tables), position), "v")
    assert found == [("delete", 1), ("insert", 2), ("delete", 2)]


def test_columns_that_come_go_and_change_in_mid_stream_have_the_names_and_types_of_their_time(at: Shop) -> None:
    at.run("create table t (id int primary key, a int, b varchar(5))", "insert into t values (1, 1, 'x')")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(
        "begin", "insert into t values (2, 2, 'y')", "commit",
        "alter table t add column n decimal(9,2) default 5 after id", "insert into t values (3, 1.5, 3, 'z')",
        "alter table t drop column b", "insert into t values (4, 2.5, 4)",
        "alter table t rename column a to aa", "insert into t values (5, 3.5, 5)",
        "alter table t modify aa bigint unsigned", "insert into t values (6, 4.5, 18446744073709551615)",
        "alter table t modify aa varchar(30)", "update t set aa = 'text' where id = 6",
    )  # fmt: skip
    batches = read(changes(at.url, {"t": table()}), position)
    plain = [{k: v for k, v in row.items() if k[0] != "_"} for row in of(batches)]
    assert [{k: str(v) for k, v in row.items()} for row in plain] == [
        {"id": "2", "a": "2", "b": "y"},
        {"id": "3", "n": "1.50", "a": "3", "b": "z"},
        {"id": "4", "n": "2.50", "a": "4"},
        {"id": "5", "n": "3.50", "aa": "5"},
        {"id": "6", "n": "4.50", "aa": "18446744073709551615"},
        {"id": "6", "n": "4.50", "aa": "text"},
    ]
    assert [row["_order"] for row in of(batches)] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "statement",
    [
        "truncate table t",
        "TRUNCATE shop.t",
        "truncate table `t` -- all of it",
        "drop table t",
        "drop table if exists other, shop . `t`",
        "drop /* all */ table t",
        "create or replace table t (id int primary key)",
        "drop database shop",
        "set statement max_statement_time = 100 for truncate table t",
    ],
)
def test_a_statement_that_empties_a_table_empties_it(at: Shop, statement: str) -> None:
    at.run("create table t (id int primary key)", "create table other (id int)", "insert into t values (1)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(
        "insert into t values (2)", "truncate table other", statement, "create database if not exists shop", "use shop"
    )
    at.run("create table if not exists t (id int primary key)", "insert into t values (3)")
    batches = read(changes(at.url, {"t": table()}), position)
    assert operations(batches, "id") == [("truncate", None), ("insert", 2), ("insert", 3)]
    assert list(applied(batches, "t", "id")) == [(3,)]
    assert sorted(row["_order"] for row in of(batches)) == [2, 3, 4]


def test_a_table_that_is_gone_holds_up_no_other(at: Shop) -> None:
    at.run("create table t (id int primary key)", "create table u (id int primary key)", "insert into t values (1)")
    tables = {"t": table(), "u": table()}
    read(changes(at.url, tables), position := nowhere())
    at.run("insert into t values (2)", "drop table t", "insert into u values (1)")
    batches = read(changes(at.url, tables), position)
    assert operations(batches, "id") == [("truncate", None), ("insert", 2)]
    assert operations(batches, "id", name="u") == [("insert", 1)]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("rename table t to t_old, t_new to t", "took the place of t"),
        ("alter table t_new rename to t", "took the place of t"),
        ("alter table t truncate partition p1", "added or removed rows of t"),
        ("alter table t drop partition p0", "added or removed rows of t"),
    ],
)
def test_what_changes_rows_without_the_log_is_noted(at: Shop, statement: str, what: str) -> None:
    at.run("create table t_new (id int primary key, v int)")
    parts = "partition by range (id) (partition p0 values less than (10), partition p1 values less than maxvalue)"
    at.run(f"create table t (id int primary key, v int) {parts}", "insert into t values (1, 1), (11, 1)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(
        *(["drop table t"] if statement.startswith("alter table t_new") else []),
        statement,
        "insert into t values (5, 5)",
    )
    batches = read(changes(at.url, {"t": table()}), position)
    (note,) = [note for batch in batches for note in batch.notes]
    assert what in note
    assert "--full-refresh" in note
    assert operations(batches, "id")[-1] == ("insert", 5)


def test_columns_that_the_server_makes_for_itself_are_left_out(at: Shop) -> None:
    at.run("create table t (id int primary key, v text, unique (v), u varchar(900), unique (u) using hash)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("insert into t values (1, 'a', 'b')")
    batches = read(changes(at.url, {"t": table()}), position)
    assert rows_of(batches).to_pylist() == [{"id": 1, "v": "a", "u": "b"}]


NAMED = ", a timestamp(6) generated always as row start, b timestamp(6) generated always as row end"


@pytest.mark.parametrize("columns", ["", f"{NAMED}, period for system_time (a, b)"])
def test_of_a_table_that_keeps_its_versions_the_present_ones_are_read(at: Shop, columns: str) -> None:
    at.run(f"create table t (id int primary key, v int{columns}) with system versioning")
    at.run("insert into t (id, v) values (1, 1), (2, 2), (3, 3)", "update t set v = 10 where id = 1")
    batches = read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("update t set v = 20 where id = 2", "delete from t where id = 3", "replace into t (id, v) values (1, 11)")
    at.run("insert into t (id, v) values (2, 0) on duplicate key update v = 22", "update t set id = 5 where id = 1")
    at.run("delete history from t")
    more = read(changes(at.url, {"t": table()}), position)
    assert operations(more, "id", "v") == [
        ("update", 2, 20),
        ("delete", 3, 3),
        ("delete", 1, 10),
        ("insert", 1, 11),
        ("update", 2, 22),
        ("delete", 1, 11),
        ("insert", 5, 11),
    ]
    there = applied([*batches, *more], "t", "id")
    assert {key: row["v"] for (key,), row in there.items()} == dict(at.rows("select id, v from t"))
    assert set(rows_of(more).column_names) == set(rows_of(batches).column_names)


def test_rows_that_foreign_keys_delete_are_not_in_the_log_and_that_is_noted(at: Shop) -> None:
    at.run("create table p (id int primary key)", "insert into p values (1)")
    at.run("create table t (id int primary key, p int, foreign key (p) references p (id) on delete cascade)")
    at.run("insert into t values (1, 1)")
    tables = {"p": table(), "t": table()}
    read(changes(at.url, tables), position := nowhere())
    at.run("delete from p")
    batches = read(changes(at.url, tables), position)
    assert operations(batches, "id", name="p") == [("delete", 1)]
    assert operations(batches, "id") == []
    assert at.rows("select * from t") == []
    (note,) = [note for batch in batches for note in batch.notes]
    assert "rows of t that foreign keys delete or change are not in the binary log" in note


def test_events_that_mariadb_compressed_are_read(at: Shop) -> None:
    at.run("create table t (id int primary key, v text)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("set global log_bin_compress = 1", "insert into t values (1, repeat('long', 1000)), (2, 'x')")
    at.run("update t set v = repeat('other', 1000)", f"delete from t where v <> '{'y' * 500}'")
    at.run(f"create table u (id int) comment '{'c' * 900}'")
    found = operations(read(changes(at.url, {"t": table()}), position), "id")
    assert found == [("insert", 1), ("insert", 2), ("update", 1), ("update", 2), ("delete", 1), ("delete", 2)]


def test_a_log_without_checksums_and_one_that_gets_them_are_read(at: Shop) -> None:
    at.run("create table t (id int primary key)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    found = []
    try:
        for number, kind in enumerate(["NONE", "CRC32", "NONE", "NONE", "CRC32"]):
            at.run(f"set global binlog_checksum = {kind}", f"insert into t values ({number})")
            found += operations(read(changes(at.url, {"t": table()}), position), "id")
    finally:
        at.run("set global binlog_checksum = CRC32")
    assert found == [("insert", number) for number in range(5)]


def test_rows_of_a_table_that_became_one_without_transactions_are_read(at: Shop) -> None:
    at.run("create table t (id int primary key)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("alter table t engine = MyISAM", "insert into t values (1), (2)", "insert into t values (3)")
    assert operations(read(changes(at.url, {"t": table()}), position), "id") == [("insert", n) for n in (1, 2, 3)]


def test_a_table_that_is_made_of_a_query_has_its_rows_in_the_log(at: Shop) -> None:
    at.run("create table t (id int primary key)", "insert into t values (1)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("create or replace table t (primary key (id)) select 7 as id union select 8", "insert into t values (9)")
    assert sorted(applied(read(changes(at.url, {"t": table()}), position), "t", "id")) == [(7,), (8,), (9,)]


def test_a_large_transaction_comes_in_batches_without_a_position_until_its_end(
    at: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FLUSH_ROWS", 500)
    at.run("create table t (id int primary key, v varchar(100))", "create table u (id int primary key)")
    tables = {"t": table(), "u": table()}
    read(changes(at.url, tables), position := nowhere())
    at.run(
        "begin", "insert into t select seq, repeat('x', 50) from seq_1_to_20000", "insert into u values (1)", "commit"
    )
    batches = read(changes(at.url, tables), position)
    assert len(batches) > 5
    assert [batch.position is None for batch in batches] == [True] * (len(batches) - 1) + [False]
    assert [row["id"] for row in of(batches)] == list(range(1, 20001))
    assert [row["_order"] for row in [*of(batches), *of(batches, "u")]] == list(range(1, 20002))


def test_a_value_larger_than_a_packet_is_read(at: Shop) -> None:
    at.run(f"set global max_allowed_packet = {64 * 2**20}")
    at.connection.close()
    at = Shop(at.server)
    at.run("create table t (id int primary key, b longblob)")
    read(changes(at.url, {"t": table()}), position := nowhere())
    at.run(f"insert into t values (1, repeat('x', {20 * 2**20}))", "insert into t values (2, 'y')")
    assert [len(row["b"]) for row in of(read(changes(at.url, {"t": table()}), position))] == [20 * 2**20, 1]
    assert [len(row["b"]) for row in of(read(changes(at.url, {"t": table()}), {}))] == [20 * 2**20, 1]


# The first copy


@pytest.mark.parametrize("locked", [False, True])
def test_the_copy_and_the_log_leave_no_gap_and_no_overlap_while_others_write(
    at: Shop, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    if locked:  # as on MySQL, which does not tell the place of a snapshot
        monkeypatch.setattr(reading, "begin_snapshot", begin_locked_snapshot)
    at.run("create table t (id int primary key auto_increment, v int)", "create table u (id int primary key, v int)")
    tables = {"t": table(), "u": table()}
    batches: list[Batch] = []
    position = nowhere()
    writes = (
        "begin",
        "insert into t(v) values ({n})",
        "insert into u values ({n}, 0)",
        "commit",
        "update t set v = -1 where id = {n} - 2",
        "delete from u where id = {n} - 3",
    )
    with writing(at, *writes):
        for _ in range(4):
            batches += read(changes(at.url, tables), position)
    batches += read(changes(at.url, tables), position)
    require_equal(at, batches, "t", "u")


def require_equal(at: Shop, batches: list[Batch], *tables: str) -> None:
    """What the changes make of the tables is what the source has; their order rises with their delivery."""
    for name in tables:
        assert sorted(tuple(row.values()) for row in applied(batches, name, "id").values()) == at.rows(
            f"select * from {name} order by 1"
        )
        orders = [row["_order"] for row in of(batches, name) if row["_operation"] != "truncate"]
        assert orders == sorted(set(orders))


KEYS = {
    "numbers": ("id int", "seq", "seq"),
    "text without case": ("id varchar(20) collate utf8mb4_general_ci", "concat(char(97 + seq % 26), seq)", ""),
    "accents": ("id varchar(9) collate latin1_german1_ci", "concat(elt(1 + seq % 4, 'a', 'Ä', 'z', 'é'), seq)", ""),
    "bytes": ("id binary(16)", "unhex(md5(seq))", ""),
    "dates": ("id date", "date_add('2020-01-01', interval seq day)", ""),
    "times": ("id datetime(6)", "date_add('2020-01-01', interval seq microsecond)", ""),
    "moments": ("id timestamp(3)", "date_add('2020-01-01', interval seq second)", ""),
    "decimals": ("id decimal(20,5)", "seq / 7", ""),
    "negative numbers": ("id bigint", "100 - seq", ""),
    "a table without a key that is ordered": ("id enum('a')", "'a'", "piece"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_a_copy_that_was_killed_goes_on_and_is_exact(at: Shop, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    declared, value, note = KEYS[kind]
    monkeypatch.setattr(copy, "COPY_ROWS", 7)
    at.run(
        f"create table t ({declared}, n int, v int, primary key (id, n))",
        f"insert into t select {value}, seq, 0 from seq_1_to_60",
    )
    tables = {"t": table("id", "n")}
    chance = random.Random(kind)
    batches: list[Batch] = []
    position = nowhere()
    stretches = 0
    for round_ in range(1, 7):
        # Killed after some batches: what has a position stays.
        some = read(changes(at.url, tables), position, batches=chance.choice([1, 2]))
        batches += some
        stretches = max(stretches, len(json.loads(position.get("copied t", "[]").replace("done", "[]"))))
        low = chance.randrange(1, 60)
        at.run(
            f"update t set v = v + 1 where n between {low} and {low + 15}",
            f"delete from t where n = {low + 3}",
            f"insert into t select {value}, seq + 1000 * {round_}, 1 from seq_{low}_to_{low + 4}",
            f"update t set n = n + 10000 where n = {low + 5}",
        )
    stretches = position.get("copied t", "[]").count('["')
    batches += read(changes(at.url, tables), position)
    assert stretches > 1 or note == "piece"
    assert position["copied t"] == "done"
    found = {(str(row["n"]), row["v"]) for row in applied(batches, "t", "id", "n").values()}
    assert found == {(str(n), v) for n, v in at.rows("select n, v from t")}
    assert len(applied(batches, "t", "id", "n")) == at.value("select count(*) from t")


def test_a_table_that_is_emptied_while_its_copy_is_interrupted_is_refused(
    at: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "COPY_ROWS", 2)
    at.run("create table t (id int primary key)", "insert into t values (1), (2), (3), (4), (5)")
    read(changes(at.url, {"t": table()}), position := nowhere(), batches=1)
    at.run("truncate table t", "insert into t values (9)")
    with pytest.raises(PlatformError, match=r"t was emptied while its first copy was interrupted.*--full-refresh"):
        read(changes(at.url, {"t": table()}), position)


def test_a_table_whose_key_is_masked_is_copied_without_its_keys_in_the_position(
    at: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "COPY_ROWS", 1)
    at.run("create table t (id varchar(20) primary key)", "insert into t values ('secret'), ('private')")
    batches = read(changes(at.url, {"t": table(mask=["id"])}), {})
    assert len(of(batches)) == 2
    assert not any(word in str([batch.position for batch in batches]) for word in ("secret", "private"))


def test_a_table_that_comes_later_is_copied_and_the_others_go_on(at: Shop) -> None:
    at.run("create table t (id int primary key)", "create table u (id int primary key)", "insert into u values (1)")
    first = read(changes(at.url, {"t": table()}), position := nowhere())
    at.run("insert into t values (1)", "insert into u values (2)")
    tables = {"t": table(), "u": table()}
    second = read(changes(at.url, tables), position)
    assert operations(second, "id") == [("insert", 1)]
    assert operations(second, "id", name="u") == [("truncate", None), ("insert", 1), ("insert", 2)]
    at.run("insert into u values (3)")
    batches = [*first, *second, *read(changes(at.url, tables), position)]
    require_equal(at, batches, "t", "u")
    read(changes(at.url, {"t": table()}), position)
    at.run("insert into t values (5)")
    read(changes(at.url, {"t": table()}), position)
    assert "copied u" not in position


def test_an_empty_table_lands_with_its_columns(at: Shop) -> None:
    at.run("create table t (id int primary key, v decimal(9,2))")
    batches = read(changes(at.url, {"t": table()}), position := nowhere())
    assert batches[-1].position is not None or batches
    assert [batch.rows.column_names for batch in batches if batch.rows.num_columns] == [
        ["_operation", "_order", "_committed_at", "id", "v"]
    ]
    assert position["copied t"] == "done"


# Histories


@pytest.mark.parametrize("seed", range(2))
def test_a_random_history_makes_of_the_tables_what_the_source_has(
    at: Shop, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(copy, "COPY_ROWS", 11)
    monkeypatch.setattr(reading, "FLUSH_ROWS", 23)
    chance = random.Random(seed)
    names = ["a", "b", "c"]
    tables = {name: table() for name in names}
    for name in names:
        at.run(f"create table {name} (id int primary key, v varchar(20), total int)")
    at.run("create table sums (id int primary key, total int)", "insert into sums values (1, 0)")
    tables["sums"] = table()
    total = 0
    batches: list[Batch] = []
    position = nowhere()
    for _ in range(120):
        at.run("begin")
        for _ in range(chance.choice([1, 1, 2, 5])):
            name, id_ = chance.choice(names), chance.randrange(40)
            total += 1
            statement = chance.choice(
                [
                    f"replace into {name} values ({id_}, 'v{total}', {total})",
                    f"insert into {name} values ({id_}, null, {total}) on duplicate key update total = {total}",
                    f"update {name} set total = {total}, v = concat(v, 'é') where id between {id_} and {id_ + 5}",
                    f"update ignore {name} set id = id + 40 where id = {id_}",
                    f"delete from {name} where id > {id_} limit 2",
                ]
            )
            at.run(statement)
        at.run(f"update sums set total = {total}", chance.choice(["commit", "commit", "commit", "rollback"]))
        if chance.random() < 0.03:
            at.run(f"truncate table {chance.choice(names)}")
        if chance.random() < 0.05:
            at.run("flush binary logs")
        if chance.random() < 0.2:
            batches += read(changes(at.url, tables), position)
            require_whole(batches)
    batches += read(changes(at.url, tables), position)
    for name in names:
        found = sorted(tuple(row.values()) for row in applied(batches, name, "id").values())
        assert found == at.rows(f"select * from {name} order by 1"), name
    every = sorted(row["_order"] for name in tables for row in of(batches, name))
    assert every == sorted(set(every))


def require_whole(batches: list[Batch]) -> None:
    """At each position, the sum that each transaction writes last is the highest number that it wrote anywhere."""
    highest = total = 0
    is_copied = False
    for batch in batches:
        for row in batch.rows.to_pylist():
            if batch.table == "sums":
                total = max(total, row["total"])
            elif row["_operation"] in ("insert", "update"):
                highest = max(highest, row["total"])
        # Until each table was copied, there is one that is not there yet.
        is_copied |= batch.position is not None and "copied sums" in batch.position
        if is_copied and batch.position is not None:
            assert highest <= total, batch.position


# Looking


def test_a_probe_tells_what_a_load_would_find_and_fires_for_no_other_table(at: Shop) -> None:
    at.run("create table t (id int primary key)", "create table u (id int primary key)", "create table other (id int)")
    source_ = changes(at.url, {"t": table(), "u": table()})
    position = nowhere()

    def fired() -> list[str]:
        found = source_.probe(["t", "u"], dict.fromkeys(["t", "u"], position))
        return [name for name, one in found.items() if one.changes]

    assert fired() == ["t", "u"]
    read(source_, position)
    assert fired() == []
    assert source_.probe(["t"], {"t": position})["t"].complete
    at.run("insert into other values (1)", "create table more (id int)")
    assert fired() == []
    assert not source_.probe(["t"], {"t": position})["t"].complete
    at.run("insert into u values (1)")
    assert fired() == ["u"]
    at.run("truncate table t")
    assert fired() == ["t", "u"]
    read(source_, position)
    assert fired() == []


def test_a_probe_of_much_that_is_of_no_table_has_a_load_move_the_position(
    at: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LOOK_BYTES", 1000)
    at.run("create table t (id int primary key)", "create table other (v varchar(500))")
    source_ = changes(at.url, {"t": table()})
    read(source_, position := nowhere())
    at.run(*["insert into other values (repeat('x', 400))"] * 4)
    assert source_.probe(["t"], {"t": position})["t"].changes
    read(source_, position)
    assert not source_.probe(["t"], {"t": position})["t"].changes


def test_a_probe_while_a_load_reads_disturbs_it_not(at: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FLUSH_ROWS", 10)
    at.run("create table t (id int primary key, v text)")
    source_ = changes(at.url, {"t": table()})
    read(source_, position := nowhere())
    at.run(*(f"insert into t select seq, repeat('x', 3000) from seq_{n}_to_{n + 99}" for n in range(0, 4000, 100)))
    with source_.reading(["t"], position) as opened:
        batches = iter(opened)
        found = [next(batches)]
        assert source_.probe(["t"], {"t": position})["t"].changes
        found += batches
    assert len(of(found)) == 4000


def test_what_is_held_is_the_log_which_the_server_keeps_anyway(at: Shop) -> None:
    at.run("create table t (id int primary key)")
    source_ = changes(at.url, {"t": table()})
    (before,) = source_.held({})
    assert (before.kind, before.behind, before.retained, before.is_ours) == ("binary log", None, None, False)
    read(source_, position := nowhere())
    assert source_.held(position)[0].behind == 0
    at.run("insert into t values (1)", "flush binary logs", "insert into t values (2)")
    (held,) = source_.held(position)
    assert held.behind is not None
    assert 200 < held.behind < 5000
    assert f"to {at.value('show master status')}" in held.name
    assert source_.drop() == []


def test_orders_rise_over_files_and_readings(at: Shop) -> None:
    at.run("create table t (id int primary key)", "insert into t select seq from seq_1_to_5")
    batches = read(changes(at.url, {"t": table()}), position := nowhere())
    for number in range(6, 12):
        at.run(f"insert into t values ({number})", "flush binary logs")
        batches += read(changes(at.url, {"t": table()}), position)
    orders = [row["_order"] for row in of(batches)]
    assert all(one < other for one, other in pairwise(orders))
    assert rows_of(batches)["id"].to_pylist() == list(range(1, 12))
