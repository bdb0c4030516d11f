"""Exports to tables of Delta Lake: rows and position in one commit."""

import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from platform_tests.exports.customers import CUSTOMERS, MERGE, REPLACE, change, make
from platform_tests.exports.exporting import exporter, killed

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.commits import Committed
from data_platform.exports.delta import export_to_delta
from data_platform.exports.export import TableExport
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

__all__ = ["exporter"]

BOTH = pytest.mark.parametrize("spec", [MERGE, REPLACE], ids=["merge", "replace"])


def export(lake: Lakehouse, folder: Path, spec: TableExport = MERGE, **options: Any) -> Committed:
    return export_to_delta(lake, spec, str(folder), {}, **options)


def rows(folder: Path) -> list[dict[str, Any]]:
    found = pa.table(DeltaTable(str(folder / "customers")).to_pyarrow_table()).to_pylist()
    return sorted(found, key=lambda row: row["id"])


def names(folder: Path) -> dict[int, str]:
    return {row["id"]: row["name"] for row in rows(folder)}


@BOTH
def test_changes_and_deletes_are_one_commit_and_nothing_is_written_twice(
    lake: Lakehouse, tmp_path: Path, spec: TableExport
) -> None:
    make(lake)
    assert export(lake, tmp_path, spec).whole == "the first export"
    assert export(lake, tmp_path, spec).unchanged
    change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'Rob' WHERE id = 2")
    change(lake, "INSERT INTO {} VALUES (3, NULL, 1, 1)")
    done = export(lake, tmp_path, spec)
    assert names(tmp_path) == {2: "Rob", 3: None}
    assert (done.found, done.commit, done.whole) == (2, 1, "")
    if spec is MERGE:
        assert (done.inserted, done.updated, done.deleted) == (1, 1, 1)


def test_an_optimize_of_others_leaves_the_position_as_it_was(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    export(lake, tmp_path)
    for number in (3, 4):
        change(lake, f"INSERT INTO {{}} VALUES ({number}, 'n', 1, 1)")
        export(lake, tmp_path)
    DeltaTable(str(tmp_path / "customers")).optimize.compact()
    assert export(lake, tmp_path).unchanged
    change(lake, "DELETE FROM {} WHERE id = 3")
    assert export(lake, tmp_path).whole == ""
    assert list(names(tmp_path)) == [1, 2, 4]


def test_added_columns_rows_of_others_and_expired_versions_are_written_whole(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    snapshot = export(lake, tmp_path).origin.snapshot
    change(lake, "ALTER TABLE {} ADD COLUMN age INTEGER")
    assert export(lake, tmp_path).whole == "its columns or its key changed"
    assert rows(tmp_path)[0] == {"id": 1, "name": "Ada", "age": None}
    assert export(lake, tmp_path, full=True).whole == "as asked for"
    change(lake, "DELETE FROM {} WHERE id = 1")
    snapshot = export(lake, tmp_path).origin.snapshot
    change(lake, "DELETE FROM {} WHERE id = 2")
    lake.connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{snapshot}])")
    assert "has expired" in export(lake, tmp_path).whole
    assert rows(tmp_path) == []


