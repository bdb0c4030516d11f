"""The reconciliations of a source: for each table with `reconcile` an asset `reconciliation/<source>/<table>`, which
holds it against its source, with a check that says what differs, and the schedules. How it is done is in
`ingestion.reconcile`. What was applied is staged when the source's sensor sees it; `dp reconcile` does it at once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from data_platform.components.failures import RETRIES, failed_step
from data_platform.components.keys import CHECK, raw_key, reconcile_job, reconciliation_key
from data_platform.components.metadata import private_raw_columns
from data_platform.components.resource import LakehouseResource
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.compared import ComparedSource
from data_platform.ingestion.reconcile import Reconciliation, reconcile_table
from data_platform.ingestion.reconcile_options import ReconciledTable
from data_platform.lakehouse import ledger
from data_platform.lakehouse.tables import RAW

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


def reconciled_tables(spec: SourceSpec) -> list[TableSpec]:
    """The tables of a source that are held against it."""
    return [
        one
        for one in spec.tables.values()
        if isinstance(one.table, ReconciledTable) and one.table.reconcile is not None
    ]


def reconciliation_definitions(spec: SourceSpec) -> dg.Definitions:
    """The reconciliation assets of a source, a job for all of them, and a schedule for each time.

    Raises PlatformError for a time that is no cron expression.
    """
    tables = reconciled_tables(spec)
    if not tables:
        return dg.Definitions()
    assets = {table.name: reconciliation_asset(spec, table) for table in tables}
    job = dg.define_asset_job(
        reconcile_job(spec.name),
        selection=dg.AssetSelection.assets(*assets.values()),
        description=f"Hold tables of {spec.name} against their source.",
    )
    times: dict[str, list[str]] = {}
    for table in tables:
        assert isinstance(table.table, ReconciledTable)  # noqa: S101 - only such tables are reconciled
        assert table.table.reconcile is not None  # noqa: S101 - only such tables are reconciled
        times.setdefault(table.table.reconcile.every, []).append(table.name)
    schedules = [_schedule(spec, job, cron, names, alone=len(times) == 1) for cron, names in times.items()]
    return dg.Definitions(assets=list(assets.values()), jobs=[job], schedules=schedules)


def _schedule(spec: SourceSpec, job: Any, cron: str, tables: Sequence[str], *, alone: bool) -> dg.ScheduleDefinition:
    selection = [reconciliation_key(spec.name, table) for table in tables]
    name = f"reconcile_{spec.name}" if alone else f"reconcile_{spec.name}__{tables[0]}"

    def request(_: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(asset_selection=selection)

    try:
        return dg.ScheduleDefinition(
            name=name,
            job=job,
            cron_schedule=cron,
            execution_fn=request,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Holds {', '.join(tables)} of {spec.name} against the source: {cron} (UTC).",
        )
    except dg.DagsterInvalidDefinitionError:
        raise PlatformError(
            f"{spec.where}, table {tables[0]}: `reconcile` says {cron!r}, which is no cron expression. Write minute, "
            "hour, day, month and weekday in UTC, such as '30 22 * * 6', or hourly, daily, weekly."
        ) from None


def reconciliation_asset(spec: SourceSpec, table: TableSpec) -> dg.AssetsDefinition:
    """The asset that holds one table against its source."""
    key = reconciliation_key(spec.name, table.name)
    options = table.table
    assert isinstance(options, ReconciledTable)  # noqa: S101 - only such tables are reconciled
    assert options.reconcile is not None  # noqa: S101 - only such tables are reconciled
    applies = "and lands what differs" if options.reconcile.apply else "and reports what differs"

    @dg.asset(
        key=key,
        deps=[raw_key(spec.name, table.name)],
        group_name=f"{RAW}_{spec.name}",
        kinds={spec.kind, "ducklake"},
        pool=spec.pool,
        retry_policy=RETRIES,
        description=f"Compares the {options.reconcile.compare} of raw/{spec.name}/{table.name} with its source, for "
        f"what a cursor cannot see (deletes, late rows, changed keys), {applies}.",
        metadata={"defs": str(spec.where), "schedule": options.reconcile.every, "compare": options.reconcile.compare},
        check_specs=[
            dg.AssetCheckSpec(CHECK, asset=key, description="Raw has what the source has, or has it again by now.")
        ],
    )
    def reconciliation(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Event]:
        try:
            with lakehouse.open() as lake, spec.open() as source:
                if not isinstance(source, ComparedSource):
                    raise PlatformError(
                        f"{spec.name}/{table.name}: a {type(source).__name__} cannot be asked which rows it has. Take "
                        "out `reconcile`."
                    )
                ledger.claim(lake, spec.platform, "source", [spec.name])
                found = reconcile_table(lake, spec.name, source, table.name, options, run_id=context.run.run_id)
                shown = shown_examples(found, private_raw_columns(lake, spec, table))
        except Exception as error:  # noqa: BLE001 - a contract or a library may raise anything
            yield from failed_step(context, error, [key], private=table.private)
        context.log_event(dg.AssetObservation(raw_key(spec.name, table.name), metadata=figures(found, shown)))
        yield from results(key, found, shown)

    return reconciliation


def results(key: dg.AssetKey, found: Reconciliation, shown: Mapping[str, Sequence[str]]) -> list[Event]:
    """The events of a reconciliation. What differed and was applied is no failure: the check passes and shows it."""
    metadata = figures(found, shown)
    return [
        dg.MaterializeResult(asset_key=key, metadata=metadata),
        dg.AssetCheckResult(
            asset_key=key,
            check_name=CHECK,
            passed=not found.differences or bool(found.load_id),
            severity=dg.AssetCheckSeverity.WARN,
            description=verdict(found, shown),
            metadata=metadata,
        ),
    ]


def figures(found: Reconciliation, shown: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What was found, by name, with the keys that may be shown."""
    examples = [dg.TableRecord({"difference": what, "key": key}) for what, keys in shown.items() for key in keys]
    schema = dg.TableSchema([dg.TableColumn("difference"), dg.TableColumn("key")])
    return {
        "rows compared": found.rows_raw,
        "deleted in the source": found.deleted,
        "missed": found.missed,
        "changed unseen": found.changed,
        "read by the next load": found.awaiting,
        "rows landed": found.deleted + found.missed + found.changed if found.load_id else 0,
        "ranges compared": found.parts,
        "ranges read": found.parts_read,
        "rows read": found.rows_read,
        **({"load": found.load_id} if found.load_id else {}),
        **({"examples": dg.MetadataValue.table(records=examples, schema=schema)} if examples else {}),
    }


def verdict(found: Reconciliation, shown: Mapping[str, Sequence[str]]) -> str:
    """What was found, in a sentence, with the first of the keys that may be shown."""
    if not found.differences:
        return f"All {found.rows_raw:,} {found.compared} are as in the source."
    counts = {
        "deleted in the source": found.deleted,
        "missed": found.missed,
        "changed unseen": found.changed,
    }
    what = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    examples = "; ".join(f"{name}: {', '.join(keys[:2])}" for name, keys in shown.items())
    what += f" ({examples})" if examples else ""
    done = (
        f"They landed as load {found.load_id}."
        if found.load_id
        else "Nothing was changed (`apply: false`): let it apply them, or read the table afresh with --full-refresh."
    )
    return f"{found.differences:,} of {found.rows_raw:,} keys differ: {what}. {done}"


def shown_examples(found: Reconciliation, private: Collection[str]) -> Mapping[str, Sequence[str]]:
    """The keys that differ, as examples; none if any of the raw columns that are `private` is of the key."""
    hidden = {name.lower() for name in private} & {name.lower() for name in found.key}
    return {} if hidden else found.examples
