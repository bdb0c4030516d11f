"""What becomes of what the engine prints, where no database that runs here shows it: transactions whose end is told
late, records of schemas that come again, silence."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from platform_tests.ingestion.debezium.shop import TABLES

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.debezium.protocol import UNAVAILABLE
from data_platform.ingestion.debezium.reading import DebeziumReading, Limits, Ways
from data_platform.ingestion.source import Batch

SHAPE = ["schema", 1, "ERP", "dbo", "t", "", ["id"], ["id", "total"], []]
CAPTURED = ["ERP.dbo.t", "ERP.dbo.u"]
END = ["status", True, True, CAPTURED, ""]
AFTER = {'offset {"server":"x"}': "1", "order": "7", "copied t": "done", "copied u": "done"}


def row(op: str, number: int, key: Any = None, values: Any = None) -> list[Any]:
    return ["row", 1, op, 1000 * number, key, values]


class Printed:
    """An engine that has printed something."""

    def __init__(self, *messages: list[Any]) -> None:
        self.given, self.told = messages, [""]

    def messages(self) -> Iterator[list[Any]]:
        yield from self.given

    def tell(self, text: str) -> None:
        self.told.append(text)


def reading(
    *messages: list[Any], after: Mapping[str, str] = AFTER, late: bool = True, idle: float = 60
) -> DebeziumReading:
    tables = {name: (f"dbo.{name}", table) for name, table in TABLES.items()}
    engine: Any = Printed(*messages)
    return DebeziumReading(engine, "erp", tables, after, {}, Limits(60, idle), Ways(late, truncates_alone=False))


def changes(batches: list[Batch]) -> list[tuple[Any, ...]]:
    return [
        (batch.table, *one.values())
        for batch in batches
        for one in batch.rows.drop_columns("_committed_at").to_pylist()
    ]


def position(batches: list[Batch]) -> dict[str, str]:
    moved: dict[str, str] = {}
    for batch in batches:
        moved |= batch.position or {}
    return moved


def test_a_transaction_whose_end_is_told_late_ends_with_silence_and_where_it_is_told_it_is_waited_for() -> None:
    messages: list[list[Any]] = [
        SHAPE,
        ["begin"],
        row("c", 1, ["1"], ["1", "5"]),
        ["rest", 3, '{"server":"x"}', "2"],
        END,
    ]
    batches = list(reading(*messages))
    assert changes(batches) == [("t", "insert", 8, None, "1", "5")]
    assert position(batches) == {'offset {"server":"x"}': "2", "order": "8"}
    # Its end may still come: nothing of it lands before.
    unfinished = list(reading(*messages, late=False))
    assert (changes(unfinished), position(unfinished)) == ([], {})
    finished = list(reading(*messages, ["end", 4, '{"server":"x"}', "3"], END, late=False))
    assert position(finished)['offset {"server":"x"}'] == "3"


def test_heartbeats_within_a_transaction_move_nothing_and_an_acknowledgement_names_the_last_position() -> None:
    engine = reading(
        SHAPE,
        ["heartbeat", 1, '{"server":"x"}', "2"],
        ["begin"],
        row("u", 1, ["1"], ["1", UNAVAILABLE]),
        ["heartbeat", 2, '{"server":"x"}', "within"],
        row("d", 1, ["1"], None),
        ["end", 3, '{"server":"x"}', "4"],
        END,
    )
    batches = list(engine)
    assert changes(batches) == [("t", "update", 8, ["total"], "1", None), ("t", "delete", 9, None, "1", None)]
    assert position(batches)['offset {"server":"x"}'] == "4"
    engine.committed(position(batches))
    assert engine._engine.told[-1] == "ack 3"  # type: ignore[attr-defined]


def test_records_of_schemas_are_added_once_whenever_the_log_is_read_again() -> None:
    record = '{"position":{"file":"a","pos":4},"ts_ms":%d,"databaseName":"ERP","ddl":"ALTER TABLE t","tableChanges":[]}'
    after = {**AFTER, "history 000001": record % 1}
    messages: list[list[Any]] = [
        ["history", record % 2],
        ["history", '{"ddl":"ALTER TABLE u"}'],
        ["heartbeat", 1, '{"server":"x"}', "2"],
        END,
    ]
    assert [entry for entry in position(list(reading(*messages, after=after))) if entry.startswith("history")] == [
        "history 000002"
    ]


def test_a_first_copy_has_no_position_before_it_is_known_which_tables_it_has() -> None:
    copied: list[list[Any]] = [SHAPE, ["row", 1, "r", None, ["1"], ["1", "5"]], ["heartbeat", 1, '{"server":"x"}', "2"]]
    batches = list(reading(*copied, END, after={}))
    assert position(batches) == {'offset {"server":"x"}': "2", "order": "1", "copied t": "done", "copied u": "done"}
    with pytest.raises(PlatformError, match=r"no table dbo\.u"):
        list(reading(*copied, ["status", True, True, CAPTURED[:1], ""], after={}))


def test_a_delete_without_a_key_and_silence_are_errors() -> None:
    with pytest.raises(PlatformError, match=r"no primary key .*message\.key\.columns"):
        list(reading(SHAPE, ["begin"], row("d", 1), END))
    with pytest.raises(TransientError, match=r"nothing came from Debezium .*idle_timeout"):
        list(reading(["status", True, False, CAPTURED, ""], idle=-1))
