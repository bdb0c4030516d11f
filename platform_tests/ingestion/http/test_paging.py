"""Paging as real servers do it: links in every notation, cursors of any value, pages that are empty or shift."""

from collections.abc import Iterator
from typing import Any

import pytest
from platform_tests.ingestion.http.server import Answer, Api, Asked, running_api
from platform_tests.ingestion.http.test_source import ids, read

from data_platform.errors import PlatformError
from data_platform.ingestion.http import pages
from data_platform.ingestion.source import Batch


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(lambda _: Answer([])) as server:
        yield server


LINKS: list[str | list[str]] = [
    '<{url}>; rel="next"',
    "<{url}>; rel=next",
    "<{url}>;rel=next",
    '< {url} > ; rel = "next"',
    '<{url}>; REL="Next"',
    '<{url}>; rel="last next"',
    '<{url}>; title="a, b; rel=\\"prev\\""; rel="next"; type="application/json"',
    '<{url}>; rel="next"; rel="prev"',
    '</v1/things?page=0>; rel="prev", <{url}>; rel="next", </v1/things?page=9>; rel="last"',
    ['</v1/things?page=0>; rel="prev first"', '<{url}>; rel="next"'],
    '</other>; rel="next"; anchor="#part", <{url}>; rel=next',
    '</x?a=1,2;b=3>; rel="prev", <{url}>; rel=next; hreflang=de',
    ', <{url}>; ; rel="next",',
    "</a>; title=\"<b>; rel='next'\"; rel=prev, <{url}>; rel=next",
]


@pytest.mark.parametrize("link", LINKS, ids=str)
@pytest.mark.parametrize("url", ["{base}/v1/things?page=2&q=a,b;c", "/v1/things?page=2", "?page=2", "things?page=2"])
def test_a_link_is_followed_in_every_notation_of_rfc_8288(api: Api, link: str | list[str], url: str) -> None:
    target = url.format(base=api.url)
    header = link.format(url=target) if isinstance(link, str) else [one.format(url=target) for one in link]

    def answer(asked: Asked) -> Answer:
        return Answer([{"id": 2}]) if asked.query.get("page") == "2" else Answer([{"id": 1}], headers={"Link": header})

    api.answer = answer
    assert ids(read(api, pagination={"type": "link_header"}, params={"page": "1"})) == ["1", "2"]


@pytest.mark.parametrize(
    "link",
    ['</v1/things?page=2>; rel="prev"', '</v1/things?page=2>; rel="nextish"', '</p>; title="rel=next"', "", "next",
     '</v1/things?page=2>; rel="prev"; rel="next"', '</v1/things?page=2>; rel=next; anchor="/x"'],
)  # fmt: skip
def test_a_link_of_another_relation_or_page_ends_the_reading(api: Api, link: str) -> None:
    api.answer = lambda _: Answer([{"id": 1}], headers={"Link": link})
    assert ids(read(api, pagination={"type": "link_header"})) == ["1"]
    assert len(api.asked) == 1


def test_the_relation_may_be_another_one(api: Api) -> None:
    api.answer = lambda asked: Answer(
        [{"id": len(api.asked)}], headers={} if asked.query else {"Link": "<?page=2>; rel=more"}
    )
    assert ids(read(api, pagination={"type": "link_header", "rel": "More"})) == ["1", "2"]


def cursors(api: Api, *given: Any, **pagination: Any) -> list[Batch]:
    """Read pages of one row each that hold these cursors; `...` stands for none."""
    turn = iter(enumerate(given))

    def answer(_: Asked) -> Answer:
        number, cursor = next(turn)
        return Answer({"data": [{"id": number}]} | ({} if cursor is ... else {"next": cursor}))

    api.answer = answer
    return read(api, rows="data", pagination={"type": "cursor", **pagination})


@pytest.mark.parametrize("end", [None, "", False, ...])
def test_any_cursor_is_sent_zero_too_until_there_is_none(api: Api, end: Any) -> None:
    assert len(ids(cursors(api, 0, "a b&c=é", -1, 2**60, 1.5, "false", "null", end))) == 8
    sent = [asked.query.get("cursor") for asked in api.asked]
    assert sent == [None, "0", "a b&c=é", "-1", str(2**60), "1.5", "false", "null"]


