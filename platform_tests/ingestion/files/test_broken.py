"""Damaged, changing and vanishing files: each stops only itself, and nothing of it lands."""

import errno
import gzip
import os
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.deliveries import Reader, table, write
from platform_tests.ingestion.reading import reading

from data_platform.errors import PlatformError
from data_platform.ingestion.files import batches as files
from data_platform.ingestion.files import storage
from data_platform.ingestion.files.formats import text
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.files.storage.local import LocalFolder

PACKED = gzip.compress(b"id\n" + os.urandom(4_000).hex().encode() + b"\n1\n")


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(2, len(PACKED) - 1))
def test_a_truncated_gzip_is_reported_with_its_name_and_nothing_of_it_is_delivered(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    root = tmp_path_factory.mktemp("landing")
    write(root, "a.csv.gz", PACKED[:cut], 1)
    reader = Reader(root, path="*.gz")
    with pytest.raises(PlatformError, match=r"a\.csv\.gz: gzip is cut off after [0-9,]+ bytes"):
        reader.batches()
    assert (reader.landed, reader.position) == ([], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id\n1\n", r"a\.gz: it is named \.gz but does not start like gzip \(69 64, not 1f 8b\)"),
        (PACKED[:-8] + b"\0" * 8, r"a\.gz: gzip is damaged near byte [0-9,]+: CRC check failed"),
        (PACKED[:100] + b"\xff" * 50 + PACKED[150:], "gzip is damaged"),
        (PACKED + b"junk", "gzip is damaged"),
        (gzip.compress(b"id,id\n", mtime=0), r"a\.gz: line 1: in the header, column 2 is named 'id'"),
        ("id\n1\n".encode("utf-16"), "does not start like gzip"),
        (gzip.compress("id\n1\n".encode("utf-16"), mtime=0), r"a\.gz: declared utf-8, but .* UTF-16"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason_the_others_land_and_it_is_tried_again_when_repaired(
    tmp_path: Path, content: bytes, message: str
) -> None:
    write(tmp_path, "a.gz", content, 1)
    write(tmp_path, "b.gz", gzip.compress(b"id\n2\n"), 2)
    reader = Reader(tmp_path, path="*.gz")
    with pytest.raises(PlatformError, match=message):
        reader.batches()
    assert reader.landed_ids() == ["2"]
    assert set(reader.position) == {"b.gz"}
    with pytest.raises(PlatformError, match=message):
        reader.batches()
    write(tmp_path, "a.gz", gzip.compress(b"id\n1\n"), 3)
    assert reader.ids() == ["1"]


def test_every_broken_file_is_in_the_error(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path, f"{n}.csv", "id,id\n", n)
    reader = Reader(tmp_path)
    with pytest.raises(PlatformError, match=f"Table t: 3 files below {tmp_path} could not be read"):
        reader.batches()
    assert all(f"\n  {n}.csv: line 1: in the header" in reader.error for n in range(3))


def test_a_trailer_that_disagrees_refuses_a_file_of_many_batches_before_its_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    write(tmp_path, "a.txt", "id001\n" * 95 + "END 96\n", 1)
    write(tmp_path, "b.txt", "id002\n" * 3 + "END 3\n", 2)
    form = {"type": "fixed_width", "columns": [{"name": "id", "width": 5}], "trailer": "END ([0-9]+)"}
    reader = Reader(tmp_path, path="*.txt", format=form)
    with pytest.raises(PlatformError, match=r"a\.txt: the trailer in line 96 counts 96 records, but there are 95"):
        reader.batches()
    assert reader.landed_ids() == ["id002"] * 3


def test_a_file_that_changes_while_it_is_read_does_not_land_and_is_read_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n9\n", 2)
    hash_of = storage.sha256

    def hash_then_grow(stream: BinaryIO) -> str:
        content = hash_of(stream)
        if stream.read() == b"id\n1\n" and path.stat().st_size == 5:
            write(tmp_path, "a.csv", path.read_text() + "2\n", 3)
        stream.seek(0)
        return content

    monkeypatch.setattr(storage, "sha256", hash_then_grow)
    reader = Reader(tmp_path)
    with pytest.raises(PlatformError, match=r"a\.csv: it changed while it was read; it is read next time"):
        reader.batches()
    assert reader.landed_ids() == ["9"]
    assert reader.ids() == ["1", "2"]


def test_a_large_file_that_changes_midway_ends_the_read_at_once_so_that_its_rows_do_not_land_with_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    monkeypatch.setattr(text, "BLOCK", 64)
    write(tmp_path, "a.csv", "id\n" + "1\n" * 500, 1)
    write(tmp_path, "b.csv", "id\n9\n", 2)
    with reading(Files(tmp_path, {"t": table()})) as batches:
        assert next(batches).position is None
        write(tmp_path, "a.csv", "id\n" + "2\n" * 500, 3)
        with pytest.raises(PlatformError, match="changed while it was read"):
            assert not [batch for batch in batches if batch.position]
    assert Reader(tmp_path).ids() == ["9"] + ["2"] * 500


def test_a_file_that_vanishes_before_it_is_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n2\n", 2)
    found = LocalFolder.find

    def find_then_delete(
        folder: LocalFolder, pattern: str, stable_for: float, start: str = ""
    ) -> list[storage.Delivery]:
        deliveries = found(folder, pattern, stable_for, start)
        (tmp_path / "a.csv").unlink()
        return deliveries

    monkeypatch.setattr(LocalFolder, "find", find_then_delete)
    assert Reader(tmp_path).ids() == ["2"]


def test_a_failing_disk_is_a_broken_file_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n2\n", 2)
    hash_of = storage.sha256

    def failing(stream: BinaryIO) -> str:
        if stream.read() == b"id\n1\n":
            raise OSError(errno.EIO, "Input/output error")
        return hash_of(stream)

    monkeypatch.setattr(storage, "sha256", failing)
    reader = Reader(tmp_path)
    with pytest.raises(PlatformError, match=r"a\.csv: .*Input/output error"):
        reader.batches()
    assert reader.landed_ids() == ["2"]
