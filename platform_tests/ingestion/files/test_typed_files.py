"""Files that have types on their way into the lakehouse: every type has a column, and types that widen are followed."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import table, write
from platform_tests.ingestion.files.formats.test_typed import TYPES
from platform_tests.ingestion.files.formats.writing import as_arrow, as_parquet
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.errors import PlatformError
from data_platform.ingestion.drift import LoadRefusedError
from data_platform.ingestion.files import batches as files
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE


def load(lake: Lakehouse, root: Path, form: str = "parquet") -> int:
    declared = table("landing/*", format={"type": form}, key=[])
    return load_table(lake, "shop", Files(root, {"t": declared}), "t", declared, run_id="run").rows_landed


def rows(lake: Lakehouse, columns: str = "*") -> list[Any]:
    return lake.connection.execute(f"SELECT {columns} FROM raw_shop.t ORDER BY _load_id, _row").fetchall()


def test_a_type_that_holds_less_than_what_is_stored_refuses_the_load(lake: Lakehouse, tmp_path: Path) -> None:
    write(tmp_path, "landing/1", as_parquet(pa.table({"a": ["x"], "b": [1]})), 1)
    write(tmp_path, "landing/2", as_parquet(pa.table({"a": ["y"], "b": [0.5]})), 2)
    with pytest.raises(LoadRefusedError, match="shop/t: column b was BIGINT and is now DOUBLE"):
        load(lake, tmp_path)


def test_a_file_of_many_batches_that_is_damaged_in_its_last_one_lands_nothing(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    names = pa.table({"name": [f"name {n}" for n in range(100)]})
    content = as_parquet(names, write_page_checksum=True, compression="none", use_dictionary=False, row_group_size=10)
    value = b"\x07\0\0\0name 95"
    assert value in content
    write(tmp_path, "landing/1", as_parquet(names.slice(0, 1)), 1)
    write(tmp_path, "landing/2", content.replace(value, b"\x07\0\0\0name 96"), 2)
    with pytest.raises(PlatformError, match="landing/2: the Parquet file is damaged or cut off"):
        load(lake, tmp_path)
    assert rows(lake, "name") == [("name 0",)]


def test_a_file_of_no_bytes_is_refused(lake: Lakehouse, tmp_path: Path) -> None:
    write(tmp_path, "landing/1", b"", 1)
    with pytest.raises(PlatformError, match=r"landing/1: it is empty \(0 bytes\), which no file of its format is"):
        load(lake, tmp_path)


def test_every_type_has_a_column(lake: Lakehouse, tmp_path: Path) -> None:
    columns = {f"c{n}": values.slice(0, 1) for n, (values, *_) in enumerate(TYPES)}
    write(tmp_path, "landing/a", as_arrow(pa.table(columns)), 1)
    assert load(lake, tmp_path, "arrow") == 1
    ((*found,),) = rows(lake, ", ".join(columns))
    at = {str(values.type): found[n] for n, (values, *_) in enumerate(TYPES)}
    assert at["halffloat"] == 1.5
    assert at["decimal256(50, 2)"] == "1.50"
    assert at["duration[ms]"] == "PT1M30S"
    assert at["list<item: halffloat>"] == [1.5, None]
    assert at["map<string, duration[us]>"] == {"a": "P1D"}
    assert at["fixed_size_binary[2]"] == b"ab"


def test_types_that_widen_columns_that_come_and_go_and_other_spellings_are_followed(
    lake: Lakehouse, tmp_path: Path
) -> None:
    first = {"ID": pa.array([1], pa.int8()), "price": pa.array([Decimal("1.50")], pa.decimal128(5, 2))}
    later = {"id": pa.array([2**40], pa.int64()), "price": pa.array([Decimal("1234567.125")], pa.decimal128(12, 3))}
    write(tmp_path, "landing/1", as_parquet(pa.table(first)), 1)
    write(tmp_path, "landing/2", as_parquet(pa.table({**later, "new": pa.array([None], pa.null())})), 2)
    assert load(lake, tmp_path) == 2
    write(tmp_path, "landing/3", as_parquet(pa.table({"id": pa.array([3], pa.uint16())})), 3)
    assert load(lake, tmp_path) == 1
    assert rows(lake, '"ID", price, _file, _line') == [
        (1, Decimal("1.500"), "landing/1", 1),
        (2**40, Decimal("1234567.125"), "landing/2", 1),
        (3, None, "landing/3", 1),
    ]
