"""Small files of distant storages come several at once, in the order in which they are asked for."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from data_platform.ingestion.files.storage import Delivery, ahead
from data_platform.ingestion.files.storage.ahead import SMALL, WAITING, opening
from data_platform.ingestion.files.storage.local import LocalFolder


class Far(LocalFolder):
    """A storage that notes what is asked of it; files called `gone` are. The first files that are asked for come only
    when so many are asked for at once."""

    def __init__(self, together: int = 1) -> None:
        super().__init__(Path())
        self.asked: list[str] = []
        self.gate, self.first = threading.Barrier(together), iter(range(together))

    def gives_several(self) -> bool:
        return True

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
        self.asked.append(delivery.path)
        if next(self.first, None) is not None:
            self.gate.wait(10)
        if delivery.path == "gone":
            raise FileNotFoundError(delivery.path)
        yield io.BytesIO(delivery.path.encode())


def files(*paths: str, size: int = 1) -> list[Delivery]:
    return [Delivery(path, size, 1) for path in paths]


def test_several_files_are_fetched_at_once_and_come_in_their_order() -> None:
    folder, wanted = Far(together=4), files(*map(str, range(40)))
    with opening(folder, wanted, None) as opened:
        contents = []
        for one in wanted:
            with opened(one) as file:
                contents.append(file.read().decode())
            assert len(folder.asked) <= len(contents) + WAITING
    assert contents == [one.path for one in wanted]
    assert sorted(folder.asked) == sorted(contents)


def test_a_file_that_is_gone_is_said_when_its_turn_has_come() -> None:
    wanted = files("a", "gone", "b")
    with opening(Far(), wanted, None) as opened:
        with opened(wanted[0]) as file:
            assert file.read() == b"a"
        with pytest.raises(FileNotFoundError):
            opened(wanted[1])
        with opened(wanted[2]) as file:
            assert file.read() == b"b"


def test_what_is_large_is_fetched_when_it_is_asked_for_and_what_nobody_asks_for_is_let_go() -> None:
    folder = Far()
    wanted = [
        *files("a"),
        *files("large", size=SMALL + 1),
        *files(*(f"passed {number}" for number in range(40))),
        *files("z"),
    ]
    with opening(folder, wanted, None) as opened:
        with opened(wanted[0]) as file:
            assert file.read() == b"a"
        assert "large" not in folder.asked
        for one in (wanted[1], wanted[-1]):
            with opened(one) as file:
                assert file.read().decode() == one.path
    assert len(folder.asked) <= 3 + WAITING


def test_files_of_this_machine_are_opened_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "ThreadPoolExecutor", None)
    (tmp_path / "a").write_bytes(b"1")
    with opening(LocalFolder(tmp_path), files("a"), None) as opened, opened(files("a")[0]) as file:
        assert file.read() == b"1"
