"""Rows out of nested arrays: what is kept of the objects round them, and what becomes of JSON built otherwise."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import parse
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import nested

LINES: dict[str, Any] = {"rows": "lines", "parent": {"order_id": "id", "line": "lines[#]"}}


def parsed(
    content: str, form: str = "json_lines", **options: Any
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Rows without what is null, and records that cannot be read, with the reason."""
    table, rejects = parse(form, content.encode(), **options)
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    return rows, [(one.record, one.reason) for one in rejects]


def test_each_element_is_a_row_with_what_is_kept_of_the_object_round_it() -> None:
    content = '{"id": 7, "lines": [{"sku": "a", "n": 1.10}, {"sku": "b"}]}\n{"lines": [{"sku": "c"}], "id": "x\\n"}\n'
    assert parsed(content, **LINES) == (
        [
            {"order_id": "7", "line": "1", "sku": "a", "n": "1.10", "_line": 1},
            {"order_id": "7", "line": "2", "sku": "b", "_line": 1},
            {"order_id": "x\n", "line": "1", "sku": "c", "_line": 2},
        ],
        [],
    )


@pytest.mark.parametrize("record", ['{"id": 1}', '{"id": 1, "lines": null}', '{"id": 1, "lines": []}'])
def test_an_object_without_the_array_has_no_rows(record: str) -> None:
    content = f'{record}\n{{"id": 2, "lines": [{{"sku": "a"}}]}}\n'
    assert [row["order_id"] for row in parsed(content, **LINES)[0]] == ["2"]
    assert parsed(record + "\n", **LINES) == ([], [])


def test_what_is_kept_is_null_where_it_is_missing_and_json_where_it_is_nested() -> None:
    content = '{"lines": [{"a": 1}]}\n{"id": {"no": [1, 2.50]}, "lines": [{"a": 2}]}\n'
    assert parsed(content, **LINES)[0] == [
        {"line": "1", "a": "1", "_line": 1},
        {"order_id": '{"no": [1, 2.50]}', "line": "1", "a": "2", "_line": 2},
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            '{"id": 1, "lines": {"sku": "a"}}',
            "otherwise than `rows` and `parent` say: Expected `array | null`, got `obj",
        ),
        ('{"id": 1, "lines": "none"}', "Expected `array | null`, got `str` - at `$.lines`"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"id": 1, "lines": [{"a": 1}', "not JSON: "),
        ('{"id": %s}' % ("[" * 100_000), "nested too deeply"),
    ],
)
def test_a_record_that_is_built_otherwise_is_a_reject_as_a_whole(record: str, reason: str) -> None:
    rows, rejects = parsed(f'{record}\n{{"id": 2, "lines": [{{"sku": "a"}}]}}\n', **LINES)
    assert [row["order_id"] for row in rows] == ["2"]
    assert [one for one, _ in rejects] == [record]
    assert reason in rejects[0][1]


def test_an_element_that_is_no_object_is_a_reject_of_its_own() -> None:
    rows, rejects = parsed('{"id": 1, "lines": [{"a": 1}, 5, null, [2], {"a": 2}]}\n', **LINES)
    assert [row["line"] for row in rows] == ["1", "5"]
    assert rejects == [
        ("5", "element 2 of lines[*]: not a JSON object: Expected `object`, got `int`"),
        ("null", "element 3 of lines[*]: not a JSON object: Expected `object`, got `null`"),
        ("[2]", "element 4 of lines[*]: not a JSON object: Expected `object`, got `array`"),
    ]


def test_an_element_with_a_field_of_a_kept_name_is_a_reject_and_of_a_name_that_is_twice_the_last_counts() -> None:
    rows, rejects = parsed('{"id": 1, "id": 2, "lines": [{"order_id": 9}, {"a": 1, "a": 2}]}\n', **LINES)
    assert rows == [{"order_id": "2", "line": "2", "a": "2", "_line": 1}]
    assert rejects == [
        ('{"order_id": 9}', "element 1 of lines[*]: no column can be named 'order_id', as `parent` has one")
    ]


