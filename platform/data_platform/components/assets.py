"""The raw and staged assets of a source, each with its contract check. What they do is `ingestion.load` and
`staging.step`; here it is put into Dagster's words: events, metadata, failures.

A step that was refused fails its check, gives its reason, and materialises nothing: the table is as it was.
Rows quarantined within tolerance are no failure: the check passes and shows them.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from data_platform.components.failures import RETRIES, failed_step, will_retry
from data_platform.components.following import followed, follows_here
from data_platform.components.keys import CHECK, KEEP_REPLACED, REACHABLE, load_job, raw_key, staged_key
from data_platform.components.metadata import (
    column_lineage,
    contract_schema,
    empty_frame,
    load_metadata,
    place,
    private_raw_columns,
    quarantined,
    raw_schema,
    recent_loads,
    sample,
    staging_metadata,
    violations_table,
)
from data_platform.components.pools import within_pool
from data_platform.components.reachability import ANSWERS, allowed, in_words
from data_platform.components.reconciliation import reconciliation_definitions
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import SOURCE_TAG, source_sensor
from data_platform.components.source_log import source_log_result, source_log_spec
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.contracts.contract import contract_columns, description_of, name_of, owner_of
from data_platform.errors import PlatformError
from data_platform.ingestion.changes.held import change_source
from data_platform.ingestion.load import LoadResult, load_tables
from data_platform.ingestion.vanished import Vanished, vanished
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import RAW, STAGED, raw_table
from data_platform.lakehouse.transaction import ConcurrentStepError, taken_up
from data_platform.observability.views import ensure_views
from data_platform.staging.recipe import StagingResult
from data_platform.staging.rules import newer_rules
from data_platform.staging.step import StagingRefusedError, stage_table

PROGRESS_SECONDS = 5

LANDED_FIRST = "Other runs of this table landed first, each time that this one was to:"
"""What a step says that has left the work to them."""

NOT_APPLIED = "rules not applied to earlier rows"

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


class LoadConfig(dg.Config):
    """How a raw table is loaded, in the launchpad."""

    full_refresh: bool = False
    """Read everything again, whatever the position; also lifts the truncation guard."""
    retype: bool = False
    """Store columns whose type changed in the source as text, and keep the rows there are."""


class StagingConfig(dg.Config):
    """How a staged table is staged, in the launchpad."""

    rebuild: bool = False
    """Stage everything again from raw, and replace the table."""
    first_load: int = 0
    last_load: int = 0
    """A range of load ids to stage again; 0 for none."""


def source_definitions(spec: SourceSpec) -> dg.Definitions:
    """All definitions of one source."""
    shared = {table for tables in spec.readings.values() for table in tables}
    assets = [raw_assets(spec, name, tables) for name, tables in spec.readings.items()]
    for table in spec.tables.values():
        assets += [] if table.name in shared else [raw_asset(spec, table)]
        assets.append(staged_asset(spec, table))
    job = dg.define_asset_job(
        load_job(spec.name),
        selection=dg.AssetSelection.assets(*assets),
        description=f"Load and stage all tables of {spec.name}.",
    )
    own = dg.Definitions(assets=assets, jobs=[job], sensors=[source_sensor(spec, job)])
    return dg.Definitions.merge(own, reconciliation_definitions(spec))


def _owners(table: TableSpec) -> list[str]:
    owner = owner_of(table.contract)
    return [owner] if owner else []


def raw_asset(spec: SourceSpec, table: TableSpec) -> dg.AssetsDefinition:
    """The raw table: what the source gave, with masked columns masked."""
    key = raw_key(spec.name, table.name)

    @dg.asset(
        key=key,
        group_name=f"{RAW}_{spec.name}",
        kinds={spec.kind, "ducklake"},
        owners=_owners(table),
        pool=spec.pool,
        retry_policy=RETRIES,
        description=_description(spec, table),
        metadata=_raw_metadata(spec, table),
        check_specs=_raw_checks(spec, table),
    )
    def raw(context: dg.AssetExecutionContext, config: LoadConfig, lakehouse: LakehouseResource) -> Iterator[Event]:
        yield from load_events(context, config, lakehouse, spec, table.name, [table.name])

    return raw


def raw_assets(spec: SourceSpec, reading: str, tables: Sequence[str]) -> dg.AssetsDefinition:
    """The raw tables that share a reading: one operation loads them all, whichever of them is selected, since their
    rows and the position of the reading are committed together."""
    chosen = [spec.tables[name] for name in tables]

    @dg.multi_asset(
        name=f"{RAW}__{spec.name}__{reading}",
        specs=[
            dg.AssetSpec(
                raw_key(spec.name, table.name),
                group_name=f"{RAW}_{spec.name}",
                kinds={spec.kind, "ducklake"},
                owners=_owners(table),
                description=_description(spec, table),
                metadata=_raw_metadata(spec, table),
                skippable=True,
            )
            for table in chosen
        ],
        check_specs=[*(check for table in chosen for check in _raw_checks(spec, table)), *source_log_spec(spec)],
        pool=spec.pool,
        retry_policy=RETRIES,
        can_subset=True,
    )
    def raw(context: dg.AssetExecutionContext, config: LoadConfig, lakehouse: LakehouseResource) -> Iterator[Event]:
        selected = [name for name in tables if raw_key(spec.name, name) in context.selected_asset_keys]
        yield from load_events(context, config, lakehouse, spec, reading, selected)

    return raw


def _description(spec: SourceSpec, table: TableSpec) -> str:
    return table.table.description or f"`{table.name}` as {spec.name} gives it. {spec.description}".strip()


def _raw_metadata(spec: SourceSpec, table: TableSpec) -> dict[str, Any]:
    keep = table.table.keep_replaced
    return {
        "defs": str(spec.where),
        "masked": ", ".join([*table.table.mask, *table.table.mask_within]) or "nothing",
        **({KEEP_REPLACED: keep.total_seconds()} if keep is not None else {}),
    }


def _raw_checks(spec: SourceSpec, table: TableSpec) -> list[dg.AssetCheckSpec]:
    key = raw_key(spec.name, table.name)
    readable = dg.AssetCheckSpec(
        CHECK, asset=key, blocking=True, description="Records are readable, and the source's columns are as before."
    )
    within = in_words(allowed(table))
    reachable = dg.AssetCheckSpec(
        REACHABLE,
        asset=key,
        description=f"The source answers: a warning as soon as it does not, failed once that lasts {within}.",
    )
    return [readable, reachable]


def load_events(
    context: dg.AssetExecutionContext,
    config: LoadConfig,
    lakehouse: LakehouseResource,
    spec: SourceSpec,
    reading: str,
    selected: Sequence[str],
) -> Iterator[Event]:
    """Load the tables of a reading; the events of those that are selected."""
    started = shown_at = time.monotonic()

    def progress(rows: int) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= PROGRESS_SECONDS:
            shown_at = time.monotonic()
            context.log.info(f"{rows:,} rows read, {rows / (shown_at - started):,.0f} a second")

    tables = {name: spec.tables[name].table for name in spec.readings.get(reading, [reading])}
    again = config.full_refresh or config.retype
    try:
        with lakehouse.open() as lake, spec.open() as source:
            ledger.claim(lake, spec.platform, "source", [spec.name])
            bounded = within_pool(context.instance, spec.pool, source)
            try:
                results = taken_up(
                    lambda: load_tables(
                        lake,
                        spec.name,
                        bounded,
                        reading,
                        tables,
                        run_id=context.run.run_id,
                        full_refresh=config.full_refresh,
                        retype=config.retype,
                        budget=spec.budget.within(_left(context, spec)),
                        progress=progress,
                    )
                )
            except ConcurrentStepError as error:
                if again or will_retry(context, error):
                    raise
                results = {name: LoadResult(spec.name, name, notes=(f"{LANDED_FIRST} {error}",)) for name in tables}
            ensure_views(lake)
            if not again and follows_here(context, spec, selected):
                table = spec.tables[selected[0]]
                results = {table.name: followed(context, lake, spec, table, source, results[table.name])}
            with lake.reading():
                events = [
                    event for name in selected for event in raw_results(lake, spec, spec.tables[name], results[name])
                ]
            if spec.retained_above is not None and next(iter(spec.tables)) in selected:
                position = results[selected[0]].position
                events.append(source_log_result(spec, change_source(source, spec.name).held(position)))
    except Exception as error:  # noqa: BLE001 - a source of another package may raise anything
        keys = [raw_key(spec.name, name) for name in selected]
        yield from failed_step(context, error, keys, private=spec.private)
    yield from events


def _left(context: dg.AssetExecutionContext, spec: SourceSpec) -> timedelta | None:
    """How long a load may go on that a sensor asked for; None for one that a person asked for, or without `hours`."""
    if spec.hours is None or context.run.tags.get(SOURCE_TAG) != spec.name:
        return None
    return spec.hours.left(datetime.now(UTC))


def raw_results(lake: Lakehouse, spec: SourceSpec, table: TableSpec, result: LoadResult) -> list[Event]:
    """The events of a load. One that found nothing new is a materialisation too, or else rows that still wait to be
    staged would wait on; its data version is that of the load before."""
    key = raw_key(spec.name, table.name)
    stored = raw_table(spec.name, table.name)
    shown = sample(lake, stored, private_raw_columns(lake, spec, table))
    lost = result.drift.lost
    ceased = vanished(lake, spec.name, table.name, min(result.loads)) if result.loads else []
    return [
        dg.MaterializeResult(
            asset_key=key,
            metadata={
                **load_metadata(result),
                **place(lake, stored),
                "dagster/column_schema": raw_schema(lake, spec, table),
                **({"sample": shown} if shown is not None else {}),
            },
            data_version=dg.DataVersion(str(ledger.last_landed(lake, spec.name, table.name))),
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name=CHECK,
            # A warning stops nothing: whether the rows will do is the contract's to say.
            passed=not ceased,
            severity=dg.AssetCheckSeverity.WARN,
            description=_raw_verdict(result, lost, ceased),
            metadata={
                "rows read": result.rows_read,
                "rows quarantined": result.rows_quarantined,
                "columns added": ", ".join(result.drift.added) or "none",
                "columns gone": ", ".join(lost) or "none",
                "columns without values since": ", ".join(f"{one.column}: load {one.load_id + 1}" for one in ceased)
                or "none",
                **quarantined(lake, spec, table, RAW),
            },
        ),
        dg.AssetCheckResult(asset_key=key, check_name=REACHABLE, passed=True, description=ANSWERS),
    ]


def _raw_verdict(result: LoadResult, lost: Sequence[str], ceased: Sequence[Vanished]) -> str:
    if ceased:
        return (
            f"{'; '.join(map(str, ceased))}. If the source means it, say so in the staging function (such as "
            "`pl.coalesce` of both names) or the contract; the warning ends with the load after the next full refresh."
        )
    if lost:
        return f"The source no longer gives {', '.join(lost)}: null in these rows. The staged contract decides."
    if result.rows_quarantined:
        return f"{result.rows_quarantined:,} records could not be read and are in quarantine."
    found = f"All {result.rows_read:,} records were read." if result.rows_landed else "Nothing new."
    return " ".join([found, *result.notes[:1], *([f"{len(result.notes) - 1} more notes."] if result.notes[1:] else [])])


def staged_asset(spec: SourceSpec, table: TableSpec) -> dg.AssetsDefinition:
    """The staged table: typed, repaired, one row per key (if it has one); it always satisfies its contract."""
    key = staged_key(spec.name, table.name)
    # A row whose parent must be there waits for the parent's table, within a run and in the graph.
    parents = [
        c.references.table
        for c in contract_columns(table.contract)
        if c.references and c.references.orphans == "quarantine"
    ]
    upstream = [raw_key(spec.name, table.name), *(staged_key(*parent.split("/")) for parent in parents)]

    @dg.asset(
        key=key,
        deps=upstream,
        group_name=f"{STAGED}_{spec.name}",
        kinds={"polars", "pandera", "ducklake"},
        owners=_owners(table),
        description=description_of(table.contract),
        retry_policy=RETRIES,
        freshness_policy=freshness(table.table.fresh_within),
        metadata={
            "dagster/column_schema": contract_schema(table.contract),
            "contract": name_of(table.contract),
            **({"key": ", ".join(table.table.key)} if table.table.key else {}),
            "defs": str(spec.where),
        },
        check_specs=[
            dg.AssetCheckSpec(CHECK, asset=key, blocking=True, description=f"Rows satisfy {name_of(table.contract)}.")
        ],
    )
    def staged(
        context: dg.AssetExecutionContext, config: StagingConfig, lakehouse: LakehouseResource
    ) -> Iterator[Event]:
        recipe, note = table.recipe(spec.name), ""
        try:
            loads = chosen_loads(config)
            with lakehouse.open() as lake:
                ledger.claim(lake, spec.platform, "source", [spec.name])
                try:
                    result = taken_up(
                        lambda: stage_table(
                            lake, recipe, run_id=context.run.run_id, rebuild=config.rebuild, loads=loads
                        )
                    )
                except ConcurrentStepError as error:
                    if config.rebuild or loads is not None or will_retry(context, error):
                        raise
                    last = ledger.head(lake, STAGED, spec.name, table.name).number
                    result, note = StagingResult(spec.name, table.name, last), f" {LANDED_FIRST} {error}"
                with lake.reading():
                    events = staged_results(lake, spec, table, result, note)
        except Exception as error:  # noqa: BLE001 - a contract or a library may raise anything
            found = _refused_metadata(lakehouse, spec, table, error) if isinstance(error, StagingRefusedError) else None
            yield from failed_step(context, error, [key], found, private=table.private)
        yield from events

    return staged


def _refused_metadata(
    lakehouse: LakehouseResource, spec: SourceSpec, table: TableSpec, refused: StagingRefusedError
) -> dict[str, Any]:
    """What the check of a refused step shows."""
    with lakehouse.open() as lake, lake.reading():
        return {**audit_metadata(refused.result), **quarantined(lake, spec, table, STAGED)}


def chosen_loads(config: StagingConfig) -> tuple[int, int] | None:
    """The loads to stage again. Raises PlatformError for settings that contradict each other."""
    if not (config.first_load or config.last_load):
        return None
    if config.rebuild:
        raise PlatformError("Give either `rebuild` or a range of loads, not both: rebuilding stages all loads again.")
    return config.first_load, config.last_load


def staged_results(
    lake: Lakehouse, spec: SourceSpec, table: TableSpec, result: StagingResult, note: str = ""
) -> list[Event]:
    """The events of a staging step. Without new rows the table is as it was: same data version, and the check repeats
    no verdict of its own. `note` is what else the verdict says."""
    key = staged_key(spec.name, table.name)
    recipe = table.recipe(spec.name)
    shown = sample(lake, recipe.staged, [column.name for column in contract_columns(table.contract) if column.private])
    metadata = {**staging_metadata(result), **place(lake, recipe.staged)}
    if shown is not None:
        metadata |= {
            "sample": shown,
            "dagster/column_lineage": column_lineage(spec, table, empty_frame(lake, recipe.raw)),
        }
    bars = recent_loads(lake, spec.name, table.name)
    if bars is not None:
        metadata["recent loads"] = bars
    if not result.rows_read:
        verdict = "Nothing new was staged: the table is as it was when it last passed."
    elif result.rows_quarantined:
        verdict = (
            f"{result.rows_quarantined:,} of {result.rows_read:,} rows are in quarantine, within tolerance "
            f"({table.table.refuse_above:.0%})."
        )
    else:
        verdict = f"All {result.rows_read:,} rows satisfy the contract."
    if result.rows_same_key:
        verdict += " " + same_key(result, table)
    verdict += note
    newer = newer_rules(ledger.head(lake, STAGED, spec.name, table.name).position, table.contract)
    if newer:
        verdict += (
            f" New in the contract, and not yet applied to rows that were staged before: {'; '.join(newer)}. "
            f"`dp run staged/{recipe.name} --rebuild` holds all rows against the whole contract."
        )
    return [
        dg.MaterializeResult(asset_key=key, metadata=metadata, data_version=dg.DataVersion(str(result.staging_id))),
        dg.AssetCheckResult(
            asset_key=key,
            check_name=CHECK,
            passed=True,
            description=verdict,
            metadata={
                **audit_metadata(result),
                **quarantined(lake, spec, table, STAGED),
                **({NOT_APPLIED: "\n".join(newer)} if newer else {}),
            },
        ),
    ]


def same_key(result: StagingResult, table: TableSpec) -> str:
    """What the verdict says of a key that is not unique in one delivery, with examples unless it is private."""
    private = {column.name for column in contract_columns(table.contract) if column.private}
    shown = "" if private & set(table.table.key) else f", such as {'; '.join(result.same_keys)}"
    return (
        f"The key is not unique: {result.rows_same_key:,} rows gave way to another row of the same delivery with the "
        f"same {', '.join(table.table.key)} and other values{shown}. Of each key the last row is staged; if they are "
        "different things, add a column to `key`."
    )


def freshness(within: timedelta | None) -> dg.FreshnessPolicy | None:
    """Late after `within`, shown as a warning from three quarters of it on."""
    return None if within is None else dg.FreshnessPolicy.time_window(within, within * 0.75)


def audit_metadata(result: StagingResult) -> dict[str, Any]:
    """What an audit found, for the check's page."""
    return {
        "rows audited": result.rows_read,
        "rows quarantined": result.rows_quarantined,
        "rows superseded in one delivery": result.rows_same_key,
        "violations": violations_table(result.violations),
    }
