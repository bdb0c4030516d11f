"""Asking an HTTP API: session, retries, authentication. How its pages follow one another is `pages`'s.

Chosen, after reading and measuring: dlt's RESTClient drives the pages and authenticates (its paginators know every
style the trade uses), on a session of our own. dlt's session was left out: it retries sooner than a long Retry-After
asks for, without jitter, and without a limit on the time. urllib3's Retry was: it does not cover a body that breaks
off, since requests reads bodies after it. So tenacity (dlt's own choice) retries round the whole exchange, with
urllib3's reading of Retry-After. What dlt would do in silence is refused here, before it sees the answer: rows that
are not where they should be, pages that go round in circles, credentials that follow a link to another host.

Importing dlt takes 0.5 s and 60 MB, so this module is imported when something is read, and nowhere else. dlt starts
neither telemetry nor configuration files: both belong to its pipelines, and the settings are handed over ready.
"""

import http.client
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from http.client import responses
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl, urlsplit

import requests
import urllib3
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.sources.helpers.rest_client import auth as dlt_auth
from dlt.sources.helpers.rest_client.client import RESTClient
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.http import options
from data_platform.redaction import WITHHELD, register, register_named, scrub

MAX_PAGE_BYTES = 64 * 2**20
"""A page is held in memory whole; a larger one needs a smaller limit from the API."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds of back-off: the first, and the most it grows to. Up to as much as the first again is added by chance."""


class Pace:
    """At most so many requests in a second, over all threads of a process."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is our turn."""
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        time.sleep(turn - now)


