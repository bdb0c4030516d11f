"""Files on an SFTP server: that of asyncssh, over loopback."""

import asyncio
import gzip
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from platform_tests.ingestion.deliveries import Reader, write
from platform_tests.ingestion.reading import probe
from platform_tests.proxy import proxy_to

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.files.storage.sftp import SftpFolder

PASSWORD = "what-nobody-may-see"


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("shop", PASSWORD)


@dataclass
class Server:
    root: Path
    port: int
    host_key: asyncssh.SSHKey
    user_key: Path

    def reader(self, folder: str = "/in", port: int = 0, user: str = "shop", table: Any = None, **given: Any) -> Reader:
        fingerprint = {} if "known_hosts" in given else {"host_key": self.host_key.get_fingerprint()}
        options = StorageOptions.model_validate({"password": PASSWORD, "timeout": 5, **fingerprint, **given})
        return Reader(SftpFolder(f"sftp://{user}@127.0.0.1:{port or self.port}{folder}", options), **(table or {}))


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("sftp")
    root = base / "root"
    root.mkdir()
    host_key, user_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    user_key.write_private_key(base / "user")
    user_key.write_public_key(base / "authorized")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=_Login,
            server_host_keys=[host_key],
            authorized_client_keys=str(base / "authorized"),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(root)),
        )

    acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    yield Server(root, acceptor.get_port(), host_key, base / "user")
    loop.call_soon_threadsafe(acceptor.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def server(listening: Server) -> Server:
    for path in sorted(listening.root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (listening.root / "in").mkdir()
    return listening


def test_files_on_a_server_are_each_loaded_once_and_a_changed_one_again(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv.gz", gzip.compress(b"id\n2\n"), 2)
    write(server.root, "in/sub/c ä.csv", "id\n3\n", 3)
    write(server.root, "in/.part.csv", "id\n4\n", 4)
    reader = server.reader(table={"path": "**/*.csv*"})
    assert reader.ids() == ["1", "2", "3"]
    assert probe(reader.source, "t", reader.position) == {}
    assert reader.batches() == []
    write(server.root, "in/a.csv", "id\n7\n", 9)
    assert list(probe(reader.source, "t", reader.position)) == ["a.csv"]
    assert reader.ids() == ["7"]


def test_a_large_file_comes_whole(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n" + "123456789\n" * 500_000, 1)
    assert server.reader().ids() == ["123456789"] * 500_000


def test_a_file_of_additions_without_its_last_line_end_waits(server: Server) -> None:
    (server.root / "in/a.csv").write_text("id\n1\n2")
    assert server.reader().ids() == []


def test_a_file_that_changes_while_it_is_read_does_not_land(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv", "id\n2\n", 2)
    from data_platform.ingestion.files import storage

    hash_of = storage.sha256

    def hash_then_grow(stream: Any) -> str:
        if (server.root / "in/a.csv").stat().st_size == 5:
            write(server.root, "in/a.csv", "id\n1\n8\n", 3)
        return hash_of(stream)

    reader = server.reader()
    with monkeypatch.context() as patch:
        patch.setattr(storage, "sha256", hash_then_grow)
        with pytest.raises(PlatformError, match=r"a\.csv: it changed while it was read"):
            reader.batches()
    assert reader.landed_ids() == ["2"]
    assert reader.ids() == ["1", "8"]


def test_links_are_followed_below_the_folder_and_not_out_of_it(server: Server) -> None:
    write(server.root, "in/sub/a.txt", "id\n1\n", 1)
    write(server.root, "secret.csv", "id\n2\n", 1)
    (server.root / "in/a.csv").symlink_to("sub/a.txt")
    (server.root / "in/b.csv").symlink_to("../secret.csv")
    (server.root / "in/c.csv").symlink_to("nowhere")
    reader = server.reader()
    with pytest.raises(PlatformError, match=r"1 file below .*\n.*b\.csv: it is a link that leads out of the folder"):
        reader.batches()
    assert reader.landed_ids() == ["1"]


def test_a_name_that_is_not_utf8_is_named_and_hides_no_other(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    Path(os.fsdecode(os.fsencode(server.root) + b"/in/f\xe9v.csv")).write_text("id\n2\n")
    Path(os.fsdecode(os.fsencode(server.root) + b"/in/\xe9")).mkdir()
    reader = server.reader(table={"path": "**/*.csv"})
    assert list(probe(reader.source)) == ["a.csv"]
    with pytest.raises(PlatformError, match=r"f\\udce9v\.csv: its name holds bytes that are not UTF-8; rename it"):
        reader.batches()
    assert reader.landed_ids() == ["1"]


def test_a_folder_that_may_not_be_read_is_named_and_one_that_fails_stops_the_look(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b/b.csv", "id\n2\n", 2)
    reader = server.reader(table={"path": "**/*.csv"})
    refused, error = b"/in/b", asyncssh.SFTPError(asyncssh.FX_PERMISSION_DENIED, "no")
    scandir = asyncssh.SFTPServer.scandir

    async def refuse(self: asyncssh.SFTPServer, path: bytes) -> Any:
        if path.endswith(refused):
            raise error
        async for entry in scandir(self, path):
            yield entry

    monkeypatch.setattr(asyncssh.SFTPServer, "scandir", refuse)
    assert reader.ids() == ["1"]
    assert [one for one in caplog.messages if "passed over" in one] == [
        f"b/ of sftp://shop@127.0.0.1:{server.port}/in is passed over: it may not be read by this user"
    ]
    refused = b"/in"
    with pytest.raises(TransientError, match="may not be read by this user"):
        reader.batches()
    refused, error = b"/in/b", asyncssh.SFTPError(asyncssh.FX_FAILURE, "broken")
    with pytest.raises(TransientError, match=r"b/ of sftp://.* cannot be looked at: broken"):
        reader.batches()


def test_a_server_that_lists_without_attributes_is_asked_for_them(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    scandir = asyncssh.SFTPServer.scandir

    async def bare(self: asyncssh.SFTPServer, path: bytes) -> Any:
        async for entry in scandir(self, path):
            entry.attrs = asyncssh.SFTPAttrs()
            yield entry

    monkeypatch.setattr(asyncssh.SFTPServer, "scandir", bare)
    assert server.reader().ids() == ["1"]
    size_untold = asyncssh.SFTPAttrs(permissions=0o100644)
    stat = asyncssh.SFTPServer.stat
    monkeypatch.setattr(
        asyncssh.SFTPServer, "stat", lambda *asked: size_untold if asked[1].endswith(b".csv") else stat(*asked)
    )
    with pytest.raises(PlatformError, match=r"does not say what a\.csv is, how long it is"):
        server.reader().batches()


def test_a_server_with_another_key_is_not_let_in(server: Server, tmp_path: Path) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    known, other = tmp_path / "known", asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(TransientError, match=r"The key of sftp://.*/in is not the one that is known.*SHA256:") as error:
        server.reader(host_key=other.get_fingerprint()).batches()
    assert server.host_key.get_fingerprint() in str(error.value)
    place = f"[127.0.0.1]:{server.port} "
    known.write_text(place + other.export_public_key().decode())
    with pytest.raises(TransientError, match="is not the one that is known of it"):
        server.reader(known_hosts=str(known)).batches()
    known.write_text("")
    with pytest.raises(TransientError, match=r"is not known, .*Set `host_key`"):
        server.reader(known_hosts=str(known)).batches()
    known.write_text(place + server.host_key.export_public_key().decode())
    assert server.reader(known_hosts=str(known)).ids() == ["1"]


def test_a_private_key_lets_in_and_what_is_wrong_does_not(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    assert server.reader(password=None, private_key=str(server.user_key)).ids() == ["1"]
    with pytest.raises(PlatformError, match=r"nowhere/key, by which .* does not exist"):
        server.reader(private_key="nowhere/key").batches()
    with pytest.raises(TransientError, match=r"does not let shop in\. .*`password`") as error:
        server.reader(password="wrong-" + PASSWORD).batches()
    assert PASSWORD not in str(error.value)


def test_a_folder_that_is_not_there_is_named(server: Server) -> None:
    with pytest.raises(PlatformError, match=r"The folder sftp://shop@.*/elsewhere does not exist"):
        server.reader("/elsewhere").batches()


def test_a_server_that_does_not_answer_fails_the_probe_of_its_tables_with_the_reason(server: Server) -> None:
    with pytest.raises(TransientError, match=r"does not answer as it should.*`timeout` \(5 s\)"):
        probe(server.reader(port=9).source)


def test_a_connection_that_is_cut_or_stalls_amid_a_file_lands_nothing_of_it(server: Server) -> None:
    write(server.root, "in/a.csv", "id\n1\n", 1)
    write(server.root, "in/b.csv", "id\n" + "2\n" * 500_000, 2)
    for fault in ("cut_after", "stall_after"):
        with proxy_to(f"sftp://127.0.0.1:{server.port}") as proxy:
            setattr(proxy, fault, 400_000)
            reader = server.reader(port=int(proxy.url.rpartition(":")[2]), timeout=1)
            with pytest.raises(TransientError, match="does not answer as it should"):
                reader.batches()
        assert reader.landed_ids() == ["1"], fault
    assert server.reader().ids() == ["1"] + ["2"] * 500_000
