"""Pages beside the UI: read by whoever may read the UI, and nothing else of the folder."""

import asyncio
from pathlib import Path

import pytest

from data_platform.cli.web_access import Message, Receive, Scope, Send
from data_platform.cli.webserver import guarded
from data_platform.lakehouse.settings import Settings

TOKEN = "a token that is long enough"


def asked(
    home: Path, path: str, method: str = "GET", *, token: str | None = None, given: str = ""
) -> tuple[int, bytes]:
    """The status and the body of an answer; 299 where the UI itself was asked."""
    sent: list[Message] = []

    async def ui(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:3000"), *([(b"authorization", f"Bearer {given}".encode())] if given else [])]
    scope = {"type": "http", "method": method, "scheme": "http", "path": path, "query_string": b"", "headers": headers}
    settings = Settings(home, str(home / "catalog.sqlite"), str(home / "data"), ui_token=token)
    asyncio.run(guarded(ui, settings)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "sales.html").write_text("<h1>Sales</h1>")
    (tmp_path / "dashboards" / ".lock").touch()
    return tmp_path


def test_a_page_is_answered_as_it_is_now(home: Path) -> None:
    assert asked(home, "/pages/sales.html") == (200, b"<h1>Sales</h1>")
    (home / "dashboards" / "sales.html").write_text("<h1>More</h1>")
    assert asked(home, "/pages/sales.html") == (200, b"<h1>More</h1>")


def test_a_page_that_was_not_built_is_named(home: Path) -> None:
    status, said = asked(home, "/pages/later.html")
    assert (status, b"There is no page later" in said) == (404, True)


@pytest.mark.parametrize("path", ["/pages/.lock", "/pages/../catalog.sqlite", "/pages/sales.html/", "/assets/pages"])
def test_everything_else_is_the_ui_s(home: Path, path: str) -> None:
    assert asked(home, path)[0] == 299
    assert asked(home, "/pages/sales.html", "POST")[0] == 299


def test_a_page_asks_for_the_token_that_the_ui_asks_for(home: Path) -> None:
    assert asked(home, "/pages/sales.html", token=TOKEN)[0] == 401
    assert asked(home, "/pages/sales.html", token=TOKEN, given="another")[0] == 401
    assert asked(home, "/pages/sales.html", token=TOKEN, given=TOKEN)[0] == 200
