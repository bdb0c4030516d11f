"""Build, audit, publish: dbt builds into the schema `build`, the contracts are held against what it built, and only if
all passes do the published views move, together, to that snapshot. How dbt is run is in `dbt`, how views move in
`lakehouse.publish`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from data_platform.contracts.contract import Contract, name_of
from data_platform.contracts.relation import audit_relation
from data_platform.contracts.violations import Violation, counted, fatal
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.publish import BUILD, publish
from data_platform.lakehouse.sql import literal, quote_all
from data_platform.lakehouse.tables import MODELLED, Table, column_types
from data_platform.lakehouse.transaction import commit
from data_platform.modelling import dbt

WITHOUT_UNIT_TESTS = ("--exclude-resource-type", "unit_test")
"""Unit tests are about the SQL, not about the data: they are the developers' and CI's."""

FAILED = ("error", "fail", "runtime error")
BUILT = ("model", "snapshot")
NOT_BUILT = "Not built"
MESSAGE_CHARACTERS = 200


@dataclass(frozen=True)
class ModelResult:
    """What became of one model. `rows_failed` counts the audited rows that break their contract."""

    model: str
    passed: bool
    verdict: str
    published: bool = False
    publication: int = 0
    snapshot: int = 0
    tests: int = 0
    rows_audited: int = 0
    seconds: float = 0.0
    violations: Sequence[Violation] = ()
    rows_failed: int = 0


def build_and_publish(
    lake: Lakehouse,
    project: dbt.Project,
    manifest: Mapping[str, Any],
    contracts: Mapping[str, type[Contract]],
    selected: Sequence[str],
    *,
    run_id: str,
    full_refresh: bool = False,
    log: Callable[[str], object] | None = None,
) -> list[ModelResult]:
    """Build the selected models, audit them, and publish all of them if all passed, none otherwise.

    `full_refresh` builds incremental models from nothing. Raises PlatformError when nothing could be built: a staged
    table is missing, a model that the selected ones read is not fit to be read, dbt cannot run.
    """
    ledger.ensure_ledger(lake)
    selected = dbt.in_order(manifest, selected)
    _require_staged(lake, manifest, selected)
    _require_sound(lake, manifest, selected)
    flags = ["--full-refresh"] if full_refresh else []
    # dbt commits once for each model and cannot take turns with our writers by itself.
    with writer_lock(lake.settings):
        steps = ledger.staged_steps(lake)
        nodes = dbt.build(project, lake.settings, [*WITHOUT_UNIT_TESTS, *flags, "--select", *selected], log)
        snapshot = current_snapshot(lake.connection)
    results = [_tested(model, manifest, nodes, selected) for model in selected]
    results = [_audited(lake, manifest, result, contracts.get(result.model), snapshot) for result in results]
    _record(lake, results, contracts, run_id)
    if not all(result.passed for result in results):
        return results
    publication = publish(lake, taken_in(lake, manifest, selected, steps), snapshot, run_id=run_id)
    return [replace(result, published=True, publication=publication, snapshot=snapshot) for result in results]


def _require_staged(lake: Lakehouse, manifest: Mapping[str, Any], selected: Sequence[str]) -> None:
    ancestors = dbt.staged_ancestors(manifest)
    steps = ledger.staged_steps(lake)
    missing = sorted({table for model in selected for table in ancestors[model] if table not in steps})
    if missing:
        raise PlatformError(
            f"The models need staged tables that do not exist yet: {', '.join(missing)}. Load them first "
            f"(`dp run {missing[0].split('/')[0]}`), or select models that do not need them."
        )


def _require_sound(lake: Lakehouse, manifest: Mapping[str, Any], selected: Sequence[str]) -> None:
    """Models that are read but not built again lie in `build` as they were last built: that must have passed."""
    direct = dbt.parents(manifest)
    published = ledger.published(lake)
    verdicts = {one.table: one.passed for one in ledger.last_verdicts(lake, "build")}
    for model in selected:
        for parent in sorted(direct[model].models - set(selected)):
            if parent in published and verdicts.get(parent, True):
                continue
            why = (
                "broke its contract or its tests when it was last built" if parent in published else "is not built yet"
            )
            raise PlatformError(
                f"{model} is built from {parent}, which {why}. Build both: `dp run modelled/{parent} modelled/{model}`."
            )


def taken_in(
    lake: Lakehouse, manifest: Mapping[str, Any], selected: Sequence[str], steps: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """The last staging step that each of the selected models, just built, took in of each staged table. A table that
    it reads through a model which was not built again is as old as that model."""
    direct = dbt.parents(manifest)
    published = ledger.published(lake)
    taken: dict[str, dict[str, int]] = {}
    for model in dbt.in_order(manifest, selected):
        own = {table: steps[table] for table in direct[model].staged}
        for parent in direct[model].models:
            for table, step in (taken[parent] if parent in taken else published[parent].built_from).items():
                own[table] = min(step, own.get(table, step))
        taken[model] = own
    return taken


def _tested(
    model: str, manifest: Mapping[str, Any], nodes: Sequence[dbt.NodeResult], selected: Sequence[str]
) -> ModelResult:
    """What dbt says of a model: whether it was built, and which of its tests failed."""
    built = [node for node in nodes if node.unique_id.split(".")[0] in BUILT and node.unique_id.split(".")[2] == model]
    tests = [node for node in nodes if model in dbt.tested_models(manifest, node.unique_id, selected)]
    violations = [
        Violation(
            "",
            f"dbt test {node.unique_id.split('.')[2]}",
            node.failures,
            node.message[:MESSAGE_CHARACTERS],
            node.status in FAILED,
        )
        for node in tests
        if node.status in (*FAILED, "warn")
    ]
    seconds = sum(node.seconds for node in (*built, *tests))
    if not built or built[0].status != "success":
        why = built[0].message if built and built[0].message else "skipped: something that it needs failed"
        return ModelResult(
            model, False, f"{NOT_BUILT}: {why}", tests=len(tests), seconds=seconds, violations=violations
        )
    broken = fatal(violations)
    verdict = f"{len(broken)} of {len(tests)} dbt tests failed." if broken else f"All {len(tests)} dbt tests passed."
    return ModelResult(model, not broken, verdict, tests=len(tests), seconds=seconds, violations=violations)


def _audited(
    lake: Lakehouse,
    manifest: Mapping[str, Any],
    result: ModelResult,
    contract: type[Contract] | None,
    snapshot: int,
) -> ModelResult:
    if contract is None or result.verdict.startswith(NOT_BUILT):
        return result
    # What is audited is what will be published, whatever another build makes of the table meanwhile.
    relation = f"{Table(BUILD, result.model).sql} AT (VERSION => {snapshot})"
    try:
        # A transaction of each model's own: one that cannot be read would spoil it for those after it.
        with lake.reading():
            rows = changed_rows(lake, manifest, result.model, snapshot)
            verdict = audit_relation(lake, relation, contract, rows=rows)
    except PlatformError as error:
        return replace(result, passed=False, verdict=f"{result.verdict} {error}")
    told = f"{result.verdict} {verdict.rows:,} rows " + (
        f"satisfy {name_of(contract)}."
        if verdict.passed
        else f"audited, {counted(verdict.rows_failed)} break {name_of(contract)}."
    )
    return replace(
        result,
        passed=result.passed and verdict.passed,
        verdict=told,
        rows_audited=verdict.rows,
        violations=[*result.violations, *verdict.violations],
        rows_failed=verdict.rows_failed,
    )


def changed_rows(lake: Lakehouse, manifest: Mapping[str, Any], model: str, snapshot: int) -> str:
    """SQL for the rows of a model, as of a snapshot, that were not audited before: of an incremental model those
    inserted since it was published, so that the audit's cost follows the increment; else all.

    Rows that came after the publication and are gone again by `snapshot` (a build that was refused, then repaired)
    are left out: only the newest version of each row that is still there counts.
    """
    table = Table(BUILD, model)
    now = f"{table.sql} AT (VERSION => {snapshot})"
    last = ledger.published(lake).get(model)
    if last is None or dbt.materialization(manifest, model) != "incremental":
        return f"SELECT * FROM {now}"
    columns = quote_all(column_types(lake.connection, table))
    return (
        f"SELECT {columns} FROM ducklake_table_insertions({literal(CATALOG)}, {literal(BUILD)}, {literal(model)}, "
        f"{last.snapshot_id + 1}, {snapshot}) WHERE rowid IN (SELECT rowid FROM {now}) "
        "QUALIFY row_number() OVER (PARTITION BY rowid ORDER BY snapshot_id DESC) = 1"
    )


def _record(
    lake: Lakehouse, results: Sequence[ModelResult], contracts: Mapping[str, type[Contract]], run_id: str
) -> None:
    """The verdicts, whichever way they went."""

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        ledger.record_audit(
            connection,
            *(
                ledger.Audit(
                    kind="build",
                    layer=MODELLED,
                    source=None,
                    table=result.model,
                    run_id=run_id,
                    contract=name_of(contracts[result.model]) if result.model in contracts else None,
                    audited_at=at,
                    passed=result.passed,
                    rows_checked=result.rows_audited,
                    rows_failed=result.rows_failed,
                    violations=result.violations,
                )
                for result in results
            ),
        )

    commit(lake, work)
