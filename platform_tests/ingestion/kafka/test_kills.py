"""A process that loads and stages a topic is killed at random instants while a producer writes all along: every
committed message is there once, in order, and what is staged is what the messages make of it."""

import threading

import pytest
from platform_tests.ingestion.kafka.killed import PARTITIONS, Writing, load_and_stage
from platform_tests.ingestion.kafka.topics import Topics
from platform_tests.kafka_servers import Kafka
from platform_tests.kills import KILLS, kill_amid_loads

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

CASES = [
    pytest.param("sqlite", 2),
    pytest.param("sqlite", KILLS, marks=pytest.mark.crash),
    pytest.param("postgresql", KILLS, marks=pytest.mark.crash),
]


@pytest.mark.parametrize(("settings", "kills"), CASES, indirect=["settings"])
def test_after_any_number_of_kills_every_message_is_there_once_and_in_order(
    settings: Settings, kafka: Kafka, topics: Topics, kills: int
) -> None:
    topic = topics.make(partitions=PARTITIONS)
    writing = Writing(topics, topic)
    writer = threading.Thread(target=writing.run)
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    kill_amid_loads(settings, kills, "consume", kafka.bootstrap, topic, table="a")
    writing.stopped.set()
    writer.join()
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, kafka.bootstrap, topic)
        query = lake.connection.execute
        for partition in range(PARTITIONS):
            found = query(
                "SELECT id, n, _offset, _operation FROM raw_shop.a WHERE _partition = ? ORDER BY _load_id, _row",
                [partition],
            ).fetchall()
            offsets = [row[2] for row in found]
            assert offsets == sorted(set(offsets)), "in order, and none twice"
            landed = [(int(key), None if n is None else int(n)) for key, n, *_ in found]
            assert landed == writing.sent[partition], "none is missing, and none of an aborted transaction is there"
            assert all((row[3] == "delete") == (row[1] is None) for row in found)
        assert dict(query("SELECT id, n FROM staged_shop.a").fetchall()) == writing.newest()
        assert len(query("SELECT id FROM staged_shop.a").fetchall()) == len(writing.newest())


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_topic_of_changes_that_had_no_message_at_first_is_staged_when_they_come(
    settings: Settings, kafka: Kafka, topics: Topics
) -> None:
    topic = topics.make(partitions=PARTITIONS)
    with open_lakehouse(settings) as lake:
        load_and_stage(lake, kafka.bootstrap, topic)
        topics.send(topic, {"n": 1}, key="7")
        topics.send(topic, {"n": 2}, key="8")
        load_and_stage(lake, kafka.bootstrap, topic)
        topics.send(topic, None, key="7")
        load_and_stage(lake, kafka.bootstrap, topic)
        assert lake.connection.execute("SELECT id, n FROM staged_shop.a").fetchall() == [(8, 2)]
