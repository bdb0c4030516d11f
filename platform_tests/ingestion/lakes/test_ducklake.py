"""Which snapshots of a table of a DuckLake are read, and how: inserted rows once, maintenance not at all, the whole
table after whatever else was done, and with `changes` each change by key, maintenance or not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.lakes.ducklakes import Other
from platform_tests.ingestion.reading import probe, read_all, reading

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.lakes.ducklake import DuckLake
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings

MERGE = "CALL ducklake_merge_adjacent_files('l')"
REWRITE = "CALL ducklake_rewrite_data_files('l', delete_threshold => 0)"


@pytest.fixture(params=["sqlite"])
def other(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Other:
    """A DuckLake of this test's own."""
    if request.param == "postgresql":
        return Other(settings, request.getfixturevalue("postgres_url"), tmp_path).make()
    name = "other.ducklake" if request.param == "duckdb" else "other.sqlite"
    return Other(settings, str(tmp_path / name), tmp_path, inlined=request.param == "inlined").make()


EVERYWHERE = pytest.mark.parametrize("other", ["sqlite", "duckdb", "inlined", "postgresql"], indirect=True)
BOTH = pytest.mark.parametrize("other", ["sqlite", "inlined"], indirect=True)


def ids(batches: list[Batch]) -> list[int]:
    return sorted(number for batch in batches for number in batch.rows["id"].to_pylist())


def changes(batches: list[Batch]) -> list[tuple[Any, ...]]:
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    return [(row["_operation"], row["id"], row["name"]) for row in sorted(rows, key=lambda row: row["_order"])]


def kinds(batches: list[Batch]) -> set[str]:
    return {batch.kind for batch in batches}


def upto(batches: list[Batch]) -> dict[str, str]:
    assert batches[-1].position is not None
    return dict(batches[-1].position)


def note(batches: list[Batch]) -> str:
    (only,) = [note for batch in batches for note in batch.notes]
    return only


@EVERYWHERE
def test_inserted_rows_are_read_once_and_other_tables_are_no_news(other: Other) -> None:
    source = other.source()
    first = read_all(source)
    assert (kinds(first), ids(first)) == ({"whole"}, [])
    other.insert((1, "tea"), (2, "mug"))
    assert probe(source, after=upto(first)).keys() == {"version"}
    second = read_all(source, after=upto(first))
    assert (kinds(second), ids(second)) == ({"rows"}, [1, 2])
    assert second[0].rows.schema == first[0].rows.schema
    other.run("CREATE TABLE l.shop.others (n INTEGER)", "INSERT INTO l.shop.others VALUES (1)")
    assert probe(source, after=upto(second)) == {}
    assert read_all(source, after=upto(second)) == []
    assert source.names() == ["shop.items", "shop.others"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM l.shop.items WHERE id = 1", [2, 3]),
        ("UPDATE l.shop.items SET name = 'jug' WHERE id = 1", [1, 2, 3]),
        ("TRUNCATE l.shop.items", []),
        ("CREATE OR REPLACE TABLE l.shop.items AS SELECT 9::BIGINT AS id, 'new' AS name", [9]),
    ],
)
def test_after_another_change_the_whole_table_is_read(other: Other, statement: str, expected: list[int]) -> None:
    other.insert((1, "tea"), (2, "mug"))
    before = upto(read_all(other.source()))
    other.insert((3, "cup"))
    other.run(statement)
    batches = read_all(other.source(), after=before)
    assert (kinds(batches), ids(batches)) == ({"whole"}, expected)
    assert "did not only insert" in note(batches) or "made anew" in note(batches)


@BOTH
def test_maintenance_is_no_news_and_what_was_inserted_around_it_is_read(other: Other) -> None:
    other.insert((1, "tea"), (2, "mug"))
    before = upto(read_all(other.source()))
    maintain = "CALL ducklake_flush_inlined_data('l')" if other.inlined else MERGE
    other.run(maintain)
    quiet = read_all(other.source(), after=before)
    assert [(batch.rows.num_rows, batch.notes) for batch in quiet] == [(0, ())]
    other.insert((3, "cup"))
    other.run(maintain)
    other.insert((3, "cup"), (4, "pen"))
    batches = read_all(other.source(), after=before)
    assert (kinds(batches), ids(batches)) == ({"rows"}, [3, 3, 4])


