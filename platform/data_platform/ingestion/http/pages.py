"""The pages of one HTTP table, one after another, each checked before anything relies on it.

dlt's paginators move the request on; here is what they take on trust: an answer that is no page, a page that was given
before, an API that gives fewer rows at a time than it was asked for. Sending is `client`'s work.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import reduce
from typing import Any, cast
from urllib.parse import urljoin

import requests
from dlt.common.jsonpath import set_value_at_path
from dlt.sources.helpers.rest_client import paginators as dlt_pages
from dlt.sources.helpers.rest_client.client import RESTClient
from jsonpath_ng import Child, Fields, JSONPath, Root

from data_platform.errors import PlatformError
from data_platform.ingestion.http import options
from data_platform.ingestion.http.client import redact, says
from data_platform.ingestion.http.rows import NumberLiteral, decode, describe, find, plain, rows_of, text

_AUTH_FIELDS = {
    "none": "`auth` (there is none)",
    "bearer": "`auth.token`",
    "basic": "`auth.username` and `auth.password`",
    "api_key": "`auth.key`, `auth.name` and `auth.location`",
    "oauth2_client_credentials": "`auth.client_id`, `auth.client_secret` and `auth.parameters`",
}


class _Page(requests.Response):
    """An answer that was checked: a response hook puts it in the place of the answer, so dlt sees nothing else."""

    rows: list[dict[str, Any]]
    plain: Any

    def json(self, **_: Any) -> Any:
        """What the paginators look into, several times. A cursor is a number there: it may go back in a body."""
        return self.plain


class _NextUrl(dlt_pages.BaseNextUrlPaginator):
    """Follows what names the next page, from where the page itself was found in the end."""

    def __init__(self, find_next: Callable[[_Page], str | None]) -> None:
        super().__init__()
        self._find_next = find_next

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:  # noqa: ARG002
        following = self._find_next(cast(_Page, response))
        self._next_reference = None if following is None else urljoin(response.url, following)


class _Cursor(dlt_pages.JSONResponseCursorPaginator):
    """Sends whatever cursor there is, 0 too, where dlt takes all that is false for the end."""

    def __init__(self, cursor: options.CursorPagination, **place: Any) -> None:
        super().__init__(_json_path(cursor.path), **place)
        self._cursor = cursor
        self._empty = 0

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        value = _following(response.json(), self._cursor.path)
        self._empty = 0 if data else self._empty + 1
        ends = value is not None and str(value) == self._cursor.last
        if ends or (self._cursor.empty_pages and self._empty >= self._cursor.empty_pages):
            value = None
        self._next_reference = value


class _Counted:
    """What the pages say of the total: once or again and again, never less than before, or rows were missed."""

    def __init__(self, keys: options.Keys | None, what: str) -> None:
        self._keys, self._what = keys, what
        self.total: int | None = None

    def see(self, response: requests.Response) -> int | None:
        """The total as far as it is known. Raises PlatformError if it falls."""
        body = response.json()
        total = _total(body, self._keys)
        if total is None:
            if self._keys is not None and self.total is None and body:
                try:
                    find(body, self._keys)
                    said = f"`{'.'.join(self._keys)}` is null"
                except KeyError as error:
                    said = str(error.args[0])
                raise _unfit(
                    response, f"{said}: leave `total` out where the API does not say it, then an empty page is the end"
                )
            return self.total
        where = redact(response.url)
        if self.total is not None and total < self.total:
            raise PlatformError(
                f"{where} says that there are {total:,} {self._what}, where a page before it said {self.total:,}: rows "
                "were deleted while the pages were read, so others moved to pages that were read already. It is read "
                "again next time. If that repeats, use `pagination` of type cursor, or make the table incremental."
            )
        self.total = total
        return total

    def holds(self, response: requests.Response, count: int) -> None:
        """Raise PlatformError if one answer holds more than all there is: its total is something else, and would end
        the reading early."""
        if self.total is not None and count > self.total:
            raise PlatformError(
                f"{redact(response.url)} holds {count:,} {self._what}, and says that there are {self.total:,} in all. "
                "Look at `total` of `pagination`: if the API does not know it, leave it out, then an empty page is the "
                "end."
            )


class _PageNumbers(dlt_pages.PageNumberPaginator):
    """Goes on past empty pages as far as `empty_pages` says, and up to the total where there is one."""

    def __init__(self, numbers: options.PageNumberPagination, **place: Any) -> None:
        super().__init__(numbers.start, total_path=None, stop_after_empty_page=True, **place)
        self._pages, self._count = numbers, _Counted(numbers.total, "pages")
        self._empty = 0

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        total = self._count.see(response)
        self._count.holds(response, 1 if data else 0)
        self._empty = 0 if data else self._empty + 1
        self.current_value += 1
        if total is not None:
            self._has_next_page = self.current_value < total + self._pages.start
        else:
            self._has_next_page = self._empty < self._pages.empty_pages


class _Offsets(dlt_pages.OffsetPaginator):
    """Goes on by the rows that came, not by those asked for: an API that caps its pages would lose the difference."""

    def __init__(self, offsets: options.OffsetPagination, **place: Any) -> None:
        super().__init__(offsets.limit, total_path=None, **place)
        self._count = _Counted(offsets.total, "rows")

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        total = self._count.see(response)
        self._count.holds(response, len(data or ()))
        self.current_value += len(data or ())
        if not data and total is not None and self.current_value < total:
            raise PlatformError(
                f"{redact(response.url)} has no rows, though only {self.current_value:,} of {total:,} were "
                "read: `total` and the pages do not add up. If `total` is an estimate, leave it out of `pagination`."
            )
        self._has_next_page = bool(data) and (total is None or self.current_value < total)


def _require_an_end(where: str, http: options.HttpOptions, count: int, seconds: float) -> None:
    """Raise PlatformError if a load has read more pages, or for a longer time, than it may."""
    if count <= http.max_pages and seconds <= http.load_timeout.total_seconds():
        return
    met = f"`max_pages` ({http.max_pages:,})" if count > http.max_pages else f"`load_timeout` ({http.load_timeout})"
    raise PlatformError(
        f"{where} is page {count:,} after {seconds:,.0f} s, more than {met} allows for one load. If the API gives "
        "pages for ever, look at `pagination`; if the table is that large, ask for larger pages, give it a `cursor` "
        "that is `ordered`, so that each load goes on from the one before, or raise the limit of the source in its "
        "defs.yaml."
    )


MAX_EMPTY_PAGES = 1_000
"""Empty pages one after another that are followed: an API that goes on so gives next pages for ever."""


def pages(
    client: RESTClient, http: options.HttpApi, table: options.HttpTable, asked_from: str | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page. `asked_from` is the value of the cursor's parameter, if it is to be sent.

    Raises PlatformError: refused, not to be reached, no page, or pages that do not add up.
    """
    params: dict[str, Any] = dict(table.params)
    body = deepcopy(table.body)
    if table.cursor is not None and asked_from is not None:
        if table.method == "POST":
            body = body or {}
            set_value_at_path(body, table.cursor.param, asked_from)
        else:
            params[table.cursor.param] = asked_from
    hooks: Any = {"response": [lambda response, **_: _accept(response, http, table)]}
    answers = client.paginate(
        table.path,
        method=table.method,
        params=params,
        json=body,
        paginator=_paginator(table),
        data_selector=_json_path(table.rows),
        hooks=hooks,
    )
    seen: set[bytes] = set()
    began = time.monotonic()
    count = 0
    first = previous = b""
    empty = 0
    while (answer := _next(answers, http)) is not None:
        page: _Page = answer.response
        where = redact(page.url)
        count += 1
        _require_an_end(where, http, count, time.monotonic() - began)
        content = hashlib.sha256(page.content).digest()
        if page.rows and content == previous:
            raise PlatformError(
                f"{where} gave the same page twice running. Does the API know the parameters of `pagination`?"
            )
        if page.rows and content == first:
            raise PlatformError(
                f"The pages go round in circles: {where} gave the first page once more. Look at `pagination`: "
                "does the API end with a cursor that `last` should name?"
            )
        previous, first = content, first or content
        empty = 0 if page.rows else empty + 1
        if empty > MAX_EMPTY_PAGES:
            raise PlatformError(
                f"{where} is the {empty:,}th empty page running, and names another one. Look at `pagination`: for a "
                "cursor, `empty_pages` says how many end the reading."
            )
        yield page.rows
        if not answer.paginator.has_next_page or not answer.request.url:
            return
        asked = answer.request
        following = json.dumps([asked.url, asked.params, asked.json], sort_keys=True, default=str)
        fingerprint = hashlib.sha256(following.encode()).digest()
        if fingerprint in seen:
            raise PlatformError(
                f"The pages go round in circles: {where} names a next page that was read before. Look at `pagination`."
            )
        seen.add(fingerprint)


