"""What becomes of files that are loaded: moved or deleted after the commit, never before and never another file."""

import gzip
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import obstore
import pytest
from obstore.store import MemoryStore
from platform_tests.drawing import ROOT
from platform_tests.ingestion.deliveries import Reader, table, write
from platform_tests.ingestion.files.test_objects import Store, server, store
from platform_tests.ingestion.files.test_sftp import Server, listening
from platform_tests.ingestion.files.test_sftp import server as sftp_server
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.reading import probe, read_all
from pydantic import ValidationError

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.files.storage import Delivery, StorageUnavailableError, objects
from data_platform.ingestion.files.storage.http_folder import HttpFolder
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.objects import Bucket
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings

__all__ = ["listening", "server", "sftp_server", "store"]  # the servers of these tests

MOVE = {"after_load": {"move": "done"}}
DELETE = {"after_load": {"delete": True}}


def names(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_moved_with_its_folders_once_its_rows_are_committed(tmp_path: Path) -> None:
    write(tmp_path, "eu/a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n2\n", 2)
    reader = Reader(tmp_path, path="**/*.csv", **MOVE)
    assert reader.ids() == ["1", "2"]
    assert names(tmp_path) == ["done/b.csv", "done/eu/a.csv"]
    assert probe(reader.source, "t", reader.position) == {}
    assert reader.ids() == []
    assert names(tmp_path) == ["done/b.csv", "done/eu/a.csv"]


def test_nothing_is_touched_before_the_commit_and_what_a_killed_load_left_is_seen_and_done(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path, **DELETE)
    (batch,) = read_all(reader.source)  # never committed
    assert names(tmp_path) == ["a.csv"]
    reader.position = dict(batch.position or {})  # committed, and then the process was killed
    assert list(probe(reader.source, "t", reader.position)) == ["a.csv"]
    assert reader.ids() == []
    assert names(tmp_path) == []


def test_a_name_that_is_taken_is_made_another(tmp_path: Path) -> None:
    reader = Reader(tmp_path, path="*.csv.gz", **MOVE)
    for number in (1, 2, 3):
        write(tmp_path, "a.csv.gz", gzip.compress(b"id\n%d\n" % number), number)
        assert reader.ids() == [str(number)]
    assert names(tmp_path) == ["done/a-2.csv.gz", "done/a-3.csv.gz", "done/a.csv.gz"]


def test_objects_that_are_moved_at_once_do_not_take_each_others_names(store: Store) -> None:
    reader = store.reader(table=MOVE)
    store.put("in/a.csv", "id\n0\n")
    assert reader.ids() == ["0"]
    contents = {"a.csv": "1", **{f"a-{number}.csv": str(number) for number in range(2, 12)}}
    for name, number in contents.items():
        store.put(f"in/{name}", f"id\n{number}\n")
    assert sorted(reader.ids(), key=int) == sorted(contents.values(), key=int)
    kept = sorted(key.value.decode() for name, key in store.bucket.keys.items() if name.startswith("in/done/"))
    assert kept == sorted(f"id\n{number}\n" for number in ["0", *contents.values()])
    assert [name for name in store.bucket.keys if not name.startswith("in/done/")] == []


def test_a_store_that_fails_amid_it_is_not_asked_for_each_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        store.put(f"in/{number}.csv", f"id\n{number}\n")
    asked: list[str] = []

    def fail(_: Bucket, delivery: Delivery, target: str | None) -> bool:
        asked.append(delivery.path)
        raise StorageUnavailableError(f"the store is down: {target}")

    monkeypatch.setattr(Bucket, "take", fail)
    reader = store.reader(table=DELETE)
    with pytest.raises(TransientError, match="the store is down"):
        reader.batches()
    assert len(asked) < 30
    assert len(reader.landed_ids()) == 30


def test_a_file_with_a_name_as_long_as_names_may_be_is_deleted(tmp_path: Path, sftp_server: Server) -> None:
    name = "é" * 125 + ".csv"
    write(tmp_path, name, "id\n1\n", 1)
    write(sftp_server.root, f"in/{name}", "id\n1\n", 1)
    for reader in (Reader(tmp_path, **DELETE), sftp_server.reader(table=DELETE)):
        assert reader.ids() == ["1"]
    assert names(tmp_path) == names(sftp_server.root) == []


def test_a_file_that_changed_after_it_was_read_stays_and_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path, **DELETE)
    with reader.source.reading(["t"], {}) as reading:
        for batch in reading:
            reader.position |= batch.position or {}
            reading.committed(batch.position or {})
        write(tmp_path, "a.csv", "id\n2\n", 2)
    assert reader.ids() == ["2"]
    assert names(tmp_path) == []


