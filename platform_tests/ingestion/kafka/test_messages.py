"""What becomes of messages: values and keys of every form as columns, those that cannot be read in quarantine with
their place, tombstones as they are declared."""

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.ingestion.kafka.topics import Topics, load, numbers, position, quarantined, rows, table

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.json_lines import NUMBER
from data_platform.ingestion.kafka.messages import ORDER_BITS, Messages, Reader
from data_platform.ingestion.kafka.values import OURS, Json, TextKey
from data_platform.lakehouse.connect import Lakehouse

POISON: list[tuple[bytes | None, str]] = [
    (b"", "not JSON"),
    (b" \n", "not JSON"),
    (b"{", "not JSON"),
    (b"null", "not a JSON object"),
    (b'[{"n": 1}]', "not a JSON object"),
    (b"\xff\xfe", "not UTF-8 text from byte 0 on"),
    (b'{"n": "\\ud800"}', "not JSON"),
    (b'{"": 1}', "no column can be named"),
    (b'{"n": 1, "N": 2}', "upper and lower case"),
    (b'{"_key": 1, "value_key": 2}', "upper and lower case"),
    (b"\x00\x00\x00\x00\x07avro", "not JSON"),
    (b'{"n": ' + b"[" * 100_000, "nested too deeply"),
]


def test_messages_that_cannot_be_read_are_in_quarantine_with_their_place_and_the_others_land(
    lake: Lakehouse, topics: Topics
) -> None:
    topic = topics.make()
    source = topics.source({"a": table(topic, refuse_above="100%")})
    for content, _ in POISON:
        topics.send(topic, {"n": 1}, content, {"n": 2})
    result = load(lake, source)
    assert (result.rows_landed, result.rows_quarantined) == (2 * len(POISON), len(POISON))
    found = lake.connection.execute("SELECT file, record, reasons FROM quarantine_shop.a").fetchall()
    by_place = {place: (record, reasons) for place, record, reasons in found}
    assert len(by_place) == len(found) == len(POISON)
    for at, (content, reason) in enumerate(POISON):
        record, reasons = by_place[f"topic {topic}, partition 0, offset {3 * at + 1}"]
        assert reason in str(reasons)
        assert record is not None
        assert len(str(record)) < 70_000
        assert content is not None
    assert position(lake) == {"a/0": str(3 * len(POISON))}


def test_too_many_of_them_refuse_the_load_and_the_position_stays(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, {"n": 1})
    source = topics.source({"a": table(topic)})
    load(lake, source)
    topics.send(topic, {"n": 2}, b"no", b"no")
    place = f"topic {topic}, partition 0, offset 2"
    with pytest.raises(PlatformError, match=f"2 of 3 records could not be read.*{place}"):
        load(lake, source)
    assert position(lake) == {"a/0": "1"}
    assert len(quarantined(lake, "file")) == 2


