"""Who may ask the Dagster UI, which has no access control of its own: an ASGI application that passes on to another one
only requests for this server, from its own pages or from programs, with the token if one is set. How the UI is served
with it belongs to `webserver`.

Any page that somebody visits can send requests to a server on the same machine. What it cannot do is forge the headers
Host, Origin and Sec-Fetch-Site, or send `application/json` to another origin without asking that first.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

COOKIE = "data_platform_ui"
JSON = "application/json"
READING = ("GET", "HEAD", "OPTIONS")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
SHOWN = 100
"""Characters of a refused header that the answer repeats."""

# The UI shows notebooks in frames of its own pages.
PROTECTION = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every answer: no page of another origin shows it in a frame, or loads it as a script or an image."""


@dataclass(frozen=True)
class Access:
    """`hosts` are answered besides the loopback ones, each with any port unless it names one. `token` is asked of every
    request if there is one; it does not show when this is printed."""

    hosts: Collection[str] = ()
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not passed on. `status` is an HTTP status; a web socket is closed instead."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


def with_access_control(app: App, access: Access) -> App:
    """The application that answers what `access` allows as `app` does, and refuses everything else in one sentence of
    plain text. A token in the query is exchanged for a cookie, and taken out of the scope before anything logs it."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        given = _take_token(scope) if access.token is not None else None
        refusal = _foreign(scope, access.hosts) or _unclear(scope)
        if refusal is None and access.token is not None:
            if given is not None and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
                if _same(given, access.token):
                    await _exchange(scope, send, access.token)
                    return
                refusal = _unauthorized("The token in the address is not the one that this server was started with.")
            elif not _authorized(scope, access.token):
                refusal = _unauthorized("This server asks for a token.")
        if refusal is not None:
            await _refuse(scope, receive, send, refusal)
            return
        await app(scope, receive, _protected(send))

    return guarded


def _headers(scope: Scope, name: str) -> list[str]:
    """All values of a header; `name` in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name.encode()]


def _foreign(scope: Scope, hosts: Collection[str]) -> Refusal | None:
    """Why a request is not one for this server from its own pages or from a program."""
    given = _headers(scope, "host")
    if len(given) != 1 or not is_host_of_ours(given[0], hosts):
        return Refusal(
            403,
            f"This server does not answer to the host {_shown(given)}: it is reached as localhost or 127.0.0.1, or by "
            "a name that DATA_PLATFORM_UI_HOSTS lists.",
        )
    if scope["type"] == "http" and scope["method"] in READING:
        return None
    for origin in _headers(scope, "origin"):
        if not _is_origin_of(origin, given[0]):
            return Refusal(
                403,
                f"A page of {_shown([origin])} may not change anything at {_shown(given)}. Behind a reverse proxy: let "
                "it pass on the header Host as the browser sent it.",
            )
    sites = _headers(scope, "sec-fetch-site")
    if any(site not in ("same-origin", "none") for site in sites):
        return Refusal(403, f"A page of another origin ({_shown(sites)}) may not change anything here.")
    return None


def is_host_of_ours(host: str, hosts: Collection[str]) -> bool:
    host = host.lower()
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return False
    # What is not a name or address with a port is not what a browser sends.
    if name is None or parts.netloc != host or "@" in host or host.endswith(":"):
        return False
    listed = {one.lower() for one in hosts}
    return name == "localhost" or _is_loopback(name) or host in listed or host.rpartition(":")[0] in listed


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether pages of an origin (`http://localhost:3000`) are those of a host (`localhost:3000`)."""
    scheme, separator, authority = origin.lower().partition("://")
    port = DEFAULT_PORTS.get(scheme)
    if not separator or port is None:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)


def _unclear(scope: Scope) -> Refusal | None:
    """Why a request is not in a form that only a page of ours or a program can send."""
    if scope["type"] != "http":
        return None
    # A route's pattern also matches a path that ends in a line feed.
    asks_graphql = scope["path"].rpartition("/")[2].strip() == "graphql"
    accepted = next(iter(_headers(scope, "accept")), "")
    if scope["method"] == "GET" and asks_graphql and "text/html" not in accepted:
        return Refusal(405, "GraphQL is asked by POST with a body of application/json.", ((b"allow", b"POST"),))
    if scope["method"] in READING:
        return None
    types = {value.partition(";")[0].strip().lower() for value in _headers(scope, "content-type")}
    has_body = "transfer-encoding" in _names(scope) or any(size != "0" for size in _headers(scope, "content-length"))
    if types - {JSON} or ((has_body or asks_graphql) and not types):
        return Refusal(415, f"A request that changes something is sent as application/json, not as {_shown(types)}.")
    return None


def _names(scope: Scope) -> set[str]:
    return {key.decode("latin-1").lower() for key, _ in scope["headers"]}


def _take_token(scope: Scope) -> str | None:
    """The token in the query, which is taken out of it: in the scope itself, as the server's log reads that."""
    pairs = scope["query_string"].decode("latin-1").split("&")
    tokens = [unquote_plus(pair.partition("=")[2]) for pair in pairs if _is_token(pair)]
    if tokens:
        scope["query_string"] = "&".join(pair for pair in pairs if not _is_token(pair)).encode("latin-1")
    return tokens[-1] if tokens else None


def _is_token(pair: str) -> bool:
    return unquote_plus(pair.partition("=")[0]) == "token"


def _authorized(scope: Scope, token: str) -> bool:
    for value in _headers(scope, "authorization"):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer" and _same(credentials.strip(), token):
            return True
    return any(_same(value, _cookie_value(token)) for value in _cookies(scope))


def _cookies(scope: Scope) -> list[str]:
    found = []
    for header in _headers(scope, "cookie"):
        for pair in header.split(";"):
            try:
                found += [morsel.value for name, morsel in SimpleCookie(pair.strip()).items() if name == COOKIE]
            except CookieError:
                # A cookie of another server on this machine: browsers do not tell ports apart.
                continue
    return found


def _cookie_value(token: str) -> str:
    """What the cookie holds: fit for a header whatever the token is, and not the token, as browsers send the cookie to
    every port of this host."""
    return hmac.new(token.encode(), b"cookie of the user interface", hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _unauthorized(reason: str) -> Refusal:
    advice = "Open the address that `dp ui` printed, which ends in ?token=..., or send `Authorization: Bearer <token>`."
    return Refusal(401, f"{reason} {advice}", ((b"www-authenticate", b"Bearer"),))


async def _exchange(scope: Scope, send: Send, token: str) -> None:
    """Set the cookie, and lead to the same page without the token in its address."""
    # Two slashes at the beginning would name another host.
    target = "/" + quote(scope["path"]).lstrip("/")
    if scope["query_string"]:
        target += f"?{scope['query_string'].decode('latin-1')}"
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    cookie = f"{COOKIE}={_cookie_value(token)}; Path=/; HttpOnly; SameSite=Strict{secure}"
    headers = [
        (b"location", target.encode("latin-1")),
        (b"set-cookie", cookie.encode()),
        (b"cache-control", b"no-store"),
    ]
    await _protected(send)({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    body = f"{refusal.reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *refusal.headers,
    ]
    await _protected(send)({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _protected(send: Send) -> Send:
    """Send, with the headers of PROTECTION."""

    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *PROTECTION]}
        await send(message)

    return protected


def _shown(values: Collection[str]) -> str:
    return " and ".join(repr(value[:SHOWN]) for value in values) or "that is not given"
