"""SQLite as a source: a file that is somebody else's, with columns that hold anything."""

import math
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.reading import overlap, probe, read_all

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch, Budget
from data_platform.ingestion.sql import reading as reading_module
from data_platform.ingestion.sql.dialects import sqlite as dialect
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def table(**options: Any) -> SqlTable:
    return SqlTable(key=["id"], contract="x", **options)


def rows(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def read(path: Path, after: str | None = None, **options: Any) -> list[dict[str, Any]]:
    position = {} if after is None else {"cursor": after}
    return rows(read_all(Relational(str(path), {"t": table(**options)}), "t", position))


def refusal(path: Path, name: str = "t", **options: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        read_all(Relational(str(path), {name: table(**options)}), name)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "data #1?.sqlite"


@pytest.fixture(autouse=True)
def folder(file: Path) -> None:
    file.parent.mkdir()


def test_a_file_whose_writer_was_killed_amid_a_commit_is_read_once_that_was_taken_back(file: Path) -> None:
    write(file, "create table t (id integer primary key, v text)", "insert into t values (1, 'a')")
    killed = (
        f"import os, sqlite3; held = sqlite3.connect({str(file)!r}, isolation_level=None)\n"
        "held.execute('pragma cache_size = 1'); held.execute('begin')\n"
        "held.executemany('insert into t (v) values (?)', [('x' * 3000,)] * 200); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", killed])
    with pytest.raises(TransientError, match="was left amid a commit: the application that writes it was killed"):
        read(file)
    write(file, "select count(*) from t")
    assert read(file) == [{"id": 1, "v": "a"}]


def test_a_missing_file_is_reported_and_not_created(file: Path) -> None:
    assert "does not exist" in refusal(file)
    assert not file.exists()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_file_that_is_no_database_is_reported(file: Path) -> None:
    file.write_text("id,name\n1,x\n" * 200)
    assert "is no SQLite database" in refusal(file)


def test_a_database_cut_short_is_reported(file: Path) -> None:
    write(
        file,
        "create table t (id integer primary key, f text)",
        "with recursive s(i) as (select 1 union all select i+1 from s where i < 2000) "
        "insert into t select i, hex(randomblob(200)) from s",
    )
    file.write_bytes(file.read_bytes()[: 100 * 1024])
    assert "damaged" in refusal(file)


def test_a_file_locked_by_another_process_is_reported_after_a_wait(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "BUSY_TIMEOUT", 50)
    write(file, "create table t (id)")
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin exclusive');"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "locked\n"
        message = refusal(file)
        writer.communicate("")
    assert "locked by a writer" in message
    assert read(file) == []


def test_a_missing_table_is_answered_with_those_that_exist(file: Path) -> None:
    write(file, "create table bookings (id)", "create table flights (id)")
    message = refusal(file, "flight")
    assert "Did you mean flights?" in message
    assert "bookings" in message


def test_a_missing_cursor_column_is_answered_with_columns_and_types(file: Path) -> None:
    write(file, "create table t (id integer, changed datetime, loose)")
    assert "id (INTEGER), changed (datetime), loose (no type)" in refusal(file, cursor={"column": "updated"})


def test_a_value_of_the_wrong_type_survives_as_text_and_so_do_its_neighbours(file: Path) -> None:
    write(
        file,
        "create table t (id integer, x real)",
        "insert into t values (1, 1.5), (2, 'abc'), ('three', null), (4, x'00ff')",
    )
    assert read(file) == [
        {"id": "1", "x": "1.5"},
        {"id": "2", "x": "abc"},
        {"id": "three", "x": None},
        {"id": "4", "x": "X'00FF'"},
    ]


def test_a_type_does_not_depend_on_the_values_that_come_first(file: Path) -> None:
    write(
        file,
        "create table t (id integer primary key, v)",
        "with recursive s(i) as (select 1 union all select i+1 from s where i < 40000) "
        "insert into t select i, null from s",
        "insert into t values (40001, 'late'), (40002, 7)",
    )
    landed = read(file)
    assert [row["v"] for row in landed[-2:]] == ["late", "7"]
    assert landed[-1]["id"] == 40002


def test_types_are_kept_where_sqlite_enforces_them(file: Path) -> None:
    write(
        file,
        "create table t (id integer primary key, n int, x real, s text, b blob) strict",
        "insert into t values (1, 9007199254740993, 0.1, 'é', x'ff')",
        "create table empty as select * from t where 0",
    )
    reader = Relational(str(file), {"t": table(), "empty": table()})
    batch = read_all(reader, "t")[0].rows
    assert batch.schema.types == [pa.int64(), pa.int64(), pa.float64(), pa.string(), pa.binary()]
    assert batch.to_pylist() == [{"id": 1, "n": 9007199254740993, "x": 0.1, "s": "é", "b": b"\xff"}]
    assert read_all(reader, "empty")[0].rows.column_names == ["id", "n", "x", "s", "b"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_numbers_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    path = tmp_path_factory.mktemp("numbers") / "n.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [(number,) for number in numbers])
        connection.commit()
    texts = [row["x"] for row in read(path)]
    assert len(texts) == len(numbers)
    for text, number in zip(texts, numbers, strict=True):
        back = int(text) if isinstance(number, int) else float(text)
        assert back == number or (math.isinf(float(number)) and math.isinf(float(back)))


def test_bytes_that_are_no_text_survive(file: Path) -> None:
    write(file, "create table t (v text)", "insert into t values (cast(x'636166e9' as text)), ('fine'), (null)")
    assert [row["v"] for row in read(file)] == ["caf\\xe9", "fine", None]


def test_any_name_can_be_read(file: Path) -> None:
    write(
        file,
        'create table "select ""x""" ("a b" text, "he said ""no""" text, "order" text, "{0}" text)',
        "insert into \"select \"\"x\"\"\" values ('1', 'it''s', '2013-01-01T00:00:00Z', '%')",
    )
    cursor = {"column": "order", "lag": "1h"}
    expected = [{"a b": "1", 'he said "no"': "it's", "order": "2013-01-01T00:00:00Z", "{0}": "%"}]
    assert read(file, table='select "x"', cursor=cursor) == expected
    assert read(file, "2013-01-01T00:30:00Z", table='select "x"', cursor=cursor) == expected
    assert read(file, "2013-01-01T01:00:01Z", table='select "x"', cursor=cursor) == []


def test_the_lag_is_taken_off_a_text_cursor_in_its_own_shape(file: Path) -> None:
    write(
        file,
        "create table t (id, at text)",
        "insert into t values (1, '2013-01-01T23:50:00Z'), (2, '2013-01-02T00:10:00Z')",
    )
    cursor = {"column": "at", "lag": "15m"}
    reader = Relational(str(file), {"t": table(cursor=cursor)})
    again = overlap(reader, "t", {"cursor": "2013-01-02T00:00:00Z"})
    assert again is not None
    assert (again.column, again.since) == ("at", "2013-01-01T23:45:00Z")
    assert [row["id"] for row in read(file, "2013-01-02T00:00:00Z", cursor=cursor)] == ["1", "2"]
    assert [row["id"] for row in read(file, "2013-01-02T00:06:00Z", cursor=cursor)] == ["2"]


def test_a_lag_on_text_that_is_no_time_is_refused(file: Path) -> None:
    write(file, "create table t (id text)", "insert into t values ('x')")
    reader = Relational(str(file), {"t": table(cursor={"column": "id", "lag": "15m"})})
    with pytest.raises(PlatformError, match="holds the text 'x', which is no time"):
        read_all(reader, "t", {"cursor": "x"})


def test_an_integer_cursor_is_compared_as_a_number_and_arrives_as_one(file: Path) -> None:
    write(file, "create table t (v integer)", "insert into t values (9), (10), (100)")
    cursor = {"column": "v", "lag": 1}
    assert read(file, "10", cursor=cursor) == [{"v": 9}, {"v": 10}, {"v": 100}]
    assert read(file, "12", cursor=cursor) == [{"v": 100}]
    assert probe(Relational(str(file), {"t": table(cursor=cursor)}), "t") == {"cursor": "100"}


def test_a_cursor_that_holds_numbers_and_text_is_refused_before_it_stalls(file: Path) -> None:
    write(file, "create table t (v integer)", "insert into t values (9), ('abc')")
    message = refusal(file, cursor={"column": "v"})
    assert "integer and text values" in message
    assert 'select "v", typeof("v")' in message


def test_a_cursor_whose_kind_has_changed_since_its_position_is_refused(file: Path) -> None:
    write(file, "create table t (v)", "insert into t values (9)")
    with pytest.raises(PlatformError, match="no integer: the type of the cursor column has changed"):
        read(file, "2013-01-01", cursor={"column": "v"})


def test_a_cursor_is_ordered_by_bytes_whatever_the_collation(file: Path) -> None:
    write(file, "create table t (v text collate nocase)", "insert into t values ('b'), ('A'), ('a'), ('B')")
    cursor = {"column": "v"}
    assert [row["v"] for row in read(file, cursor=cursor)] == ["A", "B", "a", "b"]
    assert [row["v"] for row in read(file, "B", cursor=cursor)] == ["B", "a", "b"]


def test_the_order_holds_without_an_index_and_over_many_batches(file: Path) -> None:
    write(
        file,
        "create table t (v text, n integer)",
        "with recursive s(i) as (select 1 union all select i+1 from s where i < 60000) "
        "insert into t select printf('%08d', (i * 7919) % 60000), i from s",
    )
    values = [row["v"] for row in read(file, cursor={"column": "v"})]
    assert len(values) == 60_000
    assert values == sorted(values)


def test_views_generated_columns_and_tables_without_row_id_are_read(file: Path) -> None:
    write(
        file,
        "create table w (id integer primary key, d integer generated always as (id * 2) stored) without rowid",
        "insert into w (id) values (1)",
        "create view v as select id, d + 1 as e from w",
    )
    reader = Relational(f"sqlite://{file}", {"w": table(), "v": table()})
    assert rows(read_all(reader, "w")) == [{"id": "1", "d": "2"}]
    assert rows(read_all(reader, "v")) == [{"id": "1", "e": "3"}]
    assert reader.tables() == ["v", "w"]
    assert reader.describe("w") == [("id", "INTEGER", False, True), ("d", "INTEGER", True, False)]


def test_a_file_in_wal_mode_is_read_while_it_is_written(file: Path) -> None:
    write(file, "pragma journal_mode = wal", "create table t (id)", "insert into t values (1)")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("insert into t values (2)")
        assert read(file) == [{"id": "1"}]
        writer.execute("commit")
    assert len(read(file)) == 2


def test_reading_changes_no_byte_of_the_file(file: Path) -> None:
    write(file, "create table t (id)", "insert into t values (1)")
    before = file.read_bytes()
    read(file)
    assert file.read_bytes() == before
    assert [other.name for other in file.parent.iterdir()] == [file.name]


AT = "2026-01-01T00:{:02}:00Z"
BUDGETED: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("integer", [*range(1, 13)], {"lag": 6}),
    ("text", [AT.format(minute) for minute in range(10)], {"lag": "5m"}),
    ("integer", [1, *[2] * 12, 3], {"lag": 0}),
    ("integer", [*[None] * 8, 1, 2, 3], {"nulls": "include"}),
]


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("kind", "values", "cursor"), BUDGETED)
def test_a_budget_that_is_smaller_than_the_lag_goes_forward_all_the_same(
    file: Path, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, kind: str, values: list[Any], cursor: dict[str, Any]
) -> None:
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 2)
    write(file, f"create table t (id integer primary key, at {kind})")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany("insert into t (at) values (?)", [[value] for value in values])
    options = table(cursor={"column": "at", **cursor})
    source = Relational(f"sqlite://{file}", {"t": options})
    positions: list[int] = []
    for run in range(len(values)):
        done = load_table(lake, "s", source, "t", options, run_id=str(run), budget=Budget(rows=2))
        reached = done.position.get("cursor", "")
        positions.append(int(reached[-6:-4] if kind == "text" else reached))
        if len(positions) > 1 and positions[-1] == positions[-2]:
            break
    assert positions == sorted(positions), "a position never goes back"
    last = [value for value in values if value is not None][-1]
    assert positions[-1] == (int(last[-6:-4]) if kind == "text" else last)
    landed = lake.connection.execute("select id from raw_s.t order by id").fetchall()
    assert [number for (number,) in landed] == [*range(1, len(values) + 1)], "each row is there once"
