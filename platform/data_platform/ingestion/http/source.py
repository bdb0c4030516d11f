"""An HTTP API that answers in JSON, as a source. What `defs.yaml` may say of it is in `options`; sessions and
retries are in `client`, pages in `pages`, values in `rows`, cursors in `cursor`.

Pages become Arrow one by one and are gathered into batches, so memory holds a page and a batch, whatever the size of
the table. dlt and requests are imported when something is read: listing a project's tables should not wait for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.http import cursor as http_cursor
from data_platform.ingestion.http.options import HttpApi, HttpCursor, HttpOptions, HttpTable
from data_platform.ingestion.http.rows import digest, to_arrow
from data_platform.ingestion.source import (
    DIGEST,
    HINT,
    UNKNOWN,
    Batch,
    Overlap,
    Position,
    Probe,
    differences,
    probe_each,
    the_only,
    too_many_columns,
)

if TYPE_CHECKING:
    from dlt.sources.helpers.rest_client.client import RESTClient

    from data_platform.ingestion.http.client import Pace

PROBE_RETRIES, PROBE_PATIENCE = 2, timedelta(seconds=10)
"""How a probe meets an API that is busy: no sensor's tick may wait for minutes."""

BATCH_ROWS, BATCH_BYTES = 10_000, 32 * 2**20
"""The page that reaches either completes a batch."""


@dataclass(frozen=True)
class HttpSource:
    """The tables of one HTTP API. Implements `source.Source`.

    A table with a cursor is incremental; its position is `{"cursor": newest value}`, on the last batch, or on each
    if the cursor is `ordered`. A table without is read whole; its position is `{DIGEST: ...}` on the last batch,
    which stays the same while the rows do, in whatever order they come, and beside it what `probe` gave just before.
    """

    options: HttpOptions
    tables: Mapping[str, HttpTable]

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """What the `probe` of each table gives. Without one it is not known whether anything is new, since HTTP has no
        cheap probe of its own, but whether the API answers: its first page is asked for and not read. An API that is
        not back within seconds is asked again by the next probe."""
        return probe_each(tables, lambda table: self._probe(table, after.get(table, {})))

    def _probe(self, name: str, after: Position) -> Probe:
        table = self._table(name)
        from data_platform.ingestion.http.client import connect
        from data_platform.ingestion.http.pages import check_answers, probe

        impatient = self._api.model_copy(
            update={
                "max_retries": min(PROBE_RETRIES, self.options.max_retries),
                "patience": min(PROBE_PATIENCE, self.options.patience),
                "answer_timeout": min(PROBE_PATIENCE, self.options.answer_timeout),
            }
        )
        if table.probe is None:
            with _named(name), connect(impatient, self._pace, bodies=False) as client:
                check_answers(client, impatient, table)
            return UNKNOWN
        with _named(name), connect(impatient, self._pace) as client:
            value = probe(client, impatient, table.probe)
            if value is None:
                return Probe()
            if table.cursor is None:
                return Probe(differences({HINT: value}, after))
            progress = http_cursor.Progress(table.cursor, {})
            progress.see([value], 1, [])
            return Probe(differences(progress.position(), after))

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["PagesReading"]:
        """Read one table, page by page."""
        from data_platform.ingestion.http.client import connect

        name = the_only(tables)
        table = self._table(name)
        with ExitStack() as stack:
            with _named(name):
                client = stack.enter_context(connect(self._api, self._pace))
            yield PagesReading(client, self._api, name, table, after)

    @cached_property
    def _api(self) -> HttpApi:
        return HttpApi.of(self.options, self.tables.values())

    @cached_property
    def _pace(self) -> "Pace":
        from data_platform.ingestion.http.client import Pace

        return Pace(self.options.requests_per_second)

    def _table(self, table: str) -> HttpTable:
        if table not in self.tables:
            raise PlatformError(f"The source has no table {table!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[table]


class PagesReading:
    """The pages of one table, gathered into batches. When a page fails, those before it are given before the error is
    raised."""

    def __init__(self, client: "RESTClient", options: HttpApi, name: str, table: HttpTable, after: Position) -> None:
        self._client, self._options, self._name, self._table, self._after = client, options, name, table, after

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """Rows at the stored cursor and within its lag come again: see `cursor`."""
        cursor = self._table.cursor
        return None if cursor is None else http_cursor.overlap(cursor, self._after)

    def committed(self, position: Position) -> None:
        """Nothing: an API keeps no account of its readers."""

    def __iter__(self) -> Iterator[Batch]:
        with _named(self._name):
            yield from self._whole() if self._table.cursor is None else self._new(self._table.cursor)

    def _whole(self) -> Iterator[Batch]:
        from data_platform.ingestion.http.pages import pages, probe

        place = self._table.probe
        hint = None if place is None else probe(self._client, self._options, place)
        held = _Held(self._table.max_columns)
        content = 0
        for rows in pages(self._client, self._options, self._table, None):
            content += digest(rows)
            held.add(to_arrow(rows, self._table.max_columns))
            if held.is_full():
                yield Batch(self._name, held.take(), "whole", None)
        position = {DIGEST: f"{content % 2**256:064x}"} | ({} if hint is None else {HINT: hint})
        yield Batch(self._name, held.take(), "whole", position)

    def _new(self, cursor: HttpCursor) -> Iterator[Batch]:
        from data_platform.ingestion.http.pages import pages

        held = _Held(self._table.max_columns)
        progress = http_cursor.Progress(cursor, self._after)
        reached: Position | None = None
        try:
            for rows in pages(self._client, self._options, self._table, http_cursor.asked_from(cursor, self._after)):
                page = to_arrow(rows, self._table.max_columns)
                column = page[cursor.column] if cursor.column in page.column_names else None
                progress.see(None if column is None else column.to_pylist(), len(rows), page.column_names)
                # Within the lag there is no position to end at: the next load would begin where this one did.
                now = progress.position() if cursor.ordered else {}
                reached = now if differences(now, self._after) else None
                held.add(page)
                if held.is_full():
                    yield Batch(self._name, held.take(), "rows", reached)
        except PlatformError:
            if held.rows:
                yield Batch(self._name, held.take(), "rows", reached)
            raise
        if progress.rows:
            yield Batch(self._name, held.take(), "rows", progress.position())


class _Held:
    """Pages that wait for the batch to be full."""

    def __init__(self, max_columns: int) -> None:
        self._most, self._columns = max_columns, set[str]()
        self._pages: list[pa.Table] = []
        self._schema = pa.schema([])
        self.rows = self.bytes = 0

    def add(self, page: pa.Table) -> None:
        """Add a page. Raises PlatformError if the pages have more columns together than there may be."""
        self._columns.update(page.column_names)
        if len(self._columns) > self._most:
            raise too_many_columns("All pages so far together", self._columns, self._most)
        self._pages.append(page)
        self.rows += page.num_rows
        self.bytes += page.nbytes

    def is_full(self) -> bool:
        return self.rows >= BATCH_ROWS or self.bytes >= BATCH_BYTES

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
