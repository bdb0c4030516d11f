"""A prediction that somebody was told of is in the log, whole, whatever happens to the process or the disk."""

import os
import threading
import time
from pathlib import Path

import pytest

from data_platform.errors import TransientError
from data_platform.ml.serving import log as module
from data_platform.ml.serving.log import PredictionLog


def lines(folder: Path) -> list[str]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def test_what_was_appended_is_on_the_disk_when_its_future_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "predictions" / "late"
    with PredictionLog(folder, "late") as log:
        log.append([b'{"a": 1}', b'{"a": 2}']).result(10)
        assert lines(folder) == ['{"a": 1}', '{"a": 2}']


def test_requests_of_many_threads_are_all_there_each_line_whole(tmp_path: Path) -> None:
    with PredictionLog(tmp_path, "late") as log:

        def ask(number: int) -> None:
            for row in range(50):
                log.append([f"{number}-{row}".encode()]).result(10)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(lines(tmp_path)) == sorted(f"{number}-{row}" for number in range(8) for row in range(50))


def test_a_line_that_the_disk_took_only_half_of_is_taken_back_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failing = os.write, [True]

    def full(file: int, text: bytes) -> int:
        if not failing[0]:
            return write(file, text)
        if len(text) > 4:
            return write(file, text[:4])
        raise OSError(28, "No space left on device")

    with PredictionLog(tmp_path, "late") as log:
        log.append([b"1"]).result(10)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(TransientError, match=r"No space left on device.*make room"):
                log.append([b"123456"]).result(10)
            failing[0] = False
            log.append([b"2"]).result(10)
    assert lines(tmp_path) == ["1", "2"]


def test_a_request_that_was_given_up_does_not_keep_others_from_being_kept(tmp_path: Path) -> None:
    with PredictionLog(tmp_path, "late") as log:
        for number in range(200):
            log.append([f"{number}".encode()]).cancel()
        log.append([b"last"]).result(10)
    assert lines(tmp_path)[-1] == "last"


def test_a_file_gets_its_own_name_soon_and_changes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_SECONDS", 0.0)
    with PredictionLog(tmp_path, "late") as log:
        log.append([b"1"]).result(10)
        until = time.monotonic() + 20
        while not list(tmp_path.glob("*.jsonl")):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert lines(tmp_path) == ["1"]
        assert list(tmp_path.glob("*.open")) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_finished_without_the_line_that_was_told_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "late-1.jsonl.open").write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    (tmp_path / "late-2.jsonl.open").write_bytes(b"")
    with PredictionLog(tmp_path, "late") as log:
        assert (tmp_path / "late-1.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n'
        assert len(list(tmp_path.glob("*.open"))) == 1
        log.append([b"3"]).result(10)
        with PredictionLog(tmp_path, "late"):  # another process: what is still written is left alone
            assert len(list(tmp_path.glob("*.open"))) == 2
            log.append([b"4"]).result(10)
    assert sorted(lines(tmp_path)) == ["3", "4", '{"a": 1}', '{"a": 2}']


def test_a_large_log_goes_on_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 8)
    with PredictionLog(tmp_path, "late") as log:
        for number in range(4):
            log.append([f"line {number}".encode()]).result(10)
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(lines(tmp_path)) == [f"line {number}" for number in range(4)]


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), PredictionLog(tmp_path / "file" / "late", "late"):
        pass
