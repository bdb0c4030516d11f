"""Load: reads what is new in one or more tables of a source and lands it in `raw_<source>`, with the position it came
from, in one commit. Reading is the sources' work, and nothing is interpreted here: private columns are masked, types
are kept (`landing`, `drift`).

Rows are written to unseen files as they come, and committed at positions of the reading, all of its tables together:
a long first load commits every so often and resumes where it died; a whole table or a large file commits as a whole
or not at all. If one table of a reading is refused, so are the others, for the position cannot move past rows that
did not land: what is ready is dropped, and the next load reads it again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NoReturn

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.commit import LoadResult as LoadResult
from data_platform.ingestion.commit import Ready, Refusal, commit_ready, commit_refusals
from data_platform.ingestion.drift import LoadRefusedError as LoadRefusedError
from data_platform.ingestion.landing import Part, TableLanding
from data_platform.ingestion.masking import require_key
from data_platform.ingestion.prefetch import prefetched
from data_platform.ingestion.source import (
    DIGEST,
    EMPTY,
    Batch,
    Budget,
    Measured,
    Position,
    Reading,
    Source,
    TableOptions,
)
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import column_types, raw_table
from data_platform.lakehouse.usage import cpu_seconds
from data_platform.redaction import safe_exception

CHUNK_ROWS = 1_000_000
CHUNK_BYTES = 128 * 2**20
"""Rows and bytes after which a load commits, at a position."""

FILES = 4
"""Files in which as much is written, each when its rows are there: the source is read on meanwhile."""

HOPELESS_RECORDS = 500_000
"""Records after which a stretch without a position is judged, although its end may be far: a large file, a whole
table."""

CHUNK_ENTRIES = 5_000
CHUNK_SECONDS = 30.0
"""Entries of the position, and time, after which a load commits at the next position however few rows there are."""

NOTES = 20
"""Notes of a source that a load keeps at most."""

UNLIMITED = Budget()

BUDGET_SPENT = "The load ended at its `budget` or `hours`: if there is more, the next one goes on from there."

FAULT_OF_SOURCE = "This is a mistake in the code of the source, not in the data: report it to whoever maintains it."


def load_table(
    lake: Lakehouse,
    source_name: str,
    source: Source,
    name: str,
    table: TableOptions,
    *,
    run_id: str,
    full_refresh: bool = False,
    retype: bool = False,
    budget: Budget = UNLIMITED,
    progress: Callable[[int], None] | None = None,
) -> LoadResult:
    """`load_tables` of a reading that covers one table, and is kept under its name."""
    results = load_tables(
        lake,
        source_name,
        source,
        name,
        {name: table},
        run_id=run_id,
        full_refresh=full_refresh,
        retype=retype,
        budget=budget,
        progress=progress,
    )
    return results[name]


def load_tables(
    lake: Lakehouse,
    source_name: str,
    source: Source,
    reading_name: str,
    tables: Mapping[str, TableOptions],
    *,
    run_id: str,
    full_refresh: bool = False,
    retype: bool = False,
    budget: Budget = UNLIMITED,
    progress: Callable[[int], None] | None = None,
) -> dict[str, LoadResult]:
    """Read what is new in the tables of one reading and land it; what was done to each. The position is kept under
    `reading_name`.

    `full_refresh` reads everything again, whatever the position, and lands it as whole tables, all of it or nothing: no
    budget ends it. It also lifts the truncation guard, and replaces a raw table whose columns changed their types.
    `retype` stores such columns as text instead, which holds the values of both types. `progress` receives the rows
    read so far.

    Raises LoadRefusedError, ConcurrentStepError, or what the source raises; what was committed before that stays, and
    the next load goes on from there. Raises PlatformError if the source
    cannot acknowledge what was committed.
    """
    others = [name for name in tables if name != reading_name]
    with ledger.reading(lake) as at_once:
        head = ledger.head(at_once, "raw", source_name, reading_name)
        heads = {reading_name: head}
        if others:
            heads |= ledger.heads_of_tables(at_once, "raw", source_name, others)
        stored = {name: column_types(lake.connection, raw_table(source_name, name)) for name in tables}
    with source.reading(list(tables), {} if full_refresh else head.position) as reading:
        landings = {}
        for name, table in tables.items():
            landings[name] = TableLanding(
                lake,
                source_name,
                name,
                table,
                run_id,
                heads[name],
                stored[name],
                overlap=None if full_refresh else reading.overlap(name),
                replaces=full_refresh,
                retype=retype,
            )
        masks = {(source_name, name): each.mask for name, each in landings.items() if each.mask is not None}
        if masks:
            require_key(lake.connection, masks, full_refresh=full_refresh)
        load = _Load(lake, reading, head, landings, run_id, full_refresh=full_refresh)
        try:
            load.run(budget, progress)
        finally:
            load.close()
        if isinstance(reading, Measured):
            return {name: replace(result, use=reading.use(name)) for name, result in load.results.items()}
    return load.results


class _Load:
    """One load under way: the tables' landings, and the position that was reached and is not yet committed."""

    def __init__(
        self,
        lake: Lakehouse,
        reading: Reading,
        head: ledger.Head,
        landings: Mapping[str, TableLanding],
        run_id: str,
        *,
        full_refresh: bool,
    ) -> None:
        self.lake, self.reading, self.head, self.landings, self.run_id = lake, reading, head, landings, run_id
        self.full_refresh = full_refresh
        self.results = {name: LoadResult(head.source, name, position=head.position) for name in landings}
        self.rows_read = self.bytes_read = 0
        self._begin()

    def _begin(self) -> None:
        self.position: dict[str, str] | None = None
        self.forget: list[str] = []
        self.committed_at, self.cpu_began = time.monotonic(), cpu_seconds()

    def run(self, budget: Budget, progress: Callable[[int], None] | None) -> None:
        """Read to the end, or until the budget is spent, and commit as it goes."""
        started = time.monotonic()
        failure: PlatformError | None = None
        refusal: Refusal | None = None
        with closing(prefetched(iter(self.reading))) as batches:
            while True:
                try:
                    batch = next(batches, None)
                    if batch is None:
                        break
                    self._take(batch)
                    refusal = self._hopeless(batch)
                    if refusal is not None:
                        break
                except PlatformError as error:
                    # What was read up to the last position is whole and lands; the rest is dropped.
                    failure = error
                    break
                if progress is not None:
                    progress(self.rows_read)
                if batch.position is None:
                    continue
                if self.full_refresh:
                    continue
                if budget.is_spent(self.rows_read, self.bytes_read, time.monotonic() - started):
                    self._note(BUDGET_SPENT)
                    break
                if self._is_worth_a_commit():
                    self._commit()
        if (failure is None and refusal is None) or not self.full_refresh:
            try:
                self._commit()
            except PlatformError as error:
                if failure is not None:
                    raise _both(failure, error) from error
                raise
        if refusal is not None:
            self._refuse([refusal])
        if failure is not None:
            raise failure

    def _note(self, note: str) -> None:
        self.results = {name: replace(one, notes=(*one.notes, note)) for name, one in self.results.items()}

    def _take(self, batch: Batch) -> None:
        landing = self.landings.get(batch.table)
        if landing is None:
            raise PlatformError(
                f"The source {self.head.source} gives rows of a table {batch.table}, of which it was not asked. It was "
                f"asked for {', '.join(self.landings)}. {FAULT_OF_SOURCE}"
            )
        if batch.kind == "whole" and not self.full_refresh and landing.tail.kind != "whole":
            self._begin_whole(landing)
        landing.take(batch)
        if batch.notes:
            result = self.results[batch.table]
            self.results[batch.table] = replace(result, notes=(*result.notes, *batch.notes)[:NOTES])
        self.rows_read += batch.rows.num_rows + batch.rejects.num_rows
        self.bytes_read += batch.rows.nbytes + batch.rejects.nbytes
        if batch.position is not None:
            for each in self.landings.values():
                each.reach_position()
            self.position = self.position or {}
            for entry in batch.forget:
                self.position.pop(entry, None)
            self.position.update(batch.position)
            self.forget += batch.forget
        if self._fills_a_file():
            for each in self.landings.values():
                each.spill()

    def _begin_whole(self, landing: TableLanding) -> None:
        """Commit what came before a whole table: it is a load of its own, not a part of it."""
        open_tails = [each.label for each in self.landings.values() if each.tail.records]
        if landing.tail.records or (landing.ready.records and open_tails):
            raise PlatformError(
                f"{landing.label}: the whole table comes after rows of {', '.join(open_tails)} that have no position "
                f"yet: it is unknown which of them it replaces. {FAULT_OF_SOURCE}"
            )
        if not open_tails:
            self._commit()

    def _fills_a_file(self) -> bool:
        """Whether the rows in memory are worth a file. Those of several tables would make many small ones; those of a
        table that may be there already, as a digest will tell at its end, are written as late as can be."""
        files = 1 if DIGEST in self.head.position or len(self.landings) > 1 else FILES
        parts = self._parts()
        rows, size = sum(part.held_rows for part in parts), sum(part.held_bytes for part in parts)
        return rows >= CHUNK_ROWS / files or size >= CHUNK_BYTES / files

    def _parts(self) -> list[Part]:
        return [part for landing in self.landings.values() for part in (landing.ready, landing.tail)]

    def _is_worth_a_commit(self) -> bool:
        return (
            any(landing.ready.kind == "whole" for landing in self.landings.values())
            or sum(landing.ready.records for landing in self.landings.values()) >= CHUNK_ROWS
            or sum(part.bytes for part in self._parts()) >= CHUNK_BYTES
            or len(self.position or ()) >= CHUNK_ENTRIES
            or time.monotonic() - self.committed_at >= CHUNK_SECONDS
        )

    def _hopeless(self, batch: Batch) -> Refusal | None:
        """The refusal of a stretch of which far too much could not be read up to here: nobody has to wait for the end
        of a file that was declared wrongly."""
        landing = self.landings[batch.table]
        part = landing.ready if self.full_refresh else landing.tail
        if part.records < HOPELESS_RECORDS or (reason := _too_many_rejects(landing, part)) is None:
            return None
        return Refusal(landing, part, reason)

    def _commit(self) -> None:
        """Land what is ready, its position and its figures in one transaction; nothing to do if nothing is new.

        Raises LoadRefusedError, ConcurrentStepError or CommitError, or what the source raises when it acknowledges.
        """
        # Whatever happens here, it is not tried again with what is ready now.
        position, self.position = self.position, None
        if position is None:
            return
        if EMPTY in position and self.head.position:
            return  # it began long ago: a full refresh of what is gone for the moment takes nothing away
        # The table under whose name the position is kept moves with it.
        tables = [each for each in self.landings.values() if each.name == self.head.table or each.has_something_ready()]
        of_one_table = len(self.landings) == 1 and self.head.table in self.landings
        ready = Ready(self.head, tables, position, self._forgotten(tables, position), of_one_table, self.cpu_began)
        changed = [landing for landing in tables if not ready.is_unchanged(landing)]
        for landing in changed:
            landing.spill()
        lands = any(landing.ready.files or landing.ready.rejects.count for landing in changed)
        if not (lands or ready.moves() or self.full_refresh):
            # Whole tables that are there already, or rows of which each was a repetition.
            self._drop_ready(tables)
            self._begin()
            return
        if not of_one_table:
            # Of several tables, those that are as they were have no part in it.
            same = [landing for landing in tables if landing not in changed and landing.name != self.head.table]
            self._drop_ready(same)
            ready = replace(ready, tables=[landing for landing in tables if landing not in same])
        refusals = [r for landing in changed if (r := self._refusal(landing)) is not None]
        if refusals:
            self._refuse(refusals)
        self.head, results = commit_ready(self.lake, ready, self.run_id)
        for name, result in self.results.items():
            after = result.then(results[name]) if name in results else result
            self.results[name] = replace(after, position=self.head.position)
        self._begin()
        self._acknowledge(position)

    def _forgotten(self, tables: Sequence[TableLanding], position: Position) -> list[str]:
        """The entries of the position that go: those that the source names; after a full refresh all that it did not
        reach again; the digest of a whole table once other rows came to it."""
        forget = {*self.forget}
        if self.full_refresh:
            forget = {*self.head.position}
        elif any(each.ready.kind != "whole" and each.ready.rows for each in tables):
            forget.add(DIGEST)
        return [entry for entry in forget if entry in self.head.position and entry not in position]

    def _acknowledge(self, position: Mapping[str, str]) -> None:
        committed = f"What was read of {self.head.source}/{self.head.table} is committed, but "
        offers = "It may offer the same again; the next load goes on after it."
        try:
            self.reading.committed(position)
        except PlatformError as error:
            kind = TransientError if isinstance(error, TransientError) else PlatformError
            raise kind(f"{committed}the source did not acknowledge it: {error} {offers}") from error
        except Exception as error:  # noqa: BLE001 - code of a source may raise anything
            masks = any(landing.mask is not None for landing in self.landings.values())
            safe = safe_exception(error, private=masks)
            raise PlatformError(
                f"{committed}the source failed to acknowledge it: {type(error).__name__}: {safe}. {offers} "
                f"{FAULT_OF_SOURCE}"
            ) from safe
        except BaseException as error:
            error.add_note(f"{committed}the source has not acknowledged it.")
            raise

    def _drop_ready(self, tables: list[TableLanding]) -> None:
        for landing in tables:
            landing.drop()
            landing.begin(landing.columns.before)

    def _refusal(self, landing: TableLanding) -> Refusal | None:
        """Why what is ready of a table must not land, if there is a reason."""
        reason = _too_many_rejects(landing, landing.ready)
        if reason is None and landing.ready.kind == "whole" and not self.full_refresh:
            before = ledger.last_whole_rows(self.lake, landing.source, landing.name) if landing.head.number else None
            reason = _too_few_rows(landing, before)
        return None if reason is None else Refusal(landing, landing.ready, reason)

    def _refuse(self, refusals: Sequence[Refusal]) -> NoReturn:
        """Record the refusal of some tables, and raise LoadRefusedError."""
        commit_refusals(self.lake, refusals, self.run_id, self.cpu_began)
        reasons = " ".join(f"{refusal.landing.label}: {refusal.reason}" for refusal in refusals)
        refused = {refusal.landing.name for refusal in refusals}
        others = [name for name in self.landings if name not in refused]
        if others:
            more = f" and {len(others) - 10} more" if len(others) > 10 else ""
            reasons += (
                f" The other tables of the same reading ({', '.join(others[:10])}{more}) wait for it, for they share a "
                "position: correct it, or take the table out of defs.yaml."
            )
        raise LoadRefusedError(reasons)

    def close(self) -> None:
        """Remove the files of what was not committed."""
        for landing in self.landings.values():
            landing.close()


def _both(first: PlatformError, second: PlatformError) -> PlatformError:
    """One error that says both; it is transient if both are."""
    transient = isinstance(first, TransientError) and isinstance(second, TransientError)
    return (TransientError if transient else PlatformError)(f"{first} Besides: {second}")


def _too_many_rejects(landing: TableLanding, part: Part) -> str | None:
    rejected = part.rejects.count
    if not rejected or rejected <= landing.table.refuse_above * part.records:
        return None
    return (
        f"{rejected:,} of {part.records:,} records could not be read, more than the "
        f"{landing.table.refuse_above:.0%} that `refuse_above` allows: {part.rejects.commonest()}. Nothing was "
        f"loaded; a sample of the records is in quarantine (`dp quarantine show {landing.label}`)."
    )


def _too_few_rows(landing: TableLanding, before: int | None) -> str | None:
    rows = landing.ready.rows
    if before is None or rows >= landing.table.shrink_limit * before:
        return None
    return (
        f"the full refresh holds {rows:,} rows where the last one held {before:,}: less than the "
        f"{landing.table.shrink_limit:.0%} that `shrink_limit` asks for. Nothing was loaded. If the table really "
        f"shrank, load it with: dp run {landing.label} --full-refresh."
    )
