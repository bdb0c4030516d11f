"""Build, audit, publish: dbt builds into the schema `build`, the contracts are held against what it built, and only if
all passes do the published views move, together, to that snapshot. How dbt is run is in `dbt`, how views move in
`lakehouse.publish`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl

from data_platform.contracts.audit import audit
from data_platform.contracts.contract import Contract, columns_of, name_of, schema_of
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.publish import BUILD, publish, published_snapshots
from data_platform.lakehouse.sql import literal, quote_all
from data_platform.lakehouse.transaction import Table, commit, writer_lock
from data_platform.lakehouse.transaction import columns_of as lake_columns
from data_platform.modelling import dbt

BATCH_ROWS = 250_000
BUILD_COMMAND = ("build", "--exclude-resource-type", "unit_test")
"""Unit tests are about the SQL, not about the data: they are the developers' and CI's."""

FAILED = ("error", "fail", "runtime error")


@dataclass(frozen=True)
class ModelResult:
    """What became of one model. `violations` are dictionaries of column, check, rows, value and fatal."""

    model: str
    passed: bool
    verdict: str
    published: bool = False
    publication: int = 0
    snapshot: int = 0
    tests: int = 0
    rows_audited: int = 0
    seconds: float = 0.0
    violations: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def build_and_publish(
    lake: Lakehouse,
    project: dbt.Project,
    manifest: Mapping[str, Any],
    contracts: Mapping[str, type[Contract]],
    selected: Sequence[str],
    *,
    run_id: str,
    log: Callable[[str], object] | None = None,
) -> list[ModelResult]:
    """Build the selected models, audit them, and publish all of them if all passed, none otherwise.

    Raises PlatformError when nothing could be built: a staged table is missing, dbt cannot run.
    """
    ledger.ensure_ledger(lake)
    selected = dbt.in_order(manifest, selected)
    ancestors = dbt.staged_ancestors(manifest)
    steps = dbt.staged_steps(lake)
    missing = sorted({table for model in selected for table in ancestors[model] if table not in steps})
    if missing:
        raise PlatformError(
            f"The models need staged tables that do not exist yet: {', '.join(missing)}. Load them first "
            f"(`dp run {missing[0].split('/')[0]}`), or select models that do not need them."
        )
    # dbt commits once for each model and cannot take turns with our writers by itself.
    with writer_lock(lake.settings):
        nodes = dbt.invoke(project, lake.settings, [*BUILD_COMMAND, "--select", *selected], log)
        snapshot = current_snapshot(lake.connection)
    results = [_tested(model, manifest, nodes) for model in selected]
    results = [_audited(lake, manifest, result, contracts.get(result.model)) for result in results]
    _record(lake, results, contracts, run_id)
    if not all(result.passed for result in results):
        return results
    taken = {model: {table: steps[table] for table in ancestors[model]} for model in selected}
    publication = publish(lake, taken, snapshot, run_id=run_id)
    return [replace(result, published=True, publication=publication, snapshot=snapshot) for result in results]


def _tested(model: str, manifest: Mapping[str, Any], nodes: Sequence[dbt.NodeResult]) -> ModelResult:
    """What dbt says of a model: whether it was built, and which of its tests failed."""
    built = [node for node in nodes if node.unique_id.endswith(f".{model}") and node.unique_id.startswith("model.")]
    tests = [node for node in nodes if model in dbt.tested_models(manifest, node.unique_id) and node not in built]
    violations = [
        {
            "column": "",
            "check": f"dbt test {node.unique_id.split('.')[2]}",
            "rows": node.failures,
            "value": node.message[:200],
            "fatal": node.status in FAILED,
        }
        for node in tests
        if node.status in (*FAILED, "warn")
    ]
    seconds = sum(node.seconds for node in (*built, *tests))
    if not built or built[0].status != "success":
        why = built[0].message if built and built[0].message else "skipped: something that it needs failed"
        return ModelResult(model, False, f"Not built: {why}", tests=len(tests), seconds=seconds, violations=violations)
    broken = [violation for violation in violations if violation["fatal"]]
    verdict = f"{len(broken)} of {len(tests)} dbt tests failed." if broken else f"All {len(tests)} dbt tests passed."
    return ModelResult(model, not broken, verdict, tests=len(tests), seconds=seconds, violations=violations)


def _audited(
    lake: Lakehouse, manifest: Mapping[str, Any], result: ModelResult, contract: type[Contract] | None
) -> ModelResult:
    if contract is None or result.verdict.startswith("Not built"):
        return result
    rows = changed_rows(lake, manifest, result.model)
    checked, violations = audit_relation(lake, Table(BUILD, result.model), rows, contract)
    broken = [violation for violation in violations if violation["fatal"]]
    verdict = f"{result.verdict} {checked:,} rows " + (
        f"audited, {sum(v['rows'] for v in broken):,} violations of {name_of(contract)}."
        if broken
        else f"satisfy {name_of(contract)}."
    )
    return replace(
        result,
        passed=result.passed and not broken,
        verdict=verdict,
        rows_audited=checked,
        violations=[*result.violations, *violations],
    )


def changed_rows(lake: Lakehouse, manifest: Mapping[str, Any], model: str) -> str:
    """SQL for the rows that were not audited before: of an incremental model those inserted since it was published,
    so that the audit's cost follows the increment; else all."""
    table = Table(BUILD, model)
    since = published_snapshots(lake.connection).get(model)
    if since is None or dbt.materialization(manifest, model) != "incremental":
        return f"SELECT * FROM {table.sql}"
    columns = quote_all(lake_columns(lake.connection, table))
    now = current_snapshot(lake.connection)
    return (
        f"SELECT {columns} FROM ducklake_table_insertions({literal(CATALOG)}, {literal(BUILD)}, {literal(model)}, "
        f"{since + 1}, {now})"
    )


