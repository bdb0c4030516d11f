"""Columns whose values stand in the names of folders: `dt=2026-01-01/country=CH/`."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import Reader, table, write
from platform_tests.ingestion.files.formats.writing import as_parquet
from pydantic import ValidationError

from data_platform.drafting.files import file_tables
from data_platform.errors import PlatformError


def rows(reader: Reader) -> list[dict[str, Any]]:
    found = [row for batch in reader.batches() for row in batch.rows.to_pylist()]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in found]


def test_values_of_a_path_land_as_text_in_front_of_the_files_columns(tmp_path: Path) -> None:
    write(tmp_path, "dt=2026-01-01/country=C%C3%B4te%20d%27Or/a.csv", "id\n1\n2\n", 1)
    write(tmp_path, "dt=2026-01-02/country=__HIVE_DEFAULT_PARTITION__/a.csv", "id\n3\n", 2)
    write(tmp_path, "dt=/country=a=b/a.csv", "id\n4\n", 3)
    reader = Reader(tmp_path, path="**/*.csv", partition_columns=["dt", "country"])
    assert rows(reader) == [
        {"dt": "2026-01-01", "country": "Côte d'Or", "id": "1"},
        {"dt": "2026-01-01", "country": "Côte d'Or", "id": "2"},
        {"dt": "2026-01-02", "country": None, "id": "3"},
        {"dt": "", "country": "a=b", "id": "4"},
    ]
    assert rows(reader) == []


def test_those_of_parquet_keep_the_types_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "dt=2026-01-01/a.parquet", as_parquet(pa.table({"id": [1], "paid": [True]})), 1)
    reader = Reader(tmp_path, path="dt=*/*", format={"type": "parquet"}, partition_columns=["dt"])
    (batch,) = reader.batches()
    types = {field.name: field.type for field in batch.rows.schema}
    assert (types["dt"], types["id"], types["paid"]) == (pa.string(), pa.int64(), pa.bool_())


def test_files_of_one_content_are_other_rows_in_another_partition_and_the_same_in_the_same(tmp_path: Path) -> None:
    for path, at in (("dt=1/a.csv", 1), ("dt=2/a.csv", 2), ("dt=2/b.csv", 3)):
        write(tmp_path, path, "id\n1\n", at)
    reader = Reader(tmp_path, path="*/*.csv", partition_columns=["dt"], key=[])
    assert [row["dt"] for row in rows(reader)] == ["1", "2"]
    assert set(reader.position) == {"dt=1/a.csv", "dt=2/a.csv", "dt=2/b.csv"}
    assert [row["dt"] for row in rows(Reader(tmp_path, path="*/*.csv", key=[], partition_columns=["dt"]))] == ["1", "2"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("day=1/a.csv", r"its path has no folder `dt=\.\.\.`.*Its columns: day\."),
        ("a.csv", "Its columns: none"),
        ("dt=1/dt=2/a.csv", r"its path has 2 folders `dt=\.\.\.`"),
        ("dt=1/ID.csv", "it has a column dt itself"),
    ],
)
def test_a_file_whose_path_does_not_tell_is_passed_over_and_named(tmp_path: Path, path: str, reason: str) -> None:
    write(tmp_path, path, "id,DT\n1,x\n" if "ID" in path else "id\n1\n", 1)
    write(tmp_path, "dt=3/b.csv", "id\n3\n", 2)
    reader = Reader(tmp_path, path="**/*.csv", partition_columns=["dt"])
    with pytest.raises(PlatformError, match=reason):
        reader.batches()
    assert reader.landed_ids() == ["3"]


@pytest.mark.parametrize("names", [["dt", "DT"], ["_file"], [""]])
def test_names_that_no_column_can_have_are_refused(names: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"twice|should match pattern"):
        table(partition_columns=names)


def test_a_draft_has_them_unless_the_files_have_them_themselves(tmp_path: Path) -> None:
    for country in ("CH", "DE"):
        write(tmp_path, f"sales/country={country}/a.csv", "id\n1\n", 1)
        write(tmp_path, f"visits/country={country}/a.csv", f"id,country\n1,{country}\n", 1)
    drafted = {one.name: one for one in file_tables(tmp_path, [], tmp_path / "spool")}
    assert drafted["sales"].place["partition_columns"] == ["country"]
    assert sorted(drafted["sales"].rows["country"].to_pylist()) == ["CH", "DE"]
    assert "partition_columns" not in drafted["visits"].place
