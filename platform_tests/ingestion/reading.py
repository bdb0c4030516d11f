"""Readings of one table of a source as tests make them, and probes of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from data_platform.ingestion.source import Batch, Overlap, Position, Source


def read_all(source: Source, table: str = "t", after: Position | None = None) -> list[Batch]:
    """All batches."""
    with source.reading([table], after or {}) as reading:
        return list(reading)


@contextmanager
def reading(source: Source, table: str = "t", after: Position | None = None) -> Iterator[Iterator[Batch]]:
    """The batches, one by one."""
    with source.reading([table], after or {}) as opened:
        yield iter(opened)


def overlap(source: Source, table: str, after: Position) -> Overlap | None:
    with source.reading([table], after) as opened:
        return opened.overlap(table)


def probe(source: Source, table: str = "t", after: Position | None = None) -> Mapping[str, str]:
    """The changes that a probe finds. Raises why the table cannot be probed."""
    found = source.probe([table], {table: after or {}})[table]
    if found.failure is not None:
        raise found.failure
    return found.changes
