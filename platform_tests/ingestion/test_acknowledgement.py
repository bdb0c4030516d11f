"""What a source is told of a commit, and what is said if it cannot take note of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from platform_tests.ingestion.landing import (
    ON_SQLITE,
    load,
    numbered,
    rows,
)
from platform_tests.tables import MemoryReading, MemorySource, batch_of

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion import load as load_module
from data_platform.ingestion.source import Position
from data_platform.lakehouse.connect import Lakehouse


@ON_SQLITE
def test_the_source_is_told_after_each_commit_what_it_moved_and_only_then(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module, "CHUNK_ROWS", 1)
    source = MemorySource([batch_of(numbered(1), {"a": "1"}), batch_of(numbered(2), {"b": "2"})])
    load(lake, source)
    assert source.acknowledged == [{"a": "1"}, {"b": "2"}]
    failing = MemorySource([batch_of(numbered(3), None)], fails=PlatformError("gone"))
    with pytest.raises(PlatformError, match="gone"):
        load(lake, failing)
    assert failing.acknowledged == []


class OddError(PlatformError):
    """An error of a source whose constructor takes what it likes."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} does not answer.")


class DeafSource(MemorySource):
    """A source that raises `error` when it is told of a commit."""

    error: BaseException

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[MemoryReading]:
        with super().reading(tables, after) as reading:
            yield DeafReading(self, reading.tables, reading.after)


class DeafReading(MemoryReading):
    def committed(self, position: Position) -> None:
        assert isinstance(self.source, DeafSource)
        raise self.source.error


def deaf(error: BaseException, *numbers: int, **options: Any) -> DeafSource:
    source = DeafSource([batch_of(numbered(*numbers), {"at": str(numbers)})], **options)
    source.error = error
    return source


@ON_SQLITE
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (PlatformError("No."), PlatformError, "the source did not acknowledge it: No. It may offer the same again"),
        (TransientError("Busy."), TransientError, "the source did not acknowledge it: Busy. It may"),
        (OddError("db", 5432), PlatformError, "the source did not acknowledge it: db:5432 does not answer. It may"),
        (
            ValueError("x"),
            PlatformError,
            "the source failed to acknowledge it: ValueError: x. .* the code of the source",
        ),
    ],
)
def test_what_was_committed_is_said_whatever_the_source_raises_when_it_is_told(
    lake: Lakehouse, error: Exception, raised: type[PlatformError], said: str
) -> None:
    with pytest.raises(PlatformError, match=f"What was read of shop/orders is committed, but {said}") as found:
        load(lake, deaf(error, 1))
    assert type(found.value) is raised
    assert found.value.__cause__ is error
    assert rows(lake) == ["1"]


@ON_SQLITE
def test_an_interruption_while_the_source_is_told_says_what_was_committed(lake: Lakehouse) -> None:
    with pytest.raises(KeyboardInterrupt) as found:
        load(lake, deaf(KeyboardInterrupt(), 1))
    assert found.value.__notes__ == [
        "What was read of shop/orders is committed, but the source has not acknowledged it."
    ]
    assert rows(lake) == ["1"]


@ON_SQLITE
@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [
        (PlatformError("The line went dead."), TransientError("Busy."), PlatformError),
        (TransientError("The line went dead."), TransientError("Busy."), TransientError),
    ],
)
def test_when_the_source_fails_and_cannot_be_told_of_the_commit_either_both_are_said(
    lake: Lakehouse, first: PlatformError, second: PlatformError, raised: type[PlatformError]
) -> None:
    with pytest.raises(PlatformError, match=r"The line went dead\. Besides: What was read .* Busy\.") as found:
        load(lake, deaf(second, 1, fails=first))
    assert type(found.value) is raised
    assert rows(lake) == ["1"]
