"""Files in a folder of an HTTP server: Python's own over loopback, and pages of links as other servers write them."""

import gzip
import http.server
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.deliveries import Reader, write
from platform_tests.ingestion.reading import probe

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.storage import http_folder
from data_platform.ingestion.files.storage.http_folder import HttpFolder
from data_platform.ingestion.files.storage.options import StorageOptions

HIDDEN = "what-nobody-may-see"

Answer = Callable[["_Handler"], bool]
"""Answers a request, or gives False: then the file system does."""


@dataclass
class Server:
    root: Path
    port: int = 0
    answer: Answer | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def reader(self, folder: str = "/in", user: str = "", table: Any = None, **given: Any) -> Reader:
        options = StorageOptions.model_validate({"timeout": 5, "max_retries": 0, **given})
        return Reader(HttpFolder(f"http://{user}127.0.0.1:{self.port}{folder}", options), **(table or {}))


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, server_of: Server, **named: Any) -> None:
        self.of = server_of
        super().__init__(*arguments, **named)

    def do_GET(self) -> None:
        self.of.seen.append((self.command, self.path))
        if self.of.answer is None or not self.of.answer(self):
            super().do_GET()

    def do_HEAD(self) -> None:
        self.of.seen.append((self.command, self.path))
        if self.of.answer is None or not self.of.answer(self):
            super().do_HEAD()

    def say(self, status: int, body: bytes = b"", **headers: str) -> bool:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def page(self, *links: str, base: str = "") -> bool:
        listed = "".join(f'<a href="{link}">{link}</a>\n' for link in links)
        return self.say(200, f"<html>{base}<pre>{listed}</pre></html>".encode(), Content_Type="text/html")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("http"))
    handler = partial(_Handler, server_of=server, directory=str(server.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        server.port = listener.server_address[1]
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield server
        listener.shutdown()


@pytest.fixture
def server(listening: Server) -> Server:
    for path in sorted(listening.root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (listening.root / "in").mkdir()
    listening.answer = None
    listening.seen.clear()
    return listening


def test_files_of_a_folder_are_each_loaded_once_and_a_changed_one_again(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv.gz", gzip.compress(b"id\n2\n"), 2)
    write(server.root, "in/sub/c ä#%2F&amp;.csv", "id\n3\n", 3)
    write(server.root, "in/.part.csv", "id\n4\n", 4)
    write(server.root, "other.csv", "id\n5\n", 5)
    reader = server.reader(table={"path": "**/*.csv*"})
    assert reader.ids() == ["1", "2", "3"]
    assert "sub/c ä#%2F&amp;.csv" in reader.position
    assert probe(reader.source, "t", reader.position) == {}
    assert reader.batches() == []
    write(server.root, "in/a.csv", "id\n7\n", 9)
    assert list(probe(reader.source, "t", reader.position)) == ["a.csv"]
    assert reader.ids() == ["7"]


@pytest.mark.parametrize(
    ("links", "base"),
    [
        (("?C=N;O=D", "?C=M;O=A", "/", "a.csv", "sub/"), ""),  # Apache
        (("../", "a.csv", "sub/"), ""),  # nginx
        (("..", "./a.csv", "./sub/"), ""),  # Caddy
        (("/", "/in/a.csv", "/in/sub/"), ""),  # IIS
        (("a.csv", "sub/"), '<base href="/in/">'),
    ],
)
def test_pages_of_links_are_read_as_servers_write_them(server: Server, links: tuple[str, ...], base: str) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/sub/b.csv", "id\n2\n", 2)
    write(server.root, "c.csv", "id\n3\n", 3)
    server.answer = lambda asked: asked.path == "/in/" and asked.page(*links, base=base)
    assert server.reader(table={"path": "**/*.csv"}).ids() == ["1", "2"]


def test_links_out_of_the_folder_are_not_followed(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "out.csv", "id\n2\n", 1)
    links = (
        "a.csv",
        "../out.csv",
        "/out.csv",
        "%2e%2e/out.csv",
        "..%2Fout.csv",
        f"http://localhost:{server.port}/in/b.csv",
        "//192.0.2.1/in/c.csv",
        "ftp://127.0.0.1/in/d.csv",
        "javascript:e.csv",
        "http://[broken/f.csv",
    )
    server.answer = lambda asked: asked.path == "/in/" and asked.page(*links)
    assert server.reader(table={"path": "**/*.csv"}).ids() == ["1"]
    assert {path for _, path in server.seen} == {"/in/", "/in/a.csv"}


def test_an_etag_tells_of_a_file_replaced_by_one_of_the_same_size_and_time(server: Server) -> None:
    content = b"id\n1\n"

    def answer(asked: _Handler) -> bool:
        return asked.path == "/in/a.csv" and asked.say(200, content, ETag=f'"{content.hex()}"')

    write(server.root, "in/a.csv", content, 1)
    server.answer = answer
    reader = server.reader()
    assert reader.ids() == ["1"]
    content = b"id\n2\n"
    assert reader.ids() == ["2"]


def test_a_file_without_etag_and_time_is_known_by_its_length(server: Server) -> None:
    content = b"id\n1\n"
    write(server.root, "in/a.csv", content, 1)
    server.answer = lambda asked: asked.path == "/in/a.csv" and asked.say(200, content)
    reader = server.reader()
    assert reader.ids() == ["1"]
    content = b"id\n1\n2\n"
    assert reader.ids() == ["1", "2"]
    with pytest.raises(PlatformError, match=r"does not say when a\.csv was modified.*`stable_for` \(5 s\)"):
        server.reader(table={"stable_for": 5}).batches()


def test_a_file_that_changes_while_it_is_read_does_not_land(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv", "id\n2\n", 2)

    def grow(asked: _Handler) -> bool:
        if (asked.command, asked.path) == ("GET", "/in/a.csv"):
            write(server.root, "in/a.csv", "id\n1\n8\n", 3)
        return False

    server.answer = grow
    reader = server.reader()
    with pytest.raises(PlatformError, match=r"a\.csv: it changed while it was read"):
        reader.batches()
    assert reader.landed_ids() == ["2"]
    assert reader.ids() == ["1", "8"]


def test_an_answer_that_breaks_off_does_not_land_and_is_asked_for_again(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n2\n", 1)
    broken = 1

    def answer(asked: _Handler) -> bool:
        nonlocal broken
        if (asked.command, asked.path) != ("GET", "/in/a.csv") or not broken:
            return False
        broken -= 1
        return asked.say(200, b"id\n1\n", Content_Length="7", Last_Modified="Thu, 01 Jan 1970 00:00:01 GMT")

    server.answer = answer
    with pytest.raises(TransientError, match=r"GET http://.*/in/a\.csv failed 1 times"):
        server.reader().batches()
    broken = 1
    assert server.reader(max_retries=1).ids() == ["1", "2"]


def test_a_large_file_comes_whole_and_as_it_was_packed(server: Server, tmp_path: Path) -> None:
    content = gzip.compress(
        b"id\n" + b"".join(b"%d\n" % n for n in range(300_000)) + b"# " + os.urandom(1 << 20).hex().encode() + b"\n"
    )
    write(server.root, "in/a.csv.gz", content, 1)
    server.answer = lambda asked: (
        asked.path == "/in/a.csv.gz" and asked.say(200, content, Content_Encoding="gzip", ETag='W/"1"')
    )
    assert len(server.reader(table={"path": "*.gz"}).ids()) == 300_001


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_additions_without_its_last_line_end_waits(server: Server, ranges: bool) -> None:
    content = b"id\n1\n2"
    (server.root / "in/a.csv").write_bytes(content)

    def part(asked: _Handler) -> bool:
        if not ranges or not (wanted := asked.headers.get("Range")):
            return False
        first, last = (int(one) for one in wanted.removeprefix("bytes=").split("-"))
        return asked.say(206, content[first : last + 1])

    server.answer = part
    assert server.reader().ids() == []
    content += b"\n"
    (server.root / "in/a.csv").write_bytes(content)
    assert server.reader().ids() == ["1", "2"]


def test_credentials_are_sent_to_their_server_alone_and_stay_out_of_messages(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    wanted = "Basic " + b64encode(f"shop:{HIDDEN}".encode()).decode()
    server.answer = lambda asked: asked.headers.get("Authorization") != wanted and asked.say(401)
    assert server.reader(user="shop@", password=HIDDEN).ids() == ["1"]
    with pytest.raises(TransientError, match=r"/in/ lets nobody in with what was sent \(401\)"):
        server.reader().batches()
    wanted = f"Bearer {HIDDEN}"
    assert server.reader(token=HIDDEN).ids() == ["1"]
    for url in (f"http://shop:{HIDDEN}@127.0.0.1/in", f"http://127.0.0.1/in?key={HIDDEN}"):
        with pytest.raises(PlatformError, match="must be https://host/path/") as error:
            HttpFolder(url, StorageOptions())
        assert HIDDEN not in str(error.value)

    wanted = ""
    server.answer = lambda asked: asked.say(302, Location=f"http://localhost:{server.port}/in/")
    with pytest.raises(PlatformError, match=r"sends on to another host: http://localhost"):
        server.reader(token=HIDDEN).batches()


def test_a_page_that_is_no_index_is_not_taken_for_an_empty_folder(server: Server) -> None:
    with pytest.raises(PlatformError, match=r"/none/ does not exist \(404\)"):
        server.reader("/none").batches()
    server.answer = lambda asked: asked.say(200, b"[]", Content_Type="application/json")
    with pytest.raises(PlatformError, match="is no page of links but application/json"):
        server.reader().batches()
    server.answer = lambda asked: asked.page("help/") if asked.path == "/login" else asked.say(302, Location="/login")
    with pytest.raises(PlatformError, match=r"sends on to another page, http://127\.0\.0\.1:\d+/login"):
        server.reader().batches()
    form = b'<form><input name="user"><INPUT TYPE="Password" name="p"></form><a href="/help">help</a>'
    server.answer = lambda asked: asked.say(200, form, Content_Type="text/html")
    with pytest.raises(TransientError, match="is a page that asks for a password, no index"):
        server.reader().batches()
    server.answer = lambda asked: asked.say(302, Location=asked.path)
    with pytest.raises(PlatformError, match="sends on more than 5 times"):
        server.reader().batches()


def test_files_that_tell_no_length_or_may_not_be_read_are_passed_over_by_name(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c", "d"):
        write(server.root, f"in/{name}.csv", "id\n1\n", 1)
    answers = {"/in/b.csv": 403, "/in/d.csv": 404}

    def answer(asked: _Handler) -> bool:
        if asked.path == "/in/c.csv":
            return asked.say(200, Content_Length="unknown")
        return asked.path in answers and asked.say(answers[asked.path])

    server.answer = answer
    assert server.reader().ids() == ["1"]
    assert "2 of the files of" in caplog.text
    assert "b.csv (it answers 403), c.csv (its length is not told)" in caplog.text


def test_what_a_redirection_out_of_the_folder_leads_to_is_not_taken_for_the_file(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv", "id\n2\n", 2)
    write(server.root, "login", "id\nwho are you?\n", 3)
    expired = "HEAD"

    def answer(asked: _Handler) -> bool:
        return asked.path == "/in/a.csv" and asked.command == expired and asked.say(302, Location="/login")

    server.answer = answer
    reader = server.reader()
    assert reader.ids() == ["2"]
    assert "a.csv (it sends on to /login, out of the folder)" in caplog.text
    expired = "GET"
    with pytest.raises(PlatformError, match=r"a\.csv: it sends on to /login, out of the folder: a login\?"):
        reader.batches()
    server.answer = lambda asked: asked.path == "/in/a.csv" and asked.say(302, Location="/in/b.csv")
    assert server.reader().ids() == ["2", "2"]


def test_links_of_a_page_behind_a_proxy_are_those_of_its_server(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    links = [f"https://127.0.0.1:{server.port}/in/a.csv", "https://127.0.0.1:no/in/a.csv", "ftp://127.0.0.1/in/a.csv"]
    server.answer = lambda asked: asked.path == "/in/" and asked.page(*links)
    assert server.reader().ids() == ["1"]


def test_files_that_may_not_be_seen_for_a_while_are_not_forgotten(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/private/b.csv", "id\n2\n", 2)
    reader = server.reader(table={"path": "**/*.csv", "key": [], "forget_after": "30d"})
    assert reader.ids() == ["1", "2"]
    server.answer = lambda asked: asked.path == "/in/private/" and asked.say(403)
    assert reader.batches() == []
    assert set(reader.position) == {"a.csv", "private/b.csv"}


def test_links_that_lead_round_in_circles_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_folder, "MOST_FOLDERS", 20)
    (server.root / "in/loop").symlink_to(".")
    with pytest.raises(PlatformError, match="More than 20 folders lie below"):
        server.reader(table={"path": "**/*.csv"}).batches()
    monkeypatch.setattr(http_folder, "MOST_FOLDERS", 10_000)
    server.answer = lambda asked: asked.page("deeper/")
    with pytest.raises(PlatformError, match="or more than 100 in one another: its links may lead round in circles"):
        server.reader(table={"path": "**/*.csv"}).batches()


def test_a_server_that_does_not_answer_is_a_failure_that_passes(server: Server) -> None:
    with pytest.raises(TransientError, match=r"GET http://127\.0\.0\.1:1/in/ failed 1 times"):
        Reader(HttpFolder("http://127.0.0.1:1/in", StorageOptions(max_retries=0))).batches()
    server.answer = lambda asked: asked.say(503)
    with pytest.raises(TransientError, match="503"):
        server.reader().batches()
