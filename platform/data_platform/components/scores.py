"""The component `Scores`: what the production version of a model says of rows, as a table and an asset. What scoring
does is in `ml.scores`; here it is put into Dagster's words.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.failures import RETRIES, failed_step, failure
from data_platform.components.inputs import INPUTS, made_of, steps_of, without_rows
from data_platform.components.keys import CHECK, SCORES, scores_key, scoring_job, trained_key
from data_platform.components.metadata import contract_schema, place, sample
from data_platform.components.ownership import broken_asset
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import contract_columns, load_contract, name_of, owner_of
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.ml.datasets.sources import asset_of, read_query, table_of, tables_of
from data_platform.ml.registry.stages import production_of
from data_platform.ml.scores.options import ScoresOptions
from data_platform.ml.scores.score import Scored, ScoresRecipe, score
from data_platform.options import Duration

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


class ScoresComponentOptions(ScoresOptions):
    """Rows that are scored by the production version of a model, and when. The table has the name of the folder."""

    follow: bool = Field(
        default=False,
        description="Whether a sensor has rows scored when their tables have changed, or another version of the model "
        "is in production.",
    )
    every: Duration = Field(default=timedelta(minutes=1), description="How often that sensor looks.")


class Scores(PlatformComponent):
    """Scores rows by a model."""

    model = ScoresComponentOptions
    options: ScoresComponentOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        recipe = recipe_of(folder, self.options)
        asset = self.asset(folder, recipe)
        job = dg.define_asset_job(
            scoring_job(folder.name),
            selection=dg.AssetSelection.assets(asset),
            description=f"Score the rows of {folder.name}.",
        )
        follow, every = self.options.follow, self.options.every
        sensors = [scores_sensor(folder, recipe, every, environment.settings, job)] if follow else []
        if self.options.schedule is None:
            return dg.Definitions(assets=[asset], jobs=[job], sensors=sensors)
        schedule = dg.ScheduleDefinition(
            name=f"score_{folder.name}_schedule",
            job=job,
            cron_schedule=self.options.schedule,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=f"Scores the new rows of {folder.name}.",
        )
        return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule], sensors=sensors)

    def asset(self, folder: Path, recipe: ScoresRecipe) -> dg.AssetsDefinition:
        """The asset of the table of scores."""
        options, key, platform = self.options, scores_key(folder.name), folder.parents[1].name
        contract = recipe.contract
        owner = owner_of(contract) if contract is not None else None
        private = [column.name for column in contract_columns(contract) if column.private] if contract else []
        checks = [dg.AssetCheckSpec(CHECK, asset=key, description="The scores keep their contract.")]

        @dg.asset(
            key=key,
            deps=[trained_key(options.model), *(dg.AssetKey(asset_of(table)) for table in recipe.tables)],
            group_name=SCORES,
            kinds={"ducklake"},
            owners=[owner] if owner else [],
            pool=options.pool or f"score_{folder.name}",
            retry_policy=RETRIES,
            description=f"{options.description} Scored by the model {options.model}.".strip(),
            metadata={
                "defs": str(folder / DEFS),
                "key": ", ".join(recipe.key),
                **(
                    {"dagster/column_schema": contract_schema(contract), "contract": name_of(contract)}
                    if contract is not None
                    else {}
                ),
            },
            check_specs=checks if contract is not None else None,
        )
        def scores(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Event]:
            began = time.monotonic()
            try:
                with lakehouse.open() as lake:
                    ledger.claim(lake, platform, "scores", [folder.name])
                    with lake.reading():
                        inputs = inputs_of(lake, recipe)
                    scored = score(lake, recipe, run_id=context.run.run_id)
                    shown = place(lake, recipe.table)
                    rows = sample(lake, recipe.table, [*recipe.key] if private else [])
            except Exception as error:  # noqa: BLE001 - a library may raise anything
                if contract is None:
                    raise failure(error, private=True) from None
                yield from failed_step(context, error, [key], private=True)
            seconds = time.monotonic() - began
            context.log.info(f"{scored.rows:,} rows scored in {seconds:.1f} s by version {scored.version}.")
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **shown,
                    **_figures(scored, seconds),
                    INPUTS: dg.MetadataValue.json(inputs),
                    **({"sample": rows} if rows is not None else {}),
                },
            )
            if contract is not None:
                yield _checked(key, scored)

        return scores


def recipe_of(folder: Path, options: ScoresOptions) -> ScoresRecipe:
    """What the folder has scored. Raises PlatformError, with the file, for a table, a query or a contract that cannot
    be one."""
    where = folder / DEFS
    if options.query is not None:
        file = folder / options.query
        query = read_query(file)
        tables = tables_of(query, file)
    else:
        try:
            tables = [table_of(str(options.table))]
        except PlatformError:
            raise PlatformError(
                f"{where}: `table: {options.table}` is none: name it as raw/SOURCE/TABLE, staged/SOURCE/TABLE or "
                "modelled/MODEL."
            ) from None
        query = f"SELECT * FROM {tables[0].sql}"
    contract = load_contract(options.contract) if options.contract is not None else None
    key = tuple(options.key)
    daily = options.again == "daily"
    return ScoresRecipe(
        folder.name, options.model, query, tables, key, daily, contract, str(where), options.only_after_training
    )


def inputs_of(lake: Lakehouse, recipe: ScoresRecipe) -> dict[str, int | str]:
    """What the scores follow from: the last step of each table that is read, the version in production (0 if none is),
    and, where rows are scored again on each day, the day."""
    steps, version = steps_of(lake, recipe.tables), production_of(lake, recipe.model) or 0
    today = {"day": f"{datetime.now(UTC):%Y-%m-%d}"} if recipe.daily else {}
    return {**steps, "version": version, **today}


def scores_sensor(
    folder: Path, recipe: ScoresRecipe, every: timedelta, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for scores when the tables that are read have changed since, another version is in production, or, where
    rows are scored again on each day, it is another day."""
    broken, key = broken_asset(folder), scores_key(recipe.name)

    @dg.sensor(
        name=f"score_{recipe.name}_sensor",
        job=job,
        minimum_interval_seconds=least_interval(every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Follows the rows and the model {recipe.model}: asks for scores of what is new.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings, private=True) as lake:
            now = inputs_of(lake, recipe)
        missing = without_rows(recipe.tables, now)
        if missing:
            return dg.SkipReason(f"There are no rows yet of {', '.join(missing)}.")
        if not now["version"]:
            return dg.SkipReason(f"No version of the model {recipe.model} is in production.")
        last = made_of(context.instance, key)
        if last is not None and last.inputs == now:
            return dg.SkipReason(f"All rows are scored by version {now['version']} of the model {recipe.model}.")
        requests = {recipe.name: [Request([key], now)]}
        return request_once(context.instance, f"score_{recipe.name}", requests, every)

    return look


def _figures(scored: Scored, seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "model version": scored.version,
        "rows scored": scored.rows,
        "seconds": round(seconds, 2),
    }
    if scored.after is not None:
        figures["only rows after"] = f"{scored.after:%Y-%m-%d %H:%M:%S} UTC"
    if scored.mean is not None:
        figures |= {"least score": scored.least, "mean score": scored.mean, "greatest score": scored.greatest}
    return figures


def _checked(key: dg.AssetKey, scored: Scored) -> dg.AssetCheckResult:
    said = f"All {scored.rows:,} new scores keep the contract." if scored.rows else "No row was without a score."
    return dg.AssetCheckResult(
        asset_key=key, check_name=CHECK, passed=True, severity=dg.AssetCheckSeverity.ERROR, description=said
    )
