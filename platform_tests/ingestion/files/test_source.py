"""Files in a folder: each once, known by content, whole or not at all."""

import gzip
import hashlib
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import JSON, Reader, table, write
from platform_tests.ingestion.reading import overlap, probe, read_all, reading
from pydantic import ValidationError

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files import batches as files
from data_platform.ingestion.files.formats import text
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.files.storage import local, unpacking
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.source import BATCH_ROWS, REJECTS_SCHEMA, Source


def test_files_are_a_source() -> None:
    source: Source = Files(Path(), {"t": table()})
    assert overlap(source, "t", {}) is None


def test_rows_say_where_they_stand(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", 'id,x\n1,"a\nb"\n2,\n', 1)
    (batch,) = Reader(tmp_path, path="in/*.csv").batches()
    assert batch.rows.schema == pa.schema(
        [("id", pa.string()), ("x", pa.string()), ("_file", pa.string()), ("_line", pa.int64())]
    )
    assert batch.rows.to_pylist() == [
        {"id": "1", "x": "a\nb", "_file": "in/a.csv", "_line": 2},
        {"id": "2", "x": "", "_file": "in/a.csv", "_line": 4},
    ]


def test_rejects_say_where_they_stand(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"id,x\n1,2\n3\n\xff,4\n", 1)
    (batch,) = Reader(tmp_path).batches()
    assert batch.rejects.schema == REJECTS_SCHEMA
    assert batch.rejects.to_pylist() == [
        {"_file": "a.csv", "_line": 3, "place": "a.csv:3", "record": "3", "reason": "1 field instead of 2"},
        {
            "_file": "a.csv",
            "_line": 4,
            "place": "a.csv:4",
            "record": "\\xff,4",
            "reason": "holds bytes that are not utf-8 (shown as escapes)",
        },
    ]


def test_a_file_is_delivered_once_and_the_cheap_look_agrees_with_the_position(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path)
    changed = (tmp_path / "a.csv").stat().st_ctime_ns
    assert probe(reader.source) == {"a.csv": f"5:1000000000:{changed}"}
    assert reader.ids() == ["1"]
    content = hashlib.sha256(b"id\n1\n").hexdigest()
    assert reader.position == {"a.csv": f"5:1000000000:{changed}:{content}"}
    assert probe(reader.source, "t", reader.position) == {}
    assert reader.batches() == []


def test_the_cheap_look_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened a file")

    monkeypatch.setattr(Path, "open", refuse)
    assert len(probe(Reader(tmp_path).source, "t") or {}) == 1


def test_files_come_oldest_first_then_by_name(tmp_path: Path) -> None:
    for name, at in [("c.csv", 5), ("b.csv", 7), ("a.csv", 7)]:
        write(tmp_path, name, f"id\n{name}\n", at)
    assert Reader(tmp_path).ids() == ["c.csv", "a.csv", "b.csv"]


def test_a_touched_file_only_moves_its_position(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path)
    reader.batches()
    os.utime(tmp_path / "a.csv", (9, 9))
    (batch,) = reader.batches()
    assert batch.rows.num_rows == 0
    assert reader.position["a.csv"].startswith("5:9000000000:")
    assert reader.batches() == []


def test_a_changed_file_is_read_whole_again(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path)
    reader.batches()
    write(tmp_path, "a.csv", "id\n1\n2\n", 2)
    assert reader.ids() == ["1", "2"]


def test_an_entry_of_an_earlier_release_still_tells_that_a_file_is_known(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path, forget_after="30d")
    reader.position = {"a.csv": f"5:1000000000:{hashlib.sha256(b'x').hexdigest()}"}
    assert reader.batches() == []
    write(tmp_path, "b.csv", "id\n2\n", 2)
    assert reader.ids() == ["2"]
    (tmp_path / "a.csv").unlink()
    (batch,) = reader.batches()
    assert list(batch.forget) == ["a.csv"]


def test_the_same_content_under_another_name_gives_no_rows_of_a_table_without_a_key(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n1\n", 2)
    reader = Reader(tmp_path, key=[])
    read = reader.batches()
    assert [row["id"] for batch in read for row in batch.rows.to_pylist()] == ["1"]
    assert [note.split(":")[0] for batch in read for note in batch.notes] == ["b.csv was passed over"]
    write(tmp_path, "c.csv", "id\n1\n", 3)
    assert reader.ids() == []
    assert set(reader.position) == {"a.csv", "b.csv", "c.csv"}
    assert probe(reader.source, "t", reader.position) == {}


def test_a_snapshot_that_returns_to_older_content_is_delivered(tmp_path: Path) -> None:
    reader = Reader(tmp_path, deliveries="snapshot")
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n2\n", 2)
    assert reader.ids() == ["1", "2"]
    write(tmp_path, "c.csv", "id\n1\n", 3)
    assert reader.ids() == ["1"]
    write(tmp_path, "d.csv", "id\n1\n", 4)
    assert reader.ids() == []


def test_each_snapshot_is_a_delivery_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b.csv", "id\n1\n2\n", 2)
    batches = Reader(tmp_path, deliveries="snapshot").batches()
    assert [(batch.kind, list(batch.position or {})) for batch in batches] == [
        ("whole", ["a.csv"]),
        ("whole", ["b.csv"]),
    ]


def test_an_empty_file_moves_the_position_but_is_refused_as_a_snapshot(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "", 1)
    (batch,) = Reader(tmp_path).batches()
    assert (batch.rows.num_rows, set(batch.position or {})) == (0, {"a.csv"})
    with pytest.raises(PlatformError, match=r"a\.csv: it is empty \(0 bytes\)"):
        Reader(tmp_path, deliveries="snapshot").batches()


def test_gzip_is_known_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", gzip.compress(b"id\n1\n") + gzip.compress(b"2\n"), 1)
    write(tmp_path, "b.csv.gz", gzip.compress(b"id\n3\n"), 2)
    assert Reader(tmp_path, path="*.csv*").ids() == ["1", "2", "3"]


def test_only_the_last_batch_of_a_file_has_a_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    monkeypatch.setattr(text, "BLOCK", 64)
    write(tmp_path, "a.csv", "id\n" + "".join(f"{n}\n" for n in range(95)), 1)
    write(tmp_path, "b.csv", "id\nlast\n", 2)
    batches = Reader(tmp_path).batches()
    assert [batch.rows.num_rows for batch in batches] == [10] * 9 + [5, 1]
    assert [batch.position is not None for batch in batches] == [False] * 9 + [True, True]
    rows = pa.concat_tables([batch.rows for batch in batches[:-1]]).to_pylist()
    assert [(row["id"], row["_line"]) for row in rows] == [(str(n), n + 2) for n in range(95)]


def test_wide_rows_make_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_BYTES", 100_000)
    monkeypatch.setattr(text, "BLOCK", 50_000)
    write(tmp_path, "a.csv", "id\n" + ("v" * 1_000 + "\n") * 1_000, 1)
    batches = Reader(tmp_path).batches()
    assert sum(batch.rows.num_rows for batch in batches) == 1_000
    assert max(batch.rows.nbytes for batch in batches) < 200_000


def test_columns_that_appear_later_in_json_are_columns_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", 16)
    write(tmp_path, "a.jsonl", '{"id": 1}\n{"id": 2, "new": [1, 2]}\n', 1)
    (batch,) = Reader(tmp_path, path="*.jsonl", format=JSON).batches()
    assert batch.rows.to_pylist() == [
        {"id": "1", "new": None, "_file": "a.jsonl", "_line": 1},
        {"id": "2", "new": "[1, 2]", "_file": "a.jsonl", "_line": 2},
    ]


def test_a_file_still_growing_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "young.csv").write_text("id\n1\n")
    write(tmp_path, "old.csv", "id\n2\n", 1)
    ahead = write(tmp_path, "ahead.csv", "id\n3\n", 1)
    os.utime(ahead, (4_000_000_000, 4_000_000_000))
    reader = Reader(tmp_path, stable_for=60)
    assert set(probe(reader.source, "t") or {}) == {"old.csv", "ahead.csv"}
    assert reader.ids() == ["2", "3"]
    assert sorted(Reader(tmp_path).ids()) == ["1", "2", "3"]


def test_hidden_files_and_folders_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    for name in (".upload.csv", ".parts/a.csv", "in/b.csv", "c.csv"):
        write(tmp_path, name, f"id\n{name}\n", 1)
    assert sorted(Reader(tmp_path, path="**").ids()) == ["c.csv", "in/b.csv"]
    assert sorted(Reader(tmp_path, path="**/*.csv").ids()) == ["c.csv", "in/b.csv"]
    assert Reader(tmp_path, path=".parts/*.csv").ids() == [".parts/a.csv"]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.csv", "id\nsecret\n", 1)
    root = tmp_path / "landing"
    write(root, "a.csv", "id\n1\n", 1)
    (root / "link.csv").symlink_to(secret)
    (root / "inside.csv").symlink_to(root / "a.csv")
    reader = Reader(root)
    with pytest.raises(PlatformError, match=r"link\.csv: it is a link that leads out of the folder"):
        reader.batches()
    assert set(reader.landed_ids()) == {"1"}


def test_names_that_a_position_cannot_hold_are_refused(tmp_path: Path) -> None:
    write(tmp_path, os.fsdecode(b"b\xff"), "id\n1\n", 1)
    reader = Reader(tmp_path, path="*")
    with pytest.raises(PlatformError, match="1 file") as raised:
        reader.batches()
    assert r"b\udcff: its name holds bytes that are not UTF-8" in str(raised.value)
    assert probe(reader.source, "t") == {}


def test_a_missing_folder_and_an_unknown_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=f"folder {tmp_path}/nowhere does not exist"):
        probe(Files(tmp_path / "nowhere", {"t": table()}), "t")
    with pytest.raises(PlatformError, match="No table 'u' in this source; there are: t"):
        read_all(Files(tmp_path, {"t": table()}), "u")