def test_fields_named_as_the_platform_s_own_columns_land_under_another_name(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    value = {name: name for name in sorted(OURS)} | {"_Offset": 7, "_line": 1, "_file": "f"}
    del value["_offset"]
    topics.send(topic, value, key="k")
    load(lake, topics.source({"a": table(topic)}))
    expected = [f"value{name}" for name in sorted(OURS) if name != "_offset"]
    columns = ", ".join(f'"{name}"' for name in [*expected, "value_Offset", "_line", "_file", "_key"])
    assert rows(lake, columns) == [(*(name.removeprefix("value") for name in expected), "7", "1", "f", "k")]


def test_names_that_differ_by_case_only_are_one_column(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, {"Email": "a"}, {"email": "b"}, {"other": 1})
    load(lake, topics.source({"a": table(topic)}))
    assert rows(lake, "email") == ["a", "b", None]


def test_text_and_bytes_are_one_column(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, "ä".encode(), key=b"\x00\x01")
    topics.send(topic, b"\xff", key=b"k")
    text = table(topic, format="text", key_format="raw", refuse_above="100%")
    source = topics.source({"a": text, "b": table(topic, format="raw", key_format="raw")})
    load(lake, source)
    load(lake, source, "b")
    assert rows(lake, "value, _key") == [("ä", b"\x00\x01")]
    assert quarantined(lake, "reasons[1].check") == ["not UTF-8 text from byte 0 on"]
    assert rows(lake, "value, _key", "b") == [("ä".encode(), b"\x00\x01"), (b"\xff", b"k")]


def test_keys_that_cannot_be_read_are_in_quarantine(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    source = topics.source(
        {"a": table(topic, refuse_above="100%"), "b": table(topic, key_format="json", refuse_above="100%")}
    )
    for key in (b"\xff", b'{"a"', b"text", b"5", None, b'{"id": 5}'):
        topics.send(topic, {"n": 1}, key=key)
    load(lake, source)
    load(lake, source, "b")
    assert rows(lake, "_key") == ['{"a"', "text", "5", None, '{"id": 5}']
    assert quarantined(lake, "reasons[1].check") == ["its key is not UTF-8 text from byte 0 on"]
    assert rows(lake, "_key, id", "b") == [("5", None), (None, None), ('{"id": 5}', "5")]
    assert len(quarantined(lake, "file", "b")) == 3


def test_keys_fill_the_columns_that_values_leave_empty(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, {"ID": 1, "n": 1}, {"n": 2}, {"ID": None, "n": 3}, key="k")
    topics.send(topic, {"id": 1, "n": 1}, {"n": 2}, {"id": None, "n": 3}, key=b'"k"')
    source = topics.source({"a": table(topic, key_format="json", key_column="id", refuse_above="100%")})
    load(lake, source)
    assert rows(lake, "id, n") == [("1", "1"), ("k", "2"), ("k", "3")]


@pytest.mark.parametrize(("tombstones", "expected"), [("rows", ["1", None]), ("skip", ["1"])])
def test_tombstones_are_rows_or_skipped_as_declared(
    lake: Lakehouse, topics: Topics, tombstones: str, expected: list[Any]
) -> None:
    topic = topics.make()
    topics.send(topic, {"n": 1}, None, key="k")
    result = load(lake, topics.source({"a": table(topic, tombstones=tombstones)}))
    assert rows(lake, "n") == expected
    assert position(lake) == {"a/0": "2"}
    skipped = ("Messages without a value that were passed over (`tombstones: skip`): 1.",)
    assert result.notes == (skipped if tombstones == "skip" else ())


def read(messages: Messages, orders: dict[int, int] | None = None) -> tuple[list[int], dict[int, int]]:
    """The orders of messages of three partitions, and what they were last."""
    declared = table("t", key=["id"], key_column="id", tombstones="delete")
    made = Reader(declared, Json(10), TextKey("id"), [("t", n) for n in range(3)]).rows(messages, orders or {})
    return made.rows["_order"].to_pylist(), dict(made.orders)


TIMES = st.one_of(st.integers(-1, 10), st.integers(1_600_000_000_000, 1_600_000_000_010), st.just(2**60))


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), TIMES), min_size=1), max_size=4))
def test_the_order_of_changes_is_that_of_offsets_in_a_partition_and_of_times_between_them(
    loads: list[list[tuple[int, int]]],
) -> None:
    orders: dict[int, int] = {}
    seen: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for batch in loads:
        messages = Messages()
        for place, at in batch:
            messages.values.append(b"{}")
            messages.keys.append(b"k")
            messages.places.append(place)
            messages.offsets.append(len(seen[place]))
            messages.times.append(at)
            messages.headers.append(None)
        given_orders, last = read(messages, orders)
        for (place, at), order in zip(batch, given_orders, strict=True):
            seen[place].append((at, order))
        orders |= last
    for found in seen.values():
        assert [order for _, order in found] == sorted({order for _, order in found})
        in_time = [at for at, _ in found] == sorted(at for at, _ in found)
        if in_time and found and found[0][0] >= 1_600_000_000_000 and found[-1][0] < 2**60:
            assert all(order >> ORDER_BITS == at for at, order in found)
    now = int(datetime.now(UTC).timestamp() * 1000)
    assert all(order >> ORDER_BITS <= now for found in seen.values() for _, order in found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.binary(max_size=20) | json_values.map(lambda v: json.dumps(v, indent=1).encode()), max_size=20))
def test_every_message_is_a_row_or_bad_and_none_is_both(content: list[bytes]) -> None:
    found = Json(100)(content, range(len(content)))
    good = [number for number in found.fields[NUMBER].to_pylist() if number not in found.bad]
    assert sorted([*good, *found.bad]) == list(range(len(content)))
    for number in good:
        assert isinstance(json.loads(content[number]), dict)


def test_integers_as_java_writes_them_are_no_text(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, *numbers(1), key=struct.pack(">i", 200))
    with pytest.raises(PlatformError, match="its key is not UTF-8 text"):
        load(lake, topics.source({"a": table(topic)}))
