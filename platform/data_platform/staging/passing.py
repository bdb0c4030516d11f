"""The pass over the raw rows of a step: staged and audited batch by batch, good rows into one unseen file, bad ones to
a file of the spool folder. Which versions win is `merge`'s work; what becomes of the files, `step`'s.

Once it is certain that the step will be refused, bad rows are only counted, and the first of each reason kept; and
once JUDGED_ROWS were read, the pass ends: a mistake that concerns every row of a large table is told in a part of the
time that staging it takes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import polars as pl
import pyarrow as pa

from data_platform.contracts.audit import Audited, Known, audit_keys
from data_platform.contracts.quarantine import FRAME_SCHEMA, SpooledEntries
from data_platform.contracts.violations import Violation, summed
from data_platform.lakehouse.sql import literal, nulls, quote_all
from data_platform.lakehouse.tables import ROW_ID
from data_platform.lakehouse.transaction import DataFile, write_file
from data_platform.staging.batches import (
    DELETE,
    TRUNCATE,
    is_marked,
    lookup,
    quarantine_entries,
    raw_batches,
    stage_batch,
    stage_changes,
    stage_with_deletes,
    with_operation,
)
from data_platform.staging.function import run_function
from data_platform.staging.plan import Plan
from data_platform.staging.recipe import APPLIED, OPERATION, ORDER, StagingResult

SAMPLED = 100
"""Rows of each reason that are kept of a step that is refused."""


JUDGED_ROWS = 5_000_000
"""Rows that are read of a step that is certain to be refused; how many of all rows are bad is then not known."""


@dataclass(frozen=True)
class Passed:
    """What the pass over the raw rows gave: the audited rows in an unseen file (None if there are none), the figures,
    and whether so many rows are bad that the step is refused, without reading all of its `rows`. `sample` holds the
    quarantine entries of a refused step, the spool those of one that is not."""

    accepted: DataFile | None
    result: StagingResult
    refused: bool
    rows: int
    sample: pl.DataFrame


def pass_over(plan: Plan, spool: SpooledEntries, path: str | None) -> Passed:
    """Stage and audit the chosen raw rows batch by batch into one unseen file of the staged table, or at `path`."""
    under_way = _Pass(plan, spool)
    query = (
        f"SELECT *, {plan.staging_id}::BIGINT AS _staging_id, TIMESTAMPTZ {literal(plan.started.isoformat())} "
        f"AS _staged_at{nulls(plan.left) if plan.recipe.direct else ''} FROM incoming"
    )
    accepted = write_file(plan.lake, plan.recipe.staged, under_way.accepted(), plan.schema, query, path)
    refused = under_way.refused(under_way.read)
    return Passed(
        accepted, under_way.result(), refused, under_way.rows if refused else under_way.read, under_way.sample
    )


def stage_others(plan: Plan, spool: SpooledEntries, condition: str, wanted: str, path: str) -> DataFile | None:
    """Stage and audit raw rows that the step does not read, but which meet `condition`, and write those that are good,
    and of which `wanted` holds, to `path`. Bad ones are added to the spool. They count in no figure of the step."""
    known = lookup(plan.lake.duplicate())

    def good() -> Iterator[pa.RecordBatch]:
        for raw in _one_ahead(raw_batches(plan.lake, plan.recipe, condition)):
            staged, removals = _stage(plan, raw, known)
            parts = [*staged, *removals]
            _spool_bad(plan, spool, raw, parts)
            yield from _arrow(plan, parts)

    query = (
        f"SELECT *, {plan.staging_id}::BIGINT AS _staging_id, TIMESTAMPTZ {literal(plan.started.isoformat())} "
        f"AS _staged_at FROM incoming WHERE {wanted}"
    )
    return write_file(plan.lake, plan.recipe.staged, good(), plan.schema, query, path)


def keys_of_others(plan: Plan, wanted: str, path: str) -> DataFile | None:
    """Write to `path` which raw rows that the step does not read have a key of which `wanted` holds, where only the
    staging function tells: every raw row that was staged is read."""
    recipe, chosen = plan.recipe, plan.chosen
    others = f"_load_id BETWEEN {chosen.since} AND {plan.staged_to} AND NOT ({chosen.condition})"
    others += f" AND {OPERATION} <> {literal(TRUNCATE)}" if recipe.changes else ""
    columns = [*recipe.key, *ROW_ID]
    schema = pa.schema([plan.schema.field(name) for name in columns])

    def keys() -> Iterator[pa.RecordBatch]:
        for raw in _one_ahead(raw_batches(plan.lake, recipe, others, chosen.parameters)):
            staged = run_function(with_operation(raw, recipe), recipe)
            found = audit_keys(staged, recipe.contract, recipe.carried, recipe.key, recipe.version)
            yield from found.good.select(columns).to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    query = f"SELECT {quote_all(ROW_ID)} FROM incoming WHERE {wanted}"
    return write_file(plan.lake, recipe.staged, keys(), schema, query, path)


class _Pass:
    """A pass under way: what was counted so far."""

    def __init__(self, plan: Plan, spool: SpooledEntries) -> None:
        self.plan = plan
        self.spool = spool
        self.read = self.good = self.bad = self.removals = 0
        self.violations: Sequence[Violation] = ()
        self.sample = pl.DataFrame(schema=FRAME_SCHEMA)
        self.first_order: int | None = None

    def accepted(self) -> Iterator[pa.RecordBatch]:
        """Stage and audit all raw rows; yield the good ones as long as they may be wanted."""
        plan = self.plan
        known = lookup(plan.lake.duplicate())
        for raw in _one_ahead(raw_batches(plan.lake, plan.recipe, plan.chosen.condition, plan.chosen.parameters)):
            staged, removals = _stage(plan, raw, known)
            self._count(raw, staged, removals)
            certain = self._certainly_refused()
            self._keep_bad(raw, [*staged, *removals], everything=not certain)
            if not certain:
                yield from _arrow(plan, [*staged, *removals])
            elif self.read >= JUDGED_ROWS:
                return
        if plan.recipe.removes and not plan.chosen.replaces and not self._certainly_refused():
            for raw in _later_removals(plan, self.first_order):
                yield from _arrow(plan, _stage(plan, raw, known)[1], applied=True)

    def _count(self, raw: pl.DataFrame, staged: Sequence[Audited], removals: Sequence[Audited]) -> None:
        parts = [*staged, *removals]
        self.read += len(raw)
        self.good += sum(len(part.rows) - part.rows_failed for part in staged)
        self.removals += sum(len(part.rows) - part.rows_failed for part in removals)
        self.bad += sum(_count_raw(part.rows.select(ROW_ID).filter(part.failed)) for part in parts if part.rows_failed)
        columns = [column.name for column in self.plan.recipe.columns]
        self.violations = summed([*self.violations, *(one for part in parts for one in part.violations)], columns)
        if self.plan.recipe.changes:
            orders = [cast(int, part.rows[ORDER].min()) for part in staged if len(part.rows)]
            self.first_order = min([*orders, *([] if self.first_order is None else [self.first_order])], default=None)

    def _keep_bad(self, raw: pl.DataFrame, parts: Sequence[Audited], *, everything: bool) -> None:
        for part in parts:
            if not part.rows_failed:
                continue
            if everything:
                _spool_bad(self.plan, self.spool, raw, [part])
            if _adds_nothing(self.sample, part):
                continue
            sampled = quarantine_entries(raw, part.sample(SAMPLED, ROW_ID), self.plan.recipe)
            self.sample = _first_of_each_reason(pl.concat([self.sample, sampled.select(*FRAME_SCHEMA)]))

    def refused(self, rows: int) -> bool:
        """Whether too many of `rows` rows are bad. Rows that failed before may fail again when they are replayed: that
        is no reason to keep out those that pass now."""
        return self.plan.chosen.kind != "replay" and self.bad > self.plan.recipe.refuse_above * rows

    def _certainly_refused(self) -> bool:
        """Whether more rows are bad than may be of all that will have been read."""
        return self.refused(self.read) and self.refused(self.rows)

    @cached_property
    def rows(self) -> int:
        """How many raw rows there are to read. They are counted when it first matters."""
        chosen = self.plan.chosen
        query = f"SELECT count(*) FROM {self.plan.recipe.raw.sql} WHERE {chosen.condition}"
        row = self.plan.lake.duplicate().connection.execute(query, list(chosen.parameters)).fetchone()
        return int(row[0]) if row is not None else 0

    def result(self) -> StagingResult:
        """The figures of the pass."""
        plan = self.plan
        return StagingResult(
            plan.recipe.source,
            plan.recipe.table,
            staging_id=plan.staging_id,
            load_from=plan.chosen.load_from,
            load_to=plan.chosen.load_to,
            rows_read=self.read,
            rows_filtered=max(0, self.read - self.good - self.removals - self.bad),
            rows_quarantined=self.bad,
            rows_removals=self.removals,
            violations=self.violations,
        )


def _one_ahead(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames, each read in a thread while the one before it is staged and audited."""
    with ThreadPoolExecutor(1, "raw") as pool:
        coming = pool.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = pool.submit(next, frames, None)
            yield frame


