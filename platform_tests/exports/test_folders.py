"""Exports to files elsewhere: in a bucket (moto's emulator of S3) and on an SFTP server (asyncssh's)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import obstore
import paramiko
import pytest
from obstore import exceptions
from platform_tests.exports.customers import REPLACE, change, make
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.files.test_sftp import PASSWORD, Server, listening

from data_platform.errors import PlatformError, TransientError
from data_platform.exports import files
from data_platform.exports.files import FilesWritten, export_file
from data_platform.exports.folders import Folder, Place
from data_platform.exports.folders import objects as objects_module
from data_platform.exports.folders.objects import BucketPlace, ObjectsFolder
from data_platform.exports.folders.sftp import RemoteFolder, SftpPlace
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.lakehouse.connect import Lakehouse

__all__ = ["listening", "server", "store"]

NEW_ROW = "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)"


@dataclass(frozen=True)
class There:
    """A place, and what a test sees of its files behind our back."""

    place: Place
    kind: type[Folder]
    read: Callable[[], dict[str, bytes]]
    write: Callable[[str, bytes], None]

    def written(self, lake: Lakehouse, form: str = "csv", **options: Any) -> FilesWritten:
        return export_file(lake, replace(REPLACE, **options), self.place, form, 2)

    def latest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read()["latest.json"])
        return found

    def names(self) -> list[str]:
        return sorted(set(self.read()) - {files.OWNER})


def bucket(store: Store, spool: Path, **options: Any) -> BucketPlace:
    given = {**KEYS, "endpoint": store.endpoint, "max_retries": 1, "timeout": 5, **options}
    return BucketPlace(f"s3://{store.name}/out", StorageOptions.model_validate(given), spool)


@pytest.fixture
def s3(store: Store, tmp_path: Path) -> There:
    prefix = "out/customers/"

    def read() -> dict[str, bytes]:
        return {key.removeprefix(prefix): one.value for key, one in store.bucket.keys.items() if one.value is not None}

    return There(bucket(store, tmp_path), ObjectsFolder, read, lambda name, data: store.put(prefix + name, data))


def on_server(listening: Server, folder: str, spool: Path, **options: Any) -> SftpPlace:
    key = listening.host_key.get_fingerprint()
    given = {"password": PASSWORD, "timeout": 5, "host_key": key, **options}
    return SftpPlace(f"sftp://shop@127.0.0.1:{listening.port}{folder}", StorageOptions.model_validate(given), spool)


@pytest.fixture
def sftp(listening: Server, tmp_path: Path) -> There:
    folder = listening.root / tmp_path.name / "out" / "customers"

    def write(name: str, data: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return There(
        on_server(listening, f"/{tmp_path.name}/out", tmp_path),
        RemoteFolder,
        lambda: {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {},
        write,
    )


@pytest.fixture(params=["s3", "sftp"])
def there(request: pytest.FixtureRequest) -> There:
    """Each kind of place."""
    found: There = request.getfixturevalue(request.param)
    return found


def test_latest_names_a_file_that_is_whole_and_as_many_versions_stay_as_are_to_be_kept(
    lake: Lakehouse, there: There
) -> None:
    make(lake)
    first = there.written(lake)
    assert there.read()[there.latest()["file"]] == b'"id","name"\n"1","Ada"\n"2","Bob"\n'
    assert (first.rows, first.found, there.latest()["bytes"]) == (2, 2, first.bytes)
    assert there.written(lake).unchanged
    change(lake, NEW_ROW)
    second = there.written(lake)
    change(lake, "DELETE FROM {}")
    third = there.written(lake)
    kept = [one.file.rpartition("/")[2] for one in (second, third)]
    assert there.names() == sorted([*kept, "latest.json"])
    assert there.latest()["file"] == kept[1]


@pytest.mark.parametrize("step", ["put", "replace"])
def test_an_export_that_dies_leaves_the_version_before_and_the_next_one_makes_it_whole(
    lake: Lakehouse, there: There, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    there.written(lake)
    before = there.latest()
    change(lake, NEW_ROW)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if there.kind is RemoteFolder:
            # After all bytes were sent, before they have their name.
            patch.setattr(RemoteFolder, "_renamed", die)
        patch.setattr(there.kind, step, die) if there.kind is ObjectsFolder else None
        with pytest.raises(KeyboardInterrupt):
            there.written(lake)
    assert there.latest() == before
    assert before["file"] in there.names()
    done = there.written(lake)
    assert there.latest()["rows"] == done.found == 3
    assert not [name for name in there.names() if name.startswith(".")]


def test_a_version_that_was_never_named_takes_no_place_among_those_that_are_kept(
    lake: Lakehouse, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    first = there.written(lake).file.rpartition("/")[2]
    change(lake, NEW_ROW)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(there.kind, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            there.written(lake)
    change(lake, "DELETE FROM {} WHERE id = 1")
    last = there.written(lake).file.rpartition("/")[2]
    # Whoever read `latest.json` just before still finds what it named.
    assert there.names() == sorted([first, last, "latest.json"])


def test_an_object_of_any_size_has_no_more_parts_than_a_store_takes() -> None:
    assert objects_module.part_of(10) == objects_module.PART
    assert (1 << 40) / objects_module.part_of(1 << 40) <= 10_000


def test_a_file_that_others_changed_or_removed_is_written_again(lake: Lakehouse, there: There) -> None:
    make(lake)
    name = there.written(lake).file.rpartition("/")[2]
    whole = there.read()[name]
    there.write(name, b"cut")
    assert not there.written(lake).unchanged
    assert there.read()[name] == whole


def test_files_of_others_are_left_as_they_were(lake: Lakehouse, there: There) -> None:
    make(lake)
    there.write("theirs.csv", b"a\n")
    with pytest.raises(PlatformError, match=r"did not make: theirs.csv"):
        there.written(lake)
    assert there.names() == ["theirs.csv"]
    there.written(lake, adopt=True)
    assert "theirs.csv" in there.names()


def test_a_large_file_of_a_bucket_comes_in_parts_and_is_whole(
    lake: Lakehouse, store: Store, s3: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "PART", 5 << 20)
    make(lake, values="")
    change(lake, "INSERT INTO {} SELECT i, md5(i::VARCHAR), 1, 1 FROM range(300000) AS r(i)")
    done = s3.written(lake)
    assert done.found == 300_000
    assert len(s3.read()[s3.latest()["file"]]) == done.bytes > 10 << 20
    assert any("uploadId=" in request for request in store.requests)


def test_of_two_exports_to_a_bucket_at_once_the_later_one_is_tried_again(
    lake: Lakehouse, store: Store, s3: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    s3.written(lake)
    change(lake, NEW_ROW)
    put = ObjectsFolder.put

    def overtaken(folder: ObjectsFolder, name: str, draft: Path) -> None:
        """Another machine has no lock in common with this one."""
        put(folder, name, draft)
        monkeypatch.setattr(ObjectsFolder, "put", put)
        other = bucket(store, tmp_path / "other")
        export_file(lake, REPLACE, other, "csv", 2, run_id="other")

    monkeypatch.setattr(ObjectsFolder, "put", overtaken)
    with pytest.raises(TransientError, match="written by another export meanwhile"):
        s3.written(lake)
    assert s3.latest()["run_id"] == "other"


def test_what_may_not_be_written_or_does_not_answer_is_said_without_secrets(
    lake: Lakehouse, store: Store, listening: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    nowhere = replace_name(store, "no-such-bucket")
    silent = bucket(store, tmp_path, endpoint="http://127.0.0.1:1", max_retries=0)
    (listening.root / "file").touch()
    cases: list[tuple[Place, str]] = [
        (bucket(nowhere, tmp_path), "There is no bucket"),
        (silent, "does not answer as it should"),
        (on_server(listening, "/in", tmp_path, password="not-the-one"), "does not let shop in"),
        (on_server(listening, "/file/in", tmp_path), "cannot be written"),
    ]
    for place, reason in cases:
        with pytest.raises(PlatformError, match=reason) as error:
            export_file(lake, REPLACE, place, "csv", 2)
        assert "top-secret" not in str(error.value)
        assert "not-the-one" not in str(error.value)

    def refused(*_: object, **__: object) -> None:
        raise exceptions.PermissionDeniedError("403 Forbidden")

    monkeypatch.setattr(obstore, "put", refused)
    with pytest.raises(PlatformError, match="may not be written with these credentials"):
        export_file(lake, REPLACE, bucket(store, tmp_path), "csv", 2)


def replace_name(store: Store, name: str) -> Store:
    return Store(store.endpoint, name)


def test_a_connection_that_breaks_amid_a_file_leaves_no_name(
    lake: Lakehouse, sftp: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)
    write = paramiko.SFTPFile.write

    def breaking(file: paramiko.SFTPFile, data: bytes) -> None:
        write(file, data[:5])
        raise EOFError

    with monkeypatch.context() as patch:
        patch.setattr(paramiko.SFTPFile, "write", breaking)
        with pytest.raises(TransientError, match="does not answer as it should"):
            sftp.written(lake)
    assert not [name for name in sftp.read() if not name.startswith(".")]
    assert sftp.written(lake).found == 2
