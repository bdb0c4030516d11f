"""Drafts of APIs: keys are proposed by what several pages show, with the number of rows they were seen unique in."""

from typing import Any

import pytest
from platform_tests.ingestion.http.server import Answer, Asked, running_api

from data_platform.drafting.api import api_table
from data_platform.drafting.draft import Wish, draft_table
from data_platform.drafting.profile import TableProfile
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
