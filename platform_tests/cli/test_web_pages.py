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
    home: Path, path: str, method: str = "GET", *, token: str | None = None, given: str = ""
) -> tuple[int, bytes]:
    """The status and the body of an answer; 299 where the UI itself was asked."""
    status, _, body = answer(home, path, method, token=token, given=given)
    return status, body


def answer(
    home: Path,
    path: str,
    method: str = "GET",
    *,
    token: str | None = None,
    given: str = "",
    known: bytes = b"",
    prefix: str = "",
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of an answer. `known` is the tag of what the browser has."""
    sent: list[Message] = []

    async def ui(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:3000"), *([(b"if-none-match", known)] if known else [])]
    headers += [*([(b"authorization", f"Bearer {given}".encode())] if given else [])]
    scope = {"type": "http", "method": method, "scheme": "http", "path": path, "query_string": b"", "headers": headers}
    settings = Settings(home, str(home / "catalog.sqlite"), str(home / "data"), ui_token=token)
    asyncio.run(guarded(ui, settings, prefix)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent)


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


def test_a_browser_that_has_the_page_as_it_is_gets_no_copy_and_one_that_has_an_older_one_does(home: Path) -> None:
    status, headers, body = answer(home, "/pages/sales.html", "HEAD")
    assert (status, headers[b"content-length"], body) == (200, b"14", b"")
    tag = headers[b"etag"]
    for known in (tag, b"W/" + tag, b'"other", ' + tag, b"*"):
        status, headers, body = answer(home, "/pages/sales.html", known=known)
        assert (status, headers[b"etag"], headers.get(b"content-length"), body) == (304, tag, None, b"")
    (home / "dashboards" / "sales.html").write_text("<h1>More</h1>")
    assert answer(home, "/pages/sales.html", known=tag)[::2] == (200, b"<h1>More</h1>")
    assert answer(home, "/pages/later.html", known=b"*")[0] == 404


def test_a_file_that_cannot_be_read_is_named_without_its_place(home: Path) -> None:
    (home / "dashboards" / "odd.html").mkdir()
    assert asked(home, "/pages/odd.html") == (500, b"The file of the page odd cannot be read: Is a directory.\n")


def test_pages_are_below_the_prefix_of_the_ui(home: Path) -> None:
    assert answer(home, "/data/pages/sales.html", prefix="/data")[0] == 200
    assert answer(home, "/pages/sales.html", prefix="/data")[0] == 299
    assert answer(home, "/database/pages/sales.html", prefix="/data")[0] == 299


def test_the_beginning_of_the_server_is_the_ui_s(home: Path) -> None:
    reached: list[str] = []

    async def ui(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    settings = Settings(home, str(home / "catalog.sqlite"), str(home / "data"))
    for prefix in ("", "/data"):
        asyncio.run(guarded(ui, settings, prefix)({"type": "lifespan"}, cast(Any, None), cast(Any, None)))
    assert reached == ["lifespan"] * 2


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