def test_unpacked_files_too_large_for_memory_go_to_the_spool_and_leave_it_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "SPOOL_MEMORY", 100)
    root, spool = tmp_path / "landing", tmp_path / "spool"
    write(root, "a.csv.gz", gzip.compress(b"id\n" + b"1\n" * 500), 1)
    (batch,) = read_all(Files(root, {"t": table("*.gz")}, spool), "t")
    assert batch.rows.num_rows == 500
    assert list(spool.iterdir()) == []
    spool.rmdir()
    spool.write_text("in the way")
    with pytest.raises(PlatformError, match=r"a\.csv\.gz: .*File exists"):
        read_all(Files(root, {"t": table("*.gz")}, spool), "t")


def test_closing_the_read_lets_go_of_file_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    monkeypatch.setattr(text, "BLOCK", 64)
    monkeypatch.setattr(local, "HELD_BYTES", 0)
    write(tmp_path, "a.csv", "id\n" + "1\n" * 500, 1)
    with reading(Files(tmp_path, {"t": table()})) as batches:
        next(batches)
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are all that is wanted)
        batches.close()  # type: ignore[attr-defined]  # an iterator to the outside, a generator in fact
    assert len(os.listdir("/proc/self/fd")) < len(before)  # noqa: PTH208
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("parse")]