def test_elements_of_any_kind_are_rows_of_one_value_where_that_is_wanted() -> None:
    content = '{"id": 1, "tags": ["a\\tb", null, 2.50, {"x": [1]}]}\n'
    rows, rejects = parsed(content, rows="tags", parent={"id": "id"}, value="tag")
    assert [row.get("tag") for row in rows] == ["a\tb", None, "2.50", '{"x": [1]}']
    assert rejects == []
    rows, _ = parsed('{"tags": ["a", 2]}', "json", rows="tags", value="tag")
    assert [row["tag"] for row in rows] == ["a", "2"]


DEEP = {"orders": [{"id": 1, "lines": [{"no": 10, "parts": [{"p": "a"}, {"p": "b"}]}, {"no": 11, "parts": []}]},
                   {"id": 2, "lines": [{"no": 20}, {"no": 21, "parts": [{"p": "c"}]}]}, {"id": 3}],
        "at": "2025-01-01"}  # fmt: skip
PARTS = {"order": "orders[*].id", "line": "orders[*].lines[*].no", "nth": "orders[*].lines[#]"}
FOUND = [
    {"order": "1", "line": "10", "nth": "1", "p": "a"},
    {"order": "1", "line": "10", "nth": "1", "p": "b"},
    {"order": "2", "line": "21", "nth": "2", "p": "c"},
]


def test_arrays_within_arrays_keep_what_is_on_the_way() -> None:
    for form in ("json", "json_lines"):
        rows, rejects = parsed(json.dumps(DEEP), form, rows="orders[*].lines[*].parts", parent=PARTS)
        assert [{name: value for name, value in row.items() if name != "_line"} for row in rows] == FOUND
        assert rejects == []
        assert [row["_line"] for row in rows] == ([1, 1, 2] if form == "json" else [1, 1, 1])


def test_what_is_beside_the_outermost_array_is_kept_too_be_it_before_or_after() -> None:
    content = f'{json.dumps(DEEP)}\n{{"at": "later", "orders": [{{"id": 4}}]}}'
    parent = {"exported": "at", "nth": "orders[#]", "order": "orders[*].id"}
    rows, _ = parsed(content, "json", rows="orders", parent={"exported": "at", "nth": "orders[#]"})
    assert [(row["exported"], row["nth"], row["id"]) for row in rows] == [
        ("2025-01-01", "1", "1"),
        ("2025-01-01", "2", "2"),
        ("2025-01-01", "3", "3"),
        ("later", "1", "4"),
    ]
    rows, _ = parsed(content, "json", rows="orders[*].lines", parent=parent)
    assert {(row["exported"], row["nth"], row["order"], row["no"]) for row in rows} == {
        ("2025-01-01", "1", "1", "10"), ("2025-01-01", "1", "1", "11"),
        ("2025-01-01", "2", "2", "20"), ("2025-01-01", "2", "2", "21"),
    }  # fmt: skip


def test_a_document_that_is_needed_as_a_whole_is_bounded_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"at": 1, "orders": [{"id": n, "note": "x" * 100} for n in range(2_000)]})
    monkeypatch.setattr("data_platform.ingestion.files.formats.json_document.LONGEST", 100_000)
    assert len(parsed(content, "json", rows="orders")[0]) == 2_000
    with pytest.raises(PlatformError, match=r"a document has more than 0 MiB.*keep only what is within"):
        parsed(content, "json", rows="orders", parent={"at": "at"})
    assert len(parsed('{"at": 1, "orders": [{"id": 1}]}\n' * 20_000, "json", rows="orders", parent={"at": "at"})[0])


def test_a_document_that_is_an_array_and_arrays_of_arrays_have_their_paths() -> None:
    rows, _ = parsed('[{"id": 1, "lines": [{"a": 1}]}]', "json", rows="[*].lines", parent={"id": "[*].id"})
    assert rows == [{"id": "1", "a": "1", "_line": 1}]
    rows, _ = parsed('{"grid": [[1, 2], [], [3]]}\n', rows="grid[*][*]", parent={"y": "grid[#]"}, value="v")
    assert [(row["y"], row["v"]) for row in rows] == [("1", "1"), ("1", "2"), ("3", "3")]


