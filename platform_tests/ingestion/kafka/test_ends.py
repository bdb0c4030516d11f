"""Whatever the order in which ends and messages of partitions are told: the position is after every message that was
given, and before every one that is still to come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.ingestion.kafka.topics import table

from data_platform.ingestion.kafka import source as source_module
from data_platform.ingestion.kafka.cluster import Cluster, Connection, Noted
from data_platform.ingestion.kafka.messages import Index, Reader
from data_platform.ingestion.kafka.positions import Route
from data_platform.ingestion.kafka.source import Kafka, TopicsReading
from data_platform.ingestion.kafka.values import Json, TextKey

PARTITIONS = [("t", 0), ("t", 1)]


@dataclass
class Told:
    """In the place of a consumer: what it is told, some at once."""

    chunks: list[list[Message]]
    paused: list[TopicPartition] = field(default_factory=list)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """As said."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused += partitions

    def consume(self, most: int, seconds: float) -> list[Message]:
        return self.chunks.pop(0)


def message(partition: int, offset: int, *, is_end: bool) -> Message:
    if is_end:
        return Message("t", partition, offset, error=KafkaError(KafkaError._PARTITION_EOF))
    return Message("t", partition, offset, None, b'{"n": 1}', timestamp=(1, 0))


events = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3), st.booleans()), max_size=20)


@given(events, st.lists(st.integers(1, 5), min_size=1))
def test_a_position_is_after_what_came_and_before_what_comes(
    told: list[tuple[int, int, bool]], sizes: list[int]
) -> None:
    following, script = [0, 0], list[tuple[int, int, bool]]()
    for partition, step, is_end in told:
        # Offsets have gaps; an end is told at the offset that comes next, and more may come later.
        offset = following[partition] + step - 1
        script.append((partition, offset, is_end))
        following[partition] = offset + (not is_end)
    ends = [(partition, following[partition] + 1, True) for partition in (0, 1)]
    left, chunks = [message(p, o, is_end=e) for p, o, e in [*script, *ends]], list[list[Message]]()
    while left:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(left[:size])
        left = left[size:]
    way = Route(dict.fromkeys(PARTITIONS, 0), {one: following[one[1]] + 1 for one in PARTITIONS}, {})
    declared = table("t")
    reader = Reader(declared, Json(10), TextKey(None), PARTITIONS)
    consumer: Any = Told(chunks)
    source = Kafka("s", Cluster("b"), {"t": declared})
    unasked = cast(Connection, None)  # topics without an id cannot be told from others
    reading = TopicsReading(
        source, unasked, cast(Consumer, consumer), Noted(), "t", {}, way, reader, Index(PARTITIONS), {}
    )
    position, given_offsets = {"t/0": 0, "t/1": 0}, list[tuple[int, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BATCH_SECONDS", 0)  # each chunk is a batch
        batches = list(reading)
    for batch in batches:
        position |= {name: int(value) for name, value in (batch.position or {}).items()}
        if batch.rows.num_rows:
            given_offsets += zip(batch.rows["_partition"].to_pylist(), batch.rows["_offset"].to_pylist(), strict=True)
        assert all(offset < position[f"t/{partition}"] for partition, offset in given_offsets)
        coming = [(p, o) for p, o, is_end in script if not is_end and (p, o) not in given_offsets]
        assert all(offset >= position[f"t/{partition}"] for partition, offset in coming)
    assert position == {f"t/{partition}": following[partition] + 1 for partition in (0, 1)}
    assert {(one.topic, one.partition) for one in consumer.paused} == set(PARTITIONS)