@pytest.mark.parametrize("form", ["csv", "json_lines"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 5_000)
    monkeypatch.setattr(text, "BLOCK", 64 << 10)
    line = '{"id": "%d", "note": "' + "x" * 50 + '"}\n' if form == "json_lines" else "%d," + "x" * 80 + "\n"
    peaks = []
    for rows in (20_000, 100_000):
        write(tmp_path, f"{rows}.x", ("id,note\n" if form == "csv" else "") + "".join(line % n for n in range(rows)), 1)
        tracemalloc.start()
        peak, count = 0, 0
        with reading(Files(tmp_path, {"t": table(f"{rows}.x", format={"type": form})})) as batches:
            for batch in batches:
                count += batch.rows.num_rows
                peak = max(peak, pa.total_allocated_bytes())
        peaks.append(peak + tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == rows
    assert peaks[1] < peaks[0] * 1.5 + 1_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/etc/passwd"}, "below the source's folder"),
        ({"path": "../x.csv"}, "below the source's folder"),
        ({"path": ""}, "below the source's folder"),
        ({"path": "a**/x.csv"}, "must stand alone"),
        ({"format": {"type": "xsl"}}, "'csv', 'fixed_width', 'json_lines', 'json', 'xml', 'log', 'logfmt', 'w3c'"),
        ({"format": {}}, "type"),
        ({"format": {"type": "csv", "encoding": "nope"}}, "unknown encoding 'nope'"),
        ({"stable_for": -1}, "greater than or equal to 0"),
        ({"deliveries": "some"}, "'additions' or 'snapshot'"),
        ({"compression": "gzip"}, "not permitted"),
    ],
)
def test_mistakes_in_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        table(**options)  # type: ignore[arg-type]  # mistakes are the point


