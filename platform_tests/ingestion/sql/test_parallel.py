"""A whole table read by several connections at once: every row once, of one snapshot, whatever is written meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from platform_tests.databases import Database, with_mariadb
from platform_tests.ingestion.reading import read_all
from platform_tests.servers import running_mariadb
from pydantic import ValidationError

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.source import DIGEST, Batch
from data_platform.ingestion.sql import ranges
from data_platform.ingestion.sql.dialects import PostgresqlSession, SqliteSession, Timeouts
from data_platform.ingestion.sql.dialects.session import number_parts
from data_platform.ingestion.sql.options import SqlTable
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.settings import Settings


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    """Of no lakehouse that is ever opened."""
    return Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Database(str(tmp_path / "source.sqlite"), settings)
    return Database(request.getfixturevalue("postgres_url"), settings)


def source(url: str, parallel: object = 4, **options: Any) -> Relational:
    return Relational(url, {"t": SqlTable(contract="x", parallel=parallel, **options)})  # type: ignore[arg-type]


def values(read: list[Batch], column: str = "id") -> list[Any]:
    found = [row[column] for batch in read for row in batch.rows.to_pylist()]
    return sorted(found, key=lambda value: (value is None, value))


def digest(read: list[Batch]) -> object:
    assert read[-1].position is not None
    assert all(batch.position is None for batch in read[:-1])
    return read[-1].position[DIGEST]


def test_it_is_a_number_of_connections_and_perhaps_a_column() -> None:
    for wrong in (1, 17, True, "many", {"column": "id"}):
        with pytest.raises(ValidationError, match="parallel"):
            SqlTable(contract="x", parallel=wrong)  # type: ignore[arg-type]
    options = SqlTable.model_validate({"contract": "x", "parallel": {"readers": 3, "column": "n"}})
    assert options.parallel is not None
    assert (options.parallel.readers, options.parallel.column) == (3, "n")


def test_a_table_with_a_cursor_is_not_read_in_parallel_and_is_told_why() -> None:
    with pytest.raises(ValidationError, match="a cursor is read in its order"):
        SqlTable.model_validate({"contract": "x", "parallel": 4, "cursor": {"column": "at"}})


@with_mariadb
@pytest.mark.servers
def test_mariadb_is_refused_for_its_connections_cannot_share_a_snapshot() -> None:
    with running_mariadb() as url, pytest.raises(PlatformError, match="cannot share one view of it without locking"):
        read_all(source(f"{url}/mysql"))


@pytest.mark.parametrize(
    ("low", "high", "count"), [(1, 100, 8), (-50, 49, 7), (-(2**63), 2**63 - 1, 16), (5, 6, 8), (0, 10**18, 3)]
)
def test_every_number_is_in_one_part_and_no_value_is_in_the_first(low: int, high: int, count: int) -> None:
    parts = number_parts(low, high, count, "n", str)
    assert len(parts) <= count
    checked = [low - 1, low, (low + high) // 2, high, high + 1, *(low + (high - low) * i // 50 for i in range(51))]
    for number in checked:
        conditions = (part.replace("n is null", "False").replace(" or False", "") for part in parts)
        assert sum(bool(eval(one, {"n": number})) for one in conditions) == 1  # noqa: S307 - of our own making
    assert sum("n is null" in part for part in parts) == 1


def test_a_table_without_rows_is_an_empty_whole_table(database: Database) -> None:
    database.run("create table t (id integer primary key)")
    read = read_all(source(database.url))
    assert (values(read), [batch.kind for batch in read]) == ([], ["whole"])


def test_every_row_comes_once_and_the_digest_is_that_of_one_connection(database: Database) -> None:
    numbers = [*range(-300, 0), *range(700), 10**9, *range(2_000_000, 2_000_100)]
    database.run(
        "create table t (id bigint primary key, note text)",
        "insert into t values " + ", ".join(f"({number}, 'note {number}')" for number in numbers),
    )
    alone = read_all(Relational(database.url, {"t": SqlTable(contract="x")}))
    together = read_all(source(database.url))
    by_column = read_all(source(database.url, {"readers": 3, "column": "id"})) if database.kind != "sqlite" else alone
    assert values(together) == values(alone) == values(by_column)
    assert digest(together) == digest(alone) == digest(by_column)


def test_rows_without_a_value_in_the_column_come_as_well(database: Database) -> None:
    strict = " strict" if database.kind == "sqlite" else ""
    database.run(
        f"create table t (id integer primary key, n integer){strict}",
        "insert into t values " + ", ".join(f"({i}, {'null' if i % 3 == 0 else i * i - 500})" for i in range(1, 60)),
    )
    read = read_all(source(database.url, {"readers": 4, "column": "n"}))
    assert values(read) == list(range(1, 60))
    database.run("update t set n = null")
    assert values(read_all(source(database.url, {"readers": 4, "column": "n"}))) == list(range(1, 60))


def test_a_view_is_divided_by_a_column_that_is_named_and_refused_without(database: Database) -> None:
    strict = " strict" if database.kind == "sqlite" else ""
    database.run(
        f"create table base (id integer primary key, name text){strict}",
        "insert into base values " + ", ".join(f"({i}, 'x')" for i in range(100)),
        "create view t as select * from base",
    )
    message = r"cannot be divided for `parallel` by where its rows lie, and has no whole-number key"
    with pytest.raises(PlatformError, match=message):
        read_all(source(database.url))
    with pytest.raises(PlatformError, match="promises no whole numbers"):
        read_all(source(database.url, {"readers": 2, "column": "name"}))
    with pytest.raises(PlatformError, match="no such column"):
        read_all(source(database.url, {"readers": 2, "column": "nmae"}))
    if database.kind == "postgresql":  # a view of SQLite promises no types
        assert values(read_all(source(database.url, {"readers": 4, "column": "id"}))) == list(range(100))


def test_a_partitioned_table_is_read_by_the_blocks_of_its_partitions(postgres_url: str, settings: Settings) -> None:
    database = Database(postgres_url, settings)
    database.run(
        "create table t (id int, filler text) partition by range (id)",
        "create table t1 partition of t for values from (0) to (5000)",
        "create table t2 partition of t for values from (5000) to (20000)",
        "insert into t select n, repeat('x', 100) from generate_series(0, 19999) n",
    )
    assert values(read_all(source(postgres_url))) == list(range(20_000))


def test_rows_that_move_while_they_are_read_come_once_and_as_they_were(postgres_url: str, settings: Settings) -> None:
    """A writer changes two rows in each transaction, inserts and deletes: the sum is the same in each snapshot, and in
    no other reading. New versions of rows go to the end of the table, where the last range is."""
    database = Database(postgres_url, settings)
    database.run(
        "create table t (id int primary key, amount int not null, filler text)",
        "insert into t select n, 100, repeat('x', 200) from generate_series(1, 20000) n",
    )
    stopped, transfers = threading.Event(), 0

    def write() -> None:
        nonlocal transfers
        with psycopg.connect(postgres_url) as connection:
            while not stopped.is_set():
                first, second = 1 + transfers * 7919 % 20_000, 1 + transfers * 104_729 % 20_000
                connection.execute("update t set amount = amount - 1 where id = %s", [first])
                connection.execute("update t set amount = amount + 1 where id = %s", [second])
                connection.commit()
                transfers += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(8):
            before = transfers
            read = read_all(source(postgres_url))
            assert values(read) == list(range(1, 20_001))
            assert sum(values(read, "amount")) == 2_000_000
            assert transfers > before
    finally:
        stopped.set()
        writer.join()


def test_a_table_that_loses_its_rows_meanwhile_is_read_as_it_was(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as writer:
        writer.execute("create table t (id int primary key, filler text)")
        writer.execute("insert into t select n, repeat('x', 200) from generate_series(1, 5000) n")
        with source(postgres_url).reading(["t"], {}) as reading:
            writer.execute("delete from t")
            writer.execute("vacuum t")
            assert values(list(reading)) == list(range(1, 5001))
        assert values(read_all(source(postgres_url))) == []


WRITER = """
import sqlite3, sys, time
file = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print(file.execute("pragma journal_mode = " + sys.argv[2]).fetchone()[0], flush=True)
number = 0
while True:
    number += 1
    file.execute("begin immediate")
    file.execute("update t set amount = amount - 1 where id = ?", [1 + number * 7919 % 2000])
    file.execute("update t set amount = amount + 1 where id = ?", [1 + number * 104729 % 2000])
    file.execute("commit")
    time.sleep(0.003)  # without a pause nobody else gets at a file with a rollback journal
