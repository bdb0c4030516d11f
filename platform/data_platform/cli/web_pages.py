"""The pages of dashboards beside the Dagster UI: an ASGI application that answers `/pages/<page>.html` with the file,
and passes everything else on. Who may ask is decided before, in `web_access`.
"""

import asyncio
import hashlib
import re
from pathlib import Path

from data_platform.cli.web_access import App, Receive, Scope, Send

PAGE = re.compile(r"/pages/([a-z][a-z0-9_]*)\.html")

TEXT = b"text/plain; charset=utf-8"


def with_pages(app: App, folder: Path, prefix: str = "") -> App:
    """The application, and the pages of a folder below `/pages/`, after the prefix of all its paths. A page is read
    anew for each request, as it may have been built again; a browser that has it as it is gets no copy."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        # What is not HTTP, as the beginning and the end of the server, has no path.
        path = scope["path"] if scope["type"] == "http" else ""
        found = PAGE.fullmatch(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if found is None or scope["method"] not in ("GET", "HEAD"):
            await app(scope, receive, send)
            return
        page = found.group(1)
        status, kind, tag = 200, b"text/html; charset=utf-8", b""
        try:
            body = await asyncio.to_thread((folder / f"{page}.html").read_bytes)
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()
        except FileNotFoundError:
            said = f"There is no page {page}, or it was not built yet. Build it: dp run dashboards\n"
            status, kind, body = 404, TEXT, said.encode()
        except OSError as error:
            status, kind, body = 500, TEXT, f"The file of the page {page} cannot be read: {error.strerror}.\n".encode()
        headers = [(b"cache-control", b"no-cache"), *([(b"etag", tag)] if tag else [])]
        if tag and _is_known(scope, tag):
            status, body = 304, b""
        else:
            length = str(len(body)).encode()
            headers += [(b"content-type", kind), (b"content-length", length), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return answered


def _is_known(scope: Scope, tag: bytes) -> bool:
    """Whether whoever asks says that they have what bears this tag. A proxy that packs answers makes it a weak one."""
    given = [value for key, value in scope["headers"] if key.lower() == b"if-none-match"]
    return any(one.strip().removeprefix(b"W/") in (tag, b"*") for value in given for one in value.split(b","))
