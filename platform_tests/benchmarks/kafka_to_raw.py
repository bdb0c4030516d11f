"""Kafka to raw: a topic of JSON objects and one of Avro, by our load beside a bare consumer, which only takes the
messages and looks at none of them. How they are timed is `measure`'s work; a message's time is for its CPU seconds.
"""

import io
import json
import secrets
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import requests
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale
from platform_tests.kafka_servers import kafka_can_run, registry_can_run, running_kafka, running_registry

from data_platform.ingestion.kafka.cluster import Cluster
from data_platform.ingestion.kafka.options import KafkaTable, Registry
from data_platform.ingestion.kafka.source import Kafka
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse

HERE = "platform_tests.benchmarks.kafka_to_raw"
PARTITIONS = 4
AT_ONCE = 10_000

SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def kafka_json(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """Objects of four fields, in four partitions."""
    if kafka_can_run():
        with running_kafka() as server:
            yield _topic("kafka_json", "JSON", scale.kafka, server.bootstrap, None, scratch, scale.repeats, say)


def kafka_avro(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """The same records in Avro."""
    if kafka_can_run() and registry_can_run():
        with running_kafka() as server, running_registry() as registry:
            rows = scale.kafka // 4
            yield _topic("kafka_avro", "Avro", rows, server.bootstrap, registry, scratch, scale.repeats, say)


def _topic(
    benchmark: str, name: str, rows: int, bootstrap: str, registry: str | None, scratch: Path, repeats: int, say: Say
) -> Row:
    given = {"bootstrap": bootstrap, "topic": f"b{secrets.token_hex(4)}", "registry": registry}
    say("writing the topic")
    prepare(f"{HERE}:write", scratch, rows=rows, **given)
    cases = {"ours": Case(f"{HERE}:ours", given), "bare": Case(f"{HERE}:bare", given)}
    measured = measure(cases, scratch, repeats, say)
    wrong = {which: taken.rows for which, taken in measured.items() if taken.rows != rows}
    assert not wrong, f"{rows} messages were written, but these read others: {wrong}"
    what = f"Kafka, {name}, {rows:,} messages, {rows / measured['ours'].cpu:,.0f} a CPU second"
    return Row(benchmark, what, measured["ours"], f"a bare consume({AT_ONCE})", measured["bare"])


def write(folder: str, bootstrap: str, topic: str, registry: str | None, rows: int) -> Callable[[], int]:
    """Fill the topic."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(20)
    settings = {"linger.ms": 50, "batch.num.messages": 50_000, "compression.type": "lz4"}
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000, **settings})
    encode = _json if registry is None else _avro(registry, topic)

    def timed() -> int:
        for number in range(rows):
            if number % 50_000 == 0:
                producer.flush(60)
            value = {
                "id": number,
                "name": f"n{number % 1000}",
                "amount": number * 1.5,
                "at": 1_767_225_600_000 + number,
            }
            producer.produce(topic, encode(value), key=str(number), partition=number % PARTITIONS)
        assert producer.flush(60) == 0
        return rows

    return timed


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _avro(registry: str, topic: str) -> Callable[[dict[str, Any]], bytes]:
    subject = f"{registry}/subjects/{topic}-value/versions"
    answer = requests.post(subject, json={"schema": json.dumps(SCHEMA)}, timeout=30)
    header, schema = struct.pack(">bI", 0, answer.json()["id"]), fastavro.parse_schema(SCHEMA)

    def encode(value: dict[str, Any]) -> bytes:
        stream = io.BytesIO()
        stream.write(header)
        fastavro.schemaless_writer(stream, schema, value)
        return stream.getvalue()

    return encode


def ours(folder: str, bootstrap: str, topic: str, registry: str | None) -> Callable[[], int]:
    """Our load into a lakehouse, opened and closed: each message with its key, place and time."""
    settings = lakehouse_in(folder)
    form = "json" if registry is None else "avro"
    table = KafkaTable.model_validate({"topic": topic, "format": form, "contract": "x.Order"})
    place = None if registry is None else Registry(url=registry)
    source = Kafka("shop", Cluster(bootstrap), {"orders": table}, registry=place)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            return load_table(lake, "shop", source, "orders", table, run_id="benchmark").rows_landed

    return timed


def bare(folder: str, bootstrap: str, topic: str, registry: str | None) -> Callable[[], int]:
    """Take all messages, and do nothing with them."""
    settings = {"isolation.level": "read_committed", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare", **settings})

    def timed() -> int:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        rows = ended = 0
        while ended < PARTITIONS:
            for message in consumer.consume(AT_ONCE, 0.5):
                error = message.error()
                if error is None:
                    rows += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise RuntimeError(error.str())
        consumer.close()
        return rows

    return timed
