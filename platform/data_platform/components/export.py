"""The component `Export`: tables of the lakehouse, staged or modelled, as tables of another database or as files. An
asset for each, which depends on the table that it exports, with a check that the target agrees. What an export does is
in `exports`; here it is put into Dagster's words.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import dagster as dg
import yaml
from pydantic import Field

from data_platform.components.component import DEFS, Environment, PlatformComponent, folders
from data_platform.components.export_steps import exported, ping
from data_platform.components.failures import RETRIES, failed_step
from data_platform.components.keys import CHECK, export_job, export_key
from data_platform.components.ownership import MODELS, broken_asset
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import Contract, contract_columns
from data_platform.errors import PlatformError
from data_platform.exports.export import TableExport, versions
from data_platform.exports.options import (
    DeltaTarget,
    ExportOptions,
    ExportTable,
    FilesTarget,
)
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import MODELLED, modelled_table, staged_table
from data_platform.modelling import dbt
from data_platform.options import Duration, Written

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


class ExportComponentOptions(ExportOptions, Written):
    """Tables of the lakehouse, and where they are exported to."""

    every: Duration = Field(
        default=timedelta(seconds=30), description="How often the sensor looks for newly staged or published rows."
    )


class ExportConfig(dg.Config):
    """How a table is exported, in the launchpad."""

    full_refresh: bool = False
    """Export all rows, whatever was exported before."""


class Export(PlatformComponent):
    """Brings tables of the lakehouse to a database or to files."""

    model = ExportComponentOptions
    options: ExportComponentOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        specs = {name: table_export(folder, name, table) for name, table in self.options.tables.items()}
        assets = [self.asset(folder, spec) for spec in specs.values()]
        job = dg.define_asset_job(
            export_job(folder.name),
            selection=dg.AssetSelection.assets(*assets),
            description=f"Export all tables of {folder.name}.",
        )
        sensor = export_sensor(folder, specs, self.options.every, environment.settings, job)
        return dg.Definitions(assets=assets, jobs=[job], sensors=[sensor])

    @property
    def is_elsewhere(self) -> bool:
        """Whether the target is anything but a folder of this machine."""
        return not isinstance(self.options.to, FilesTarget | DeltaTarget) or "://" in self.options.to.folder

    def ping(self, where: Path, settings: Settings) -> None:
        """Raise PlatformError if the target does not answer."""
        ping(self.options.to, where, settings)

    def asset(self, folder: Path, spec: TableExport) -> dg.AssetsDefinition:
        """The asset of one exported table."""
        key, where, to = export_key(folder.name, spec.name), folder / DEFS, self.options.to
        table = self.options.tables[spec.name]

        @dg.asset(
            key=key,
            deps=[dg.AssetKey(spec.label.split("/"))],
            group_name=f"export_{folder.name}",
            kinds={to.format if isinstance(to, FilesTarget) else to.type},
            pool=self.options.pool or f"export_{folder.name}",
            retry_policy=RETRIES,
            description=f"{self.options.description} {spec.label}, exported by `{spec.mode}`.".strip(),
            metadata={
                "defs": str(where),
                "mode": spec.mode,
                "private columns left out": ", ".join(sorted(spec.withheld)) or "none",
                **({"key": ", ".join(spec.key)} if spec.key else {}),
            },
            check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description="The target holds the rows of the table.")],
        )
        def export(
            context: dg.AssetExecutionContext, config: ExportConfig, lakehouse: LakehouseResource
        ) -> Iterator[Event]:
            try:
                with lakehouse.open() as lake:
                    done = exported(lake, spec, to, table, where, run_id=context.run.run_id, full=config.full_refresh)
            except Exception as error:  # noqa: BLE001 - a driver or a library may raise anything
                yield from failed_step(context, error, [key], private=spec.private)
            for note in done.notes:
                context.log.info(note)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={**done.figures, "notes": " ".join(done.notes)},
                data_version=dg.DataVersion(str(done.version)),
            )
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=CHECK,
                passed=done.agrees,
                severity=dg.AssetCheckSeverity.ERROR,
                description=done.verdict,
                metadata=done.compared,
            )

        return export


def table_export(folder: Path, name: str, table: ExportTable) -> TableExport:
    """What an export needs to know of a table: its key and its private columns are those of the source or the model.

    Raises PlatformError, with the file, for a table that the platform does not have, or a key that is missing.
    """
    where, private, key = folder / DEFS, set[str](), tuple(table.key)
    layer, *rest = table.from_.split("/")
    if layer == MODELLED:
        source = modelled_table(rest[0])
        contract = contract_of_model(folder, rest[0])
        private = _private(contract) if contract is not None else set()
    else:
        # Here, as the platform imports every component.
        from data_platform.components.platform import source_spec

        try:
            spec = source_spec(folder.parents[1], rest[0])
        except PlatformError as error:
            raise PlatformError(f"{where}, table {name}: {error}") from None
        if rest[1] not in spec.tables:
            raise PlatformError(
                f"{where}, table {name}: the source {rest[0]} has no table {rest[1]}. It has: {', '.join(spec.tables)}."
            )
        source, known = staged_table(*rest), spec.tables[rest[1]]
        private = _private(known.contract) | set(known.table.mask)
        key = key or (tuple(known.table.key) if table.mode == "merge" else ())
    if table.mode == "merge" and not key:
        raise PlatformError(
            f"{where}, table {name}: `mode: merge` needs a `key`, and {table.from_} says none. Name it here, or write "
            "`mode: replace`."
        )
    unknown = [column for column in table.private if column not in private]
    if unknown:
        raise PlatformError(
            f"{where}, table {name}: `private` names {', '.join(unknown)}, which neither the contract nor `mask` says "
            f"to be private. They say: {', '.join(sorted(private)) or 'none'}."
        )
    columns = tuple(table.columns) if table.columns is not None else None
    withheld = frozenset(private) - set(table.private)
    return TableExport(
        folder.name, name, source, table.from_, table.mode, key, withheld, columns, table.adopt, bool(private)
    )


def _private(contract: type[Contract]) -> set[str]:
    return {column.name for column in contract_columns(contract) if column.private}


def contract_of_model(folder: Path, model: str) -> type[Contract] | None:
    """The contract of a model; None if it has none. Raises PlatformError if the platform has no such model."""
    for one in folders(folder.parents[1]):
        said = yaml.safe_load((one / DEFS).read_text(encoding="utf-8"))
        if not isinstance(said, dict) or str(said.get("type", "")).rpartition(".")[2] != MODELS:
            continue
        attributes = said.get("attributes") or {}
        project = (one / str(attributes.get("project"))).resolve()
        names = sorted(path.stem for path in project.rglob("*.sql"))
        if model in names:
            return dbt.contracts_of(str(attributes.get("contracts")), names).get(model)
    raise PlatformError(f"{folder / DEFS}: there is no model {model} in this platform to be exported.")


def export_sensor(
    folder: Path, specs: Mapping[str, TableExport], every: timedelta, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for exports of the tables that were staged or published since they were exported last. It only looks: what
    is exported, the position at the target decides."""
    broken, name = broken_asset(folder), folder.name

    @dg.sensor(
        name=f"export_{name}_sensor",
        job=job,
        minimum_interval_seconds=least_interval(every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the tables that are exported: asks for those with newer rows.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings) as lake:
            now = versions(lake)
        exported = _exported(context.instance, name, specs)
        stale = {
            table: now[spec.label]
            for table, spec in specs.items()
            if spec.label in now and exported.get(table) != str(now[spec.label])
        }
        if not stale:
            return dg.SkipReason("Every table is exported as it was last staged or published.")
        requests = {table: [Request([export_key(name, table)], version)] for table, version in stale.items()}
        return request_once(context.instance, f"export_{name}", requests, every)

    return look


def _exported(instance: dg.DagsterInstance, name: str, tables: Mapping[str, TableExport]) -> dict[str, str | None]:
    """The versions that were exported last, as the runs say."""
    keys = {export_key(name, table): table for table in tables}
    events = instance.event_log_storage.get_latest_materialization_events(list(keys))
    return {
        keys[key]: (event.asset_materialization.tags or {}).get("dagster/data_version")
        for key, event in events.items()
        if event is not None and event.asset_materialization is not None
    }
