"""A process that loads and stages a topic is killed at random instants while a producer writes all along: every
committed message is there once, in order, and what is staged is what the messages make of it."""

import random
import threading
import time

import pytest
from platform_tests import workers
from platform_tests.ingestion.kafka.killed import PARTITIONS, Writing, load_and_stage
from platform_tests.ingestion.kafka.topics import Topics
from platform_tests.kafka_servers import Kafka
from platform_tests.kills import KILLS

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
    instants = random.Random(f"kills {kills} {settings.catalog_is_sqlite}")
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    writer.start()
    loads = 0
    for _ in range(kills):
        worker = workers.start(settings, "consume", kafka.bootstrap, topic)
        until = time.monotonic() + 60
        with open_lakehouse(settings, read_only=True) as lake:
            before = loads
            while loads == before:
                assert worker.poll() is None, "the worker failed by itself"
                assert time.monotonic() < until, "the worker committed nothing"
                time.sleep(0.01)
                loads = ledger.last_landed(lake, "shop", "a")
        time.sleep(instants.uniform(0, 0.7))
        worker.kill()
        worker.wait()
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
