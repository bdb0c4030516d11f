"""Which snapshots of an Iceberg table are read, and how: appended rows once, compaction not at all, and after whatever
else was done to a table the whole of it, so that no delete is missed."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.lakes.catalogs import TOKEN, Lake, Rest, items, positions, write
from platform_tests.ingestion.reading import probe, read_all, reading
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, LongType, NestedField, StructType

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.lakes import iceberg as module
from data_platform.ingestion.lakes.iceberg import Iceberg
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import Batch
from data_platform.lakehouse.connect import Lakehouse

EVERYWHERE = pytest.mark.parametrize("iceberg", ["sqlite", "postgresql", "rest_catalog"], indirect=True)
ON_REST = pytest.mark.parametrize("iceberg", ["rest_catalog"], indirect=True)


def rows_of(batches: list[Batch]) -> list[dict[str, Any]]:
    return sorted((row for batch in batches for row in batch.rows.to_pylist()), key=lambda row: row["id"])


def ids(batches: list[Batch]) -> list[int]:
    return [row["id"] for row in rows_of(batches)]


def upto(batches: list[Batch]) -> dict[str, str]:
    """The position that is reached at the end."""
    assert batches[-1].position is not None
    return dict(batches[-1].position)


def note(batches: list[Batch]) -> str:
    (only,) = [note for batch in batches for note in batch.notes]
    return only


@EVERYWHERE
def test_appended_rows_are_read_once_and_the_cheap_look_agrees_with_the_position(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source()
    first = read_all(source)
    assert [(batch.kind, batch.rows.num_rows) for batch in first] == [("whole", 0)]
    table.append(items((1, "tea"), (2, "mug")))
    second = read_all(source, after=upto(first))
    assert {batch.kind for batch in second} == {"rows"}
    assert rows_of(second) == [{"id": 1, "name": "tea"}, {"id": 2, "name": "mug"}]
    assert probe(source, after=upto(first)).keys() == {"version"}
    assert probe(source, after=upto(second)) == {}
    assert read_all(source, after=upto(second)) == []
    assert source.names() == ["shop.items"]


def test_a_table_that_is_there_already_is_read_as_a_whole(iceberg: Lake) -> None:
    table = iceberg.make()
    table.append(items((1, "tea")))
    table.append(items((2, "mug")))
    batches = read_all(iceberg.source())
    assert [(batch.kind, batch.notes) for batch in batches] == [("whole", ())]
    assert ids(batches) == [1, 2]


def test_many_appends_come_in_parts_and_each_part_has_its_position(
    iceberg: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, source = iceberg.make(), iceberg.source()
    before = upto(read_all(source))
    for number in range(5):
        table.append(items((number, "x")))
    monkeypatch.setattr(module, "PART_ROWS", 2)
    batches = read_all(source, after=before)
    assert [sorted(batch.rows["id"].to_pylist()) for batch in batches] == [[0, 1], [2, 3], [4]]
    rest = read_all(source, after={**before, **(batches[0].position or {})})
    assert ids(rest) == [2, 3, 4]
    assert upto(rest) == upto(batches)


@pytest.mark.parametrize("change", ["delete", "overwrite", "upsert", "partition"])
def test_after_a_delete_or_an_overwrite_the_whole_table_is_read(iceberg: Lake, change: str) -> None:
    table, source = iceberg.make(), iceberg.source()
    with table.update_spec() as update:
        update.add_identity("id")
    table.append(items((1, "tea"), (2, "mug"), (3, "cup")))
    before = upto(read_all(source))
    table.append(items((4, "pen")))
    if change == "delete":
        table.delete("id = 2")
    elif change == "overwrite":
        table.overwrite(items((1, "green tea"), (3, "cup"), (4, "pen")))
    elif change == "upsert":
        table.delete("id = 2")
        table.upsert(items((1, "green tea")), join_cols=["id"])
    else:
        table.delete("id = 2")
        table.dynamic_partition_overwrite(items((1, "green tea")))
    table.append(items((5, "ink")))
    batches = read_all(source, after=before)
    assert {batch.kind for batch in batches} == {"whole"}
    assert ids(batches) == [1, 3, 4, 5]
    assert rows_of(batches)[0]["name"] == ("tea" if change == "delete" else "green tea")
    assert "did not only append" in note(batches)
    table.append(items((6, "nib")))
    assert ids(read_all(source, after=upto(batches))) == [6], "from there on by appends again"


@ON_REST
def test_compaction_is_no_news(iceberg: Lake, rest_catalog: Rest, tmp_path: Path) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    table.append(items((2, "mug")))
    before = upto(read_all(source))
    rest_catalog.act("compact", table, write(tmp_path, items((1, "tea"), (2, "mug")), (1, 2)), 2)
    assert table.refresh().current_snapshot().summary.operation.value == "replace"  # type: ignore[union-attr]
    batches = read_all(source, after=before)
    assert [(batch.kind, batch.rows.num_rows, batch.notes) for batch in batches] == [("rows", 0, ())]
    table.append(items((3, "cup")))
    assert ids(read_all(source, after=before)) == [3], "appended beyond a compaction"
    assert ids(read_all(source)) == [1, 2, 3], "the compacted file is the table's"


@ON_REST
def test_rows_that_are_deleted_by_position_are_gone(iceberg: Lake, rest_catalog: Rest, tmp_path: Path) -> None:
    table, source = iceberg.make(properties={"format-version": "2"}), iceberg.source()
    table.append(items(*((number, "x") for number in range(1, 6))))
    before = upto(read_all(source))
    (task,) = table.scan().plan_files()
    deletes, names = positions(task.file.file_path, 1, 3)
    rest_catalog.act("delete", table, write(tmp_path, deletes, names), 2)
    batches = read_all(source, after=before)
    assert {batch.kind for batch in batches} == {"whole"}
    assert ids(batches) == [1, 3, 5]


@ON_REST
def test_deletes_by_equality_are_refused_in_words_and_nothing_is_read(
    iceberg: Lake, rest_catalog: Rest, tmp_path: Path
) -> None:
    table, source = iceberg.make(properties={"format-version": "2"}), iceberg.source()
    table.append(items((1, "tea"), (2, "mug")))
    before = upto(read_all(source))
    gone = pa.table({"id": pa.array([1], pa.int64())})
    rest_catalog.act("equality", table, write(tmp_path, gone, (1,)), 1)
    with reading(source, after=before) as batches, pytest.raises(PlatformError, match=r"equality deletes.*rewrite"):
        next(batches)


@pytest.mark.parametrize("change", ["expired", "set back", "made anew"])
def test_where_the_way_from_the_position_is_unknown_the_whole_table_is_read_and_it_is_said(
    iceberg: Lake, change: str
) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    first = table.current_snapshot()
    assert first is not None
    table.append(items((2, "mug")))
    before = upto(read_all(source))
    if change == "expired":
        table.append(items((3, "cup")))
        table.append(items((4, "pen")))
        table.maintenance.expire_snapshots().older_than(datetime.now() + timedelta(seconds=1)).commit()
        assert len(table.refresh().snapshots()) == 1
        expected, why = [1, 2, 3, 4], "expired"
    elif change == "set back":
        table.manage_snapshots().rollback_to_snapshot(first.snapshot_id).commit()
        expected, why = [1], "is not in its history any more"
    else:
        iceberg.catalog.drop_table("shop.items")
        iceberg.make().append(items((9, "new")))
        expected, why = [9], "made anew"
    batches = read_all(source, after=before)
    assert {batch.kind for batch in batches} == {"whole"}
    assert ids(batches) == expected
    assert why in note(batches)
    assert read_all(source, after=upto(batches)) == []


def test_columns_are_known_by_their_ids_whatever_they_are_called(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    before = upto(read_all(source))
    with table.update_schema() as update:
        update.add_column("amount", IntegerType())
    added = read_all(source, after=before)
    assert [(batch.kind, batch.rows.num_rows) for batch in added] == [("rows", 0)]
    table.append(pa.table({"id": [2], "name": ["mug"], "amount": pa.array([7], pa.int32())}))
    assert rows_of(read_all(source, after=upto(added))) == [{"id": 2, "name": "mug", "amount": 7}]
    with table.update_schema() as update:
        update.rename_column("name", "title")
        update.update_column("amount", LongType())
    assert probe(source, after=upto(added)).keys() >= {"schema"}, "a new name is news"
    renamed = read_all(source, after=upto(added))
    assert rows_of(renamed) == [{"id": 1, "title": "tea", "amount": None}, {"id": 2, "title": "mug", "amount": 7}]
    assert renamed[0].rows.schema.field("amount").type == pa.int64()
    assert "name was renamed to title" in note(renamed)
    with table.update_schema() as update:
        update.delete_column("amount")
    with table.update_schema() as update:
        update.add_column("amount", LongType())
    again = read_all(source, after=upto(renamed))
    assert [row["amount"] for row in rows_of(again)] == [None, None], "another column of the same name"
    assert "amount is another than before" in note(again)


def test_columns_that_are_others_in_older_rows_have_the_whole_table_read(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source()
    with table.update_schema() as update:
        update.add_column("size", StructType(NestedField(1, "a", LongType(), required=False)))
    table.append(pa.table({"id": [1], "name": ["tea"], "size": [{"a": 1}]}))
    before = upto(read_all(source))
    with table.update_schema() as update:
        update.rename_column("size.a", "wide")
    nested = read_all(source, after=before)
    assert rows_of(nested) == [{"id": 1, "name": "tea", "size": {"wide": 1}}]
    assert "size.a was renamed to size.wide" in note(nested)
    with table.update_schema() as update:
        update.delete_column("name")
    assert "name was dropped" in note(read_all(source, after=upto(nested)))


def test_a_column_that_is_added_with_a_default_has_it_in_older_rows(iceberg: Lake) -> None:
    table = iceberg.make()
    table.append(items((1, "tea")))
    path = Path(table.metadata_location.removeprefix("file://"))
    before = upto(read_all(iceberg.source(table=None, path=str(path))))
    # PyIceberg reads version 3 of the format, and does not write it.
    said = json.loads(path.read_text())
    schema = said["schemas"][-1]
    added = {"id": 3, "name": "amount", "type": "long", "required": False, "initial-default": 5, "write-default": 5}
    said["schemas"].append({**schema, "schema-id": 7, "fields": [*schema["fields"], added]})
    path.write_text(json.dumps({**said, "format-version": 3, "next-row-id": 1, "current-schema-id": 7}))
    batches = read_all(iceberg.source(table=None, path=str(path)), after=before)
    assert rows_of(batches) == [{"id": 1, "name": "tea", "amount": 5}]
    assert "amount was added with a value" in note(batches)


def test_what_was_committed_last_of_a_key_is_delivered_last(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source(key=["id"])
    before = upto(read_all(source))
    versions = [f"version {number}" for number in range(12)]
    for version in versions:
        table.append(items((1, version)))
    for batches in (read_all(source), read_all(source, after=before)):
        assert [name for batch in batches for name in batch.rows["name"].to_pylist()] == versions


def test_partitions_may_be_cut_otherwise(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    before = upto(read_all(source))
    with table.update_spec() as update:
        update.add_identity("name")
    table.append(items((2, "mug"), (3, "cup")))
    assert rows_of(read_all(source, after=before)) == [{"id": 2, "name": "mug"}, {"id": 3, "name": "cup"}]


def test_a_branch_and_a_tag_are_read_as_they_stand(iceberg: Lake) -> None:
    table = iceberg.make()
    table.append(items((1, "tea")))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    table.manage_snapshots().create_tag(snapshot.snapshot_id, "audited").create_branch(
        snapshot.snapshot_id, "trial"
    ).commit()
    table.append(items((2, "mug")))
    table.append(items((3, "cup")), branch="trial")
    assert ids(read_all(iceberg.source(ref="audited"))) == [1]
    trial = read_all(iceberg.source(ref="trial"))
    assert ids(trial) == [1, 3]
    table.append(items((4, "pen")), branch="trial")
    assert ids(read_all(iceberg.source(ref="trial"), after=upto(trial))) == [4]
    with pytest.raises(PlatformError, match=r"no branch or tag nightly.*audited, main, trial"):
        read_all(iceberg.source(ref="nightly"))


def test_what_is_committed_while_a_table_is_read_comes_with_the_next_reading(iceberg: Lake) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    with reading(source) as batches:
        table.append(items((2, "mug")))
        table.delete("id = 1")
        found = list(batches)
    assert ids(found) == [1]
    assert ids(read_all(source, after=upto(found))) == [2]


def test_only_the_columns_that_are_wanted_are_read(iceberg: Lake) -> None:
    iceberg.make().append(items((1, "tea")))
    assert rows_of(read_all(iceberg.source(columns=["id"]))) == [{"id": 1}]
    with pytest.raises(PlatformError, match=r"`columns` names nam, which.*It has: id, name"):
        read_all(iceberg.source(columns=["id", "nam"]))


def test_a_table_without_a_catalog_is_read_by_its_metadata(iceberg: Lake, tmp_path: Path) -> None:
    table = iceberg.make()
    table.append(items((1, "tea")))
    file = table.metadata_location
    assert ids(read_all(Iceberg("lake", {}, iceberg.source(path=file).tables))) == [1]
    folder = Path(table.location().removeprefix("file://"))
    with pytest.raises(PlatformError, match=r"no metadata/version-hint.text.*by its catalog"):
        read_all(iceberg.source(path=str(folder)))
    (folder / "metadata" / "version-hint.text").write_text(Path(file).name)
    by_hint = iceberg.source(path=str(folder))
    first = read_all(by_hint)
    table.append(items((2, "mug")))
    (folder / "metadata" / "version-hint.text").write_text(Path(table.metadata_location).name)
    assert ids(read_all(by_hint, after=upto(first))) == [2]


def data_files(table: Table) -> list[Path]:
    return [Path(task.file.file_path.removeprefix("file://")) for task in table.scan().plan_files()]


def test_a_file_that_is_gone_or_damaged_fails_the_load_by_its_name_and_nothing_lands(
    iceberg: Lake, lake: Lakehouse
) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items((1, "tea")))
    table.append(items((2, "mug")))
    options = source.tables["t"]
    victim = data_files(table)[-1]
    content = victim.read_bytes()
    victim.unlink()
    with pytest.raises(PlatformError, match=rf"lake/t.*a file of the table is not there.*{victim.name}"):
        load_table(lake, "lake", source, "t", options, run_id="1")
    victim.write_bytes(content[: len(content) // 2])
    with pytest.raises(PlatformError, match=r"lake/t .*cannot be read"):
        load_table(lake, "lake", source, "t", options, run_id="2")
    victim.write_bytes(content)
    assert load_table(lake, "lake", source, "t", options, run_id="3").rows_landed == 2
    metadata = Path(table.metadata_location.removeprefix("file://"))
    metadata.write_text(metadata.read_text()[:-40])
    with pytest.raises(PlatformError, match=r"metadata is damaged"):
        read_all(source)
    metadata.write_text(json.dumps({"format-version": 2}))
    with pytest.raises(PlatformError, match=r"metadata is damaged"):
        probe(source)


def test_a_table_that_shrank_is_refused_as_any_full_refresh_is(iceberg: Lake, lake: Lakehouse) -> None:
    table, source = iceberg.make(), iceberg.source()
    table.append(items(*((number, "x") for number in range(10))))
    load_table(lake, "lake", source, "t", source.tables["t"], run_id="1")
    table.delete("id > 2")
    with pytest.raises(PlatformError, match="shrink_limit"):
        load_table(lake, "lake", source, "t", source.tables["t"], run_id="2")
    assert load_table(lake, "lake", source, "t", source.tables["t"], run_id="3", full_refresh=True).rows_landed == 3


def test_a_mistake_in_the_catalog_or_the_table_is_said_and_nothing_is_made(iceberg: Lake, tmp_path: Path) -> None:
    iceberg.make()
    with pytest.raises(PlatformError, match=r"lake/t \(shop.itmes\): .*no such table.*Did you mean shop.items"):
        read_all(iceberg.source("itmes"))
    nowhere = tmp_path / "nowhere.sqlite"
    gone = Iceberg("lake", {"type": "sql", "uri": f"sqlite:///{nowhere}"}, iceberg.source().tables)
    with pytest.raises(PlatformError, match=r"SQLite file .*nowhere.sqlite, which is not there"):
        read_all(gone)
    assert not nowhere.exists()
    nowhere.touch()
    with pytest.raises(PlatformError, match=r"iceberg_tables"):
        read_all(gone)
    assert nowhere.stat().st_size == 0, "no tables are made in somebody's database"


@ON_REST
def test_a_rest_catalog_that_is_gone_or_refuses_says_so_without_its_token(iceberg: Lake) -> None:
    iceberg.make()
    wrong = Iceberg("lake", {**iceberg.properties, "token": "wrong-token-of-mine"}, iceberg.source().tables)
    with pytest.raises(PlatformError, match=r"access was refused.*[Cc]redentials") as refused:
        probe(wrong)
    assert "wrong-token-of-mine" not in str(refused.value)
    away = Iceberg("lake", {**iceberg.properties, "uri": "http://127.0.0.1:9"}, iceberg.source().tables)
    with pytest.raises(TransientError, match=r"does not answer") as gone:
        read_all(away)
    assert not re.search(TOKEN, str(gone.value))


def test_a_table_in_a_bucket_is_read_by_the_properties_of_the_catalog(bucket: dict[str, str], tmp_path: Path) -> None:
    store = {
        "s3.endpoint": bucket["AWS_ENDPOINT_URL"],
        "s3.access-key-id": bucket["AWS_ACCESS_KEY_ID"],
        "s3.secret-access-key": bucket["AWS_SECRET_ACCESS_KEY"],
        "s3.region": bucket["AWS_REGION"],
    }
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.sqlite", "warehouse": "s3://lake/shop", **store}
    catalog = load_catalog("default", **properties)
    catalog.create_namespace("shop")
    there = Lake(catalog, properties)
    table = there.make()
    table.append(items((1, "tea")))
    first = read_all(there.source())
    table.append(items((2, "mug")))
    assert (ids(first), ids(read_all(there.source(), after=upto(first)))) == ([1], [2])
    by_file = Iceberg("lake", store, there.source(path=table.metadata_location).tables)
    assert ids(read_all(by_file)) == [1, 2]
    away = Iceberg("lake", {**store, "s3.endpoint": "http://127.0.0.1:9", "s3.connect-timeout": "1"}, by_file.tables)
    with pytest.raises(TransientError, match=r"does not answer"):
        probe(away)
