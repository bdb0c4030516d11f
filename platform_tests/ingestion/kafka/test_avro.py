"""Avro by a real registry: each message by the schema that it was written with, all types, and what cannot be read."""

import io
import json
import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

import fastavro
import pytest
import requests
from platform_tests.ingestion.http.server import Answer, Asked, running_api
from platform_tests.ingestion.kafka.topics import Topics, load, position, quarantined, rows, table
from platform_tests.servers import free_port

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.kafka.options import KafkaTable, Registry
from data_platform.ingestion.kafka.source import Kafka
from data_platform.lakehouse.connect import Lakehouse

DRAFT = "http://json-schema.org/draft-07/schema#"


def record(fields: Mapping[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": one, "type": kind} for one, kind in fields.items()]}


def optional(kind: Any) -> list[Any]:
    return ["null", kind]


def registered(registry: str, subject: str, schema: Any, **more: Any) -> int:
    """Register a schema, whatever it is compatible with; its id."""
    requests.put(f"{registry}/config/{subject}", json={"compatibility": "NONE"}, timeout=10)
    body = {"schema": schema if isinstance(schema, str) else json.dumps(schema), **more}
    answer = requests.post(f"{registry}/subjects/{subject}/versions", json=body, timeout=10)
    assert answer.ok, answer.text
    return int(answer.json()["id"])


def written(identity: int, schema: Any, value: Any) -> bytes:
    stream = io.BytesIO(struct.pack(">bI", 0, identity))
    stream.seek(5)
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def answer(status: int, asked: Asked) -> Answer:
    """Of a registry that always answers so."""
    return Answer({}, status)


def source_of(topics: Topics, registry: str, **tables: KafkaTable) -> Kafka:
    return topics.source(tables, registry=Registry(url=registry))


TYPES: dict[str, tuple[Any, Any, str, Any]] = {
    "flag": ("boolean", True, "BOOLEAN", True),
    "small": ("int", -5, "BIGINT", -5),
    "large": ("long", 2**40, "BIGINT", 2**40),
    "single": ("float", 0.5, "FLOAT", 0.5),
    "double": ("double", 1e300, "DOUBLE", 1e300),
    "octets": ("bytes", b"\x00\xff", "BLOB", b"\x00\xff"),
    "text": ("string", "ü", "VARCHAR", "ü"),
    "nothing": (optional("string"), None, "VARCHAR", None),
    "kind": ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "VARCHAR", "B"),
    "four": ({"type": "fixed", "name": "F", "size": 4}, b"abcd", "BLOB", b"abcd"),
    "price": (
        {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
        Decimal("-12.34"),
        "DECIMAL(12,2)",
        Decimal("-12.34"),
    ),
    "wide": (
        {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 2},
        Decimal("1" * 45 + ".25"),
        "VARCHAR",
        "1" * 45 + ".25",
    ),
    "day": (optional({"type": "int", "logicalType": "date"}), date(2026, 1, 2), "DATE", date(2026, 1, 2)),
    "clock": ({"type": "long", "logicalType": "time-micros"}, time(1, 2, 3), "TIME", time(1, 2, 3)),
    "at": (
        {"type": "long", "logicalType": "timestamp-millis"},
        datetime(2026, 1, 2, tzinfo=UTC),
        "TIMESTAMP WITH TIME ZONE",
        datetime(2026, 1, 2, tzinfo=UTC),
    ),
    "wall": (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        datetime(2026, 1, 2, 3),
        "TIMESTAMP",
        datetime(2026, 1, 2, 3),
    ),
    "who": (
        {"type": "string", "logicalType": "uuid"},
        "12345678-1234-5678-1234-567812345678",
        "VARCHAR",
        "12345678-1234-5678-1234-567812345678",
    ),
    "list": ({"type": "array", "items": "int"}, [1, 2], "VARCHAR", "[1,2]"),
    "map": ({"type": "map", "values": "double"}, {"a": 0.5}, "VARCHAR", '{"a":0.5}'),
    "inner": (
        record({"p": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "k": "E"}, "Inner"),
        {"p": Decimal("1.50"), "k": "A"},
        "VARCHAR",
        '{"p":1.50,"k":"A"}',
    ),
    "either": (["null", "int", "string"], "x", "VARCHAR", '"x"'),
    "again": ("F", b"wxyz", "BLOB", b"wxyz"),
}


def test_every_type_lands_as_what_it_is(lake: Lakehouse, topics: Topics, registry: str) -> None:
    topic = topics.make()
    schema = record({name: kind for name, (kind, *_) in TYPES.items()})
    identity = registered(registry, f"{topic}-value", schema)
    topics.send(topic, written(identity, schema, {name: value for name, (_, value, *_) in TYPES.items()}))
    load(lake, source_of(topics, registry, a=table(topic, format="avro")))
    types = lake.connection.execute("SELECT column_name, column_type FROM (DESCRIBE raw_shop.a)").fetchall()
    assert {name: kind for name, kind in types if name in TYPES} == {n: kind for n, (*_, kind, _) in TYPES.items()}
    (found,) = rows(lake, ", ".join(f'"{name}"' for name in TYPES))
    for (name, (*_, expected)), value in zip(TYPES.items(), found, strict=True):
        assert value == expected, name


def test_messages_of_several_schemas_are_each_read_by_their_own(lake: Lakehouse, topics: Topics, registry: str) -> None:
    topic = topics.make()
    versions: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (record({"id": "int", "a": "string"}), {"id": 1, "a": "x"}),
        (record({"id": "long", "b": optional("double")}), {"id": 2**40, "b": 0.5}),
        (record({"id": "long", "A": "string", "b": "double"}), {"id": 3, "A": "y", "b": 1.5}),
    ]
    ids = [registered(registry, f"{topic}-value", schema) for schema, _ in versions]
    assert len(set(ids)) == 3
    for _ in range(2):
        for identity, (schema, value) in zip(ids, versions, strict=True):
            topics.send(topic, written(identity, schema, value))
    load(lake, source_of(topics, registry, a=table(topic, format="avro")))
    assert rows(lake, "id, a, b") == [(1, "x", None), (2**40, None, 0.5), (3, "y", 1.5)] * 2
    assert rows(lake, "_offset") == list(range(6))


def test_a_schema_that_refers_to_another_subject_is_read(lake: Lakehouse, topics: Topics, registry: str) -> None:
    topic = topics.make()
    place = record({"lat": "double"}, "Place")
    registered(registry, f"{topic}-place", place)
    schema = record({"id": "int", "at": "Place"}, "Trip")
    references = [{"name": "Place", "subject": f"{topic}-place", "version": 1}]
    identity = registered(registry, f"{topic}-value", schema, references=references)
    whole = record({"id": "int", "at": place}, "Trip")
    topics.send(topic, written(identity, whole, {"id": 1, "at": {"lat": 0.5}}))
    load(lake, source_of(topics, registry, a=table(topic, format="avro")))
    assert rows(lake, 'id, "at"') == [(1, '{"lat":0.5}')]


def test_messages_that_are_no_avro_of_a_known_schema_are_in_quarantine(
    lake: Lakehouse, topics: Topics, registry: str
) -> None:
    topic = topics.make()
    price = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    schema = record({"id": "int", "name": "string", "price": price})
    moment = record({"at": {"type": "long", "logicalType": "timestamp-millis"}}, "M")
    moments = registered(registry, f"{topic}-moments", moment)
    late = written(moments, record({"at": "long"}, "M"), {"at": 2**62})
    identity = registered(registry, f"{topic}-value", schema)
    other = registered(registry, f"{topic}-other", json.dumps({"$schema": DRAFT, "type": "object"}), schemaType="JSON")
    good = written(identity, schema, {"id": 1, "name": "n", "price": Decimal("1.25")})
    wide = written(identity, record({"id": "int", "name": "string", "price": {**price, "precision": 9}}), {
        "id": 1, "name": "n", "price": Decimal("123456.25"),
    })  # fmt: skip
    poison = {
        b'{"id": 1}': "does not begin with a zero",
        b"\x00\x00": "does not begin with a zero",
        b"": "does not begin with a zero",
        struct.pack(">bI", 0, 99_999) + good[5:]: "knows no schema of the id 99999",
        struct.pack(">bI", 0, other) + good[5:]: "is JSON, not Avro",
        good[:-1]: "not Avro of its schema",
        good + b"\x00": "the record ends before",
        good[:6] + b"\xff" * 20: "not Avro of its schema",
        wide: "does not fit the type of its schema",
        late: "the field at has a value that does not fit",
    }
    for content in poison:
        topics.send(topic, good, content)
    result = load(lake, source_of(topics, registry, a=table(topic, format="avro", refuse_above="100%")))
    assert result.rows_landed == len(poison) == result.rows_quarantined
    found = dict(quarantined(lake, "file, reasons[1].check"))
    for at, reason in enumerate(poison.values()):
        assert reason in found[f"topic {topic}, partition 0, offset {2 * at + 1}"]
    assert position(lake) == {"a/0": str(2 * len(poison))}


def test_keys_in_avro_are_columns_by_which_tombstones_delete(lake: Lakehouse, topics: Topics, registry: str) -> None:
    topic = topics.make()
    key, value = record({"id": "long"}, "Key"), record({"name": "string"})
    keys, values = registered(registry, f"{topic}-key", key), registered(registry, f"{topic}-value", value)
    plain = registered(registry, f"{topic}-plain-key", '"long"')
    topics.send(topic, written(values, value, {"name": "n"}), None, key=written(keys, key, {"id": 7}))
    declared = table(topic, format="avro", key_format="avro", key=["id"], key_column="id", tombstones="delete")
    source = source_of(topics, registry, a=declared)
    load(lake, source)
    assert rows(lake, "id, name, _key, _operation") == [
        (7, "n", '{"id":7}', "update"),
        (7, None, '{"id":7}', "delete"),
    ]
    topics.send(topic, None, key=written(plain, "long", 8))
    load(lake, source)
    assert rows(lake, "id, _key, _operation")[2:] == [(8, "8", "delete")]


def test_keys_that_are_text_have_the_type_of_the_values_even_before_any_value_came(
    lake: Lakehouse, topics: Topics, registry: str
) -> None:
    topic = topics.make()
    value = record({"id": optional("int"), "name": "string"})
    identity = registered(registry, f"{topic}-value", value)
    declared = table(topic, format="avro", key=["id"], key_column="id", tombstones="delete")
    topics.send(topic, None, key="7")
    load(lake, source_of(topics, registry, a=declared))
    topics.send(topic, written(identity, value, {"id": None, "name": "n"}), key="8")
    load(lake, source_of(topics, registry, a=declared))
    assert rows(lake, "id, typeof(id), name") == [(7, "BIGINT", None), (8, "BIGINT", "n")]


def test_a_registry_that_does_not_answer_is_no_fault_of_the_messages(
    lake: Lakehouse, topics: Topics, registry: str
) -> None:
    topic = topics.make()
    schema = record({"id": "int"})
    content = written(registered(registry, f"{topic}-value", schema), schema, {"id": 1})
    declared = table(topic, format="avro")
    topics.send(topic, content)
    load(lake, source_of(topics, registry, a=declared))
    topics.send(topic, content)
    with pytest.raises(TransientError, match="does not answer"):
        load(lake, source_of(topics, f"http://127.0.0.1:{free_port()}", a=declared))
    with pytest.raises(PlatformError, match=r"answered 404.*Is this its address\?"):
        load(lake, source_of(topics, registry.replace("/apis/ccompat/v7", ""), a=declared))
    for status, kind in ((503, TransientError), (401, PlatformError)):
        with running_api(partial(answer, status)) as api, pytest.raises(kind, match=f"answered {status}"):
            load(lake, source_of(topics, api.url, a=declared))
    with pytest.raises(PlatformError, match="need `registry`"):
        load(lake, topics.source({"a": declared}))
    assert position(lake) == {"a/0": "1"}
    load(lake, source_of(topics, registry, a=declared))
    assert rows(lake, "id") == [1, 1]
    assert lake.connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name ^@ 'quarantine'"
    ).fetchall() == [(0,)]
