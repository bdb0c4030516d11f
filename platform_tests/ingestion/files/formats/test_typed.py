"""Parquet, Arrow and ORC: values keep their types, and a file that is not whole gives nothing."""

import io
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.deliveries import Reader, write
from platform_tests.ingestion.files.formats.writing import (
    as_arrow,
    as_arrow_stream,
    as_avro,
    as_orc,
    as_parquet,
    parse,
    refusal,
    rows,
)
from pyarrow import parquet

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Parquet, read, typed

Writer = Callable[[pa.Table], bytes]

WRITERS: dict[str, tuple[str, Writer]] = {
    "parquet": ("parquet", as_parquet),
    "arrow file": ("arrow", as_arrow),
    "arrow stream": ("arrow", as_arrow_stream),
    "orc": ("orc", as_orc),
}
EVERY = pytest.mark.parametrize("which", WRITERS)
SMALL = pa.table({"id": pa.array(range(100), pa.int64()), "name": [f"name {n}" for n in range(100)]})


@EVERY
def test_a_file_that_is_cut_off_anywhere_is_refused_with_one_message(which: str) -> None:
    form, written = WRITERS[which]
    content = written(SMALL)
    for size in {*range(1, len(content), 41), len(content) - 1, len(content) - 4, len(content) - 8}:
        with pytest.raises(PlatformError, match=r"damaged or cut off|cut off after|but it is") as refused:
            parse(form, content[:size])
        assert "\n" not in str(refused.value)


@EVERY
@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_a_damaged_byte_gives_rows_or_one_message_and_nothing_else(which: str, place: float, flipped: int) -> None:
    form, written = WRITERS[which]
    content = bytearray(written(SMALL))
    content[int(place * len(content))] ^= flipped
    assert "\n" not in refusal(form, bytes(content))


@EVERY
def test_nothing_of_a_damaged_file_lands_the_others_do_and_it_is_read_once_it_is_repaired(
    which: str, tmp_path: Path
) -> None:
    form, written = WRITERS[which]
    content = written(SMALL)
    write(tmp_path, "a", content[: len(content) // 2], 1)
    write(tmp_path, "b", written(SMALL.slice(0, 1)), 2)
    reader = Reader(tmp_path, path="*", format={"type": form})
    with pytest.raises(PlatformError, match=r"\n  a: the .* (damaged or )?cut off"):
        reader.batches()
    assert reader.landed_ids() == [0]
    write(tmp_path, "a", content, 3)
    assert reader.ids() == [*range(100)]


def test_a_page_whose_checksum_differs_is_found_out() -> None:
    content = as_parquet(SMALL, write_page_checksum=True, compression="none", use_dictionary=False)
    damaged = content.replace(b"name 42", b"name 43")
    assert damaged != content
    with pytest.raises(PlatformError, match=r"the Parquet file is damaged or cut off: .*checksum|CRC"):
        parse("parquet", damaged)


def test_text_that_is_no_utf_8_is_damage() -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<2i", 0, 1)), pa.py_buffer(b"\xff"))
    with pytest.raises(PlatformError, match=r"the Arrow file is damaged or cut off: .*UTF8"):
        parse("arrow", as_arrow(pa.table({"a": bad})))


def test_encrypted_parquet_says_that_it_is() -> None:
    with pytest.raises(PlatformError, match=r"the Parquet file is encrypted, and keys are not taken"):
        parse("parquet", b"PARE" + b"\0" * 100 + b"PARE")


@pytest.mark.parametrize(
    ("declared", "content", "message"),
    [
        ("parquet", b"id,name\n1,a\n", r"declared Parquet, but it is text \('id,name'\): if that is meant, .* csv"),
        ("parquet", b'{"id": 1}\n', "declared Parquet, but it is JSON lines: set `format: {type: json_lines}`"),
        ("avro", as_parquet(SMALL), "declared Avro, but it is a Parquet file: set `format: {type: parquet}`"),
        ("csv", as_parquet(SMALL), "declared CSV, but it is a Parquet file: set `format: {type: parquet}`"),
        ("json_lines", as_orc(SMALL), "declared JSON lines, but it is an ORC file: set `format: {type: orc}`"),
        ("csv", as_arrow_stream(SMALL), "declared CSV, but it is an Arrow stream: set `format: {type: arrow}`"),
        ("arrow", b"FEA1" + b"\0" * 50, "a Feather file of version 1"),
        ("orc", b"\0\1\2\3" * 20, r"declared ORC, but it is none \(it begins with 00 01 02 03"),
        ("excel", b"<!doctype html><p>Sign in</p>", "declared Excel, but it is an HTML page"),
        ("orc", b"  \n", "declared ORC, but it is blank"),
    ],
)
def test_a_file_of_another_format_is_named_with_what_to_declare(declared: str, content: bytes, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        parse(declared, content)


@EVERY
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["id", "_file"], "column 2 is named '_file', which the platform gives to every row itself"),
        (["_line"], "column 1 is named '_line'"),
        (["id", "ID"], "column 2 is named 'ID', as column 1 is already"),
        (["id", "x" * 1_001], "the name of column 2 has 1,001 characters"),
    ],
)
def test_names_that_no_column_can_have_refuse_the_file(which: str, names: list[str], message: str) -> None:
    form, written = WRITERS[which]
    with pytest.raises(PlatformError, match=message):
        parse(form, written(pa.table([pa.array([1])] * len(names), names=names)))


