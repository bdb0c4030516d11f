"""Logs of containers: parts of lines put together by stream, in both forms, and what is no line of a container."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import parse
from pydantic import ValidationError

from data_platform.ingestion.files.formats import container_log, text

AT = "2025-01-01T10:00:0{}.123456789Z"


def cri(second: int, stream: str, tag: str, message: str) -> str:
    return f"{AT.format(second)} {stream} {tag} {message}\n"


def docker(second: int, stream: str, message: str, **more: Any) -> str:
    return json.dumps({"log": message, "stream": stream, **more, "time": AT.format(second)}) + "\n"


def rows(content: str, **options: Any) -> list[tuple[str, str, int]]:
    table, rejects = parse("container_log", content.encode(), **options)
    assert rejects == []
    return [(row["stream"], row["message"], row["_line"]) for row in table.to_pylist()]


def test_the_lines_of_kubernetes_have_time_stream_and_message() -> None:
    content = cri(0, "stdout", "F", "a  b ") + cri(1, "stderr", "F:tag", "c") + f"{AT.format(2)} stdout F\n"
    table, rejects = parse("container_log", content.encode())
    assert rejects == []
    assert table.to_pylist() == [
        {"at": AT.format(0), "stream": "stdout", "message": "a  b ", "attributes": None, "_line": 1},
        {"at": AT.format(1), "stream": "stderr", "message": "c", "attributes": None, "_line": 2},
        {"at": AT.format(2), "stream": "stdout", "message": "", "attributes": None, "_line": 3},
    ]


def test_the_lines_of_docker_have_their_attributes_too() -> None:
    content = docker(0, "stdout", 'say "hi"\r\n', attrs={"tag": "web"})
    assert parse("container_log", content.encode())[0].to_pylist() == [
        {"at": AT.format(0), "stream": "stdout", "message": 'say "hi"', "attributes": '{"tag": "web"}', "_line": 1}
    ]


@pytest.mark.parametrize("form", ["cri", "docker"])
def test_parts_are_put_together_though_those_of_the_other_stream_lie_between(form: str) -> None:
    parts = [("stdout", "P", "one "), ("stderr", "P", "alas "), ("stdout", "P", "two "), ("stderr", "F", "alack")]
    parts += [("stdout", "F", "three"), ("stdout", "F", "four")]
    content = "".join(
        cri(n, stream, tag, message) if form == "cri" else docker(n, stream, message + "\n" * (tag == "F"))
        for n, (stream, tag, message) in enumerate(parts)
    )
    assert rows(content) == [("stdout", "one two three", 1), ("stderr", "alas alack", 2), ("stdout", "four", 6)]


def test_parts_without_an_end_are_a_row_as_far_as_they_go() -> None:
    assert rows(cri(0, "stdout", "P", "half") + cri(1, "stderr", "F", "x")) == [
        ("stderr", "x", 2),
        ("stdout", "half", 1),
    ]


def test_a_stack_trace_is_one_record_of_its_stream() -> None:
    lines = [
        ("stderr", "boom"),
        ("stdout", "GET /"),
        ("stderr", "  at a.b"),
        ("stderr", "Caused by: x"),
        ("stderr", "ok"),
    ]
    content = "".join(cri(0, stream, "F", message) for stream, message in lines)
    assert rows("".join([cri(0, "stderr", "F", "  orphan"), content]), continuing=r"^\s|^Caused by") == [
        ("stderr", "  orphan", 1),
        ("stderr", "boom\n  at a.b\nCaused by: x", 2),
        ("stdout", "GET /", 3),
        ("stderr", "ok", 6),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2025-01-01T10:00:00Z stdin F x", "is none of a container"),
        ("2025-01-01T10:00:00Z stdout X x", "is none of a container"),
        ("prose", "is none of a container"),
        ('{"log": "x\\n"}', "has no text in `log` and `time`"),
        ('{"a": 1}', "has no text in `log` and `time`"),
        ('{"log": ', "not JSON"),
    ],
)
def test_what_is_no_line_of_a_container_is_a_reject_and_breaks_no_record(line: str, reason: str) -> None:
    content = f"{cri(0, 'stdout', 'P', 'a')}{line}\n{cri(1, 'stdout', 'F', 'b')}"
    table, rejects = parse("container_log", content.encode())
    assert table["message"].to_pylist() == ["ab"]
    assert [(one.line, one.record) for one in rejects] == [(2, line)]
    assert reason in rejects[0].reason


def test_a_record_that_never_ends_is_cut_and_nothing_of_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK", 1_000)
    monkeypatch.setattr(container_log, "LONGEST", 3_000)
    content = cri(0, "stdout", "P", "x" * 100) * 100
    found = rows(content)
    assert len(found) > 1
    assert sum(len(message) for _, message, _ in found) == 10_000
    assert max(len(message) for _, message, _ in found) < 4_000


def test_an_expression_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="continuing is no regular expression"):
        parse("container_log", b"", continuing="(")


PART = st.tuples(st.sampled_from(["stdout", "stderr"]), st.booleans(), st.sampled_from(["a", " b", "c" * 300, ""]))


@settings(max_examples=40, deadline=None)
@given(st.lists(PART, min_size=1, max_size=12), st.booleans())
def test_every_message_is_there_whatever_the_blocks(parts: list[tuple[str, bool, str]], by_docker: bool) -> None:
    expected: list[tuple[str, str, int]] = []
    waiting: dict[str, tuple[int, str]] = {}
    content = ""
    for number, (stream, ends, message) in enumerate(parts, 1):
        content += docker(0, stream, message + "\n" * ends) if by_docker else cri(0, stream, "PF"[ends], message)
        first, before = waiting.pop(stream, (number, ""))
        if ends:
            expected.append((stream, before + message, first))
        else:
            waiting[stream] = (first, before + message)
    expected += [(stream, message, first) for stream, (first, message) in waiting.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", 400)
        assert sorted(rows(content)) == sorted(expected)