@BOTH
@pytest.mark.parametrize("maintenance", ["", "before", "between"])
def test_changes_are_told_by_key_and_none_is_lost_to_maintenance(other: Other, maintenance: str) -> None:
    other.insert((1, "tea"), (2, "mug"), (3, "cup"))
    if maintenance:
        # Of rows in merged files DuckLake's list names deletes by the snapshots at which the rows came.
        other.run(MERGE)
    source = other.source(changes=True, key=["id"])
    first = read_all(source)
    assert kinds(first) == {"whole"}
    assert {operation for operation, *_ in changes(first)} == {"insert"}
    other.run("DELETE FROM l.shop.items WHERE id = 1")
    other.run("UPDATE l.shop.items SET name = 'jug' WHERE id = 2")
    other.run("UPDATE l.shop.items SET id = 30 WHERE id = 3")
    other.insert((4, "pen"))
    if maintenance == "between":
        other.run("CALL ducklake_flush_inlined_data('l')", MERGE, REWRITE)
    batches = read_all(source, after=upto(first))
    assert kinds(batches) == {"changes"}
    newest = {number: (operation, name) for operation, number, name in changes(batches)}
    orders = [one for batch in (*first, *batches) for one in batch.rows["_order"].to_pylist()]
    assert min(orders[3:]) > max(orders[:3]), "what came later is newer"
    assert {number: operation == "delete" for number, (operation, _) in newest.items()} == {
        1: True,
        2: False,
        3: True,
        30: False,
        4: False,
    }
    assert [newest[number][1] for number in (2, 30, 4)] == ["jug", "cup", "pen"]
    assert len(changes(batches)) == 5, "no row is a change that was none"
    assert read_all(source, after=upto(batches)) == []


def test_where_snapshots_have_expired_the_whole_table_is_read_and_it_is_said(other: Other) -> None:
    other.insert((1, "tea"), (2, "mug"))
    before = upto(read_all(other.source()))
    other.insert((3, "cup"), (4, "pen"))
    expired = int(before["version"]) + 1
    other.run(f"CALL ducklake_expire_snapshots('l', versions => [{expired}])")
    batches = read_all(other.source(), after=before)
    assert (kinds(batches), ids(batches)) == ({"whole"}, [1, 2, 3, 4])
    assert "have expired" in note(batches)
    other.run("CALL ducklake_expire_snapshots('l', older_than => now() + INTERVAL 1 DAY)")
    assert probe(other.source(), after=upto(batches)) == {}, "what was read is no news once its snapshots expired"


def test_columns_may_come_and_be_renamed(other: Other) -> None:
    other.insert((1, "tea"))
    before = upto(read_all(other.source()))
    other.run("ALTER TABLE l.shop.items ADD COLUMN amount INTEGER", "INSERT INTO l.shop.items VALUES (2, 'mug', 7)")
    added = read_all(other.source(), after=before)
    assert [row for batch in added for row in batch.rows.to_pylist()] == [{"id": 2, "name": "mug", "amount": 7}]
    other.run("ALTER TABLE l.shop.items RENAME COLUMN name TO title")
    renamed = read_all(other.source(), after=upto(added))
    assert (kinds(renamed), renamed[0].rows.column_names) == ({"whole"}, ["id", "title", "amount"])
    assert "name was renamed to title" in note(renamed)


@pytest.mark.parametrize(
    ("statement", "expected", "why"),
    [
        ("ADD COLUMN amount INTEGER DEFAULT 5", {"amount": 5}, "amount was added with a value"),
        ("RENAME COLUMN size.a TO wide", {"size": {"wide": 1}}, "size.a was renamed to size.wide"),
        ("DROP COLUMN name", {}, "name was dropped"),
    ],
    ids=["default", "nested", "dropped"],
)
def test_columns_that_are_others_in_older_rows_have_the_whole_table_read(
    other: Other, statement: str, expected: dict[str, Any], why: str
) -> None:
    other.run("ALTER TABLE l.shop.items ADD COLUMN size STRUCT(a INTEGER)")
    other.run("INSERT INTO l.shop.items VALUES (1, 'tea', {a: 1})")
    before = upto(read_all(other.source()))
    other.run(f"ALTER TABLE l.shop.items {statement}")
    batches = read_all(other.source(), after=before)
    (row,) = [row for batch in batches for row in batch.rows.to_pylist()]
    assert expected.items() <= row.items()
    assert why in note(batches)


