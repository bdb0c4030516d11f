"""The staging step: raw rows become staged rows, in one transaction. Stage, audit, keep the newest version of each
key, and show it all at once; what failed is in quarantine. How values are repaired is in `cleaning`, which raw rows
are read in `choice`, how they are staged and audited in `passing`, what was made of them before in `restaging`, which
version wins in `merge`, what is kept of the others in `history`, which quarantine entries are closed in `closing`; the
message of a refused step is in `refusal`.

Audited batches are written to a file that nobody sees. If no key occurs twice and none is staged already, that file is
registered as it is; else the newest versions are written once more. So memory is bounded whatever the size, and the
cost of an increment follows the increment.
"""

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import duckdb

from data_platform.contracts.contract import name_of
from data_platform.contracts.quarantine import (
    Selection,
    close_found,
    ensure_quarantine,
    require_open,
    require_quarantine,
    spooled_entries,
    write_entries,
    write_quarantine,
)
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.sql import quote_all
from data_platform.lakehouse.tables import STAGED, ensure_table, filtered, key_bounds
from data_platform.lakehouse.transaction import (
    UNREADABLE,
    ConcurrentStepError,
    DataFile,
    TempRelation,
    commit,
    copy_to,
    discard,
    discarded_on_failure,
    new_path,
    register,
    temp_relation,
)
from data_platform.lakehouse.usage import used_since
from data_platform.staging.choice import Input, choose
from data_platform.staging.closing import Closing, find_closing
from data_platform.staging.history import Versions, land_versions, require_versions
from data_platform.staging.mending import require_raw, rows_by_catalog, take_out_damaged
from data_platform.staging.merge import ROWID, Merge, before, merge, rowid
from data_platform.staging.passing import pass_over
from data_platform.staging.plan import Plan, plan_step
from data_platform.staging.recast import as_wanted
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.refusal import refusal
from data_platform.staging.restaging import find_former
from data_platform.staging.tombstones import without_void
from data_platform.staging.versions import write_versions


class StagingRefusedError(PlatformError):
    """The step was refused: the staged table is as it was, and rows of each reason are in quarantine. `result` says
    how many were read and which rules they broke."""

    def __init__(self, reason: str, result: StagingResult) -> None:
        super().__init__(reason)
        self.result = result


def stage_table(
    lake: Lakehouse, recipe: Recipe, *, run_id: str, rebuild: bool = False, loads: tuple[int, int] | None = None
) -> StagingResult:
    """Stage what landed since the last step and return what was done; nothing at all if nothing landed, except that
    a table whose source is empty is made, without rows, so that models can be built from it.

    `rebuild` stages everything again from raw and replaces the table, even if files of it are lost; `loads` stages an
    earlier range of load ids again (a backfill: newest still wins). Raises StagingRefusedError, ContractError or
    ConcurrentStepError, and PlatformError if raw files that a rebuild needs are lost; the staged table is then as it
    was.
    """
    with ledger.reading(lake) as at_once:
        head = ledger.head(at_once, "staged", recipe.source, recipe.table)
        chosen = choose(at_once, recipe, head, rebuild=rebuild, loads=loads)
        read = chosen or _of_empty_source(at_once, recipe, head)
        plan = plan_step(lake, recipe, head, read, run_id) if read is not None and not rebuild else None
    if read is not None and rebuild:
        require_raw(lake, recipe, read)
        take_out_damaged(lake, recipe)
        with lake.reading():
            plan = plan_step(lake, recipe, head, read, run_id)
    if plan is None:
        return StagingResult(recipe.source, recipe.table, head.number)
    if chosen is not None:
        return _step(plan)
    require_versions(plan)
    first, last = plan.chosen.load_from, plan.chosen.load_to
    nothing = StagingResult(recipe.source, recipe.table, plan.staging_id, load_from=first, load_to=last)
    return _land(plan, Merge(nothing), Versions(), Closing(), None, None)


def _of_empty_source(lake: Lakehouse, recipe: Recipe, head: ledger.Head) -> Input | None:
    """The loads of a table that was never staged, as its source was empty each time."""
    loaded = ledger.landed_without_rows(lake, recipe.source, recipe.table) if not head.number else 0
    return Input("rows", "false", 1, loaded, replaces=False) if loaded else None


