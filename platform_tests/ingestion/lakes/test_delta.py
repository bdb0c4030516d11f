"""Which commits of a Delta table are read, and how: appended rows once, OPTIMIZE not at all, the whole table after
whatever else was done, and with `changes` each insert, update and delete by key."""

import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from platform_tests.ingestion.lakes.catalogs import items
from platform_tests.ingestion.lakes.deltas import (
    WITH_FEED,
    act,
    by_hand,
    contract_of,
    file,
    log,
    source,
    table,
    vector,
    write,
)
from platform_tests.ingestion.reading import probe, read_all, reading

from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.lakes import delta as module
from data_platform.ingestion.lakes.delta import Delta
from data_platform.ingestion.lakes.log import parsed
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table


class Item(Contract):
    """An item."""

    id: int = Field(unique=True)
    name: str


RECIPE = Recipe("lake", "t", ("id",), Item)


def ids(batches: list[Batch]) -> list[int]:
    return sorted(number for batch in batches for number in batch.rows["id"].to_pylist())


def upto(batches: list[Batch]) -> dict[str, str]:
    assert batches[-1].position is not None
    return dict(batches[-1].position)


def note(batches: list[Batch]) -> str:
    (only,) = [note for batch in batches for note in batch.notes]
    return only


def kinds(batches: list[Batch]) -> set[str]:
    return {batch.kind for batch in batches}


def test_appended_rows_are_read_once_and_the_cheap_look_agrees_with_the_position(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea")))
    there = source(tmp_path)
    first = read_all(there)
    assert (kinds(first), ids(first)) == ({"whole"}, [1])
    write(tmp_path, items((2, "mug")))
    write(tmp_path, items((3, "cup")))
    second = read_all(there, after=upto(first))
    assert (kinds(second), ids(second)) == ({"rows"}, [2, 3])
    assert second[0].rows.schema == first[0].rows.schema
    assert probe(there, after=upto(first)) == {"version": "2"}
    assert probe(there, after=upto(second)) == {}
    assert read_all(there, after=upto(second)) == []
    assert there.names() == ["items"]


def test_many_commits_come_in_parts_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, items((0, "x")))
    before = upto(read_all(source(tmp_path)))
    for number in range(1, 6):
        write(tmp_path, items((number, "x")))
    monkeypatch.setattr(module, "PART_ROWS", 2)
    batches = read_all(source(tmp_path), after=before)
    assert [batch.rows["id"].to_pylist() for batch in batches] == [[1, 2], [3, 4], [5]]
    assert ids(read_all(source(tmp_path), after={**before, **(batches[0].position or {})})) == [3, 4, 5]


@pytest.mark.parametrize("change", ["delete", "update", "merge", "overwrite", "restore"])
def test_after_another_change_the_whole_table_is_read(tmp_path: Path, change: str) -> None:
    write(tmp_path, items((1, "tea"), (2, "mug")))
    before = upto(read_all(source(tmp_path)))
    write(tmp_path, items((3, "cup")))
    if change == "delete":
        table(tmp_path).delete("id = 1")
    elif change == "update":
        table(tmp_path).update(updates={"name": "'jug'"}, predicate="id = 1")
    elif change == "merge":
        merge(tmp_path, items((1, "jug"), (4, "pen")))
    elif change == "overwrite":
        write(tmp_path, items((9, "new")), mode="overwrite")
    else:
        table(tmp_path).restore(0)
    batches = read_all(source(tmp_path), after=before)
    assert kinds(batches) == {"whole"}
    expected = {"delete": [2, 3], "update": [1, 2, 3], "merge": [1, 2, 3, 4], "overwrite": [9], "restore": [1, 2]}
    assert ids(batches) == expected[change]
    assert "did not only append" in note(batches)


def merge(folder: Path, rows: pa.Table) -> None:
    merger = table(folder).merge(rows, "s.id = t.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def test_optimize_is_no_news_and_what_was_appended_before_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea")))
    before = upto(read_all(source(tmp_path)))
    write(tmp_path, items((2, "mug")))
    table(tmp_path).optimize.compact()
    batches = read_all(source(tmp_path), after=before)
    assert (kinds(batches), ids(batches)) == ({"rows"}, [2])
    table(tmp_path).optimize.z_order(["id"])
    again = read_all(source(tmp_path), after=upto(batches))
    assert [(batch.rows.num_rows, batch.notes) for batch in again] == [(0, ())]