def _stage(plan: Plan, raw: pl.DataFrame, known: Known) -> tuple[Sequence[Audited], Sequence[Audited]]:
    """The staged rows of a frame, and those that take others away."""
    if plan.recipe.changes:
        return stage_changes(raw, plan.recipe, known)
    if plan.recipe.marks_deletes:
        return stage_with_deletes(raw, plan.recipe, known)
    return [stage_batch(raw, plan.recipe, known)], []


def _spool_bad(plan: Plan, spool: SpooledEntries, raw: pl.DataFrame, parts: Sequence[Audited]) -> None:
    for part in parts:
        for bad in part.bad_frames(ROW_ID) if part.rows_failed else ():
            spool.add(quarantine_entries(raw, bad, plan.recipe))


def _count_raw(rows: pl.DataFrame) -> int:
    """Of how many raw rows some staged ones were made. Unless the staging function multiplied or reordered them, their
    numbers rise, which is quicker to find out than how many differ."""
    load, row = (pl.col(name) for name in ROW_ID)
    rises = (load > load.shift()) | ((load == load.shift()) & (row > row.shift()))
    return len(rows) if rows.select(rises.all()).item() else rows.n_unique()


def _reasons(entries: pl.DataFrame) -> pl.DataFrame:
    return entries.select("quarantine_id", "load_id", "row", "reasons").explode("reasons").unnest("reasons")