def replay(lake: Lakehouse, recipe: Recipe, selection: Selection, *, run_id: str) -> StagingResult:
    """Stage the raw rows of open quarantine entries again, in the place of what was made of them before; those that
    pass leave quarantine, the others stay. Entries of loads that are not staged, as they were refused, are passed over.

    Raises PlatformError if the table has no quarantine, else as `stage_table` does.
    """
    head = ledger.head(lake, "staged", recipe.source, recipe.table)
    require_quarantine(lake.connection, recipe.source, recipe.table)
    where, parameters = selection.where()
    # Rows of loads that are not staged yet, as their step was refused, are staged by the next step.
    staged_to = int(head.position.get("load_id", "0"))
    where += " AND load_id <= ?"
    parameters.append(staged_to)
    entries = f"SELECT load_id, row FROM {recipe.quarantine.sql} WHERE layer = 'staged' AND {where}"
    with temp_relation(lake.connection, entries, parameters) as replayed:
        bounds = lake.connection.execute(f"SELECT min(load_id), max(load_id) FROM {replayed.sql}").fetchone()
        if bounds is None or not replayed.rows:
            return StagingResult(recipe.source, recipe.table, head.number)
        first, last = bounds
        of_loads = f"_load_id BETWEEN {first} AND {last}"
        again = f"{of_loads} AND (_load_id, _row) IN (SELECT (load_id, row) FROM {replayed.sql})"
        # Raw rows are read through a connection of their own, which does not see this one's temporary tables.
        condition = f"{of_loads} AND (_load_id, _row) IN ({entries})"
        # A full refresh that has landed and is not staged yet has replaced nothing yet.
        since = ledger.whole_before(lake, recipe.source, recipe.table, staged_to + 1) or 1
        chosen = Input("replay", condition, first, last, False, tuple(parameters), since, again)
        with lake.reading():
            plan = plan_step(lake, recipe, head, chosen, run_id)
        return _step(plan, replayed)


def _step(plan: Plan, replayed: TempRelation | None = None) -> StagingResult:
    lake, run_id = plan.lake, plan.run_id
    require_versions(plan)
    files: list[DataFile] = []
    # A file is removed for what went wrong first, not for what comes of it when temporary tables are dropped.
    with ExitStack() as temporary, discarded_on_failure(lake, files):
        spool = temporary.enter_context(spooled_entries(lake))
        passed = pass_over(plan, spool, _unseen_path(plan, temporary))
        files += [passed.accepted] if passed.accepted is not None else []
        if not passed.refused:
            accepted = without_void(plan, passed.accepted, temporary)
            former = find_former(plan, accepted, spool, temporary)
            spool.close()
            merged = merge(plan, accepted, former, passed.result, temporary)
            files += [merged.file] if merged.file is not None else []
            versions = write_versions(plan, accepted, merged, temporary)
            files += versions.files
            widened = _write_widened(plan)
            files += [widened] if widened is not None else []
            closing = find_closing(plan, merged.newest, spool, replayed, former.judged, temporary)
            entries = write_entries(lake, plan.recipe.quarantine, spool, run_id, plan.started, closing.spooled)
            files += [entries] if entries is not None else []
            return _land(plan, merged, versions, closing, entries, replayed, widened)
        sample = write_quarantine(lake, plan.recipe.quarantine, [passed.sample], run_id, plan.started)
        files += [sample] if sample is not None else []
        reason = refusal(plan.recipe, passed.result, passed.rows)
        _land_refusal(plan, passed.result, sample, reason)
    if passed.accepted is not None:
        discard(lake, passed.accepted.path)
    raise StagingRefusedError(f"{plan.recipe.name}: {reason}", passed.result)


def _unseen_path(plan: Plan, temporary: ExitStack) -> str | None:
    """Where audited rows are written: to a file of the staged table (None), which may be registered as it is, or, if
    they have more columns than it, to the spool folder."""
    if plan.recipe.direct:
        return None
    path = plan.lake.settings.spool / f"accepted-{uuid4()}.parquet"
    temporary.callback(path.unlink, missing_ok=True)
    return str(path)


def _write_widened(plan: Plan) -> DataFile | None:
    """The staged rows written anew, if the column that orders their versions has become wider in the source."""
    if not plan.widened:
        return None
    query = f"SELECT {as_wanted(plan.stored, plan.widened)} FROM {plan.recipe.staged.sql}"
    return copy_to(plan.lake, query, new_path(plan.lake, plan.recipe.staged))