@pytest.mark.parametrize("gone", ["vacuumed", "log", "made anew", "set back"])
def test_where_the_way_from_the_position_is_unknown_the_whole_table_is_read_and_it_is_said(
    tmp_path: Path, gone: str
) -> None:
    write(tmp_path, items((1, "tea")))
    before = upto(read_all(source(tmp_path)))
    write(tmp_path, items((2, "mug")))
    if gone == "vacuumed":
        table(tmp_path).optimize.compact()
        table(tmp_path).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        why = "files of commits that were not read yet are gone"
    elif gone == "log":
        write(tmp_path, items((3, "cup")))
        table(tmp_path).create_checkpoint()
        log(tmp_path, 1).unlink()
        why = "its log does not have version 1 any more"
    elif gone == "made anew":
        for path in sorted((tmp_path / "items").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        write(tmp_path, items((9, "new")))
        why = "made anew"
    else:
        before["version"] = "7"
        why = "it is at version 1, before version 7"
    batches = read_all(source(tmp_path), after=before)
    assert kinds(batches) == {"whole"}
    assert ids(batches) == {"vacuumed": [1, 2], "log": [1, 2, 3], "made anew": [9], "set back": [1, 2]}[gone]
    assert why in note(batches)


@pytest.mark.parametrize("feed", [True, False])
def test_columns_that_come_later_are_null_before(tmp_path: Path, feed: bool) -> None:
    write(tmp_path, items((1, "tea")), configuration=WITH_FEED if feed else {})
    before = upto(read_all(source(tmp_path)))
    write(tmp_path, pa.table({"id": [2], "name": ["mug"], "amount": [7]}), schema_mode="merge")
    write(tmp_path, items((3, "cup")), schema_mode="merge")
    batches = read_all(source(tmp_path), after=before)
    rows = sorted(tuple(row.values()) for batch in batches for row in batch.rows.to_pylist())
    if feed:
        assert (kinds(batches), rows) == ({"rows"}, [(2, "mug", 7), (3, "cup", None)])
    else:
        assert (kinds(batches), rows) == ({"whole"}, [(1, "tea", None), (2, "mug", 7), (3, "cup", None)])
        assert "the commit 1 changed its columns too" in note(batches)


def test_partition_columns_and_types_come_as_they_are(tmp_path: Path) -> None:
    row = {
        "day": datetime(2024, 2, 29).date(),
        "at": datetime(2024, 2, 29, 23, tzinfo=UTC),
        "local": datetime(1969, 12, 31, 1, 2, 3),
        "price": Decimal("-1.50"),
        "tags": ["a", None],
        "deep": {"x": 1, "y": [b"\x00"]},
        "id": 1,
    }
    kinds = [pa.date32(), pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.decimal128(9, 2), pa.list_(pa.string())]
    deep = pa.struct([("x", pa.int32()), ("y", pa.list_(pa.binary()))])
    schema = pa.schema(list(zip(row, [*kinds, deep, pa.int64()], strict=True)))
    write(tmp_path, pa.Table.from_pylist([row], schema), partition_by=["day", "id"])
    before = read_all(source(tmp_path))
    write(tmp_path, pa.Table.from_pylist([row], schema), partition_by=["day", "id"])
    for batches in (before, read_all(source(tmp_path), after=upto(before))):
        (batch,) = batches
        assert batch.rows.to_pylist() == [row]
        assert batch.rows.schema.equals(schema)


SPECIAL = ["A/A", "B B", "R&D", "x+y", "100%", "a:b", "ü 日", "q?x=1", "#h", "p=1", "it's", "(b)", "[c]", "%25", "a\\b"]


def test_partitions_may_have_any_name(tmp_path: Path) -> None:
    def rows(*names: str) -> pa.Table:
        return pa.table({"id": list(range(len(names))), "name": list(names)})

    def names(batches: list[Batch]) -> list[str]:
        return sorted(name for batch in batches for name in batch.rows["name"].to_pylist())

    write(tmp_path, rows(*SPECIAL), partition_by=["name"])
    before = read_all(source(tmp_path))
    assert names(before) == sorted(SPECIAL)
    plain = ["x", "p=1", "it's", "x+y", "(b)"]
    write(tmp_path, rows(*plain), partition_by=["name"])
    escaped = any("%" in path for path in parsed(1, log(tmp_path, 1).read_bytes()).added)
    batches = read_all(source(tmp_path), after=upto(before))
    assert (kinds(batches), names(batches)) == ({"whole"}, sorted([*SPECIAL, *plain]))
    assert escaped
    assert "paths of its partitions are escaped" in note(batches)
    write(tmp_path, rows("y", "2024-01-01"), partition_by=["name"])
    again = read_all(source(tmp_path), after=upto(batches))
    assert (kinds(again), names(again)) == ({"rows"}, ["2024-01-01", "y"])


def test_what_is_committed_while_a_table_is_read_comes_with_the_next_reading(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea")))
    with reading(source(tmp_path)) as batches:
        write(tmp_path, items((2, "mug")))
        found = list(batches)
    assert ids(found) == [1]
    assert ids(read_all(source(tmp_path), after=upto(found))) == [2]


def test_rows_in_deletion_vectors_are_gone(tmp_path: Path) -> None:
    by_hand(tmp_path, "deletionVectors")
    before = read_all(source(tmp_path))
    assert ids(before) == [1, 2, 3]
    first = {"path": "first.parquet", "dataChange": True}
    size = (tmp_path / "items" / "first.parquet").stat().st_size
    again = {**first, "partitionValues": {}, "size": size, "modificationTime": 0, "deletionVector": vector([1])}
    act(tmp_path, 1, {"remove": {**first, "deletionTimestamp": 0}}, {"add": again})
    batches = read_all(source(tmp_path), after=upto(before))
    assert (kinds(batches), ids(batches)) == ({"whole"}, [1, 3])
    changes = source(tmp_path, changes=True, key=["id"])
    (batch,) = read_all(changes, after=upto(read_all(changes)) | {"version": "0"})
    assert [(row["id"], row["_operation"]) for row in batch.rows.to_pylist()] == [(2, "delete")]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_table_with_column_mapping_is_read_as_a_whole_each_time(tmp_path: Path, legacy: bool) -> None:
    by_hand(tmp_path, "columnMapping")
    _, about, added = map(json.loads, log(tmp_path, 0).read_text().splitlines())
    if legacy:
        act(tmp_path, 0, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, about, added)
    before = read_all(source(tmp_path))
    assert before[0].rows.column_names == ["id", "name"]
    more = items((4, "pen")).rename_columns(["col-1", "col-2"])
    act(tmp_path, 1, {"add": file(tmp_path, "second.parquet", more)})
    batches = read_all(source(tmp_path), after=upto(before))
    assert (kinds(batches), ids(batches)) == ({"whole"}, [1, 2, 3, 4])
    assert "column mapping" in note(batches)
    about["metaData"]["schemaString"] = about["metaData"]["schemaString"].replace('"name": "name"', '"name": "title"')
    act(tmp_path, 2, about)
    renamed = read_all(source(tmp_path), after=upto(batches))
    assert (renamed[0].rows.column_names, ids(renamed)) == (["id", "title"], [1, 2, 3, 4])


def test_a_commit_may_not_say_how_many_rows_it_added(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea")))
    before = upto(read_all(source(tmp_path)))
    added = file(tmp_path, "second.parquet", items((2, "mug")))
    act(tmp_path, 1, {"add": {**added, "stats": '{"numRecords": null}'}})
    assert ids(read_all(source(tmp_path), after=before)) == [2]


def staged(lake: Lakehouse) -> list[tuple[Any, ...]]:
    stage_table(lake, RECIPE, run_id="s")
    return lake.connection.execute("SELECT id, name FROM staged_lake.t ORDER BY id").fetchall()


@pytest.mark.parametrize("feed", [True, False])
def test_changes_are_staged_in_the_order_of_their_commits(tmp_path: Path, lake: Lakehouse, feed: bool) -> None:
    write(tmp_path, items((1, "tea"), (2, "mug"), (3, "cup")), configuration=WITH_FEED if feed else {})
    there = source(tmp_path, changes=True, key=["id"])

    def load() -> list[str]:
        result = load_table(lake, "lake", there, "t", there.tables["t"], run_id="1")
        return [*result.notes]

    assert load() == []
    assert staged(lake) == [(1, "tea"), (2, "mug"), (3, "cup")]
    write(tmp_path, items((4, "pen")))
    merge(tmp_path, items((1, "green tea"), (5, "ink")))
    table(tmp_path).delete("id = 2")
    table(tmp_path).update(updates={"id": "30"}, predicate="id = 3")
    table(tmp_path).optimize.compact()
    assert load() == []
    assert staged(lake) == [(1, "green tea"), (4, "pen"), (5, "ink"), (30, "cup")]
    write(tmp_path, items((1, "black tea"), (2, "back")), mode="overwrite")
    assert load() == []
    assert staged(lake) == [(1, "black tea"), (2, "back")]


def test_of_an_update_only_the_row_after_it_is_a_change_unless_the_key_was_another(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea"), (2, "mug")), configuration=WITH_FEED)
    there = source(tmp_path, changes=True, key=["id"])
    before = upto(read_all(there))
    table(tmp_path).update(updates={"name": "'jug'"}, predicate="id = 1")
    table(tmp_path).update(updates={"id": "20"}, predicate="id = 2")
    rows = [row for batch in read_all(there, after=before) for row in batch.rows.to_pylist()]
    assert sorted((row["_order"], row["_operation"], row["id"], row["name"]) for row in rows) == [
        (3, "update", 1, "jug"),
        (4, "delete", 2, "mug"),
        (5, "update", 20, "mug"),
    ]


def test_a_feed_whose_files_were_vacuumed_gives_way_to_the_whole_table(tmp_path: Path, lake: Lakehouse) -> None:
    write(tmp_path, items((1, "tea"), (2, "mug")), configuration=WITH_FEED)
    there = source(tmp_path, changes=True, key=["id"])
    load_table(lake, "lake", there, "t", there.tables["t"], run_id="1")
    table(tmp_path).delete("id = 1")
    for path in (tmp_path / "items" / "_change_data").rglob("*.parquet"):
        path.unlink()
    result = load_table(lake, "lake", there, "t", there.tables["t"], run_id="2")
    assert "files of commits that were not read yet are gone" in result.notes[0]
    assert staged(lake) == [(2, "mug")]


def test_a_key_that_the_table_does_not_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path, items((1, "tea")))
    with pytest.raises(PlatformError, match=r"tells rows apart by the `key`, and number.*There are: id, name"):
        read_all(source(tmp_path, changes=True, key=["number"]))


def test_a_file_that_is_gone_or_a_damaged_log_fails_the_load_in_words_and_nothing_lands(
    tmp_path: Path, lake: Lakehouse
) -> None:
    write(tmp_path, items((1, "tea")))
    write(tmp_path, items((2, "mug")))
    there = source(tmp_path)
    victim = Path(table(tmp_path).file_uris()[0])
    content = victim.read_bytes()

    def load(run: str) -> int:
        return load_table(lake, "lake", there, "t", there.tables["t"], run_id=run).rows_landed

    victim.unlink()
    with pytest.raises(PlatformError, match=rf"lake/t at .*a file of the table is not there.*{victim.name}") as gone:
        load("1")
    assert "\x1b" not in str(gone.value)
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(PlatformError, match=r"lake/t at .*cannot be read"):
        load("2")
    victim.write_bytes(content)
    assert load("3") == 2
    log(tmp_path, 1).write_text('{"add":')
    with pytest.raises(PlatformError, match=r"its log or a file may be damaged: (?!.*<unknown>)"):
        load("4")


def source_at(folder: Path, path: str) -> Delta:
    return Delta("lake", str(folder), {}, {"t": contract_of(path=path)})


def test_a_folder_without_a_table_is_said_with_the_tables_that_there_are(tmp_path: Path) -> None:
    for name in ("itmes", "sold/orders"):
        deltalake.write_deltalake(str(tmp_path / name), pa.table({"id": [1]}))
    (tmp_path / "items").mkdir()
    for asked, there in ((source(tmp_path), "itmes"), (source_at(tmp_path, "sold/order"), "orders")):
        with pytest.raises(PlatformError, match=rf"there is no Delta table.* In .*: Did you mean {there}\? There is"):
            read_all(asked)
    with pytest.raises(PlatformError, match=r"Nor can .*/nowhere be listed"):
        read_all(source_at(tmp_path, "nowhere/items"))
    with pytest.raises(PlatformError, match=r"there is no Delta table"):
        read_all(source(tmp_path))
    with pytest.raises(PlatformError, match=r"there is no Delta table"):
        probe(source(tmp_path / "nowhere"))
    with pytest.raises(PlatformError, match=r"there is nothing at .*nowhere. Correct `folder`"):
        source(tmp_path / "nowhere").names()


def test_a_table_in_a_bucket_is_read_by_the_settings_of_the_store(bucket: dict[str, str]) -> None:
    assert "AWS_ENDPOINT_URL" not in os.environ
    tables = source(Path("unused")).tables
    deltalake.write_deltalake("s3://lake/shop/items", items((1, "tea")), storage_options=bucket)
    there = Delta("lake", "s3://lake/shop", bucket, tables)
    first = read_all(there)
    deltalake.write_deltalake("s3://lake/shop/items", items((2, "mug")), mode="append", storage_options=bucket)
    assert ids(read_all(there, after=upto(first))) == [2]
    assert there.names() == ["items"]
    away = {**bucket, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "max_retries": "0"}
    with pytest.raises(TransientError, match=r"lake/t at s3://lake/shop/items does not answer"):
        probe(Delta("lake", "s3://lake/shop", away, tables))
