"""The staging step: raw rows become staged rows, in one transaction. Stage, audit, keep the newest version of each
key, and show it all at once; what failed is in quarantine. How values are repaired is in the expressions beside this
module, which raw rows are read in `choice`, how rows are judged in `contracts.audit`, which version wins in `merge`.

Audited batches are written to a file of the staged table that nobody sees. If no key occurs twice and none is staged
already, that file is registered as it is; else the newest versions are written once more. So memory is bounded
whatever the size, and the cost of an increment follows the increment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.contracts.audit import ContractError
from data_platform.contracts.contract import contract_columns, name_of
from data_platform.contracts.quarantine import Selection, ensure_quarantine, require_quarantine, write_quarantine
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote_all
from data_platform.lakehouse.tables import STAGED, column_types, duckdb_types, ensure_table
from data_platform.lakehouse.transaction import DataFile, commit, discard, discarded_on_failure, register, write_file
from data_platform.staging.batches import lookup, quarantine_entries, raw_batches, stage_batch
from data_platform.staging.choice import Input, choose
from data_platform.staging.closing import find_closing, later_version
from data_platform.staging.merge import Merge, key_bounds, merge
from data_platform.staging.recipe import ADDED, Recipe, StagingResult, staged_schema


class StagingRefusedError(PlatformError):
    """The step was refused: the staged table is as it was, and the rows that failed are in quarantine. `result` says
    how many were read and which rules they broke."""

    def __init__(self, reason: str, result: StagingResult) -> None:
        super().__init__(reason)
        self.result = result


def stage_table(
    lake: Lakehouse, recipe: Recipe, *, run_id: str, rebuild: bool = False, loads: tuple[int, int] | None = None
) -> StagingResult:
    """Stage what landed since the last step and return what was done; nothing at all if nothing landed, except that
    a table whose source is empty is made, without rows, so that models can be built from it.

    `rebuild` stages everything again from raw and replaces the table; `loads` stages an earlier range of load ids
    again (a backfill: newest still wins). Raises StagingRefusedError, ContractError or ConcurrentStepError; the
    staged table is then as it was.
    """
    head = ledger.head(lake, "staged", recipe.source, recipe.table)
    chosen = choose(lake, recipe, head, rebuild=rebuild, loads=loads)
    if chosen is not None:
        return _step(lake, recipe, head, chosen, run_id)
    loaded = ledger.landed_without_rows(lake, recipe.source, recipe.table) if not head.number else 0
    if loaded:
        nothing_yet = Input("rows", "false", 1, loaded, replaces=False)
        step = _begin(lake, recipe, head, nothing_yet, run_id)
        nothing = StagingResult(recipe.source, recipe.table, step.staging_id, load_from=1, load_to=loaded)
        return _land(step, Merge(nothing, None, deletes=False), [], None, "false")
    return StagingResult(recipe.source, recipe.table, head.number)


def replay(lake: Lakehouse, recipe: Recipe, selection: Selection, *, run_id: str) -> StagingResult:
    """Stage the raw rows of open quarantine entries again; those that pass leave quarantine, the others stay.

    Raises PlatformError if the table has no quarantine, else as `stage_table` does.
    """
    head = ledger.head(lake, "staged", recipe.source, recipe.table)
    where, parameters = selection.where()
    connection = lake.connection
    require_quarantine(connection, recipe.source, recipe.table)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE replayed AS SELECT load_id, row FROM {recipe.quarantine.sql} "
        f"WHERE layer = 'staged' AND {where}",
        parameters,
    )
    bounds = connection.execute("SELECT min(load_id), max(load_id), count(*) FROM replayed").fetchone()
    if bounds is None or not bounds[2]:
        return StagingResult(recipe.source, recipe.table, head.number)
    condition = (
        f"_load_id BETWEEN {bounds[0]} AND {bounds[1]} AND (_load_id, _row) IN "
        f"(SELECT (load_id, row) FROM {recipe.quarantine.sql} WHERE layer = 'staged' AND {where})"
    )
    chosen = Input("replay", condition, bounds[0], bounds[1], replaces=False, parameters=tuple(parameters))
    return _step(lake, recipe, head, chosen, run_id)


@dataclass(frozen=True)
class _Step:
    """One step under way. `types` are the staged columns as the contract wants them, `stored` as they are."""

    lake: Lakehouse
    recipe: Recipe
    head: ledger.Head
    chosen: Input
    run_id: str
    started: datetime
    schema: pa.Schema
    types: dict[str, str]
    stored: dict[str, str]

    @property
    def staging_id(self) -> int:
        return self.head.number + 1


def _begin(lake: Lakehouse, recipe: Recipe, head: ledger.Head, chosen: Input, run_id: str) -> _Step:
    with lake.reading():
        schema = staged_schema(lake, recipe)
        types = {**duckdb_types(lake.connection, schema), **ADDED}
        stored = column_types(lake.connection, recipe.staged)
    if not chosen.replaces:
        _require_same_contract(recipe, types, stored)
    return _Step(lake, recipe, head, chosen, run_id, datetime.now(UTC), schema, types, stored)


def _step(lake: Lakehouse, recipe: Recipe, head: ledger.Head, chosen: Input, run_id: str) -> StagingResult:
    step = _begin(lake, recipe, head, chosen, run_id)
    written = _write_audited(step)
    files = [written.file] if written.file is not None else []
    with discarded_on_failure(lake, files):
        # Rows that failed before may fail again: that is no reason to keep out those that pass now.
        reason = None if chosen.kind == "replay" else _refusal(recipe, written.result)
        if reason is None:
            merged = merge(lake, recipe, written.file, written.result, exists=bool(step.stored) and not chosen.replaces)
            files += [merged.file] if merged.file is not None else []
            later = later_version(recipe, step.types, merged.file)
            quarantine_file = write_quarantine(lake, recipe.quarantine, written.bad, run_id, step.started, later)
            files += [quarantine_file] if quarantine_file is not None else []
            return _land(step, merged, written.bad, quarantine_file, later)
        quarantine_file = write_quarantine(lake, recipe.quarantine, written.bad, run_id, step.started)
        files += [quarantine_file] if quarantine_file is not None else []
        _land_refusal(step, written.result, quarantine_file, reason)
    if written.file is not None:
        discard(lake, written.file.path)
    raise StagingRefusedError(f"{recipe.source}/{recipe.table}: {reason}", written.result)


def _require_same_contract(recipe: Recipe, types: dict[str, str], stored: dict[str, str]) -> None:
    """Rows staged before a contract changed do not have its new types, nor values in columns that now need them."""
    if not stored:
        return
    nullable = {column.name for column in contract_columns(recipe.contract) if column.nullable}
    changed = [
        f"{column} is {stored[column]}" for column in types if stored.get(column, types[column]) != types[column]
    ]
    changed += [f"{column} is not there" for column in types if column not in stored and column not in nullable]
    if changed:
        raise ContractError(
            f"{recipe.staged} was staged with another contract than {name_of(recipe.contract)} now is: in the table "
            f"{', '.join(changed)}. Nothing was staged. Stage it again from raw: "
            f"`dp run staged/{recipe.source}/{recipe.table} --rebuild`."
        )


@dataclass(frozen=True)
class _Written:
    file: DataFile | None
    bad: list[pl.DataFrame]
    result: StagingResult


def _write_audited(step: _Step) -> _Written:
    """Stage and audit the chosen raw rows batch by batch into one unseen file of the staged table."""
    lake, recipe, chosen = step.lake, step.recipe, step.chosen
    known = lookup(lake.cursor())
    counts = {"read": 0, "staged": 0, "quarantined": 0}
    bad: list[pl.DataFrame] = []
    violations: list[pl.DataFrame] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for raw in raw_batches(lake, recipe.raw, chosen.condition, chosen.parameters):
            audited = stage_batch(raw, recipe, known)
            counts["read"] += len(raw)
            counts["staged"] += len(audited.good)
            violations.append(audited.violations)
            if not audited.bad.is_empty():
                bad.append(quarantine_entries(raw, audited.bad, recipe))
                counts["quarantined"] += len(bad[-1])
            yield from audited.good.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    query = (
        f"SELECT *, {step.staging_id}::BIGINT AS _staging_id, TIMESTAMPTZ '{step.started.isoformat()}' AS _staged_at "
        "FROM incoming"
    )
    file = write_file(lake, recipe.staged, batches(), step.schema, query)
    result = StagingResult(
        recipe.source,
        recipe.table,
        staging_id=step.staging_id,
        load_from=chosen.load_from,
        load_to=chosen.load_to,
        rows_read=counts["read"],
        rows_filtered=max(0, counts["read"] - counts["staged"] - counts["quarantined"]),
        rows_quarantined=counts["quarantined"],
        violations=_summed(violations),
    )
    return _Written(file, bad, result)


def _summed(violations: list[pl.DataFrame]) -> list[dict[str, object]]:
    if not violations:
        return []
    grouped = pl.concat(violations).group_by("column", "check", "fatal")
    summed = grouped.agg(pl.col("rows").sum(), pl.col("value").first())
    return summed.sort("rows", "column", "check", descending=[True, False, False]).to_dicts()


def _refusal(recipe: Recipe, result: StagingResult) -> str | None:
    if not result.rows_quarantined or result.rows_quarantined <= recipe.refuse_above * result.rows_read:
        return None
    worst = [violation for violation in result.violations if violation["fatal"]][:3]
    reasons = "; ".join(f"{v['column'] or 'row'} {v['check']}: {v['rows']:,} rows{_example(v)}" for v in worst)
    return (
        f"{result.rows_quarantined:,} of {result.rows_read:,} rows break the contract {name_of(recipe.contract)}, more "
        f"than the {recipe.refuse_above:.0%} that `refuse_above` allows. The staged table is as it was; the rows are "
        f"in quarantine (`dp quarantine show {recipe.source}/{recipe.table}`). Most frequent: {reasons}."
    )


def _example(violation: Mapping[str, object]) -> str:
    value = violation["value"]
    return "" if value is None else f", such as {value}" if value else ", which are empty"


def _land(
    step: _Step, merged: Merge, bad: list[pl.DataFrame], quarantine_file: DataFile | None, later: str
) -> StagingResult:
    """Rows, position and verdict in one commit."""
    lake, recipe, chosen = step.lake, step.recipe, step.chosen
    staged_to = int(step.head.position.get("load_id", "0"))
    position = {"load_id": str(max(staged_to, chosen.load_to))}
    bounds = key_bounds(lake.connection, recipe.key, "outdated") if merged.deletes else ""
    keys = quote_all(recipe.key)
    closes = _find_closing(step, bad, later)

    def work(connection: duckdb.DuckDBPyConnection) -> StagingResult:
        at = datetime.now(UTC)
        ledger.advance(connection, step.head, position, at)
        result = merged.result
        if chosen.replaces and step.stored:
            gone = connection.execute(f"SELECT count(*) FROM {recipe.staged.sql}").fetchone()
            result = replace(result, rows_deleted=int(gone[0]) if gone else 0)
            if step.stored == step.types:
                connection.execute(f"DELETE FROM {recipe.staged.sql}")
            else:
                connection.execute(f"DROP TABLE {recipe.staged.sql}")
        elif merged.deletes:
            connection.execute(
                f"DELETE FROM {recipe.staged.sql} WHERE {bounds} AND ({keys}) IN (SELECT ({keys}) FROM outdated)"
            )
        ensure_table(connection, recipe.staged, step.types)
        if merged.file is not None:
            register(connection, recipe.staged, [merged.file])
        for status in closes:
            connection.execute(
                f"UPDATE {recipe.quarantine.sql} SET status = $1, resolved_at = $2 WHERE status = 'open' AND "
                "quarantine_id IN (SELECT quarantine_id FROM closing WHERE new_status = $1)",
                [status, at],
            )
        _record(connection, step, result, at, quarantine_file, None)
        return result

    return commit(lake, work)


def _find_closing(step: _Step, bad: list[pl.DataFrame], later: str) -> list[str]:
    chosen = step.chosen
    judged = (
        "(e.load_id, e.row) IN (SELECT (load_id, row) FROM replayed)"
        if chosen.kind == "replay"
        else f"e.load_id BETWEEN {chosen.load_from} AND {chosen.load_to}"
    )
    older = f"e.load_id < {chosen.load_from}" if chosen.kind in ("whole", "rebuild") else "false"
    return find_closing(step.lake, step.recipe, judged=judged, older=older, later=later, failed=bad)


def _land_refusal(step: _Step, result: StagingResult, quarantine_file: DataFile | None, reason: str) -> None:
    """The verdict and the refused rows in one commit; the table and its position stay."""

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        ledger.advance(connection, step.head, {}, at)
        _record(connection, step, result, at, quarantine_file, reason)

    commit(step.lake, work)


def _record(
    connection: duckdb.DuckDBPyConnection,
    step: _Step,
    result: StagingResult,
    at: datetime,
    quarantine_file: DataFile | None,
    reason: str | None,
) -> None:
    recipe = step.recipe
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
            run_id=step.run_id,
            kind=step.chosen.kind,
            status="refused" if reason else "staged",
            started_at=step.started,
            ended_at=at,
            load_from=result.load_from,
            load_to=result.load_to,
            rows_read=result.rows_read,
            rows_filtered=result.rows_filtered,
            rows_quarantined=result.rows_quarantined,
            reason=reason,
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
            run_id=step.run_id,
            contract=name_of(recipe.contract),
            audited_at=at,
            passed=reason is None,
            rows_checked=result.rows_read,
            rows_failed=result.rows_quarantined,
            violations=result.violations,
        ),
    )
