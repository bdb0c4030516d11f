"""`dp add source` drafts topics of Kafka: what their messages are, their types, and the column that their keys fill."""

import uuid
from pathlib import Path

import pytest
import yaml
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.kafka.test_avro import record, registered, written
from platform_tests.ingestion.kafka.topics import Topics
from platform_tests.kafka_servers import Kafka


def test_topics_are_drafted_by_their_messages_and_staged(
    dp: Dp, package: Path, kafka: Kafka, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", registry)
    topics = Topics(kafka.bootstrap)
    orders, notes, prices = topics.make("orders"), topics.make("notes"), topics.make("prices")
    empty = topics.make("empty")
    for number in range(60):
        value = {"order_id": number % 50, "amount": f"{number}.50", "placed_at": "2026-01-01T00:00:00Z"}
        topics.send(orders, value, key=str(number % 50))
        topics.send(notes, f"note {number}".encode())
    schema = record({"sku": "string", "price": "double"})
    identity = registered(registry, f"{prices}-value", schema)
    topics.send(prices, *(written(identity, schema, {"sku": f"s{n}", "price": n / 2}) for n in range(60)))
    named = [part for topic in (orders, notes, prices, empty) for part in ("--table", topic)]
    name = f"shop_{uuid.uuid4().hex[:6]}"
    done = dp("add", "source", name, "--url", f"kafka://{kafka.bootstrap}", *named)
    assert "has no message yet" in done.stdout + done.stderr
    text = (package / "defs" / name / "defs.yaml").read_text()
    attributes = yaml.safe_load(text)["attributes"]
    assert attributes["bootstrap"] == kafka.bootstrap
    assert attributes["registry"] == {"url": "{{ env.SCHEMA_REGISTRY_URL }}"}
    tables = {table["topic"]: table for table in attributes["tables"].values()}
    assert tables.keys() == {orders, notes, prices}
    drafted = tables[orders]
    assert (drafted["key"], drafted["key_column"], drafted["tombstones"]) == (["order_id"], "order_id", "delete")
    assert (tables[notes]["format"], tables[prices]["format"]) == ("text", "avro")
    contracts = (package / "defs" / name / "contracts.py").read_text()
    assert "order_id: int" in contracts
    assert "price: float" in contracts
    assert "_offset" not in contracts
    _, frames = run(package, name)
    assert {len(frame) for frame in frames.values()} == {50, 60}
