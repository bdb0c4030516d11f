"""The pages of one HTTP table, one after another, each checked before anything relies on it.

dlt's paginators move the request on; here is what they take on trust: an answer that is no page, a page that was given
before, an API that gives fewer rows at a time than it was asked for. Sending is `client`'s work.
"""

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from typing import Any

import requests
from dlt.common.jsonpath import set_value_at_path
from dlt.sources.helpers.rest_client import paginators as dlt_pages
from dlt.sources.helpers.rest_client.client import RESTClient
from jsonpath_ng import Child, Fields, JSONPath, Root

from data_platform.errors import PlatformError
from data_platform.ingestion.http import options
from data_platform.ingestion.http.client import redact, says, scrub
from data_platform.ingestion.http.rows import decode, describe, find, plain, rows_of, text

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


class _OffsetPaginator(dlt_pages.OffsetPaginator):
    """Goes on by the rows that came, not by those asked for: an API that caps its pages would lose the difference."""

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        self.value_step = len(data or ())
        super().update_state(response, data)


def pages(
    client: RESTClient, http: options.HttpOptions, table: options.HttpTable, asked_from: str | None
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
    previous = b""
    while (answer := _next(answers, http)) is not None:
        page: _Page = answer.response
        where = redact(page.url)
        content = hashlib.sha256(page.content).digest()
        if page.rows and content == previous:
            raise PlatformError(
                f"{where} gave the same page twice running. Does the API know the parameters of `pagination`?"
            )
        previous = content
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


def probe(client: RESTClient, http: options.HttpOptions, place: options.HttpProbe) -> str | None:
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


def _next(answers: Iterator[Any], http: options.HttpOptions) -> Any:
    try:
        return next(answers, None)
    except requests.RequestException as error:
        raise _unsent(error, http) from None


def _unsent(error: requests.RequestException, http: options.HttpOptions) -> PlatformError:
    """What requests itself refuses: no URL, too many redirects, or a token that was not given."""
    if error.response is not None and isinstance(error, requests.HTTPError):
        return PlatformError(
            f"No token was given by {redact(error.response.url)}: {scrub(says(error.response), http)}. "
            f"Look at {_AUTH_FIELDS[http.auth.type]}, and at the environment variables that they name."
        )
    where = redact(str(error.request.url)) if error.request is not None else redact(http.url)
    return PlatformError(
        f"{where} cannot be asked: {type(error).__name__}. Look at `url` and `path`, and at where the API leads on to."
    )


def _accept(response: requests.Response, http: options.HttpOptions, table: options.HttpTable) -> _Page | None:
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
        kind = response.headers.get("Content-Type", "no Content-Type")
        raise PlatformError(
            f"{redact(response.url)} answered {response.status_code} with {len(response.content)} bytes ({kind}), but "
            f"{error}. Look at `path`, `rows` and `pagination` of the table."
        ) from None
    return page


def _decoded(response: requests.Response) -> Any:
    """The body; None if the server says that there is none (204). Raises ValueError."""
    if response.status_code == 204:
        return None
    declared = "charset=" in response.headers.get("Content-Type", "").lower()
    return decode(response.content, response.encoding if declared else None)


def _check_pagination(body: Any, pagination: options.Pagination) -> None:
    if isinstance(pagination, options.NextUrlPagination | options.CursorPagination):
        try:
            value = find(body, pagination.path)
        except KeyError:
            return  # many APIs leave it out on the last page
        if isinstance(value, dict | list | bool):
            raise ValueError(f"`{'.'.join(pagination.path)}` should name the next page but {describe(value)}")
    elif isinstance(pagination, options.PageNumberPagination | options.OffsetPagination):
        _total(body, pagination.total)


def _total(body: Any, keys: tuple[str, ...] | None) -> int | None:
    if keys is None or body is None:
        return None
    try:
        value = find(body, keys)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    if not isinstance(value, str) or not value.isdecimal():
        raise ValueError(f"`{'.'.join(keys)}` should be a total but {describe(value)}")
    return int(value)


def _refuse_status(response: requests.Response, http: options.HttpOptions) -> None:
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
    raise PlatformError(
        f"{response.request.method} {redact(response.url)} was refused: {scrub(says(response), http)}. {hint}"
    )


def _paginator(table: options.HttpTable) -> dlt_pages.BasePaginator:
    posted = table.method == "POST"
    match table.pagination:
        case options.NextUrlPagination(path=path):
            return dlt_pages.JSONLinkPaginator(_json_path(path))
        case options.LinkHeaderPagination(rel=rel):
            return dlt_pages.HeaderLinkPaginator(rel)
        case options.CursorPagination(path=path, param=param):
            return dlt_pages.JSONResponseCursorPaginator(_json_path(path), *_placed(param, posted))
        case options.PageNumberPagination() as numbers:
            query, inside = _placed(numbers.param, posted)
            total = _json_path(numbers.total) if numbers.total else None
            return dlt_pages.PageNumberPaginator(
                numbers.start, page_param=query, page_body_path=inside, total_path=total
            )
        case options.OffsetPagination() as offsets:
            offset, offset_inside = _placed(offsets.offset_param, posted)
            limit, limit_inside = _placed(offsets.limit_param, posted)
            return _OffsetPaginator(
                offsets.limit,
                offset_param=offset,
                limit_param=limit,
                total_path=_json_path(offsets.total) if offsets.total else None,
                offset_body_path=offset_inside,
                limit_body_path=limit_inside,
            )
        case _:
            return dlt_pages.SinglePagePaginator()


def _placed(param: str, posted: bool) -> tuple[str | None, str | None]:
    """Where a parameter goes: into the query, or into the body of a POST."""
    return (None, param) if posted else (param, None)


def _json_path(keys: tuple[str, ...] | None) -> JSONPath:
    """Built rather than written, so that no key needs quoting."""
    start: JSONPath = Root()
    return reduce(Child, map(Fields, keys or ()), start)