def probe(client: RESTClient, http: options.HttpApi, place: options.HttpProbe) -> str | None:
    """The one value of a cheap request, as text; None where it is null. Raises PlatformError."""
    try:
        response = client.get(place.path)
    except requests.RequestException as error:
        raise _unsent(error, http) from None
    _refuse_status(response, http)
    try:
        value = find(_decoded(response), place.value)
    except (ValueError, KeyError) as error:
        raise PlatformError(f"probe: {redact(response.url)} answered, but {error.args[0]}.") from None
    if isinstance(value, dict | list):
        where = f"`{'.'.join(place.value)}` of {redact(response.url)}"
        raise PlatformError(f"probe: {where} {describe(value)}, where one value is needed.")
    return text(value)


def check_answers(client: RESTClient, http: options.HttpApi, table: options.HttpTable) -> None:
    """Ask for the first page without reading it. Raises PlatformError if the API does not answer, or refuses."""
    try:
        response = client.request(table.path, table.method, params=dict(table.params), json=deepcopy(table.body))
    except requests.RequestException as error:
        raise _unsent(error, http) from None
    _refuse_status(response, http)


def _next(answers: Iterator[Any], http: options.HttpApi) -> Any:
    try:
        return next(answers, None)
    except requests.RequestException as error:
        raise _unsent(error, http) from None


