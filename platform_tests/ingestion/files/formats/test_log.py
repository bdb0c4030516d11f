"""Logs by a pattern: lines as servers write them, those that match nothing, and those that continue others."""

import io
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_platform.ingestion.files.formats import Format, FormatOptions, Reject, read, text

ADAPTER: TypeAdapter[FormatOptions] = TypeAdapter(Format)
ERRORS = "%{ISO8601:at} %{LEVEL:level} %{GREEDYDATA:message}"


def parsed(content: str | bytes, **options: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    blocks = list(read(ADAPTER.validate_python({"type": "log", **options}), stream))
    return pa.concat_tables([block.rows for block in blocks]).to_pylist(), [
        reject for block in blocks for reject in block.rejects
    ]


def row(content: str, pattern: str) -> dict[str, Any]:
    """The values of one line, without those that it has not."""
    rows, rejects = parsed(content + "\n", pattern=pattern)
    assert rejects == []
    return {name: value for name, value in rows[0].items() if value is not None and name != "_line"}


def test_a_line_of_a_web_server_is_taken_apart() -> None:
    line = '192.0.2.1 - eve [10/Oct/2025:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 200 2326'
    line += ' "https://x.example/" "An \\"agent\\""'
    assert row(line, "combined") == {
        "client_ip": "192.0.2.1",
        "user": "eve",
        "at": "10/Oct/2025:13:55:36 -0700",
        "method": "GET",
        "target": "/a?b=c",
        "http_version": "1.1",
        "status": "200",
        "bytes": "2326",
        "referer": "https://x.example/",
        "user_agent": 'An \\"agent\\"',
    }


@pytest.mark.parametrize(
    "request_line", ["\\x16\\x03\\x01", "-", "", "GET /two words HTTP/1.1", 'GET /\\"quoted\\"', "OPTIONS"]
)
def test_a_request_that_is_none_stays_as_it_was_sent(request_line: str) -> None:
    line = f'2001:db8::1 - - [01/Jan/2025:00:00:00 +0000] "{request_line}" 400 -'
    found = row(line, "common")
    assert (found["client_ip"], found["status"], "bytes" in found) == ("2001:db8::1", "400", False)
    assert found.get("request", f"{found.get('method')} {found.get('target')}") == request_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "<34>Oct 11 22:14:15 db1 su[12]: 'su root' failed",
            {"priority": "34", "at": "Oct 11 22:14:15", "host": "db1", "program": "su", "process": "12"},
        ),
        ("Oct  1 02:14:15 db1 kernel: usb 1-1: new", {"at": "Oct  1 02:14:15", "host": "db1", "program": "kernel"}),
        ("2025-01-01T00:00:00.123456+01:00 db1 cron[7]: x", {"at": "2025-01-01T00:00:00.123456+01:00", "process": "7"}),
        ("Feb  3 04:05:06 db1 last message repeated 3 times", {"message": "last message repeated 3 times"}),
    ],
)
def test_syslog_is_read_as_programs_have_always_written_it(line: str, expected: dict[str, str]) -> None:
    found = row(line, "syslog")
    assert {name: found.get(name) for name in expected} == expected


def test_the_later_syslog_has_its_structured_data_as_one_text() -> None:
    data = '[meter@32473 unit="3" note="a \\] b \\" c"][more x="y"]'
    line = f"<165>1 2025-10-11T22:14:15.003Z db1.example app 12 ID47 {data} \ufeffAll is well"
    found = row(line, "rfc5424")
    assert (found["data"], found["message"], found["message_id"]) == (data, "All is well", "ID47")
    assert row("<34>1 - - - - - -", "rfc5424") == {"priority": "34", "version": "1"}


def test_a_line_that_matches_nothing_is_a_reject_with_its_number_and_empty_ones_are_no_records() -> None:
    rows, rejects = parsed("2025-01-01 10:00 INFO a\n\nprose\n2025-01-01 10:01 warn b\r\n", pattern=ERRORS)
    assert [(one["level"], one["message"], one["_line"]) for one in rows] == [("INFO", "a", 1), ("warn", "b", 4)]
    assert rejects == [Reject(3, "prose", "the line does not match the pattern")]


def test_bytes_of_another_encoding_are_a_reject_and_the_rest_is_read() -> None:
    rows, rejects = parsed(b"2025-01-01 10:00 INFO a\n2025-01-01 10:01 INFO \x81\n", pattern=ERRORS)
    assert len(rows) == 1
    assert [reject.line for reject in rejects] == [2]


def test_lines_that_match_nothing_continue_the_record_before_where_that_is_said() -> None:
    trace = "2025-01-01 10:00 ERROR boom\n  at a.b(c)\nCaused by: x\n2025-01-01 10:01 INFO ok\n"
    rows, rejects = parsed("orphan\n" + trace, pattern=ERRORS, continued="message")
    assert [(one["message"], one["_line"]) for one in rows] == [("boom\n  at a.b(c)\nCaused by: x", 2), ("ok", 5)]
    assert [(reject.line, reject.record) for reject in rejects] == [(1, "orphan")]
    assert "no record before it" in rejects[0].reason