def test_batches_hold_what_the_platform_says(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n" + "1\n" * (BATCH_ROWS + 1), 1)
    assert [batch.rows.num_rows for batch in Reader(tmp_path).batches()] == [BATCH_ROWS, 1]


def test_many_small_files_come_in_few_batches_each_of_files_with_the_same_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_FILES", 3)
    for number in range(5):
        write(tmp_path, f"{number}.csv", f"id\n{number}\n", number)
    write(tmp_path, "wide.csv", "id,x\n5,y\n", 5)
    reader = Reader(tmp_path)
    batches = reader.batches()
    assert [sorted(batch.position or {}) for batch in batches] == [
        ["0.csv", "1.csv", "2.csv"],
        ["3.csv", "4.csv"],
        ["wide.csv"],
    ]
    assert [batch.rows["_file"].to_pylist() for batch in batches][1] == ["3.csv", "4.csv"]
    assert reader.batches() == []


def test_a_touched_snapshot_only_moves_its_position(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    reader = Reader(tmp_path, deliveries="snapshot")
    reader.batches()
    os.utime(tmp_path / "a.csv", (9, 9))
    (batch,) = reader.batches()
    assert (batch.kind, batch.rows.num_rows) == ("rows", 0)


def test_files_that_are_gone_are_forgotten_after_a_while_and_loaded_again_if_they_come_back(tmp_path: Path) -> None:
    old = write(tmp_path, "old.csv", "id\n1\n", 1)
    (tmp_path / "new.csv").write_text("id\n2\n")
    kept = Reader(tmp_path, key=[])
    forgetting = Reader(tmp_path, key=[], forget_after="30d")
    assert kept.ids() == forgetting.ids() == ["1", "2"]
    old.unlink()
    assert kept.batches() == []
    (batch,) = forgetting.batches()
    assert (batch.position, list(batch.forget)) == ({}, ["old.csv"])
    assert set(forgetting.position) == {"new.csv"}
    assert forgetting.batches() == []
    write(tmp_path, "back.csv", "id\n1\n", 1)
    assert kept.ids() == []
    assert forgetting.ids() == ["1"]


def test_files_that_cannot_be_seen_are_not_forgotten_as_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share"
    write(folder, "a.csv", "id\n1\n", 1)
    write(folder, "private/b.csv", "id\n2\n", 2)
    reader = Reader(folder, path="**/*.csv", key=[], forget_after="30d")
    assert reader.ids() == ["1", "2"]
    known = dict(reader.position)

    folder.rename(tmp_path / "unmounted")
    folder.mkdir()
    assert reader.batches() == []
    folder.rmdir()
    (tmp_path / "unmounted").rename(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", _refusing(folder / "private", PermissionError(13, "Permission denied")))
        assert reader.batches() == []
    assert reader.position == known
    assert reader.ids() == []


def _refusing(folder: Path, error: OSError) -> Any:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path) == folder:
            raise error
        return scandir(path)

    return refuse


def test_a_folder_that_may_not_be_read_is_named_and_one_that_fails_stops_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b/b.csv", "id\n2\n", 2)
    reader = Reader(tmp_path, path="**/*.csv")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", _refusing(tmp_path / "b", PermissionError(13, "Permission denied")))
        assert reader.ids() == ["1"]
    assert caplog.messages == [f"b/ of {tmp_path} is passed over: it may not be read by this user"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", _refusing(tmp_path / "b", OSError(5, "Input/output error")))
        with pytest.raises(TransientError, match=r"b/ of .* cannot be looked at: Input/output error"):
            reader.batches()
    assert reader.ids() == ["2"]


def test_links_to_nothing_and_to_themselves_hide_no_other_file(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    write(tmp_path, "b/b.csv", "id\n2\n", 2)
    (tmp_path / "round.csv").symlink_to("round.csv")
    (tmp_path / "nothing.csv").symlink_to("nowhere")
    assert Reader(tmp_path).ids() == ["1"]
    assert Reader(tmp_path, path="*/*.csv").ids() == ["2"]
    assert Reader(tmp_path, path="**/*.csv").ids() == ["1", "2"]


def test_folders_too_deep_for_a_path_hide_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "a.csv", "id\n1\n", 1)
    for name, depth in (("d", 120), ("d" * 250, 17)):
        monkeypatch.chdir(tmp_path)
        for _ in range(depth):
            Path(name).mkdir()
            os.chdir(name)
    monkeypatch.chdir(tmp_path)
    assert Reader(tmp_path, path="**/*.csv").ids() == ["1"]
    assert "is passed over: it lies more than 100 folders deep" in caplog.text
    assert "is passed over: its path is longer than paths may be" in caplog.text


def test_each_folder_is_listed_once_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "x/b.csv", "x/y/c.csv"):
        write(tmp_path, name, "id\n", 1)
    listed: list[str] = []
    scandir = os.scandir

    def noted(path: str) -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    assert len(LocalFolder(tmp_path).find("**/**/*.csv", 0)) == 3
    assert sorted(listed) == [str(tmp_path), str(tmp_path / "x"), str(tmp_path / "x/y")]


def test_what_the_walk_finds_is_what_pathlib_finds(tmp_path: Path) -> None:
    for name in ("a.csv", "x/a.csv", "x/y/b.csv", "x/y/z/a.csv", "x/[1].csv", "xy/c.txt", "é/ü.csv"):
        write(tmp_path, name, "id\n", 1)
    (tmp_path / "linked").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "round").symlink_to(tmp_path)
    for pattern in ("*.csv", "x/*.csv", "*/*.csv", "**/*.csv", "**", "x/**/a.csv", "**/y/**/*.csv", "x*/[!a].*", "é/*"):
        glob = tmp_path.glob(pattern + "/*" if pattern.endswith("**") else pattern)
        expected = sorted({path.relative_to(tmp_path).as_posix() for path in glob if path.is_file()})
        assert sorted(delivery.path for delivery in LocalFolder(tmp_path).find(pattern, 0)) == expected, pattern


@pytest.mark.parametrize(("encoding", "packed"), [("utf-8", False), ("utf-16-le", False), ("utf-8", True)])
def test_additions_whose_last_line_has_no_end_wait_until_they_were_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, encoding: str, packed: bool
) -> None:
    def content(text: str) -> bytes:
        return gzip.compress(text.encode(encoding)) if packed else text.encode(encoding)

    monkeypatch.setattr("time.time", lambda: 1_000.0)
    reader = Reader(tmp_path, format={"type": "csv", "encoding": encoding})
    write(tmp_path, "a.csv", content("amount,id\n5,1001\n7,10"), 995)
    if packed:  # gzip tells whether it is whole
        assert reader.ids() == ["1001", "10"]
        return
    assert probe(reader.source, "t", {}) == {}
    assert reader.ids() == []
    assert "a.csv is not read yet: its last line has no end" in caplog.text
    write(tmp_path, "a.csv", content("amount,id\n5,1001\n7,1002\n"), 999)
    assert reader.ids() == ["1001", "1002"]
    write(tmp_path, "b.csv", content("amount,id\n7,1003"), 989)
    assert reader.ids() == ["1003"]


