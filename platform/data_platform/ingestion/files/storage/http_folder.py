"""A folder on an HTTP server as a `Place`: what its index pages link to, as Apache, nginx, Caddy, IIS and others make
them. Requests, retries and limits are those of `ingestion.http.client`.

A listing costs a request for each folder, and one (HEAD) for each file that matches: index pages tell times in many
ways, and no etags. What answers a HEAD without ETag and Last-Modified is known by its length alone: a file that is
replaced by one of the same length is then not seen to be another.
"""

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import requests
from pydantic import ValidationError

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.files.storage import (
    CHANGED,
    DEEPEST,
    Delivery,
    Looks,
    Storage,
    StorageUnavailableError,
    pattern_of,
    ready,
    wanted,
)
from data_platform.ingestion.files.storage.options import HTTP, StorageOptions
from data_platform.ingestion.files.storage.unpacking import is_packed, spooled
from data_platform.ingestion.http.client import Pace, connect, origin
from data_platform.ingestion.http.options import Auth, BasicAuth, BearerAuth, HttpApi, NoAuth

logger = logging.getLogger(__name__)

MOST_FOLDERS = 10_000
"""Folders of one listing: links of a server may lead round in circles."""

_REDIRECTS = 5
_REQUESTS = 8
"""Requests for the state of files that are under way at once."""

_PIECE = 64 << 20
"""Bytes of a file that `answer_timeout` is for."""

_SHOWN = 5
_AS_IT_IS = {"Accept": "*/*", "Accept-Encoding": "identity"}


