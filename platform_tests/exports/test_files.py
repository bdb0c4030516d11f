"""Exports to files: whole under their names or not there, and one file that says which is the newest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from platform_tests.exports.customers import REPLACE, change, make

from data_platform.errors import PlatformError
from data_platform.exports import files
from data_platform.exports.files import FilesWritten, export_file
from data_platform.exports.folders import Folder
from data_platform.exports.folders.local import LOCK, LocalPlace
from data_platform.lakehouse.connect import Lakehouse

NEW_ROW = "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)"


def written(lake: Lakehouse, folder: Path, form: str = "parquet", **options: Any) -> FilesWritten:
    return export_file(lake, replace(REPLACE, **options), LocalPlace(folder), form, 2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "customers").iterdir() if path.name not in (LOCK, files.OWNER))


def latest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "customers" / "latest.json").read_text())
    return found


def test_nothing_is_written_for_the_same_rows_and_old_versions_go(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    first = written(lake, tmp_path)
    assert written(lake, tmp_path).unchanged
    change(lake, NEW_ROW)
    second = written(lake, tmp_path)
    change(lake, "DELETE FROM {}")
    third = written(lake, tmp_path)
    assert third.rows == 0
    assert Path(first.file).name not in names(tmp_path)
    assert names(tmp_path) == sorted([Path(second.file).name, Path(third.file).name, "latest.json"])
    rows = lake.connection.execute(f"SELECT * FROM '{second.file}' ORDER BY id").fetchall()
    assert rows == [(1, "Ada"), (2, "Bob"), (3, "Cyd")]


def test_another_format_is_written_for_the_same_rows_and_takes_the_place_of_the_former(
    lake: Lakehouse, tmp_path: Path
) -> None:
    make(lake)
    first = Path(written(lake, tmp_path).file)
    second = Path(written(lake, tmp_path, "csv").file)
    assert (second.suffix, latest(tmp_path)["file"]) == (".csv", second.name)
    assert first.name in names(tmp_path), "versions that are kept may be of another format"
    change(lake, NEW_ROW)
    assert first.name not in [written(lake, tmp_path, "csv").file, *names(tmp_path)]


@pytest.mark.parametrize("name", ["../customers", "a/b", ".", "", "a%20b", "a#b", "a?b", "a\nb"])
def test_names_that_mean_other_places_are_refused(lake: Lakehouse, tmp_path: Path, name: str) -> None:
    make(lake)
    with pytest.raises(PlatformError, match="No folder can be called"):
        written(lake, tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_an_export_that_dies_before_latest_names_its_file_leaves_the_one_before(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(lake)

    def die(into: Folder, name: str, said: dict[str, object], tag: str | None) -> None:
        if name == files.LATEST:
            raise KeyboardInterrupt
        put(into, name, said, tag)

    put = files.put
    monkeypatch.setattr(files, "put", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            written(lake, tmp_path)
    monkeypatch.setattr(files, "put", put)
    (tmp_path / "customers" / ".customers-9.parquet.parquet").write_text("unfinished")
    file = Path(written(lake, tmp_path).file)
    assert names(tmp_path) == sorted([file.name, "latest.json"])
    assert latest(tmp_path)["rows"] == 2


def test_files_of_others_are_left_as_they_were(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    (tmp_path / "customers").mkdir()
    (tmp_path / "customers" / "theirs.csv").write_text("a\n")
    with pytest.raises(PlatformError, match=r"did not make: theirs.csv"):
        written(lake, tmp_path)
    written(lake, tmp_path, adopt=True)
    with pytest.raises(PlatformError, match="did not make"):
        written(lake, tmp_path, export="erp")
    assert "theirs.csv" in names(tmp_path)


def test_csv_tells_nulls_from_empty_text_and_keeps_what_is_quoted(lake: Lakehouse, tmp_path: Path) -> None:
    make(
        lake, "id BIGINT, name VARCHAR, tags VARCHAR[]", """(1, '', ['a', 'b']), (2, NULL, NULL), (3, 'a"b,c\nd', [])"""
    )
    file = Path(written(lake, tmp_path, "csv").file)
    assert set(file.read_text().split('\n"')) >= {'1","","[""a"",""b""]"', '2",,'}
    assert files.count_rows(lake, file, "csv") == 3


def test_private_columns_are_left_out(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    file = Path(written(lake, tmp_path, "csv", withheld=frozenset({"name"})).file)
    assert file.read_text() == '"id"\n"1"\n"2"\n' or file.read_text() == 'id\n"1"\n"2"\n'


def test_a_folder_that_cannot_be_written_says_so(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake)
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match="cannot be written"):
        written(lake, tmp_path / "file")
