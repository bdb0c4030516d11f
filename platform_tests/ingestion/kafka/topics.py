"""Topics of a test's own on the real broker: made, written to, and loaded into a lakehouse."""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from data_platform.ingestion.kafka.cluster import Cluster
from data_platform.ingestion.kafka.options import KafkaTable
from data_platform.ingestion.kafka.source import Kafka
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.lakehouse.connect import Lakehouse

QUICK = timedelta(seconds=5)


@dataclass
class Topics:
    """Topics of one test, whose names begin with `prefix`."""

    bootstrap: str
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap}, logger=QUIET)
        self.producer = self._producer()

    def _producer(self) -> Producer:
        settings = {"bootstrap.servers": self.bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
        return Producer(settings, logger=QUIET)

    def make(self, name: str = "a", partitions: int = 1, **settings: Any) -> str:
        """A new topic; settings have `_` for a dot. Its full name."""
        topic = f"{self.prefix}.{name}"
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(20)
        return topic

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(20)

    def add_partitions(self, topic: str, total: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, total)])[topic].result(20)
        self.producer = self._producer()  # one that was there before does not know of them yet

    def delete_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """What retention does: messages before an offset are gone."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(20)

    def send(self, topic: str, *values: Any, partition: int = 0, key: Any = None, **options: Any) -> None:
        """Write messages: objects as JSON, bytes and None as they are."""
        for value in values:
            content = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
            self.producer.produce(topic, content, key=key, partition=partition, **options)
        assert self.producer.flush(20) == 0

    def transactions(self) -> Producer:
        """A producer of transactions."""
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "transactional.id": secrets.token_hex(4), "linger.ms": 0},
            logger=QUIET,
        )
        producer.init_transactions(20)
        return producer

    def source(self, tables: Mapping[str, KafkaTable], buffered_kb: int = 32 * 1024, **options: Any) -> Kafka:
        settings = {"queued.max.messages.kbytes": buffered_kb}
        return Kafka("shop", Cluster(self.bootstrap, settings, QUICK), tables, **options)


class _Quiet:
    def log(self, *arguments: Any, **options: Any) -> None:
        """Nothing: what clients of tests say of a broker that they stopped themselves."""


QUIET: Any = _Quiet()


def table(topic: str | None, **options: Any) -> KafkaTable:
    return KafkaTable.model_validate({"topic": topic, "contract": "platform_tests.tables.Order", **options})


def load(lake: Lakehouse, source: Kafka, name: str = "a", **options: Any) -> LoadResult:
    return load_table(lake, "shop", source, name, source.tables[name], run_id="run-1", **options)


def rows(lake: Lakehouse, columns: str, name: str = "a") -> list[Any]:
    found = lake.connection.execute(f"SELECT {columns} FROM raw_shop.{name} ORDER BY _load_id, _row").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def position(lake: Lakehouse, name: str = "a") -> dict[str, str]:
    """The offsets that are next, by partition."""
    query = "SELECT partition, value FROM platform.positions WHERE layer = 'raw' AND table_name = ?"
    found = lake.connection.execute(query, [name]).fetchall()
    return {entry.rpartition(".")[2]: value for entry, value in found if "/" in entry}


def quarantined(lake: Lakehouse, columns: str, name: str = "a") -> list[Any]:
    found = lake.connection.execute(f"SELECT {columns} FROM quarantine_shop.{name} ORDER BY ALL").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def numbers(*given: int) -> Iterable[dict[str, int]]:
    return [{"n": number} for number in given]