class HttpFolder:
    """Where a folder lies, and how its server is reached; connects to nothing before a session."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        """`url` and `options` hold no variables of the environment any more. Raises PlatformError for a URL without a
        host, with a password or with parameters."""
        try:
            parts = urlsplit(url)
            user, plain = parts.username, parts._replace(netloc=parts.netloc.rpartition("@")[2])
            if parts.password is not None or parts.query or parts.fragment:
                raise ValueError("it holds a password or parameters")
            if user is not None and options.password is None:
                raise ValueError("it names a user, but the source has no `password`")
            if options.password is not None and user is None:
                raise ValueError("the source has a `password`, but it names no user")
            if options.password is not None and options.token is not None:
                raise ValueError("the source has both a `password` and a `token`")
            auth: Auth = NoAuth()
            if options.password is not None and user is not None:
                auth = BasicAuth(type="basic", username=unquote(user), password=options.password)
            elif options.token is not None:
                auth = BearerAuth(type="bearer", token=options.token)
            self._url = plain._replace(path=parts.path.rstrip("/") + "/").geturl()
            self._api = HttpApi(
                url=self._url,
                auth=auth,
                timeout=options.timeout,
                answer_timeout=options.answer_timeout,
                max_retries=options.max_retries,
                patience=options.patience,
                withholds=True,
            )
        except ValidationError as error:
            raise PlatformError(f"`folder` is no URL of a folder: {error.errors()[0]['msg']}.") from None
        except ValueError as error:  # what it says may not quote the URL, which holds a password
            said = str(error) if str(error).startswith(("it ", "the source ")) else "it is malformed"
            raise PlatformError(
                f"`folder` must be https://host/path/, or https://user@host/path/ with `password: "
                f"'{{{{ env.NAME }}}}'`, but {said}."
            ) from None

    def __str__(self) -> str:
        return self._url

    @contextmanager
    def session(self) -> Iterator[Storage]:
        """Connections that are kept for as long as the block lasts."""
        with connect(self._api, Pace(None)) as client:
            yield _Session(self._url, self._api, client.session)


class _Session:
    def __init__(self, url: str, api: HttpApi, asking: requests.Session) -> None:
        self._url, self._api, self._asking = url, api, asking

    def __str__(self) -> str:
        return self._url

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        sought, seen = pattern_of(pattern), set[str]()
        paths = sorted({one for one in self._walk("", (sought.parts,), seen, hidden=sought.hidden) if one >= start})
        found, unknown = [], []
        with ThreadPoolExecutor(_REQUESTS) as threads:
            states = threads.map(self._state, paths)
            for path, state in zip(paths, states, strict=True):
                if isinstance(state, Delivery):
                    found.append(state)
                elif state is not None:
                    unknown.append(f"{path} ({state})")
        if unknown:
            logger.warning(
                "%d of the files of %s are passed over: %s%s",
                len(unknown),
                self,
                ", ".join(islice(unknown, _SHOWN)),
                " and others" if len(unknown) > _SHOWN else "",
            )
        if stable_for and (ageless := next((one for one in found if not one.mtime_ns), None)):
            raise PlatformError(
                f"{self} does not say when {ageless.path} was modified (Last-Modified), so that nobody can tell "
                f"whether it was left alone for `stable_for` ({stable_for:g} s). Remove `stable_for`, if files appear "
                "there whole."
            )
        return ready(found, stable_for, start, time.time())

    def _walk(self, folder: str, looks: Looks, seen: set[str], *, hidden: bool) -> Iterator[str]:
        """Paths that match the parts of a pattern, one part a level; `seen` are the folders that were listed."""
        if len(seen) >= MOST_FOLDERS or folder.count("/") > DEEPEST:
            raise PlatformError(
                f"More than {MOST_FOLDERS:,} folders lie below {self}, or more than {DEEPEST} in one another: its "
                "links may lead round in circles. Name the folders in `path` of the table instead of `**`."
            )
        seen.add(folder)
        for link in self._links(folder) or ():
            name = link.rstrip("/")
            meant = wanted(name, looks, hidden=hidden)
            if not link.endswith("/"):
                if meant.file:
                    yield folder + link
            elif meant.folder:
                yield from self._walk(folder + link, meant.folder, seen, hidden=hidden)

    def _links(self, folder: str) -> list[str] | None:
        """The names that the index page of a folder links to, those of folders with a slash at their end. None if there
        is no such page below the source's folder. Links that lead elsewhere are left out."""
        response = self._ask("GET", folder, {"Accept": "text/html"}, self._asking)
        status = response.status_code
        if status != 200 or "html" not in response.headers.get("Content-Type", "").lower():
            if status in (403, 404, 410) and folder:
                logger.warning("%s of %s is passed over: it answers %d", folder, self, status)
                return None
            raise self._refused(folder, response)
        here = self._place_of(folder)
        if unquote(urlsplit(response.url).path) != unquote(urlsplit(here).path):
            raise PlatformError(
                f"{shortened(here, 300)} sends on to another page, {shortened(origin(response.url), 100)}"
                f"{shortened(urlsplit(response.url).path, 200)}: a login, or the folder's true place? Set `password` "
                "or `token` of the source, or change `folder`."
            )
        page = _Page()
        page.feed(response.content.decode(response.encoding or "utf-8", errors="replace"))
        page.close()
        base = _joined(response.url, page.base) or response.url
        names = (_name_below(here, _joined(base, link)) for link in page.links if not link.startswith(("?", "#")))
        found = list(dict.fromkeys(name for name in names if name))
        if page.asks_for_password and not found:
            raise StorageUnavailableError(
                f"{shortened(here, 300)} is a page that asks for a password, no index of a folder. Set a user in "
                "`folder` and `password`, or `token`, of the source ('{{ env.NAME }}'), if the server takes them; what "
                "lies behind such a page alone cannot be read."
            )
        return found

    def _state(self, path: str) -> Delivery | str | None:
        """A file as it stands, or why nobody can tell, or None if it is gone."""
        response = self._ask("HEAD", path, _AS_IT_IS, self._asking)
        if response.status_code in (404, 410):
            return None
        if aside := self._led_out(response):
            return aside
        if response.status_code in (401, 403):
            return f"it answers {response.status_code}"
        if response.status_code != 200:
            raise self._refused(path, response)
        return _delivery(path, response) or "its length is not told"

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:
        if delivery.size <= len(line_end):
            return not delivery.size
        try:
            with spooled(None) as part:
                self._bring(delivery, part, "bytes=0-15")
                if is_packed(part):
                    return True
                self._bring(delivery, part, f"bytes={delivery.size - len(line_end)}-{delivery.size - 1}")
                part.seek(-len(line_end), os.SEEK_END)
                return part.read() == line_end
        except StorageUnavailableError:
            raise
        except (PlatformError, OSError):
            return True

    def gives_several(self) -> bool:
        return True

    def leads_out(self, delivery: Delivery) -> bool:  # noqa: ARG002 - links that do are left out
        return False

    def exists(self, delivery: Delivery) -> bool:
        return self._state(delivery.path) is not None

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
        with spooled(spool) as file:
            self._bring(delivery, file, None)
            yield file

    def changed(self, delivery: Delivery) -> bool:
        state = self._state(delivery.path)
        return not isinstance(state, Delivery) or state.version != delivery.version

    def _bring(self, delivery: Delivery, file: BinaryIO, part: str | None) -> None:
        """Write a file into another, or a part of it if the server gives parts, as it was delivered. Raises
        PlatformError if it is no longer the one that was found, FileNotFoundError if it is gone."""
        seconds = self._api.answer_timeout * (1 + delivery.size // _PIECE)
        api = self._api.model_copy(update={"answer_timeout": seconds})

        def emptied() -> BinaryIO:
            file.seek(0)
            file.truncate()
            return file

        with connect(api, Pace(None), files=emptied) as client:
            headers = _AS_IT_IS | ({"Range": part} if part else {})
            response = self._ask("GET", delivery.path, headers, client.session)
        if response.status_code in (404, 410):
            raise FileNotFoundError(delivery.path)
        if aside := self._led_out(response):
            raise PlatformError(f"{aside}: a login? Grant the source's user leave to read it")
        if response.status_code not in ((200, 206) if part else (200,)):
            raise PlatformError(f"the server answers {response.status_code}. Grant the source's user leave to read it")
        came = _delivery(delivery.path, response)
        if response.status_code == 200:
            file.seek(0, os.SEEK_END)
            if came is None or came.version != delivery.version or file.tell() != delivery.size:
                raise PlatformError(CHANGED)
        file.seek(0)

    def _ask(self, method: str, path: str, headers: dict[str, str], session: requests.Session) -> requests.Response:
        """An answer, after redirections within the server. Raises StorageUnavailableError if there is none."""
        url = self._place_of(path)
        for _ in range(_REDIRECTS):
            try:
                response = session.request(
                    method, url, headers=headers, auth=self._auth(), allow_redirects=False, stream=True
                )
            except TransientError as error:
                raise StorageUnavailableError(str(error)) from None
            if not response.is_redirect:
                return response
            url = urljoin(url, response.headers["Location"])
            if origin(url) != origin(self._url):
                raise PlatformError(
                    f"{self} sends on to another host: {origin(url)}. Nothing is asked for there. If that is where the "
                    "files lie, change `folder` of the source."
                )
        raise PlatformError(f"{shortened(self._place_of(path), 300)} sends on more than {_REDIRECTS} times.")

    def _led_out(self, response: requests.Response) -> str | None:
        """Where a redirection out of the folder led: what is there is not the file. None if none did."""
        path = urlsplit(response.url).path
        if unquote(path).startswith(unquote(urlsplit(self._url).path)):
            return None
        return f"it sends on to {shortened(path, 200)}, out of the folder"

    def _auth(self) -> requests.auth.AuthBase | None:
        auth = self._api.auth
        if isinstance(auth, BasicAuth):
            return requests.auth.HTTPBasicAuth(auth.username, auth.password.get_secret_value())
        return _Bearer(auth.token.get_secret_value()) if isinstance(auth, BearerAuth) else None

    def _refused(self, path: str, response: requests.Response) -> PlatformError:
        where, status = shortened(self._place_of(path), 300), response.status_code
        if status in (401, 403):
            return StorageUnavailableError(
                f"{where} lets nobody in with what was sent ({status}). Set a user in `folder` and `password`, or "
                "`token`, of the source ('{{ env.NAME }}'); or have the server list the folder."
            )
        if status in (404, 410):
            return PlatformError(f"The folder {where} does not exist ({status}). Correct `folder` of the source.")
        if status == 200:
            kind = response.headers.get("Content-Type", "no type")
            return PlatformError(
                f"{where} is no page of links but {shortened(kind, 80)}. `folder` must be a folder whose index the "
                "server shows (autoindex, directory listing); what an API offers is read by a RestSource."
            )
        return PlatformError(f"{where} answers {status} to {response.request.method}, which files are listed by.")

    def _place_of(self, path: str) -> str:
        return self._url + quote(path, errors="surrogateescape")


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Page(HTMLParser):
    """The links of a page, and what they are relative to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.base = ""
        self.asks_for_password = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        target = (given.get("href") or "").strip()
        if tag == "a" and target:
            self.links.append(target)
        elif tag == "input" and (given.get("type") or "").lower() == "password":
            self.asks_for_password = True
        elif tag == "base":
            self.base = self.base or target


def _joined(base: str, link: str) -> str:
    """The URL that a link means; none if it is malformed."""
    try:
        return urljoin(base, link)
    except ValueError:
        return ""


def _name_below(folder: str, url: str) -> str | None:
    """The name of what a URL means, if that lies right below a folder; with a slash at its end if it is a folder."""
    parts = urlsplit(url)
    below, path = urlsplit(folder), unquote(parts.path, errors="surrogateescape")
    root = unquote(below.path, errors="surrogateescape")
    if _host(parts) != _host(below) or parts.query or not path.startswith(root):
        return None
    # A slash that is written as %2F would be another folder's when it is asked for.
    name = parts.path.rstrip("/").rpartition("/")[2]
    plain = unquote(name, errors="surrogateescape")
    end = "/" if path.endswith("/") else ""
    if plain in ("", ".", "..") or "/" in plain or plain != path.removeprefix(root).rstrip("/"):
        return None
    return plain + end


def _host(parts: SplitResult) -> tuple[str | None, int | None] | None:
    """Host and port of a URL, without the port that goes without saying: behind a proxy that speaks https, pages have
    links with http. Only names are taken from them. None of what is no URL of a web server."""
    if parts.scheme not in HTTP:
        return None
    try:
        return parts.hostname, None if parts.port in (80, 443) else parts.port
    except ValueError:  # no number
        return None


def _delivery(path: str, response: requests.Response) -> Delivery | None:
    """A file as the headers of an answer tell of it; None if they do not tell its length."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        return None
    try:
        modified = parsedate_to_datetime(response.headers.get("Last-Modified", ""))
    except (ValueError, TypeError):
        modified = None
    return Delivery(
        path, int(length), int(modified.timestamp()) * 10**9 if modified else 0, etag=response.headers.get("ETag", "")
    )