def _unsent(error: requests.RequestException, http: options.HttpApi) -> PlatformError:
    """What requests itself refuses: no URL, too many redirects, or a token that was not given."""
    if error.response is not None and isinstance(error, requests.HTTPError):
        return PlatformError(
            f"No token was given by {redact(error.response.url)}: {says(error.response, http)}. "
            f"Look at {_AUTH_FIELDS[http.auth.type]}, and at the environment variables that they name."
        )
    where = redact(str(error.request.url)) if error.request is not None else redact(http.url)
    return PlatformError(
        f"{where} cannot be asked: {type(error).__name__}. Look at `url` and `path`, and at where the API leads on to."
    )


def _accept(response: requests.Response, http: options.HttpApi, table: options.HttpTable) -> _Page | None:
    if response.is_redirect:
        return None
    _refuse_status(response, http)
    page = _Page()
    try:
        body = _decoded(response)
        page.__dict__.update(response.__dict__)  # its content has been read by now
        page.rows = [] if body is None else rows_of(body, table.rows)
        page.plain = {} if body is None else plain(body, page.rows)
        _check_pagination(body, table.pagination)
    except ValueError as error:
        raise _unfit(response, str(error)) from None
    return page


def _unfit(response: requests.Response, why: str) -> PlatformError:
    """An answer that is no page."""
    kind = response.headers.get("Content-Type", "no Content-Type")
    return PlatformError(
        f"{redact(response.url)} answered {response.status_code} with {len(response.content)} bytes ({kind}), but "
        f"{why}. Look at `path`, `rows` and `pagination` of the table."
    )


def _decoded(response: requests.Response) -> Any:
    """The body; None if the server says that there is none (204). Raises ValueError."""
    if response.status_code == 204:
        return None
    declared = "charset=" in response.headers.get("Content-Type", "").lower()
    return decode(response.content, response.encoding if declared else None)


def _check_pagination(body: Any, pagination: options.Pagination) -> None:
    match pagination:
        case options.NextUrlPagination():
            following = _following(body, pagination.path)
            if following is not None and (not isinstance(following, str) or isinstance(following, NumberLiteral)):
                raise ValueError(f"`{'.'.join(pagination.path)}` should be a URL but {describe(following)}")
        case options.CursorPagination():
            following = _following(body, pagination.path)
            if isinstance(following, dict | list | bool):
                raise ValueError(f"`{'.'.join(pagination.path)}` should name the next page but {describe(following)}")
        case options.PageNumberPagination() | options.OffsetPagination():
            _total(body, pagination.total)


