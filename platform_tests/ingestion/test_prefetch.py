"""Reading ahead: how far, in which order, and what becomes of failures."""

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pyarrow as pa
import pytest

from data_platform.errors import PlatformError
from data_platform.ingestion import prefetch
from data_platform.ingestion.prefetch import prefetched
from data_platform.ingestion.source import Batch

WAIT = 60


class Reading:
    """Batches of one row each, numbered, that say how far they were read and whether they were closed."""

    def __init__(self, count: int, failure: BaseException | None = None) -> None:
        self.count, self.failure = count, failure
        self.given = threading.Semaphore(0)
        self.read = 0
        self.closed = False

    def batches(self) -> Iterator[Batch]:
        try:
            for number in range(self.count):
                self.read += 1
                self.given.release()
                yield Batch("t", pa.table({"number": [number]}), "rows", None)
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed = True


def numbers(batches: Iterator[Batch]) -> list[int]:
    return [batch.rows["number"][0].as_py() for batch in batches]


def test_batches_come_in_their_order_and_the_reading_is_closed() -> None:
    reading = Reading(50)
    assert numbers(prefetched(reading.batches())) == list(range(50))
    assert reading.closed


def test_the_source_is_read_on_while_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 3 * 8)
    reading = Reading(50)
    with closing(prefetched(reading.batches())) as ahead:
        next(ahead)
        # One that was taken, three that fill what may be read ahead, one that waits for room.
        assert all(reading.given.acquire(timeout=WAIT) for _ in range(5))
        assert reading.read == 5
        assert numbers(ahead) == list(range(1, 50))


def test_a_batch_larger_than_what_may_be_read_ahead_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 1)
    assert numbers(prefetched(Reading(5).batches())) == list(range(5))


def test_a_failure_is_raised_as_it_was_after_the_batches_before_it() -> None:
    reading = Reading(3, PlatformError("the source went away"))
    ahead = prefetched(reading.batches())
    assert numbers(islice(ahead, 3)) == [0, 1, 2]
    with pytest.raises(PlatformError, match="the source went away"):
        next(ahead)
    assert reading.closed


def test_a_source_that_fails_to_close_does_not_keep_its_consumer_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clinging:
        def __iter__(self) -> "Clinging":
            return self

        def __next__(self) -> Batch:
            raise StopIteration

        def close(self) -> None:
            raise OSError("it does not let go")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    assert numbers(prefetched(Clinging())) == []


def test_a_consumer_that_stops_early_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 8)
    reading = Reading(1000)
    with closing(prefetched(reading.batches())) as ahead:
        next(ahead)
    assert reading.closed
    assert reading.read < 10
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_no_batches_are_none() -> None:
    assert numbers(prefetched(Reading(0).batches())) == []
