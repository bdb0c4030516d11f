"""JSON documents: where their rows are, values as they are written, and what is damaged."""

import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Reject, json_document, read
from data_platform.ingestion.files.formats.json_document import JsonDocument


def parsed(content: str | bytes, **options: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    blocks = list(read(JsonDocument(type="json", **options), stream))
    rows = pa.concat_tables([block.rows for block in blocks], promote_options="default").to_pylist()
    return rows, [reject for block in blocks for reject in block.rejects]


def rows(content: str | bytes, **options: Any) -> list[dict[str, Any]]:
    found, rejects = parsed(content, **options)
    assert rejects == []
    return [{name: value for name, value in row.items() if name != "_line"} for row in found]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ('[{"a": 1}, {"a": 2}]', {}),
        ('{"data": {"items": [{"a": 1}, {"a": 2}]}, "next": null}', {"rows": "data.items"}),
        ('{\n  "a": 1\n}\n{\n  "a": 2\n}\n', {}),
        ('{"items": [{"a": 1}]}\n{"items": [{"a": 2}]}', {"rows": "items"}),
        (b'\xef\xbb\xbf \n[{"a": 1}, {"a": 2}]', {}),
        (" " * 100_000 + '[{"a": 1}, {"a": 2}]', {}),
        ('[{"a": 1}, {"a": 2}]'.encode("utf-16"), {"encoding": "utf-16"}),
    ],
)
def test_rows_are_the_elements_of_an_array_or_the_documents_themselves(
    content: str | bytes, options: dict[str, Any]
) -> None:
    assert rows(content, **options) == [{"a": "1"}, {"a": "2"}]


def test_values_are_as_they_are_written() -> None:
    number = "123456789012345678901234567890"
    (row,) = rows(f'[{{"a": 1.10, "b": {number}, "c": {{"d": [1.50, null]}}, "e": true, "f": null, "g": "1"}}]')
    assert row == {"a": "1.10", "b": number, "c": '{"d":[1.50,null]}', "e": "true", "f": None, "g": "1"}


def test_an_empty_array_gives_no_row_and_one_that_is_not_there_is_named_with_those_that_are() -> None:
    assert rows('{"items": []}', rows="items") == []
    with pytest.raises(PlatformError, match=r"there is no array at `rows`.*arrays are at: items, more.deep"):
        rows('{"items": [], "more": {"deep": [[1]]}}', rows="rows")


def test_elements_that_are_no_objects_are_rejects() -> None:
    found, rejects = parsed('[{"a": 1}, 2, [3], {"_line": 4}]')
    assert len(found) == 1
    assert [(reject.line, reject.record) for reject in rejects] == [(2, "2"), (3, "[3]"), (4, '{"_line":4}')]
    assert rejects[1].reason == "not a JSON object: Expected `object`, got `array`"


def test_a_number_may_have_thousands_of_digits() -> None:
    assert rows('[{"a": %s}]' % ("9" * 4_000))[0]["a"] == "9" * 4_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1}, {"a": ', "the JSON is cut off"),
        ('[{"a": 1}', "the JSON is cut off"),
        ('[\n{"a": 1},\n{"a": x}]', "no JSON in line 3, column 7"),
        ('[{"a": 1},]', "no JSON in line 1, column"),
        ("[NaN]", "it is no JSON"),
        (b'[{"a": "\xff"}]', "it is no JSON"),
        ("a,b\n1,2\n", "no JSON in line 1, column 1"),
        ("[" * 100_000, "nested more than 1000 deep"),
        ('{"a":' * 100_000, "nested more than 1000 deep"),
        ('[{"a": 1e99999999999999999999}]', "an exponent that no number can have"),
        ('[{"a": %s}]' % ("9" * 4_001), "a number has more than 4,000 digits"),
        ('[{"a": "' + "x" * 65_000 + '", "b": ' + "9" * 5_000 + "}]", "a number has more than 4,000 digits"),
        ("<html></html>", "it is an HTML page"),
        ('<?xml version="1.0"?><a/>', "declared JSON, but it is an XML document"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(content: str | bytes, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        rows(content)


def test_text_in_another_encoding_than_declared_is_refused() -> None:
    with pytest.raises(PlatformError, match="holds bytes that are not cp1252"):
        rows(b'[{"a": "\x81"}]', encoding="cp1252")


def test_brackets_within_texts_are_no_nesting() -> None:
    assert len(rows(json.dumps([{"a": '[{"\\' * 2000}, {"a": "[" * 200_000}]))) == 2


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers() | st.text(max_size=5)),
        max_size=8,
    )
)
def test_every_row_is_there_with_its_values(objects: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_document, "ROWS", 3)
        found = rows(json.dumps(objects))
    expected = [
        {
            name: value if value is None or isinstance(value, str) else json.dumps(value)
            for name, value in one.items()
            if value is not None
        }
        for one in objects
    ]
    assert [{name: value for name, value in row.items() if value is not None} for row in found] == expected