def _land(
    plan: Plan,
    merged: Merge,
    versions: Versions,
    closing: Closing,
    quarantine_file: DataFile | None,
    replayed: TempRelation | None,
    widened: DataFile | None = None,
) -> StagingResult:
    """Rows, position and verdict in one commit."""
    lake, recipe, chosen = plan.lake, plan.recipe, plan.chosen
    keys = ""
    if merged.outdated is not None:
        keys = key_bounds(lake.connection, recipe.key, merged.outdated.sql)
    allow_names(lake, recipe.staged, plan.types)

    def work(connection: duckdb.DuckDBPyConnection, *, unread: bool = False) -> StagingResult:
        at = datetime.now(UTC)
        ledger.advance(connection, plan.head, plan.position, at)
        if replayed is not None:
            require_open(connection, recipe.quarantine, replayed)
        result = merged.result
        if unread:
            result = replace(result, rows_deleted=rows_by_catalog(lake, recipe))
            connection.execute(f"DROP TABLE {recipe.staged.sql}")
        elif chosen.replaces and plan.stored:
            row = connection.execute(f"SELECT count(*) FROM {recipe.staged.sql}").fetchone()
            result = replace(result, rows_deleted=int(row[0]) if row else 0)
            if plan.stored == plan.types:
                connection.execute(f"DELETE FROM {recipe.staged.sql}")
            else:
                connection.execute(f"DROP TABLE {recipe.staged.sql}")
        if plan.widened:
            connection.execute(f"DROP TABLE {recipe.staged.sql}")
            ensure_table(connection, recipe.staged, plan.widened)
            register(connection, recipe.staged, [widened] if widened is not None else [])
        _delete_gone(connection, plan, merged, keys)
        ensure_table(connection, recipe.staged, plan.types)
        if merged.file is not None:
            register(connection, recipe.staged, [merged.file])
        land_versions(connection, plan, versions)
        if closing.entries is not None and closing.entries.rows:
            close_found(connection, recipe.quarantine, closing.entries, at)
        _record(connection, plan, result, at, quarantine_file, None)
        return result

    try:
        return commit(lake, work)
    except UNREADABLE:
        if not (chosen.replaces and plan.stored):
            raise
        # A file of the table is lost; its rows go without being read.
        return commit(lake, partial(work, unread=True))


def _delete_gone(connection: duckdb.DuckDBPyConnection, plan: Plan, merged: Merge, bounds: str) -> None:
    """Delete the staged rows that go before the new ones come, within the caller's transaction. Raises
    ConcurrentStepError if the outdated ones are no longer there as they were compared."""
    recipe, outdated = plan.recipe, merged.outdated
    delete = f"DELETE FROM {recipe.staged.sql} WHERE"
    if merged.truncated is not None:
        connection.execute(f"{delete} {before(plan, merged.truncated)}")
    if outdated is not None:
        if rowid(plan) == "rowid":
            # Whatever the key is, no column has to be read again.
            condition = f"rowid IN (SELECT {ROWID} FROM {filtered(outdated.sql, [ROWID])})"
        else:
            keys = quote_all(recipe.key)
            condition = f"{bounds} AND ({keys}) IN (SELECT ({keys}) FROM {outdated.sql})"
        found = connection.execute(f"{delete} {condition}").fetchone()
        if found != (outdated.rows,):
            raise ConcurrentStepError(
                f"{recipe.name}: of {outdated.rows} staged rows that have a new version, {found[0] if found else 0} "
                "are there now: another program changed the staged table meanwhile. Nothing was staged; run it again."
            )
    if merged.again is not None:
        connection.execute(f"{delete} {merged.again}")


def _land_refusal(plan: Plan, result: StagingResult, quarantine_file: DataFile | None, reason: str) -> None:
    """The verdict and the rows that are kept in one commit; the table and its position stay."""

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        ledger.advance(connection, plan.head, {}, at)
        _record(connection, plan, result, at, quarantine_file, reason)

    commit(plan.lake, work)


def _record(
    connection: duckdb.DuckDBPyConnection,
    plan: Plan,
    result: StagingResult,
    at: datetime,
    quarantine_file: DataFile | None,
    reason: str | None,
) -> None:
    recipe, usage = plan.recipe, used_since(plan.cpu_began)
    if quarantine_file is not None:
        ensure_quarantine(connection, recipe.quarantine)
        register(connection, recipe.quarantine, [quarantine_file])
    figures = ("rows_inserted", "rows_updated", "rows_deleted", "rows_superseded", "bytes")
    ledger.record_staging(
        connection,
        ledger.Staging(
            source=recipe.source,
            table=recipe.table,
            staging_id=result.staging_id,
            run_id=plan.run_id,
            kind=plan.chosen.kind,
            status="refused" if reason else "staged",
            started_at=plan.started,
            ended_at=at,
            load_from=result.load_from,
            load_to=result.load_to,
            rows_read=result.rows_read,
            rows_filtered=result.rows_filtered,
            rows_quarantined=result.rows_quarantined,
            rows_removals=result.rows_removals,
            reason=reason,
            cpu_seconds=usage.cpu_seconds,
            peak_bytes=usage.peak_bytes,
            **{figure: 0 if reason else getattr(result, figure) for figure in figures},
        ),
    )
    ledger.record_audit(
        connection,
        ledger.Audit(
            kind="step",
            layer=STAGED,
            source=recipe.source,
            table=recipe.table,
            step_id=result.staging_id,
            run_id=plan.run_id,
            contract=name_of(recipe.contract),
            audited_at=at,
            passed=reason is None,
            rows_checked=result.rows_read,
            rows_failed=result.rows_quarantined,
            violations=result.violations,
        ),
    )