"""


@pytest.fixture(params=["wal", "delete"])
def written(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A SQLite file that another process writes to all the while."""
    path = str(tmp_path / "written.sqlite")
    Database(path, settings).run(
        "create table t (id integer primary key, amount integer) strict",
        "insert into t values " + ", ".join(f"({i}, 100)" for i in range(1, 2001)),
    )
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, request.param], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == request.param
        yield path
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close() if writer.stdout else None


def test_the_connections_to_a_sqlite_file_see_one_state_of_it_or_none_is_read(written: str) -> None:
    read_once = 0
    for _ in range(5):
        try:
            read = read_all(source(written))
        except TransientError:
            continue
        read_once += 1
        assert values(read) == list(range(1, 2001))
        assert sum(values(read, "amount")) == 200_000
    assert read_once


def test_sessions_that_began_at_different_states_begin_again(settings: Settings, tmp_path: Path) -> None:
    """A commit between the first and the second of them, the first time only."""
    path = str(tmp_path / "t.sqlite")
    database = Database(path, settings)
    database.run("create table t (id integer primary key)", "pragma journal_mode = wal")
    inserts = iter([1])

    class Interrupted(SqliteSession):
        def _look(self) -> None:
            super()._look()
            if (number := next(inserts, None)) is not None:
                script = (
                    "import sqlite3, sys\nf = sqlite3.connect(sys.argv[1])\nf.execute('insert into t values (1)')\n"
                )
                subprocess.run([sys.executable, "-c", script + "f.commit()", path], check=True)
                assert number == 1

    first = SqliteSession(path)
    first.__class__ = Interrupted
    with first:
        peers = first.peers(2)
        counts = {one.scalar("select count(*) as value from t", pa.int64()) for one in (first, *peers)}
        for peer in peers:
            peer.close()
    assert counts == {1}
    assert next(inserts, None) is None, "nothing was committed in between"


