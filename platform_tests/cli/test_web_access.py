"""Who may ask the UI: a table of requests, each passed on or refused with its reason; then the token, and the server
that `dp ui` and production start, as a process."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from platform_tests.cli.conftest import Dp

from data_platform.cli import development, ui, webserver
from data_platform.cli.web_access import Access, Message, Receive, Scope, Send, with_access_control
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import settings_from_environment

HERE = "127.0.0.1:3000"
JSON = {"content-type": "application/json", "content-length": "9"}
TOKEN = "a token; with = odd & characters"


class Asked:
    """What became of one request: what the application behind saw of it, and what was sent."""

    def __init__(self, access: Access, method: str, target: str, headers: dict[str, str]) -> None:
        self.seen: Scope | None = None
        self.sent: list[Message] = []
        path, _, query = target.partition("?")
        pairs = {"host": HERE, **headers}
        self.scope: Scope = {
            "type": "websocket" if method == "WEBSOCKET" else "http",
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items() if value != "(none)"],
        }
        if method != "WEBSOCKET":
            self.scope["method"] = method

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.seen = scope
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
            await send({"type": "http.response.body", "body": b"shown"})

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            self.sent.append(message)

        asyncio.run(with_access_control(app, access)(self.scope, receive, send))

    @property
    def status(self) -> int:
        """That of the answer; for a web socket the code with which it was closed."""
        start = self.sent[0]
        status: int = start["code"] if start["type"] == "websocket.close" else start["status"]
        return status

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    def header(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.sent[0]["headers"] if key.decode() == name]


def ask(method: str, target: str, access: Access | None = None, /, **headers: str) -> Asked:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(access or Access(("data.example.com", "lake.example.com:8443")), method, target, named)


PASSED: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/", {}),
    ("GET", "/", {"host": "localhost:3000"}),
    ("GET", "/", {"host": "LOCALHOST"}),
    ("GET", "/", {"host": "[::1]:3000"}),
    ("GET", "/", {"host": "127.1.2.3"}),
    ("GET", "/", {"host": "data.example.com"}),
    ("GET", "/", {"host": "data.example.com:8080"}),
    ("GET", "/", {"host": "lake.example.com:8443"}),
    # Somebody follows a link on another site.
    ("GET", "/runs", {"sec-fetch-site": "cross-site", "accept": "text/html"}),
    ("GET", "/graphql?query={version}", {"accept": "text/html,*/*"}),
    ("HEAD", "/graphql?query={version}", {}),
    ("GET", "/server_info?query=x", {}),
    # Programs: curl, Dagster's GraphQL client, a report of an asset without a body.
    ("POST", "/graphql", JSON),
    ("POST", "/graphql", {"content-type": "application/json; charset=utf-8", "transfer-encoding": "chunked"}),
    ("POST", "/report_asset_materialization/a?data_version=1", {}),
    ("POST", "/report_asset_check/a", {"content-length": "0"}),
    ("WEBSOCKET", "/graphql", {}),
    # The UI itself.
    ("POST", "/graphql", {**JSON, "origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}),
    ("POST", "/graphql", {**JSON, "host": "localhost", "origin": "http://localhost"}),
    ("POST", "/graphql", {**JSON, "host": "localhost:80", "origin": "http://localhost"}),
    ("POST", "/graphql", {**JSON, "host": "data.example.com", "origin": "https://data.example.com"}),
    ("WEBSOCKET", "/graphql", {"origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}),
]
REFUSED: list[tuple[int, str, str, str, dict[str, str]]] = [
    (403, "host 'evil.example'", "GET", "/", {"host": "evil.example"}),
    (403, "DATA_PLATFORM_UI_HOSTS", "POST", "/graphql", {**JSON, "host": "evil.example:3000"}),
    (403, "not given", "GET", "/", {"host": "(none)"}),
    (403, "host", "GET", "/", {"host": ""}),
    (403, "host", "GET", "/", {"host": "127.0.0.1.evil.example"}),
    (403, "host", "GET", "/", {"host": "localhost.evil.example:3000"}),
    (403, "host", "GET", "/", {"host": "localhost@evil.example"}),
    (403, "host", "GET", "/", {"host": "evil.example/localhost"}),
    (403, "host", "GET", "/", {"host": "localhost:"}),
    (403, "host", "GET", "/", {"host": "localhost:port"}),
    (403, "host", "GET", "/", {"host": "[::1"}),
    (403, "host", "GET", "/", {"host": "0.0.0.0:3000"}),
    (403, "host", "GET", "/", {"host": "192.168.0.7:3000"}),
    (403, "host", "GET", "/", {"host": "lake.example.com"}),
    (403, "host", "OPTIONS", "/graphql", {"host": "evil.example"}),
    (403, "page of 'http://evil.example'", "POST", "/graphql", {**JSON, "origin": "http://evil.example"}),
    (403, "page of 'null'", "POST", "/graphql", {**JSON, "origin": "null"}),
    (403, "page", "POST", "/graphql", {**JSON, "origin": "http://127.0.0.1:8000"}),
    (403, "page", "POST", "/graphql", {**JSON, "origin": "http://localhost:3000"}),
    (403, "page", "POST", "/graphql", {**JSON, "origin": f"http://{HERE}.evil.example"}),
    (403, "page", "POST", "/graphql", {**JSON, "origin": f"ftp://{HERE}"}),
    (403, "page", "POST", "/graphql", {**JSON, "origin": ""}),
    (403, "another origin ('cross-site')", "POST", "/graphql", {**JSON, "sec-fetch-site": "cross-site"}),
    (403, "another origin", "POST", "/report_asset_check/a", {"sec-fetch-site": "same-site"}),
    (403, "page", "DELETE", "/", {"origin": "http://evil.example"}),
    (1008, "", "WEBSOCKET", "/graphql", {"origin": "http://evil.example"}),
    (1008, "", "WEBSOCKET", "/graphql", {"sec-fetch-site": "cross-site"}),
    (1008, "", "WEBSOCKET", "/graphql", {"host": "evil.example"}),
    (405, "POST", "GET", "/graphql?query=mutation{x}", {}),
    (405, "POST", "GET", "/graphql?query=mutation{x}", {"accept": "*/*"}),
    (405, "POST", "GET", "/prefix/graphql?query=mutation{x}", {"accept": "image/png"}),
    (405, "POST", "GET", "/graphql\n?query=mutation{x}", {}),
    (415, "'text/plain'", "POST", "/graphql", {"content-type": "text/plain"}),
    (415, "'text/plain'", "POST", "/graphql", {"content-type": "text/plain; application/json"}),
    (415, "form-data", "POST", "/graphql", {"content-type": "multipart/form-data; boundary=application/json"}),
    (415, "application/graphql", "POST", "/graphql", {"content-type": "application/graphql"}),
    (415, "not given", "POST", "/graphql?query=mutation{x}", {}),
    (415, "not given", "POST", "/report_asset_check/a", {"content-length": "3"}),
    (415, "not given", "POST", "/report_asset_check/a", {"transfer-encoding": "chunked"}),
]


@pytest.mark.parametrize(("method", "target", "headers"), PASSED)
def test_the_ui_and_programs_are_passed_on_and_no_other_page_may_frame_the_answer(
    method: str, target: str, headers: dict[str, str]
) -> None:
    asked = ask(method, target, **headers)
    assert (asked.status, asked.text) == (200, "shown")
    assert asked.header("x-frame-options") == ["SAMEORIGIN"]
    assert asked.header("content-security-policy") == ["frame-ancestors 'self'"]
    assert asked.header("x-app") == ["1"]


@pytest.mark.parametrize(("status", "reason", "method", "target", "headers"), REFUSED)
def test_anything_else_is_refused_with_its_reason_before_the_application_sees_it(
    status: int, reason: str, method: str, target: str, headers: dict[str, str]
) -> None:
    asked = ask(method, target, **headers)
    assert asked.seen is None
    assert asked.status == status
    assert reason in asked.text
    if method not in ("WEBSOCKET", "HEAD"):
        assert asked.header("content-type") == ["text/plain; charset=utf-8"]
        assert asked.header("x-content-type-options") == ["nosniff"]


def test_a_header_that_is_given_twice_is_not_taken_at_its_better_value() -> None:
    for name, values in {"host": (HERE, "evil.example"), "origin": (f"http://{HERE}", "http://evil.example")}.items():
        asked = ask("POST", "/graphql", **JSON)
        scope = {**asked.scope, "headers": [*asked.scope["headers"], *((name.encode(), v.encode()) for v in values)]}
        sent: list[Message] = []

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        async def app(*_: Any) -> None:
            raise AssertionError

        asyncio.run(with_access_control(app, Access())(scope, None, send))  # type: ignore[arg-type]
        assert sent[0]["status"] == 403


def test_a_token_is_asked_of_every_request_as_a_header_or_the_cookie() -> None:
    access = Access(token=TOKEN)
    for method, headers in (("GET", {}), ("POST", JSON), ("WEBSOCKET", {})):
        assert ask(method, "/graphql_", access, **headers).status == (1008 if method == "WEBSOCKET" else 401)
        wrong = {**headers, "authorization": f"Bearer {TOKEN}x", "cookie": f"data_platform_ui={TOKEN}"}
        assert ask(method, "/graphql_", access, **wrong).status == (1008 if method == "WEBSOCKET" else 401)
        assert ask(method, "/graphql_", access, **headers, authorization=f"bearer {TOKEN}").status == 200
    refused = ask("GET", "/", access)
    assert "ends in ?token=" in refused.text
    assert refused.header("www-authenticate") == ["Bearer"]
    assert TOKEN not in refused.text + repr(access)


def test_the_token_in_an_address_becomes_a_cookie_and_leaves_the_address_and_the_log() -> None:
    access = Access(token=TOKEN)
    target = ui.address(3000, TOKEN).removeprefix(f"http://{HERE}")
    asked = ask("GET", f"{target}&view=a%20b", access)
    assert (asked.status, asked.seen) == (303, None)
    assert asked.header("location") == ["/?view=a%20b"]
    assert asked.scope["query_string"] == b"view=a%20b"
    [cookie] = asked.header("set-cookie")
    value, *flags = cookie.split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert TOKEN not in cookie
    for method, headers in (("GET", {}), ("POST", JSON), ("WEBSOCKET", {})):
        assert ask(method, "/graphql_", access, **headers, cookie=f'other={{"a"}}; {value}').status == 200


def test_a_wrong_token_in_an_address_is_refused_and_not_logged_either() -> None:
    asked = ask("GET", "/?token=guess", Access(token=TOKEN))
    assert (asked.status, asked.scope["query_string"]) == (401, b"")
    assert "guess" not in asked.text
    assert ask("POST", "/graphql?token=guess", Access(token=TOKEN), **JSON).scope["query_string"] == b""


def test_an_address_with_a_token_leads_to_no_other_host() -> None:
    for path in ("//evil.example/", "/\\evil.example", "///evil.example"):
        [location] = ask("GET", f"{path}?token=0123456789abcdef", Access(token="0123456789abcdef")).header("location")
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))


def test_a_token_is_masked_in_what_the_server_logs_of_requests_before_the_application_sees_them() -> None:
    record = logging.LogRecord(
        "uvicorn.asgi", 5, "", 0, "Started %s", ({"query_string": b"a=1&token=secret&b=2"},), None
    )
    assert webserver.without_token(record)
    assert record.getMessage() == "Started {'query_string': b'a=1&token=***&b=2'}"


def test_settings_give_hosts_and_token_and_refuse_what_is_none() -> None:
    settings = settings_from_environment(
        {"DATA_PLATFORM_UI_HOSTS": "data.example.com, [fd00::1]:80,", "DATA_PLATFORM_UI_TOKEN": TOKEN}
    )
    assert settings.ui_hosts == ("data.example.com", "[fd00::1]:80")
    assert settings.ui_token == TOKEN
    assert TOKEN not in repr(settings)
    for wrong in ("*", "https://data.example.com", "a b", "host:port"):
        with pytest.raises(PlatformError, match="is no host"):
            settings_from_environment({"DATA_PLATFORM_UI_HOSTS": wrong})
    with pytest.raises(PlatformError, match="5 characters"):
        settings_from_environment({"DATA_PLATFORM_UI_TOKEN": "short"})


def test_the_development_server_starts_the_web_server_with_access_control_and_all_else_as_dagster_does() -> None:
    webserver_command = [sys.executable, "-m", "dagster_webserver", "--port", "3000"]
    ours = [sys.executable, "-m", "data_platform.cli.webserver", "--port", "3000"]
    assert development.with_access_control(webserver_command) == ours
    daemon = [sys.executable, "-m", "dagster._daemon", "run"]
    assert development.with_access_control(daemon)[:4] == [sys.executable, "-m", "data_platform.cli.daemon", "run"]
    other = [sys.executable, "-m", "dagster", "code-server", "start"]
    assert development.with_access_control(other) == other
    for unknown in (["dagster-webserver", "--port", "1"], [sys.executable, "-m", "dagster_webserver.cli"]):
        with pytest.raises(RuntimeError, match="starts its web server by another command"):
            development.with_access_control(unknown)


def serve(home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "data_platform.cli.webserver", *arguments],
        env={**os.environ, "DATA_PLATFORM_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_web_server_has_dagsters_options_and_says_which_setting_is_wrong(tmp_path: Path) -> None:
    shown = serve(tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--path-prefix" in shown.stdout
    refused = serve(tmp_path, "--help", DATA_PLATFORM_UI_TOKEN="short")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: DATA_PLATFORM_UI_TOKEN has 5 characters")
    assert "short" not in refused.stderr


def test_dp_ui_says_which_setting_is_wrong(dp: Dp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_UI_HOSTS", "https://data.example.com")
    result = dp("ui", "--port", "1")
    assert result.exit_code == 1
    assert "DATA_PLATFORM_UI_HOSTS: 'https://data.example.com' is no host" in " ".join(result.stderr.split())
