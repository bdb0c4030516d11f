"""Profiles of HTTP APIs: where their rows are and how their pages follow one another.

Only what was seen to work is drafted: a parameter for the next page counts once it has brought other rows.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    SAMPLE_ROWS,
    UNUSED,
    Declared,
    Profile,
    Request,
    TableProfile,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import redact_url

if TYPE_CHECKING:
    from data_platform.ingestion.http.options import HttpOptions

NEXT = (
    "next",
    "next_url",
    "next_page",
    "next_link",
    "nextLink",
    "@odata.nextLink",
    "next_cursor",
    "nextCursor",
    "next_page_token",
    "nextPageToken",
    "continuation",
    "href",
)
"""What APIs call the next page, or the cursor that leads to it."""

AROUND = ("meta", "metadata", "paging", "pagination", "links", "_links", "page", "next")
"""Objects in which it may lie."""

PARAMETERS = ("cursor", "page_token", "pageToken", "after", "starting_after", "next", "continuation", "page", "offset")
"""What APIs call the parameter for such a cursor."""

SAMPLE_PAGES = 50
"""Pages that are read for a draft at most: a source is not to be worn out by it."""

FEWEST_ROWS = 10
"""As many rows may be a page of more; of fewer, others are only looked for if the answer says that there are."""

NUMBERS = ("page", "page_number", "pageNumber", "p")
OFFSETS = (("offset", "limit"), ("skip", "limit"), ("start", "limit"), ("_start", "_limit"))
"""What APIs call the parameters for the number of a page, and for the row that it begins with and its length."""

MORE = (
    "has_more",
    "hasMore",
    "more",
    "has_next",
    "hasNext",
    "has_next_page",
    "hasNextPage",
    "is_truncated",
    "isTruncated",
)
"""What APIs call the flag that there is a next page."""

TOTALS = ("total", "total_count", "totalCount", "count", "total_pages", "totalPages")


def profile_api(request: Request, address: str) -> Profile:
    """Profile the one table behind the URL of an API's first page, which is `request.address` with its variables
    resolved. One table that is wanted is what it is called here, several are paths below the URL.

    Raises PlatformError if it does not answer with rows, or if the token's variable is not set.
    """
    from data_platform.ingestion.http.options import HttpOptions

    variable = request.token_variable
    token = os.environ.get(variable) if variable else None
    if variable and not token:
        raise PlatformError(f"--token-env names {variable}, which is not set in the environment.")
    base, path, params = split_url(address)
    auth = {"auth": {"type": "bearer", "token": token}} if token else {}
    options = HttpOptions.model_validate({"url": base, "max_retries": 1, **auth})
    written = {"auth": {"type": "bearer", "token": "{{ env." + variable + " }}"}} if variable else {}
    attributes = {"description": f"The API at {base}.", "url": base, **written}
    if len(request.tables) <= 1:
        return Profile([api_table(options, path, params, next(iter(request.tables), None))], attributes)
    paths = [f"{path.rstrip('/')}/{table.strip('/')}" for table in request.tables]
    return replace(profile_paths(options, paths, params), attributes=attributes)


def profile_paths(options: "HttpOptions", paths: Sequence[str], params: Mapping[str, str] | None = None) -> Profile:
    """Profile the tables behind paths of an API. One that does not answer with rows is among the failures. Raises
    PlatformError if none does."""
    names = distinct_names([slug(path.rstrip("/")) for path in paths], [slug(path.replace("/", " ")) for path in paths])
    tables, failures = profile_each(names, paths, lambda name, path: api_table(options, path, params or {}, name))
    return Profile(tables, {}, {}, failures)


def split_url(url: str) -> tuple[str, str, dict[str, str]]:
    """Where the API begins, the path of the table, and the parameters, of the URL of a first page."""
    try:
        parts = urlsplit(url)
        there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of brackets
        there = False
    if not there:
        raise PlatformError(
            f"{redact_url(url)} is no address of an API: give the URL of its first page, with http:// or https://."
        )
    if parts.username or parts.password:
        raise PlatformError("The URL holds a password. Give a token by --token-env NAME, the variable that holds it.")
    return f"{parts.scheme}://{parts.netloc}", parts.path or "/", dict(parse_qsl(parts.query, keep_blank_values=True))


def api_table(options: "HttpOptions", path: str, params: Mapping[str, str], table: str | None) -> TableProfile:
    """The one table behind a path of an API, by its name here. Raises PlatformError if it does not answer with rows."""
    from data_platform.ingestion.http.client import Pace, connect, redact
    from data_platform.ingestion.http.options import HttpApi, HttpTable
    from data_platform.ingestion.http.pages import linked, pages
    from data_platform.ingestion.http.rows import decode, to_arrow

    api = HttpApi(**dict(options), parameters=dict(params))
    with connect(api, Pace(None)) as client:

        def ask(more: Mapping[str, str]) -> tuple[Any, Mapping[str, str]]:
            answer = client.get(path, params={**params, **more})
            where = redact(answer.url)
            if answer.status_code in (401, 403):
                raise PlatformError(
                    f"{where} answered {answer.status_code}. Give the variable that holds its token: --token-env NAME."
                )
            if answer.status_code >= 400:
                raise PlatformError(f"{where} answered {answer.status_code}. Is this the address of a list of rows?")
            try:
                return decode(answer.content, None), answer.headers
            except ValueError as error:
                raise PlatformError(f"{where} answered, but {error}.") from None

        body, headers = ask({})
        keys = rows_at(body)
        rows = _at(body, keys)
        place: dict[str, Any] = {"path": path, **({"params": dict(params)} if params else {})}
        if keys:
            place["rows"] = ".".join(keys) if not any("." in key for key in keys) else list(keys)
        notes = []
        if linked(headers.get("Link", ""), "next") is not None:
            place["pagination"] = {"type": "link_header"}
        elif (following := next_page(body)) is not None:
            where, value = following
            dotted = ".".join(where) if not any("." in key for key in where) else list(where)
            if value.startswith(("http://", "https://", "/", "?")):
                place["pagination"] = {"type": "next_url", "path": dotted}
            else:
                place["pagination"] = {
                    "type": "cursor",
                    "path": dotted,
                    "param": _parameter(ask, rows, keys, value, where),
                }
        elif (counted := _counted(body, len(rows))) or len(rows) >= FEWEST_ROWS:
            numbered = _numbered(ask, rows, keys, body)
            place |= {"pagination": numbered} if numbered else {}
            notes += [] if numbered else counted
        whole = "pagination" not in place and not notes
        if "pagination" in place:
            rows, whole = _first_pages(pages(client, api, HttpTable.model_validate({**UNUSED, **place}), None))
    name = slug(table or path.rstrip("/").split("/")[-1] or "rows")
    return TableProfile(
        name,
        place,
        to_arrow(rows),
        whole,
        _texts(rows, whole=whole),
        notes=notes,
        origin=path,
        fresh_within=READ_WITHIN,
    )


def _first_pages(answers: Iterator[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], bool]:
    """The rows of the first pages, and whether they are all of them. One page is too little to tell a key by."""
    rows: list[dict[str, Any]] = []
    for number, page in enumerate(answers, 1):
        rows += page
        if len(rows) >= SAMPLE_ROWS or number >= SAMPLE_PAGES:
            return rows, False
    return rows, True


def _texts(rows: list[dict[str, Any]], *, whole: bool) -> dict[str, Declared]:
    """The columns whose values are all strings in the JSON: digits in them are text, such as a postal code."""
    from data_platform.ingestion.http.rows import NumberLiteral

    texts = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        present = [value for value in values if value is not None]
        if present and all(isinstance(value, str) and not isinstance(value, NumberLiteral) for value in present):
            texts[name] = Declared("text", nullable=not whole or len(present) < len(values))
    return texts


def _parameter(ask: Any, rows: list[Any], keys: tuple[str, ...], value: str, where: tuple[str, ...]) -> str:
    """The parameter that the cursor goes into: the first one that brings other rows."""
    for name in (where[-1], *PARAMETERS):
        try:
            body, _ = ask({name: value})
        except PlatformError:
            continue
        other = _at(body, keys) if _has(body, keys) else None
        if isinstance(other, list) and other != rows:
            return str(name)
    raise PlatformError(
        f"The answer names a next page by `{'.'.join(where)}`, but none of the usual parameters "
        f"({', '.join(PARAMETERS)}) leads there. Write the source's defs.yaml by hand: "
        "`pagination: {type: cursor, path: ..., param: ...}`."
    )


def _numbered(ask: Any, rows: list[Any], keys: tuple[str, ...], body: Any) -> dict[str, Any] | None:
    """How pages are asked for by number or by row, if a parameter was seen to bring the next page and the first one
    again; None if none was."""
    first, size = {repr(row) for row in rows}, len(rows)

    def page(params: Mapping[str, Any]) -> list[Any]:
        try:
            found, _ = ask({name: str(value) for name, value in params.items()})
        except PlatformError:
            return []
        there = _at(found, keys) if _has(found, keys) else None
        return there if isinstance(there, list) else []

    def is_another(found: list[Any]) -> bool:
        return bool(found) and not any(repr(row) in first for row in found)

    for name in NUMBERS:
        if is_another(page({name: 2})):
            start = next((number for number in (1, 0) if page({name: number}) == rows), None)
            if start is not None:
                total = _total(body, ("total_pages", "totalPages"), 1)
                return {"type": "page_number", "param": name, **({"start": 0} if start == 0 else {}), **total}
    for offset, limit in OFFSETS:
        if is_another(page({offset: size, limit: size})) and page({offset: 0, limit: size}) == rows:
            total = _total(body, ("total", "total_count", "totalCount", "count"), size)
            return {"type": "offset", "limit": size, "offset_param": offset, "limit_param": limit, **total}
    return None


def _total(body: Any, names: Sequence[str], more_than: int) -> dict[str, Any]:
    """Where an answer says how many pages or rows there are."""
    for keys, value in _walk(body, 2):
        if keys and keys[-1] in names and str(value).isdigit() and int(value) > more_than:
            return {"total": ".".join(keys) if not any("." in key for key in keys) else list(keys)}
    return {}


def rows_at(body: Any) -> tuple[str, ...]:
    """Where the list of rows is: the longest list of objects, at the top or at most two levels down."""
    from data_platform.ingestion.http.rows import describe

    lists = {keys: value for keys, value in _walk(body, 2) if isinstance(value, list) and _objects(value)}
    if not lists:
        raise PlatformError(f"The answer holds no list of objects that could be rows: it {describe(body)}.")
    return max(lists, key=lambda keys: len(lists[keys]))


def _objects(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(row, dict) for row in value)


def _walk(value: Any, depth: int, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield keys, value
    if isinstance(value, dict) and depth:
        for key, child in value.items():
            yield from _walk(child, depth - 1, (*keys, key))


def _at(body: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        body = body[key]
    return body


def _has(body: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(body, dict) or key not in body:
            return False
        body = body[key]
    return True


def next_page(body: Any) -> tuple[tuple[str, ...], str] | None:
    """Where an answer names the next page, and what it says there."""
    for keys, value in _walk(body, 3):
        if keys and keys[-1] in NEXT and isinstance(value, str) and value and set(keys[:-1]) <= set(AROUND):
            return keys, str(value)
    return None


def _counted(body: Any, rows: int) -> list[str]:
    """A warning if the answer says that there is more than it gives."""
    for keys, value in _walk(body, 2):
        if keys and keys[-1] in TOTALS and str(value).isdigit() and int(value) > max(rows, 1):
            where = f"`{'.'.join(keys)}` is {value}, but one answer holds {rows:,} rows"
            return [f"{where}: write `pagination` (page_number, offset) into defs.yaml, or only that page is loaded"]
        if keys and keys[-1] in MORE and value is True:
            where = f"`{'.'.join(keys)}` says that there is more than the {rows:,} rows of one answer"
            return [f"{where}: write `pagination` into defs.yaml, or only that page is loaded"]
    return []
