"""DuckDB loads no extension but those that are installed as packages, whatever lies in the folder."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from data_platform.errors import PlatformError
from data_platform.lakehouse import extensions
from data_platform.lakehouse.connect import database, open_lakehouse
from data_platform.lakehouse.extensions import EXTENSIONS, VERIFIED, install_extensions
from data_platform.lakehouse.settings import Settings


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Iterator[Settings]:
    """A lakehouse with copies of the extensions of its own."""
    shared = install_extensions(Settings(home, "", ""))
    shutil.copytree(shared, tmp_path / "home" / "extensions")
    yield Settings(tmp_path / "home", str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))
    shutil.rmtree(tmp_path / "home")


def copy_of(settings: Settings, name: str) -> Path:
    (path,) = settings.extensions.rglob(f"{name}.duckdb_extension")
    return path


@pytest.mark.parametrize("name", ["ducklake", "mysql_scanner"])
def test_a_copy_that_was_changed_is_refused_with_its_path_before_anything_is_loaded(own: Settings, name: str) -> None:
    database(own).close()
    path = copy_of(own, name)
    with path.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(PlatformError, match="It is not loaded") as caught, open_lakehouse(own):
        pass
    assert str(path) in str(caught.value)
    assert not Path(own.catalog).exists()
    path.unlink()
    database(own).close()


def test_a_copy_with_the_size_and_the_time_of_the_right_one_is_refused(own: Settings) -> None:
    import os

    database(own).close()
    path = copy_of(own, "httpfs")
    about = path.stat()
    path.write_bytes(bytes(about.st_size))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(PlatformError, match="was changed since it was copied"):
        database(own)


def test_a_file_that_is_no_extension_of_ours_is_refused(own: Settings) -> None:
    stranger = copy_of(own, "httpfs").with_name("spatial.duckdb_extension")
    stranger.write_bytes(b"anything")
    with pytest.raises(PlatformError, match="nobody has verified it") as caught:
        database(own)
    assert str(stranger) in str(caught.value)


def test_a_record_of_what_was_verified_is_believed_only_for_the_hash_that_is_installed(own: Settings) -> None:
    database(own).close()
    (record,) = own.extensions.rglob(VERIFIED)
    path = copy_of(own, "httpfs")
    path.write_bytes(b"changed")
    about = path.stat()
    known = json.loads(record.read_text())
    known["httpfs"] = ["0" * 64, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
    record.write_text(json.dumps(known))
    with pytest.raises(PlatformError, match="was changed"):
        database(own)


def test_copies_are_hashed_once_and_not_by_each_process(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    database(own).close()

    def hashed(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(extensions, "_sha256", hashed)
    database(own).close()


def test_all_extensions_are_signed_by_duckdb(home: Path) -> None:
    folder = install_extensions(Settings(home, "", ""))
    for name in EXTENSIONS:
        (path,) = folder.rglob(f"{name}.duckdb_extension")
        with duckdb.connect() as connection:  # which checks the signature
            connection.execute(f"LOAD '{path}'")
