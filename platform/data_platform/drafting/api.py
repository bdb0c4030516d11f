"""Profiles of HTTP APIs: where their rows are and how their pages follow one another.

Only what was seen to work is drafted: a parameter for the next page counts once it has brought other rows.
"""

import os
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from data_platform.drafting.profile import SAMPLE_ROWS, UNUSED, Declared, Profile, Request, TableProfile, slug
from data_platform.errors import PlatformError

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

PARAMETERS = ("cursor", "page_token", "pageToken", "after", "starting_after", "next", "continuation")
"""What APIs call the parameter for such a cursor."""

KEYS = re.compile(r"(^|_)(id|key|code|number|no|uuid|guid|date|day|line|position)$")
"""What columns are called that are a key or part of one."""

KEY_COLUMNS, MOST_CANDIDATES = 3, 12
"""Columns in a key that is proposed, and columns tried for it, at most."""

SAMPLE_PAGES = 50
"""Pages that are read for a draft at most: a source is not to be worn out by it."""

TOTALS = ("total", "total_count", "totalCount", "count", "total_pages", "totalPages")


def profile_api(request: Request, address: str) -> Profile:
    """Profile the one table behind the URL of an API's first page, which is `request.address` with its variables
    resolved.

    Raises PlatformError if it does not answer with rows, or if the token's variable is not set.
    """
    variable = request.token_variable
    token = os.environ.get(variable) if variable else None
    if variable and not token:
        raise PlatformError(f"--token-env names {variable}, which is not set in the environment.")
    base, table = api_table(address, request.tables[0] if request.tables else None, token)
    auth = {"auth": {"type": "bearer", "token": "{{ env." + variable + " }}"}} if variable else {}
    return Profile([table], {"description": f"The API at {base}.", "url": base, **auth})


def split_url(url: str) -> tuple[str, str, dict[str, str]]:
    """Where the API begins, the path of the table, and the parameters, of the URL of a first page."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlatformError(
            f"{url!r} is no address of an API: give the URL of its first page, with http:// or https://."
        )
    if parts.username or parts.password:
        raise PlatformError("The URL holds a password. Give a token by --token-env NAME, the variable that holds it.")
    return f"{parts.scheme}://{parts.netloc}", parts.path or "/", dict(parse_qsl(parts.query, keep_blank_values=True))


def api_table(url: str, table: str | None, token: str | None) -> tuple[str, TableProfile]:
    """Where the API begins, and the one table behind a URL. Raises PlatformError if it does not answer with rows."""
    from data_platform.ingestion.http.client import Pace, connect, redact
    from data_platform.ingestion.http.options import HttpApi, HttpTable
    from data_platform.ingestion.http.pages import linked, pages
    from data_platform.ingestion.http.rows import decode, to_arrow

    base, path, params = split_url(url)
    auth = {"auth": {"type": "bearer", "token": token}} if token else {}
    options = HttpApi.model_validate({"url": base, "max_retries": 1, "parameters": params, **auth})
    with connect(options, Pace(None)) as client:

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
        place: dict[str, Any] = {"path": path, **({"params": params} if params else {})}
        if keys:
            place["rows"] = ".".join(keys) if not any("." in key for key in keys) else list(keys)
        notes = []
        if linked(headers.get("Link", ""), "next") is not None:
            place["pagination"] = {"type": "link_header"}
        elif (following := next_page(body)) is not None:
            where, value = following
            dotted = ".".join(where) if not any("." in key for key in where) else list(where)
            if value.startswith(("http://", "https://", "/")):
                place["pagination"] = {"type": "next_url", "path": dotted}
            else:
                place["pagination"] = {
                    "type": "cursor",
                    "path": dotted,
                    "param": _parameter(ask, rows, keys, value, where),
                }
        else:
            notes += _counted(body, len(rows))
        whole = "pagination" not in place and not notes
        if "pagination" in place:
            rows, whole = _first_pages(pages(client, options, HttpTable.model_validate({**UNUSED, **place}), None))
    name = slug(table or path.rstrip("/").split("/")[-1] or "rows")
    key, evidence = _key(rows, whole=whole)
    return base, TableProfile(
        name, place, to_arrow(rows), whole, _texts(rows, whole=whole), key=key, notes=[*notes, *evidence]
    )


def _first_pages(answers: Iterator[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], bool]:
    """The rows of the first pages, and whether they are all of them. One page is too little to tell a key by."""
    rows: list[dict[str, Any]] = []
    for number, page in enumerate(answers, 1):
        rows += page
        if len(rows) >= SAMPLE_ROWS or number >= SAMPLE_PAGES:
            return rows, False
    return rows, True


def _key(rows: list[dict[str, Any]], *, whole: bool) -> tuple[tuple[str, ...], list[str]]:
    """The fewest columns named like parts of a key whose values together occur once, if no others do it as well; and
    in how many rows that was seen. None for a single row, in which everything is unique."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in names if KEYS.search(slug(name))}
    possible = [name for name, column in values.items() if all(_identifies(value) for value in column)]
    for count in range(1, KEY_COLUMNS + 1):
        unique = [
            key
            for key in combinations(possible[:MOST_CANDIDATES], count)
            if len(rows) > 1 and len(set(zip(*(values[name] for name in key), strict=True))) == len(rows)
        ]
        if len(unique) == 1:
            seen = f"{len(rows):,} rows, {'all there are' if whole else 'the first of more'}"
            return unique[0], [f"key {', '.join(unique[0])}: unique in {seen}; --key says otherwise"]
        if unique:
            return (), []
    return (), []


def _identifies(value: Any) -> bool:
    """Whether a value of JSON can be part of a key: text or an integer."""
    from data_platform.ingestion.http.rows import NumberLiteral

    return isinstance(value, str) and value != "" and not (isinstance(value, NumberLiteral) and not value.isdecimal())


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
    return []
