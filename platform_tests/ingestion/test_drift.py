"""Sources whose columns change, and columns that must never be seen in the clear."""

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from platform_tests.ingestion.landing import (
    ON_SQLITE,
    data_files,
    known_files,
    load,
    position,
    rows,
)
from platform_tests.tables import TABLE, MemorySource, batch_of, rejects

from data_platform.errors import PlatformError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.load import LoadRefusedError, LoadResult
from data_platform.ingestion.source import Overlap, TableOptions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import MASK_KEY_VARIABLE, Settings

BY_A = TABLE.model_copy(update={"key": ["a"]})


def typed(lake: Lakehouse, upto: int, table: TableOptions = TABLE, **columns: pa.Array) -> LoadResult:
    return load(lake, MemorySource([batch_of(pa.table(columns), {"cursor": str(upto)})]), table)


def test_a_new_column_is_landed_left_out_or_refused_as_the_policy_says(lake: Lakehouse) -> None:
    one = pa.array(["1"])
    typed(lake, 1, a=one)
    with pytest.raises(LoadRefusedError, match="has new column b, and its drift policy is to refuse"):
        typed(lake, 2, TABLE.model_copy(update={"drift": "refuse"}), a=one, b=one)
    ignored = typed(lake, 2, TABLE.model_copy(update={"drift": "ignore"}), a=one, b=one)
    assert ignored.drift.as_dict() == {"ignored": ["b"]}
    assert typed(lake, 3, a=one, b=one).drift.as_dict() == {"added": ["b"]}
    assert rows(lake, "a, b, _load_id") == [("1", "1", 3), ("1", None, 1), ("1", None, 2)]
    assert typed(lake, 4, a=one, b=one).drift.as_dict() == {}


@ON_SQLITE
def test_a_column_that_is_gone_is_null_and_reported(lake: Lakehouse) -> None:
    one = pa.array(["1"])
    typed(lake, 1, a=one, b=one)
    assert typed(lake, 2, a=one).drift.as_dict() == {"lost": ["b"]}
    assert rows(lake, "a, b") == [("1", "1"), ("1", None)]
    assert json.loads(rows(lake, "drift", "platform.loads")[0]) in ({}, {"lost": ["b"]})


def test_whole_numbers_may_become_wider_and_no_value_is_ever_bent(lake: Lakehouse) -> None:
    typed(lake, 1, a=pa.array([1], pa.int32()))
    typed(lake, 2, a=pa.array([2**40], pa.int64()))
    typed(lake, 3, a=pa.array([3], pa.uint16()))
    assert rows(lake, "a, typeof(a)") == [(1, "BIGINT"), (3, "BIGINT"), (2**40, "BIGINT")]
    assert lake.connection.execute("SELECT min(a), max(a) FROM raw_shop.orders WHERE a < 2").fetchone() == (1, 1)
    assert typed(lake, 4, a=pa.array([2**63], pa.uint64())).drift.widened == ("a: BIGINT to DECIMAL(20,0)",)
    assert rows(lake, "a, typeof(a)")[-1] == (2**63, "DECIMAL(20,0)")


@ON_SQLITE
def test_a_repeated_row_is_known_although_its_column_became_wider(lake: Lakehouse) -> None:
    typed(lake, 1, a=pa.array([1, 7], pa.int32()), at=pa.array([5, 5]))
    wide = pa.table({"a": pa.array([1, 2**40], pa.int64()), "at": pa.array([5, 6])})
    result = load(lake, MemorySource([batch_of(wide, {"cursor": "2"})], again=Overlap("at", 5)), BY_A)
    assert (result.rows_landed, result.rows_repeated) == (1, 1)
    assert rows(lake, "a") == [1, 7, 2**40]