def test_a_table_that_others_wrote_to_is_written_whole_whatever_they_did(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    export(lake, tmp_path)
    change(lake, "UPDATE {} SET name = 'Rob' WHERE id = 2")
    export(lake, tmp_path)
    DeltaTable(str(tmp_path / "customers")).restore(0)
    assert export(lake, tmp_path).whole == "others wrote to it (its version 2)"
    assert names(tmp_path) == {1: "Ada", 2: "Rob"}
    DeltaTable(str(tmp_path / "customers")).update(updates={"name": "'theirs'"})
    change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    export(lake, tmp_path)
    assert names(tmp_path) == {1: "Ada", 2: "Rob", 3: "Cyd"}


def test_columns_of_any_name_are_merged(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake, 'id BIGINT, "we""ird" VARCHAR, "a.b;c" INTEGER, "UPPER" INTEGER', "(1, 'a', 1, 1)")
    spec = replace(MERGE, key=("id", 'we"ird', "UPPER"))
    export(lake, tmp_path, spec)
    change(lake, 'UPDATE {} SET "a.b;c" = 2')
    assert export(lake, tmp_path, spec).updated == 1
    assert rows(tmp_path) == [{"id": 1, 'we"ird': "a", "a.b;c": 2, "UPPER": 1}]


def test_a_table_of_others_is_left_as_it_was(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    write_deltalake(str(tmp_path / "customers"), pa.table({"id": [7]}))
    with pytest.raises(PlatformError, match=r"did not make.*adopt: true"):
        export(lake, tmp_path)
    assert rows(tmp_path) == [{"id": 7}]
    export(lake, tmp_path, replace(MERGE, adopt=True))
    assert names(tmp_path) == {1: "Ada", 2: "Bob"}
    with pytest.raises(PlatformError, match="did not make"):
        export(lake, tmp_path, replace(MERGE, export="erp"))


def test_an_export_that_is_killed_leaves_the_rows_of_before_or_of_after(
    exporter: "subprocess.Popen[str]", settings: Settings, tmp_path: Path
) -> None:
    place = str(tmp_path)
    with open_lakehouse(settings) as lake:
        make(lake)
    assert killed(exporter, settings, "delta", place, "merge", "prepared")
    assert not (tmp_path / "customers" / "_delta_log").exists()
    assert killed(exporter, settings, "delta", place, "merge", "committed")
    assert names(tmp_path) == {1: "Ada", 2: "Bob"}
    with open_lakehouse(settings) as lake:
        change(lake, "UPDATE {} SET name = 'Rob'")
    assert killed(exporter, settings, "delta", place, "merge", "prepared")
    assert names(tmp_path) == {1: "Ada", 2: "Bob"}
    assert killed(exporter, settings, "delta", place, "merge", "committed")
    with open_lakehouse(settings) as lake:
        assert export(lake, tmp_path).unchanged
    assert names(tmp_path) == {1: "Rob", 2: "Rob"}


def test_of_two_exports_at_once_the_later_one_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    with open_lakehouse(settings) as lake:
        make(lake)
        export(lake, tmp_path)
        change(lake, "INSERT INTO {} SELECT 10 + i, 'n', 1, 1 FROM range(5000) AS r(i)")
        found: list[object] = []

        def one(own: Lakehouse) -> None:
            try:
                found.append(export(own, tmp_path).inserted)
            except TransientError as error:
                found.append(error)

        threads = [threading.Thread(target=one, args=(lake.duplicate(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found.count(5000) == 1, found
        assert len(names(tmp_path)) == 5002


TYPES = "id BIGINT, a UINTEGER, b UBIGINT, c HUGEINT, d DECIMAL(12, 3), e UUID, f TIME, g TIMESTAMPTZ, h VARCHAR[]"
VALUES = (
    "(1, 4000000000, 18446744073709551615, 7, 1.5, '6f9619ff-8b86-d011-b42d-00cf4fc964ff', '12:00:00', "
    "'2024-02-29 12:00:00+02', ['x'])"
)


@BOTH
def test_types_that_delta_has_not_are_kept_as_the_next_that_hold_them(
    lake: Lakehouse, tmp_path: Path, spec: TableExport
) -> None:
    make(lake, TYPES, VALUES)
    export(lake, tmp_path, spec)
    change(lake, "UPDATE {} SET a = 1")
    export(lake, tmp_path, spec)
    (row,) = rows(tmp_path)
    assert (row["a"], int(row["b"]), row["c"], str(row["d"])) == (1, 18446744073709551615, "7", "1.500")
    assert (row["e"], row["f"], row["h"]) == ("6f9619ff-8b86-d011-b42d-00cf4fc964ff", "12:00:00", ["x"])
    assert row["g"].isoformat() == "2024-02-29T10:00:00+00:00"


def test_types_within_lists_and_structs_are_kept_likewise(lake: Lakehouse, tmp_path: Path) -> None:
    make(
        lake,
        'id BIGINT, nested STRUCT("TIME" TIME, large UBIGINT, total DECIMAL(9, 2), tags UUID[])',
        "(1, {TIME: '12:00:00', large: 18446744073709551615, total: 1.5, "
        "tags: ['6f9619ff-8b86-d011-b42d-00cf4fc964ff']})",
    )
    export(lake, tmp_path)
    (row,) = rows(tmp_path)
    assert (row["nested"]["TIME"], int(row["nested"]["large"])) == ("12:00:00", 18446744073709551615)
    assert (str(row["nested"]["total"]), row["nested"]["tags"]) == ("1.50", ["6f9619ff-8b86-d011-b42d-00cf4fc964ff"])


def test_what_delta_cannot_keep_is_refused_before_anything_is_written(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake, "id BIGINT, at_ns TIMESTAMP_NS", "(1, '2024-01-01 00:00:00.000000001')")
    with pytest.raises(PlatformError, match="fractions below a microsecond"):
        export(lake, tmp_path)
    change(lake, "ALTER TABLE {} DROP COLUMN at_ns", "ALTER TABLE {} ADD COLUMN bits TIMETZ")
    with pytest.raises(PlatformError, match="bits of staged/shop/customers is of the type"):
        export(lake, tmp_path)
    change(lake, "ALTER TABLE {} DROP COLUMN bits", "ALTER TABLE {} ADD COLUMN times TIMESTAMP_NS[]")
    with pytest.raises(PlatformError, match="times of staged/shop/customers is of the type"):
        export(lake, tmp_path)
    assert not (tmp_path / "customers").exists()


LIMITS = "id BIGINT, d DATE, t TIMESTAMP, z TIMESTAMPTZ, f DOUBLE, n DECIMAL(38, 10), h HUGEINT"
AT_LIMITS = """
(1, '0044-03-15 (BC)', '0044-03-15 (BC) 01:02:03.4', '0044-03-15 (BC) 01:02:03+00', 'nan', -1e27, -1e38),
(2, '12024-01-01', '12024-01-01 01:02:03', '12024-01-01 01:02:03+00', '-infinity', 1.0000000001, 99)
"""


@BOTH
def test_dates_of_any_year_nan_and_long_decimals_are_read_back_as_they_are(
    lake: Lakehouse, tmp_path: Path, spec: TableExport
) -> None:
    make(lake, LIMITS, AT_LIMITS)
    wanted = lake.connection.execute(
        f"SELECT id, epoch_us(d), epoch_us(t), epoch_us(z), f::VARCHAR, n::VARCHAR, h::VARCHAR FROM {CUSTOMERS.sql} "
        "ORDER BY id"
    ).fetchall()
    for statement in ("UPDATE {} SET id = id", "UPDATE {} SET f = f WHERE id = 1"):
        export(lake, tmp_path, spec)
        written = pa.RecordBatchReader.from_stream(DeltaTable(str(tmp_path / "customers")).scan()).read_all()
        lake.connection.register("written", written)
        found = lake.connection.execute(
            "SELECT id, epoch_us(d), epoch_us(t), epoch_us(z), f::VARCHAR, n::VARCHAR, h FROM written ORDER BY id"
        ).fetchall()
        assert found == wanted
        change(lake, statement)


def test_an_infinite_date_is_refused_with_its_column_and_the_key_of_its_row(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake, "id BIGINT, d DATE, l STRUCT(x TIMESTAMP[])", "(1, '2024-01-01', {'x': ['2024-01-01'::TIMESTAMP]})")
    export(lake, tmp_path)
    before = rows(tmp_path)
    change(lake, "INSERT INTO {} VALUES (7, 'infinity', {'x': [NULL, '-infinity'::TIMESTAMP]}, 1, 1)")
    with pytest.raises(PlatformError, match=r"d \(DATE\) has infinities in 1 rows \(the first: id = 7\)") as refused:
        export(lake, tmp_path)
    assert "has infinities within in 1 rows (the first: id = 7)" in str(refused.value)
    assert not isinstance(refused.value, TransientError)
    with pytest.raises(PlatformError, match=r"d \(DATE\) has infinities in 1 rows[;.]"):
        export(lake, tmp_path, replace(MERGE, private=True))
    assert rows(tmp_path) == before
