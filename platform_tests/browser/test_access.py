"""What a page of another origin can do to a running UI, tried by a real browser: nothing, while the UI's own pages and
programs do the same things. The change that is tried sets a limit of concurrency, which is seen at once."""

import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from platform_tests.browser.serving import FLAGS, IN_CHROMIUM, environment, serving, wait_until
from platform_tests.servers import free_port

from data_platform.cli.ui import address

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_CHROMIUM

TOKEN = "token-of-this-test"
ATTACKS = {
    "simple post": "fetch(url, {method: 'POST', mode: 'no-cors', body: JSON.stringify({query})})",
    "post of a false type": """fetch(url, {method: 'POST', mode: 'no-cors',
        body: new Blob([JSON.stringify({query})], {type: 'text/plain; application/json'})})""",
    "post by the address": "fetch(`${url}?query=${encodeURIComponent(query)}`, {method: 'POST', mode: 'no-cors'})",
    "json": """fetch(url, {method: 'POST', headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({query})})""",
    "beacon": "navigator.sendBeacon(url, JSON.stringify({query}))",
    "get": "fetch(`${url}?query=${encodeURIComponent(query)}`, {mode: 'no-cors'})",
    "image": """new Promise(done => { const image = new Image(); image.onload = image.onerror = done;
        image.src = `${url}?query=${encodeURIComponent(query)}`; })""",
    "form": """new Promise(done => {
        const frame = document.createElement('iframe'), form = document.createElement('form');
        frame.name = 'into'; document.body.append(frame, form); frame.onload = done;
        Object.assign(form, {method: 'POST', target: 'into', action: `${url}?query=${encodeURIComponent(query)}`});
        form.submit(); })""",
}
"""What a page may send without the server's leave, each a promise that ends when it was answered."""

SOCKET = """url => new Promise(done => { const socket = new WebSocket(url, 'graphql-ws');
    socket.onopen = () => done('open'); socket.onclose = () => done('closed'); })"""
FRAME = """url => new Promise(done => { const frame = document.createElement('iframe');
    frame.onload = done; frame.src = url; document.body.append(frame); })"""


class Blank(BaseHTTPRequestHandler):
    """An empty page, for any address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<body></body>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of another origin, with a page to try things from."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, in which a name of somebody else's leads to this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = [*FLAGS, "--host-resolver-rules=MAP rebound.example 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `dp ui` of an empty platform."""
    home = tmp_path_factory.mktemp("home")
    with serving(home, environment(home)) as address:
        yield address


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def change(key: str) -> str:
    return f'mutation {{setConcurrencyLimit(concurrencyKey: "{key}", limit: 1)}}'


def graphql(url: str, query: str) -> Any:
    """As a program asks."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        return json.load(answer)["data"]


def changed(url: str) -> set[str]:
    limits = graphql(url, "{instance {concurrencyLimits {concurrencyKey}}}")["instance"]["concurrencyLimits"]
    return {limit["concurrencyKey"] for limit in limits}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_of_another_origin_changes_nothing(url: str, elsewhere: str, page: "Page", attack: str) -> None:
    page.goto(elsewhere)
    key = attack.replace(" ", "_")
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if answer.url.startswith(url) else None)
    page.evaluate(
        f"async ([url, query]) => {{ try {{ await {ATTACKS[attack]}; }} catch (error) {{}} }}",
        [f"{url}/graphql", change(key)],
    )
    if attack == "beacon":
        # The one of which nobody hears when it was answered.
        page.wait_for_timeout(2000)
    assert key not in changed(url)
    assert all(status >= 400 for status in answers)


def test_a_page_of_another_origin_opens_no_web_socket(url: str, elsewhere: str, page: "Page") -> None:
    page.goto(elsewhere)
    assert page.evaluate(SOCKET, f"ws{url.removeprefix('http')}/graphql") == "closed"


def test_a_page_of_another_origin_does_not_frame_the_ui(url: str, elsewhere: str, page: "Page") -> None:
    page.goto(elsewhere)
    page.evaluate(FRAME, f"{url}/runs")
    assert "Dagster" not in page.frames[1].content()
    assert page.frames[1].url.startswith("chrome-error:")


def test_a_name_of_somebody_else_that_leads_to_this_machine_shows_nothing(url: str, page: "Page") -> None:
    page.goto(f"{url.replace('127.0.0.1', 'rebound.example')}/runs")
    assert "This server does not answer to the host 'rebound.example" in page.content()
    ask = "async query => await (await fetch('/graphql', {method: 'POST', body: query})).text()"
    assert "does not answer" in page.evaluate(ask, json.dumps({"query": "{version}"}))


def test_the_uis_own_page_and_a_program_do_what_the_others_tried(url: str, page: "Page") -> None:
    page.goto(f"{url}/runs", wait_until="domcontentloaded")
    page.get_by_text("Runs").first.wait_for(timeout=60_000)
    page.evaluate(
        f"async ([url, query]) => await {ATTACKS['json']}",
        ["/graphql", change("own_page")],
    )
    assert page.evaluate(SOCKET, f"ws{url.removeprefix('http')}/graphql") == "open"
    graphql(url, change("program"))
    assert {"own_page", "program"} <= changed(url)


def test_with_a_token_the_printed_address_opens_the_ui_and_the_token_is_in_no_log(page: "Page", tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "data_platform.cli.webserver", "--empty-workspace", "-h", "127.0.0.1"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "-p", str(port), "--log-level", "trace"],
            env={**environment(tmp_path), "DATA_PLATFORM_UI_TOKEN": TOKEN},
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "running on" in log.read_text() or server.poll() is not None, log.read_text)
        refused = page.goto(f"http://127.0.0.1:{port}/runs")
        assert refused is not None
        assert refused.status == 401
        assert "asks for a token" in page.content()
        page.goto(address(port, TOKEN), wait_until="domcontentloaded")
        assert TOKEN not in page.url
        page.goto(f"http://127.0.0.1:{port}/runs", wait_until="domcontentloaded")
        page.get_by_text("Runs").first.wait_for(timeout=60_000)
        assert page.evaluate(SOCKET, f"ws://127.0.0.1:{port}/graphql") == "open"
    finally:
        server.terminate()
        server.wait(60)
    assert "GET /" in log.read_text()
    assert "token=***" in log.read_text()
    assert TOKEN not in log.read_text()
