"""Load: lands what a source gives in `raw_<source>.<table>`, with the position it came from, in one commit.
Reading is the sources' work, and nothing is interpreted here: private columns are masked, types are kept.

Rows are written to unseen files as they come, and committed at positions: a long first load commits every so often
and resumes where it died; a full refresh or a file commits as a whole or not at all.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.contracts.quarantine import ensure_quarantine, quarantine_table, rejects_frame, write_quarantine
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Batch, Overlap, Source, Table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.transaction import (
    DataFile,
    columns_of,
    commit,
    discard,
    duckdb_types,
    ensure_table,
    register,
    write_file,
)
from data_platform.lakehouse.transaction import Table as LakeTable
from data_platform.staging.masking import mask_columns, mask_emails_within, mask_key

CHUNK_ROWS = 1_000_000
CHUNK_BYTES = 128 * 2**20
"""Rows and bytes that are gathered before they are written and, at a position, committed."""

LINEAGE = {"_load_id": "BIGINT", "_loaded_at": "TIMESTAMP WITH TIME ZONE", "_row": "BIGINT"}
"""What every raw row carries besides what the source said: the load, its time, and the row's number within it."""

WIDER = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


class LoadRefusedError(PlatformError):
    """The load was refused as a whole: the table is as it was, and what was refused is in quarantine."""


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


def raw_table(source: str, table: str) -> LakeTable:
    """The raw table of a source's table."""
    return LakeTable(f"raw_{source}", table)


