"""What fails is said in words, soon, and nothing is lost by it: brokers that are not there, refuse, stall or stop."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from platform_tests.ingestion.kafka.topics import QUICK, Topics, load, numbers, position, rows, table
from platform_tests.kafka_servers import PASSWORD, USER, Kafka
from platform_tests.proxy import proxy_to
from platform_tests.servers import free_port

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion import prefetch
from data_platform.ingestion.kafka import positions
from data_platform.ingestion.kafka import source as source_module
from data_platform.ingestion.kafka.cluster import Cluster
from data_platform.ingestion.kafka.positions import Route
from data_platform.ingestion.kafka.source import Kafka as KafkaSource
from data_platform.lakehouse.connect import Lakehouse

SECOND = timedelta(seconds=1)


def source_at(bootstrap: str, topic: str, timeout: timedelta = QUICK, **settings: str) -> KafkaSource:
    names = {key.replace("_", "."): value for key, value in settings.items()}
    return KafkaSource("shop", Cluster(bootstrap, names, timeout), {"a": table(topic)}, SECOND)


def error_of(source: KafkaSource, within: float = 8) -> PlatformError:
    """What a reading and a probe fail with, alike."""
    errors = []
    for attempt in (lambda: source.probe(["a"], {}), lambda: source.reading(["a"], {}).__enter__()):
        began = time.monotonic()
        with pytest.raises(PlatformError) as failed:
            attempt()
        assert time.monotonic() - began < within
        errors.append(failed.value)
    assert type(errors[0]) is type(errors[1])
    return errors[1]


def test_a_broker_that_is_not_there_is_said_within_the_timeout() -> None:
    error = error_of(source_at(f"127.0.0.1:{free_port()}", "t", SECOND), within=3)
    assert isinstance(error, TransientError)
    assert "did not answer within 1 s" in str(error)
    assert "Connection refused" in str(error)


def test_an_address_that_nothing_resolves_is_said() -> None:
    error = error_of(source_at("nowhere.invalid:9092", "t", SECOND), within=3)
    assert "nowhere.invalid" in str(error)
    assert "resolve" in str(error)


def test_a_broker_that_accepts_and_never_answers_holds_nobody_up(topics: Topics) -> None:
    with proxy_to(f"kafka://{topics.bootstrap}") as proxy:
        proxy.stall()
        error = error_of(source_at(proxy.url.removeprefix("kafka://"), "t", SECOND), within=3)
    assert isinstance(error, TransientError)
    assert "did not answer within 1 s" in str(error)


def test_a_topic_that_does_not_exist_is_named_beside_those_that_do(topics: Topics) -> None:
    there = topics.make("orders")
    source = topics.source({"a": table(f"{topics.prefix}.oders"), "b": table(there)})
    found = source.probe(["a", "b"], {})
    assert found["b"].changes.keys() == {there, f"{there}/0"}
    assert f"the topic {topics.prefix}.oders does not exist" in str(found["a"].failure)
    with pytest.raises(PlatformError, match=r"does not exist at .*It has: ") as failed, source.reading(["a"], {}):
        pass
    assert not isinstance(failed.value, TransientError)
    nothing = topics.source({"a": table(None, pattern="nothing-.*")})
    with pytest.raises(PlatformError, match="no topic matches nothing-"), nothing.reading(["a"], {}):
        pass


@pytest.fixture
def ours(kafka: Kafka) -> Kafka:
    """The broker, if it is ours: with listeners that ask for more."""
    if kafka.folder is None:
        pytest.skip("KAFKA_BOOTSTRAP names the broker: how it is reached is its owner's")
    return kafka


def secured(ours: Kafka, topic: str, password: str) -> KafkaSource:
    login = {"sasl_mechanism": "PLAIN", "sasl_username": USER, "sasl_password": password}
    return source_at(ours.secured, topic, QUICK, security_protocol="SASL_PLAINTEXT", **login)


def test_wrong_credentials_are_refused_at_once_and_right_ones_read(
    lake: Lakehouse, ours: Kafka, topics: Topics
) -> None:
    topic = topics.make()
    topics.send(topic, *numbers(1))
    error = error_of(secured(ours, topic, "wrong-password"), within=4)
    assert not isinstance(error, TransientError)
    assert "does not take these credentials" in str(error)
    assert "wrong-password" not in str(error)
    assert load(lake, secured(ours, topic, PASSWORD)).rows_landed == 1


def test_a_certificate_that_nobody_vouches_for_is_refused_and_a_known_one_taken(
    lake: Lakehouse, ours: Kafka, topics: Topics
) -> None:
    topic = topics.make()
    topics.send(topic, *numbers(1))
    error = error_of(source_at(ours.encrypted, topic, security_protocol="SSL"), within=4)
    assert "TLS failed" in str(error)
    assert "ssl.ca.location" in str(error)
    known = source_at(ours.encrypted, topic, security_protocol="SSL", ssl_ca_location=str(ours.certificate))
    assert load(lake, known).rows_landed == 1
    plain = error_of(source_at(ours.encrypted, topic, SECOND), within=4)
    assert "did not answer" in str(plain)


def test_a_setting_that_the_client_does_not_know_is_named(kafka: Kafka) -> None:
    error = error_of(source_at(kafka.bootstrap, "t", sasl_pasword="x"))
    assert 'No such configuration property: "sasl.pasword"' in str(error)


def test_a_broker_that_falls_silent_ends_the_load_and_what_came_before_is_kept(
    lake: Lakehouse, ours: Kafka, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 1_000)
    topic = topics.make(partitions=2)
    for partition in range(2):
        topics.send(topic, *({"n": n, "text": "x" * 1000} for n in range(20_000)), partition=partition)
    with proxy_to(f"kafka://127.0.0.1:{ours.behind_proxy}", ours.proxied) as proxy:
        source = source_at(f"127.0.0.1:{ours.proxied}", topic)
        proxy.stall_after = 8 * 2**20
        with pytest.raises(TransientError, match=r"sent nothing for 1 s \(`idle_timeout`\).*the next load goes on"):
            load(lake, source)
        kept = len(rows(lake, "n"))
        assert 0 < kept < 40_000
        assert sum(map(int, position(lake).values())) == kept
        proxy.stall_after = None
        load(lake, source)
    found = rows(lake, "_partition, _offset")
    assert len(found) == len(set(found)) == 40_000


def test_a_broker_that_stops_and_comes_back_is_waited_for(
    lake: Lakehouse, ours: Kafka, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 1_000)
    topic = topics.make()
    topics.send(topic, *({"n": n, "text": "x" * 1000} for n in range(60_000)))
    source = topics.source({"a": table(topic)}, idle_timeout=timedelta(seconds=60))
    stopped = threading.Event()

    def progress(read: int) -> None:
        if read and not stopped.is_set():
            stopped.set()
            ours.kill()
            threading.Thread(target=ours.start).start()

    load(lake, source, progress=progress)
    assert stopped.is_set()
    assert rows(lake, "_offset") == list(range(60_000))


def test_messages_that_retention_takes_while_they_are_read_are_refused(
    lake: Lakehouse, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 1_000)
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 2**20)
    topic = topics.make()
    topics.send(topic, *({"n": n, "text": "x" * 1000} for n in range(50_000)))
    source = topics.source({"a": table(topic)}, buffered_kb=1024)
    deleted = threading.Event()

    def progress(read: int) -> None:
        if read and not deleted.is_set():
            deleted.set()
            topics.delete_before(topic, 49_000)

    with pytest.raises(PlatformError, match=rf"are gone from Kafka \({topic}/0: \d+..48999\)"):
        load(lake, source, progress=progress)
    assert rows(lake, "_offset") == list(range(int(position(lake)["a/0"])))


def test_retention_before_anything_was_read_is_no_loss(
    lake: Lakehouse, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics.make(partitions=2)
    topics.send(topic, *numbers(*range(10)))
    topics.send(topic, *numbers(*range(10, 20)), partition=1)

    def route(*arguments: Any) -> Route:
        way = positions.route(*arguments)
        topics.delete_before(topic, 4)
        topics.delete_before(topic, 10, partition=1)
        return way

    monkeypatch.setattr(source_module, "route", route)
    load(lake, topics.source({"a": table(topic)}))
    assert rows(lake, "n") == ["4", "5", "6", "7", "8", "9"]
    assert position(lake) == {"a/0": "10", "a/1": "10"}
