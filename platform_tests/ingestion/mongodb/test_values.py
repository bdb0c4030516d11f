"""What values of MongoDB become, and the conditions that values are put into, without a server: also for kinds of
values that the server of the other tests does not take."""

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb.conditions import after, below
from data_platform.ingestion.mongodb.values import (
    decoded,
    from_position,
    is_before,
    is_ordinary,
    kind_of,
    least_text,
    reduced,
    text,
    to_position,
)

AN_ID = ObjectId("66f244c5e6dc7e85cecb2dd6")
A_UUID = uuid.UUID("e9e94c0f-42ec-4399-a5c4-bd4f9abc60cd")
A_DATE = datetime(2024, 2, 29, 23, 59, 58, 7000, UTC)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None),
        ("a ü\0", "a ü\0"),
        ("", ""),
        (True, "true"),
        (5, "5"),
        (Int64(2**63 - 1), "9223372036854775807"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "NaN"),
        (Decimal128("1.50"), "1.50"),
        (Decimal128("12345678901234567890123456789012.34"), "12345678901234567890123456789012.34"),
        (Decimal128("NaN"), "NaN"),
        (A_DATE, "2024-02-29T23:59:58.007Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
        (DatetimeMS(253402300800000), '{"$date":{"$numberLong":"253402300800000"}}'),
        (AN_ID, "66f244c5e6dc7e85cecb2dd6"),
        (Binary.from_uuid(A_UUID), "e9e94c0f-42ec-4399-a5c4-bd4f9abc60cd"),
        (b"\x00\xff", "AP8="),
        (Binary(b"\x00\xff", 128), '{"$binary":{"base64":"AP8=","subType":"80"}}'),
        (Binary(A_UUID.bytes, 3), '{"$binary":{"base64":"6elMD0LsQ5mlxL1PmrxgzQ==","subType":"03"}}'),
        (Regex("^a", "i"), '{"$regularExpression":{"pattern":"^a","options":"i"}}'),
        (Timestamp(5, 1), '{"$timestamp":{"t":5,"i":1}}'),
        (MinKey(), '{"$minKey":1}'),
        (Code("x"), '{"$code":"x"}'),
        (DBRef("c", 1), '{"$ref":"c","$id":1}'),
        ([], "[]"),
        ({}, "{}"),
        (
            {"a": [1, {"b": None}], "ü": AN_ID, "n": Decimal128("1.50"), "at": A_DATE, "f": math.inf, "u": A_UUID},
            (
                '{"a":[1,{"b":null}],"ü":{"$oid":"66f244c5e6dc7e85cecb2dd6"},"n":{"$numberDecimal":"1.50"},'
                '"at":{"$date":"2024-02-29T23:59:58.007Z"},"f":{"$numberDouble":"Infinity"},'
                '"u":{"$binary":{"base64":"6elMD0LsQ5mlxL1PmrxgzQ==","subType":"04"}}}'
            ),
        ),
    ],
)
def test_a_value_of_each_kind_lands_as_text_without_loss(value: Any, found: str | None) -> None:
    document = decoded(bson.encode({"v": value}, codec_options=bson.CodecOptions(uuid_representation=4)))
    assert document.fault is None
    assert text(document.fields["v"]) == found


def test_a_document_with_text_that_is_no_utf8_is_a_fault_that_shows_the_document() -> None:
    document = decoded(bson.encode({"_id": 1, "s": "ab"}).replace(b"ab", b"a\xff"))
    assert document.fault is not None
    assert "no UTF-8" in document.fault
    assert document.fields == {"_id": 1, "s": "a\ufffd"}


@pytest.mark.parametrize(
    "value", [5, Int64(2**60), 0.1, Decimal128("1.50"), A_DATE, AN_ID, "ü", [None, AN_ID], [A_DATE, 1]]
)
def test_values_of_a_position_are_read_back_as_they_were(value: Any) -> None:
    assert from_position(to_position(value), "t") == value
    assert type(from_position(to_position(value), "t")) is type(value)


