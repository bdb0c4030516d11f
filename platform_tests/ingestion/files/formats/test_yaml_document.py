"""YAML: where its rows are, values as they are written, and what may not stand in it."""

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import parse

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import yaml_document


def parsed(content: str | bytes, **options: Any) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    found, rejects = parse("yaml", content if isinstance(content, bytes) else content.encode(), **options)
    return found.to_pylist(), [(reject.line, reject.reason) for reject in rejects]


def rows(content: str | bytes, **options: Any) -> list[dict[str, Any]]:
    found, rejects = parsed(content, **options)
    assert rejects == []
    return [{name: value for name, value in row.items() if name != "_line"} for row in found]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("- a: 1\n- a: 2\n", {}),
        ("a: 1\n---\na: 2\n---\n...\n", {}),
        ("%YAML 1.2\n---\n[{a: 1}]\n---\n- a: 2\n", {}),
        ('[{"a": 1}, {"a": 2}]', {}),
        ("x: [[{a: 9}]]\ndata:\n  items:\n  - a: 1\n  - a: 2\nz: {items: [{a: 3}]}\n", {"rows": "data.items"}),
        ("items: [{a: 1}]\n---\nitems: [{a: 2}]\n", {"rows": "items"}),
        ("\ufeff- a: 1\n- a: 2\n", {}),
        ("- a: 1\n- a: 2\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("- a: 1\r\n- a: 2 # said\r\n", {}),
    ],
)
def test_rows_are_the_elements_of_a_sequence_or_the_documents_themselves(
    content: str | bytes, options: dict[str, Any]
) -> None:
    assert rows(content, **options) == [{"a": "1"}, {"a": "2"}]


WRITTEN = ["no", "NO", "on", "2024-05-01", "2024-05-01 10:00:00", "012", "1:30", "1:2:3", "0x1F", "1_000", "+5", ".5"]
WRITTEN += ["1e400", "1.10", "True", "true", ".inf", "=", "é"]


def test_values_are_as_they_are_written() -> None:
    (row,) = rows("".join(f"k{place}: {value}\n" for place, value in enumerate(WRITTEN)))
    assert list(row.values()) == WRITTEN
    (row,) = rows("a: ~\nb:\nc: null\nd: 'null'\ne: \"\"\nf: |\n  x\n   y\ng: >-\n  x\n  y\nh: '~'\n")
    assert row == dict(zip("abcdefgh", [None, None, None, "null", "", "x\n y\n", "x y", "~"], strict=True))


def test_nested_values_are_json_in_which_only_what_json_has_is_no_text() -> None:
    (row,) = rows("a: {n: 1.10, no: no, at: 2024-05-01, t: true, x: ~, s: '1', o: 012, l: [-1e5, yes, \"\\x01\"]}\n")
    assert row["a"] == (
        '{"n":1.10,"no":"no","at":"2024-05-01","t":true,"x":null,"s":"1","o":"012","l":[-1e5,"yes","\\u0001"]}'
    )


