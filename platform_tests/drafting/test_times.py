"""Times as logs write them are drafted as instants: by formats that read every value, a zone and a year if need be."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from data_platform.contracts.conform import converted
from data_platform.drafting.draft import Column, Draft, Wish, draft_column, draft_table
from data_platform.drafting.files import file_tables
from data_platform.drafting.texts import staging_text
from data_platform.drafting.types import INSTANT_TYPE
from data_platform.ingestion.files.formats.grammar import PATTERNS, TIMES


def column(name: str, *texts: str) -> Column:
    return draft_column(name, name, pl.Series(name, texts), pa.string(), None, whole=True, blanks=False)


def drafted(folder: Path, name: str, content: str) -> Draft:
    folder.joinpath(name).write_text(content)
    (table,) = file_tables(folder, [], folder / "spool")
    return draft_table(table, Wish())


def staged(draft: Draft, loaded: str = "2025-01-02T00:00:00Z") -> list[dict[str, Any]]:
    """The sample through the drafted staging function, its instants typed as the contract has them."""
    text = staging_text("web", [draft])
    assert text is not None
    module: dict[str, Any] = {}
    exec(text, module)  # noqa: S102 - what was drafted is to run
    raw = pl.DataFrame(pl.from_arrow(draft.profile.rows)).lazy()
    raw = raw.with_columns(pl.lit(loaded).str.to_datetime(time_zone="UTC").alias("_loaded_at"))
    found: pl.DataFrame = module[draft.name](raw).collect()
    instants = [one.name for one in draft.columns if one.annotation == "Instant"]
    return found.with_columns(converted(found[name], INSTANT_TYPE).alias(name) for name in instants).to_dicts()


def test_an_access_log_is_typed_from_its_first_lines(tmp_path: Path) -> None:
    line = '192.0.2.1 - - [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1" 200 {} "-" "curl"\n'
    draft = drafted(tmp_path, "access.log", line.format(5) + line.format("-"))
    types = {one.name: one.annotation for one in draft.columns}
    assert (types["at"], types["status"], types["bytes"]) == ("Instant", "int", "int")
    assert staged(draft)[0]["at"] == datetime(2025, 10, 10, 20, 55, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        ("system.log", datetime(2024, 12, 31, 23, 0, 1, tzinfo=UTC), "not after its load"),
        (
            "system-2024-02-01.log",
            datetime(2023, 12, 31, 23, 0, 1, tzinfo=UTC),
            "not after the date in its file's name",
        ),
    ],
)
def test_a_syslog_has_its_year_from_the_name_of_its_file_or_from_its_load(
    tmp_path: Path, name: str, expected: datetime, said: str
) -> None:
    draft = drafted(tmp_path, name, "Dec 31 23:00:01 db1 su[12]: failed\n" * 2)
    (at,) = [one for one in draft.columns if one.name == "at"]
    assert staged(draft)[0]["at"] == expected
    assert "taken as UTC" in " ".join(at.notes)
    assert said in " ".join(at.notes)


def test_an_objects_seconds_since_1970_are_an_instant_and_a_duration_is_none(tmp_path: Path) -> None:
    lines = (
        '{"ts": 1735689600.25, "time_ms": 1200, "level": "info"}\n{"ts": 1735689601, "time_ms": 7, "level": "warn"}\n'
    )
    draft = drafted(tmp_path, "app.jsonl", lines)
    assert {one.name: one.annotation for one in draft.columns} == {"ts": "Instant", "time_ms": "int", "level": "str"}
    assert [row["ts"].isoformat() for row in staged(draft)] == [
        "2025-01-01T00:00:00.250000+00:00",
        "2025-01-01T00:00:01+00:00",
    ]


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("pod.log", "2025-01-01T10:00:00.123456789Z stdout F up\n" * 2, "at"),
        ("docker.log", '{"log": "up\\n", "stream": "stdout", "time": "2025-01-01T10:00:00.123456789Z"}\n' * 2, "at"),
        ("app.jsonl", '{"time": "2025-01-01T10:00:00.123456789Z", "msg": "up"}\n' * 2, "time"),
        ("app.log", "ts=2025-01-01T10:00:00.123456789Z ms=7 msg=up\n" * 2, "ts"),
        ("journal.export", "__CURSOR=a\n__REALTIME_TIMESTAMP=1735725600123456\n\n" * 2, "realtime_timestamp"),
        ("journal.json", '{"MESSAGE": "up", "__REALTIME_TIMESTAMP": "1735725600123456"}\n' * 2, "realtime_timestamp"),
    ],
)
def test_times_of_containers_and_journals_are_instants_to_the_microsecond(
    tmp_path: Path, name: str, content: str, column: str
) -> None:
    draft = drafted(tmp_path, name, content)
    assert staged(draft)[0][column] == datetime(2025, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert [one.annotation for one in draft.columns if one.name == "ms"] in ([], ["int"])


def test_the_time_since_a_machine_started_is_no_instant() -> None:
    assert column("monotonic_timestamp", "1735689600").annotation == "int"


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("10/Oct/2025:13:55:36 -0700", ("%d/%b/%Y:%H:%M:%S %z",)),
        ("Tue, 04 Feb 2025 04:47:44 GMT", ("%a, %d %b %Y %H:%M:%S GMT",)),
        ("2025/01/02 03:04:05.5", ("%Y/%m/%d %H:%M:%S%.f",)),
        ("20250102T030405Z", ("%Y%m%dT%H%M%SZ",)),
    ],
)
def test_notations_that_can_be_read_in_one_way_are(text: str, formats: tuple[str, ...]) -> None:
    found = column("x", text)
    assert found.times is not None
    assert (found.annotation, found.times.formats) == ("Instant", formats)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("at", ["05/06/2025 10:00", "06/06/2025 10:00"]),
        ("at", ["2025/01/02 03:04:05", "yesterday"]),
        ("at", ["2025/13/02 03:04:05"]),
        ("order_number", ["1735689600", "1735689601"]),
        ("at", ["1735689600", "1735689601000"]),
        ("client_ip", ["10/Oct/2025:13:55:36 -0700"]),
    ],
)
def test_what_can_be_read_in_two_ways_or_is_not_read_throughout_is_no_instant(name: str, texts: list[str]) -> None:
    found = column(name, *texts)
    assert (found.times, found.annotation == "Instant") == (None, False)


def test_a_comma_before_the_fraction_needs_no_format() -> None:
    found = column("at", "2025-01-02 03:04:05,678")
    assert (found.annotation, found.times) == ("Instant", None)


def test_every_pattern_with_a_name_says_how_its_times_are_written() -> None:
    assert TIMES.keys() == PATTERNS.keys()
