"""What is read of MongoDB: whole collections, what a cursor says is new, documents of every kind."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from platform_tests.ingestion.mongodb.documents import NOON, Documents, load, position, rows
from platform_tests.ingestion.reading import overlap, probe, read_all

from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb import reading as reading_module
from data_platform.ingestion.reconcile import reconcile_table
from data_platform.ingestion.source import DIGEST, Budget
from data_platform.lakehouse.connect import Lakehouse

BY_TIME: dict[str, Any] = {"key": ["id"], "cursor": {"column": "at", "lag": "5m"}}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "BATCH_ROWS", 10)


def ids(batches: Any) -> list[str]:
    return [key for batch in batches for key in batch.rows["id"].to_pylist()]


def test_a_whole_collection_has_its_digest_at_its_end(documents: Documents, small_batches: None) -> None:
    documents.put(*({"_id": n, "a": {"b": [n]}, **({"late": "x"} if n == 24 else {})} for n in range(25)))
    source = documents.source()
    batches = read_all(source)
    assert [(batch.kind, batch.rows.num_rows) for batch in batches] == [("whole", 10), ("whole", 10), ("whole", 5)]
    assert [batch.position is None for batch in batches] == [True, True, False]
    assert batches[-1].rows.to_pylist()[-1] == {"id": "24", "a": '{"b":[24]}', "late": "x"}
    assert ids(batches) == [str(n) for n in range(25)]
    reached = batches[-1].position
    assert reached
    assert read_all(source)[-1].position == reached
    assert probe(source, after=reached) == {}
    documents.put({"_id": 3, "a": {"b": [4]}})
    later = read_all(source)[-1].position
    assert later
    assert later[DIGEST] != reached[DIGEST]
    documents.put({"_id": 99})
    assert probe(source, after=reached)


def test_an_empty_collection_is_an_empty_table(lake: Lakehouse, documents: Documents) -> None:
    documents.put({"_id": 1})
    documents.there.delete_many({})
    assert load(lake, documents.source()).rows_landed == 0
    for options in (BY_TIME, {"key": ["id"], "cursor": {"column": "id"}}):
        (batch,) = read_all(documents.source(**options))
        assert (batch.rows.num_rows, batch.position) == (0, {"cursor": "", "/hint": "0"})
    documents.numbers(1)
    assert ids(read_all(documents.source(**BY_TIME), after=batch.position)) == ["1"]


def test_only_documents_that_were_written_since_are_read(lake: Lakehouse, documents: Documents) -> None:
    documents.numbers(*range(20), v=1)
    source = documents.source(**BY_TIME)
    assert probe(source)
    assert load(lake, source).rows_landed == 20
    assert probe(source, after=position(lake)) == {}
    documents.put({"_id": 3, "at": NOON + timedelta(minutes=21), "v": 2}, {"_id": "s", "at": NOON + timedelta(hours=1)})
    assert probe(source, after=position(lake)).keys() == {"cursor"}
    found = load(lake, source)
    assert (found.rows_landed, rows(lake, "id, v")[20:]) == (2, [("3", "2"), ("s", None)])
    assert found.use is not None
    assert found.use.rows < 12, "not the whole collection"
    assert load(lake, source).rows_landed == 0, "what lies within the lag comes again and is dropped"


def test_documents_that_come_late_or_at_the_same_time_are_read_and_noticed(
    lake: Lakehouse, documents: Documents
) -> None:
    documents.numbers(*range(20))
    source = documents.source(**BY_TIME)
    load(lake, source)
    documents.put(
        {"_id": "same", "at": NOON + timedelta(minutes=19)},
        {"_id": "late", "at": NOON + timedelta(minutes=15)},
        {"_id": "too late", "at": NOON + timedelta(minutes=1)},
    )
    assert probe(source, after=position(lake)).keys() == {"/hint"}
    load(lake, source)
    assert rows(lake)[20:] == ["late", "same"]


def test_many_documents_of_one_time_are_read_in_parts(
    lake: Lakehouse, documents: Documents, small_batches: None
) -> None:
    documents.numbers(1)
    source = documents.source(**BY_TIME)
    load(lake, source)
    documents.put(*({"_id": n, "at": NOON + timedelta(hours=1)} for n in range(200, 235)))
    loads = 0
    while probe(source, after=position(lake)):
        load(lake, source, budget=Budget(rows=10))
        loads += 1
        assert loads < 8
    assert sorted(rows(lake), key=int) == ["1", *map(str, range(200, 235))]
    assert position(lake).keys() == {"cursor", "/hint"}


def test_a_first_reading_that_ends_early_is_gone_on_with_and_misses_nothing_that_was_written_meanwhile(
    lake: Lakehouse, documents: Documents, small_batches: None
) -> None:
    documents.numbers(*range(50), v=1)
    source = documents.source(**BY_TIME)
    load(lake, source, budget=Budget(rows=10))
    assert position(lake).keys() == {"pass", "place"}
    assert probe(source, after=position(lake)), "the rest is asked for"
    documents.put({"_id": 0, "at": NOON + timedelta(hours=2), "v": 2})
    load(lake, source)
    assert len(rows(lake)) == 50
    load(lake, source)
    assert rows(lake, "id, v")[50:] == [("0", "2")], "its _id was passed, its time was not"


@pytest.mark.parametrize(
    ("values", "lag"),
    [
        ([1, 2.5, Int64(2**40), 3, 4], 1),
        (["a", "b", "c", "d", "e"], None),
        ([ObjectId(f"{n:024x}") for n in range(5)], "0s"),
        ([f"2024-05-0{n}T10:00:00Z" for n in range(1, 6)], "1d"),
    ],
)
def test_cursors_of_each_kind_are_gone_on_from(documents: Documents, values: list[Any], lag: Any) -> None:
    cursor = {"column": "c", **({} if lag is None else {"lag": lag})}
    source = documents.source(key=["id"], cursor=cursor)
    ordered = sorted(values)
    documents.put(*({"_id": n, "c": value} for n, value in enumerate(ordered[:3])))
    reached = read_all(source)[-1].position
    documents.put(*({"_id": n, "c": value} for n, value in enumerate(ordered[3:], start=3)))
    found = ids(read_all(source, after=reached))
    assert found[-3:] == ["2", "3", "4"]
    assert "0" not in found


def test_a_cursor_may_be_the_id_where_documents_are_only_added(lake: Lakehouse, documents: Documents) -> None:
    made = [ObjectId.from_datetime(NOON + timedelta(hours=n)) for n in range(4)]
    documents.put(*({"_id": one} for one in made[:2]))
    source = documents.source(key=["id"], cursor={"column": "id", "lag": "1m"})
    load(lake, source)
    documents.put(*({"_id": one} for one in made[2:]))
    found = load(lake, source)
    assert rows(lake) == [str(one) for one in made]
    assert found.use is not None
    assert found.use.rows < 6


def test_documents_without_a_cursor_are_read_each_time_left_out_or_refused(
    lake: Lakehouse, documents: Documents
) -> None:
    documents.numbers(1, 2)
    documents.put({"_id": 3, "v": 1}, {"_id": 4, "at": None})

    def source(nulls: str) -> Any:
        return documents.source(key=["id"], cursor={"column": "at", "nulls": nulls})

    assert load(lake, source("include")).rows_landed == 4
    documents.put({"_id": 3, "v": 2}, {"_id": 5})
    assert load(lake, source("include")).rows_landed == 2
    assert ids(read_all(source("exclude"))) == ["1", "2"]
    with pytest.raises(PlatformError, match="no at, the cursor, and `nulls: refuse`"):
        read_all(source("refuse"))


@pytest.mark.parametrize("other", ["text", 5, True, [1], {"a": 1}])
def test_a_cursor_with_values_of_several_kinds_is_refused_before_documents_are_missed(
    documents: Documents, other: Any
) -> None:
    documents.numbers(1, 2)
    source = documents.source(**BY_TIME)
    reached = read_all(source)[-1].position
    documents.put({"_id": 3, "at": other})
    for after in (reached, {}):
        with pytest.raises(PlatformError, match=r"the cursor at has (values of two kinds|a value that cannot be one)"):
            read_all(source, after=after)


def test_a_cursor_of_text_in_two_shapes_is_refused(documents: Documents) -> None:
    documents.put({"_id": 1, "c": "2024-05-02T10:00:00Z"}, {"_id": 2, "c": "2024-05-01 10:00:00"})
    with pytest.raises(PlatformError, match="text of two shapes, such as '2024-05-02T10:00:00Z' and '2024-05-01 10"):
        read_all(documents.source(key=["id"], cursor={"column": "c"}))


def test_a_date_beyond_all_others_keeps_none_of_them_out(lake: Lakehouse, documents: Documents) -> None:
    documents.numbers(1)
    documents.put({"_id": 2, "at": DatetimeMS(253402300800000)})
    source = documents.source(**BY_TIME)
    load(lake, source)
    documents.numbers(3)
    load(lake, source)
    assert rows(lake) == ["1", "2", "3"]
    assert rows(lake, '"at"')[1] == '{"$date":{"$numberLong":"253402300800000"}}'


def test_ids_of_every_kind_are_read_in_one_order_and_gone_on_from(documents: Documents, small_batches: None) -> None:
    given = [1, 2.5, "a", {"a": 1}, uuid.UUID(int=5), b"x", ObjectId(), False, True, datetime(2020, 1, 1, tzinfo=UTC)]
    documents.put(*({"_id": one, "at": NOON} for one in given))
    source = documents.source(cursor={"column": "at"})
    (whole,) = read_all(source)
    found = whole.rows["id"].to_pylist()
    assert len(set(found)) == len(given)
    for count in range(1, len(given)):
        reading_module.BATCH_ROWS = count
        first = read_all(source)[0].position
        assert ids(read_all(source, after=first)) == found[count:], found[count - 1]


def test_fields_filter_and_name_of_the_id_are_chosen(documents: Documents) -> None:
    documents.put(
        {"_id": ObjectId("66f244c5e6dc7e85cecb2dd6"), "id": 7, "a": 1, "b": 2, "at": NOON},
        {"_id": 2, "id": 8, "a": 1, "at": NOON + timedelta(days=1)},
    )
    with pytest.raises(PlatformError, match=r"a field id besides `_id`.*`id_column`"):
        read_all(documents.source())
    before = {"at": {"$lt": {"$date": "2024-05-03T00:00:00Z"}}}
    (batch,) = read_all(documents.source(id_column="document_id", columns=["id", "a"], filter=before))
    assert batch.rows.to_pylist() == [{"document_id": "66f244c5e6dc7e85cecb2dd6", "id": "7", "a": "1"}]
    with pytest.raises(PlatformError, match="unknown operator"):
        read_all(documents.source(filter={"a": {"$nosuch": 1}}))
    with pytest.raises(PlatformError, match="`filter` is no extended JSON"):
        read_all(documents.source(filter={"a": {"$oid": "short"}}))


def test_fields_that_come_go_and_change_their_kind_are_columns_of_text(lake: Lakehouse, documents: Documents) -> None:
    documents.put({"_id": 1, "at": NOON, "a": 1, "gone": True})
    source = documents.source(**BY_TIME)
    load(lake, source)
    documents.put({"_id": 2, "at": NOON + timedelta(hours=1), "a": {"b": [1.5]}, "new": Int64(5)})
    load(lake, source)
    assert set(rows(lake, "id, a, gone, new")) == {("1", "1", "true", None), ("2", '{"b":[1.5]}', None, "5")}


def test_more_fields_than_a_table_may_have_are_refused(documents: Documents) -> None:
    documents.put({"_id": 1, **{f"f{n}": n for n in range(30)}})
    with pytest.raises(PlatformError, match=r"31 columns .*more than `max_columns`"):
        read_all(documents.source(max_columns=20))


def test_what_may_come_again_begins_at_the_lag(documents: Documents) -> None:
    documents.numbers(*range(20))
    source = documents.source(**BY_TIME)
    assert overlap(source, "t", {}) is None
    found = overlap(source, "t", read_all(source)[-1].position or {})
    assert found is not None
    assert (found.column, found.since, found.key) == ("at", "2024-05-02T12:14:00.000Z", ("id",))


def test_deletes_and_late_documents_are_found_by_reconciling(lake: Lakehouse, documents: Documents) -> None:
    documents.numbers(*range(20))
    source = documents.source(**BY_TIME, reconcile="daily")
    load(lake, source)
    documents.there.delete_one({"_id": 3})
    documents.put({"_id": 50, "at": NOON})
    load(lake, source)
    assert len(rows(lake)) == 20, "neither the delete nor the late document is seen"
    documents.numbers(30)
    found = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (found.deleted, found.missed) == (1, 1)
    assert found.examples == {"deleted": ["id = 3"], "missed": ["id = 50"]}
    load(lake, source)
    again = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (again.differences, again.rows_raw) == (0, 21)


def test_documents_that_changed_without_a_later_time_are_found_by_comparing_rows(
    lake: Lakehouse, documents: Documents
) -> None:
    documents.numbers(*range(20), v=1)
    source = documents.source(**BY_TIME, reconcile={"compare": "rows"})
    load(lake, source)
    documents.numbers(3, v=2)
    found = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (found.changed, found.deleted, found.missed) == (1, 0, 0)
    assert rows(lake, "id, v")[-1] == ("3", "2")


def test_reconciling_needs_the_id_as_the_key(documents: Documents) -> None:
    source = documents.source(key=["other"], cursor={"column": "at"}, reconcile="daily")
    with pytest.raises(PlatformError, match=r"is not the column of `_id` \(id\)"), source.comparing("t", {}, []):
        pass