def test_a_name_that_occurs_twice_refuses_the_file() -> None:
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    for form, content in [("parquet", as_parquet(twice)), ("arrow", as_arrow(twice))]:
        with pytest.raises(PlatformError, match=r"column 2 is named 'a', as column 1 is already"):
            parse(form, content)


def test_more_columns_than_the_table_may_have_are_refused_before_any_row_is_read() -> None:
    wide = pa.table({f"c{n}": [1] for n in range(11)})
    with pytest.raises(PlatformError, match=r"its schema: 11 columns .* more than `max_columns` \(10\)"):
        parse("parquet", as_parquet(wide), most=10)


def test_instants_of_orc_beyond_nanoseconds_are_refused_and_not_wrapped_round() -> None:
    content = as_orc(pa.table({"at": pa.array([datetime(9999, 12, 31)], pa.timestamp("us"))}))
    with pytest.raises(PlatformError, match=r"the ORC file has an instant that no nanoseconds hold .* 1677 to 2262"):
        parse("orc", content)


@EVERY
def test_rows_are_numbered_from_one_across_groups(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed, "ROWS", 7)
    form, written = WRITERS[which]
    found = rows(form, written(SMALL))
    assert found["_line"].to_pylist() == [*range(1, 101)]
    assert found.drop_columns(["_line"]) == SMALL


@EVERY
def test_a_file_without_rows_gives_its_columns(which: str) -> None:
    form, written = WRITERS[which]
    found = rows(form, written(SMALL.slice(0, 0)))
    assert found.schema == pa.schema([("id", pa.int64()), ("name", pa.string()), ("_line", pa.int64())])
    assert found.num_rows == 0


def test_a_parquet_file_without_row_groups_gives_its_columns() -> None:
    out = io.BytesIO()
    parquet.ParquetWriter(out, SMALL.schema).close()
    assert rows("parquet", out.getvalue()).column_names == ["id", "name", "_line"]


def test_a_binary_file_does_not_wait_for_the_end_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet(SMALL.slice(0, 1)))
    assert Reader(tmp_path, path="*", format={"type": "parquet"}).ids() == [0]


def test_a_gzipped_file_is_unpacked_as_any_other(tmp_path: Path) -> None:
    import gzip

    write(tmp_path, "a.arrow.gz", gzip.compress(as_arrow(SMALL)), 1)
    assert Reader(tmp_path, path="*", format={"type": "arrow"}).ids() == [*range(100)]