def test_a_range_that_fails_ends_the_reading_with_its_reason_and_no_connection_stays(
    postgres_url: str, settings: Settings
) -> None:
    database = Database(postgres_url, settings)
    database.run(
        "create table base (id int primary key, n int)",
        "insert into base select n, n - 777 from generate_series(1, 5000) n",
        "create view t as select id, 1 / n as n from base",
    )
    with pytest.raises(PlatformError, match="division by zero"):
        read_all(source(postgres_url, {"readers": 4, "column": "id"}))
    open_ones = "select count(*) from pg_stat_activity where application_name = 'data_platform'"
    assert database.rows(open_ones) == [(0,)]


def test_who_stops_reading_is_waited_for_by_no_reader(postgres_url: str, settings: Settings) -> None:
    Database(postgres_url, settings).run(
        "create table t as select n as id, repeat('x', 1000) as filler from generate_series(1, 100000) n"
    )
    before = threading.active_count()
    with PostgresqlSession(postgres_url, Timeouts()) as session:
        peers = session.peers(3)
        schema = pa.schema([("id", pa.int32()), ("filler", pa.string())])
        found = ranges.stream_at_once([session, *peers], ["select id, filler from t"] * 8, schema)
        assert next(found).num_rows
        found.close()
        for peer in peers:
            peer.close()
    assert not [one.name for one in threading.enumerate() if one.name.startswith("reader")]
    assert threading.active_count() <= before + 4  # watchdogs that are about to end


def test_no_more_readers_than_allowed_and_a_note_says_so(database: Database) -> None:
    database.run("create table t (id integer primary key)", "insert into t values (1), (2), (3)")
    read = read_all(source(database.url).with_readers(1, "The pool shop has 1 slot."))
    assert values(read) == [1, 2, 3]
    (note,) = read[-1].notes
    assert note == "Read by 1 of the 4 connections that `parallel` asks for. The pool shop has 1 slot."
    assert not read_all(source(database.url).with_readers(4, ""))[-1].notes


def test_it_is_told_what_a_reading_took_at_the_source_in_all_connections(database: Database) -> None:
    database.run(
        "create table t (id integer primary key)",
        "insert into t values " + ", ".join(f"({i})" for i in range(5000)),
    )
    with source(database.url).reading(["t"], {}) as reading:
        assert sum(batch.rows.num_rows for batch in reading) == 5000
        use = reading.use("t")
    assert use.rows >= 5000
    assert use.statements > 5
    assert use.bytes >= 5000 * 4
    assert use.seconds > 0
