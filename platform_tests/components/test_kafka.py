"""The component `KafkaSource`: from its `defs.yaml` to staged rows, what its sensor asks for, and what it says of
mistakes."""

import subprocess
import sys
import threading
import time

import dagster as dg
import pytest
from platform_tests.components.shop import Shop, failures, materialized, names_of
from platform_tests.ingestion.kafka.topics import Topics
from platform_tests.kafka_servers import PASSWORD, USER, Kafka
from platform_tests.servers import free_port

from data_platform.components.kafka import KafkaSourceOptions
from data_platform.components.mistakes import mistakes_in
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.tables import column_types, staged_table

DEFS = """
type: data_platform.components.KafkaSource
attributes:
  bootstrap: "{{{{ env.KAFKA }}}}"
  settings: {settings}
  connect_timeout: 2s
  tables:
    pallets:
      topic: {topic}
      key: [pallet]
      key_column: pallet
      tombstones: delete
      contract: {name}.defs.shop.contracts.Pallet
    others:
      pattern: {prefix}\\.others-.*
      contract: {name}.defs.shop.contracts.Pallet
"""

PATIENCE = 10.0
"""Seconds from a message to its staged row at most, on a machine that has other work: 3 where it has none."""

BOTH = ["raw/yard/pallets", "staged/yard/pallets"]


def yard(shop: Shop, topics: Topics, settings: str = "{}") -> str:
    """A source `yard` beside the others of the shop; its topic."""
    folder = shop.package / "defs" / "yard"
    folder.mkdir()
    (folder / "__init__.py").touch()
    topic = f"{topics.prefix}.pallets"
    text = DEFS.format(name=shop.name, topic=topic, prefix=topics.prefix, settings=settings)
    (folder / "defs.yaml").write_text(text)
    return topic


def seen(shop: Shop) -> list[tuple[object, ...]]:
    """What is staged so far, to a reader of the lakehouse."""
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        there = column_types(lake.connection, staged_table("yard", "pallets"))
        return lake.connection.execute("SELECT pallet, sku FROM staged_yard.pallets").fetchall() if there else []


def staged(shop: Shop) -> list[tuple[object, ...]]:
    return shop.query("SELECT pallet, sku FROM staged_yard.pallets ORDER BY ALL")


def test_messages_are_staged_by_key_tombstones_delete_and_the_sensor_asks_for_what_is_new(
    shop: Shop, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA", kafka.bootstrap)
    topics = Topics(kafka.bootstrap)
    topic = yard(shop, topics)
    topics.make("pallets", partitions=2)
    topics.make("others-1")
    for key, partition in ((1, 0), (2, 1), (3, 1)):
        topics.send(topic, {"sku": "tea"}, key=str(key), partition=partition)
    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection)[:2] == BOTH
    assert shop.follow(request).success
    assert staged(shop) == [(1, "tea"), (2, "tea"), (3, "tea")]
    assert shop.tick("yard_sensor") == "Nothing new in pallets, others."
    topics.send(topic, None, {"sku": "mug"}, None, key="1", partition=0)
    topics.send(topic, {"sku": "pen"}, None, {"sku": "cup"}, key="2", partition=1)
    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection) == BOTH
    assert shop.follow(request).success
    assert staged(shop) == [(2, "cup"), (3, "tea")]


