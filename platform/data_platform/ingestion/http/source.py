"""An HTTP API that answers in JSON, as a source. What may be said of it in YAML is in `options`; sessions and
retries are in `client`, pages in `pages`, values in `rows`, cursors in `cursor`.

Pages become Arrow one by one and are gathered into batches, so memory holds a page and a batch, whatever the size of
the table. dlt and requests are imported when something is read: listing a project's tables should not wait for them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.http import cursor as http_cursor
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.http.rows import digest, to_arrow
from data_platform.ingestion.source import Batch, Overlap, Position

if TYPE_CHECKING:
    from data_platform.ingestion.http.client import Pace

LOOK_RETRIES, LOOK_PATIENCE = 2, timedelta(seconds=10)
"""How a look meets an API that is busy: no sensor's tick may wait for minutes."""

BATCH_ROWS, BATCH_BYTES = 10_000, 32 * 2**20
"""The page that reaches either completes a batch."""

DIGEST, LOOK = "digest", "look"
"""Position of a full refresh: what the rows were, and what the look said just before they were read."""


@dataclass(frozen=True)
class HttpSource:
    """The tables of one HTTP API. Implements `source.Source`.

    A table with a cursor is incremental; its position is `{"cursor": newest value}`, on the last batch, or on each
    if the cursor is `ordered`. A table without is refreshed whole; its position is `{"digest": ...}` on the last
    batch, which stays the same while the rows do, in whatever order they come.
    """

    options: HttpOptions
    tables: Mapping[str, HttpTable]

    def full_refresh(self, table: str) -> bool:
        return self._table(table).cursor is None

    def position(self, table: str) -> Position | None:
        """What the table's `look` says; None without one, since HTTP has no cheap look of its own. An API that is not
        back within seconds is asked again by the next look."""
        told = self._table(table)
        if told.look is None:
            return None
        from data_platform.ingestion.http.client import connect
        from data_platform.ingestion.http.pages import look

        hasty = self.options.model_copy(
            update={
                "max_retries": min(LOOK_RETRIES, self.options.max_retries),
                "patience": min(LOOK_PATIENCE, self.options.patience),
            }
        )
        with _named(table), connect(hasty, self._pace) as client:
            value = look(client, hasty, told.look)
            if value is None:
                return {}
            if told.cursor is None:
                return {LOOK: value}
            progress = http_cursor.Progress(told.cursor, {})
            progress.see([value], 1, [])
            return progress.position()

    def overlap(self, table: str, after: Position) -> Overlap | None:
        """Rows at the stored cursor and within its lag come again: see `cursor`."""
        cursor = self._table(table).cursor
        return None if cursor is None else http_cursor.overlap(cursor, after)

    def read(self, table: str, after: Position) -> Iterator[Batch]:
        """Yield batches of whole pages. When a page fails, those before it are given before the error is raised."""
        from data_platform.ingestion.http.client import connect
        from data_platform.ingestion.http.pages import look, pages

        told = self._table(table)
        cursor = told.cursor
        held = _Held()
        with _named(table), connect(self.options, self._pace) as client:
            if cursor is None:
                progress, asked = None, None
                looked = None if told.look is None else look(client, self.options, told.look)
            else:
                progress, asked = http_cursor.Progress(cursor, after), http_cursor.asked_from(cursor, after)
                looked = None
            reached: Position | None = None
            content = 0
            try:
                for rows in pages(client, self.options, told, asked):
                    page = to_arrow(rows)
                    if progress is None:
                        content += digest(rows)
                    else:
                        column = page[progress.cursor.column] if progress.cursor.column in page.column_names else None
                        progress.see(None if column is None else column.to_pylist(), len(rows), page.column_names)
                        reached = progress.position() if progress.cursor.ordered else None
                    held.add(page)
                    if held.rows >= BATCH_ROWS or held.bytes >= BATCH_BYTES:
                        yield Batch(held.take(), reached)
            except PlatformError:
                if held.rows:
                    yield Batch(held.take(), reached)
                raise
            if progress is None:
                position = {DIGEST: f"{content % 2**256:064x}"} | ({} if looked is None else {LOOK: looked})
                yield Batch(held.take(), position)
            elif progress.rows:
                yield Batch(held.take(), progress.position())

    @cached_property
    def _pace(self) -> "Pace":
        from data_platform.ingestion.http.client import Pace

        return Pace(self.options.requests_per_second)

    def _table(self, table: str) -> HttpTable:
        if table not in self.tables:
            raise PlatformError(f"The source has no table {table!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[table]


class _Held:
    """Pages that wait for the batch to be full."""

    def __init__(self) -> None:
        self._pages: list[pa.Table] = []
        self._schema = pa.schema([])
        self.rows = self.bytes = 0

    def add(self, page: pa.Table) -> None:
        self._pages.append(page)
        self.rows += page.num_rows
        self.bytes += page.nbytes

    def take(self) -> pa.Table:
        """All that waited, with a null where a page lacks a column; without rows, in the shape of the batch before."""
        pages, self._pages, self.rows, self.bytes = self._pages, [], 0, 0
        if not any(page.num_rows for page in pages):
            return self._schema.empty_table()
        batch = pa.concat_tables([page for page in pages if page.num_rows], promote_options="default").combine_chunks()
        self._schema = batch.schema
        return batch


@contextmanager
def _named(table: str) -> Iterator[None]:
    try:
        yield
    except PlatformError as error:
        raise PlatformError(f"Table {table!r}: {error}") from None