@BOTH
def test_a_lake_whose_old_snapshots_expire_is_read_as_any_other(other: Other) -> None:
    expire = "CALL ducklake_expire_snapshots('l', older_than => now() + INTERVAL 1 DAY)"
    other.insert((1, "tea"), (2, "mug"))
    other.run("CREATE TABLE l.shop.others (n INTEGER)", expire)
    first = read_all(other.source())
    assert ids(first) == [1, 2]
    other.run("INSERT INTO l.shop.others VALUES (1)", expire)
    assert probe(other.source(), after=upto(first)) == {}, "its files are the same"
    moved = read_all(other.source(), after=upto(first))
    other.insert((3, "cup"))
    assert ids(moved) == []
    assert (kinds(again := read_all(other.source(), after=upto(moved))), ids(again)) == ({"rows"}, [3])
    other.run("DELETE FROM l.shop.items WHERE id = 1", "INSERT INTO l.shop.others VALUES (2)", expire)
    assert probe(other.source(), after=upto(first)).keys() == {"version"}
    second = read_all(other.source(), after=upto(first))
    assert (kinds(second), ids(second)) == ({"whole"}, [2, 3])
    assert "have expired" in note(second)


def test_what_is_committed_while_a_table_is_read_comes_with_the_next_reading(other: Other) -> None:
    other.insert((1, "tea"))
    with reading(other.source()) as batches:
        other.insert((2, "mug"))
        found = list(batches)
    assert ids(found) == [1]
    assert ids(read_all(other.source(), after=upto(found))) == [2]


def test_a_file_that_is_gone_fails_the_load_in_words_and_nothing_lands(other: Other, lake: Lakehouse) -> None:
    other.insert((1, "tea"), (2, "mug"))
    source = other.source()
    (victim, *_) = sorted((other.folder / "other").rglob("*.parquet"))
    content = victim.read_bytes()
    victim.unlink()
    with pytest.raises(PlatformError, match=r"DuckLake of lake at .*is not there"):
        load_table(lake, "lake", source, "t", source.tables["t"], run_id="1")
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(PlatformError, match=r"DuckLake of lake at .*cannot be read"):
        load_table(lake, "lake", source, "t", source.tables["t"], run_id="2")
    victim.write_bytes(content)
    assert load_table(lake, "lake", source, "t", source.tables["t"], run_id="3").rows_landed == 2


def test_a_catalog_that_is_gone_or_none_is_said_and_nothing_is_made(
    other: Other, settings: Settings, tmp_path: Path
) -> None:
    tables = other.source().tables
    nowhere = tmp_path / "nowhere.sqlite"
    with pytest.raises(PlatformError, match=r"is to be the file .*nowhere.sqlite, which cannot be read"):
        read_all(DuckLake("lake", str(nowhere), None, {}, tables, settings))
    assert not nowhere.exists()
    empty = tmp_path / "none.sqlite"
    subprocess.run(
        [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(empty)!r}).execute('create table x (y)')"]
    )
    with pytest.raises(PlatformError, match=r"DuckLake of lake at .*none.sqlite: there is no DuckLake in"):
        read_all(DuckLake("lake", str(empty), None, {}, tables, settings))
    with pytest.raises(PlatformError, match=r"has no table shop.itmes. Did you mean shop.items\? There is: shop.items"):
        read_all(other.source(table="shop.itmes"))
    with pytest.raises(TransientError, match=r"does not answer") as gone:
        probe(DuckLake("lake", "postgresql://reader:secret-word@127.0.0.1:9/x", None, {}, tables, settings))
    assert "secret-word" not in str(gone.value)


def test_a_catalog_whose_writer_was_killed_amid_a_commit_is_read_once_somebody_took_that_back(other: Other) -> None:
    other.insert((1, "tea"))
    killed = (
        f"import os, sqlite3; held = sqlite3.connect({other.catalog!r}, isolation_level=None)\n"
        "held.execute('pragma cache_size = 1'); held.execute('begin'); held.execute('create table half (x)')\n"
        "held.executemany('insert into half values (?)', [('x' * 3000,)] * 200); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", killed])
    for look in (probe, read_all):
        with pytest.raises(TransientError, match="was left amid a commit: what wrote to it was killed"):
            look(other.source())
    other.insert((2, "mug"))
    assert ids(read_all(other.source())) == [1, 2]


@pytest.mark.parametrize("other", ["duckdb"], indirect=True)
def test_a_catalog_file_that_another_process_writes_is_waited_for(other: Other, tmp_path: Path) -> None:
    code = f"import duckdb, time; held = duckdb.connect({other.catalog!r}); print('there', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(TransientError, match=r"is locked by another process"):
            probe(other.source())
        writer.kill()
    assert probe(other.source()).keys() == {"table", "version"}
