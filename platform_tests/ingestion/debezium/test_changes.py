"""Changes of real databases that Debezium reads in a Java process: each once, in order, from the position on."""

import os
import time
from pathlib import Path

import pytest
from platform_tests.databases import with_mariadb
from platform_tests.ingestion.debezium.shop import TABLES, Shop, read, table

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.debezium.source import Debezium

VALUES = {
    "postgresql": {
        "numeric(20, 4)": ("1.5000", "1.5000"),
        "timestamp": ("'2024-01-02 00:00'", "2024-01-02T00:00:00"),
        "timestamptz": ("'2024-01-02 12:00+02'", "2024-01-02T10:00:00.000000Z"),
        "date": ("'0999-12-31'", "0999-12-31"),
        "time": ("'23:59:59.5'", "23:59:59.500000"),
        "bytea": ("decode('00ff', 'hex')", b"\x00\xff"),
        "jsonb": ("'[1]'", "[1]"),
        "int[]": ("'{1,2}'", "[1,2]"),
        "text": ("'é😀'", "é😀"),
    },
    "mariadb": {
        "decimal(20, 4)": ("1.5000", "1.5000"),
        "datetime(6)": ("'2024-01-02 00:00'", "2024-01-02T00:00:00"),
        "date": ("'2024-02-29'", "2024-02-29"),
        "time(3)": ("'-100:34:56.789'", "-100:34:56.789000"),
        "blob": ("x'00ff'", b"\x00\xff"),
        "json": ("'[1]'", "[1]"),
        "bigint unsigned": ("18446744073709551615", "18446744073709551615"),
        "text": ("'é😀'", "é😀"),
    },
}
"""By the type of a column: a value in SQL, and what raw has of it."""


def test_a_first_copy_is_followed_by_each_change_once_and_in_its_order(shop: Shop) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(VALUES[shop.kind]))
    given, expected = zip(*VALUES[shop.kind].values(), strict=True)
    shop.run(f"create table v (id int primary key, {columns})", f"insert into v values (1, {', '.join(given)})")
    source = shop.source({**TABLES, "v": table()})
    first = read(source)
    assert first.changes("t", "id", "total", "_order") == [("insert", "1", "1", 1), ("insert", "2", "2", 2)]
    assert tuple(first.of("v").to_pylist()[0].values())[-len(expected) :] == expected
    # Nothing has a position before the copy is whole.
    assert [batch.position is not None for batch in first.batches].index(True) >= 3

    shop.run(
        "begin",
        "insert into t values (3, 3)",
        "insert into u values (3, 3)",
        "commit",
        "begin",
        "insert into t values (4, 4)",
        "rollback",
        "update t set total = 5 where id = 1",
        "update t set id = 7 where id = 1",
        "delete from t where id = 2",
        "alter table u add column note varchar(10) default 'old'",
        "insert into u values (4, 4, 'new')",
        "truncate table u",
    )
    second = read(source, first.position)
    assert second.changes("t", "id", "total") == [
        ("insert", "3", "3"),
        ("update", "1", "5"),
        ("delete", "1", None),
        ("insert", "7", "5"),
        ("delete", "2", None),
    ]
    assert second.changes("u", "id", "note") == [
        # Debezium describes rows of PostgreSQL by the table as it is now: what such rows have there.
        ("insert", "3", "old" if shop.kind == "postgresql" else None),
        ("insert", "4", "new"),
        ("truncate", None, None),
    ]
    orders = [order for name in ("t", "u") for *_, order in second.changes(name, "_order")]
    assert len(set(orders)) == len(orders)
    assert min(orders) > 5
    assert None not in second.of("t")["_committed_at"].to_pylist()

    third = read(source, second.position)
    assert [(name, third.changes(name)) for name in ("t", "u", "v")] == [("t", []), ("u", []), ("v", [])]


