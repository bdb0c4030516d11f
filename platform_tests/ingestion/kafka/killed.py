"""What a process does that is killed again and again, and the producer that writes all along."""

import json
import random
import threading
from collections import defaultdict
from dataclasses import dataclass, field

from platform_tests.ingestion.kafka.topics import Topics, table

from data_platform.contracts import Contract, Field
from data_platform.ingestion.kafka.options import KafkaTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

PARTITIONS, KEYS = 3, 40


class Item(Contract):
    """The newest value of a key."""

    id: int = Field(ge=0, lt=KEYS)
    n: int = Field(ge=0)


RECIPE = Recipe("shop", "a", ("id",), Item)


def declared(topic: str) -> KafkaTable:
    return table(topic, key=["id"], key_column="id", tombstones="delete")


def load_and_stage(lake: Lakehouse, bootstrap: str, topic: str) -> None:
    source = Topics(bootstrap).source({"a": declared(topic)})
    load_table(lake, "shop", source, "a", source.tables["a"], run_id="killed")
    stage_table(lake, RECIPE, run_id="killed")


@dataclass
class Writing:
    """Writes transactions until it is told to stop; every fourth is aborted. `sent` is what was committed in each
    partition, in order: keys, and numbers or None for a tombstone."""

    topics: Topics
    topic: str
    sent: dict[int, list[tuple[int, int | None]]] = field(default_factory=lambda: defaultdict(list))
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        chance, number = random.Random(self.topic), 0
        producer = self.topics.transactions()
        while not self.stopped.wait(0.005):
            written: list[tuple[int, int | None]] = []
            producer.begin_transaction()
            for _ in range(chance.randint(1, 8)):
                key, number = chance.randrange(KEYS), number + 1
                value = number if chance.random() < 0.8 else None
                content = None if value is None else json.dumps({"n": value})
                producer.produce(self.topic, content, key=str(key), partition=key % PARTITIONS)
                written.append((key, value))
            if chance.random() < 0.25:
                producer.abort_transaction(20)
                continue
            producer.commit_transaction(20)
            for key, value in written:
                self.sent[key % PARTITIONS].append((key, value))

    def newest(self) -> dict[int, int]:
        """What is to be staged."""
        newest: dict[int, int | None] = dict(pair for pairs in self.sent.values() for pair in pairs)
        return {key: value for key, value in newest.items() if value is not None}