@ON_SQLITE
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1]), pa.array(["x"])),
        (pa.array([1.5]), pa.array([True])),
        (pa.array([1], pa.decimal128(38, 2)), pa.array([1], pa.decimal128(9, 4))),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.date32())),
    ],
)
def test_a_column_that_changes_its_type_refuses_the_load(
    lake: Lakehouse, settings: Settings, first: pa.Array, second: pa.Array
) -> None:
    typed(lake, 1, a=first)
    with pytest.raises(LoadRefusedError, match=r"shop/orders: column a was \S+ and is now \S+. Nothing was loaded"):
        typed(lake, 2, a=second)
    assert len(rows(lake, "a")) == 1
    assert position(lake) == {"cursor": "1"}
    assert data_files(settings) == known_files(lake)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (pa.array([1, 2], pa.int32()), pa.array([2**40], pa.int64()), "BIGINT"),
        (pa.array([1, 2], pa.int64()), pa.array([2**63], pa.uint64()), "DECIMAL(20,0)"),
        (pa.array([0.1, 9.5], pa.float32()), pa.array([0.1], pa.float64()), "DOUBLE"),
        (pa.array([Decimal("1.25")]).cast(pa.decimal128(10, 2)), pa.array([Decimal(10**11)]), "DECIMAL(14,2)"),
        (pa.array([Decimal("1.25")]).cast(pa.decimal128(10, 2)), pa.array([Decimal("1.2345")]), "DECIMAL(12,4)"),
    ],
)
def test_a_type_that_becomes_wider_lands_and_every_row_is_found_by_its_value(
    lake: Lakehouse, settings: Settings, first: pa.Array, second: pa.Array, kind: str
) -> None:
    if kind.startswith("DECIMAL(1"):
        second = second.cast(pa.decimal128(14, 2) if kind == "DECIMAL(14,2)" else pa.decimal128(6, 4))
    typed(lake, 1, a=first)
    before = lake.connection.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchone()
    result = typed(lake, 2, a=second)
    assert bool(result.drift.widened) == (kind != "BIGINT")
    assert rows(lake, "DISTINCT typeof(a)") == [kind]
    expected = [*first.to_pylist(), *second.to_pylist()]
    assert sorted(rows(lake, "a")) == sorted(expected)
    for value in expected:
        found = lake.connection.execute(f"SELECT a FROM raw_shop.orders WHERE a = ?::{kind}", [value]).fetchall()
        assert [row[0] for row in found] == [value] * expected.count(value)
    assert lake.connection.execute("SELECT min(a), max(a) FROM raw_shop.orders").fetchone() == (
        min(expected),
        max(expected),
    )
    assert rows(lake, "_load_id, _row") == [(1, n) for n in range(len(first))] + [(2, 0)]
    assert before is not None
    earlier = lake.connection.execute(f"SELECT count(*) FROM raw_shop.orders AT (VERSION => {before[0]})").fetchone()
    assert earlier == (len(first),)
    typed(lake, 3, a=first)
    assert len(rows(lake, "a")) == len(expected) + len(first)


@ON_SQLITE
def test_the_widening_that_ducklake_itself_offers_finds_rows_of_another_value(lake: Lakehouse) -> None:
    """Why a table whose column becomes wider is written anew: once this fails, ALTER TYPE is enough."""
    typed(lake, 1, a=pa.array([0.1], pa.float32()))
    lake.connection.execute("ALTER TABLE raw_shop.orders ALTER a SET DATA TYPE DOUBLE")
    assert rows(lake, "a") == [pytest.approx(0.1, abs=1e-7)]
    assert rows(lake, "a")[0] != 0.1
    wrong = lake.connection.execute("SELECT count(*) FROM raw_shop.orders WHERE a = 0.1::DOUBLE").fetchone()
    assert wrong == (1,)


