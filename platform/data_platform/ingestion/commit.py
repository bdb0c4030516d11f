"""The commit of a reading: rows of all its tables, its position, and what the ledger says of it, in one transaction.
What is ready to be committed is decided by `load`, how rows became files by `landing`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import duckdb

from data_platform.contracts.quarantine import ensure_quarantine, has_open_rejects, supersede_rejects
from data_platform.ingestion.drift import Drift
from data_platform.ingestion.landing import Part, TableLanding
from data_platform.ingestion.masking import record_keys
from data_platform.ingestion.source import DIGEST, Position, SourceUse, of_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import LOAD_COLUMNS, ensure_table
from data_platform.lakehouse.transaction import (
    CommitError,
    ConcurrentStepError,
    DataFile,
    commit,
    discarded_on_failure,
    register,
)
from data_platform.lakehouse.usage import Usage, used_since

REWRITES = 5
"""How often a raw table is written anew, in wider types, before a load gives up to those who delete rows of it."""


@dataclass(frozen=True)
class LoadResult:
    """What a load did to a table. `rows_read` = landed + repeated + quarantined. `loads` are the ids of its commits,
    `notes` what the source has to say of it, `use` what was taken at it, if it tells."""

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
    use: SourceUse | None = None

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
            later.use if self.use is None else self.use if later.use is None else self.use + later.use,
        )


@dataclass(frozen=True)
class Ready:
    """What one commit is to take in: the head of the reading, its tables with something to land, and the entries of the
    position that it reached or forgets. The head may be that of one of the tables, which then takes part in every
    commit; a reading of one table only (`is_of_one_table`) is kept so. A reconciliation moves no position. `cpu_began`
    is the processor time of the process when what is ready began to be read (`usage`)."""

    head: ledger.Head
    tables: Sequence[TableLanding]
    position: Position
    forget: Sequence[str]
    is_of_one_table: bool
    cpu_began: float
    is_reconciliation: bool = False

    def moves(self) -> bool:
        """Whether the position moves at all."""
        return bool(self.forget) or not self.head.position.items() >= self.position.items()

    def lands(self, landing: TableLanding) -> bool:
        """Whether anything changes in the raw table of `landing`."""
        return landing.has_something_ready() and not self.is_unchanged(landing)

    def is_unchanged(self, landing: TableLanding) -> bool:
        """Whether a table was read as a whole and holds what it held: the same content, or, of a reading of one table,
        the same position."""
        if landing.ready.kind != "whole" or landing.replaces or landing.ready.rejects.count:
            return False
        entry = DIGEST if self.is_of_one_table else of_table(DIGEST, landing.name)
        digest = self.position.get(entry)
        same = digest is not None and digest == self.head.position.get(entry)
        return same or (self.is_of_one_table and not self.moves())


def commit_ready(lake: Lakehouse, ready: Ready, run_id: str) -> tuple[ledger.Head, dict[str, LoadResult]]:
    """Land what is ready; the reading's head, and what became of each table. The rows are in files already.

    Raises ConcurrentStepError or CommitError.
    """
    for landing in ready.tables:
        landing.ready.rejects.spill()
        allow_names(lake, landing.raw, landing.columns.settled)
        if ready.lands(landing):
            landing.settle_files()
    superseding = {
        landing.name
        for landing in ready.tables
        if landing.ready.kind == "whole"
        and ready.lands(landing)
        and has_open_rejects(lake.connection, landing.quarantine)
    }
    now = datetime.now(UTC)
    usage = used_since(ready.cpu_began)
    loads = [_landed(landing, ready, now, run_id, usage) for landing in ready.tables]
    masks = {
        (each.source, each.name): each.mask for each in ready.tables if each.mask is not None and ready.lands(each)
    }
    full_refresh = all(each.replaces for each in ready.tables)  # a load replaces all of its tables, or none

    def work(connection: duckdb.DuckDBPyConnection, rewritten: Mapping[str, DataFile]) -> dict[str, ledger.Head]:
        # A reconciliation does not take the place of the next load, which reads what changed in place.
        read_at = None if ready.is_reconciliation else now
        head = ledger.advance(connection, ready.head, ready.position, read_at, forget=ready.forget)
        others = [landing.head for landing in ready.tables if landing.name != head.table]
        heads = [head, *ledger.advance_tables(connection, others, now)]
        for landing in ready.tables:
            if ready.lands(landing):
                _land(connection, landing, rewritten.get(landing.name))
            if landing.name in superseding:
                supersede_rejects(connection, landing.quarantine, landing.load_id, now)
            _register_rejects(connection, landing, landing.ready.rejects.files)
        if masks:
            record_keys(connection, masks, now, full_refresh=full_refresh)
        ledger.record_load(connection, *loads)
        return {one.table: one for one in heads}

    try:
        heads = _commit(lake, ready, work)
    except BaseException as error:
        if isinstance(error, CommitError) or not isinstance(error, Exception):
            for landing in ready.tables:
                landing.leave_ready()
        raise
    head = heads[ready.head.table]
    results = {}
    for landing, load in zip(ready.tables, loads, strict=True):
        if not ready.lands(landing):
            landing.ready.discard_rows(lake)
        results[landing.name] = _result(load, landing.columns.found(), head.position)
        landing.tail.discard(lake)  # rows that reached no position: written for this load, they are read again
        landing.head = heads[landing.name]
        landing.started = now  # what follows is the next load's time
        landing.begin(_stored(landing, ready))
    return head, results


def _commit(lake: Lakehouse, ready: Ready, work: Callable[..., dict[str, ledger.Head]]) -> dict[str, ledger.Head]:
    """Commit, with the rows of those raw tables written anew whose columns became wider. If rows of such a table were
    deleted meanwhile, it is written once more."""
    wider = [
        landing
        for landing in ready.tables
        if ready.lands(landing) and landing.columns.widened() and not landing.columns.replaced
    ]
    for _ in range(REWRITES):
        files = {landing.name: file for landing in wider if (file := landing.stored_in_wider_types()) is not None}
        try:
            with discarded_on_failure(lake, list(files.values())):
                return commit(lake, partial(work, rewritten=files))
        except _RowsDeletedError:
            continue
    names = ", ".join(landing.label for landing in wider)
    raise ConcurrentStepError(
        f"Rows of {names} were deleted from raw again and again while its columns were made wider. Nothing was "
        "changed. Run it again when maintenance has come to its end."
    )


class _RowsDeletedError(Exception):
    """Rows of a raw table were deleted since it was written anew (`retention`): they must not come back."""


@dataclass(frozen=True)
class Refusal:
    """A table whose load is refused: the part of it that was judged, and why."""

    landing: TableLanding
    part: Part
    reason: str


def commit_refusals(lake: Lakehouse, refusals: Sequence[Refusal], run_id: str, cpu_began: float) -> None:
    """Record that the load of some tables was refused, and why; a sample of what could not be read goes to quarantine.
    No row lands and no position moves."""
    now, usage = datetime.now(UTC), used_since(cpu_began)
    samples = [refusal.part.rejects.sample(refusal.landing.load_id) for refusal in refusals]
    files = [file for some in samples for file in some]

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        for refusal, sample in zip(refusals, samples, strict=True):
            landing = refusal.landing
            ledger.advance(connection, landing.head, {}, now)
            _register_rejects(connection, landing, sample)
            ledger.record_load(connection, _refused(refusal, now, run_id, usage))

    with discarded_on_failure(lake, files):
        commit(lake, work)


def _land(connection: duckdb.DuckDBPyConnection, landing: TableLanding, rewritten: DataFile | None) -> None:
    columns = landing.columns
    if columns.widened() and not columns.replaced:
        _require_all_rows(connection, landing, rewritten)
    if columns.replaced or columns.widened():
        # A table of the new types takes the place of the old one, whose rows stay to be seen at earlier snapshots.
        connection.execute(f"DROP TABLE {landing.raw.sql}")
    elif not (landing.ready.files or not columns.before or columns.added or columns.dropped()):
        return
    if not columns.settled:
        return
    ensure_table(connection, landing.raw, {**columns.settled, **LOAD_COLUMNS})
    for column in columns.dropped():
        connection.execute(f"ALTER TABLE {landing.raw.sql} DROP COLUMN IF EXISTS {quote(column)}")
    files = [spilled.file for spilled in landing.ready.files]
    register(connection, landing.raw, ([rewritten] if rewritten is not None else []) + files)


def _require_all_rows(connection: duckdb.DuckDBPyConnection, landing: TableLanding, rewritten: DataFile | None) -> None:
    row = connection.execute(f"SELECT count(*) FROM {landing.raw.sql}").fetchone()
    if row is not None and row[0] != (rewritten.rows if rewritten is not None else 0):
        raise _RowsDeletedError


def _register_rejects(connection: duckdb.DuckDBPyConnection, landing: TableLanding, files: list[DataFile]) -> None:
    if files:
        ensure_quarantine(connection, landing.quarantine)
        register(connection, landing.quarantine, files)


def _stored(landing: TableLanding, ready: Ready) -> dict[str, str]:
    """The columns of the raw table after the commit."""
    columns = landing.columns
    if not ready.lands(landing) or not columns.settled:
        return columns.before
    return {**columns.settled, **LOAD_COLUMNS}


def _landed(landing: TableLanding, ready: Ready, at: datetime, run_id: str, usage: Usage) -> ledger.Load:
    """What the ledger says of a table in this commit. A whole table that is as it was lands nothing, and is none that
    replaces another."""
    part, unchanged = landing.ready, ready.is_unchanged(landing)
    landed = 0 if unchanged else sum(spilled.file.rows for spilled in part.files)
    return ledger.Load(
        source=landing.source,
        table=landing.name,
        load_id=landing.load_id,
        run_id=run_id,
        kind="reconcile" if ready.is_reconciliation else "rows" if unchanged else part.kind,
        status="landed",
        started_at=landing.started,
        ended_at=at,
        rows_read=part.records,
        rows_landed=landed,
        rows_repeated=part.rows - landed,
        rows_quarantined=part.rejects.count,
        bytes=0 if unchanged else sum(spilled.file.bytes for spilled in part.files),
        position=ready.position,
        drift=landing.columns.found().as_dict(),
        bytes_read=part.bytes,
        cpu_seconds=usage.cpu_seconds,
        peak_bytes=usage.peak_bytes,
    )


def _refused(refusal: Refusal, at: datetime, run_id: str, usage: Usage) -> ledger.Load:
    landing, part = refusal.landing, refusal.part
    return ledger.Load(
        source=landing.source,
        table=landing.name,
        load_id=landing.load_id,
        run_id=run_id,
        kind=part.kind,
        status="refused",
        started_at=landing.started,
        ended_at=at,
        rows_read=part.records,
        rows_quarantined=part.rejects.count,
        drift=landing.columns.found().as_dict(),
        reason=refusal.reason,
        bytes_read=part.bytes,
        cpu_seconds=usage.cpu_seconds,
        peak_bytes=usage.peak_bytes,
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
