"""The component `Training`: a model as an asset, trained on a dataset, with a check that says whether it passed its
gates. What training does is in `ml.training`; here it is put into Dagster's words.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import Field, model_validator

from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.failures import RETRIES, failure
from data_platform.components.keys import GATES, dataset_key, retraining_job, trained_key, training_job
from data_platform.components.ownership import broken_asset
from data_platform.components.plots import calibration_plot, importance_plot, roc_plot
from data_platform.components.resource import LakehouseResource
from data_platform.components.retraining import REASON, Retrain, retraining_of, retraining_sensor
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import load_attribute
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.settings import Settings
from data_platform.ml.registry.mirror import mirrored
from data_platform.ml.training.options import TrainingOptions
from data_platform.ml.training.train import Recipe, Trained, train
from data_platform.options import Duration

Event = dg.MaterializeResult[None] | dg.AssetCheckResult


class TrainingComponentOptions(TrainingOptions):
    """How a model is trained, measured and promoted, and when. Its name is that of its folder."""

    follow: bool = Field(
        default=False, description="Whether a sensor has it trained on each new version of its dataset."
    )
    retrain: Retrain | None = Field(
        default=None,
        description="In the place of `follow`, when a sensor has the dataset built and the model trained on it.",
    )
    every: Duration = Field(
        default=timedelta(minutes=1),
        description="How often the sensor of `follow` or `retrain` looks whether there is something to do.",
    )

    @model_validator(mode="after")
    def _one_sensor(self) -> Self:
        if self.follow and self.retrain is not None:
            raise ValueError(
                "`follow: true` trains on each version that the dataset gets by itself, `retrain` has one built and "
                "trains on it when there is a reason to: take one of them"
            )
        return self


class TrainingConfig(dg.Config):
    """How a model is trained, in the launchpad."""

    dataset_version: int | None = None
    """The version of the dataset to train on; the newest if it is not given."""


class Training(PlatformComponent):
    """Trains a model on a dataset."""

    model = TrainingComponentOptions
    options: TrainingComponentOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        recipe = recipe_of(folder, self.options)
        asset = self.asset(folder, recipe)
        job = dg.define_asset_job(
            training_job(folder.name),
            selection=dg.AssetSelection.assets(asset),
            description=f"Train the model {folder.name}.",
        )
        if self.options.retrain is not None:
            # The dataset's folder may be broken, so that the asset is not there: then the job is that of the model.
            selection = dg.AssetSelection.assets(asset).upstream(depth=1).materializable()
            anew = dg.define_asset_job(
                retraining_job(folder.name),
                selection=selection,
                description=f"Build the dataset {self.options.dataset}, and train the model {folder.name} on it.",
            )
            retraining = retraining_of(folder, self.options.dataset, self.options.retrain)
            sensor = retraining_sensor(folder, retraining, self.options.every, environment.settings, anew)
            return dg.Definitions(assets=[asset], jobs=[job, anew], sensors=[sensor])
        sensors = [self.sensor(folder, environment.settings, job)] if self.options.follow else []
        return dg.Definitions(assets=[asset], jobs=[job], sensors=sensors)

    def asset(self, folder: Path, recipe: Recipe) -> dg.AssetsDefinition:
        """The asset of the model."""
        options, key, platform = self.options, trained_key(folder.name), folder.parents[1].name

        @dg.asset(
            key=key,
            deps=[dataset_key(options.dataset)],
            group_name="models",
            kinds={"model"},
            pool=options.pool or f"train_{folder.name}",
            retry_policy=RETRIES,
            description=f"{options.description} Trained on the dataset {options.dataset}.".strip(),
            metadata={
                "defs": str(folder / DEFS),
                "function": options.function,
                "features": ", ".join(options.features),
                "promote": options.promote,
            },
            check_specs=[
                dg.AssetCheckSpec(GATES, asset=key, description="What the newest version reaches on the test split.")
            ],
        )
        def model(
            context: dg.AssetExecutionContext, config: TrainingConfig, lakehouse: LakehouseResource
        ) -> Iterator[Event]:
            why = context.run.tags.get(REASON, "")
            try:
                with lakehouse.open() as lake:
                    ledger.claim(lake, platform, "trained model", [folder.name])
                    trained = train(
                        lake,
                        recipe,
                        run_id=context.run.run_id,
                        say=context.log.info,
                        dataset_version=config.dataset_version,
                        why=why,
                    )
                    copied = mirrored(lake, folder.name)
            except Exception as error:  # noqa: BLE001 - a user's function or a library may raise anything
                raise failure(error, private=True) from None
            if copied:
                context.log.info(copied)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **metadata_of(trained),
                    **({"why": why} if why else {}),
                    **({"mirror": copied} if copied else {}),
                },
                data_version=dg.DataVersion(str(trained.version.version)),
            )
            yield checked(key, trained)

        return model

    def sensor(self, folder: Path, settings: Settings, job: Job) -> dg.SensorDefinition:
        """Asks for a training on a version of the dataset that none was made on."""
        name, dataset, every, broken = folder.name, self.options.dataset, self.options.every, broken_asset(folder)

        @dg.sensor(
            name=f"train_{name}_sensor",
            job=job,
            minimum_interval_seconds=least_interval(every),
            default_status=dg.DefaultSensorStatus.RUNNING,
            description=f"Follows the dataset {dataset}: asks for a training on each new version.",
        )
        def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
            with looking(context, broken, settings) as lake:
                there = ledger.dataset_versions(lake, dataset)
                used = [one for one in ledger.model_versions(lake, name) if one.dataset == dataset]
            newest = max((one.version for one in there), default=0)
            if newest <= max((one.dataset_version for one in used), default=0):
                return dg.SkipReason(f"The model is trained on the newest version of the dataset {dataset}.")
            return request_once(context.instance, name, {name: [Request([trained_key(name)], newest)]}, every)

        return look


def recipe_of(folder: Path, options: TrainingOptions) -> Recipe:
    """What trains the model of a folder. Raises PlatformError, with the file, if there is no such function."""
    where = folder / DEFS
    try:
        function = load_attribute(options.function, "training function")
    except PlatformError as error:
        raise PlatformError(f"{where}: {error}") from None
    if not callable(function):
        raise PlatformError(f"{where}: the training function {options.function} is a {type(function).__name__}.")
    return Recipe(folder.name, options, function, str(where))


def metadata_of(trained: Trained) -> dict[str, Any]:
    """What the asset shows of a training."""
    version, curves = trained.version, trained.curves
    plots = [roc_plot(curves.roc, version.metrics.get("auc"))] if curves.roc else []
    plots += [calibration_plot(curves.calibration)] if curves.calibration else []
    plots += [importance_plot(curves.importance)] if curves.importance else []
    return {
        "version": version.version,
        "dataset version": version.dataset_version,
        "in production": _production(trained),
        "metrics": metrics_table(trained),
        "gates": gates_table(trained),
        **({"plots": dg.MetadataValue.md("\n\n".join(plots))} if plots else {}),
        "framework": version.framework,
        "code version": version.code_version,
        "rows": ", ".join(f"{rows:,} {split}" for split, rows in trained.dataset.splits.items()),
        **({"notes": " ".join(trained.notes)} if trained.notes else {}),
    }


def _production(trained: Trained) -> str:
    if trained.promoted:
        before = f", in the place of version {trained.production}" if trained.production is not None else ""
        return f"this version{before}"
    return f"version {trained.production}" if trained.production is not None else "none"


def metrics_table(trained: Trained) -> dg.TableMetadataValue:
    """The metrics of a version beside those of the one in production, on the same rows."""
    before = trained.production_metrics
    columns = ["metric", "this version", "production", "difference"]
    rows = [
        (metric, figure, before.get(metric), figure - before[metric] if metric in before else None)
        for metric, figure in trained.version.metrics.items()
    ]
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    kinds = ["string", "float", "float", "float"]
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in zip(columns, kinds, strict=True)])
    return dg.MetadataValue.table(records, schema)


def gates_table(trained: Trained) -> dg.TableMetadataValue:
    """The gates of a version, with what was found."""
    schema = dg.TableSchema([dg.TableColumn(name) for name in ("gate", "passed", "figures")])
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"gate": gate.name, "passed": "yes" if gate.passed else "no", "figures": gate.reason})
            for gate in trained.gates
        ],
        schema,
    )


def checked(key: dg.AssetKey, trained: Trained) -> dg.AssetCheckResult:
    """Whether a version passed its gates. That it did not is a warning: the one in production is as good as before."""
    missed = [gate for gate in trained.gates if not gate.passed]
    if missed:
        said = " ".join(f"{gate.name}: {gate.reason}" for gate in missed)
        said = f"Version {trained.version.version} did not pass {len(missed)} of {len(trained.gates)} gates. {said}"
    else:
        said = f"Version {trained.version.version} passed all {len(trained.gates)} gates."
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=GATES,
        passed=trained.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={"gates": gates_table(trained)},
    )