@ON_SQLITE
def test_a_column_may_become_wider_in_the_middle_of_a_load(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    parts = [pa.array([0.1], pa.float32()), pa.array([0.1], pa.float64()), pa.array([0.2], pa.float32())]
    batches = [batch_of(pa.table({"a": part}), {"cursor": "1"} if n == 2 else None) for n, part in enumerate(parts)]
    load(lake, MemorySource(batches))
    assert rows(lake, "a") == sorted(value for part in parts for value in part.to_pylist())
    assert lake.connection.execute("SELECT count(*) FROM raw_shop.orders WHERE a = 0.1::DOUBLE").fetchone() == (1,)


@ON_SQLITE
def test_a_column_that_comes_in_the_middle_of_a_load_is_null_before_and_counted_so(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    parts = [pa.table({"a": ["1"]}), pa.table({"a": ["2"], "b": ["x"]}), pa.table({"a": ["3"]})]
    load(lake, MemorySource([batch_of(part, {"cursor": "1"} if n == 2 else None) for n, part in enumerate(parts)]))
    typed(lake, 2, c=pa.array([1]))
    counted = "count(*), count(a), count(b), count(c)"
    assert lake.connection.execute(f"SELECT {counted} FROM raw_shop.orders").fetchall() == [(4, 3, 1, 1)]
    for column, nulls in {"a": 1, "b": 3, "c": 3}.items():
        query = f"SELECT count(*) FROM raw_shop.orders WHERE {column} IS NULL"
        assert lake.connection.execute(query).fetchall() == [(nulls,)]


@ON_SQLITE
def test_rows_that_come_again_are_known_although_their_column_became_wider(lake: Lakehouse) -> None:
    narrow = pa.table({"a": pa.array([Decimal("1.25"), Decimal("7.50")], pa.decimal128(5, 2)), "at": [5, 5]})
    load(lake, MemorySource([batch_of(narrow, {"cursor": "1"})]))
    wide = pa.table({"a": pa.array([Decimal("1.25"), Decimal(10**9)], pa.decimal128(14, 2)), "at": [5, 6]})
    result = load(lake, MemorySource([batch_of(wide, {"cursor": "2"})], again=Overlap("at", 5)), BY_A)
    assert (result.rows_landed, result.rows_repeated) == (1, 1)
    assert rows(lake, "a") == [Decimal("1.25"), Decimal("7.50"), Decimal(10**9)]


@ON_SQLITE
def test_a_full_refresh_replaces_a_raw_table_whose_column_changed_its_type(lake: Lakehouse, settings: Settings) -> None:
    typed(lake, 1, a=pa.array([1, 2]))
    with pytest.raises(LoadRefusedError, match=r"dp run shop/orders --retype.* dp run shop/orders --full-refresh"):
        typed(lake, 2, a=pa.array(["x"]))
    source = MemorySource([batch_of(pa.table({"a": ["x", "y"]}), {"cursor": "2"})])
    assert load(lake, source, full_refresh=True).rows_landed == 2
    assert rows(lake, "a, _load_id") == [("x", 2), ("y", 2)]
    assert rows(lake, "load_id, kind", "platform.loads") == [(1, "rows"), (2, "whole")]
    assert typed(lake, 3, a=pa.array(["z"])).rows_landed == 1


@ON_SQLITE
@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        (pa.array([1, None, -(2**63)]), pa.array(["three", None]), ["1", None, "-9223372036854775808", "three", None]),
        (pa.array(["7"]), pa.array([8]), ["7", "8"]),
        (pa.array([1, 2]), pa.array([1.5]), ["1", "2", "1.5"]),
        (pa.array([True, False]), pa.array(["yes"]), ["true", "false", "yes"]),
        (pa.array([Decimal("12345678901234567.10")]), pa.array([0.1]), ["12345678901234567.10", "0.1"]),
        (pa.array([datetime(2024, 5, 1, 10, 30)]), pa.array(["soon"]), ["2024-05-01 10:30:00", "soon"]),
    ],
)
def test_a_column_of_another_type_is_stored_as_text_when_that_is_asked_for(
    lake: Lakehouse, settings: Settings, first: pa.Array, second: pa.Array, texts: list[str | None]
) -> None:
    typed(lake, 1, a=first, b=pa.array([5] * len(first)))
    incoming = pa.table({"a": second, "b": pa.array([6] * len(second))})
    result = load(lake, MemorySource([batch_of(incoming, {"cursor": "2"})]), retype=True)
    assert [row[1] for row in rows(lake, "(_load_id, _row), a")] == texts
    assert rows(lake, "DISTINCT typeof(b)") == ["BIGINT"]
    assert bool(result.drift.widened) == (first.type != pa.string())
    assert typed(lake, 3, a=second, b=pa.array([7] * len(second))).rows_landed == len(second)
    assert data_files(settings) >= known_files(lake)


@ON_SQLITE
def test_a_text_column_takes_whatever_comes_later(lake: Lakehouse) -> None:
    typed(lake, 1, a=pa.array(["x"]))
    typed(lake, 2, a=pa.array([1]))
    typed(lake, 3, a=pa.nulls(1))
    assert rows(lake, "a") == ["1", "x", None]


@ON_SQLITE
def test_a_column_of_nothing_but_nulls_does_not_settle_its_type_for_ever(lake: Lakehouse) -> None:
    typed(lake, 1, a=pa.nulls(2))
    typed(lake, 2, a=pa.array(["later"]))
    assert rows(lake, "a") == ["later", None, None]


@ON_SQLITE
def test_a_column_spelt_in_another_case_is_the_same_column(lake: Lakehouse) -> None:
    typed(lake, 1, Name=pa.array(["x"]))
    assert typed(lake, 2, NAME=pa.array(["y"])).drift.as_dict() == {}
    assert rows(lake, "Name") == ["x", "y"]


