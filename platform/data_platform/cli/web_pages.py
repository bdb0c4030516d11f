"""The pages of dashboards beside the Dagster UI: an ASGI application that answers `/pages/<page>.html` with the file,
below the path under which the UI is served, and passes everything else on. Who may ask is decided before, in
`web_access`.
"""

import asyncio
import re
from pathlib import Path

from data_platform.cli.web_access import App, Receive, Scope, Send

PAGE = r"/pages/([a-z][a-z0-9_]*)\.html"


def with_pages(app: App, folder: Path, prefix: str = "") -> App:
    """The application, and the pages of a folder below `/pages/` of `prefix`, the path under which the application is.
    A page is read anew for each request: it may have been built again."""
    page = re.compile(re.escape(prefix) + PAGE)

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        found = page.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None or scope["method"] not in ("GET", "HEAD"):
            await app(scope, receive, send)
            return
        status, kind = 200, b"text/html; charset=utf-8"
        try:
            body = await asyncio.to_thread((folder / f"{found.group(1)}.html").read_bytes)
        except FileNotFoundError:
            said = f"There is no page {found.group(1)}, or it was not built yet. Build it: dp run dashboards\n"
            status, kind, body = 404, b"text/plain; charset=utf-8", said.encode()
        length = str(len(body)).encode()
        headers = [(b"content-type", kind), (b"content-length", length), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return answered
