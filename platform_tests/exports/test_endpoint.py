"""Exports to an HTTP endpoint: a real server that fails in the ways that endpoints do."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from platform_tests.exports.customers import MERGE, change, make
from platform_tests.exports.exporting import exporter, killed
from platform_tests.ingestion.http.server import Answer, Api, Asked, running_api
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.exports.endpoint import Sent, export_to_endpoint
from data_platform.exports.export import TableExport
from data_platform.exports.options import ExportOptions, HttpTarget
from data_platform.exports.progress import read_progress
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

__all__ = ["exporter"]


@dataclass
class Endpoint:
    """A service that keeps rows by their key. `failures` are answers that it gives instead of its own, after it took
    the rows if they are `after`."""

    api: Api
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    failures: list[Answer] = field(default_factory=list)
    after: bool = False

    def answer(self, asked: Asked) -> Answer:
        if self.failures and not self.after:
            return self.failures.pop(0)
        key = asked.headers["Idempotency-Key"]
        assert self.keys.setdefault(key, asked.body) == asked.body
        said = [json.loads(line) for line in asked.body.splitlines()] if b"}\n" in asked.body else asked.json
        said = said.get("records", said) if isinstance(said, dict) else said
        for row in said if isinstance(said, list) else [said]:
            if asked.method == "DELETE" or row.pop("_deleted", False):
                self.rows.pop(row["id"], None)
            else:
                self.rows[row["id"]] = row
        return self.failures.pop(0) if self.failures else Answer(status=204, body=b"")

    def target(self, **options: Any) -> HttpTarget:
        given = {"type": "http", "url": self.api.url, "batch_rows": 2, "deletes": "mark", "patience": "30s", **options}
        return HttpTarget.model_validate(given)

    def names(self) -> dict[int, str]:
        return {number: row["name"] for number, row in sorted(self.rows.items())}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_api(lambda _: Answer()) as api:
        made = Endpoint(api)
        api.answer = made.answer
        yield made


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Remember what was to be slept, and do not."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    return slept


FIVE = "(1, 'Ada'), (2, 'Bob'), (3, 'Cyd'), (4, 'Dan'), (5, 'Eve')"
NAMES = {1: "Ada", 2: "Bob", 3: "Cyd", 4: "Dan", 5: "Eve"}


def export(
    lake: Lakehouse, endpoint: Endpoint, *, full: bool = False, spec: TableExport = MERGE, **options: Any
) -> Sent:
    return export_to_endpoint(lake, spec, endpoint.target(**options), full=full)


def change_three(lake: Lakehouse) -> None:
    change(
        lake,
        "DELETE FROM {} WHERE id = 1",
        "UPDATE {} SET name = 'Rob' WHERE id = 2",
        "INSERT INTO {} VALUES (6, 'Fay', 1, 1)",
    )


AFTER = {2: "Rob", 3: "Cyd", 4: "Dan", 5: "Eve", 6: "Fay"}

WAYS: list[dict[str, Any]] = [
    {},
    {"format": "ndjson", "method": "PUT"},
    {"under": "records", "deletes": "request"},
    {"per": "row", "method": "PATCH", "path": "{table}/{id}", "deletes": "request"},
]


@pytest.mark.parametrize("way", WAYS, ids=["marked", "lines", "under", "rows"])
def test_what_changed_arrives_deletes_included_and_nothing_twice(
    lake: Lakehouse, endpoint: Endpoint, way: dict[str, Any]
) -> None:
    make(lake, values=FIVE)
    first = export(lake, endpoint, **way)
    assert endpoint.names() == NAMES
    assert (first.upserts, first.batches, first.whole) == (5, 3, "the first export")
    endpoint.api.asked.clear()
    assert export(lake, endpoint, **way).unchanged
    assert endpoint.api.asked == []
    change_three(lake)
    again = export(lake, endpoint, **way)
    assert (again.upserts, again.deletes, again.whole) == (2, 1, "")
    assert endpoint.names() == AFTER
    assert {asked.path for asked in endpoint.api.asked} <= {
        "/customers",
        "/customers/1",
        "/customers/2",
        "/customers/6",
    }


def test_deletes_may_be_left_at_the_endpoint(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(lake, values=FIVE)
    export(lake, endpoint, deletes="ignore")
    change_three(lake)
    assert export(lake, endpoint, deletes="ignore").deletes == 0
    assert endpoint.names() == {1: "Ada", **AFTER}


FAILURES = {
    "429": Answer(status=429, headers={"Retry-After": "7"}),
    "500 after it took the rows": Answer(status=500),
    "an answer that is cut": Answer({"ok": True}, lost=5),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_failed_is_sent_again_under_its_key(
    lake: Lakehouse, endpoint: Endpoint, failure: str, naps: list[float]
) -> None:
    make(lake, values=FIVE)
    endpoint.failures, endpoint.after = [FAILURES[failure]] * 2, failure != "429"
    export(lake, endpoint)
    keys = [asked.headers["Idempotency-Key"] for asked in endpoint.api.asked]
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert endpoint.names() == NAMES
    assert failure != "429" or naps == [7, 7]


def test_after_an_endpoint_was_down_the_batches_that_it_acknowledged_are_not_sent_again(
    lake: Lakehouse, endpoint: Endpoint
) -> None:
    make(lake, values=FIVE)
    down = [Answer(status=503)] * 2
    answers = iter([None, *down])

    def answer(asked: Asked) -> Answer:
        failure = next(answers, None)
        return failure or endpoint.answer(asked)

    endpoint.api.answer = answer
    with pytest.raises(PlatformError, match="503 Service Unavailable"):
        export(lake, endpoint, max_retries=1)
    refused = endpoint.api.asked[-1].headers["Idempotency-Key"]
    endpoint.api.asked.clear()
    assert export(lake, endpoint).batches == 2
    assert endpoint.api.asked[0].headers["Idempotency-Key"] == refused
    assert endpoint.names() == NAMES


def test_a_rejected_batch_is_named_by_its_rows_and_what_was_mended_since_is_sent_instead(
    lake: Lakehouse, endpoint: Endpoint
) -> None:
    make(lake, values=FIVE)
    export(lake, endpoint)
    change(lake, "UPDATE {} SET name = name || '!'")
    endpoint.failures = [Answer(status=204, body=b""), Answer({"errors": [{"row": 1, "said": "no name"}]}, status=422)]
    endpoint.after = True
    with pytest.raises(PlatformError, match=r"batch 2 of 3 \(rows 3 to 4\).*422 Unprocessable.*no name"):
        export(lake, endpoint)
    endpoint.failures = [Answer(status=422)]
    endpoint.after = False
    endpoint.api.asked.clear()
    with pytest.raises(PlatformError, match="batch 2 of 3"):
        export(lake, endpoint)
    # The row that the endpoint has from the version that it did not take to its end is gone, too.
    change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'Cyd' WHERE id = 3")
    done = export(lake, endpoint)
    assert done.whole == ""
    assert endpoint.names() == {2: "Bob!", 3: "Cyd", 4: "Dan!", 5: "Eve!"}


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "Look at `url`"), (413, "Lower `batch_rows`"), (302, "put that one into `url`"), (207, "207 Multi-Status")],
)
def test_answers_that_acknowledge_nothing_are_not_taken_for_it(
    lake: Lakehouse, endpoint: Endpoint, status: int, hint: str
) -> None:
    make(lake, values=FIVE)
    endpoint.failures = [Answer({}, status=status, headers={"Location": "/elsewhere"})]
    with pytest.raises(PlatformError, match=hint):
        export(lake, endpoint)
    assert len(endpoint.api.asked) == 1
    export(lake, endpoint)
    assert endpoint.names() == NAMES


def test_what_a_rejection_says_is_withheld_where_the_table_has_private_columns(
    lake: Lakehouse, endpoint: Endpoint
) -> None:
    make(lake)
    endpoint.failures = [Answer({"error": "Ada is no name"}, status=400)]
    with pytest.raises(PlatformError, match="not shown") as error:
        export(lake, endpoint, spec=replace(MERGE, private=True), auth={"type": "bearer", "token": "top-secret-token"})
    assert "Ada" not in str(error.value)
    assert "top-secret-token" not in str(error.value)
    assert endpoint.api.asked[0].headers["Authorization"] == "Bearer top-secret-token"


def test_exports_that_are_killed_at_any_point_end_with_the_rows_of_the_table(
    settings: Settings, endpoint: Endpoint, exporter: "subprocess.Popen[str]"
) -> None:
    with open_lakehouse(settings) as lake:
        make(lake, values=FIVE)
    for point in ["kept", "answer", "kept", "answer", "kept"]:
        assert killed(exporter, settings, "http", endpoint.api.url, "merge", point)
    assert not killed(exporter, settings, "http", endpoint.api.url, "merge", "")
    assert endpoint.names() == NAMES
    # As many keys as batches: what was sent again had the key that it had before.
    assert len(endpoint.keys) == 3
    assert len(endpoint.api.asked) == 5


def test_a_version_that_was_begun_is_ended_before_the_newest_is_sent(
    settings: Settings, endpoint: Endpoint, exporter: "subprocess.Popen[str]"
) -> None:
    with open_lakehouse(settings) as lake:
        make(lake, values=FIVE)
    assert killed(exporter, settings, "http", endpoint.api.url, "merge", "answer")
    with open_lakehouse(settings) as lake:
        change_three(lake)
        done = export(lake, endpoint)
        assert "was ended first" in done.notes[0]
        assert endpoint.names() == AFTER


def test_the_version_that_was_sent_last_is_pinned_and_no_other(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(lake)
    first = export(lake, endpoint).origin.snapshot
    assert ledger.pinned_snapshots(lake) == {first}
    change_three(lake)
    second = export(lake, endpoint).origin.snapshot
    assert ledger.pinned_snapshots(lake) == {second}


def test_what_the_endpoint_holds_is_not_guessed(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(lake)
    snapshot = export(lake, endpoint).origin.snapshot
    change_three(lake)
    lake.connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{snapshot}])")
    with pytest.raises(PlatformError, match=r"the version that was sent last has expired. Nothing was sent"):
        export(lake, endpoint)
    done = export(lake, endpoint, full=True)
    assert done.notes == (
        "Rows that are gone were not deleted at the endpoint: the version that was sent last has expired.",
    )
    with pytest.raises(PlatformError, match=r"it was sent to .*/customers up to now"):
        export(lake, endpoint, path="people")
    _, state = read_progress(lake, "crm", "customers")
    assert state.bases == (done.origin.snapshot,)


def test_all_rows_are_sent_under_other_keys_when_asked_for_and_when_a_column_is_added(
    lake: Lakehouse, endpoint: Endpoint
) -> None:
    make(lake)
    export(lake, endpoint)
    assert export(lake, endpoint, full=True).whole == "as asked for"
    assert len(endpoint.keys) == 2
    change(lake, "ALTER TABLE {} ADD COLUMN age INTEGER", "DELETE FROM {} WHERE id = 2")
    done = export(lake, endpoint)
    assert (done.whole, done.deletes) == ("its columns changed", 1)
    assert endpoint.rows == {1: {"id": 1, "name": "Ada", "age": None}}


def test_values_are_written_so_that_no_reader_rounds_them(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(
        lake,
        "id BIGINT, name VARCHAR, total DECIMAL(20, 4), large HUGEINT, share DOUBLE, day DATE, moment TIMESTAMPTZ, "
        "data BLOB, tags DECIMAL(20, 2)[], said JSON, paid BOOLEAN",
        "(9007199254740993, 'a\"b\n', 0.5, 1, 0.1, DATE '2024-02-29', TIMESTAMPTZ '2024-02-29 12:00:00.5+02', "
        "'\\xff'::BLOB, [0.25::DECIMAL(20, 2)], '{\"a\": 1}', true)",
    )
    export(lake, endpoint)
    assert endpoint.rows[9007199254740993] == {
        "id": 9007199254740993,
        "name": 'a"b\n',
        "total": "0.5000",
        "large": "1",
        "share": 0.1,
        "day": "2024-02-29",
        "moment": "2024-02-29T10:00:00.500000Z",
        "data": "/w==",
        "tags": ["0.25"],
        "said": {"a": 1},
        "paid": True,
    }


def test_infinities_are_refused_before_anything_is_sent(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(lake, "id BIGINT, share DOUBLE", "(1, 'nan'::DOUBLE)")
    with pytest.raises(PlatformError, match=r"share \(DOUBLE\) has infinities or NaN"):
        export(lake, endpoint)
    assert endpoint.api.asked == []


@pytest.mark.parametrize(
    "column", ["share DATE", "share TIMESTAMP", "share TIMESTAMPTZ"], ids=["date", "time", "time with a zone"]
)
@pytest.mark.parametrize("value", ["infinity", "0044-03-15 (BC)", "12024-01-01"])
def test_times_that_iso_8601_does_not_have_are_refused(
    lake: Lakehouse, endpoint: Endpoint, column: str, value: str
) -> None:
    make(lake, f"id BIGINT, {column}", f"(1, '{value}')")
    with pytest.raises(PlatformError, match=r"share \(.*\) has infinities, or times before the year 1 or after 9999"):
        export(lake, endpoint)
    assert endpoint.api.asked == []


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_would_name_another_place_than_its_row_is_refused(
    lake: Lakehouse, endpoint: Endpoint, key: str
) -> None:
    make(lake, "id VARCHAR, name VARCHAR", f"('a', 'Ada'), ('{key}', 'Bob')")
    way: dict[str, Any] = {"per": "row", "path": "{table}/{id}", "deletes": "request"}
    with pytest.raises(PlatformError, match=r"id \(VARCHAR\) has no text, or `.` or `..`.*1 rows"):
        export(lake, endpoint, **way)
    assert endpoint.api.asked == []


def test_placeholders_that_nothing_stands_for_are_refused(lake: Lakehouse, endpoint: Endpoint) -> None:
    make(lake)
    mistaken: list[dict[str, Any]] = [{"path": "{table}/{id}"}, {"per": "row", "path": "{name}"}]
    for options in mistaken:
        with pytest.raises(PlatformError, match="It may name table"):
            export(lake, endpoint, **options)


MISTAKES = [
    ({"per": "row", "format": "ndjson"}, "merge", "`format` and `under` are for batches"),
    ({"format": "ndjson", "under": "rows"}, "merge", "lines stand under no name"),
    ({}, "replace", "`mode: merge` for customers"),
    ({"url": "https://user:pass@host"}, "merge", "no password"),
]


@pytest.mark.parametrize(("options", "mode", "reason"), MISTAKES, ids=["rows", "lines", "mode", "url"])
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], mode: str, reason: str) -> None:
    to = {"type": "http", "url": "https://crm.example.org", "deletes": "mark", **options}
    tables = {"customers": {"from": "staged/shop/customers", "mode": mode}}
    with pytest.raises(ValidationError, match=reason):
        ExportOptions.model_validate({"to": to, "tables": tables})