@ON_SQLITE
@pytest.mark.parametrize("name", ["_row", "_LOAD_ID", "A"])
def test_a_column_whose_name_clashes_is_refused_before_anything_is_written(
    lake: Lakehouse, settings: Settings, name: str
) -> None:
    with pytest.raises(PlatformError, match=rf"shop/orders has .* {name},"):
        typed(lake, 1, **{"a": pa.array(["1"]), name: pa.array(["2"])})
    assert not data_files(settings)


MASKED = TABLE.model_copy(update={"mask": ["email"], "mask_within": ["note"]})


def people(*emails: str, column: str = "email", note: str = "wrote to {} twice") -> pa.Table:
    return pa.table({column: list(emails), "note": [note.format(email) for email in emails]})


def everything_written(settings: Settings) -> bytes:
    """Every byte of the lakehouse's data; Parquet dictionaries and statistics are not compressed beyond recognition."""
    found = b"".join(path.read_bytes() for path in Path(settings.data).rglob("*") if path.is_file())
    if settings.catalog_is_sqlite:
        found += b"".join(path.read_bytes() for path in Path(settings.catalog).parent.glob("catalog.sqlite*"))
    return found


def everything_readable(lake: Lakehouse) -> str:
    """Every value of every table."""
    tables = lake.connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
    ).fetchall()
    return "\n".join(str(lake.connection.execute(f'FROM "{s}"."{t}"').fetchall()) for s, t in tables)


def with_mask_key(lake: Lakehouse) -> Lakehouse:
    """The lakehouse as a process has it whose environment holds a mask key."""
    return replace(lake, settings=replace(lake.settings, mask_secret="k" * 32))


def test_masked_values_are_nowhere_in_the_clear(lake: Lakehouse, settings: Settings) -> None:
    lake = with_mask_key(lake)
    bad = rejects(("a.csv", 3, "1;zoe@secret.example;;", "too many fields"))
    rows_ = people(*[f"zoe{i}@secret.example" for i in range(50)])
    load(lake, MemorySource([batch_of(rows_, {"a.csv": "1"}, bad)]), MASKED)
    with pytest.raises(LoadRefusedError):
        load(lake, MemorySource([batch_of(people("eve@secret.example"), {"b.csv": "1"}, bad)]), MASKED)
    assert "secret.example" not in everything_readable(lake)
    assert "zoe" not in everything_readable(lake)
    assert b"secret.example" not in everything_written(settings)
    assert b"hmac:" in everything_written(settings)
    assert rows(lake, "email, note")[0][0].startswith("hmac:")
    assert rows(lake, "record, quarantine_id", "quarantine_shop.orders") == [
        ("(withheld: this table masks columns; see file and line)", "a.csv:3:withheld")
    ]


@ON_SQLITE
def test_without_a_mask_key_nothing_is_read_or_written(lake: Lakehouse, settings: Settings) -> None:
    source = MemorySource([batch_of(people("a@b.example"), {"cursor": "1"})])
    with pytest.raises(PlatformError, match=MASK_KEY_VARIABLE):
        load(lake, source, MASKED)
    assert source.asked == []
    assert not data_files(settings)


@ON_SQLITE
def test_a_misspelt_mask_column_is_an_error_before_anything_is_written(lake: Lakehouse, settings: Settings) -> None:
    lake = with_mask_key(lake)
    table = TABLE.model_copy(update={"mask": ["emial"]})
    with pytest.raises(PlatformError, match=r"is to mask emial, which the source does not give. It gives: email, note"):
        load(lake, MemorySource([batch_of(people("a@b.example"), {"cursor": "1"})]), table)
    assert not data_files(settings)


@ON_SQLITE
def test_a_masked_column_that_may_have_been_renamed_refuses_the_load(lake: Lakehouse, settings: Settings) -> None:
    lake = with_mask_key(lake)
    load(lake, MemorySource([batch_of(people("a@b.example"), {"cursor": "1"})]), MASKED)
    renamed = batch_of(people("c@d.example", column="mail"), {"cursor": "2"})
    with pytest.raises(LoadRefusedError, match="no longer gives email, which is masked, and gives mail instead"):
        load(lake, MemorySource([renamed]), MASKED)
    load(lake, MemorySource([renamed]), MASKED.model_copy(update={"drift": "ignore"}))
    load(lake, MemorySource([batch_of(people("e@f.example", column="EMAIL"), {"cursor": "3"})]), MASKED)
    written = everything_written(settings)
    assert not any(mail in written for mail in (b"a@b.example", b"c@d.example", b"e@f.example"))
    assert sum(row is not None for row in rows(lake, "email")) == 2
