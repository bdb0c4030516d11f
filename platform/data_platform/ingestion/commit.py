"""The commit of a reading: rows of all its tables, its position, and what the ledger says of it, in one transaction.
What is ready to be committed is decided by `load`, how rows became files by `landing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from data_platform.contracts.quarantine import ensure_quarantine, has_open_rejects, supersede_rejects
from data_platform.ingestion.drift import Drift
from data_platform.ingestion.landing import Part, TableLanding
from data_platform.ingestion.source import DIGEST, Position
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.tables import LOAD_COLUMNS, ensure_table
from data_platform.lakehouse.transaction import DataFile, commit, discarded_on_failure, register


@dataclass(frozen=True)
class LoadResult:
    """What a load did to a table. `rows_read` = landed + repeated + quarantined. `loads` are the ids of its commits,
    `notes` what the source has to say of it."""

    source: str
    table: str
    loads: tuple[int, ...] = ()
    rows_read: int = 0
    rows_landed: int = 0
    rows_repeated: int = 0
    rows_quarantined: int = 0
    bytes: int = 0
    position: Mapping[str, str] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    notes: tuple[str, ...] = ()

    def then(self, later: "LoadResult") -> "LoadResult":
        """This and what was committed after it, together."""
        return LoadResult(
            self.source,
            self.table,
            self.loads + later.loads,
            self.rows_read + later.rows_read,
            self.rows_landed + later.rows_landed,
            self.rows_repeated + later.rows_repeated,
            self.rows_quarantined + later.rows_quarantined,
            self.bytes + later.bytes,
            later.position,
            self.drift | later.drift,
            self.notes + later.notes,
        )


@dataclass(frozen=True)
class Ready:
    """What one commit is to take in: the head of the reading, its tables with something to land, and the entries of the
    position that it reached or forgets. A reading of one table is kept under the name of that table."""

    head: ledger.Head
    tables: Sequence[TableLanding]
    position: Position
    forget: Sequence[str] = ()

    @property
    def is_of_one_table(self) -> bool:
        return len(self.tables) == 1 and self.tables[0].name == self.head.table

    def moves(self) -> bool:
        """Whether the position moves at all."""
        return bool(self.forget) or not self.head.position.items() >= self.position.items()

    def is_unchanged(self) -> bool:
        """Whether the one table was read as a whole and holds what it held: the same position, or the same content."""
        if not self.is_of_one_table or self.tables[0].kind != "whole" or self.tables[0].replaces:
            return False
        digest = self.position.get(DIGEST)
        same = digest is not None and digest == self.head.position.get(DIGEST)
        return (same or not self.moves()) and not self.tables[0].ready.rejects.count


def commit_ready(lake: Lakehouse, ready: Ready, run_id: str) -> tuple[ledger.Head, dict[str, LoadResult]]:
    """Land what is ready; the reading's head, and what became of each table. The rows are in files already.

    Raises ConcurrentStepError or CommitError.
    """
    unchanged = ready.is_unchanged()
    rewritten: dict[str, DataFile] = {}
    for landing in ready.tables:
        landing.ready.rejects.spill()
        allow_names(lake, landing.raw, landing.columns.settled)
        if unchanged:
            continue
        landing.settle_files()
        if landing.columns.widened() and not landing.columns.replaced:
            file = landing.stored_in_wider_types()
            rewritten |= {landing.name: file} if file is not None else {}
    superseding = {
        landing.name
        for landing in ready.tables
        if landing.kind == "whole" and not unchanged and has_open_rejects(lake.connection, landing.quarantine)
    }
    now = datetime.now(UTC)
    loads = [_landed(landing, ready.position, now, run_id, unchanged=unchanged) for landing in ready.tables]

    def work(connection: duckdb.DuckDBPyConnection) -> tuple[ledger.Head, Sequence[ledger.Head]]:
        head = ledger.advance(connection, ready.head, ready.position, now, forget=ready.forget)
        if ready.is_of_one_table:
            heads: Sequence[ledger.Head] = [head]
        else:
            heads = ledger.advance_tables(connection, [landing.head for landing in ready.tables], now)
        for landing in ready.tables:
            if not unchanged:
                _land(connection, landing, rewritten.get(landing.name))
            if landing.name in superseding:
                supersede_rejects(connection, landing.quarantine, landing.load_id, now)
            _register_rejects(connection, landing, landing.ready.rejects.files)
        ledger.record_load(connection, *loads)
        return head, heads

    with discarded_on_failure(lake, list(rewritten.values())):
        head, heads = commit(lake, work)
    results = {}
    for landing, table_head, load in zip(ready.tables, heads, loads, strict=True):
        if unchanged:
            landing.ready.discard_rows(lake)
        results[landing.name] = _result(load, landing.columns.found(), head.position)
        landing.tail.discard(lake)  # rows that reached no position: written for this load, they are read again
        landing.head = table_head
        landing.started = now  # what follows is the next load's time
        landing.begin(_stored(landing, unchanged=unchanged))
    return head, results


@dataclass(frozen=True)
class Refusal:
    """A table whose load is refused: the part of it that was judged, and why."""

    landing: TableLanding
    part: Part
    reason: str


def commit_refusals(lake: Lakehouse, refusals: Sequence[Refusal], run_id: str) -> None:
    """Record that the load of some tables was refused, and why; a sample of what could not be read goes to quarantine.
    No row lands and no position moves."""
    now = datetime.now(UTC)
    samples = [refusal.part.rejects.sample(refusal.landing.load_id) for refusal in refusals]
    files = [file for some in samples for file in some]

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for refusal, sample in zip(refusals, samples, strict=True):
            landing = refusal.landing
            ledger.advance(connection, landing.head, {}, now)
            _register_rejects(connection, landing, sample)
            ledger.record_load(connection, _refused(refusal, now, run_id))

    with discarded_on_failure(lake, files):
        commit(lake, work)


def _land(connection: duckdb.DuckDBPyConnection, landing: TableLanding, rewritten: DataFile | None) -> None:
    columns = landing.columns
    if columns.replaced or columns.widened():
        # A table of the new types takes the place of the old one, whose rows stay to be seen at earlier snapshots.
        connection.execute(f"DROP TABLE {landing.raw.sql}")
    elif not (landing.ready.files or not columns.before):
        return
    if not columns.settled:
        return
    ensure_table(connection, landing.raw, {**columns.settled, **LOAD_COLUMNS})
    files = [spilled.file for spilled in landing.ready.files]
    register(connection, landing.raw, ([rewritten] if rewritten is not None else []) + files)


def _register_rejects(connection: duckdb.DuckDBPyConnection, landing: TableLanding, files: list[DataFile]) -> None:
    if files:
        ensure_quarantine(connection, landing.quarantine)
        register(connection, landing.quarantine, files)


def _stored(landing: TableLanding, *, unchanged: bool) -> dict[str, str]:
    """The columns of the raw table after the commit."""
    columns = landing.columns
    if unchanged or not columns.settled:
        return columns.before
    return {**columns.settled, **LOAD_COLUMNS}


def _landed(landing: TableLanding, position: Position, at: datetime, run_id: str, *, unchanged: bool) -> ledger.Load:
    """What the ledger says of a table in this commit. A whole table that is as it was lands nothing, and is none that
    replaces another."""
    ready = landing.ready
    landed = 0 if unchanged else sum(spilled.file.rows for spilled in ready.files)
    return ledger.Load(
        source=landing.source,
        table=landing.name,
        load_id=landing.load_id,
        run_id=run_id,
        kind="rows" if unchanged else landing.kind,
        status="landed",
        started_at=landing.started,
        ended_at=at,
        rows_read=ready.records,
        rows_landed=landed,
        rows_repeated=ready.rows - landed,
        rows_quarantined=ready.rejects.count,
        bytes=0 if unchanged else sum(spilled.file.bytes for spilled in ready.files),
        position=position,
        drift=landing.columns.found().as_dict(),
    )


def _refused(refusal: Refusal, at: datetime, run_id: str) -> ledger.Load:
    landing, part = refusal.landing, refusal.part
    return ledger.Load(
        source=landing.source,
        table=landing.name,
        load_id=landing.load_id,
        run_id=run_id,
        kind=landing.kind,
        status="refused",
        started_at=landing.started,
        ended_at=at,
        rows_read=part.records,
        rows_quarantined=part.rejects.count,
        drift=landing.columns.found().as_dict(),
        reason=refusal.reason,
    )


def _result(load: ledger.Load, drift: Drift, position: Position) -> LoadResult:
    return LoadResult(
        load.source,
        load.table,
        (load.load_id,),
        load.rows_read,
        load.rows_landed,
        load.rows_repeated,
        load.rows_quarantined,
        load.bytes,
        position,
        drift,
    )