def test_a_document_without_the_outermost_array_is_refused_with_those_that_there_are() -> None:
    for parent in ({}, {"at": "at"}):
        with pytest.raises(
            PlatformError, match=r"no array at `order` \(`rows: order\[\*\].lines`.*arrays are at: orders"
        ):
            parsed(json.dumps(DEEP), "json", rows="order[*].lines", parent=parent)
    with pytest.raises(PlatformError, match="there is no array at the top"):
        parsed(json.dumps(DEEP), "json", rows="[*].lines")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": "$.orders[*]"}, "begins with a `\\$`: write it without"),
        ({"rows": "a..b"}, "is no path"),
        ({"rows": "a[0].b"}, "is no path"),
        ({"rows": ""}, "is no path"),
        ({"rows": "a[#]"}, "is the number of an element: name the array, 'a'"),
        ({"parent": {"a": "b"}}, "say which by `rows`"),
        ({"rows": "a", "parent": {"_line": "b"}}, "which the platform gives to every row itself"),
        ({"rows": "a", "parent": {"x": "b"}, "value": "X"}, "column 2 is named 'X', as column 1 is already"),
        ({"rows": "a", "parent": {"x": "b[*].c"}}, r"x: 'b\[\*\].c' leads through another array than `rows` does"),
        ({"rows": "a", "parent": {"x": "b[#]"}}, "leads through another array"),
        ({"rows": "a[*].b", "parent": {"x": "a[*].b[*].c"}}, "lies in the row itself"),
        ({"rows": "a[*].b", "parent": {"x": "a.c"}}, "`rows` says that 'a' is an array, 'a.c' not"),
        ({"rows": "a.b", "parent": {"x": "a"}}, "is an object or an array that another path goes through"),
        ({"rows": "a", "parent": {"x": "b", "y": "b.c"}}, "is an object or an array that another path goes through"),
        ({"rows": "a[*].b", "parent": {"x": "a[*]"}}, "is an object or an array that another path goes through"),
    ],
)
def test_paths_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse("json_lines", b"{}\n", **options)


def test_what_would_be_repeated_beyond_measure_is_a_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "LONGEST", 1_000)
    rows, rejects = parsed(json.dumps({"id": "x" * 100, "lines": [{}] * 20}) + "\n", **LINES)
    assert rows == []
    assert "repeated in each row" in rejects[0][1]


def test_more_columns_than_allowed_are_named_with_the_line_of_the_record() -> None:
    lines = ", ".join(f'{{"c{n}": 1}}' for n in range(6))
    with pytest.raises(PlatformError, match="line 2, with those of the objects before it: 4 columns"):
        parse("json_lines", f'{{}}\n{{"lines": [{lines}]}}\n'.encode(), 3, rows="lines")


LEAF = st.dictionaries(st.sampled_from("pqr"), st.none() | st.booleans() | st.integers() | st.text(max_size=3))
ORDER = st.fixed_dictionaries(
    {}, optional={"id": st.integers() | st.text(max_size=3), "lines": st.lists(LEAF, max_size=3)}
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=4))
def test_the_children_are_those_that_python_finds(orders: list[dict[str, Any]]) -> None:
    def text(value: object) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value)

    expected = [
        {"order_id": text(order.get("id")), "line": str(place), **{name: text(value) for name, value in one.items()}}
        for order in orders
        for place, one in enumerate(order.get("lines", []), 1)
    ]
    for form, content, path in (
        ("json_lines", "".join(f"{json.dumps(order)}\n" for order in orders), ""),
        ("json", json.dumps({"orders": orders}), "orders[*]."),
    ):
        parent = {"order_id": f"{path}id", "line": f"{path}lines[#]"}
        rows, rejects = parsed(content or "\n", form, rows=f"{path}lines", parent=parent)
        for row in rows:
            row.pop("_line")
        assert rows == [{name: value for name, value in row.items() if value is not None} for row in expected]
        assert rejects == []
