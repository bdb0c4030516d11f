"""A table divided into ranges that are read at once by several sessions of one snapshot. What the ranges are of is the
database's own (`Session.parts`: where the rows lie) or a column's; the sessions are opened in `dialects`.

There are more ranges than sessions, and each session takes the next one that is left: ranges of unlike size keep none
of them waiting for long. All values are in some range, however the table changed since they were made: the first has no
lower bound, and the rows without a value; the last has no upper bound.
"""

import queue
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.sql.dialects import Column, Session
from data_platform.ingestion.sql.dialects.session import known, number_parts
from data_platform.ingestion.sql.options import Parallel

PARTS = 4
"""Ranges for each session."""

WAITING = 2
"""Batches that wait to be taken: the sessions wait with theirs."""


def divided(sessions: Sequence[Session], relation: str, parallel: Parallel, table: str) -> list[str]:
    """The conditions of the ranges, at least one. Raises PlatformError if there is nothing to divide the table by."""
    session, count = sessions[0], PARTS * len(sessions)
    parts = session.parts(relation, count) if parallel.column is None else None
    if parts is not None:
        return parts
    column = _column(session, session.columns(relation), relation, parallel, table)
    ends = (
        session.scalar(
            # As text, since a database may know larger numbers than fit into 64 bits.
            f"select {session.shown(replace(column, name='value'))} as value "
            f"from (select {end}({session.quote(column.name)}) as value from {relation}) as ends",
            pa.string(),
        )
        for end in ("min", "max")
    )
    low, high = ends
    if low is None or high is None:
        return number_parts(None, None, count, "", str)
    return number_parts(
        int(low), int(high), count, session.quote(column.name), lambda number: session.literal("integer", str(number))
    )


def _column(session: Session, columns: Sequence[Column], relation: str, parallel: Parallel, table: str) -> Column:
    numbers = [column for column in columns if column.kind == "integer" or pa.types.is_integer(column.type)]
    if parallel.column is None:
        for column in numbers:
            if column.primary_key:
                return column
        raise PlatformError(
            f"Table {table}: {relation} cannot be divided for `parallel` by where its rows lie, and has "
            f"no whole-number key. Name a column, such as {{readers: {parallel.readers}, column: id}}, or take it out. "
            + known("whole-number column", "id", [column.name for column in numbers])
        )
    for column in columns:
        if column.name == parallel.column:
            if column not in numbers:
                raise PlatformError(
                    f"Table {table}: `parallel` divides it by {column.name}, whose type {column.declared or '(none)'} "
                    f"promises no whole numbers in {session.product}. "
                    + known("whole-number column", column.name, [one.name for one in numbers])
                )
            return column
    raise PlatformError(
        f"Table {table}: `parallel` divides it by {parallel.column}, and {relation} has no such column. "
        + known("whole-number column", parallel.column, [column.name for column in numbers])
    )


def stream_at_once(
    sessions: Sequence[Session], statements: Sequence[str], schema: pa.Schema
) -> Generator[pa.RecordBatch, None, None]:
    """The rows of all statements, in no order: each session runs one, then the next that is left. In memory are one
    batch for each session, and WAITING. Raises what the first of them raises that fails."""
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    for statement in statements:
        left.put(statement)
    found: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(maxsize=WAITING)
    stopped = threading.Event()

    def run(session: Session) -> None:
        try:
            while not stopped.is_set():
                try:
                    statement = left.get_nowait()
                except queue.Empty:
                    break
                with closing(session.stream(statement, schema)) as batches:
                    for batch in batches:
                        found.put(batch)
                        if stopped.is_set():
                            break
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            found.put(error)
        else:
            found.put(None)

    threads = [
        threading.Thread(target=run, args=(session,), name=f"reader {number}", daemon=True)
        for number, session in enumerate(sessions, 1)
    ]
    for thread in threads:
        thread.start()
    try:
        ended = 0
        while ended < len(threads):
            one = found.get()
            if isinstance(one, BaseException):
                raise one
            if one is None:
                ended += 1
            else:
                yield one
    finally:
        stopped.set()
        while any(thread.is_alive() for thread in threads):
            try:
                found.get(timeout=0.05)  # whoever waits for room goes on, and sees that nobody wants any more
            except queue.Empty:
                continue
        for thread in threads:
            thread.join()