def test_a_record_that_is_continued_for_ever_ends_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.ingestion.files.formats.log.LONGEST", 50)
    monkeypatch.setattr(text, "BLOCK", 64)
    content = "2025-01-01 10:00 ERROR boom\n" + "  at somewhere\n" * 100 + "2025-01-01 10:01 INFO ok\n"
    rows, rejects = parsed(content, pattern=ERRORS, continued="message")
    assert [one["message"] for one in rows] == ["boom" + "\n  at somewhere" * 3, "ok"]
    assert len(rejects) == 97
    assert rejects[0].line == 5


@settings(deadline=None)
@given(st.lists(st.sampled_from(["2025-01-01 10:00 INFO x", "  at y", "z", ""]), max_size=40), st.integers(20, 200))
def test_where_blocks_are_cut_changes_nothing(lines: list[str], block: int) -> None:
    content = "".join(f"{line}\n" for line in lines)
    for options in ({}, {"continued": "message"}):
        whole = parsed(content, pattern=ERRORS, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text, "BLOCK", block)
            assert parsed(content, pattern=ERRORS, **options) == whole


def test_a_file_without_a_line_has_the_columns_of_the_pattern() -> None:
    (first, *_) = read(ADAPTER.validate_python({"type": "log", "pattern": ERRORS}), io.BytesIO(b""))
    assert first.rows.column_names == ["at", "level", "message", "_line"]


def test_a_pattern_has_parts_of_its_own_and_groups_that_are_named_by_the_expression() -> None:
    rows, _ = parsed(
        "job-17 took 3ms\njob-18 failed\n",
        pattern="%{JOB:job} (?:took (?<ms>[0-9]+)ms|(?P<error>%{WORD}))",
        parts={"JOB": "job-%{INT}"},
    )
    assert [(one["job"], one["ms"], one["error"]) for one in rows] == [
        ("job-17", "3", None),
        ("job-18", None, "failed"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "no column"}, "it names no column"),
        ({"pattern": "%{NOBODY:x}"}, r"there is no part %\{NOBODY\}; there are: DATA, DATE"),
        ({"pattern": "(%{IP:client}"}, "it is no regular expression: unclosed group"),
        ({"pattern": r"%{IP:client}(?=x)"}, "it is no regular expression: look-around"),
        ({"pattern": "%{A:x}", "parts": {"A": "%{B}", "B": "%{A}"}}, "refer to each other in a circle"),
        ({"pattern": "%{IP:_line}"}, "which the platform gives to every row itself"),
        ({"pattern": "%{IP:a} %{IP:A}"}, "as column 1 is already"),
        ({"pattern": "%{IP:a}", "continued": "b"}, "there is no column 'b'; there are: a"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python({"type": "log", **options})


SYSTEMS = {
    "Android": (
        r"%{NOTSPACE:day} %{TIME:at} +%{INT:process} +%{INT:thread} %{LEVEL:level} %{DATA:tag}: %{GREEDYDATA:message}",
        "03-17 16:13:38.811  1702  2395 D WindowManager: printFreezingDisplayLogs",
    ),
    "Apache": (
        r"\[%{DATA:at}\] \[%{LEVEL:level}\] %{GREEDYDATA:message}",
        "[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok",
    ),
    "Hadoop": (
        r"%{ISO8601:at} %{LEVEL:level} \[%{DATA:thread}\] %{NOTSPACE:class}: %{GREEDYDATA:message}",
        "2015-10-18 18:01:47,978 INFO [main] org.example.App: Created",
    ),
    "HDFS": (
        r"%{INT:day} %{INT:at} %{INT:process} %{LEVEL:level} %{NOTSPACE:class}: %{GREEDYDATA:message}",
        "081109 203615 148 INFO dfs.DataNode: PacketResponder 1 terminating",
    ),
    "Zookeeper": (
        r"%{ISO8601:at} - %{LEVEL:level} +\[%{DATA:thread}\] - %{GREEDYDATA:message}",
        "2015-07-29 17:41:44,747 - INFO  [QuorumPeer:1] - Notification",
    ),
    "Spark": (
        r"%{NOTSPACE:day} %{TIME:at} %{LEVEL:level} %{NOTSPACE:class}: %{GREEDYDATA:message}",
        "17/06/09 20:10:40 INFO executor.Backend: Registered",
    ),
    "Windows": (
        r"%{ISO8601:at}, %{LEVEL:level} +%{WORD:component} +%{GREEDYDATA:message}",
        "2016-09-28 04:30:30, Info                  CBS    Loaded",
    ),
    "Proxifier": (
        r"\[%{DATA:at}\] %{DATA:program} - %{NOTSPACE:target} %{GREEDYDATA:message}",
        "[10.30 16:49:06] chrome.exe - proxy.example:5070 open through proxy",
    ),
    "Linux": ("syslog", "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure"),
    "OpenSSH": ("syslog", "Dec 10 06:55:46 LabSZ sshd[24200]: Invalid user webmaster"),
    "Mac": ("syslog", "Jul  1 09:00:55 calvisitor-10-105 kernel[0]: IOThunderbolt"),
}
"""Lines as systems write them, made up in the form of each, and a pattern of a few words for it."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_well_known_systems_write_is_read_by_a_pattern_of_a_few_words(system: str) -> None:
    pattern, line = SYSTEMS[system]
    found = row(line, pattern)
    assert {"at", "message"} <= found.keys()
