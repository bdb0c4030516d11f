"""Values: what the JSON wrote is what lands, and what is no page of rows is refused."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.http.rows import decode, digest, rows_of, to_arrow
from data_platform.ingestion.source import MAX_COLUMNS


def landed(body: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = to_arrow(rows_of(decode(body.encode(), None), None)).to_pylist()
    return rows


@pytest.mark.parametrize(
    "literal", ["1.50", "-0.0", "2e5", "1E+400", "123456789012345678901234567890.10", "0.1000000000000000055", "NaN"]
)
def test_a_number_keeps_every_digit_that_the_source_wrote(literal: str) -> None:
    assert landed(f'[{{"n": {literal}, "nested": {{"deep": [{literal}]}}}}]') == [
        {"n": literal, "nested": f'{{"deep":[{literal}]}}'}
    ]


def test_strings_stay_as_they_are_even_when_they_look_like_numbers_or_null() -> None:
    assert landed('[{"a": "007", "b": "null", "c": "", "d": " x ", "e": "\\u00e9\\ud83d\\ude00"}]') == [
        {"a": "007", "b": "null", "c": "", "d": " x ", "e": "é😀"}
    ]


def test_booleans_null_objects_and_lists_become_text_or_null() -> None:
    assert landed('[{"t": true, "f": false, "n": null, "o": { "a" : [ 1 , null ] }, "l": []}]') == [
        {"t": "true", "f": "false", "n": None, "o": '{"a":[1,null]}', "l": "[]"}
    ]


def test_half_an_emoji_lands_as_the_escape_that_was_written() -> None:
    assert landed('[{"a": "cut \\ud83d", "b": {"c": "\\ud83d"}}]') == [{"a": "cut \\ud83d", "b": '{"c":"\\\\ud83d"}'}]


def test_a_field_that_a_row_lacks_is_null_there_and_every_column_is_text() -> None:
    page = to_arrow(rows_of(decode(b'[{"a": 1}, {"b": true}]', None), None))
    assert page.schema == pa.schema([("a", pa.string()), ("b", pa.string())])
    assert page.to_pylist() == [{"a": "1", "b": None}, {"a": None, "b": "true"}]


def test_a_byte_order_mark_and_a_declared_charset_are_understood() -> None:
    assert decode("\ufeff[]".encode(), None) == []
    assert decode('["é"]'.encode("cp1252"), "cp1252") == ["é"]


@pytest.mark.parametrize(
    ("content", "charset", "told"),
    [
        (b"<html>log in</html>", None, "not JSON: Expecting value at character 0 of 19"),
        (b'[{"a": 1}, {"a"', None, "not JSON"),
        (b"", None, "not JSON"),
        (b'["\xe9"]', None, "not utf-8 text from byte 2 on"),
        (b"[]", "klingon", "charset 'klingon' is unknown"),
        (b"[" * 100_000, None, "nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(content: bytes, charset: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        decode(content, charset)


@pytest.mark.parametrize(
    ("body", "keys", "told"),
    [
        ({"items": [], "total": 0}, ("data",), "there is no 'data' in the body, which has the keys items, total"),
        ({"result": {"rows": []}}, ("result", "items"), "no 'items' in `result`, which has the keys rows"),
        ({"data": {"a": 1}}, ("data",), "`data` should be a list of rows but has the keys a"),
        ({"error": "no"}, None, "the body should be a list of rows but has the keys error"),
        ([{"a": 1}, ["b"]], None, "item 1 is a list of 1"),
        ([{}], None, "item 0 has none"),
        ("text", ("data",), "no 'data' in the body, which is a string"),
    ],
)
def test_rows_that_are_not_where_they_should_be_are_refused_with_what_is_there(
    body: Any, keys: tuple[str, ...] | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        rows_of(body, keys)


def test_null_in_the_place_of_rows_is_no_rows() -> None:
    assert rows_of({"data": None}, ("data",)) == []


def test_a_map_keyed_by_id_is_not_taken_for_a_row() -> None:
    with pytest.raises(
        PlatformError, match=r"A page of 1 rows: 2,001 columns .* more than `max_columns` \(2,000\).*point at a map"
    ):
        to_arrow([{f"id{i}": "x" for i in range(MAX_COLUMNS + 1)}])


def test_a_value_too_deep_to_write_back_is_refused() -> None:
    with pytest.raises(PlatformError, match="nested deeper than the 254 levels"):
        landed('[{"a": ' + "[" * 300 + "]" * 300 + "}]")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=5), max_size=6)


@given(rows)
def test_nothing_is_lost_on_the_way_to_text(given_rows: list[dict[str, Any]]) -> None:
    page = to_arrow(rows_of(decode(json.dumps(given_rows).encode(), None), None)).to_pylist()
    for row, raw in zip(given_rows, page, strict=True):
        for name, value in row.items():
            assert raw[name] == value if isinstance(value, str | None) else json.loads(raw[name]) == value


@given(rows, st.randoms())
def test_the_digest_is_that_of_the_rows_in_any_order_and_paging(given_rows: list[dict[str, Any]], random: Any) -> None:
    body = decode(json.dumps(given_rows).encode(), None)
    shuffled = random.sample(body, len(body))
    cut = random.randint(0, len(body))
    assert digest(body) == (digest(shuffled[:cut]) + digest(shuffled[cut:])) % 2**256


def test_the_digest_sees_a_changed_value_and_a_repeated_row() -> None:
    row = decode(b'{"a": 1.0, "b": [1]}', None)
    others = [decode(text, None) for text in (b'{"a": 1.00, "b": [1]}', b'{"a": 1.0, "b": [2]}', b'{"a": 1.0}')]
    assert len({digest([row]), digest([row, row]), digest([]), *(digest([other]) for other in others)}) == 6