def _adds_nothing(sample: pl.DataFrame, part: Audited) -> bool:
    """Whether the sample has enough of each reason, all from rows before those of `part`."""
    counts = {
        (column, check): rows for column, check, rows in _reasons(sample).group_by("column", "check").len().rows()
    }
    if any(one.fatal and counts.get((one.column, one.check), 0) < SAMPLED for one in part.broken):
        return False
    last = sample.select("load_id", "row").sort("load_id", "row").row(-1)
    load, row = (pl.col(name) for name in ROW_ID)
    bad = part.rows.select(ROW_ID).filter(part.failed)
    return last < bad.select(load.min(), row.filter(load == load.min()).min()).row(0)


def _first_of_each_reason(entries: pl.DataFrame) -> pl.DataFrame:
    """Of each reason the first SAMPLED entries."""
    first = _reasons(entries).sort("load_id", "row").group_by("column", "check", maintain_order=True).head(SAMPLED)
    return entries.join(first.select("quarantine_id").unique(), on="quarantine_id", how="semi")


def _arrow(plan: Plan, parts: Sequence[Audited], *, applied: bool = False) -> Iterator[pa.RecordBatch]:
    for part in parts:
        rows = part.good.with_columns(pl.lit(applied).alias(APPLIED)) if plan.recipe.removes else part.good
        table = rows.select(plan.schema.names).to_arrow(compat_level=pl.CompatLevel.oldest())
        yield from (table if table.schema == plan.schema else table.cast(plan.schema)).to_batches()


def _later_removals(plan: Plan, first: int | None) -> Iterator[pl.DataFrame]:
    """The deletes, truncates and tombstones that this step does not read, but which come after some of its rows (of a
    log of changes: after the order `first`): what is read late, or again, must not bring back a row that is gone. Of a
    log that is read in order there are none, and no file is opened to find out: each holds what came before. Rows that
    are marked as deleted come after others as they were delivered, or anywhere if a column orders the versions."""
    chosen, recipe = plan.chosen, plan.recipe
    if first is None and recipe.changes:
        return iter(())
    removes = f"{OPERATION} IN ({literal(DELETE)}, {literal(TRUNCATE)}) AND {ORDER} >= {first}"
    if recipe.marks_deletes:
        conditions = [f"_deleted_load_id >= {chosen.load_from}"] if recipe.tombstones else []
        if recipe.marked is not None and recipe.soft_delete is not None:
            marked = is_marked(recipe.soft_delete, recipe.marked)
            later = "" if recipe.version is not None else f" AND _load_id >= {chosen.load_from}"
            conditions.append(f"({marked}{later})")
        removes = f"({' OR '.join(conditions)})"
    last = max(plan.staged_to, chosen.load_to)
    condition = f"{removes} AND _load_id BETWEEN {chosen.since} AND {last} AND NOT ({chosen.condition})"
    return raw_batches(plan.lake, plan.recipe, condition, chosen.parameters)
