"""Topics that hold Debezium's change events: each is the change of a row, and staged is what the database has."""

import json
from functools import partial
from typing import Any

import pytest
from platform_tests.ingestion.kafka.topics import Topics, load, quarantined, rows, table
from pydantic import ValidationError

from data_platform.contracts import Contract, Field
from data_platform.ingestion.kafka.envelope import PLACEHOLDER
from data_platform.ingestion.kafka.options import KafkaTable
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

events = partial(table, envelope="debezium", key_format="json", key=["id"])


class Row(Contract):
    """A row of a database."""

    id: int
    name: str = Field(nullable=True)
    total: float = Field(nullable=True)


def event(op: str, after: Any = None, before: Any = None) -> dict[str, Any]:
    return {"before": before, "after": after, "op": op, "source": {"ts_ms": 1_700_000_000_123}, "ts_ms": 1}


def row(number: int, name: str | None, total: float) -> dict[str, Any]:
    return {"id": number, "name": name, "total": total}


@pytest.mark.parametrize("with_schema", [False, True])
def test_events_are_changes_and_staged_is_what_the_database_has(
    lake: Lakehouse, topics: Topics, with_schema: bool
) -> None:
    topic = topics.make()
    wrapped = (lambda one: {"schema": {"type": "struct"}, "payload": one}) if with_schema else (lambda one: one)

    def send(number: int, *given: Any) -> None:
        key = json.dumps(wrapped({"id": number})).encode()
        topics.send(topic, *(one if one is None else wrapped(one) for one in given), key=key)

    send(1, event("r", row(1, "one", 1.5)))
    send(2, event("r", row(2, "two", 2)), event("d", before=row(2, "made up", 0)), None)
    send(1, event("u", row(1, PLACEHOLDER, 3)))
    send(3, event("c", row(3, "three", 3)), {"no": "event"}, event("u"))
    source = topics.source({"a": events(topic, refuse_above="100%")})
    load(lake, source)
    assert rows(lake, "_operation, id, name, total, _unchanged, _committed_at IS NULL") == [
        ("insert", "1", "one", "1.5", None, True),
        ("insert", "2", "two", "2", None, True),
        ("delete", "2", None, None, None, False),
        ("update", "1", None, "3", ["name"], False),
        ("insert", "3", "three", "3", None, False),
    ]
    reasons = " ".join(map(str, quarantined(lake, "reasons")))
    assert "it has no `op`" in reasons
    assert "it has no row (`after`)" in reasons
    stage_table(lake, Recipe("shop", "a", ("id",), Row), run_id="run-1")
    staged = "SELECT id, name, total FROM staged_shop.a ORDER BY 1"
    assert lake.connection.execute(staged).fetchall() == [(1, "one", 3.0), (3, "three", 3.0)]
    topics.send(topic, wrapped(event("t")))
    send(4, event("c", row(4, None, 4)), event("m"))
    load(lake, source)
    stage_table(lake, Recipe("shop", "a", ("id",), Row), run_id="run-1")
    assert lake.connection.execute(staged).fetchall() == [(4, None, 4.0)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"format": "text"}, "for values in `json` or `avro`"),
        ({"key_format": "text"}, "needs `key_format: json` or `avro`"),
        ({"tombstones": "delete"}, "`tombstones` is not for"),
    ],
)
def test_options_that_do_not_fit_an_envelope_are_refused(options: dict[str, Any], reason: str) -> None:
    given = {"topic": "a", "contract": "x", "key": ["id"], "envelope": "debezium", "key_format": "json", **options}
    with pytest.raises(ValidationError, match=reason):
        KafkaTable.model_validate(given)