@pytest.mark.parametrize(("last", "given"), [(0, 0), ("0", 0), (-1, "-1"), ("end", "end")])
def test_a_cursor_that_says_that_there_is_no_more_can_be_named(api: Api, last: Any, given: Any) -> None:
    assert ids(cursors(api, 7, given, last=last)) == ["0", "1"]


@pytest.mark.parametrize("given", [[7, 7], [1, 2, 1], ["a", "b", "c", "b"]])
def test_a_cursor_that_comes_again_is_refused(api: Api, given: list[Any]) -> None:
    with pytest.raises(PlatformError, match="go round in circles"):
        cursors(api, *given, None)


def test_a_first_page_that_comes_again_is_refused_whatever_its_cursor(api: Api) -> None:
    api.script(*[Answer({"data": [{"id": n}], "next": n}) for n in (5, 0, 5)])
    with pytest.raises(PlatformError, match=r"first page once more.*`last`"):
        read(api, rows="data", pagination={"type": "cursor"})


@pytest.mark.parametrize("given", [True, [], {}, [1]])
def test_a_cursor_that_is_no_value_is_refused(api: Api, given: Any) -> None:
    with pytest.raises(PlatformError, match="`next` should name the next page but"):
        cursors(api, given)


@pytest.mark.parametrize("given", [True, 5, 0, ["x"]])
def test_a_next_url_that_is_none_is_refused(api: Api, given: Any) -> None:
    api.answer = lambda _: Answer({"data": [{"id": 1}], "next": given})
    with pytest.raises(PlatformError, match="`next` should be a URL but"):
        read(api, rows="data", pagination={"type": "next_url"})


def numbered(api: Api, *pages_of_ids: list[int], param: str = "page", **more: Any) -> None:
    """Pages by number, empty beyond the last; `more` has a value for each page, None to leave it out."""

    def answer(asked: Asked) -> Answer:
        number = int(asked.query[param]) - 1
        rows = pages_of_ids[number] if number < len(pages_of_ids) else []
        body: dict[str, Any] = {"data": [{"id": one} for one in rows]}
        for name, values in more.items():
            if number < len(values) and values[number] is not None:
                body[name] = values[number]
        return Answer(body)

    api.answer = answer


def test_an_empty_page_in_the_middle_does_not_end_the_reading_where_there_is_a_total(api: Api) -> None:
    numbered(api, [1], [], [], [2], pages=[4, 4, 4, 4])
    assert ids(read(api, rows="data", pagination={"type": "page_number", "total": "pages"})) == ["1", "2"]


@pytest.mark.parametrize(("empty_pages", "found"), [(1, ["1"]), (2, ["1", "2"]), (3, ["1", "2", "3"])])
def test_so_many_empty_pages_running_end_it_as_the_option_says(api: Api, empty_pages: int, found: list[str]) -> None:
    numbered(api, [1], [], [2], [], [], [3])
    paging = {"type": "page_number", "empty_pages": empty_pages}
    assert ids(read(api, rows="data", pagination=paging)) == found


@pytest.mark.parametrize("totals", [[3, None, None], [3, 3, 3], ["3", None, None], [2, 3, None]])
def test_a_total_may_be_said_once_only_or_grow(api: Api, totals: list[Any]) -> None:
    numbered(api, [1], [2], [3], pages=totals)
    assert ids(read(api, rows="data", pagination={"type": "page_number", "total": "pages"})) == ["1", "2", "3"]
    assert len(api.asked) == 3


def test_a_total_that_is_never_said_is_refused(api: Api) -> None:
    numbered(api, [1], [2])
    with pytest.raises(PlatformError, match="no 'pages' in the body, which has the keys data"):
        read(api, rows="data", pagination={"type": "page_number", "total": "pages"})