def test_a_position_that_the_source_no_longer_has_is_refused_and_no_copy_is_begun(shop: Shop) -> None:
    source = shop.source()
    position = read(source).position
    if shop.kind == "postgresql":
        source.drop()
    else:
        shop.run("insert into t values (3, 3)", "reset master", "insert into t values (4, 4)")
    with pytest.raises(PlatformError, match=r"no longer has the changes .* --full-refresh") as refused:
        read(source, position)
    assert not isinstance(refused.value, TransientError)


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_long_values_that_an_update_does_not_change_are_named_and_a_busy_source_is_freed_of_its_log(shop: Shop) -> None:
    shop.run("create table v (id int primary key, n int, big text, raw bytea, many int[], words text[])")
    for column in ("big", "raw", "many", "words"):
        shop.run(f"alter table v alter {column} set storage external")
    shop.run(
        "insert into v select 1, 1, repeat('x', 9000), decode(repeat('ab', 9000), 'hex'), array_fill(7, array[9000]), "
        "array_fill('w'::text, array[9000])"
    )
    source = shop.source({"v": table()})
    first = read(source)
    held = source.held(first.position)[0]
    shop.run("update v set n = 2", "update v set id = 9", "create table other (n int)")
    shop.run("insert into other select generate_series(1, 100000)", "update v set n = 3, big = 'short'")
    second = read(source, first.position)
    left = ["big", "raw", "many", "words"]
    assert second.changes("v", "id", "n", "big", "raw", "_unchanged") == [
        ("update", "1", "2", None, None, left),
        ("delete", "1", None, None, None, None),
        ("insert", "9", "2", None, None, left),
        ("update", "9", "3", "short", None, left[1:]),
    ]
    freed = source.held(second.position)[0]
    assert (held.name, held.is_ours) == (freed.name, True)
    assert (freed.behind or 0) < 1_000_000
    third = source.held({})
    assert "of an earlier copy" in third[0].state
    # A copy anew has a slot of its own, and the one before goes when that is committed.
    again = read(source)
    assert [one.name for one in source.held(again.position) if one.kind == "replication slot"] != [held.name]
    assert len(source.held(again.position)) == 2


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_tables_that_are_not_there_or_have_another_key_are_refused_by_name(shop: Shop) -> None:
    with pytest.raises(PlatformError, match=r"no table public\.nowhere .* public\.t"):
        read(shop.source({**TABLES, "nowhere": table()}))
    with pytest.raises(PlatformError, match=r"have the key \(id\).*key: \[total\].*message\.key\.columns"):
        read(shop.source({"t": table("total")}))
    position = {'offset {"server":"x"}': "{}", "copied t": "done"}
    with pytest.raises(PlatformError, match=r"u came to defs.yaml after the others were copied"):
        read(shop.source(), position)


@with_mariadb
@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_a_wrong_password_is_said_so_and_shown_nowhere(shop: Shop) -> None:
    shop.run("create or replace user reader identified by 'right'")
    with pytest.raises(PlatformError, match=r"(?i)access denied for user 'reader'") as failed:
        read(shop.source(username="reader", password="wrong-s3cret"))
    assert "s3cret" not in str(failed.value)


@with_mariadb
@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_the_process_has_no_secret_on_its_command_line_and_a_server_that_is_gone_may_come_back(shop: Shop) -> None:
    shop.run("create or replace user reader identified by 's3cret-of-reader'", "grant all on *.* to reader")
    source = shop.source(username="reader", password="s3cret-of-reader")
    with source.reading(["t", "u"], {}) as reading:
        batches = iter(reading)
        next(batches)
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _children(os.getpid())]
        assert [line for line in lines if b"Reader" in line]
        assert not [line for line in lines if b"s3cret" in line]
        for _ in batches:
            pass
    with pytest.raises(TransientError, match=r"(?i)refused|connect"):
        read(Debezium(shop.options(port=1), TABLES, "gone", source.home))


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_an_engine_that_is_killed_ends_the_load_with_an_error_that_says_so(shop: Shop) -> None:
    source = shop.source()
    with pytest.raises(TransientError, match="ended with -9"):
        _read_and_kill(source)


def _read_and_kill(source: Debezium) -> None:
    with source.reading(["t", "u"], {}) as reading:
        for _ in reading:
            for pid in _children(os.getpid()):
                if b"Reader" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, 9)
            time.sleep(0.1)
