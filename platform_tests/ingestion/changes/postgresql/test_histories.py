"""Random histories of PostgreSQL, with writers that never rest: in the end raw comes to what the source holds, each
version of a row is there once, and no transaction is seen by half."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from platform_tests.ingestion.changes.postgresql.following import (
    follow,
    landed,
    position,
    present,
    query,
    run,
    source,
    table,
)
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.contracts import Contract
from data_platform.errors import TransientError
from data_platform.ingestion.changes.postgresql import copy as copy_module
from data_platform.ingestion.changes.postgresql import log as log_module
from data_platform.ingestion.changes.postgresql.copied import ENTRY, Copied
from data_platform.ingestion.changes.postgresql.copy import KEY
from data_platform.ingestion.source import Budget
from data_platform.ingestion.sql.source import batches
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

TABLES = {
    "keyed": table("id"),
    "two": table("a", "b"),
    "whole": table("id"),
    "left_side": table(),
    "right_side": table(),
}

SETUP = """
create sequence versions;
create table keyed (id int primary key, version bigint not null, note text);
create table two (a text not null, b int not null, version bigint not null, n bigserial primary key);
create unique index two_ab on two (a, b);
alter table two replica identity using index two_ab;
create table whole (id int, version bigint not null);
create unique index whole_id on whole (id);
alter table whole replica identity full;
create table left_side (n bigint);
alter table left_side replica identity full;
create table right_side (n bigint);
alter table right_side replica identity full;
insert into keyed select i, nextval('versions'), repeat('x', i) from generate_series(1, 300) i;
insert into two select '%s''' || chr(97 + i % 26), i, nextval('versions') from generate_series(1, 300) i;
insert into whole select i, nextval('versions') from generate_series(1, 100) i;
insert into left_side select -i from generate_series(1, 50) i;
insert into right_side select -i from generate_series(1, 50) i;
"""


OF_A_COPY = "_committed_at IS NULL"
"""What tells rows of a copy from those of the log."""


class Writer:
    """Transactions of several tables at once, some rolled back in part or in whole."""

    def __init__(self, url: str, seed: int, *, truncates: bool = True) -> None:
        self.connection = psycopg.connect(url)
        self.chance = random.Random(seed)
        self.truncates = truncates

    def write(self) -> None:
        """One transaction, which is rolled back where it meets another."""
        try:
            for _ in range(self.chance.choice([1, 1, 2, 3, 8])):
                self._step()
            if self.chance.random() < 0.2:
                self.connection.rollback()
            else:
                self.connection.commit()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            self.connection.rollback()

    def _step(self) -> None:
        chance, one = self.chance, self.chance.randrange(1, 400)
        execute = self.connection.execute
        match chance.randrange(12):
            case 0 | 1:
                execute("insert into keyed values (%s, nextval('versions'), 'new') on conflict do nothing", [one])
            case 2 | 3:
                execute("update keyed set version = nextval('versions') where id = %s", [one])
            case 4:
                execute("delete from keyed where id = %s", [one])
            case 5:
                new = chance.randrange(1, 400)
                execute("update keyed set id = %s, version = nextval('versions') where id = %s", [new, one])
            case 6:
                letter = "%s'" + chr(97 + chance.randrange(26))
                execute(
                    "insert into two values (%s, %s, nextval('versions')) on conflict (a, b) do update set version = "
                    "excluded.version",
                    [letter, one],
                )
            case 7:
                letter = "%s'" + chr(97 + chance.randrange(26))
                execute("update two set a = %s, version = nextval('versions') where b = %s", [letter, one])
            case 8:
                execute("update whole set id = id + 1000, version = nextval('versions') where id = %s", [one])
                execute("insert into whole values (%s, nextval('versions')) on conflict do nothing", [one])
            case 9:
                execute("delete from whole where id = %s", [one])
            case 10:
                execute("savepoint s")
                execute("insert into left_side values (nextval('versions'))")
                if chance.random() < 0.5:
                    execute("rollback to savepoint s")
                else:
                    execute("insert into right_side values (currval('versions'))")
                execute("release savepoint s")
            case 11 if self.truncates and chance.random() < 0.001:
                execute("truncate keyed, whole")


@contextmanager
def writing(url: str, seed: int, writers: int = 3, **options: Any) -> Iterator[None]:
    """Writers that write as long as the block lasts."""
    stop = threading.Event()

    def work(number: int) -> None:
        writer = Writer(url, seed * 100 + number, **options)
        while not stop.is_set():
            writer.write()
            time.sleep(0.002)
        writer.connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def breaking(after: int) -> Callable[..., Iterator[pa.Table]]:
    """The batches of the tables that are copied in one reading, up to so many of those that have a key: then the
    connection breaks. Tables without one are copied as a piece."""
    count = 0

    def broken(stream: Iterator[pa.RecordBatch], schema: pa.Schema, *sizes: int) -> Iterator[pa.Table]:
        nonlocal count
        for batch in batches(stream, schema, *sizes):
            count += any(name.startswith(KEY) for name in schema.names)
            if count > after:
                raise TransientError("broken off")
            yield batch

    return broken


def check_once(lake: Lakehouse) -> None:
    """Nothing was delivered twice: each version of a row is there once. A copy that was begun anew, as the table was
    truncated in its middle, begins with a truncate of its own: only what comes after it counts."""
    for name in ("keyed", "two", "whole"):
        anew = f"SELECT coalesce(max(_order), 0) FROM {landed(name)} WHERE _operation = 'truncate' AND {OF_A_COPY}"
        twice = lake.connection.execute(
            f"SELECT version, count(*) FROM {landed(name)} WHERE _operation IN ('insert', 'update') "
            f"AND _order > ({anew}) GROUP BY 1 HAVING count(*) > 1"
        ).fetchall()
        assert not twice, name


def check_halves(lake: Lakehouse) -> None:
    """Each transaction wrote to both sides, or to none."""
    left, right = (
        lake.connection.execute(f"SELECT n FROM {landed(name)} ORDER BY n").fetchall()
        for name in ("left_side", "right_side")
    )
    assert left == right


def check_equal(lake: Lakehouse, url: str) -> None:
    for name, key in (("keyed", ["id"]), ("two", ["a", "b"]), ("whole", ["id"])):
        there = query(url, f"select * from {name}")
        assert sorted(present(lake, name, key).values()) == sorted(there), name
    for name in ("left_side", "right_side"):
        found = lake.connection.execute(f"SELECT n FROM {landed(name)} ORDER BY n").fetchall()
        assert found == query(url, f"select n from {name} order by n")


@pytest.mark.histories
@ON_SQLITE
@pytest.mark.parametrize("seed", range(2 * int(os.environ.get("HISTORIES", "1"))))
def test_what_was_copied_in_pieces_among_writers_comes_to_what_the_source_holds(
    lake: Lakehouse, postgres_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(copy_module, "BATCH_ROWS", 40)
    monkeypatch.setattr(log_module, "ROWS", 50)
    monkeypatch.setattr(log_module, "MOST_ROWS", 7)
    run(postgres_url, SETUP)
    changes = source(postgres_url, TABLES)
    chance = random.Random(seed)
    snapshots = readings = 0
    is_complete = False
    try:
        with writing(postgres_url, seed):
            while not is_complete:
                monkeypatch.setattr(copy_module, "batches", breaking(chance.randrange(3, 8)))
                with suppress(TransientError):
                    follow(lake, changes)
                    is_complete = True
                readings += 1
                assert readings < 30, "the copy does not come to its end"
                copied = [Copied.parse(one) for name, one in position(lake).items() if name.startswith(ENTRY)]
                snapshots = max([snapshots, *(len(one.stretches) for one in copied)])
            check_halves(lake)
            follow(lake, changes)
            check_halves(lake)
        follow(lake, changes)
        assert snapshots > 1, "no table was copied in pieces"
        assert '"copied"' not in str(position(lake))
        check_once(lake)
        check_halves(lake)
        check_equal(lake, postgres_url)
    finally:
        changes.drop()


class Keyed(Contract):
    """A row of the table with one column for its key."""

    id: int
    version: int


@ON_SQLITE
def test_a_full_refresh_among_writers_keeps_the_slot_and_loses_nothing(lake: Lakehouse, postgres_url: str) -> None:
    run(postgres_url, SETUP)
    changes = source(postgres_url, TABLES)
    try:
        with writing(postgres_url, 7):
            follow(lake, changes)
            follow(lake, changes)
            follow(lake, changes, full_refresh=True)
            check_halves(lake)
            follow(lake, changes)
        follow(lake, changes)
        check_equal(lake, postgres_url)
        check_once(lake)
        stage_table(lake, Recipe("shop", "keyed", ("id",), Keyed), run_id="run-1")
        staged = lake.connection.execute("SELECT id, version FROM staged_shop.keyed ORDER BY id").fetchall()
        assert staged == query(postgres_url, "select id, version from keyed order by id")
    finally:
        with suppress(psycopg.Error):
            changes.drop()


@ON_SQLITE
def test_a_table_that_is_named_later_is_copied_while_the_others_go_on(lake: Lakehouse, postgres_url: str) -> None:
    run(postgres_url, SETUP)
    some = {name: options for name, options in TABLES.items() if name != "keyed"}
    first, all_of_them = source(postgres_url, some), source(postgres_url, TABLES)
    try:
        with writing(postgres_url, 11, truncates=False):
            follow(lake, first)
            follow(lake, all_of_them)
            # Taken out for a while, and named again: what it had is there still, and is replaced.
            follow(lake, first)
            assert query(postgres_url, "select count(*) from pg_publication_tables") == [(4,)]
            follow(lake, all_of_them)
            follow(lake, all_of_them)
        follow(lake, all_of_them)
        check_equal(lake, postgres_url)
        operations = lake.connection.execute(
            "SELECT count(*) FROM raw_shop.keyed WHERE _operation = 'truncate'"
        ).fetchone()
        assert operations == (2,)
    finally:
        all_of_them.drop()


@ON_SQLITE
def test_a_copy_and_the_log_both_go_on_under_a_budget_below_the_rate_of_changes(
    lake: Lakehouse, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "BATCH_ROWS", 100)
    run(
        postgres_url,
        "create table t (id int primary key, n int not null)",
        "insert into t select i, 0 from generate_series(1, 600) i",
    )
    of = source(postgres_url, {"t": table("id")})
    lsns, loads = set(), 0
    while not (loads and Copied.parse(position(lake)[f"{ENTRY}t"]).is_complete):
        follow(lake, of, budget=Budget(rows=50))
        lsns.add(position(lake)["lsn"])
        run(postgres_url, *["update t set n = n + 1 where id % 6 = 0"] * 2)
        loads += 1
        assert loads < 30, "the copy does not go on"
    assert len(lsns) > 3, "the log is not read on"
    follow(lake, of)
    assert present(lake, "t", ["id"]) == {(row[0],): row for row in query(postgres_url, "select id, n from t")}
