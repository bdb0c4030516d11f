"""Logs by a pattern: lines as servers write them, those that match nothing, and those that continue others."""

import io
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.conformance.logs import SYSTEMS
from pydantic import TypeAdapter, ValidationError

from data_platform.cleaning import instant
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


def test_a_client_behind_proxies_is_all_of_the_addresses_that_were_passed_on() -> None:
    found = row('192.0.2.1, 198.51.100.7 - - [01/Jan/2025:00:00:00 +0000] "GET / HTTP/1.1" 200 5', "common")
    assert (found["client_ip"], "ident" in found, "user" in found) == ("192.0.2.1, 198.51.100.7", False, False)


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


def test_only_lines_that_are_said_to_continue_a_record_are_added_to_it() -> None:
    content = "2025-01-01 10:00 ERROR boom\n  at a.b(c)\nCaused by: x\n  at d\n*** restarted ***\n  by eve\n"
    content += "2025-01-01 10:01 INFO ok\n"
    rows, rejects = parsed(content, pattern=ERRORS, continued="message", continuing=r"^\s|^Caused by")
    assert [(one["message"], one["_line"]) for one in rows] == [
        ("boom\n  at a.b(c)\nCaused by: x\n  at d", 1),
        ("ok", 7),
    ]
    assert [(reject.line, reject.record) for reject in rejects] == [(5, "*** restarted ***"), (6, "  by eve")]
    assert "none of those that continue a record" in rejects[0].reason


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
    for options in ({}, {"continued": "message"}, {"continued": "message", "continuing": "^ "}):
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
        ({"pattern": "%{NOBODY:x}"}, r"there is no part %\{NOBODY\}; there are: CTIME, DATA, DATE"),
        ({"pattern": "(%{IP:client}"}, "it is no regular expression: unclosed group"),
        ({"pattern": r"%{IP:client}(?=x)"}, "it is no regular expression: look-around"),
        ({"pattern": "%{A:x}", "parts": {"A": "%{B}", "B": "%{A}"}}, "refer to each other in a circle"),
        ({"pattern": "%{IP:_line}"}, "which the platform gives to every row itself"),
        ({"pattern": "%{IP:a} %{IP:A}"}, "as column 1 is already"),
        ({"pattern": "%{IP:a}", "continued": "b"}, "there is no column 'b'; there are: a"),
        ({"pattern": "%{IP:a}", "continuing": "^ "}, "it needs `continued`"),
        ({"pattern": "%{IP:a}", "continued": "a", "continuing": "("}, "continuing is no regular expression: unclosed"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python({"type": "log", **options})


LINES = {
    "Android": ("05-02 08:15:00.250  1201  1377 V AudioHub: route changed: speaker", "05-02T08:15:00.25", "AudioHub"),
    "Apache": ("[Fri May 02 08:15:00 2025] [notice] worker ready: /srv/www", "2025-05-02T08:15", None),
    "BGL": (
        "- 1746173700 2025.05.02 R00-M0-N1-C:J2 2025-05-02-08.15.00.1 R00-M0-N1-C:J2 RAS KERNEL FAILURE check",
        "2025-05-02T08:15",
        "RAS",
    ),
    "HDFS": ("250502 081500 33 INFO dfs.Node$Sender: block blk_-7 sent", "2025-05-02T08:15", "dfs.Node$Sender"),
    "HPC": ("412 node-7 unix.hw net.down 1746173700 1 link is down", "2025-05-02T08:15", "node-7"),
    "Hadoop": (
        "2025-05-02 08:15:00,000 WARN [IPC Server [2] on 9000] org.example.Job$1: slow: 7 s",
        "2025-05-02T08:15",
        "IPC Server [2] on 9000",
    ),
    "HealthApp": ("20250502-8:15:0:7|Pulse|3007|rate 61|ok", "2025-05-02T08:15", "Pulse"),
    "Linux": ("May  2 08:15:00 web7 sshd(pam)[411]: session closed", "05-02T08:15", "sshd(pam)"),
    "Mac": (
        "May  2 08:15:00 desk com.example.agent[1] (com.example.job.9): exited: 2",
        "05-02T08:15",
        "com.example.job.9",
    ),
    "OpenSSH": ("May 22 08:15:00 web7 sshd[411]: Invalid user eve from 192.0.2.7", "05-22T08:15", "411"),
    "OpenStack": (
        "nova-api.log.2025-05-02 2025-05-02 08:15:00.500 81 INFO nova.wsgi [req-1 - - -] 192.0.2.7 ok [7]",
        "2025-05-02T08:15:00.5",
        "req-1 - - -",
    ),
    "Proxifier": ("[05.02 08:15:00] mail.exe *64 - mx.example:25 close, 7 bytes", "05-02T08:15", "mail.exe *64"),
    "Spark": ("25/05/02 08:15:00 ERROR sched.Dag: Job 7 failed: x", "2025-05-02T08:15", "sched.Dag"),
    "Thunderbird": (
        "- 1746173700 2025.05.02 dn7 May 2 08:15:00 dn7/dn7 crond(pam_unix)[29]: opened for root",
        "2025-05-02T08:15",
        "crond(pam_unix)",
    ),
    "Windows": ("2025-05-02 08:15:00, Info                  CBS    Session: 7 begun", "2025-05-02T08:15", "CBS"),
    "Zookeeper": (
        "2025-05-02 08:15:00,000 - WARN  [Worker[id=1]/0:0:0:2181:Sender@688] - leaving",
        "2025-05-02T08:15",
        "688",
    ),
}
"""Lines made up in the form of each system, when they were written (in UTC, without a year where they have none), and
a value of a column."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_well_known_systems_write_is_read_by_a_pattern_of_a_few_words_and_dated(system: str) -> None:
    line, when, value = LINES[system]
    how = SYSTEMS[system]
    found = row(line, how.pattern)
    assert "message" in found
    assert value is None or value in found.values()
    year = None if how.year is None else 2025
    instant_of = pl.select(instant(pl.lit(found["at"]), how.times, time_zone="UTC", year=year)).item()
    assert instant_of == datetime.fromisoformat(when if when.startswith("2025") else f"2025-{when}").replace(tzinfo=UTC)
    assert parsed(f"no such line\n{line}\n", pattern=how.pattern)[1][0].line == 1


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (
            "apache_error",
            "[Fri May 02 08:15:00.123456 2025] [core:error] [pid 7:tid 70] [client 192.0.2.7:443] AH00128: no file",
            {"module": "core", "level": "error", "process": "7", "thread": "70", "client_port": "443"},
        ),
        ("apache_error", "[Fri May 02 08:15:00 2025] [:trace1] [pid 7] [client ::1] x", {"client_ip": "::1"}),
        (
            "nginx_error",
            '2025/05/02 08:15:00 [error] 7#70: *9 no file (2), client: 192.0.2.7, server: a, request: "GET / HTTP/1.1"',
            {"message": "no file (2)", "client_ip": "192.0.2.7", "request": "GET / HTTP/1.1"},
        ),
        ("nginx_error", "2025/05/02 08:15:00 [notice] 7#70: start worker process 71", {"connection": None}),
        ("log4j", "2025-05-02 08:15:00,000 INFO org.example.App: up", {"thread": None, "class": "org.example.App"}),
        ("log4j", "2025-05-02T08:15:00.000Z ERROR [main] a.B - down", {"class": "a.B", "message": "down"}),
        ("macos", "May  2 08:15:00 desk --- last message repeated 2 times ---", {"program": None}),
    ],
)
def test_logs_that_go_by_a_name_are_read_in_the_forms_that_programs_have(
    pattern: str, line: str, expected: dict[str, str | None]
) -> None:
    found = row(line, pattern)
    assert {name: found.get(name) for name in expected} == expected


def test_every_log_of_the_conformance_run_has_a_line_here() -> None:
    assert LINES.keys() == SYSTEMS.keys()
