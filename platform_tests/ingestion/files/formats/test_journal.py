"""Exports of the journal: entries of fields, those with a length too, and what is damaged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import parse

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import journal

ENTRY = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1735689600000001\nPRIORITY=6\nMESSAGE=up\n"


def by_length(name: str, value: bytes) -> bytes:
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def test_an_entry_is_a_row_with_a_column_for_each_field() -> None:
    table, rejects = parse("journal", ENTRY + b"\n" + b"__CURSOR=x\nMESSAGE=a=b \n_PID=7\n\n\n")
    assert rejects == []
    assert [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()] == [
        {
            "__CURSOR": "s=1;i=2",
            "__REALTIME_TIMESTAMP": "1735689600000001",
            "PRIORITY": "6",
            "MESSAGE": "up",
            "_line": 1,
        },
        {"__CURSOR": "x", "MESSAGE": "a=b ", "_PID": "7", "_line": 2},
    ]


def test_a_value_of_several_lines_is_told_by_its_length_and_one_that_is_there_twice_is_an_array() -> None:
    content = b"__CURSOR=x\n" + by_length("MESSAGE", b"one\n\ntwo=2\x1b[0m\n") + b"TAG=a\nTAG=b\nTAG=c\nEMPTY=\n\n"
    (row,) = parse("journal", content)[0].to_pylist()
    assert (row["MESSAGE"], row["TAG"], row["EMPTY"]) == ("one\n\ntwo=2\x1b[0m\n", '["a","b","c"]', "")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"__CURSOR=x\nno field\n\n", "a line of the entry is no field"),
        (b"__CURSOR=x\n=7\n\n", "a line of the entry is no field"),
        (b"__CURSOR=x\n" + by_length("MESSAGE", b"a\xff") + b"\n", "the field MESSAGE holds bytes that are not utf-8"),
        (b"__CURSOR=x\n_LINE=7\n\n", "no column can be named '_LINE'"),
    ],
)
def test_an_entry_that_cannot_be_read_is_a_reject_and_the_others_are_read(entry: bytes, reason: str) -> None:
    table, rejects = parse("journal", ENTRY + b"\n" + entry + ENTRY + b"\n")
    assert table["_line"].to_pylist() == [1, 3]
    assert [one.line for one in rejects] == [2]
    assert reason in rejects[0].reason
    assert "__CURSOR=x" in rejects[0].record


def test_an_entry_without_an_end_is_a_reject() -> None:
    table, rejects = parse("journal", ENTRY + b"\n" + ENTRY[:-3])
    assert (table.num_rows, rejects[0].reason) == (1, "the entry has no empty line at its end: it is cut off")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (by_length("MESSAGE", b"abc")[:-2], "cut off within the field MESSAGE"),
        (b"MESSAGE", "cut off within the field MESSAGE"),
        (b"MESSAGE\n\x02\0\0", "cut off within the field MESSAGE"),
        (by_length("MESSAGE", b"abc")[:-1] + b"d\n\n", "the field MESSAGE is longer than it says"),
        (b"MESSAGE\n" + b"\xff" * 8 + b"abc\n\n", "says that it has 18,446,744,073,709,551,615 bytes"),
    ],
)
def test_a_length_that_is_none_refuses_the_file(content: bytes, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        parse("journal", ENTRY + b"\n" + content)


def test_what_is_too_long_or_too_wide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlatformError, match="entry 1, with those before it: 4 columns"):
        parse("journal", ENTRY + b"\n", 3)
    monkeypatch.setattr(journal, "LONGEST", 1_000)
    with pytest.raises(PlatformError, match="the field A has more than"):
        parse("journal", b"A=" + b"x" * 2_000 + b"\n\n")
    with pytest.raises(PlatformError, match="an entry has more than"):
        parse("journal", b"A=x\n" * 2_000)


FIELDS = st.lists(st.tuples(st.sampled_from(["A", "B_2", "MESSAGE"]), st.text(max_size=5)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(FIELDS, max_size=4))
def test_every_value_comes_back_whatever_it_holds(entries: list[list[tuple[str, str]]]) -> None:
    content = b"".join(
        b"".join(by_length(name, value.encode()) for name, value in dict(entry).items()) + b"\n" for entry in entries
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "ROWS", 2)
        table, rejects = parse("journal", content)
    assert rejects == []
    found = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    assert found == [dict(entry) | {"_line": number} for number, entry in enumerate(entries, 1)]