def test_timestamps_of_96_bits_keep_years_that_nanoseconds_do_not_hold() -> None:
    values = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None]
    content = as_parquet(pa.table({"at": pa.array(values, pa.timestamp("us"))}), use_deprecated_int96_timestamps=True)
    assert rows("parquet", content)["at"].to_pylist() == values


def test_a_batch_of_wide_rows_has_few_of_them() -> None:
    wide = pa.table({"a": [f"{n:06}" + "x" * 100_000 for n in range(400)]})
    stream = io.BytesIO(as_parquet(wide, row_group_size=400, use_dictionary=False))
    sizes = [block.rows.num_rows for block in read(Parquet(type="parquet"), stream)]
    assert sum(sizes) == 400
    assert max(sizes) <= 200


U = uuid.UUID("12345678-1234-5678-1234-567812345678")
TYPES: list[tuple[pa.Array, pa.DataType, list[Any]]] = [
    (pa.array([1.5, None], pa.float16()), pa.float32(), [1.5, None]),
    (pa.array([Decimal("1.50"), None], pa.decimal256(50, 2)), pa.string(), ["1.50", None]),
    (pa.array([Decimal("1.50")], pa.decimal256(20, 2)), pa.decimal128(20, 2), [Decimal("1.50")]),
    (pa.array([Decimal("1.50")], pa.decimal64(10, 2)), pa.decimal128(10, 2), [Decimal("1.50")]),
    (pa.array(["a", None, "a"]).dictionary_encode(), pa.string(), ["a", None, "a"]),
    (pa.array([U.bytes, None], pa.binary(16)).cast(pa.uuid()), pa.string(), [str(U), None]),
    (pa.array(["{}"], pa.string()).cast(pa.json_()), pa.string(), ["{}"]),
    (pa.array([datetime(2024, 1, 1), None], pa.timestamp("s")), pa.timestamp("us"), [datetime(2024, 1, 1), None]),
    (
        pa.array([-1, None], pa.timestamp("ns", "Europe/Paris")),
        pa.timestamp("us", "UTC"),
        [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), None],
    ),
    (pa.array([1_001], pa.timestamp("ns")), pa.timestamp("ns"), [1_001]),
    (pa.array([1_001], pa.time64("ns")), pa.time64("us"), [time(0, 0, 0, 1)]),
    (pa.array([1], pa.time32("s")), pa.time64("us"), [time(0, 0, 1)]),
    (pa.array([date(2024, 1, 1)], pa.date64()), pa.date32(), [date(2024, 1, 1)]),
    (pa.array([timedelta(seconds=90), None], pa.duration("ms")), pa.string(), ["PT1M30S", None]),
    (pa.array([(14, 3, -500_000_000), None], pa.month_day_nano_interval()), pa.string(), ["P14M3DT-0.5S", None]),
    (pa.array([b"ab"], pa.binary(2)), pa.binary(), [b"ab"]),
    (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
    (pa.array(["a"], pa.string_view()), pa.string(), ["a"]),
    (pa.array([b"a"], pa.large_binary()), pa.binary(), [b"a"]),
    (pa.array([[1.5, None], None], pa.list_(pa.float16())), pa.list_(pa.float32()), [[1.5, None], None]),
    (pa.array([[1], None, [2]], pa.list_view(pa.int8())), pa.list_(pa.int8()), [[1], None, [2]]),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.int8()), [[1, 2], None]),
    (pa.array([[1], None], pa.large_list(pa.int8())), pa.list_(pa.int8()), [[1], None]),
    (
        pa.array([[("a", timedelta(1))], None], pa.map_(pa.string(), pa.duration("us"))),
        pa.map_(pa.string(), pa.string()),
        [[("a", "P1D")], None],
    ),
    (
        pa.array([{"a": date(2024, 1, 1), "b": None}, None], pa.struct([("a", pa.date64()), ("b", pa.null())])),
        pa.struct([("a", pa.date32()), ("b", pa.string())]),
        [{"a": date(2024, 1, 1), "b": None}, None],
    ),
    (pa.array([{"a": 1, "A": 2}], pa.struct([("a", pa.int8()), ("A", pa.int8())])), pa.string(), ['{"a":1,"A":2}']),
    (pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["x"])), pa.string(), ["x", "x"]),
    (
        pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
        ),
        pa.string(),
        ["1", '"x"'],
    ),
]