def test_a_position_that_is_none_is_refused_in_words() -> None:
    with pytest.raises(PlatformError, match=r"no value of MongoDB.*--full-refresh"):
        from_position("{no", "Table t")


@pytest.mark.parametrize(
    ("value", "lag", "found"),
    [
        (A_DATE, None, A_DATE - timedelta(minutes=15)),
        (A_DATE, timedelta(0), A_DATE),
        (datetime(1, 1, 1, 0, 1, tzinfo=UTC), timedelta(hours=1), datetime(1, 1, 1, tzinfo=UTC)),
        (AN_ID, timedelta(seconds=5), ObjectId.from_datetime(AN_ID.generation_time - timedelta(seconds=5))),
        (ObjectId("0" * 24), None, ObjectId("0" * 24)),
        (7, None, 7),
        (7, 1.5, 5),
        (Int64(-(2**63)), 5, -(2**63)),
        (0.5, 1, -0.5),
        (Decimal128("1.50"), 1, Decimal128("0.50")),
        ("2024-05-02T10:00:00Z", None, "2024-05-02T09:45:00Z"),
        ("x", None, "x"),
    ],
)
def test_a_lag_is_taken_off_a_cursor_of_each_kind(value: Any, lag: Any, found: Any) -> None:
    assert reduced(value, lag, "Table t") == found
    assert least_text(found) <= (text(value) or "")


@pytest.mark.parametrize(("value", "lag"), [(A_DATE, 5), (AN_ID, 5), (5, timedelta(1)), ("x", timedelta(1))])
def test_a_lag_of_the_wrong_kind_is_refused(value: Any, lag: Any) -> None:
    with pytest.raises(PlatformError, match="lag"):
        reduced(value, lag, "Table t")


def test_values_are_compared_within_their_kind_alone() -> None:
    pairs = [(1, 2), (1, 2.5), (Decimal128("1.5"), 2), (0.1, Decimal128("0.2")), (math.nan, -math.inf), ("B", "a")]
    pairs += [("\uffff", "\U0001f600"), (A_DATE, DatetimeMS(253402300800000)), (ObjectId("0" * 24), AN_ID)]
    for less, more in pairs:
        assert is_before(less, more), (less, more)
        assert not is_before(more, less), (less, more)
    for less, more in [(1, "2"), (True, 2), (1, math.nan), (1, 1)]:
        assert not is_before(less, more)


def test_what_cannot_be_a_cursor_is_known() -> None:
    no_cursors: list[Any] = [True, None, {}, [], b"x", Code("x"), Timestamp(1, 1)]
    assert [kind_of(one) for one in no_cursors] == [None] * 7
    beyond: list[Any] = [math.nan, -math.inf, DatetimeMS(-(10**15))]
    extraordinary: list[Any] = [math.inf, math.nan, Decimal128("Infinity"), DatetimeMS(10**15)]
    assert [is_ordinary(one) for one in extraordinary] == [False] * 4
    assert [below("c", one) for one in beyond] == [None] * 3
    assert below("c", Decimal128("Infinity")) == {"c": {"$lt": math.inf}}
    assert below("c", 5) == {}


def test_what_comes_after_a_number_that_is_none_are_the_other_numbers() -> None:
    assert after(["c", "_id"], [math.nan, 1])["$or"][1] == {"c": {"$gte": -math.inf}}
    assert "bool" not in str(after(["_id"], [1]))
    assert after(["_id"], [True])["$or"][1]["_id"]["$not"]["$type"][-1] == "bool"
    assert after(["_id"], [MaxKey()])["$or"][1]["_id"]["$not"]["$type"][-1] == "maxKey"
    assert after(["_id"], [MinKey()]) == {"_id": {"$gt": MinKey()}}
    with pytest.raises(PlatformError, match="`_id` of the type object"):
        after(["_id"], [object()])
