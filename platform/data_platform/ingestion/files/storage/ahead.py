"""Small files of a distant storage fetched some at a time, before their turn comes: one after the other each would cost
a round trip, minutes for ten thousand. In which order files are read, and what becomes of one that fails, is in
`source`.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

from data_platform.ingestion.files.storage import Delivery, Distant, Storage

AT_ONCE = 8
"""Files that are fetched at once."""

WAITING = 2 * AT_ONCE
"""Files that are on their way, or there, before their turn."""

SMALL = 1 << 20
"""Bytes of a file that is held in memory until its turn comes; what is larger is fetched when it has come."""

Opened = Callable[[Delivery], AbstractContextManager[BinaryIO]]
"""Opens a file as `Storage.opened` does."""


@contextmanager
def opening(folder: Storage, deliveries: Sequence[Delivery], spool: Path | None) -> Iterator[Opened]:
    """How files are opened that are asked for in the order of `deliveries`, though not all of them need be."""
    if not isinstance(folder, Distant):
        yield partial(folder.opened, spool=spool)
        return
    places = {one.path: place for place, one in enumerate(deliveries)}
    fetched: dict[str, Future[bytes]] = {}
    reached = 0

    def content(delivery: Delivery) -> bytes:
        with folder.opened(delivery, spool) as file:
            return file.read()

    def opened(delivery: Delivery) -> AbstractContextManager[BinaryIO]:
        nonlocal reached
        place = places[delivery.path]
        for path in [path for path in fetched if places[path] < place]:  # nobody asked for it
            fetched.pop(path).cancel()
        reached = max(reached, place)
        for one in deliveries[reached : place + WAITING]:
            reached += 1
            if one.size <= SMALL:
                fetched[one.path] = threads.submit(content, one)
        mine = fetched.pop(delivery.path, None)
        return folder.opened(delivery, spool) if mine is None else nullcontext(io.BytesIO(mine.result()))

    threads = ThreadPoolExecutor(AT_ONCE, "files")
    try:
        yield opened
    finally:
        # Nobody waits for a store that stalls: what is under way ends by the source's time-outs.
        threads.shutdown(wait=False, cancel_futures=True)