@pytest.mark.parametrize("path", ["total", "meta.total"])
def test_a_total_that_is_null_is_refused_with_the_way_out(api: Api, path: str) -> None:
    said: dict[str, Any] = {"total": None} if path == "total" else {"meta": {"total": None}}
    api.answer = lambda asked: Answer({"data": [{"id": 1}] if asked.query["offset"] == "0" else [], **said})
    paged = {"type": "offset", "limit": 1}
    with pytest.raises(PlatformError, match=f"`{path}` is null: leave `total` out where the API does not say it"):
        read(api, rows="data", pagination={**paged, "total": path})
    assert ids(read(api, rows="data", pagination=paged)) == ["1"]


@pytest.mark.parametrize(
    ("pagination", "total", "held"),
    [
        ({"type": "offset", "limit": 2}, 0, "holds 2 rows, and says that there are 0 in all"),
        ({"type": "offset", "limit": 2}, 1, "holds 2 rows, and says that there are 1 in all"),
        ({"type": "page_number"}, 0, "holds 1 pages, and says that there are 0 in all"),
    ],
)
def test_a_total_below_what_an_answer_holds_ends_nothing(
    api: Api, pagination: dict[str, Any], total: int, held: str
) -> None:
    api.answer = lambda asked: Answer({"data": [{"id": len(api.asked)}, {"id": -len(api.asked)}], "total": total})
    with pytest.raises(PlatformError, match=f"{held}.*leave it out"):
        read(api, rows="data", pagination={**pagination, "total": "total"})


def test_a_number_of_pages_that_falls_is_refused(api: Api) -> None:
    numbered(api, [1], [2], [3], pages=[3, 2, 2])
    with pytest.raises(PlatformError, match="2 pages, where a page before it said 3: rows were deleted"):
        read(api, rows="data", pagination={"type": "page_number", "total": "pages"})


def shifting(api: Api, rows: list[int], *, once: bool = False, after: Any) -> None:
    """Rows by offset, two a page, with their total (only on the first page if `once`); `after` changes them after the
    first answer."""

    def answer(asked: Asked) -> Answer:
        start = int(asked.query["offset"])
        body: dict[str, Any] = {"data": [{"id": one} for one in rows[start : start + 2]]}
        if not (once and start):
            body["total"] = len(rows)
        if not start:
            after(rows)
        return Answer(body)

    api.answer = answer


OFFSET = {"type": "offset", "limit": 2, "total": "total"}


def test_a_row_deleted_while_pages_are_read_is_noticed_and_the_next_reading_has_all(api: Api) -> None:
    rows = [1, 2, 3, 4, 5, 6, 7]
    shifting(api, rows, after=lambda rows: rows.remove(1) if 1 in rows else None)
    with pytest.raises(PlatformError, match="6 rows, where a page before it said 7: rows were deleted"):
        read(api, rows="data", pagination=OFFSET)
    assert ids(read(api, rows="data", pagination=OFFSET)) == ["2", "3", "4", "5", "6", "7"]


def test_a_row_added_while_pages_are_read_loses_none(api: Api) -> None:
    rows = [1, 2, 3, 4, 5]
    shifting(api, rows, after=lambda rows: rows.insert(0, 0))
    assert set(ids(read(api, rows="data", pagination=OFFSET))) == {"1", "2", "3", "4", "5"}


def test_pages_that_end_before_the_total_are_refused(api: Api) -> None:
    rows = [1, 2, 3, 4, 5]
    shifting(api, rows, once=True, after=lambda rows: rows.remove(1) if 1 in rows else None)
    with pytest.raises(PlatformError, match=r"only 4 of 5 were read.*do not add up"):
        read(api, rows="data", pagination=OFFSET)


def test_empty_pages_that_name_a_next_one_for_ever_are_refused_or_end_by_the_option(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_EMPTY_PAGES", 5)
    turn = iter(range(100))
    api.answer = lambda _: Answer({"data": [], "next": next(turn)})
    with pytest.raises(PlatformError, match=r"6th empty page running.*`empty_pages`"):
        read(api, rows="data", pagination={"type": "cursor"})
    asked = len(api.asked)
    read(api, rows="data", pagination={"type": "cursor", "empty_pages": 3})
    assert len(api.asked) - asked == 3
