"""Reading ahead: the source is read in a thread of its own while the rows before are written. Nothing here looks at
the rows."""

import threading
from collections import deque
from collections.abc import Generator, Iterator

from data_platform.ingestion.source import Batch

AHEAD_BYTES = 96 * 2**20
"""How much may be read ahead, about; at least one batch. As long as writing a chunk takes, the source is read on."""


class _Ahead:
    """Batches between the thread that reads and the one that writes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.batches: deque[Batch] = deque()
        self.bytes = 0
        self.ended = self.stopped = False
        self.failure: BaseException | None = None

    def put(self, batch: Batch) -> bool:
        """Wait for room and add a batch; False once nobody wants any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or not self.batches or self.bytes < AHEAD_BYTES)
            self.batches.append(batch)
            self.bytes += batch.rows.nbytes + batch.rejects.nbytes
            self.changed.notify_all()
            return not self.stopped

    def end(self, failure: BaseException | None) -> None:
        """Nothing more will come."""
        with self.changed:
            self.ended, self.failure = True, failure
            self.changed.notify_all()

    def take(self) -> Batch | None:
        """Wait for the next batch; None after the last. Raises what the source raised, after the batches before."""
        with self.changed:
            self.changed.wait_for(lambda: self.batches or self.ended)
            if not self.batches:
                if self.failure is not None:
                    raise self.failure
                return None
            batch = self.batches.popleft()
            self.bytes -= batch.rows.nbytes + batch.rejects.nbytes
            self.changed.notify_all()
            return batch

    def stop(self) -> None:
        """Nobody wants any more."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def prefetched(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Read batches ahead in a thread, so that reading and writing overlap. Closing it closes `batches`."""
    ahead = _Ahead()

    def run() -> None:
        failure: BaseException | None = None
        try:
            for batch in batches:
                if not ahead.put(batch):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            failure = error
        finally:
            try:
                close = getattr(batches, "close", None)
                if close is not None:
                    close()
            finally:
                ahead.end(failure)

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while (batch := ahead.take()) is not None:
            yield batch
    finally:
        ahead.stop()
        thread.join()
