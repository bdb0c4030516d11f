"""Logs that name their columns themselves: pairs of keys and values (logfmt), and lines `#Fields:` (W3C)."""

import io
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import FormatOptions, Reject, read, text
from data_platform.ingestion.files.formats.logfmt import Logfmt
from data_platform.ingestion.files.formats.w3c import W3c

LOGFMT, W3C = Logfmt(type="logfmt"), W3c(type="w3c")
FIELDS = "#Software: x\n#Fields: date time c-ip cs(User-Agent)\n"


def parsed(
    options: FormatOptions, content: str | bytes, max_columns: int = 100
) -> tuple[list[dict[str, Any]], list[Reject]]:
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    blocks = list(read(options, stream, max_columns))
    rows = pa.concat_tables([block.rows for block in blocks], promote_options="default").to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows], [
        reject for block in blocks for reject in block.rejects
    ]


def test_pairs_are_columns_with_quotes_and_escapes_taken_away() -> None:
    rows, rejects = parsed(
        LOGFMT, 'level=info msg="slow \\"answer\\" \\u00e9" url=http://x/?a=b debug empty= bad="\\q"\n'
    )
    assert rejects == []
    assert rows == [
        {
            "level": "info",
            "msg": 'slow "answer" é',
            "url": "http://x/?a=b",
            "debug": "true",
            "empty": "",
            "bad": "\\q",
            "_line": 1,
        }
    ]


def test_of_a_key_that_occurs_twice_the_last_value_counts() -> None:
    assert parsed(LOGFMT, "a=1 b=2 a=3\n")[0] == [{"a": "3", "b": "2", "_line": 1}]


@pytest.mark.parametrize(
    "line", ["prose of some words", 'a="no end', 'a=b"c', "=b", '"a"=b', "a=1 _line=2", "a=1 _file=x"]
)
def test_a_line_that_is_not_made_of_pairs_is_a_reject(line: str) -> None:
    rows, rejects = parsed(LOGFMT, f"a=1\n{line}\n\n")
    assert (len(rows), [(reject.line, reject.record) for reject in rejects]) == (1, [(2, line)])


def test_more_keys_than_there_may_be_columns_refuse_the_file() -> None:
    with pytest.raises(PlatformError, match=r"more than .*max_columns"):
        parsed(LOGFMT, "a=1 b=2\nc=3\n", max_columns=2)


def test_fields_name_the_columns_and_may_change_in_a_file() -> None:
    content = FIELDS + '2025-01-01 00:00:01 ::1 "A b ""c"""\n2025-01-01 00:00:02 - -\r\n'
    content += "#Date: 2025-01-02\n#Fields: date sc-status\n2025-01-02\t200\n"
    rows, rejects = parsed(W3C, content)
    assert rejects == []
    assert rows == [
        {"date": "2025-01-01", "time": "00:00:01", "c-ip": "::1", "cs(User-Agent)": 'A b "c"', "_line": 3},
        {"date": "2025-01-01", "time": "00:00:02", "_line": 4},
        {"date": "2025-01-02", "sc-status": "200", "_line": 7},
    ]


@pytest.mark.parametrize("line", ["short", "one two three four five", 'a b c "no end', 'a b c "d" e'])
def test_a_line_with_another_number_of_values_is_a_reject(line: str) -> None:
    rows, rejects = parsed(W3C, f"{FIELDS}a b c d\n{line}\n")
    assert (len(rows), [(reject.line, reject.record) for reject in rejects]) == (1, [(4, line)])
    assert "instead of the 4 that #Fields: names" in rejects[0].reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("2025-01-01 x\n", "line 1 is a record before any line #Fields:"),
        ("#Version: 1.0\n2025-01-01 x\n", "line 2 is a record before any line #Fields:"),
        ("#Fields: a A\n1 2\n", r"line 1 \(#Fields:\): column 2 is named 'A', as column 1 is already"),
        ("#Fields: a _line\n1 2\n", "which the platform gives to every row itself"),
        ("#Fields: " + "x " * 101 + "\n", "max_columns"),
    ],
)
def test_a_file_whose_columns_cannot_be_known_is_refused_with_the_line(content: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        parsed(W3C, content)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a=1", "a=2 b=3", "prose", ""]), max_size=40), st.integers(20, 200))
def test_where_blocks_are_cut_changes_no_row_of_pairs(lines: list[str], block: int) -> None:
    content = "".join(f"{line}\n" for line in lines)
    whole = parsed(LOGFMT, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", block)
        assert parsed(LOGFMT, content) == whole


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["1 2", "#Fields: a b", "#Fields: b", "3", "#Date: x", ""]), max_size=40),
    st.integers(20, 200),
)
def test_where_blocks_are_cut_changes_no_row_of_fields(lines: list[str], block: int) -> None:
    content = "#Fields: a b\n" + "".join(f"{line}\n" for line in lines)
    whole = parsed(W3C, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", block)
        assert parsed(W3C, content) == whole