def test_what_stands_at_an_alias_is_there_and_merged_keys_give_way_to_a_row_s_own() -> None:
    content = "base: &b {a: 1, b: [x]}\nmore: [&c {c: 3, a: 0}]\nitems:\n"
    content += "- {<<: *b, a: 2}\n- {<<: [*b, *c]}\n- *b\n- {d: *b}\n"
    assert rows(content, rows="items") == [
        {"a": "2", "b": '["x"]', "c": None, "d": None},
        {"a": "1", "b": '["x"]', "c": "3", "d": None},
        {"a": "1", "b": '["x"]', "c": None, "d": None},
        {"a": None, "b": None, "c": None, "d": '{"a":1,"b":["x"]}'},
    ]
    assert rows("- a: &x 1\n- a: &x 2\n- a: *x\n- '<<': 1\n")[2:] == [{"a": "2", "<<": None}, {"a": None, "<<": "1"}]


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ("{a: 1, a: 2}", 'the key "a" is there twice, in line 2, column 10'),
        ("{x: {a: 1, 'a': 2}}", 'the key "a" is there twice, in line 2, column 14'),
        ("{a: !!python/object/apply:os.system [ls]}", "the tag !!python/object/apply:os.system is not read, in line 2"),
        ("!mine {a: 1}", "the tag !mine is not read"),
        ("{a: !!binary aGk=}", "the tag !!binary is not read"),
        ("{[1]: 2}", "a key is no text, in line 2, column 4"),
        ("{a: *b}", "`*b` stands for nothing before it, or for what holds it, in line 2, column 7"),
        ("&b {a: *b}", "`*b` stands for nothing before it, or for what holds it"),
        ("{<<: 1}", "at `<<` stands no mapping"),
        ("{<<: [[1]]}", "at `<<` stands no mapping"),
        ("text", "no mapping of keys to values, in line 2, column 3"),
        ("[1]", "no mapping of keys to values"),
        ("", "no mapping of keys to values"),
        ("{_file: 1}", "no column can be named '_file'"),
    ],
)
def test_an_element_that_cannot_be_a_row_is_a_reject_and_the_others_are_rows(element: str, reason: str) -> None:
    found, rejects = parsed(f"- a: first\n- {element}\n- a: last\n")
    assert [(row["a"], row["_line"]) for row in found] == [("first", 1), ("last", 3)]
    assert len(rejects) == 1
    assert rejects[0][0] == 2
    assert rejects[0][1].startswith(reason)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merged(levels: int) -> str:
    lines = ["b0: &L0 {k0: v}"]
    lines += [f"b{n}: &L{n} {{<<: [*L{n - 1}, *L{n - 1}], k{n}: v}}" for n in range(1, levels)]
    return "\n".join([*lines, f"items: [{{<<: *L{levels - 1}}}]"])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("- a: [1, 2\n", {}, r"no YAML in line 2, column 1: .*expected ',' or '\]'.*Have it sent again"),
        ("a: 1\n\tb: 2\n", {}, "no YAML in line 2, column"),
        ("a: 'x\n", {}, "no YAML in line 2, column 1: .*quoted scalar"),
        ("- a: \0\n", {}, "what no YAML may hold, at byte or character 5"),
        (b"- a: \xff\n", {}, "what no YAML may hold, at byte or character 5: invalid leading UTF-8"),
        (b"- a: \x81\n", {"encoding": "cp1252"}, "holds bytes that are not cp1252"),
        ("[" * 5_000, {}, "nested more than 100 deep, in line 1, column 103"),
        ("- " * 5_000 + "1", {}, "nested more than 100 deep"),
        ("a: " + "{a: " * 5_000, {"rows": "x"}, "nested more than 100 deep"),
        (bomb(12), {}, "a value has more than 16 MiB, in line 7"),
        (bomb(6) + "\nitems: [" + "{a: *a5}, " * 300 + "]", {"rows": "items"}, r"aliases .* repeat more than \d+ MiB"),
        ("items: {a: 1}\nx: [1]\ny: {z: [2]}\n", {"rows": "items"}, "no sequence at `items`.*sequences are at: x, y.z"),
        ("a: 1\n", {"rows": "items"}, "no sequence at `items`.*it has none"),
        ("x: &x [{a: 1}]\nitems: *x\n", {"rows": "items"}, r"its rows are an alias, `\*x`, in line 2"),
        (
            "items: [{a: 1}]\nitems: [{a: 2}]\n",
            {"rows": "items"},
            'the key "items" is there twice, in line 2, column 1',
        ),
    ],
)
def test_what_is_no_yaml_or_would_fill_the_memory_is_refused_with_the_place(
    content: str | bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlatformError, match=message):
        rows(content, **options)


def test_keys_merged_again_and_again_are_there_once() -> None:
    assert rows(merged(60), rows="items") == [{f"k{n}": "v" for n in range(60)}]


# PyYAML writes YAML 1.1, where 1e5 is a text that needs no quotes; here it is the number that JSON has too.
TEXTS = st.text(max_size=5).filter(lambda text: not re.fullmatch(r"-?[0-9]+[eE][+-]?[0-9]+", text))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), max_size=5), st.booleans())
def test_what_another_program_wrote_is_read_with_its_values(objects: list[dict[str, Any]], flow: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_document, "ROWS", 2)
        found = rows(yaml.safe_dump(objects, default_flow_style=flow))
    for row, one in zip(found, objects, strict=True):
        assert one.keys() <= row.keys()
        for name, text in row.items():
            value = one.get(name)
            assert (text if text is None or isinstance(value, str) else json.loads(text)) == value