def test_a_key_that_moved_because_partitions_were_added_keeps_its_newest_version(
    shop: Shop, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA", kafka.bootstrap)
    topics = Topics(kafka.bootstrap)
    topic = yard(shop, topics)
    topics.make("pallets")
    for sku in ("a", "b", "c", "d"):
        topics.send(topic, {"sku": sku}, key="1")
    shop.run(*BOTH)
    topics.add_partitions(topic, 2)
    topics.send(topic, {"sku": "e"}, key="1", partition=1)
    shop.run(*BOTH)
    assert staged(shop) == [(1, "e")]
    topics.send(topic, None, key="1", partition=1)
    shop.run(*BOTH)
    assert staged(shop) == []


def test_a_broker_that_does_not_answer_fails_the_tick_and_the_run_soon_and_in_words(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA", f"127.0.0.1:{free_port()}")
    yard(shop, Topics("127.0.0.1:1"))
    began = time.monotonic()
    with pytest.raises(dg.Failure, match=r"did not answer within 2 s.*Connection refused"):
        shop.tick("yard_sensor")
    assert time.monotonic() - began < 6
    (reason,) = failures(shop.run("raw/yard/pallets")).values()
    assert "did not answer within 2 s" in reason


def test_passwords_come_from_the_environment_and_are_in_no_message(
    shop: Shop, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kafka.folder is None:
        pytest.skip("KAFKA_BOOTSTRAP names the broker: how it is reached is its owner's")
    login = f"security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: {USER}"
    topics = Topics(kafka.bootstrap)
    topic = yard(shop, topics, f'{{{login}, sasl.password: "{{{{ env.KAFKA_PASS }}}}"}}')
    topics.make("pallets")
    topics.send(topic, {"sku": "tea"}, key="1")
    monkeypatch.setenv("KAFKA", kafka.secured)
    monkeypatch.setenv("KAFKA_PASS", "not-the-right-one")
    (reason,) = failures(shop.run("raw/yard/pallets")).values()
    assert "does not take these credentials" in reason
    assert "not-the-right-one" not in reason
    monkeypatch.setenv("KAFKA_PASS", PASSWORD)
    assert shop.run(*BOTH).success
    monkeypatch.delenv("KAFKA_PASS")
    (reason,) = failures(shop.run("raw/yard/pallets")).values()
    assert "settings.sasl.password needs the environment variable KAFKA_PASS" in reason


MISTAKES = {
    "enable.auto.commit cannot be set": ("{}", "enable.auto.commit: true"),
    "`sasl.password` is a secret: take it from the environment": ("{}", "sasl.password: hunter2-hunter2"),
    "name either a `topic` or a `pattern`": ("topic: TOPIC", ""),
    "is no regular expression": ("others-.*", "others-["),
    "is no name of a topic": ("topic: TOPIC", "topic: a b"),
    "needs `key_column`": ("key_column: pallet", ""),
    "needs a `key`": ("key: [pallet]", ""),
    "`_key` holds what is masked": ("key_column: pallet", "key_column: pallet\n      mask: [pallet]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_in_words(shop: Shop, mistake: str) -> None:
    topics = Topics("127.0.0.1:1")
    topic = yard(shop, topics)
    file = shop.package / "defs" / "yard" / "defs.yaml"
    old, new = MISTAKES[mistake]
    new = f"{{{new}}}" if old == "{}" else new
    file.write_text(file.read_text().replace(old.replace("TOPIC", topic), new, 1))
    (found,) = mistakes_in(file)
    assert mistake in found
    assert "hunter2" not in found


def test_a_client_that_is_not_installed_is_named_with_what_to_install(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA", "127.0.0.1:1")
    yard(shop, Topics("127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    (reason,) = failures(shop.run("raw/yard/pallets")).values()
    assert "pip install 'data-platform[kafka]'" in reason


def test_definitions_load_without_the_client() -> None:
    code = "import sys, data_platform.components; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_are_settings_too() -> None:
    given = {"bootstrap": "b", "settings": {"fetch.max.bytes": 100}, "tables": {"t": {"topic": "t", "contract": "c"}}}
    assert KafkaSourceOptions.model_validate(given).settings == {"fetch.max.bytes": 100}


def test_a_table_that_is_followed_is_staged_within_seconds_of_its_messages_in_a_run_of_its_own(
    shop: Shop, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA", kafka.bootstrap)
    topics = Topics(kafka.bootstrap)
    topic = yard(shop, topics)
    file = shop.package / "defs" / "yard" / "defs.yaml"
    file.write_text(file.read_text().replace("      tombstones:", "      follow: 10m\n      tombstones:"))
    topics.make("pallets")
    topics.send(topics.make("others-1"), {"pallet": 1, "sku": "tea"})
    topics.send(topic, {"sku": "0"}, key="0")
    (sensor,) = [one for one in shop.definitions.sensors or () if one.name == "yard_sensor"]
    assert isinstance(sensor, dg.SensorDefinition)
    with dg.build_sensor_context(instance=shop.instance) as context:
        others, request = sensor.evaluate_tick(context).run_requests or ()
    assert names_of(others.asset_selection) == ["raw/yard/others", "staged/yard/others"]
    assert names_of(request.asset_selection) == BOTH
    shop.query("SELECT 1")  # the lakehouse is there before it is looked at
    result: list[dg.ExecuteInProcessResult] = []
    run = threading.Thread(target=lambda: result.append(shop.follow(request)))
    run.start()
    delays: list[float] = []
    for number in range(3):
        sent = time.monotonic()
        if number:
            topics.send(topic, {"sku": str(number)}, key=str(number))
        while (number, str(number)) not in seen(shop):
            assert run.is_alive(), (number, delays, failures(result[0]) if result else "no result")
            time.sleep(0.05)
        delays.append(time.monotonic() - sent)
    assert max(delays[1:]) < PATIENCE, delays
    # A staging step that is refused ends it: nothing that comes later would be staged either.
    topics.send(topic, {"sku": None}, key="3")
    run.join(60)
    (reason,) = failures(result[0]).values()
    assert "sku" in reason
    metadata = materialized(result[0])
    assert metadata.keys() == {"raw/yard/pallets"}
    assert metadata["raw/yard/pallets"]["rows landed"] == 4
    assert staged(shop) == [(0, "0"), (1, "1"), (2, "2")]
    assert shop.query("SELECT count(DISTINCT _load_id) FROM raw_yard.pallets") == [(4,)]
