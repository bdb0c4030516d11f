"""Files of a real HDFS: one NameNode and one DataNode on this machine. Without Kerberos."""

import gzip
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import hdfs_native
import pytest
from platform_tests.hdfs_servers import Hdfs, hdfs_can_run, running_hdfs
from platform_tests.ingestion.deliveries import Reader
from platform_tests.ingestion.reading import probe
from platform_tests.proxy import proxy_to

from data_platform.components.file import FileSource
from data_platform.drafting.profile import Request
from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.storage.hdfs import HdfsFolder
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.lakehouse.settings import Settings

pytestmark = pytest.mark.skipif(
    not hdfs_can_run() and "DATA_PLATFORM_NO_SKIPS" not in os.environ,
    reason="no HDFS here: install Java and Maven (its jars are downloaded)",
)


class There:
    """A folder `in` of a server, and what a test does there."""

    def __init__(self, server: Hdfs, name: str) -> None:
        self.server, self.root = server, f"/{name}"
        self.client = hdfs_native.Client(server.url)
        self.client.mkdirs(f"{self.root}/in", 0o755, True)

    def open(self, path: str) -> Any:
        parent = f"{self.root}/{path}".rpartition("/")[0]
        self.client.mkdirs(parent, 0o755, True)
        return self.client.create(f"{self.root}/{path}", hdfs_native.WriteOptions(overwrite=True, block_size=1 << 20))

    def write(self, path: str, content: str | bytes) -> None:
        with self.open(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def reader(self, folder: str = "in", server: str = "", table: Any = None, **given: Any) -> Reader:
        options = StorageOptions.model_validate({"timeout": 5, "answer_timeout": timedelta(seconds=10), **given})
        return Reader(HdfsFolder(f"{server or self.server.url}{self.root}/{folder}", options), **(table or {}))


@pytest.fixture(scope="module")
def hdfs() -> Iterator[Hdfs]:
    with running_hdfs() as server:
        yield server


@pytest.fixture
def there(hdfs: Hdfs, request: pytest.FixtureRequest) -> There:
    return There(hdfs, f"t{abs(hash(request.node.name))}")


def test_files_are_each_loaded_once_and_one_that_was_appended_to_again(there: There) -> None:
    there.write("in/a.csv", "id\n1\n")
    there.write("in/b.csv.gz", gzip.compress(b"id\n2\n"))
    there.write("in/sub/c ä%.csv", "id\n3\n")
    reader = there.reader(table={"path": "**/*.csv*"})
    assert sorted(reader.ids()) == ["1", "2", "3"]
    assert probe(reader.source, "t", reader.position) == {}
    with there.client.append(f"{there.root}/in/a.csv") as file:
        file.write(b"7\n")
    assert list(probe(reader.source, "t", reader.position) or {}) == ["a.csv"]
    assert reader.ids() == ["1", "7"]


def test_what_is_under_way_or_hidden_is_not_read(there: There) -> None:
    for name in ("_temporary/0/a.csv", ".a.csv", "b.csv._COPYING_", "_c.csv"):
        there.write(f"in/{name}", "id\n1\n")
    there.write("in/empty.csv", "")
    there.write("in/_SUCCESS", "")
    assert there.reader(table={"path": "**/*"}).ids() == []
    with there.reader().source._place.session() as storage:
        assert [one.path for one in storage.find("_SUCCESS", 0)] == ["_SUCCESS"]


def test_a_file_that_is_being_written_is_read_once_it_is_closed(there: There) -> None:
    file = there.open("in/a.csv")
    file.write(b"id\n1\n")
    assert there.reader().ids() == []
    file.hsync()  # it has a length from now on
    with pytest.raises(PlatformError, match=r"a\.csv: it changed while it was read"):
        there.reader().batches()
    file.close()
    assert there.reader().ids() == ["1"]


def test_a_file_of_several_blocks_comes_whole(there: There) -> None:
    there.write("in/a.csv", "id\n" + "123456789\n" * 300_000)
    assert there.reader().ids() == ["123456789"] * 300_000


def test_a_source_is_drafted_from_a_folder_with_the_columns_of_its_paths(there: There, tmp_path: Path) -> None:
    for day in (1, 2):
        there.write(f"in/orders/dt=2026-01-0{day}/part-0000{day}.csv", "id\n1\n")
        there.write(f"in/orders/dt=2026-01-0{day}/_SUCCESS", "")
    address = f"{there.server.url}{there.root}/in"
    settings = Settings(tmp_path, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
    assert FileSource.recognises(address)
    found = FileSource.profile(Request("shop", address, [], None, settings))
    assert found.attributes["folder"] == address
    (table,) = found.tables
    assert (table.name, table.place["path"]) == ("orders", "orders/dt=*/part-*.csv")
    assert table.place["partition_columns"] == ["dt"]
    assert sorted(table.rows["dt"].to_pylist()) == ["2026-01-01", "2026-01-02"]


def test_a_folder_that_is_not_there_and_a_server_that_is_not_are_told_apart_and_soon(there: There) -> None:
    with pytest.raises(PlatformError, match=r"The folder hdfs://.*/nowhere does not exist"):
        there.reader("nowhere").batches()
    began = time.monotonic()
    with pytest.raises(TransientError, match="does not answer as it should"):
        there.reader(server="hdfs://127.0.0.1:1").batches()
    with proxy_to(there.server.url) as proxy:
        proxy.stall()
        with pytest.raises(TransientError, match="no answer within 1 s"):
            there.reader(server=proxy.url, timeout=1).batches()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("url", ["hdfs:///in", "hdfs://user@host/in", "hdfs://host:99999/in", "hdfs://host/in?x=1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(PlatformError, match="must be hdfs://host:port/path"):
        HdfsFolder(url, StorageOptions())


def test_while_what_has_the_bytes_is_down_nothing_lands_and_then_all(there: There, hdfs: Hdfs) -> None:
    there.write("in/a.csv", "id\n1\n")
    there.write("in/b.csv", "id\n2\n")
    reader = there.reader()
    hdfs.kill_data_node()
    try:
        with pytest.raises(TransientError, match="does not answer as it should"):
            reader.batches()
        assert reader.landed_ids() == []
    finally:
        hdfs.start()
    assert reader.ids() == ["1", "2"]
