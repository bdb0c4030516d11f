"""JSON lines: a text column a field, as written; Python's json is the oracle of what is JSON."""

import io
import json
import re
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import JsonLines, Reject, json_lines, read, text


@pytest.fixture(autouse=True, params=["small blocks by Arrow", "small blocks by Python"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here has blocks that are small: both ways of taking them apart give the same."""
    if request.param == "small blocks by Arrow":
        monkeypatch.setattr(text, "SMALL", 0)


def parse(content: bytes, **options: object) -> tuple[list[dict[str, object]], list[Reject]]:
    blocks = list(read(JsonLines.model_validate({"type": "json_lines", **options}), io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks], promote_options="default") if blocks else pa.table({})
    return rows.to_pylist(), [reject for block in blocks for reject in block.rejects]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5).filter(
    lambda name: name not in ("_file", "_line") and "\0" not in name
)


@settings(max_examples=200, deadline=None)
@given(objects=st.lists(st.dictionaries(NAME, JSON, max_size=4), max_size=8), ascii_only=st.booleans())
def test_any_objects_come_back_field_by_field(objects: list[dict[str, object]], ascii_only: bool) -> None:
    lines = [json.dumps(fields, ensure_ascii=ascii_only) for fields in objects]
    rows, rejects = parse("\n".join(lines).encode("utf-8", "surrogatepass"))
    assert rejects == []
    assert [row.pop("_line") for row in rows] == list(range(1, len(objects) + 1))
    for row, fields in zip(rows, objects, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=ascii_only)
            for name, value in fields.items()
            if value is not None
        }


TOKENS = st.sampled_from(
    ["{", "}", "[", "]", '"a"', '"b"', ":", ",", "1", "01", "-", "1.", "1.50", "1e5", "NaN", "Infinity", "true",
     "null", '"\\x"', '"\\u00e9"', '"\t"', " ", "'a'", "nul", '"', "\\"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    line=st.lists(TOKENS, max_size=9).map("".join) | st.lists(TOKENS, max_size=4).map(lambda t: f'{{"a":{"".join(t)}}}')
)
def test_a_line_is_a_row_exactly_when_python_reads_a_json_object_from_it(line: str) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        wanted = isinstance(json.loads(line, parse_constant=refuse), dict)
    except ValueError:
        wanted = False
    rows, rejects = parse(line.encode())
    assert (len(rows) == 1) == wanted
    assert len(rejects) == (0 if wanted or not line.strip() else 1)


FIELDS = st.fixed_dictionaries(
    {
        "a": st.integers() | st.text(st.sampled_from('x"\\\té日\U0001f600'), max_size=4),
        "b b": st.none() | st.booleans(),
    },
    optional={"c": st.floats(allow_nan=False), "é": st.lists(st.integers(), max_size=2), "_line": st.just(1)},
)
VALUES = st.sampled_from(
    ["01", "-0", "1.50E-7", '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\udE00\\ud83d"', '"\\/"', "nulL",
     '"null"', "", '"a"b"', "NaN", '"\x7f"', '"\x1f"', "{}", '"\\"', '"\\\\"', "truefalse", "1 ", "+1", ".5", "5."]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.builds(lambda fields, loose, escape: json.dumps(
            fields, separators=(" , ", "\t: ") if loose else None, ensure_ascii=escape
        ), FIELDS, st.booleans(), st.booleans())
        | VALUES.map(lambda value: f'{{"a": {value}, "b b": 1}}')
        | st.sampled_from(["", "{}", '{"a": 1, "a": 2}', '{"a": 1, "b b": 2},', '{"a": 1 "b b": 2}'])
        | st.just(' {"a":1,"b b":2} \r'),
        max_size=12,
    )
)  # fmt: skip
def test_lines_taken_apart_by_pattern_say_what_the_parser_says(lines: list[str]) -> None:
    found = []
    for worth in (1, 1_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_lines, "_WORTH", worth)
            rows, rejects = parse("\n".join(lines).encode())
            found.append(([{k: v for k, v in row.items() if v is not None} for row in rows], rejects))
    assert found[0] == found[1]


@pytest.mark.parametrize("fields", [1, 15, 16, 31])
def test_objects_of_any_number_of_fields_go_by_pattern(fields: int, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({f"f.{n}": n if n % 2 else f"text {n}" for n in range(fields)})
    one_by_one, heights = json_lines._one_by_one, []

    def counted(lines: pl.DataFrame, *more: Any) -> tuple[pa.Table, list[Reject]]:
        heights.append(lines.height)
        return one_by_one(lines, *more)

    monkeypatch.setattr(json_lines, "_one_by_one", counted)
    rows, rejects = parse(f"{line}\n".encode() * 200)
    assert heights == [0]
    assert rejects == []
    expected = {f"f.{n}": str(n) if n % 2 else f"text {n}" for n in range(fields)}
    assert rows == [expected | {"_line": n} for n in range(1, 201)]


def test_scalars_are_as_written_and_strings_without_quotes_and_escapes() -> None:
    line = (
        rb'{"n": 1.10, "big": 12345678901234567890.000, "e": 1E+5, "t": true, "s": "a\"b\u00e9\\", "z": null,'
        rb' "q": "\"", "o": ""}'
    )
    assert parse(line)[0] == [
        {"n": "1.10", "big": "12345678901234567890.000", "e": "1E+5", "t": "true", "s": 'a"bé\\', "z": None, "q": '"',
         "o": "", "_line": 1}
    ]  # fmt: skip


def test_nested_values_are_the_json_of_the_file() -> None:
    rows, _ = parse(b'{"a": {"x" : [1.0, "\\u00e9"]}, "b": []}')
    assert rows == [{"a": '{"x" : [1.0, "\\u00e9"]}', "b": "[]", "_line": 1}]


def test_the_word_null_in_quotes_is_text() -> None:
    assert parse(b'{"a": "null"}\n{"a": null}')[0] == [{"a": "null", "_line": 1}, {"a": None, "_line": 2}]


def test_new_fields_are_new_columns_and_missing_ones_null() -> None:
    rows, _ = parse(b'{"a": 1}\r\n\r\n{"b": 2, "a": 3}\r\n')
    assert rows == [{"a": "1", "b": None, "_line": 1}, {"a": "3", "b": "2", "_line": 3}]


def test_malformed_lines_are_set_aside_with_line_text_and_reason() -> None:
    content = (
        b'{"a": 1}\n{"a": 1,}\n[1]\n{"a": "\xff"}\n{"_line": 1}\n{"\\u0000": 1}\n{"a"\n  \n{"a": 2}\n{"a": "\\ud800"}\n'
    )
    rows, rejects = parse(content)
    assert rows == [{"a": "1", "_line": 1}, {"a": "2", "_line": 9}]
    assert [(reject.line, reject.record) for reject in rejects] == [
        (2, '{"a": 1,}'), (3, "[1]"), (4, '{"a": "\\xff"}'), (5, '{"_line": 1}'), (6, '{"\\u0000": 1}'), (7, '{"a"'),
        (10, '{"a": "\\ud800"}'),
    ]  # fmt: skip
    reasons = [
        "not JSON: .*trailing comma in object", "not a JSON object: .*got `array`", "bytes that are not utf-8",
        "no column can be named '_line'", r"no column can be named '.x00'", "not JSON: .*truncated", "not JSON",
    ]  # fmt: skip
    for reject, reason in zip(rejects, reasons, strict=True):
        assert re.search(reason, reject.reason)


def test_a_bottomless_nesting_is_a_reject_not_a_crash() -> None:
    rows, rejects = parse(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"a":1}\n')
    assert len(rows) == 1
    assert [reject.reason for reject in rejects] == ["objects or arrays are nested too deeply"]


def test_lines_keep_their_numbers_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK", 64)
    content = "".join(f'{{"a": "é{n}"}}\n' if n % 3 else "broken\n" for n in range(1, 200)).encode("cp1252")
    rows, rejects = parse(content, encoding="cp1252")
    assert [(row["_line"], row["a"]) for row in rows] == [(n, f"é{n}") for n in range(1, 200) if n % 3]
    assert [reject.line for reject in rejects] == list(range(3, 200, 3))


def test_utf_16_declared_as_utf_8_is_refused() -> None:
    with pytest.raises(PlatformError, match="byte order mark of UTF-16"):
        parse('{"a": 1}'.encode("utf-16"))
