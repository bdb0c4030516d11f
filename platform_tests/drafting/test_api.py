"""Drafts of APIs: keys are proposed by what several pages show, with the number of rows they were seen unique in."""

from typing import Any

import pytest
from platform_tests.ingestion.http.server import Answer, Asked, running_api

from data_platform.drafting.api import api_table, split_url
from data_platform.drafting.draft import Wish, draft_table
from data_platform.drafting.profile import TableProfile
from data_platform.errors import PlatformError
from data_platform.ingestion.http.options import HttpOptions


def draft(rows: list[dict[str, Any]], size: int) -> TableProfile:
    """Of an API that gives so many rows a page, each with a link to the next."""

    def answer(asked: Asked) -> Answer:
        start = int(asked.query.get("start", 0))
        more = {"Link": f'<?start={start + size}>; title="more"; rel="next"'} if start + size < len(rows) else {}
        return Answer(rows[start : start + size], headers=more)

    with running_api(answer) as api:
        return api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)


def key_of(table: TableProfile) -> tuple[tuple[str, ...], str]:
    found = draft_table(table, Wish()).evidence
    return found.columns, found.evidence


def test_a_column_that_is_unique_in_the_first_page_alone_is_no_key_and_two_together_are() -> None:
    rows = [{"playlist_id": list_id, "track_id": track} for list_id in range(3) for track in range(40)]
    table = draft(rows, 20)
    assert table.place["pagination"] == {"type": "link_header"}
    assert (table.whole, table.rows.num_rows) == (True, 120)
    assert key_of(table) == (("playlist_id", "track_id"), "unique in 120 rows, all there are")


def test_rows_that_were_not_all_read_are_said_to_be_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.drafting.api.SAMPLE_PAGES", 2)
    table = draft([{"id": number, "v": 1} for number in range(50)], 10)
    assert key_of(table) == (("id",), "unique in 20 rows, the first of more")


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": 1.5}, {"id": 2.5}],
        [{"id": 1}, {"id": None}],
        [{"id": 1}, {"id": 1}],
        [{"row_code": 1, "other_code": "a"}, {"row_code": 2, "other_code": "b"}],
        [{"name": "a"}, {"name": "b"}],
    ],
)
def test_where_a_key_is_not_certain_none_is_proposed(rows: list[dict[str, Any]]) -> None:
    assert key_of(draft(rows, 10))[0] == ()


ROWS = [{"id": number, "name": f"name {number}"} for number in range(65)]


@pytest.mark.parametrize(
    ("parameters", "first", "total", "pagination"),
    [
        (("page",), 1, None, {"type": "page_number", "param": "page"}),
        (("p",), 0, None, {"type": "page_number", "param": "p", "start": 0}),
        (("page",), 1, ("total_pages", 4), {"type": "page_number", "param": "page", "total": "total_pages"}),
        (("offset", "limit"), 0, None,
            {"type": "offset", "limit": 20, "offset_param": "offset", "limit_param": "limit"}),
        (("skip", "limit"), 0, ("total", 65),
            {"type": "offset", "limit": 20, "offset_param": "skip", "limit_param": "limit", "total": "total"}),
    ],
)  # fmt: skip
def test_pages_by_number_or_row_are_drafted_where_a_parameter_was_seen_to_bring_them(
    parameters: tuple[str, ...], first: int, total: tuple[str, int] | None, pagination: dict[str, Any]
) -> None:
    def answer(asked: Asked) -> Answer:
        number = int(asked.query.get(parameters[0], first))
        start = number if len(parameters) == 2 else (number - first) * 20
        body: dict[str, Any] = {"rows": ROWS[start : start + 20], **(dict([total]) if total else {})}
        return Answer(body)

    with running_api(answer) as api:
        table = api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)
    assert table.place["pagination"] == pagination
    assert (table.rows.num_rows, table.whole) == (65, True)


def test_an_api_that_ignores_what_it_is_asked_is_not_taken_for_paged() -> None:
    with running_api(lambda asked: Answer({"rows": ROWS[:20], "total": 65})) as api:
        table = api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)
    assert "pagination" not in table.place
    assert "`total` is 65, but one answer holds 20 rows" in table.notes[0]


@pytest.mark.parametrize("said", [{"has_more": True}, {"meta": {"hasNextPage": True}}])
def test_an_answer_that_says_that_there_is_more_is_not_taken_for_the_whole(said: dict[str, Any]) -> None:
    with running_api(lambda asked: Answer({"rows": ROWS[:4], **said})) as api:
        table = api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)
    assert ("pagination" in table.place, table.whole) == (False, False)
    assert "says that there is more than the 4 rows of one answer: write `pagination`" in table.notes[0]


@pytest.mark.parametrize("size", [11, 33])
def test_pages_of_any_size_are_looked_for(size: int) -> None:
    def answer(asked: Asked) -> Answer:
        page = int(asked.query.get("page", 1)) - 1
        return Answer(ROWS[page * size : (page + 1) * size])

    with running_api(answer) as api:
        table = api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)
    assert table.place["pagination"] == {"type": "page_number", "param": "page"}
    assert (table.rows.num_rows, table.whole) == (65, True)


@pytest.mark.parametrize(
    ("following", "param", "pagination"),
    [
        ("?page={page}", "page", {"type": "next_url", "path": "next"}),
        ("{page}", "page", {"type": "cursor", "path": "next", "param": "page"}),
        (None, "page", {"type": "cursor", "path": "next", "param": "page"}),
    ],
)
def test_a_next_page_is_followed_as_url_or_number(
    following: str | None, param: str, pagination: dict[str, Any]
) -> None:
    def answer(asked: Asked) -> Answer:
        page = int(asked.query.get(param, 1))
        named = page + 1 if following is None else following.format(page=page + 1)
        return Answer({"rows": ROWS[(page - 1) * 20 : page * 20], "next": named if page < 4 else None})

    with running_api(answer) as api:
        table = api_table(HttpOptions.model_validate({"url": api.url}), "/things", {}, None)
    assert table.place["pagination"] == pagination
    assert (table.rows.num_rows, table.whole) == (65, True)


@pytest.mark.parametrize("url", ["https://u:sec[ret@host/x", "https://u:s3cret@host:port/x", "ftp://u:s3cret@host/x"])
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(PlatformError, match="is no address of an API") as refused:
        split_url(url)
    assert "cret" not in str(refused.value)