def audit_relation(
    lake: Lakehouse, table: Table, query: str, contract: type[Contract]
) -> tuple[int, list[dict[str, Any]]]:
    """Hold the rows of a query against a contract, batch by batch, and the whole table against its uniqueness rules.
    Returns the rows checked and the violations."""
    unique = [[column.name] for column in columns_of(contract) if column.unique]
    together = schema_of(contract).unique
    unique += [list(together)] if together else []
    found = []
    checked = 0
    key = unique[0] if unique else []
    try:
        reader = lake.cursor().connection.execute(query).to_arrow_reader(BATCH_ROWS)
    except duckdb.Error as error:
        raise PlatformError(f"{table} cannot be audited: {str(error).splitlines()[0]}") from error
    for batch in reader:
        frame = pl.DataFrame(pl.from_arrow(batch))
        checked += len(frame)
        found.append(audit(frame, contract, lineage=[], key=key).violations)
    violations = (
        pl.concat(found)
        .group_by("column", "check", "fatal")
        .agg(pl.col("rows").sum(), pl.col("value").first())
        .sort("rows", descending=True)
        .to_dicts()
        if found
        else []
    )
    for columns in unique:
        names = quote_all(columns)
        row = lake.connection.execute(
            f"SELECT count(*) FROM (SELECT {names} FROM {table.sql} GROUP BY ALL HAVING count(*) > 1)"
        ).fetchone()
        if row is not None and row[0]:
            label = ", ".join(columns)
            violations.append({"column": label, "check": "not unique", "rows": row[0], "value": None, "fatal": True})
    return checked, violations


def _record(
    lake: Lakehouse, results: Sequence[ModelResult], contracts: Mapping[str, type[Contract]], run_id: str
) -> None:
    """The verdicts, whichever way they went."""

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        for result in results:
            ledger.record(
                connection,
                "audits",
                {
                    "layer": "modelled",
                    "source": "dbt",
                    "table_name": result.model,
                    "run_id": run_id,
                    "contract": name_of(contracts[result.model]) if result.model in contracts else None,
                    "audited_at": at,
                    "passed": result.passed,
                    "rows_checked": result.rows_audited,
                    "rows_failed": sum(v["rows"] for v in result.violations if v["fatal"]),
                    "violations": [dict(violation) for violation in result.violations],
                },
            )

    commit(lake, work)