class _TransientError(Exception):
    """What may be gone when the request is sent again."""

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class _Deadline:
    """Ends an answer that takes longer than it may, however often a byte of it comes: the limit that requests and
    urllib3 have begins anew with each byte. `passed` tells whether it was met."""

    def __init__(self, limit: timedelta) -> None:
        self.passed = False
        self.socket: socket.socket | None = None
        self._timer = threading.Timer(limit.total_seconds(), self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        self._token = _deadline.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        _deadline.reset(self._token)

    def _end(self) -> None:
        self.passed = True
        if self.socket is not None:
            with suppress(OSError):
                # Not the shutdown of TLS: that would change what the other thread reads from.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


_deadline: ContextVar[_Deadline | None] = ContextVar("_deadline", default=None)


def _await_answer(connection: http.client.HTTPConnection) -> None:
    """Let the deadline under way know on which socket the answer comes."""
    if (deadline := _deadline.get()) is not None:
        deadline.socket = connection.sock


class _HttpConnection(urllib3.connection.HTTPConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3's own narrows it as well
        _await_answer(self)
        return super().getresponse()


class _HttpsConnection(urllib3.connection.HTTPSConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3's own narrows it as well
        _await_answer(self)
        return super().getresponse()


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls: ClassVar[type[Any]] = _HttpConnection  # type: ignore[misc]


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls: ClassVar[type[Any]] = _HttpsConnection  # type: ignore[misc]


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(HTTPAdapter):
    """Sends a request until it is answered, bounded in tries and time, and only to hosts that were named."""

    def __init__(
        self, http: options.HttpApi, pace: Pace, *, bodies: bool, files: Callable[[], BinaryIO] | None
    ) -> None:
        super().__init__()
        self._http, self._pace, self._bodies, self._files = http, pace, bodies, files
        self._token_url = http.auth.token_url if isinstance(http.auth, options.OAuth2Auth) else None
        self._origins = {_origin(url) for url in (http.url, self._token_url) if url is not None}

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, *_: Any, **settings: Any) -> requests.Response:
        where = f"{request.method} {redact(request.url or '')}"
        if _origin(request.url or "") not in self._origins:
            raise PlatformError(
                f"The API sends on to another host: {request.method} {origin(request.url or '')}. Its credentials are "
                f"not sent there. If that is where the API lives, put it into `url` instead of {self._http.url}."
            )
        http, settings = self._http, settings | {"stream": True, "timeout": self._http.timeout}
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            wait=_wait,
            stop=stop_after_attempt(http.max_retries + 1) | stop_before_delay(http.patience.total_seconds()),
            reraise=True,
        )
        started = time.monotonic()
        try:
            return retrying(self._once, request, settings)
        except _TransientError as error:
            tries = retrying.statistics["attempt_number"]
            wanted = f", which asked for a pause of {error.retry_after:.0f} s" if error.retry_after else ""
            raise TransientError(
                f"{where} failed {tries} times in {time.monotonic() - started:.0f} s: "
                f"{error}{wanted}. "
                f"Try later, or raise max_retries ({http.max_retries}), patience ({http.patience}), timeout "
                f"({http.timeout:g} s) or answer_timeout ({http.answer_timeout}) of the source in its defs.yaml; after "
                "a 429, lower requests_per_second."
            ) from None  # the cause carries the URL with its parameters

    def _once(self, request: requests.PreparedRequest, settings: dict[str, Any]) -> requests.Response:
        self._pace.wait()
        _register_sent(request)
        limit = self._http.answer_timeout
        body, most = (self._files(), None) if self._files else (io.BytesIO(), MAX_PAGE_BYTES)
        deadline = _Deadline(limit)
        try:
            with deadline:
                response = super().send(request, **settings)
                wanted = self._bodies or response.status_code >= 300
                while (
                    wanted
                    and (most is None or body.tell() <= most)
                    and (part := response.raw.read(2**20, decode_content=self._files is None))
                ):
                    body.write(part)
            if deadline.passed:  # what ends with the connection would seem whole
                raise _TransientError(_unended(limit, body.tell()))
        except (OSError, requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            if deadline.passed:
                raise _TransientError(_unended(limit, body.tell())) from None
            raise self._failure(error, request) from None
        if not wanted:
            response.close()
        if most is not None and body.tell() > most:
            response.close()
            raise PlatformError(
                f"A page of {redact(request.url or '')} is larger than {MAX_PAGE_BYTES // 2**20} MB. "
                "Ask for smaller pages by a parameter of the API."
            )
        body.seek(0)
        response.raw = body
        if response.status_code == 429 or response.status_code >= 500:
            raise _TransientError(says(response, self._http), _retry_after(response))
        if request.url == self._token_url and response.status_code < 300:
            _register_tokens(response)
        return response

    @staticmethod
    def _failure(error: Exception, request: requests.PreparedRequest) -> Exception:
        """What an exchange failed of: for good, or such that it may be sent again; anything else as it is."""
        where = redact(request.url or "")
        if isinstance(error, requests.exceptions.SSLError):
            return PlatformError(
                f"The certificate of {where} was not accepted: {_reason(error)}. "
                "For an authority of your own, name its file in REQUESTS_CA_BUNDLE."
            )
        if isinstance(error, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError):
            reason = _reason(error)
            if reason.startswith(("LineTooLong", "HTTPException: got more than")):
                return PlatformError(
                    f"{where} answers with headers larger than HTTP clients take ({reason.partition(': ')[2]}). Have "
                    "the API mended, or look for a parameter that makes it say less."
                )
            return _TransientError(reason)
        return error


def _unended(limit: timedelta, came: int) -> str:
    return f"the answer was not at its end after {limit.total_seconds():g} s ({came:,} bytes of it had come)"


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _TransientError) and error.retry_after is not None:
        return error.retry_after
    return wait_exponential_jitter(multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT)(state)


def _retry_after(response: requests.Response) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date. One that is neither is as good as none."""
    try:
        return urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", ""))
    except urllib3.exceptions.InvalidHeader:
        return None


def _reason(error: BaseException) -> str:
    """The innermost cause: what wraps it repeats the URL."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"


def says(response: requests.Response, http: options.HttpApi) -> str:
    """Status, reason and the beginning of the body, where that may be shown."""
    status = f"{response.status_code} {responses.get(response.status_code, '')}".strip()
    if not response.content:
        return status
    if http.withholds:
        return f"{status}, {len(response.content):,} bytes {WITHHELD}"
    # Scrubbed before it is cut: of half a secret nobody could tell that it is one.
    return f"{status}, {scrub(' '.join(response.content[: 2**16].decode('utf-8', 'replace').split()))[:200]}"


def _register_sent(request: requests.PreparedRequest) -> None:
    """Have the credentials of a request kept out of messages, a token too that was obtained at run time."""
    scheme, _, credentials = str(request.headers.get("Authorization", "")).partition(" ")
    register(credentials or scheme)


def _register_tokens(response: requests.Response) -> None:
    """Have the tokens that were just given kept out of messages. Raises PlatformError if there is none."""
    try:
        given = response.json()
    except ValueError:
        given = None
    if not isinstance(given, dict) or not isinstance(given.get("access_token"), str):
        raise PlatformError(
            f"{redact(response.url)} was asked for a token, and answered {response.status_code} without an "
            "`access_token` in JSON. Look at `auth.token_url`."
        )
    register(*(value for name, value in given.items() if name.endswith("token") and isinstance(value, str)))


def origin(url: str) -> str:
    """Scheme, host and port of a URL: of one that the API made up, the path too may hold anything."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def redact(url: str) -> str:
    """The URL with the names of its parameters but not their values, and without a password."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=..." for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


class _QuietQueries(logging.Filter):
    """At level DEBUG urllib3 logs every URL whole, an API key among its parameters too."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"\?[^\s\"']*", "?...", record.getMessage()), ()
        return True


@contextmanager
def connect(
    http: options.HttpApi, pace: Pace, *, bodies: bool = True, files: Callable[[], BinaryIO] | None = None
) -> Iterator[RESTClient]:
    """A client of one API; leaving the context closes its connections. Without `bodies` it only learns whether the API
    answers: what a good answer holds is not read. With `files`, answers of any size are written into what that makes,
    as they were sent, and are its `raw`; a request must be sent with `stream`, or they are held in memory too. Its
    credentials are kept out of all messages from then on."""
    register(*http.secrets)
    register_named(http.parameters)
    logger, quiet = logging.getLogger("urllib3.connectionpool"), _QuietQueries()
    logger.addFilter(quiet)
    try:
        with requests.Session() as session:
            session.auth = _as_it_is  # or a .netrc of the machine would speak for the source
            session.headers.update({"Accept": "application/json", "User-Agent": "data-platform"})
            session.headers.update({name: secret.get_secret_value() for name, secret in http.headers.items()})
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter(http, pace, bodies=bodies, files=files))
            yield RESTClient(
                base_url=http.url,
                auth=_auth(http.auth, session),
                session=session,
                config=RuntimeConfiguration(dlthub_telemetry=False),
            )
    finally:
        logger.removeFilter(quiet)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _auth(auth: options.Auth, session: requests.Session) -> AuthBase | None:
    match auth:
        case options.NoAuth():
            return None
        case options.BearerAuth():
            return dlt_auth.BearerTokenAuth(auth.token.get_secret_value())
        case options.BasicAuth():
            return dlt_auth.HttpBasicAuth(auth.username, auth.password.get_secret_value())
        case options.ApiKeyAuth():
            return dlt_auth.APIKeyAuth(auth.name, auth.key.get_secret_value(), auth.location)
        case options.OAuth2Auth():
            return dlt_auth.OAuth2ClientCredentials(
                access_token_url=auth.token_url,
                client_id=auth.client_id.get_secret_value(),
                client_secret=auth.client_secret.get_secret_value(),
                access_token_request_data=dict(auth.parameters),
                session=session,
            )