@pytest.mark.parametrize(("values", "kind", "wanted"), TYPES, ids=[str(one[0].type) for one in TYPES])
def test_what_the_lakehouse_has_no_type_for_lands_in_the_nearest_one(
    values: pa.Array, kind: pa.DataType, wanted: list[Any]
) -> None:
    found = rows("arrow", as_arrow(pa.table({"a": values})))["a"]
    assert found.type == kind
    assert (found.cast(pa.int64()) if kind == pa.timestamp("ns") else found).to_pylist() == wanted
    sliced = typed.plain(values.slice(1))
    sliced.validate(full=True)
    assert sliced.type == kind


def test_an_instant_that_no_microseconds_hold_is_refused() -> None:
    with pytest.raises(PlatformError, match=r"the Arrow file is damaged or cut off: .*out of bounds"):
        parse("arrow", as_arrow(pa.table({"at": pa.array([2**60], pa.timestamp("s"))})))


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
INSTANT = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
COLUMNS: list[tuple[pa.DataType, Any, Any]] = [
    (pa.int64(), st.integers(-(2**63), 2**63 - 1), "long"),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1), "int"),
    (pa.float64(), st.floats(allow_nan=False), "double"),
    (pa.float32(), st.floats(allow_nan=False, width=32), "float"),
    (pa.bool_(), st.booleans(), "boolean"),
    (pa.string(), TEXT, "string"),
    (pa.binary(), st.binary(max_size=5), "bytes"),
    (pa.date32(), st.dates(), {"type": "int", "logicalType": "date"}),
    (pa.timestamp("us"), INSTANT, {"type": "long", "logicalType": "local-timestamp-micros"}),
    (
        pa.timestamp("us", "UTC"),
        INSTANT.map(lambda one: one.replace(tzinfo=UTC)),
        {"type": "long", "logicalType": "timestamp-micros"},
    ),
    (
        pa.decimal128(38, 9),
        st.decimals(-(10**28), 10**28, allow_nan=False, places=9),
        {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
    ),
]


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, Any]]:
    """A table of some types, and its schema in Avro."""
    chosen = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4))
    count = draw(st.integers(0, 5))
    columns = {
        f"c{n}": pa.array(draw(st.lists(st.none() | values, min_size=count, max_size=count)), kind)
        for n, (kind, values, _) in enumerate(chosen)
    }
    fields = [{"name": f"c{n}", "type": ["null", kind]} for n, (*_, kind) in enumerate(chosen)]
    return pa.table(columns), {"type": "record", "name": "r", "fields": fields}


@settings(max_examples=150, deadline=None)
@given(given_=tables(), size=st.integers(1, 4))
def test_any_table_comes_back_value_by_value_from_every_format(given_: tuple[pa.Table, Any], size: int) -> None:
    table, schema = given_
    records = table.to_pylist()
    files = [
        ("parquet", as_parquet(table, row_group_size=size)),
        ("arrow", as_arrow(table)),
        ("arrow", as_arrow_stream(table)),
        ("orc", as_orc(table)),
        ("avro", as_avro(schema, records)),
    ]
    for form, content in files:
        found = rows(form, content).drop_columns(["_line"])
        assert found.column_names == table.column_names
        for name in table.column_names:
            column = found[name]
            if form == "orc" and pa.types.is_timestamp(column.type):
                column = column.cast(table[name].type)
            assert column.type == table[name].type
            assert column.to_pylist() == table[name].to_pylist()