def test_a_snapshot_without_a_last_line_end_is_read_at_once_and_longer_waits_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000.0)
    write(tmp_path, "a.csv", "id\n1", 999)
    assert Reader(tmp_path, deliveries="snapshot").ids() == ["1"]
    write(tmp_path, "a.csv", "id\n1", 980)
    assert Reader(tmp_path, stable_for=30).ids() == []
    assert Reader(tmp_path, stable_for=15).ids() == ["1"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"PK\x03\x04junk", {}, "the zip archive has no end: it is still being written, or was cut off"),
        (b"PAR1" + b"\0" * 50, {}, "declared CSV, but it is a Parquet file: set `format: {type: parquet}`"),
        (b'{"id": 1}\n{"id": 2}\n', {}, r"declared CSV, but it is JSON lines: set `format: \{type: json_lines\}`"),
        (b'[{"id": 1}, {"id": 2}]', {}, r"declared CSV, but it is a JSON array: set `format: \{type: json\}`"),
        (b'[\n{"id": 1},\n{"id": 2}\n]\n', {"type": "json_lines"}, "declared JSON lines, but it is a JSON array"),
        (b'{\n  "id": 1\n}\n', {"type": "json_lines"}, "declared JSON lines, but it is JSON of several lines"),
        (b'{"id": 1}\r{"id": 2}\r', {"type": "json_lines"}, "carriage returns alone"),
        (b"id\r1\r2\r", {}, "line 1: the header cannot be read: a carriage return .*`line_end: cr`"),
        (
            "id\n1\n2\n".encode("utf-16-le"),
            {},
            "utf-16-le without a byte order mark: set `encoding: utf-16-le`",
        ),
        ("id\n1\n2\n".encode("utf-16-be"), {}, "text in utf-16-be"),
        (b"<html><body>Sign in</body></html>", {}, "declared CSV, but it is an HTML page"),
        (b"id,name,\n1,a,\n", {}, "the header ends in a delimiter.*`trailing_delimiter: true`"),
    ],
)
def test_a_file_of_another_format_is_named_as_what_it_is(
    tmp_path: Path, content: bytes, options: dict[str, str], message: str
) -> None:
    write(tmp_path, "a.csv", content, 1)
    write(tmp_path, "b.csv", b'{"id": "3"}\n' if options else b"id\n3\n", 2)
    reader = Reader(tmp_path, format={"type": "csv", **options})
    with pytest.raises(PlatformError, match=rf"a\.csv: .*{message}"):
        reader.batches()
    assert reader.landed_ids() == ["3"]