def _following(body: Any, keys: options.Keys) -> Any:
    """What names the next page; None if nothing does: absent (as many APIs have it on the last page), null, empty, or
    false."""
    try:
        value = find(body, keys)
    except KeyError:
        return None
    return None if value is False or value == "" else value


def _total(body: Any, keys: tuple[str, ...] | None) -> int | None:
    """The total that a body holds, None if it is absent or null. Raises ValueError if it is something else."""
    try:
        value = None if keys is None or body is None else find(body, keys)
    except KeyError:
        return None
    if keys is None or value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdecimal():
        raise ValueError(f"`{'.'.join(keys)}` should be a total but {describe(value)}")
    return int(value)


def linked(header: str, rel: str) -> str | None:
    """The target of the first link of a relation in a `Link` header (RFC 8288, section 3), or None.

    The target stands between angle brackets and may hold commas and semicolons; parameters come in any order, their
    names in any case, their values plain or quoted; of several `rel` the first counts, and it may list several
    relations. A link with an `anchor` is one of another page.
    """
    for link in _LINK.finditer(header):
        parameters: dict[str, str] = {}
        for one in _LINK_PARAMETER.finditer(link["parameters"]):
            quoted = one["quoted"]
            value = one["plain"] or "" if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault((one["name"] or "").lower(), value)
        if rel.lower() in parameters.get("rel", "").lower().split() and "anchor" not in parameters:
            return link["target"].strip()
    return None


_LINK_PARAMETER = re.compile(
    r"""\s*;\s*(?:(?P<name>[^\s;,="]+)(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s;,"]*)))?)?"""
)
_LINK = re.compile(
    r"""<(?P<target>[^>]*)>(?P<parameters>(?:\s*;\s*(?:[^\s;,="]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)?)*)"""
)


def _refuse_status(response: requests.Response, http: options.HttpApi) -> None:
    if 200 <= response.status_code < 300:
        return
    match response.status_code:
        case 401 | 403:
            hint = f"Look at {_AUTH_FIELDS[http.auth.type]} of the source: is the environment variable set, and valid?"
        case 404 | 410:
            hint = f"There is no such `path` below `url` ({http.url})."
        case 400 | 422:
            hint = "Look at `params`, `pagination`, and how the cursor is written (`cursor.format`)."
        case _:
            hint = "Sending it again would not help: look at the table's options."
    raise PlatformError(f"{response.request.method} {redact(response.url)} was refused: {says(response, http)}. {hint}")


def _paginator(table: options.HttpTable) -> dlt_pages.BasePaginator:
    posted = table.method == "POST"
    match table.pagination:
        case options.NextUrlPagination(path=path):
            return _NextUrl(lambda page: _following(page.plain, path))
        case options.LinkHeaderPagination(rel=rel):
            return _NextUrl(lambda page: linked(page.headers.get("Link", ""), rel))
        case options.CursorPagination() as cursor:
            return _Cursor(cursor, **_placed("cursor", cursor.param, posted))
        case options.PageNumberPagination() as numbers:
            place = {"page_body_path" if posted else "page_param": numbers.param}
            return _PageNumbers(numbers, **place)
        case options.OffsetPagination() as offsets:
            return _Offsets(
                offsets,
                **_placed("offset", offsets.offset_param, posted),
                **_placed("limit", offsets.limit_param, posted),
            )
        case _:
            return dlt_pages.SinglePagePaginator()


def _placed(name: str, param: str, posted: bool) -> dict[str, str | None]:
    """Where a parameter goes: into the query, or into the body of a POST."""
    return {f"{name}_param": None, f"{name}_body_path": param} if posted else {f"{name}_param": param}


def _json_path(keys: tuple[str, ...] | None) -> JSONPath:
    """Built rather than written, so that no key needs quoting."""
    start: JSONPath = Root()
    return reduce(Child, map(Fields, keys or ()), start)
