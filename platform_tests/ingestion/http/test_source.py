"""Reading tables of an HTTP API: paging, batches, positions, against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.http.server import Answer, Api, Asked, running_api
from platform_tests.ingestion.reading import overlap, probe, read_all, reading
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.http import source as http_module
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.http.source import HttpSource
from data_platform.ingestion.source import DIGEST, HINT, Batch, Probe

ROWS = [{"id": i, "at": f"2013-01-01T00:00:{i:02}Z"} for i in range(10)]
IDS = [str(i) for i in range(10)]


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(lambda _: Answer(ROWS)) as server:
        yield server


def source(api: Api, **table: Any) -> HttpSource:
    told = {"key": ["id"], "contract": "a.B", "path": "things", **table}
    options = HttpOptions(url=f"{api.url}/v1", max_retries=0)
    return HttpSource(options, {"things": HttpTable.model_validate(told)})


def read(api: Api, after: dict[str, str] | None = None, **table: Any) -> list[Batch]:
    return read_all(source(api, **table), "things", after or {})


def ids(batches: list[Batch]) -> list[str]:
    return [value for batch in batches for value in batch.rows["id"].to_pylist()]


def paged(asked: Asked) -> Answer:
    """Three rows at a time, by page number, offset, cursor or next URL, in the query or in the body."""
    given = asked.query | (asked.json if asked.body else {})
    size = min(int(given.get("limit", 3)), 3)
    start = int(given["offset"]) if "offset" in given else (int(given.get("page", 1)) - 1) * 3
    start = int(given.get("cursor", start))
    url = f"{asked.path}?cursor={start + 3}" if start + 3 < len(ROWS) else None
    return Answer(
        {
            "result": {"items": ROWS[start : start + size], "total": len(ROWS), "pages": 4},
            "next": start + 3 if url else None,
            "@odata.nextLink": url,
        },
        headers={"Link": f'<{url}>; rel="next"'} if url else {},
    )


@pytest.mark.parametrize(
    ("pagination", "requests"),
    [
        ({"type": "next_url", "path": ["@odata.nextLink"]}, 4),
        ({"type": "link_header"}, 4),
        ({"type": "cursor", "path": "next"}, 4),
        ({"type": "page_number"}, 5),
        ({"type": "page_number", "total": "result.pages"}, 4),
        ({"type": "offset", "limit": 3}, 5),
        ({"type": "offset", "limit": 3, "total": "result.total"}, 4),
        ({"type": "offset", "limit": 2}, 6),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_style_of_paging_gives_each_row_once(
    api: Api, pagination: dict[str, Any], requests: int, method: str
) -> None:
    api.answer = paged
    body = {"filter": "all"} if method == "POST" else None
    batches = read(api, rows="result.items", pagination=pagination, method=method, params={"of": True}, body=body)
    assert ids(batches) == IDS
    assert len(api.asked) == requests
    assert {asked.method for asked in api.asked} == {method}
    assert api.asked[0].query["of"] == "true"
    if body:
        assert {asked.json["filter"] for asked in api.asked} == {"all"}
        assert body == {"filter": "all"}


def test_a_cursor_goes_into_a_body_as_the_number_it_was(api: Api) -> None:
    api.answer = paged
    paging = {"type": "cursor", "path": "next", "param": "page_at.cursor"}
    with pytest.raises(PlatformError, match=r"twice running|circles"):
        read(api, rows="result.items", pagination=paging, method="POST")
    assert api.asked[1].json == {"page_at": {"cursor": 3}}


@pytest.mark.parametrize("last", [{"next": None}, {"next": ""}, {}])
@pytest.mark.parametrize("kind", ["next_url", "cursor"])
def test_paging_ends_where_the_next_page_is_null_empty_or_absent(api: Api, last: dict[str, Any], kind: str) -> None:
    api.answer = lambda _: Answer({"data": ROWS, **last})
    assert ids(read(api, rows="data", pagination={"type": kind})) == IDS
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "pagination",
    [{"type": "next_url"}, {"type": "cursor"}],
)
def test_pages_that_go_round_in_circles_are_noticed(api: Api, pagination: dict[str, Any]) -> None:
    turn = iter(range(100))
    api.answer = lambda asked: Answer({"data": [{"id": next(turn)}], "next": f"{asked.path}?same"})
    with pytest.raises(PlatformError, match=r"go round in circles: .*/v1/things"):
        read(api, rows="data", pagination=pagination)
    assert len(api.asked) <= 3


def test_an_api_that_does_not_know_the_page_parameter_is_noticed(api: Api) -> None:
    with pytest.raises(PlatformError, match=r"same page twice running.*`pagination`"):
        read(api, pagination={"type": "page_number", "param": "p"})


@pytest.mark.parametrize("total", [None, "result.total"])
@pytest.mark.parametrize("limit", [4, 100])
def test_an_api_that_caps_its_pages_below_the_limit_still_gives_every_row(
    api: Api, total: str | None, limit: int
) -> None:
    api.answer = paged
    paging = {"type": "offset", "limit": limit, "total": total}
    assert ids(read(api, rows="result.items", pagination=paging)) == IDS
    assert {asked.query["limit"] for asked in api.asked} == {str(limit)}


@pytest.mark.parametrize(
    ("body", "pagination", "told"),
    [
        ({"rows": []}, {"type": "none"}, "no 'data' in the body, which has the keys rows"),
        ({"data": [1]}, {"type": "none"}, "item 0 is a number"),
        (b"<html>please log in</html>", {"type": "none"}, r"26 bytes \(application/json\), but it is not JSON"),
        ({"data": [], "next": {"a": 1}}, {"type": "cursor"}, "`next` should name the next page but has the keys a"),
        ({"data": []}, {"type": "offset", "limit": 1, "total": "n"}, "no 'n' in the body"),
        ({"data": [], "n": "x"}, {"type": "page_number", "total": "n"}, "`n` should be a total but is a string"),
    ],
)
def test_an_answer_that_is_no_page_is_refused_with_its_place(
    api: Api, body: Any, pagination: dict[str, Any], told: str
) -> None:
    api.answer = lambda _: Answer(body)
    with pytest.raises(PlatformError, match=rf"Table 'things': {api.url}/v1/things.* answered 200 .*{told}.*Look at"):
        read(api, rows="data", pagination=pagination)


def test_a_link_to_another_host_is_not_followed_and_gets_no_credentials(api: Api) -> None:
    with running_api(lambda _: Answer({"data": ROWS})) as other:
        for move in (
            Answer({"data": ROWS, "next": f"{other.url}/steal"}),
            Answer(status=302, headers={"Location": f"{other.url}/steal"}),
        ):
            api.script(move)
            with pytest.raises(PlatformError, match=f"sends on to another host: GET {other.url}. Its"):
                read(api, rows="data", pagination={"type": "next_url"})
        assert other.asked == []


def test_a_redirect_on_the_same_host_is_followed(api: Api) -> None:
    api.script(Answer(status=307, headers={"Location": "/v2/things"}), Answer(ROWS))
    assert ids(read(api)) == IDS
    assert [asked.path for asked in api.asked] == ["/v1/things", "/v2/things"]


def test_a_full_refresh_ends_with_a_digest_that_stays_while_the_rows_do(api: Api) -> None:
    def position() -> Any:
        (batch,) = read(api)
        return batch.position

    assert {batch.kind for batch in read(api)} == {"whole"}
    first = position()
    api.answer = lambda _: Answer(ROWS[::-1])
    assert position() == first
    api.answer = lambda _: Answer(ROWS[:-1])
    assert position() != first


@pytest.mark.parametrize("nothing", [Answer([]), Answer(status=204, body=b""), Answer(b"null")])
def test_an_empty_table_is_a_picture_too_but_no_news_are_no_batch(api: Api, nothing: Answer) -> None:
    api.script(nothing)
    (batch,) = read(api)
    assert batch.rows.num_rows == 0
    assert batch.position == {DIGEST: "0" * 64}
    assert read(api, cursor={"column": "at", "param": "since"}) == []


def test_an_incremental_table_asks_from_its_position_and_says_what_comes_again(api: Api) -> None:
    told = {"cursor": {"column": "at", "param": "since", "lag": "1m", "initial": "2013-01-01"}}
    (first,) = read(api, **told)
    assert api.asked[-1].query == {"since": "2013-01-01T00:00:00Z"}
    assert first.position == {"cursor": "2013-01-01T00:00:09Z"}
    read(api, dict(first.position), **told)
    assert api.asked[-1].query == {"since": "2012-12-31T23:59:09Z"}
    things = source(api, **told)
    assert {batch.kind for batch in read_all(things, "things")} == {"rows"}
    again = overlap(things, "things", first.position)
    assert again is not None
    assert (again.column, again.since) == ("at", "2012-12-31T23:59:09")


def test_a_posted_cursor_goes_into_the_body(api: Api) -> None:
    cursor = {"column": "at", "param": "filter.since", "initial": "2013-01-01"}
    read(api, cursor=cursor, method="POST", body={"filter": {"kind": "x"}})
    assert api.asked[-1].json == {"filter": {"kind": "x", "since": "2013-01-01T00:00:00Z"}}


def test_batches_hold_whole_pages_and_only_the_last_has_a_position(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BATCH_ROWS", 5)
    api.answer = paged
    batches = read(api, rows="result.items", pagination={"type": "page_number"})
    assert [batch.rows.num_rows for batch in batches] == [6, 4]
    assert [batch.position is None for batch in batches] == [True, False]
    for ordered, positions in ((False, [None, "09"]), (True, ["05", "09"])):
        cursor = {"column": "at", "param": "since", "ordered": ordered}
        batches = read(api, rows="result.items", pagination={"type": "page_number"}, cursor=cursor)
        assert [batch.position and batch.position["cursor"][-3:-1] for batch in batches] == positions


def test_pages_within_the_lag_of_an_ordered_cursor_are_no_place_to_end_at(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "BATCH_ROWS", 2)
    cursor = {"column": "at", "param": "since", "ordered": True, "lag": "1h"}
    after = {"cursor": "2013-01-01T00:00:07Z"}
    api.answer = paged
    batches = read(api, after, rows="result.items", pagination={"type": "page_number"}, cursor=cursor)
    reached = [batch.position and batch.position["cursor"][-3:-1] for batch in batches]
    assert reached == [None, None, "08", "09"]


def test_the_last_batch_has_the_position_even_if_the_last_page_filled_the_one_before(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "BATCH_ROWS", 10)
    batches = read(api)
    assert [batch.rows.num_rows for batch in batches] == [10, 0]
    assert batches[1].rows.schema == batches[0].rows.schema
    assert batches[1].position is not None


@pytest.mark.parametrize("ordered", [True, False])
def test_a_page_that_fails_midway_leaves_the_pages_before_it_and_nothing_of_its_own(api: Api, ordered: bool) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(status=418) if asked.query["page"] == "3" else paged(asked)

    api.answer = answer
    cursor = {"column": "at", "param": "since", "ordered": ordered}
    things = source(api, rows="result.items", pagination={"type": "page_number"}, cursor=cursor)
    with reading(things, "things") as batches:
        batch = next(batches)
        assert batch.rows["id"].to_pylist() == IDS[:6]
        assert batch.position == ({"cursor": "2013-01-01T00:00:05Z"} if ordered else None)
        with pytest.raises(PlatformError, match=r"Table 'things': GET .*page=\.\.\. was refused: 418"):
            next(batches)


def test_a_page_out_of_order_does_not_move_the_position_past_what_was_given(api: Api) -> None:
    pages = [[{"id": 1, "at": "2013-01-01"}], [{"id": 2, "at": "2013-01-05"}, {"id": 3, "at": "2013-01-02"}]]
    api.answer = lambda asked: Answer(pages[int(asked.query["page"]) - 1])
    cursor = {"column": "at", "param": "since", "ordered": True}
    with reading(source(api, pagination={"type": "page_number"}, cursor=cursor), "things") as batches:
        assert next(batches).position == {"cursor": "2013-01-01T00:00:00+00:00"}
        with pytest.raises(PlatformError, match="ordered: false"):
            next(batches)


def test_a_probe_asks_once_and_tells_the_newest_cursor_or_any_value(api: Api) -> None:
    api.answer = lambda asked: Answer({"newest": {"at": "2013-01-01T02:00:00+02:00"}} if "head" in asked.path else ROWS)
    place = {"path": "head", "value": "newest.at"}
    cursor = {"column": "at", "param": "since"}
    assert source(api).probe(["things"], {}) == {"things": Probe(complete=False)}
    assert probe(source(api, probe=place, cursor=cursor), "things") == {"cursor": "2013-01-01T00:00:00+00:00"}
    assert probe(source(api, probe=place), "things") == {HINT: "2013-01-01T02:00:00+02:00"}
    (batch,) = read(api, probe=place)
    assert batch.position is not None
    assert batch.position[HINT] == "2013-01-01T02:00:00+02:00"
    with pytest.raises(PlatformError, match=r"probe: .*there is no 'oldest' in the body, which has the keys newest"):
        probe(source(api, probe={"path": "head", "value": "oldest"}), "things")
    api.answer = lambda _: Answer(status=503)
    asked_before = len(api.asked)
    with pytest.raises(PlatformError, match="503"):
        probe(source(api, probe=place), "things")
    assert len(api.asked) == asked_before + 1


def test_leaving_a_reading_midway_asks_for_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "BATCH_ROWS", 3)
    api.answer = paged
    with reading(source(api, rows="result.items", pagination={"type": "page_number"}), "things") as batches:
        next(batches)
    assert len(api.asked) == 1


def test_an_unknown_table_is_named_with_those_that_exist(api: Api) -> None:
    with pytest.raises(PlatformError, match=r"no table 'nothing'. It has things"):
        read_all(source(api), "nothing")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"body": {"a": 1}}, "only sent by method: POST"),
        ({"rows": "a..b"}, "at least 1 character"),
        ({"pagination": {"type": "pages"}}, "next_url"),
        ({"pagination": {"type": "offset"}}, "limit"),
        ({"pagination": {"type": "offset", "limit": 0}}, "greater than or equal to 1"),
        ({"pagnation": {"type": "none"}}, "pagnation"),
    ],
)
def test_mistakes_in_the_options_are_found_when_they_are_read(api: Api, table: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        source(api, **table)


def test_without_a_probe_it_is_only_seen_whether_the_api_answers(api: Api) -> None:
    (found,) = source(api).probe(["things"], {}).values()
    assert (found.changes, found.complete, found.supported, found.failure) == ({}, False, False, None)
    for status, words in ((500, "failed"), (401, "was refused: 401")):
        api.answer = lambda _, status=status: Answer({"why": "no"}, status=status)  # type: ignore[misc]
        with pytest.raises(PlatformError, match=words):
            source(api).probe(["things"], {})


def test_naming_a_source_imports_neither_dlt_nor_requests(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, json, data_platform.ingestion.http.source as h; print(json.dumps([m for m in sys.modules]))"
    root = Path(http_module.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True, text=True)
    assert {"dlt", "requests", "tenacity"}.isdisjoint(json.loads(out.stdout))
    assert list(tmp_path.iterdir()) == []