def load_table(
    lake: Lakehouse,
    source_name: str,
    source: Source,
    name: str,
    table: Table,
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
    try:
        with closing(prefetched(source.read(name, after))) as batches:
            for batch in batches:
                landing.take(batch)
                if progress is not None:
                    progress(landing.rows_read)
                if batch.position is not None and not full_refresh and (snapshot or landing.is_full()):
                    landing.commit()
    except PlatformError:
        # What was read up to the last position is whole and lands; the rest is dropped and the error goes on.
        if not full_refresh:
            landing.commit()
        landing.drop_tail()
        raise
    except BaseException:
        landing.drop_all()
        raise
    landing.commit()
    landing.drop_tail()
    return landing.result()


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


class _Landing:
    """One load under way: what was read and not yet committed, split at the last position that was reached."""

    def __init__(
        self,
        lake: Lakehouse,
        source: str,
        name: str,
        table: Table,
        run_id: str,
        head: ledger.Head,
        snapshot: bool,
        *,
        forced: bool,
    ) -> None:
        self.lake, self.source, self.name, self.table = lake, source, name, table
        self.run_id, self.head, self.snapshot, self.forced = run_id, head, snapshot, forced
        self.raw = raw_table(source, name)
        self.key = mask_key() if table.mask or table.mask_within else None
        self.started = datetime.now(UTC)
        self.rows_read = 0
        self.overlapping = False
        self.drift: dict[str, list[str]] = {}
        self.results: list[LoadResult] = []
        self._new_unit()

    def _new_unit(self) -> None:
        self.columns = columns_of(self.lake.connection, self.raw)
        self.exists = bool(self.columns)
        self.seen: set[str] = set()
        self.ready: list[pa.Table] = []
        self.tail: list[pa.Table] = []
        self.ready_files: list[DataFile] = []
        self.tail_files: list[DataFile] = []
        self.rejects: list[pa.Table] = []
        self.tail_rejects: list[pa.Table] = []
        self.position: dict[str, str] | None = None
        self.ready_rows = self.tail_rows = 0
        self.row = 0

    @property
    def load_id(self) -> int:
        return self.head.number + 1

    def is_full(self) -> bool:
        return self.ready_rows >= CHUNK_ROWS or sum(t.nbytes for t in self.ready) >= CHUNK_BYTES

    def remember_landed(self, overlap: Overlap) -> None:
        """Note what landed already in the stretch that is delivered again, as hashes of whole rows."""
        if not self.columns:
            return
        self.overlapping = True
        columns = [column for column in self.columns if column not in LINEAGE]
        since = quote(overlap.column)
        self.lake.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE landed AS SELECT DISTINCT hash({quote_all(columns)}) AS row_hash "
            f"FROM {self.raw.sql} WHERE {since} IS NULL OR {since} >= ?",
            [overlap.since],
        )

    def take(self, batch: Batch) -> None:
        """Add a batch; what is too much for memory goes to a file that nobody sees yet."""
        rows = batch.rows
        self.rows_read += rows.num_rows + batch.rejects.num_rows
        if rows.num_columns:
            self.tail.append(self._prepared(rows))
            self.tail_rows += rows.num_rows
        if batch.rejects.num_rows:
            self.tail_rejects.append(batch.rejects)
        if batch.position is not None:
            self.ready += self.tail
            self.ready_files += self.tail_files
            self.rejects += self.tail_rejects
            self.ready_rows += self.tail_rows
            self.position = {**(self.position or {}), **batch.position}
            self.tail, self.tail_files, self.tail_rejects, self.tail_rows = [], [], [], 0
        elif sum(t.nbytes for t in self.tail) >= CHUNK_BYTES or sum(t.num_rows for t in self.tail) >= CHUNK_ROWS:
            self.tail_files += self._write(self.tail)
            self.tail = []

    def _prepared(self, rows: pa.Table) -> pa.Table:
        """The rows with private columns masked, drift settled, and numbered within the load."""
        clash = [column for column in rows.column_names if column in LINEAGE]
        if clash:
            raise PlatformError(
                f"{self.source}/{self.name} has a column {clash[0]}, a name that the platform uses itself. "
                "Leave it out with `columns`, or rename it in a view of the source."
            )
        if self.key is not None:
            rows = self._masked(rows)
        rows = self._drifted(rows)
        numbers = pl.int_range(self.row, self.row + rows.num_rows, dtype=pl.Int64, eager=True).to_arrow()
        self.row += rows.num_rows
        return rows.append_column("_row", numbers)

    def _masked(self, rows: pa.Table) -> pa.Table:
        assert self.key is not None  # noqa: S101 - only called with a key
        wanted = [*self.table.mask, *self.table.mask_within]
        absent = [column for column in wanted if column not in rows.column_names and column not in self.columns]
        if absent:
            raise PlatformError(
                f"{self.source}/{self.name} is to mask {', '.join(absent)}, which the source does not give. "
                f"It gives: {', '.join(rows.column_names)}. Nothing was loaded: correct `mask` in defs.yaml."
            )
        frame = pl.DataFrame(pl.from_arrow(rows.select([c for c in rows.column_names if c in wanted])))
        masked = mask_columns(frame, [c for c in self.table.mask if c in frame.columns], self.key)
        masked = mask_emails_within(masked, [c for c in self.table.mask_within if c in frame.columns], self.key)
        for column in masked.columns:
            index = rows.column_names.index(column)
            rows = rows.set_column(index, column, masked[column].to_arrow(compat_level=pl.CompatLevel.oldest()))
        return rows

    def _drifted(self, rows: pa.Table) -> pa.Table:
        """Settle columns that the raw table does not have, by the table's policy, and note those that are gone."""
        self.seen |= set(rows.column_names)
        if not self.exists:
            return rows
        added = [column for column in rows.column_names if column not in self.columns]
        if added and self.table.drift == "refuse":
            raise LoadRefusedError(
                f"{self.source}/{self.name} has new column{'s' * (len(added) > 1)} {', '.join(added)}, and its drift "
                "policy is to refuse. Nothing was loaded. Add them to the contract and set `drift: evolve`, or set "
                "`drift: ignore`."
            )
        if added:
            policy = "ignored" if self.table.drift == "ignore" else "added"
            self.drift[policy] = sorted({*self.drift.get(policy, []), *added})
        return rows.drop_columns(added) if added and self.table.drift == "ignore" else rows

    def _write(self, tables: list[pa.Table]) -> list[DataFile]:
        """Write gathered rows to unseen files, one for each run of batches with the same columns."""
        files, group = [], list[pa.Table]()
        for table in [*tables, None]:
            if group and (table is None or table.schema != group[0].schema):
                file = self._write_group(pa.concat_tables(group))
                files += [file] if file is not None else []
                group = []
            if table is not None:
                group.append(table)
        return files

    def _write_group(self, rows: pa.Table) -> DataFile | None:
        types = self._settled_types(duckdb_types(self.lake.connection, rows.schema))
        columns = [f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in types.items() if c != "_row"]
        query = (
            f"SELECT {', '.join(columns)}, {self.load_id}::BIGINT AS _load_id, "
            f"TIMESTAMPTZ '{self.started.isoformat()}' AS _loaded_at, _row FROM incoming"
        )
        # A new column gives rows that landed before a new content: then none of them is a repetition.
        if self.overlapping and not self.drift.get("added"):
            compared = [column for column in self.columns if column not in LINEAGE]
            values = ", ".join(
                f"CAST({quote(c)} AS {self.columns[c]})" if c in types else f"NULL::{self.columns[c]}" for c in compared
            )
            query += f" WHERE hash({values}) NOT IN (SELECT row_hash FROM landed)"
        file = write_file(self.lake, self.raw, iter(rows.to_batches()), rows.schema, query)
        self.columns |= {column: kind for column, kind in types.items() if column != "_row"}
        return file

    def _settled_types(self, incoming: dict[str, str]) -> dict[str, str]:
        """The type that each column is stored in: the raw table's, unless the source's has become wider."""
        settled = {}
        for column, kind in incoming.items():
            stored = self.columns.get(column, kind)
            if column == "_row" or stored == kind or fits(kind, stored):
                settled[column] = stored
            elif kind in WIDER and stored in WIDER:
                settled[column] = kind
                self.drift["widened"] = sorted({*self.drift.get("widened", []), column})
            else:
                raise LoadRefusedError(
                    f"{self.source}/{self.name}: column {column} was {stored} and is now {kind}. Nothing was loaded. "
                    f"Cast it back in the source, or drop {self.raw} and load it afresh with --full-refresh."
                )
        return settled

    def commit(self) -> None:
        """Land what is ready, its position and its figures in one transaction; nothing to do without a position."""
        if self.position is None:
            return
        if self.snapshot and not self.forced and dict(self.head.position) == {**self.head.position, **self.position}:
            self._discard(self.ready_files)
            self._keep_tail()
            return
        files = self.ready_files + self._write(self.ready)
        at = datetime.now(UTC)
        landed = sum(file.rows for file in files)
        rejected = sum(r.num_rows for r in self.rejects)
        reason = self._refusal(self.ready_rows, rejected)
        quarantined = quarantine_table(self.source, self.name)
        withhold = bool(self.table.mask or self.table.mask_within)
        entries = [rejects_frame(r, self.load_id, withhold=withhold) for r in self.rejects]
        quarantine_file = write_quarantine(self.lake, quarantined, entries, self.run_id, at)
        types = {**self.columns, **LINEAGE}
        row = {
            "source": self.source,
            "table_name": self.name,
            "load_id": self.load_id,
            "run_id": self.run_id,
            "kind": "snapshot" if self.snapshot else "additions",
            "status": "refused" if reason else "landed",
            "started_at": self.started,
            "ended_at": at,
            "rows_read": self.ready_rows + rejected,
            "rows_landed": 0 if reason else landed,
            "rows_repeated": 0 if reason else self.ready_rows - landed,
            "rows_quarantined": rejected,
            "bytes": 0 if reason else sum(file.bytes for file in files),
            "position": dict(self.position),
            "drift": self._full_drift(),
            "reason": reason,
        }

        def work(connection: duckdb.DuckDBPyConnection) -> ledger.Head:
            moved = ledger.advance(connection, self.head, {} if reason else self.position or {}, at)
            if not reason and (files or not columns_of(connection, self.raw)):
                self._widen(connection)
                if len(types) > len(LINEAGE):
                    ensure_table(connection, self.raw, types)
                register(connection, self.raw, files)
            if quarantine_file is not None:
                ensure_quarantine(connection, quarantined)
                register(connection, quarantined, [quarantine_file])
            ledger.record(connection, "loads", row)
            return moved

        try:
            self.head = commit(self.lake, work)
        except BaseException:
            self._discard(files + ([quarantine_file] if quarantine_file is not None else []))
            raise
        if reason:
            self._discard(files)
            raise LoadRefusedError(f"{self.source}/{self.name}: {reason}")
        self.results.append(
            LoadResult(
                self.source,
                self.name,
                (self.head.number,),
                row["rows_read"],
                row["rows_landed"],
                row["rows_repeated"],
                rejected,
                row["bytes"],
                self.head.position,
                row["drift"],
            )
        )
        self._keep_tail()

    def _keep_tail(self) -> None:
        """Begin the next unit with what was read after the committed position."""
        if self.tail_files or self.tail:
            raise AssertionError("a commit happens at a position, and at a position there is no tail")
        self._new_unit()

    def _full_drift(self) -> dict[str, list[str]]:
        gone = [c for c in self.columns if c not in LINEAGE and c not in self.seen and self.seen]
        return {**self.drift, **({"lost": sorted(gone)} if gone else {})}

    def _widen(self, connection: duckdb.DuckDBPyConnection) -> None:
        existing = columns_of(connection, self.raw)
        for column in self.drift.get("widened", []):
            if existing.get(column) in WIDER and existing[column] != self.columns[column]:
                connection.execute(
                    f"ALTER TABLE {self.raw.sql} ALTER COLUMN {quote(column)} SET DATA TYPE {self.columns[column]}"
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
        before = self.lake.connection.execute(
            f"SELECT rows_landed FROM {ledger.name('loads')} WHERE source = ? AND table_name = ? AND status = 'landed' "
            "AND kind = 'snapshot' ORDER BY load_id DESC LIMIT 1",
            [self.source, self.name],
        ).fetchone()
        if before is not None and rows < self.table.shrink_limit * before[0]:
            return (
                f"the full refresh holds {rows:,} rows where the last one held {before[0]:,}: less than the "
                f"{self.table.shrink_limit:.0%} that `shrink_limit` asks for. Nothing was loaded. If the table really "
                "shrank, load it with --full-refresh."
            )
        return None

    def _discard(self, files: list[DataFile]) -> None:
        for file in files:
            discard(self.lake, file.path)

    def drop_tail(self) -> None:
        """Remove the files of rows that reached no position."""
        self._discard(self.tail_files)

    def drop_all(self) -> None:
        """Remove every file that was not committed."""
        self._discard(self.tail_files + self.ready_files)

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


def fits(kind: str, stored: str) -> bool:
    """Whether every value of type `kind` can be stored as `stored` without loss."""
    if stored == "VARCHAR":
        return True
    if kind in WIDER and stored in WIDER:
        return WIDER.index(kind) <= WIDER.index(stored)
    if kind == "FLOAT" and stored == "DOUBLE":
        return True
    if kind.startswith("DECIMAL(") and stored.startswith("DECIMAL("):
        (p1, s1), (p2, s2) = (tuple(map(int, t[8:-1].split(","))) for t in (kind, stored))
        return s2 >= s1 and p2 - s2 >= p1 - s1
    return False
