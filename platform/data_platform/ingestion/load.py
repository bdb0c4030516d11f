"""Load: lands what a source gives in `raw_<source>.<table>`, with the position it came from, in one commit.
Reading is the sources' work, and nothing is interpreted here: private columns are masked, types are kept.

Rows are written to unseen files as they come, and committed at positions: a long first load commits every so often
and resumes where it died; a full refresh or a file commits as a whole or not at all.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within, mask_key
from data_platform.contracts.quarantine import (
    ensure_quarantine,
    has_open_rejects,
    rejects_frame,
    supersede_rejects,
    write_quarantine,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.drift import UNKNOWN, Columns
from data_platform.ingestion.drift import LoadRefusedError as LoadRefusedError
from data_platform.ingestion.prefetch import prefetched
from data_platform.ingestion.source import Batch, Overlap, Source, TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.tables import (
    LOAD_COLUMNS,
    column_types,
    duckdb_types,
    ensure_table,
    quarantine_table,
    raw_table,
)
from data_platform.lakehouse.transaction import DataFile, commit, discard, discarded_on_failure, register, write_file

CHUNK_ROWS = 1_000_000
CHUNK_BYTES = 128 * 2**20
"""Rows and bytes that are gathered before they are written and, at a position, committed."""


@dataclass(frozen=True)
class LoadResult:
    """What a load did. `rows_read` = landed + repeated + quarantined. `loads` are the ids of its commits."""

    source: str
    table: str
    loads: tuple[int, ...] = ()
    rows_read: int = 0
    rows_landed: int = 0
    rows_repeated: int = 0
    rows_quarantined: int = 0
    bytes: int = 0
    position: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, list[str]] = field(default_factory=dict)


def load_table(
    lake: Lakehouse,
    source_name: str,
    source: Source,
    name: str,
    table: TableOptions,
    *,
    run_id: str,
    full_refresh: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LoadResult:
    """Read what is new in a table and land it; return what was done.

    `full_refresh` reads everything again, whatever the position, and lands it as the whole table; it also lifts the
    truncation guard. `progress` is told the rows read so far. Raises LoadRefusedError, ConcurrentStepError, or what
    the source raises; what was committed before that stays, and the next load goes on from there.
    """
    head = ledger.head(lake, "raw", source_name, name)
    after: Mapping[str, str] = {} if full_refresh else head.position
    snapshot = source.full_refresh(name)
    landing = _Landing(lake, source_name, name, table, run_id, head, snapshot or full_refresh, forced=full_refresh)
    overlap = None if full_refresh else source.overlap(name, after)
    if overlap is not None:
        landing.remember_landed(overlap)
    failure: PlatformError | None = None
    try:
        with closing(prefetched(source.read(name, after))) as batches:
            while failure is None:
                try:
                    batch = next(batches, None)
                except PlatformError as error:
                    # What was read up to the last position is whole and lands; the rest is dropped.
                    failure = error
                    continue
                if batch is None:
                    break
                landing.take(batch)
                if progress is not None:
                    progress(landing.rows_read)
                if batch.position is not None and not full_refresh and (snapshot or landing.is_full()):
                    landing.commit()
        if failure is None or not full_refresh:
            landing.commit()
    finally:
        landing.drop()
    if failure is not None:
        raise failure
    return landing.result()


@dataclass
class _Rows:
    """Rows that were read: those in memory, those in files that nobody sees yet, and records that could not be read."""

    tables: list[pa.Table] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    rejects: list[pa.Table] = field(default_factory=list)
    count: int = 0

    def absorb(self, later: "_Rows") -> None:
        """Add what was read afterwards."""
        self.tables += later.tables
        self.files += later.files
        self.rejects += later.rejects
        self.count += later.count

    @property
    def rejected(self) -> int:
        return sum(table.num_rows for table in self.rejects)

    def fills_memory(self) -> bool:
        size = sum(table.nbytes for table in self.tables)
        return bool(size >= CHUNK_BYTES or sum(table.num_rows for table in self.tables) >= CHUNK_ROWS)


class _Landing:
    """One load under way: what was read and not yet committed, split at the last position that was reached."""

    def __init__(
        self,
        lake: Lakehouse,
        source: str,
        name: str,
        table: TableOptions,
        run_id: str,
        head: ledger.Head,
        snapshot: bool,
        *,
        forced: bool,
    ) -> None:
        self.lake, self.source, self.name, self.table = lake, source, name, table
        self.run_id, self.head, self.snapshot, self.forced = run_id, head, snapshot, forced
        self.raw = raw_table(source, name)
        self.masks = [*table.mask, *table.mask_within]
        self.key = mask_key() if self.masks else None
        self.started = datetime.now(UTC)
        self.rows_read = 0
        self.overlapping = False
        self.results: list[LoadResult] = []
        self._begin(column_types(lake.connection, self.raw))

    def _begin(self, stored: dict[str, str]) -> None:
        """Begin what the next commit will land."""
        self.columns = Columns(f"{self.source}/{self.name}", self.table.drift, stored)
        self.ready, self.tail = _Rows(), _Rows()
        self.position: dict[str, str] | None = None
        self.row = 0

    @property
    def load_id(self) -> int:
        return self.head.number + 1

    def is_full(self) -> bool:
        """Whether what is ready is worth a commit of its own."""
        return self.ready.count >= CHUNK_ROWS or self.ready.fills_memory()

    def remember_landed(self, overlap: Overlap) -> None:
        """Note what landed already in the stretch that is delivered again, as hashes of whole rows."""
        stored = self.columns.settled
        if not stored:
            return
        self.overlapping = True
        since = quote(overlap.column)
        self.lake.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE landed AS SELECT DISTINCT hash({quote_all(stored)}) AS row_hash "
            f"FROM {self.raw.sql} WHERE {since} IS NULL OR {since} >= ?",
            [overlap.since],
        )

    def take(self, batch: Batch) -> None:
        """Add a batch; what is too much for memory goes to a file that nobody sees yet."""
        rows = batch.rows
        self.rows_read += rows.num_rows + batch.rejects.num_rows
        if rows.num_columns:
            self.tail.tables.append(self._prepared(rows))
            self.tail.count += rows.num_rows
        if batch.rejects.num_rows:
            self.tail.rejects.append(batch.rejects)
        if batch.position is not None:
            self.ready.absorb(self.tail)
            self.tail = _Rows()
            self.position = self.position or {}
            self.position.update(batch.position)
        if batch.position is None or self.forced:
            for part in (self.ready, self.tail):
                if part.fills_memory():
                    self._spill(part)

    def _prepared(self, rows: pa.Table) -> pa.Table:
        """The rows with private columns masked, drift settled, and numbered within the load."""
        rows = self.columns.named(rows)
        if self.key is not None:
            self.columns.require_masked(rows, self.masks)
            rows = self._masked(rows, self.key)
        rows = self.columns.admit(rows)
        numbers = pl.int_range(self.row, self.row + rows.num_rows, dtype=pl.Int64, eager=True).to_arrow()
        self.row += rows.num_rows
        return rows.append_column("_row", numbers)

    def _masked(self, rows: pa.Table, key: MaskKey) -> pa.Table:
        frame = pl.DataFrame(pl.from_arrow(rows.select([c for c in rows.column_names if c in self.masks])))
        masked = mask_columns(frame, [c for c in self.table.mask if c in frame.columns], key)
        masked = mask_emails_within(masked, [c for c in self.table.mask_within if c in frame.columns], key)
        for column in masked.columns:
            index = rows.column_names.index(column)
            rows = rows.set_column(index, column, masked[column].to_arrow(compat_level=pl.CompatLevel.oldest()))
        return rows

    def _spill(self, part: _Rows) -> None:
        """Write the rows in memory to unseen files, one for each run of batches with the same columns."""
        tables, part.tables = part.tables, []
        for _, group in groupby(tables, key=lambda table: str(table.schema)):
            file = self._write(pa.concat_tables(group))
            part.files += [file] if file is not None else []

    def _write(self, rows: pa.Table) -> DataFile | None:
        schema = rows.drop_columns("_row").schema
        unknown = {field.name: UNKNOWN for field in schema if pa.types.is_null(field.type)}
        types = self.columns.settle({**duckdb_types(self.lake.connection, schema), **unknown})
        columns = [f"CAST({quote(column)} AS {kind}) AS {quote(column)}" for column, kind in types.items()]
        query = (
            f"SELECT {', '.join(columns)}, {self.load_id}::BIGINT AS _load_id, "
            f"TIMESTAMPTZ '{self.started.isoformat()}' AS _loaded_at, _row FROM incoming"
        )
        # A new column gives rows that landed before a new content: then none of them is a repetition.
        if self.overlapping and not self.columns.drift.get("added"):
            values = ", ".join(
                f"CAST({quote(column) if column in types else 'NULL'} AS {kind})"
                for column, kind in self.columns.before.items()
                if column not in LOAD_COLUMNS
            )
            query += f" WHERE hash({values}) NOT IN (SELECT row_hash FROM landed)"
        return write_file(self.lake, self.raw, iter(rows.to_batches()), rows.schema, query)

    def commit(self) -> None:
        """Land what is ready, its position and its figures in one transaction; nothing to do if nothing is new.

        Raises LoadRefusedError, ConcurrentStepError or CommitError; what is not committed is then dropped.
        """
        if self.position is None:
            return
        unchanged = self.head.position.items() >= self.position.items() and not self.forced
        if not (unchanged and self.snapshot):
            self._spill(self.ready)
        if unchanged and (self.snapshot or not (self.ready.files or self.ready.rejects)):
            # A refresh of what is there already, or rows of which each was a repetition.
            self.drop()
            self._begin(self.columns.before)
            return
        ready, self.ready = self.ready, _Rows()
        files = list(ready.files)
        with discarded_on_failure(self.lake, files):
            reason = self._refusal(ready.count, ready.rejected)
            row = self._figures(ready, reason)
            quarantined = quarantine_table(self.source, self.name)
            entries = [rejects_frame(r, self.load_id, withhold=bool(self.masks)) for r in ready.rejects]
            rejects = write_quarantine(self.lake, quarantined, entries, self.run_id, row.ended_at)
            files += [rejects] if rejects is not None else []
            position = {} if reason else self.position
            types = self.columns.settled
            replaces_rejects = self.snapshot and not reason and has_open_rejects(self.lake.connection, quarantined)

            def work(connection: duckdb.DuckDBPyConnection) -> ledger.Head:
                moved = ledger.advance(connection, self.head, position, row.ended_at)
                if not reason and types and (ready.files or not self.columns.before):
                    ensure_table(connection, self.raw, {**types, **LOAD_COLUMNS})
                    register(connection, self.raw, ready.files)
                if replaces_rejects:
                    supersede_rejects(connection, quarantined, self.load_id, row.ended_at)
                if rejects is not None:
                    ensure_quarantine(connection, quarantined)
                    register(connection, quarantined, [rejects])
                ledger.record_load(connection, row)
                return moved

            self.head = commit(self.lake, work)
        if reason:
            for file in ready.files:
                discard(self.lake, file.path)
            raise LoadRefusedError(f"{self.source}/{self.name}: {reason}")
        self.results.append(
            LoadResult(
                self.source,
                self.name,
                (self.head.number,),
                row.rows_read,
                row.rows_landed,
                row.rows_repeated,
                row.rows_quarantined,
                row.bytes,
                self.head.position,
                row.drift,
            )
        )
        self.drop()
        self.started = row.ended_at  # what follows is the next load's time
        self._begin({**self.columns.before, **types, **LOAD_COLUMNS} if types else {})

    def _figures(self, ready: _Rows, reason: str | None) -> ledger.Load:
        """The row of the ledger that tells of this commit."""
        landed = sum(file.rows for file in ready.files)
        return ledger.Load(
            source=self.source,
            table=self.name,
            load_id=self.load_id,
            run_id=self.run_id,
            kind="whole" if self.snapshot else "rows",
            status="refused" if reason else "landed",
            started_at=self.started,
            ended_at=datetime.now(UTC),
            rows_read=ready.count + ready.rejected,
            rows_landed=0 if reason else landed,
            rows_repeated=0 if reason else ready.count - landed,
            rows_quarantined=ready.rejected,
            bytes=0 if reason else sum(file.bytes for file in ready.files),
            position=self.position or {},
            drift=self.columns.found(),
            reason=reason,
        )

    def _refusal(self, rows: int, rejected: int) -> str | None:
        if rejected and rejected > self.table.refuse_above * (rows + rejected):
            return (
                f"{rejected:,} of {rows + rejected:,} records could not be read, more than the "
                f"{self.table.refuse_above:.0%} that `refuse_above` allows. Nothing was loaded; the "
                "records are in quarantine with their reasons "
                f"(`dp quarantine show {self.source}/{self.name}`)."
            )
        if not self.snapshot or self.forced:
            return None
        before = ledger.last_whole_rows(self.lake, self.source, self.name)
        if before is not None and rows < self.table.shrink_limit * before:
            return (
                f"the full refresh holds {rows:,} rows where the last one held {before:,}: less than the "
                f"{self.table.shrink_limit:.0%} that `shrink_limit` asks for. Nothing was loaded. If the table really "
                "shrank, load it with --full-refresh."
            )
        return None

    def drop(self) -> None:
        """Remove the files of rows that were not committed."""
        for file in self.ready.files + self.tail.files:
            discard(self.lake, file.path)

    def result(self) -> LoadResult:
        """The figures of all commits together."""
        done = self.results
        drift: dict[str, list[str]] = {}
        for one in done:
            drift.update(one.drift)
        return LoadResult(
            self.source,
            self.name,
            tuple(load for one in done for load in one.loads),
            sum(one.rows_read for one in done),
            sum(one.rows_landed for one in done),
            sum(one.rows_repeated for one in done),
            sum(one.rows_quarantined for one in done),
            sum(one.bytes for one in done),
            self.head.position,
            drift,
        )
