"""The modelled layer: dbt's models as assets, computed where nobody sees them, audited, and published all at once.

dbt runs within this process, warm: its command line would pay its imports and a `dbt --version` each time. What it
computes is published in one commit only when its own tests and the Pandera contracts pass; else every published model
stays as it was. Each model has one check, which says what broke.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from data_platform.components.component import Environment, PlatformComponent
from data_platform.components.dbt_specs import model_specs
from data_platform.components.failures import RETRIES, failed_step
from data_platform.components.keys import CHECK, MODELS_JOB, WAITS_FOR, model_key
from data_platform.components.metadata import contract_schema, place, sample, violations_table
from data_platform.components.ownership import broken_asset
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import Contract, contract_columns, description_of, name_of, owner_of
from data_platform.contracts.violations import commonest
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import MODELLED, modelled_table
from data_platform.lakehouse.transaction import taken_up
from data_platform.modelling import dbt, lineage
from data_platform.modelling.build import ModelResult, build_and_publish
from data_platform.options import Duration, Options

SENSOR = "modelled_sensor"


class DbtModelsOptions(Options):
    """A dbt project whose models make up the modelled layer."""

    project: str = Field(description="Folder of the dbt project, relative to this file.")
    contracts: str = Field(description="Module of the models' contracts: `DimAirline` is the contract of dim_airline.")
    every: Duration = Field(
        default=timedelta(seconds=2), description="How often the sensor probes for newly staged rows."
    )


class ModelsConfig(dg.Config):
    """How models are built, in the launchpad."""

    full_refresh: bool = False
    """Build incremental models from nothing, as is needed when their SQL changed."""


class DbtModels(PlatformComponent):
    """The models of a dbt project as assets, one check each, and the sensor that follows the staged tables."""

    model = DbtModelsOptions
    options: DbtModelsOptions

    def project(self, folder: Path, settings: Settings) -> dbt.Project:
        """The dbt project that the `defs.yaml` of `folder` names."""
        return dbt.project_at((folder / self.options.project).resolve(), settings)

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        settings = environment.settings
        project = self.project(folder, settings)
        manifest = dbt.manifest(project, settings)
        contracts = dbt.contracts_of(self.options.contracts, lineage.models(manifest))
        assets = modelled_assets(project, manifest, contracts, folder.parents[1].name)
        job = dg.define_asset_job(
            MODELS_JOB, dg.AssetSelection.assets(assets), description="Build, audit and publish all models."
        )
        sensor = modelled_sensor(broken_asset(folder), manifest, self.options.every, settings, job)
        return dg.Definitions(assets=[assets], jobs=[job], sensors=[sensor])


def modelled_assets(
    project: dbt.Project, manifest: Mapping[str, Any], contracts: Mapping[str, type[Contract]], platform: str
) -> dg.AssetsDefinition:
    """All models of a platform as one asset definition that builds whichever of them are selected."""
    specs = [_described(spec, contracts.get(spec.key.path[-1])) for spec in model_specs(project, manifest)]
    checks = [
        dg.AssetCheckSpec(CHECK, asset=spec.key, blocking=True, description="dbt's tests and the contract pass.")
        for spec in specs
    ]

    @dg.multi_asset(name="models", specs=specs, check_specs=checks, can_subset=True, pool="dbt", retry_policy=RETRIES)
    def models(context: dg.AssetExecutionContext, config: ModelsConfig, lakehouse: LakehouseResource) -> Iterator[Any]:
        selected = [key.path[-1] for key in context.selected_asset_keys]
        try:
            with lakehouse.open() as lake:
                ledger.claim(lake, platform, "model", selected)
                results = taken_up(
                    lambda: build_and_publish(
                        lake,
                        project,
                        manifest,
                        contracts,
                        selected,
                        run_id=context.run.run_id,
                        full_refresh=config.full_refresh,
                        log=context.log.info,
                    )
                )
                for result in results:
                    if result.waits_for:
                        context.log.warning(f"{result.model}: {result.verdict}")
                with lake.reading():
                    published = [_materialized(lake, one, contracts.get(one.model)) for one in results if one.published]
        except Exception as error:  # noqa: BLE001 - a contract, a macro or a library may raise anything
            private = any(column.private for one in contracts.values() for column in contract_columns(one))
            yield from failed_step(context, error, sorted(context.selected_asset_keys), private=private)
        yield from published
        yield from (_checked(result) for result in results if not result.waits_for)
        yield from (_waits(result) for result in results if result.waits_for)
        broken = [f"{result.model}: {_first_reason(result)}" for result in results if not result.passed]
        if broken:
            reasons = "\n".join(broken)
            raise dg.Failure(
                description=f"Nothing was published, every published model stays as it was. What broke:\n{reasons}",
                allow_retries=False,
            )

    return models


def _first_reason(result: ModelResult) -> str:
    reasons = commonest(result.violations)
    return f"{result.verdict} Commonest: {'; '.join(reasons)}" if reasons else result.verdict


def _described(spec: dg.AssetSpec, contract: type[Contract] | None) -> dg.AssetSpec:
    spec = spec.replace_attributes(kinds={"dbt", "ducklake"})
    if contract is None:
        return spec
    owner = owner_of(contract)
    return spec.replace_attributes(
        owners=[owner] if owner else spec.owners, description=spec.description or description_of(contract)
    ).merge_attributes(metadata={"dagster/column_schema": contract_schema(contract), "contract": name_of(contract)})


def _materialized(lake: Lakehouse, result: ModelResult, contract: type[Contract] | None) -> dg.MaterializeResult[None]:
    private = [column.name for column in contract_columns(contract) if column.private] if contract else []
    table = modelled_table(result.model)
    shown = sample(lake, table, private)
    return dg.MaterializeResult(
        asset_key=model_key(result.model),
        data_version=dg.DataVersion(str(result.publication)),
        metadata={
            **place(lake, table),
            "publication": result.publication,
            "snapshot": result.snapshot,
            "build seconds": round(result.seconds, 2),
            **({"sample": shown} if shown is not None else {}),
        },
    )


def _waits(result: ModelResult) -> dg.AssetObservation:
    """What is shown of a model that was left out: nothing was found out of it, so its check is as it was."""
    return dg.AssetObservation(
        model_key(result.model), description=result.verdict, metadata={WAITS_FOR: ", ".join(result.waits_for)}
    )


def _checked(result: ModelResult) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=model_key(result.model),
        check_name=CHECK,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=result.verdict,
        metadata={
            "rows audited": result.rows_audited,
            "tests": result.tests,
            "violations": violations_table(result.violations),
        },
    )


def modelled_sensor(
    broken: dg.AssetKey, manifest: Mapping[str, Any], every: timedelta, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for runs of `job` for the models whose tables moved since they were published: lineage decides
    which. `broken` is the asset that stood for their folder while it could not be loaded."""
    ancestors = lineage.input_ancestors(manifest)
    direct = lineage.parents(manifest)

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=least_interval(every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows staged tables, datasets and scores: asks for the models that were built from older rows.",
    )
    def probe(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings) as lake:
            steps = ledger.input_steps(lake)
            stale = stale_models(lake, ancestors, steps)
        if not stale:
            return dg.SkipReason(_nothing(lineage.waiting(ancestors, steps)))
        requests = {
            model: [Request([model_key(one) for one in with_stale_parents(model, stale, direct)], now)]
            for model, now in stale.items()
        }
        return request_once(context.instance, MODELLED, requests, every)

    return probe


def _nothing(waiting: Mapping[str, Sequence[str]]) -> str:
    """Why no model is asked for, with what those wait for that are left out."""
    latest = "Every model is built from the latest rows."
    missing = sorted({table for tables in waiting.values() for table in tables})
    if not missing:
        return latest
    return f"{latest[:-1]}, but for {', '.join(sorted(waiting))}, left out until there is {', '.join(missing)}."


def with_stale_parents(model: str, stale: Collection[str], direct: Mapping[str, lineage.Parents]) -> list[str]:
    """A model and what it is built from that is stale as well: built by itself it would be behind at once."""
    found = [model]
    for one in found:
        found += sorted(parent for parent in direct[one].models if parent in stale and parent not in found)
    return found


def stale_models(
    lake: Lakehouse, ancestors: Mapping[str, Sequence[str]], steps: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Models of whose tables there are newer `steps` than they were published from, and those steps. A model of which
    a table does not exist yet is left out."""
    published = ledger.published(lake)
    stale = {}
    for model, tables in ancestors.items():
        now = {table: steps[table] for table in tables if table in steps}
        if len(now) == len(tables) and (model not in published or now != published[model].built_from):
            stale[model] = now
    return stale
