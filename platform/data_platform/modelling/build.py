"""Build, audit, publish: dbt computes the models into files that nobody sees, from the lakehouse as it stood when the
build began; the contracts are held against what it computed, and only if all passes does one short commit publish it.
No lock is held before that commit. How dbt is run is in `dbt`, how a model is computed in `landing`, how it is
published in `lakehouse.publish`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from data_platform.contracts.contract import Contract, name_of
from data_platform.contracts.relation import audit_relation
from data_platform.contracts.violations import Violation, counted, fatal
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.ledger import Audit
from data_platform.lakehouse.publish import Change, publish
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import MODELLED
from data_platform.lakehouse.transaction import CommitError, commit, discard
from data_platform.modelling import dbt, lineage
from data_platform.modelling.landing import Landing
from data_platform.modelling.pin import MEMORY, Pin, open_pinned, pinned, show
from data_platform.modelling.views import replace_views

WITHOUT_UNIT_TESTS = ("--exclude-resource-type", "unit_test")
"""Unit tests are about the SQL, not about the data: they are the developers' and CI's."""

FAILED = ("error", "fail", "runtime error")
NOT_BUILT = "Not built"
MESSAGE_CHARACTERS = 200


@dataclass(frozen=True)
class ModelResult:
    """What became of one model. `rows_failed` counts the audited rows that break their contract; `waits_for` are tables
    that do not exist yet, without which it was not built."""

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
    waits_for: Sequence[str] = ()


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
    """Build the selected models, audit them, and publish all of them if all passed, none otherwise. Models that are
    built from a table which does not exist yet are left out, and stay as they are; their results say what they wait
    for.

    `full_refresh` builds incremental models from nothing. Raises PlatformError when nothing could be built (all
    selected models wait for a table, a model that they read was never published, dbt cannot run), ConcurrentStepError
    when another build published one of the models meanwhile.
    """
    started = datetime.now(UTC)
    ledger.ensure_ledger(lake)
    replace_views(lake)
    selected = lineage.in_order(manifest, selected)
    flags = ["--full-refresh"] if full_refresh else []
    with pinned(lake) as pin, open_pinned(pin) as reader, _discarded(lake, pin) as keep:
        snapshot = current_snapshot(reader.connection)
        steps = ledger.input_steps(reader)
        waiting = lineage.waiting(lineage.input_ancestors(manifest), steps)
        left_out = [_left_out(model, waiting[model]) for model in selected if model in waiting]
        selected = _buildable(selected, waiting)
        _require_published(reader, manifest, selected)
        about = lineage.tested_models(manifest, selected, set(waiting).union(*waiting.values()))
        skipped = sorted(set(lineage.tested_models(manifest, selected, ())) - set(about))
        if log is not None:
            for test in skipped:
                log(f"The test {manifest['nodes'][test]['name']} is left out: it reads what does not exist yet.")
        tests, left = ([".".join(manifest["nodes"][test]["fqn"]) for test in each] for each in (about, skipped))
        # dbt runs each test that reads one of the selected models, unless it is told not to.
        without = ["--exclude", *left] if left else []
        arguments = [*WITHOUT_UNIT_TESTS, *flags, "--select", *selected, *tests, *without]
        nodes = dbt.build(project, lake.settings, pin.folder, arguments, log)
        landings = pin.landings
        for landing in landings.values():
            show(reader.connection, landing.model, landing.query)
        results = [_tested(model, nodes, about) for model in selected]
        results = [
            _audited(reader, result, contracts.get(result.model), landings.get(result.model)) for result in results
        ]
        verdicts = [_verdict(result, contracts.get(result.model), run_id) for result in results]
        if not all(result.passed for result in results):
            commit(lake, lambda connection: ledger.record_audit(connection, *verdicts))
            return [*results, *left_out]
        taken = taken_in(reader, manifest, selected, steps)
        changes = [_change(landings[one.model], taken[one.model], one.seconds) for one in results]
        keep.extend(change.rows.path for change in changes if change.rows.rows)
        before = ledger.published(reader)
        publication = publish(lake, changes, snapshot, before, run_id=run_id, started=started, verdicts=verdicts)
    published = [replace(result, published=True, publication=publication, snapshot=snapshot) for result in results]
    return [*published, *left_out]


@contextmanager
def _discarded(lake: Lakehouse, pin: Pin) -> Iterator[list[str]]:
    """Remove the files of the models that were computed on a pin, except those that the block says are to stay: all of
    them if it fails, unless it may be unknown whether a commit took place: it failed, or was interrupted."""
    keep: list[str] = []
    try:
        yield keep
    except CommitError:
        raise
    except Exception:
        keep.clear()
        raise
    finally:
        for landing in pin.landings.values():
            if landing.rows.path not in keep:
                discard(lake, landing.rows.path)


def _left_out(model: str, tables: Sequence[str]) -> ModelResult:
    verdict = f"Left out: it waits for {', '.join(tables)}, of which there is nothing yet."
    return ModelResult(model, True, verdict, waits_for=tables)


def _buildable(selected: Sequence[str], waiting: Mapping[str, Sequence[str]]) -> list[str]:
    """The selected models that do not wait for a table. Raises PlatformError if all do."""
    buildable = [model for model in selected if model not in waiting]
    if not buildable:
        missing = sorted({table for model in selected for table in waiting[model]})
        raise PlatformError(
            f"The models need tables that do not exist yet: {', '.join(missing)}. Make them first "
            f"(`dp run {lineage.asset_name(missing[0])}`), or select models that do not need them."
        )
    return buildable


def _require_published(reader: Lakehouse, manifest: Mapping[str, Any], selected: Sequence[str]) -> None:
    """Models that are read but not built again are read as they are published."""
    direct = lineage.parents(manifest)
    published = ledger.published(reader)
    for model in selected:
        for parent in sorted(direct[model].models - set(selected)):
            if parent not in published:
                raise PlatformError(
                    f"{model} is built from {parent}, which is not published yet. Build both: "
                    f"`dp run modelled/{parent} modelled/{model}`."
                )


def taken_in(
    reader: Lakehouse, manifest: Mapping[str, Any], selected: Sequence[str], steps: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """The last step that each of the selected models, just built, took in of each table. A table that it reads through
    a model which was not built again is as old as that model."""
    direct = lineage.parents(manifest)
    published = ledger.published(reader)
    taken: dict[str, dict[str, int]] = {}
    for model in lineage.in_order(manifest, selected):
        own = {table: steps[table] for table in direct[model].inputs}
        for parent in direct[model].models:
            for table, step in (taken[parent] if parent in taken else published[parent].built_from).items():
                own[table] = min(step, own.get(table, step))
        taken[model] = own
    return taken


def _change(landing: Landing, taken: Mapping[str, int], seconds: float) -> Change:
    return Change(
        landing.model,
        landing.columns,
        landing.rows,
        landing.total,
        taken,
        landing.replaces,
        landing.deletes,
        seconds,
    )


def _tested(model: str, nodes: Sequence[dbt.NodeResult], about: Mapping[str, Sequence[str]]) -> ModelResult:
    """What dbt says of a model: whether it was built, and which of its tests failed. `about` has the models of each
    test."""
    built = [node for node in nodes if node.unique_id.split(".")[::2] == ["model", model]]
    tests = [node for node in nodes if model in about.get(node.unique_id, ())]
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
    reader: Lakehouse, result: ModelResult, contract: type[Contract] | None, landing: Landing | None
) -> ModelResult:
    """The contract held against the rows that are new, so that the cost follows the increment; uniqueness against the
    model as it will be."""
    if contract is None or landing is None or result.verdict.startswith(NOT_BUILT):
        return result
    rows = f"SELECT * FROM read_parquet({literal(landing.rows.path)})"
    try:
        verdict = audit_relation(reader, quote(MEMORY, MODELLED, result.model), contract, rows=rows)
    except PlatformError as error:
        return replace(result, passed=False, verdict=f"{result.verdict} {error}")
    outcome = (
        f"satisfy {name_of(contract)}."
        if verdict.passed
        else f"audited, {counted(verdict.rows_failed)} break {name_of(contract)}."
    )
    return replace(
        result,
        passed=result.passed and verdict.passed,
        verdict=f"{result.verdict} {verdict.rows:,} rows {outcome}",
        rows_audited=verdict.rows,
        violations=[*result.violations, *verdict.violations],
        rows_failed=verdict.rows_failed,
    )


def _verdict(result: ModelResult, contract: type[Contract] | None, run_id: str) -> Audit:
    return Audit(
        kind="build",
        layer=MODELLED,
        source=None,
        table=result.model,
        run_id=run_id,
        contract=name_of(contract) if contract else None,
        audited_at=datetime.now(UTC),
        passed=result.passed,
        rows_checked=result.rows_audited,
        rows_failed=result.rows_failed,
        violations=result.violations,
    )