@pytest.mark.parametrize("target", ["done/a.csv", None])
def test_a_file_that_is_replaced_at_the_last_moment_is_put_back(
    tmp_path: Path, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    folder = LocalFolder(tmp_path)
    (found,) = folder.find("*.csv", 0)
    write(tmp_path, "a.csv", "id\n22\n", 2)
    monkeypatch.setattr(LocalFolder, "changed", lambda *_: False)  # the look was before
    assert not folder.take(found, target)
    assert names(tmp_path) == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "id\n22\n"


def test_files_that_cannot_be_read_stay_and_the_others_are_moved(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", b"PAR1" + b"\0" * 50, 2)
    with pytest.raises(PlatformError, match=r"b\.csv: .*declared CSV, but it is a Parquet file"):
        Reader(tmp_path, **MOVE).batches()
    assert names(tmp_path) == ["b.csv", "done/a.csv"]


def test_a_copy_without_news_is_done_with_too(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n1\n", 2)
    assert Reader(tmp_path, key=[], **MOVE).ids() == ["1"]
    assert names(tmp_path) == ["done/a.csv", "done/b.csv"]


def test_what_may_not_be_written_says_so_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "done"))

    write(tmp_path, "a.csv", "id\n1\n", 1)
    monkeypatch.setattr(Path, "mkdir", refuse)
    reader = Reader(tmp_path, **MOVE)
    message = (
        r"rows of 1 file below .* are loaded, but to move to done failed.*next load:\n  a\.csv: .*Permission denied"
    )
    with pytest.raises(PlatformError, match=message):
        reader.batches()
    assert reader.landed_ids() == ["1"]
    assert list(probe(reader.source, "t", reader.position)) == ["a.csv"]


def test_a_file_of_two_tables_and_a_link_stay_and_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    reader = Reader(tmp_path, **DELETE)
    reader.source = Files(tmp_path, {"t": table(**DELETE), "u": table("a*")})  # type: ignore[arg-type]  # their options
    with pytest.raises(PlatformError, match=r"rows of 2 files .*to delete failed") as raised:
        reader.batches()
    assert "a.csv: table u reads a.csv as well" in str(raised.value)
    assert "b.csv: it is a link" in str(raised.value)
    assert names(tmp_path) == ["a.csv", "b.csv"]


def test_a_load_from_the_beginning_is_refused_while_its_files_lie_where_they_were_moved(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    Reader(tmp_path, **MOVE).batches()
    write(tmp_path, "b.csv", "id\n2\n", 2)
    again = Reader(tmp_path, forget_after="1d", **MOVE)
    with pytest.raises(PlatformError, match=r"1 of its files were moved to done .*done/a\.csv.*rows would be missing"):
        again.batches()
    assert names(tmp_path) == ["b.csv", "done/a.csv"]
    (tmp_path / "done/a.csv").rename(tmp_path / "a.csv")
    assert again.ids() == ["1", "2"]
    again.batches()
    assert sorted(again.position) == ["b.csv"]  # a.csv is forgotten, but not the last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"after_load": {}}, "either `{move: FOLDER}` or `{delete: true}`"),
        ({"after_load": {"move": "x", "delete": True}}, "either `{move: FOLDER}` or `{delete: true}`"),
        ({"after_load": {"move": "../x"}}, "below the source's folder"),
        ({"after_load": {"move": "/x"}}, "below the source's folder"),
        ({"after_load": {"move": "x*"}}, "is a folder, such as `done`, and no pattern"),
        ({**MOVE, "path": "{date}/*.csv", "partitions": {"newest": "3d"}}, "partitions"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        table(**options)  # type: ignore[arg-type]  # options of any table


def test_a_folder_that_can_only_be_read_is_refused_before_anything_is_loaded() -> None:
    place = HttpFolder("http://127.0.0.1:1/in", StorageOptions())
    with pytest.raises(PlatformError, match=r"what lies below http://127\.0\.0\.1:1/in/ can only be read"):
        Reader(place, **MOVE).batches()


def test_a_load_moves_files_after_its_commit(tmp_path: Path, lake: Lakehouse) -> None:
    write(tmp_path / "in", "a.csv", "id\n1\n", 1)
    options = table(**MOVE)  # type: ignore[arg-type]  # options of any table
    result = load_table(lake, "shop", Files(tmp_path / "in", {"t": options}), "t", options, run_id="r")
    assert result.rows_landed == 1
    assert names(tmp_path / "in") == ["done/a.csv"]


KILLED = """
import os, signal, sys
from pathlib import Path

from platform_tests.ingestion.deliveries import table
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

LocalFolder.take = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
folder, home, catalog, data = sys.argv[1:]
options = table(after_load={"move": "done"})
with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
    load_table(lake, "shop", Files(Path(folder), {"t": options}), "t", options, run_id="killed")
"""


def interrupted(folder: Path, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load, and stop where the first file is to be moved."""

    def stop(*_: object) -> bool:
        raise KeyboardInterrupt

    options = table(**MOVE)  # type: ignore[arg-type]  # options of any table
    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "take", stop)
        with pytest.raises(KeyboardInterrupt):
            load_table(lake, "shop", Files(folder, {"t": options}), "t", options, run_id="stopped")


def killed(folder: Path, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a process that is killed there."""
    place = [folder, settings.home, settings.catalog, settings.data]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, place)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


@ON_SQLITE
@pytest.mark.parametrize("end", [interrupted, pytest.param(killed, marks=pytest.mark.crash)])
def test_a_load_that_ends_between_its_commit_and_the_move_is_not_repeated_and_the_next_moves(
    end: Callable[..., None], tmp_path: Path, lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, options = tmp_path / "in", table(**MOVE)  # type: ignore[arg-type]  # options of any table
    write(folder, "a.csv", "id\n1\n", 1)
    write(folder, "b.csv", "id\n2\n", 2)
    end(folder, lake, settings, monkeypatch)
    assert names(folder) == ["a.csv", "b.csv"]
    assert lake.connection.execute("SELECT id FROM raw_shop.t ORDER BY id").fetchall() == [("1",), ("2",)]
    write(folder, "b.csv", "id\n3\n", 3)  # delivered anew before the next load: it is read before it is moved
    source = Files(folder, {"t": options})
    assert set(probe(source, "t", head(lake).position)) == {"a.csv", "b.csv"}, "the sensor asks for the next load"
    assert load_table(lake, "shop", source, "t", options, run_id="next").rows_landed == 1
    assert names(folder) == ["done/a.csv", "done/b.csv"]
    assert lake.connection.execute("SELECT id FROM raw_shop.t ORDER BY id").fetchall() == [("1",), ("2",), ("3",)]
    assert load_table(lake, "shop", source, "t", options, run_id="last").rows_landed == 0


def head(lake: Lakehouse) -> ledger.Head:
    """How far the table was loaded."""
    return ledger.head(lake, "raw", "shop", "t")


@pytest.mark.parametrize("url", ["gs://landing/in", "az://landing/in"])
def test_objects_of_other_clouds_are_moved_and_deleted_once_even_after_a_kill(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(objects, "_store", lambda *_: store)

    def keys() -> list[str]:
        return sorted(one["path"] for page in obstore.list(store) for one in page)

    obstore.put(store, "a.csv", b"id\n1\n")
    moving = Reader(objects.Bucket(url, StorageOptions()), **MOVE)
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "delete", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            moving.ids()
    assert keys() == ["a.csv", "done/a.csv"], "the copy was made, the object is there"
    assert moving.ids() == []
    assert keys() == ["done/a.csv"]
    obstore.put(store, "a.csv", b"id\n2\n")
    assert moving.ids() == ["2"]
    assert keys() == ["done/a-2.csv", "done/a.csv"]
    obstore.put(store, "b.csv", b"id\n3\n")
    assert Reader(objects.Bucket(url, StorageOptions()), path="b*", **DELETE).ids() == ["3"]
    assert keys() == ["done/a-2.csv", "done/a.csv"]


def test_files_on_a_server_are_moved_and_deleted(sftp_server: Server) -> None:
    root = sftp_server.root / "in"
    moving = sftp_server.reader(table={"path": "**/*.csv", **MOVE})
    for number in (1, 2):
        write(root, "sub/a.csv", f"id\n{number}\n", number)
        assert moving.ids() == [str(number)]
    assert names(root) == ["done/sub/a-2.csv", "done/sub/a.csv"]
    write(root, "b.csv", "id\n3\n", 3)
    write(root, ".b.csv.loaded", "left by a load that was killed", 3)
    assert sftp_server.reader(table={"path": "b*", **DELETE}).ids() == ["3"]
    assert names(root) == ["done/sub/a-2.csv", "done/sub/a.csv"]


@pytest.mark.parametrize("target", ["done/a.csv", None])
def test_a_file_on_a_server_that_is_replaced_at_the_last_moment_is_put_back(
    sftp_server: Server, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sftp_server.root / "in", "a.csv", "id\n1\n", 1)
    source = sftp_server.reader().source
    with source._place.session() as folder:
        (found,) = folder.find("*.csv", 0)
        write(sftp_server.root / "in", "a.csv", "id\n22\n", 2)
        monkeypatch.setattr(type(folder), "changed", lambda *_: False)
        assert not folder.take(found, target)  # type: ignore[attr-defined]  # of files that may be moved
    assert names(sftp_server.root / "in") == ["a.csv"]


def keys(store: Store) -> list[str]:
    return sorted(store.bucket.keys)


def test_objects_are_moved_and_deleted(store: Store) -> None:
    moving = store.reader(table={"path": "**/*.csv", **MOVE})
    for number in (1, 2):
        store.put("in/sub/a.csv", f"id\n{number}\n")
        assert moving.ids() == [str(number)]
    assert keys(store) == ["in/done/sub/a-2.csv", "in/done/sub/a.csv"]
    store.put("in/b.csv", "id\n3\n")
    assert store.reader(table={"path": "b*", **DELETE}).ids() == ["3"]
    assert keys(store) == ["in/done/sub/a-2.csv", "in/done/sub/a.csv"]


def test_a_copy_that_a_killed_load_left_is_the_objects_new_place(store: Store) -> None:
    store.put("in/a.csv", "id\n1\n")
    store.put("in/done/a.csv", "id\n1\n")
    reader = store.reader(table=MOVE)
    (batch,) = read_all(reader.source, after={"of": "1:1:1:x"})
    reader.position = dict(batch.position or {})
    assert reader.ids() == []
    assert keys(store) == ["in/done/a.csv"]


@pytest.mark.parametrize("when", ["before", "while it is copied"])
def test_an_object_that_is_overwritten_stays(store: Store, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("in/a.csv", "id\n1\n")
    bucket = store.reader().source._place
    assert isinstance(bucket, objects.Bucket)
    (found,) = bucket.find("*.csv", 0)

    def overwritten(*given: object) -> None:
        copy(*given)
        store.put("in/a.csv", "id\n2\n")

    copy: Callable[..., None] = obstore.copy
    if when == "before":
        store.put("in/a.csv", "id\n2\n")
    else:
        monkeypatch.setattr(obstore, "copy", overwritten)
    assert not bucket.take(found, "done/a.csv")
    assert not bucket.take(found, None)
    assert keys(store) == ["in/a.csv"]
    assert not bucket.take(Delivery("gone.csv", 1, 1, etag="x"), None)
