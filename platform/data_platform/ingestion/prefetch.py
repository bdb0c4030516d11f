"""Reading ahead: the source is read in a thread of its own while the rows before are written. Nothing here looks at
the rows."""

import queue
import threading
from collections.abc import Generator, Iterator

from data_platform.ingestion.source import Batch


def prefetched(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Read one batch ahead in a thread, so that reading and writing overlap. Closing it closes `batches`."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put(error)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
