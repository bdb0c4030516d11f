"""Pages beside the UI: read by whoever may read the UI, and nothing else of the folder."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from data_platform.cli.web_access import App, Message, Receive, Scope, Send
from data_platform.cli.webserver import guarded, serve
from data_platform.lakehouse.settings import Settings

TOKEN = "a token that is long enough"


def asked(
    home: Path, path: str, method: str = "GET", *, token: str | None = None, given: str = "", prefix: str = ""
) -> tuple[int, bytes]:
    """The status and the body of an answer of a server under `prefix`; 299 where the UI itself was asked."""
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
    asyncio.run(guarded(ui, settings, prefix)(scope, receive, send))
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


def test_under_a_prefix_pages_are_below_it_and_nowhere_else(home: Path) -> None:
    assert asked(home, "/lake.v2/pages/sales.html", prefix="/lake.v2")[0] == 200
    assert asked(home, "/lake.v2/pages/later.html", prefix="/lake.v2")[0] == 404
    for elsewhere in ("/pages/sales.html", "/lakeXv2/pages/sales.html", "/a/lake.v2/pages/sales.html"):
        assert asked(home, elsewhere, prefix="/lake.v2")[0] == 299
    assert asked(home, "/lake.v2/pages/sales.html", prefix="/lake.v2", token=TOKEN)[0] == 401


def test_the_web_server_s_option_says_where_pages_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_webserver import cli

    dagster, made = cast(Any, cli), list[Any]()

    async def ui(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(f"{scope['path']} is a page's")

    def create(process: object, path_prefix: str, *arguments: object, **options: object) -> App:
        made.append((process, path_prefix, options))
        return ui

    monkeypatch.setattr(cli, "create_app_from_workspace_process_context", create)
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    # As Dagster calls it, once its command line was read.
    monkeypatch.setattr(
        cli,
        "main",
        lambda: made.append(dagster.create_app_from_workspace_process_context("process", "/lake", 2, lifespan=3)),
    )
    monkeypatch.setattr("data_platform.redaction.scrub_process", lambda: None)
    serve()
    (arguments, app) = made
    assert arguments == ("process", "/lake", {"lifespan": 3})
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:3000")]
    asyncio.run(
        app(
            {
                "type": "http",
                "method": "GET",
                "path": "/lake/pages/sales.html",
                "query_string": b"",
                "headers": headers,
            },
            receive,
            send,
        )
    )
    assert sent[0]["status"] == 200


def test_a_page_asks_for_the_token_that_the_ui_asks_for(home: Path) -> None:
    assert asked(home, "/pages/sales.html", token=TOKEN)[0] == 401
    assert asked(home, "/pages/sales.html", token=TOKEN, given="another")[0] == 401
    assert asked(home, "/pages/sales.html", token=TOKEN, given=TOKEN)[0] == 200
