"""Which messages are read, and from where: every committed message once, whatever offsets are none, and nothing that is
gone is passed over in silence."""

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from platform_tests.ingestion.kafka.topics import Topics, load, numbers, position, rows, table
from platform_tests.ingestion.reading import probe

from data_platform.errors import PlatformError
from data_platform.ingestion.kafka import source as source_module
from data_platform.lakehouse.connect import Lakehouse

COMPACTED: dict[str, Any] = {
    "cleanup_policy": "compact",
    "segment_ms": 100,
    "min_cleanable_dirty_ratio": 0.01,
    "delete_retention_ms": 100,
    "min_compaction_lag_ms": 0,
    "max_compaction_lag_ms": 100,
}
"""A topic that is compacted at once."""


def test_messages_land_with_their_place_and_only_new_ones_come_later(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make(partitions=2)
    source = topics.source({"a": table(topic)})
    topics.send(topic, {"id": 1, "deep": {"x": [1.50, None]}, "é": "ü"}, key="k1", headers=[("h", b"1"), ("h", None)])
    topics.send(topic, {"id": 2}, partition=1, timestamp=1_700_000_000_000)
    load(lake, source)
    assert sorted(rows(lake, "id, deep, é, _key, _partition, _offset, _headers")) == [
        ("1", '{"x": [1.5, null]}', "ü", "k1", 0, 0, '[["h","1"],["h",null]]'),
        ("2", None, None, None, 1, 0, None),
    ]
    assert set(rows(lake, "_topic")) == {topic}
    (at,) = lake.connection.execute("SELECT _timestamp FROM raw_shop.a WHERE id = '2'").fetchall()[0]
    assert at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert position(lake) == {"a/0": "1", "a/1": "1"}
    assert load(lake, source).loads == ()
    topics.send(topic, {"id": 3}, partition=1)
    assert load(lake, source).rows_landed == 1
    assert position(lake) == {"a/0": "1", "a/1": "2"}


def test_aborted_transactions_are_not_read_and_open_ones_not_until_they_are_committed(
    lake: Lakehouse, topics: Topics
) -> None:
    topic = topics.make()
    source = topics.source({"a": table(topic)})
    producer = topics.transactions()

    def transaction(*given: int) -> None:
        producer.begin_transaction()
        for value in numbers(*given):
            producer.produce(topic, json.dumps(value))
        producer.flush(20)

    transaction(1, 2)
    producer.commit_transaction(20)
    transaction(-1, -2)
    producer.abort_transaction(20)
    transaction(3)
    producer.commit_transaction(20)
    transaction(4, 5)
    load(lake, source)
    assert rows(lake, "n") == ["1", "2", "3"]
    # 2 rows, a marker, 2 aborted, a marker, 1 row, a marker: the ends of transactions have offsets too.
    assert position(lake) == {"a/0": "8"}
    assert probe(source, "a", {topic: "?", f"{topic}/0": "8"}).keys() == {topic}
    assert load(lake, source).loads == ()
    producer.commit_transaction(20)
    load(lake, source)
    assert rows(lake, "n") == ["1", "2", "3", "4", "5"]
    assert position(lake) == {"a/0": "11"}


def test_a_topic_that_ends_in_an_aborted_transaction_is_read_to_its_end(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    source = topics.source({"a": table(topic)})
    topics.send(topic, *numbers(1))
    producer = topics.transactions()
    producer.begin_transaction()
    producer.produce(topic, b'{"n": -1}')
    producer.flush(20)
    producer.abort_transaction(20)
    load(lake, source)
    assert position(lake) == {"a/0": "3"}
    assert load(lake, source).loads == ()


def test_offsets_that_compaction_took_away_are_no_loss(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make(**COMPACTED)
    source = topics.source({"a": table(topic)})
    topics.send(topic, {"n": 0}, key="same")
    load(lake, source)
    for n in range(1, 4):
        topics.send(topic, {"n": n}, key="same")
    full, sent, there = topics.source({"b": table(topic)}), 4, 4
    while there == sent < 100:
        time.sleep(0.3)
        topics.send(topic, {"n": 99}, key="other")
        sent, there = sent + 1, load(lake, full, "b", full_refresh=True).rows_landed
    assert there < sent, "the broker did not compact"
    load(lake, source)
    assert position(lake) == {"a/0": str(sent)}
    assert len(rows(lake, "n")) < sent
    assert load(lake, source).loads == ()


def test_partitions_that_are_added_are_read_from_their_beginning(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    source = topics.source({"a": table(topic, start="latest")})
    topics.send(topic, *numbers(1))
    assert load(lake, source).rows_landed == 0
    topics.add_partitions(topic, 3)
    topics.send(topic, *numbers(2, 3), partition=2)
    load(lake, source)
    assert rows(lake, "n, _partition") == [("2", 2), ("3", 2)]
    assert position(lake) == {"a/0": "1", "a/1": "0", "a/2": "2"}


def test_topics_of_a_pattern_are_read_and_those_that_come_later_from_their_beginning(
    lake: Lakehouse, topics: Topics
) -> None:
    first, other = topics.make("eu-1"), topics.make("xeu-1")
    topics.send(first, *numbers(1))
    topics.send(other, *numbers(-1))
    source = topics.source({"a": table(None, pattern=rf"{topics.prefix}\.eu-.*", start="latest")})
    assert load(lake, source).rows_landed == 0
    later = topics.make("eu-2")
    topics.send(later, *numbers(2))
    topics.send(first, *numbers(3))
    assert len(probe(source, "a", {})) == 4
    load(lake, source)
    assert sorted(rows(lake, "n, _topic")) == [("2", later), ("3", first)]
    topics.delete(first)
    topics.send(later, *numbers(4))
    result = load(lake, source)
    assert result.rows_landed == 1
    assert result.notes == (f"The topic {first} does not exist any more; what was read of it stays.",)


def test_the_first_load_begins_where_it_is_told_to(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    for n, when in enumerate((1_000_000, 2_000_000, 3_000_000)):
        topics.send(topic, {"n": n}, timestamp=when)
    at = datetime.fromtimestamp(2_000, UTC)
    for name, start, expected in [("at", at, ["1", "2"]), ("after", datetime.now(UTC), []), ("latest", "latest", [])]:
        source = topics.source({name: table(topic, start=start)})
        load(lake, source, name)
        assert (rows(lake, "n", name) if expected else []) == expected
        assert position(lake, name) == {"a/0": "3"}
        topics.send(topic, {"n": 3})
        load(lake, source, name)
        assert rows(lake, "n", name) == [*expected, "3"]
        topic = topics.make(f"{name}.a")
        for n, when in enumerate((1_000_000, 2_000_000, 3_000_000)):
            topics.send(topic, {"n": n}, timestamp=when)


def test_messages_that_retention_took_before_they_were_read_are_refused_until_somebody_accepts_it(
    lake: Lakehouse, topics: Topics
) -> None:
    topic = topics.make(partitions=2)
    topics.send(topic, *numbers(*range(3)))
    source = topics.source({"a": table(topic)})
    load(lake, source)
    topics.send(topic, *numbers(*range(3, 10)))
    topics.send(topic, *numbers(100), partition=1)
    topics.delete_before(topic, 6)
    for _ in range(2):
        with pytest.raises(PlatformError, match=rf"are gone from Kafka \({topic}/0: 3..5\).*--full-refresh") as refused:
            load(lake, source)
    assert f'`accept_lost: ["{topic}/0: 3..5"]`' in str(refused.value)
    assert position(lake) == {"a/0": "3", "a/1": "0"}
    assert len(rows(lake, "n")) == 3
    other = topics.source({"a": table(topic, accept_lost=[f"{topic}/0: 3..4"])})
    with pytest.raises(PlatformError, match="are gone"):
        load(lake, other)
    accepting = topics.source({"a": table(topic, accept_lost=[f"{topic}/0: 3..5"])})
    result = load(lake, accepting)
    assert result.notes == (f"Accepted as lost: {topic}/0: 3..5.",)
    assert sorted(map(int, rows(lake, "n"))) == [0, 1, 2, 6, 7, 8, 9, 100]
    topics.delete_before(topic, 10)
    assert load(lake, accepting).notes == ()


def test_a_full_refresh_reads_what_retention_left(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    topics.send(topic, *numbers(*range(10)))
    source = topics.source({"a": table(topic)})
    load(lake, source)
    topics.send(topic, *numbers(10))
    topics.delete_before(topic, 9)
    load(lake, source, full_refresh=True)
    assert rows(lake, "n") == [*map(str, range(10)), "9", "10"]
    assert position(lake) == {"a/0": "11"}


def test_a_topic_that_was_deleted_and_made_anew_is_refused_even_if_it_is_longer(
    lake: Lakehouse, topics: Topics
) -> None:
    topic = topics.make()
    topics.send(topic, *numbers(1, 2))
    source = topics.source({"a": table(topic)})
    load(lake, source)
    topics.delete(topic)
    time.sleep(0.5)
    with pytest.raises(PlatformError, match=f"the topic {topic} does not exist"):
        load(lake, source)
    topics.make()
    topics.send(topic, *numbers(3, 4, 5))
    with pytest.raises(PlatformError, match=f"{topic}: made anew as ") as refused:
        load(lake, source)
    accepted = str(refused.value).partition('accept_lost: ["')[2].partition('"]')[0]
    load(lake, topics.source({"a": table(topic, accept_lost=[accepted])}))
    assert rows(lake, "n") == ["1", "2", "3", "4", "5"]
    assert load(lake, source).loads == ()


def test_a_topic_that_is_made_anew_while_it_is_read_is_not_taken_for_the_one_that_was(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 100)
    monkeypatch.setattr(source_module, "AT_ONCE", 100)
    topic = topics.make()
    topics.send(topic, *({"n": number, "of": "old", "x": secrets.token_hex(2_000)} for number in range(3_000)))
    came: list[str] = []

    def read() -> None:
        with topics.source({"a": table(topic)}, buffered_kb=64).reading(["a"], {}) as reading:
            for batch in reading:
                came.extend(batch.rows["of"].to_pylist() if batch.rows.num_rows else [])
                if len(came) == 100:
                    topics.delete(topic)
                    time.sleep(0.5)
                    topics.make()
                    topics.send(topic, *({"n": number, "of": "new"} for number in range(5_000)))

    with pytest.raises(PlatformError, match=f"{topic}: made anew as "):
        read()
    assert set(came) == {"old"}


def test_times_that_no_calendar_has_are_null(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make(message_timestamp_after_max_ms=2**62)
    for at in (2**61, 253_402_300_800_000, 253_402_300_799_999):
        topics.send(topic, {"n": at}, timestamp=at)
    load(lake, topics.source({"a": table(topic, key=["n"], key_format="json", tombstones="delete")}))
    assert rows(lake, "_timestamp IS NULL, n") == [
        (True, str(2**61)),
        (True, str(253_402_300_800_000)),
        (False, str(253_402_300_799_999)),
    ]


def test_an_empty_topic_is_no_error_and_asked_for_once(lake: Lakehouse, topics: Topics) -> None:
    topic = topics.make()
    source = topics.source({"a": table(topic)})
    assert load(lake, source).rows_read == 0
    assert position(lake) == {"a/0": "0"}
    stored = dict(lake.connection.execute("SELECT partition, value FROM platform.positions").fetchall())
    assert probe(source, "a", stored) == {}
    topics.send(topic, *numbers(1))
    assert probe(source, "a", stored) == {f"{topic}/0": "1"}
