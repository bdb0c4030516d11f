"""Avro files: every codec, types that mean something, and files that are not whole."""

import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import as_avro, parse, refusal, rows

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.avro import reader

SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}],
}
RECORDS = [{"id": n, "name": f"name {n}" if n % 3 else None} for n in range(2_000)]
CONTENT = as_avro(SCHEMA, RECORDS)


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def test_a_file_that_is_cut_off_is_refused_before_any_of_its_rows_is_given() -> None:
    for size in range(4, len(CONTENT), 511):
        with pytest.raises(PlatformError, match=r"the Avro file is damaged or cut off: .* Have it sent again"):
            next(reader.read(io.BytesIO(CONTENT[:size])))


@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255), codec=st.sampled_from(["null", "deflate"]))
def test_a_damaged_byte_gives_rows_or_one_message_and_nothing_else(place: float, flipped: int, codec: str) -> None:
    content = bytearray(as_avro(SCHEMA, RECORDS[:50], codec))
    content[int(place * len(content))] ^= flipped
    assert "\n" not in refusal("avro", bytes(content))


def test_an_unknown_codec_is_named_with_those_that_are_known() -> None:
    with pytest.raises(PlatformError, match=r"is packed by nulx, which is not known. Known: null, deflate"):
        parse("avro", CONTENT.replace(b"\x08null", b"\x08nulx"))


def test_names_that_no_column_can_have_refuse_the_file() -> None:
    with pytest.raises(PlatformError, match=r"column 1 is named '_line', which the platform gives to every row itself"):
        parse("avro", as_avro(record(_line="int"), [{"_line": 1}]))


def test_a_block_that_unpacks_to_more_than_memory_should_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LARGEST_BLOCK", 10_000)
    for codec in ("deflate", "bzip2", "xz"):
        with pytest.raises(PlatformError, match=r"the Avro file has a block of more than"):
            parse("avro", as_avro(record(a="string"), [{"a": "x" * 1_000}] * 11, codec))


def test_a_value_that_does_not_fit_its_type_is_a_reject_and_the_others_land() -> None:
    schema = record(id="int", amount={"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2})
    wide = json.loads(json.dumps(schema).replace('"precision": 4', '"precision": 8'))
    content = as_avro(wide, [{"id": 1, "amount": Decimal("1.50")}, {"id": 2, "amount": Decimal("12345.60")}])
    content = rewritten(content, schema=json.dumps(schema))
    found, rejects = parse("avro", content)
    assert found.to_pylist() == [{"id": 1, "amount": Decimal("1.50"), "_line": 1}]
    assert [one.line for one in rejects] == [2]
    assert rejects[0].record.startswith('{"id":2,')
    assert "the field amount has a value that does not fit the type of its schema" in rejects[0].reason


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard", "lz4"])
def test_every_codec_is_read(codec: str) -> None:
    found = rows("avro", packed(codec))
    assert found.drop_columns(["_line"]).to_pylist() == RECORDS
    assert found["_line"].to_pylist() == [*range(1, 2_001)]


def rewritten(content: bytes, pack: Callable[[bytes], bytes] = bytes, **meta: str) -> bytes:
    """A file with other entries in its header, and its blocks packed: as the specification says, where the library
    lacks what it packs them with."""
    stream, out = io.BytesIO(content), io.BytesIO()
    header: Any = fastavro.schemaless_reader(stream, reader._HEADER, None)
    given = {f"avro.{name}": value.encode() for name, value in meta.items()}
    fastavro.schemaless_writer(out, reader._HEADER, {**header, "meta": {**header["meta"], **given}})
    for block in reader._blocks(stream, header["sync"], len(content)):
        plain = pack(content[block.start : block.start + block.size])
        for number in (block.records, len(plain)):
            fastavro.schemaless_writer(out, "long", number)
        out.write(plain + header["sync"])
    return out.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "snappy": lambda plain: pa.compress(plain, "snappy", asbytes=True) + zlib.crc32(plain).to_bytes(4, "big"),
    "zstandard": lambda plain: pa.compress(plain, "zstd", asbytes=True),
    "lz4": lambda plain: len(plain).to_bytes(4, "little") + pa.compress(plain, "lz4_raw", asbytes=True),
}


def packed(codec: str) -> bytes:
    return rewritten(CONTENT, PACKED[codec], codec=codec) if codec in PACKED else as_avro(SCHEMA, RECORDS, codec)


def test_a_checksum_that_differs_is_damage() -> None:
    content = packed("snappy")
    sync = content[-16:]
    damaged = content[:-20] + b"\0\0\0\0" + sync
    with pytest.raises(PlatformError, match=r"a block is not what snappy writes .its checksum differs"):
        parse("avro", damaged)


AT = datetime(2024, 5, 1, 10, 30, 0, 123_000)
IN_UTC = AT.replace(tzinfo=UTC)
ID = "12345678-1234-5678-1234-567812345678"
IN_TEXT = {"type": "bytes", "logicalType": "decimal", "precision": "5", "scale": "2"}


@pytest.mark.parametrize(
    ("kind", "value", "wanted", "landed"),
    [
        ({"type": "int", "logicalType": "date"}, date(2024, 5, 1), date(2024, 5, 1), pa.date32()),
        ({"type": "int", "logicalType": "time-millis"}, time(10, 30), time(10, 30), pa.time32("ms")),
        ({"type": "long", "logicalType": "timestamp-millis"}, IN_UTC, IN_UTC, pa.timestamp("us", "UTC")),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, AT, AT, pa.timestamp("us")),
        (IN_TEXT, b"\x00\x96", Decimal("1.50"), pa.decimal128(5, 2)),
        ({"type": "string", "logicalType": "uuid"}, ID, ID, pa.string()),
        (["null", "string"], None, None, pa.string()),
        (["null", "int", "string"], "x", '"x"', pa.string()),
        ({"type": "array", "items": "int"}, [1, 2], "[1,2]", pa.string()),
        ({"type": "map", "values": "int"}, {"a": 1}, '{"a":1}', pa.string()),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, "A", "A", pa.string()),
        ({"type": "fixed", "name": "f", "size": 2}, b"ab", b"ab", pa.binary()),
        (record(x="int"), {"x": 1}, '{"x":1}', pa.string()),
    ],
    ids=str,
)  # fmt: skip
def test_types_mean_what_they_say_and_nested_values_are_json(
    kind: Any, value: Any, wanted: Any, landed: pa.DataType
) -> None:
    if isinstance(kind, dict) and kind.get("name") == "r":
        kind = {**kind, "name": "inner"}
    schema = {"type": "record", "name": "outer", "fields": [{"name": "v", "type": kind}]}
    plain = json.loads(json.dumps(schema).replace('"logicalType": "decimal"', '"unknown": "decimal"'))
    content = rewritten(as_avro(plain, [{"v": value}]), schema=json.dumps(schema))
    found = rows("avro", content)["v"]
    assert (found.to_pylist(), found.type) == ([wanted], landed)


def test_values_that_are_no_records_are_one_column() -> None:
    assert rows("avro", as_avro("long", [1, 2])).to_pydict() == {"value": [1, 2], "_line": [1, 2]}


def test_a_file_without_records_gives_its_columns() -> None:
    assert rows("avro", as_avro(SCHEMA, [])).schema == pa.schema(
        [("id", pa.int64()), ("name", pa.string()), ("_line", pa.int64())]
    )
