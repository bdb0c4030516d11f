"""Exports to tables of Apache Iceberg: rows and position in one commit."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.exports.customers import MERGE, REPLACE, change, make
from platform_tests.exports.exporting import exporter, killed
from platform_tests.ingestion.lakes.catalogs import Lake as Iceberg
from platform_tests.ingestion.lakes.catalogs import Rest, lake_in
from platform_tests.ingestion.lakes.conftest import rest_catalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table
from pyiceberg.types import LongType

from data_platform.errors import PlatformError, TransientError
from data_platform.exports import iceberg
from data_platform.exports.commits import Committed
from data_platform.exports.export import TableExport
from data_platform.exports.iceberg import export_to_iceberg
from data_platform.exports.iceberg_schema import iceberg_column
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

__all__ = ["exporter", "rest_catalog"]

BOTH = pytest.mark.parametrize("spec", [MERGE, REPLACE], ids=["merge", "replace"])


@pytest.fixture
def there(tmp_path: Path) -> Iceberg:
    """A catalog in SQLite."""
    return lake_in(tmp_path, f"sqlite:///{tmp_path}/iceberg.sqlite")


def export(lake: Lakehouse, there: Iceberg, spec: TableExport = MERGE, **options: Any) -> Committed:
    return export_to_iceberg(lake, spec, there.properties, "shop", **options)


def table(there: Iceberg) -> Table:
    return there.catalog.load_table("shop.customers")


def rows(there: Iceberg) -> list[dict[str, Any]]:
    return sorted(table(there).scan().to_arrow().to_pylist(), key=lambda row: row["id"])


def names(there: Iceberg) -> dict[int, str]:
    return {row["id"]: row["name"] for row in rows(there)}


@BOTH
def test_changes_and_deletes_are_one_commit_and_nothing_is_written_twice(
    lake: Lakehouse, there: Iceberg, spec: TableExport
) -> None:
    make(lake)
    assert export(lake, there, spec).whole == "the first export"
    assert export(lake, there, spec).unchanged
    change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'Rob' WHERE id = 2")
    change(lake, "INSERT INTO {} VALUES (3, NULL, 1, 1)")
    done = export(lake, there, spec)
    assert names(there) == {2: "Rob", 3: None}
    assert (done.found, len(table(there).snapshots()), done.whole) == (2, 2, "")
    if spec is MERGE:
        assert (done.inserted, done.updated, done.deleted) == (1, 1, 1)


def test_a_merge_leaves_files_without_a_changed_row_as_they_are(lake: Lakehouse, there: Iceberg) -> None:
    make(lake, values="(1, 'Ada')")
    export(lake, there)
    change(lake, "INSERT INTO {} SELECT 100 + i, 'n', 1, 1 FROM range(9) AS r(i)")
    export(lake, there)
    before = {each.file.file_path for each in table(there).scan().plan_files()}
    change(lake, "DELETE FROM {} WHERE id = 105")
    export(lake, there)
    after = {each.file.file_path for each in table(there).scan().plan_files()}
    assert (len(before), len(after), len(before & after)) == (2, 2, 1)
    assert list(names(there)) == [1, 100, 101, 102, 103, 104, 106, 107, 108]


def test_many_small_merges_leave_few_files_and_manifests(
    lake: Lakehouse, there: Iceberg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg, "MANY_FILES", 3)
    make(lake)
    for number in range(10, 16):
        change(lake, f"INSERT INTO {{}} VALUES ({number}, 'n', 1, 1)", "UPDATE {} SET name = name || '!' WHERE id = 1")
        export(lake, there)
    head = table(there).current_snapshot()
    assert head is not None
    assert len(list(table(there).scan().plan_files())) <= 3
    assert len(head.manifests(table(there).io)) <= 5
    assert len(names(there)) == 8


def test_compaction_by_others_is_no_change_and_rows_of_others_are_reported_until_all_are_written(
    lake: Lakehouse, there: Iceberg
) -> None:
    make(lake)
    export(lake, there)
    table(there).append(pa.table({"id": [7], "name": ["of others"]}))
    done = export(lake, there)
    assert (done.unchanged, done.found) == (True, 3)
    assert done.others.endswith("(append)")
    table(there).delete("id = 7")
    change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    again = export(lake, there)
    assert (again.others, again.whole, again.found) == (done.others, "", 3)
    assert export(lake, there, full=True).others == ""
    assert names(there) == {1: "Ada", 2: "Bob", 3: "Cyd"}


def test_columns_that_come_widen_change_and_go_are_evolved_in_the_commit_that_has_the_rows(
    lake: Lakehouse, there: Iceberg
) -> None:
    make(lake, "id BIGINT, name VARCHAR, size INTEGER, old VARCHAR", "(1, 'Ada', 5, 'x')")
    export(lake, there)
    ids = {each.name: each.field_id for each in table(there).schema().fields}
    change(
        lake,
        'ALTER TABLE {} ADD COLUMN "e.mail ü" VARCHAR',
        "ALTER TABLE {} ALTER size TYPE BIGINT",
        "ALTER TABLE {} DROP COLUMN old",
    )
    change(lake, "UPDATE {} SET \"e.mail ü\" = 'a@b.c'")
    assert export(lake, there).whole == "its columns or its key changed"
    fields = {each.name: each for each in table(there).schema().fields}
    assert (fields["size"].field_id, fields["size"].field_type) == (ids["size"], LongType())
    assert rows(there) == [{"id": 1, "name": "Ada", "size": 5, "e.mail ü": "a@b.c"}]
    change(lake, "ALTER TABLE {} DROP COLUMN name")
    change(lake, "ALTER TABLE {} ADD COLUMN name INTEGER")
    export(lake, there)
    change(lake, "UPDATE {} SET name = 3")
    assert export(lake, there).whole == ""
    assert rows(there) == [{"id": 1, "size": 5, "e.mail ü": "a@b.c", "name": 3}]


def test_columns_that_others_changed_and_versions_that_are_gone_are_written_whole(
    lake: Lakehouse, there: Iceberg
) -> None:
    make(lake)
    export(lake, there)
    with table(there).update_schema() as update:
        update.rename_column("name", "nom")
    assert export(lake, there).whole == "its columns were changed at the target"
    assert names(there) == {1: "Ada", 2: "Bob"}
    change(lake, "DELETE FROM {} WHERE id = 1")
    first, snapshot = export(lake, there), export(lake, there).origin.snapshot
    change(lake, "DELETE FROM {} WHERE id = 2")
    lake.connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{snapshot}])")
    assert "has expired" in export(lake, there).whole
    assert rows(there) == []
    table(there).manage_snapshots().rollback_to_snapshot(first.commit).commit()
    assert "has expired" in export(lake, there).whole
    assert rows(there) == []


def test_a_table_of_others_is_left_as_it_was(lake: Lakehouse, there: Iceberg) -> None:
    make(lake)
    there.make("customers", pa.schema([("id", pa.int64())])).append(pa.table({"id": [7]}))
    with pytest.raises(PlatformError, match=r"did not make.*adopt: true"):
        export(lake, there)
    assert rows(there) == [{"id": 7}]
    assert export(lake, there, replace(MERGE, adopt=True)).whole == "the table was taken over"
    assert names(there) == {1: "Ada", 2: "Bob"}
    with pytest.raises(PlatformError, match="did not make"):
        export(lake, there, replace(MERGE, export="erp"))
    with table(there).update_spec() as update:
        update.add_identity("id")
    with pytest.raises(PlatformError, match="is partitioned"):
        export(lake, there, replace(MERGE, adopt=True))


@pytest.mark.crash
def test_an_export_that_is_killed_leaves_the_rows_of_before_or_of_after(
    exporter: "subprocess.Popen[str]", settings: Settings, there: Iceberg
) -> None:
    place = json.dumps(dict(there.properties))
    with open_lakehouse(settings) as lake:
        make(lake)
    assert killed(exporter, settings, "iceberg", place, "merge", "prepared")
    assert there.catalog.list_tables("shop") == []
    assert killed(exporter, settings, "iceberg", place, "merge", "committed")
    with open_lakehouse(settings) as lake:
        change(lake, "UPDATE {} SET name = 'Rob'")
    assert killed(exporter, settings, "iceberg", place, "merge", "prepared")
    assert names(there) == {1: "Ada", 2: "Bob"}
    assert killed(exporter, settings, "iceberg", place, "merge", "committed")
    with open_lakehouse(settings) as lake:
        assert export(lake, there).unchanged
    assert names(there) == {1: "Rob", 2: "Rob"}


def _files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.parquet"))


@pytest.mark.parametrize("first", [True, False], ids=["of the first export", "of a merge"])
def test_of_two_exports_at_once_the_later_one_changes_nothing_and_leaves_no_file(
    lake: Lakehouse, there: Iceberg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    make(lake)
    if not first:
        export(lake, there)
        change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    commit, left = iceberg._commit, list[int]()

    def late(*given: Any) -> None:
        monkeypatch.setattr(iceberg, "_commit", commit)
        export(lake, there)
        left.append(len(_files(tmp_path / "warehouse")))
        commit(*given)

    monkeypatch.setattr(iceberg, "_commit", late)
    with pytest.raises(TransientError, match="was written by another at the same time"):
        export(lake, there)
    assert export(lake, there).unchanged
    assert len(names(there)) == (2 if first else 3)
    assert len(_files(tmp_path / "warehouse")) == left[0] - 1


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_export(
    lake: Lakehouse, there: Iceberg, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    export(lake, there)
    change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    commit = Table._do_commit

    def lost(self: Table, **given: Any) -> None:
        commit(self, **given)
        raise CommitStateUnknownException("the connection was closed")

    with monkeypatch.context() as patched:
        patched.setattr(Table, "_do_commit", lost)
        with pytest.raises(TransientError, match="did not say whether it took the commit"):
            export(lake, there)
    assert export(lake, there).unchanged
    assert names(there) == {1: "Ada", 2: "Bob", 3: "Cyd"}


TYPES = (
    "id BIGINT, a UINTEGER, b UBIGINT, c HUGEINT, d DECIMAL(38, 3), e UUID, f TIME, g TIMESTAMPTZ, h VARCHAR[], "
    "i STRUCT(x SMALLINT, y TIMESTAMP_S[]), j BLOB, k DATE, l MAP(VARCHAR, DOUBLE), m TIMESTAMP_NS, n JSON"
)
VALUES = (
    "(1, 4000000000, 18446744073709551615, 7, 1.5, '6f9619ff-8b86-d011-b42d-00cf4fc964ff', '12:00:00.000001', "
    "'2024-02-29 12:00:00+02', ['x'], {'x': 1, 'y': [TIMESTAMP_S '2024-01-01 00:00:00']}, '\\x00'::BLOB, "
    "'0001-01-01', MAP {'ü': 'nan'::DOUBLE}, '9999-12-31 23:59:59.999999'::TIMESTAMP::TIMESTAMP_NS, '{\"a\": 1}')"
).replace("'9999-12-31 23:59:59.999999'::TIMESTAMP", "'2024-12-31 23:59:59.999999'::TIMESTAMP")


@BOTH
def test_types_that_iceberg_has_not_are_kept_as_the_next_that_hold_them(
    lake: Lakehouse, there: Iceberg, spec: TableExport
) -> None:
    make(lake, TYPES, VALUES)
    export(lake, there, spec)
    change(lake, "UPDATE {} SET a = 4000000001")
    export(lake, there, spec)
    (row,) = rows(there)
    assert (row["a"], int(row["b"]), row["c"], str(row["d"])) == (4000000001, 18446744073709551615, "7", "1.500")
    assert (row["e"], str(row["f"]), row["h"]) == ("6f9619ff-8b86-d011-b42d-00cf4fc964ff", "12:00:00.000001", ["x"])
    assert (row["g"].isoformat(), str(row["m"])) == ("2024-02-29T10:00:00+00:00", "2024-12-31 23:59:59.999999")
    assert (row["i"]["x"], str(row["i"]["y"][0]), row["j"]) == (1, "2024-01-01 00:00:00", b"\0")
    assert (str(row["k"]), row["l"][0][0], row["n"]) == ("0001-01-01", "ü", '{"a": 1}')


def test_what_iceberg_cannot_keep_is_refused_and_nothing_is_left(
    lake: Lakehouse, there: Iceberg, tmp_path: Path
) -> None:
    make(
        lake,
        "id BIGINT, a TIMESTAMP_NS, b DATE, c TIMESTAMPTZ, d STRUCT(x DATE), e DATE[]",
        "(1, '2024-01-01 00:00:00.000000001', 'infinity', '12024-01-01 00:00:00+00', {'x': '12024-01-01'::DATE}, "
        "['infinity'::DATE])",
    )
    with pytest.raises(PlatformError) as refused:
        export(lake, there)
    years = "infinities, or times before the year 1 or after 9999 in 1 rows (the first: id = 1)"
    for said in (
        "a (TIMESTAMP_NS) has fractions below a microsecond",
        f"b (DATE) has {years}",
        f"ZONE) has {years}",
        "infinities within in 1",
    ):
        assert said in str(refused.value)
    assert there.catalog.list_tables("shop") == []
    assert export(lake, there, replace(MERGE, columns=("id", "d"))).found == 1
    for kind in ("UINTEGER[]", "TIME WITH TIME ZONE", "STRUCT(x UBIGINT)", "UNION(a INTEGER)"):
        with pytest.raises(PlatformError, match="for which Iceberg has no place"):
            iceberg_column("staged/shop/customers", "odd", kind)


def test_keys_of_several_columns_and_types_are_told_apart(lake: Lakehouse, there: Iceberg) -> None:
    make(
        lake,
        "a UUID, b DATE, n INTEGER",
        f"(uuid(), '2024-01-01', 0), ('{'0' * 8}-0000-0000-0000-{'0' * 12}', '2024-01-02', 0)",
    )
    keyed = replace(MERGE, key=("a", "b"))
    export(lake, there, keyed)
    change(
        lake,
        "UPDATE {} SET n = 1 WHERE b = DATE '2024-01-02'",
        "INSERT INTO {} SELECT a, '2024-01-03', 2, 1, 1 FROM {}",
    )
    done = export(lake, there, keyed)
    assert (done.inserted, done.updated, done.deleted, done.found) == (2, 1, 0, 4)


def test_a_catalog_that_cannot_be_reached_and_a_file_that_is_gone_are_said_in_words(
    lake: Lakehouse, there: Iceberg
) -> None:
    make(lake)
    wrong = {"type": "rest", "uri": "http://127.0.0.1:1", "token": "hunter2hunter2"}
    with pytest.raises(TransientError, match="does not answer") as failed:
        export_to_iceberg(lake, MERGE, wrong, "shop")
    assert "hunter2" not in str(failed.value)
    export(lake, there)
    for each in table(there).scan().plan_files():
        Path(each.file.file_path.removeprefix("file://")).unlink()
    change(lake, "UPDATE {} SET name = 'Rob'")
    with pytest.raises(PlatformError, match="a file of the table is not there"):
        export(lake, there)
    export(lake, there, full=True)
    assert names(there) == {1: "Rob", 2: "Rob"}


def test_a_rest_catalog_takes_the_same_commits(lake: Lakehouse, rest_catalog: Rest, tmp_path: Path) -> None:
    there = rest_catalog.lake(tmp_path)
    make(lake)
    export(lake, there)
    change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'Rob' WHERE id = 2")
    change(lake, "ALTER TABLE {} ADD COLUMN age INTEGER")
    assert export(lake, there).whole == "its columns or its key changed"
    change(lake, "UPDATE {} SET age = 7")
    assert (export(lake, there).updated, export(lake, there).unchanged) == (1, True)
    assert rows(there) == [{"id": 2, "name": "Rob", "age": 7}]
    wrong = {**there.properties, "token": "hunter2hunter2"}
    with pytest.raises(PlatformError, match="access was refused") as failed:
        export_to_iceberg(lake, MERGE, wrong, "shop")
    assert "hunter2" not in str(failed.value)


def test_a_catalog_in_postgresql_takes_them_and_a_wrong_password_is_not_shown(
    lake: Lakehouse, postgres_url: str, tmp_path: Path
) -> None:
    properties = {"type": "sql", "uri": postgres_url, "warehouse": f"file://{tmp_path}/warehouse"}
    make(lake)
    assert export_to_iceberg(lake, MERGE, properties, "sales").whole == "the first export"
    assert export_to_iceberg(lake, MERGE, properties, "sales").unchanged
    nowhere = {**properties, "uri": "postgresql://shop:hunter2hunter2@127.0.0.1:1/nowhere"}
    with pytest.raises(TransientError, match="cannot be read") as failed:
        export_to_iceberg(lake, MERGE, nowhere, "shop")
    assert "hunter2" not in str(failed.value)
