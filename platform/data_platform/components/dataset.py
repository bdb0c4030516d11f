"""The component `Dataset`: rows to train and evaluate on, as an asset whose every version stays as it was. What a
dataset is and how it is built is in `ml.datasets`; here it is put into Dagster's words.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import Field, model_validator

from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.export import contract_of_model
from data_platform.components.failures import RETRIES, failed_step
from data_platform.components.inputs import INPUTS, made_of, steps_of, without_rows
from data_platform.components.keys import CHECK, LEAKAGE, dataset_job, dataset_key
from data_platform.components.metadata import BAR_CHARACTERS, bar, contract_schema, place, sample
from data_platform.components.ownership import broken_asset
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import contract_columns, name_of, owner_of
from data_platform.contracts.violations import counted
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import MODELLED, Table, column_types
from data_platform.lakehouse.transaction import taken_up
from data_platform.ml.datasets.building import Built, build
from data_platform.ml.datasets.leakage import Leak, leaks
from data_platform.ml.datasets.options import DatasetOptions
from data_platform.ml.datasets.reading import rows_query
from data_platform.ml.datasets.recipe import Recipe, recipe_of
from data_platform.ml.datasets.sources import asset_of
from data_platform.ml.datasets.version import DATASETS, SPLIT, DatasetVersion, dataset_table
from data_platform.options import Duration

LOOKS = timedelta(seconds=30)
LABELS_SHOWN = 20


class DatasetComponentOptions(DatasetOptions):
    """Rows to train and evaluate on, of which every version stays as it was."""

    every: Duration | None = Field(
        default=None,
        description="How often it is built at most, where its tables have changed. Default: each time that they have.",
    )
    follow: bool = Field(
        default=True,
        description="Whether a sensor has it built when its tables have changed. Not where a training has it built, by "
        "`retrain`.",
    )

    @model_validator(mode="after")
    def _every_of_a_sensor(self) -> Self:
        if self.every is not None and not self.follow:
            raise ValueError(
                "`every` is how often its sensor has it built at most, and `follow: false` leaves that out"
            )
        return self


@dataclass(frozen=True)
class _Input:
    """A table that a dataset reads: its asset, and whether values of it must not be shown."""

    table: Table
    private: bool

    @property
    def key(self) -> dg.AssetKey:
        return dg.AssetKey(list(asset_of(self.table)))


class Dataset(PlatformComponent):
    """Makes a dataset of tables, to train and evaluate models on."""

    model = DatasetComponentOptions
    options: DatasetComponentOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        recipe = recipe_of(folder.name, self.options, folder)
        inputs = [_input(folder, table) for table in recipe.origin.tables.values()]
        columns = contract_columns(recipe.contract) if recipe.contract is not None else []
        private = any(one.private for one in inputs) or any(column.private for column in columns)
        recipe = replace(recipe, private=private)
        asset = self.asset(folder, recipe, inputs)
        job = dg.define_asset_job(
            dataset_job(recipe.name),
            selection=dg.AssetSelection.assets(asset),
            description=f"Build the dataset {recipe.name}.",
        )
        if not self.options.follow:
            return dg.Definitions(assets=[asset], jobs=[job])
        sensor = dataset_sensor(folder, recipe, inputs, self.options.every, environment.settings, job)
        return dg.Definitions(assets=[asset], jobs=[job], sensors=[sensor])

    def asset(self, folder: Path, recipe: Recipe, inputs: Sequence[_Input]) -> dg.AssetsDefinition:
        """The asset of the dataset."""
        key, contract, platform = dataset_key(recipe.name), recipe.contract, folder.parents[1].name
        owner = owner_of(contract) if contract is not None else None
        promise = f"All rows keep {name_of(contract)}." if contract is not None else "Each row has a key and a label."
        checks = [dg.AssetCheckSpec(CHECK, asset=key, description=promise)]
        if recipe.label is not None:
            about = f"No feature tells {recipe.label} that would not be known, and the splits are apart."
            checks.append(dg.AssetCheckSpec(LEAKAGE, asset=key, description=about))

        @dg.asset(
            key=key,
            deps=[one.key for one in inputs],
            group_name=DATASETS,
            kinds={"ducklake", "polars" if recipe.origin.query is None else "sql"},
            pool=f"dataset_{recipe.name}",
            owners=[owner] if owner else None,
            retry_policy=RETRIES,
            description=self.options.description or f"The dataset {recipe.name}.",
            metadata={
                "defs": str(folder / DEFS),
                "key": ", ".join(recipe.key),
                **{name: said for name, said in (("time", recipe.time), ("label", recipe.label)) if said},
                **(
                    {"dagster/column_schema": contract_schema(contract), "contract": name_of(contract)}
                    if contract is not None
                    else {}
                ),
            },
            check_specs=checks,
        )
        def dataset(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Any]:
            try:
                with lakehouse.open() as lake:
                    ledger.claim(lake, platform, "dataset", [recipe.name])
                    with lake.reading():
                        versions = input_versions(lake, recipe, inputs)
                    built = taken_up(lambda: build(lake, recipe, run_id=context.run.run_id))
                    metadata = _metadata(lake, recipe, built)
                    found = _leaks(lake, recipe, built.version)
            except Exception as error:  # noqa: BLE001 - a library may raise anything
                yield from failed_step(context, error, [key], private=recipe.private)
            said = _verdict(recipe, built)
            context.log.info(said)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={**metadata, INPUTS: dg.MetadataValue.json(versions), "notes": said},
                data_version=dg.DataVersion(str(built.version.version)),
            )
            yield dg.AssetCheckResult(asset_key=key, check_name=CHECK, passed=True, description=said)
            if recipe.label is not None:
                yield _leakage(key, recipe, found)

        return dataset


def _input(folder: Path, table: Table) -> _Input:
    """A table that a dataset reads. Raises PlatformError, with the file, for one that the platform does not have."""
    if table.schema == MODELLED:
        contract = contract_of_model(folder, table.name)
        return _Input(table, contract is not None and any(column.private for column in contract_columns(contract)))
    # Here, as the platform imports every component.
    from data_platform.components.platform import source_spec

    try:
        spec = source_spec(folder.parents[1], table.source)
    except PlatformError as error:
        raise PlatformError(f"{folder / DEFS} reads {table}: {error}") from None
    if table.name not in spec.tables and all(table.name not in one.made_besides for one in spec.tables.values()):
        raise PlatformError(
            f"{folder / DEFS} reads {table}: the source {table.source} has no table {table.name}. It has: "
            f"{', '.join(spec.tables)}."
        )
    return _Input(
        table, any(one.private for one in spec.tables.values() if table.name in (one.name, *one.made_besides))
    )


def input_versions(lake: Lakehouse, recipe: Recipe, inputs: Sequence[_Input]) -> dict[str, int | str]:
    """The last step that changed each table which a dataset reads, and the version of its code. A table of which there
    are no rows yet is left out."""
    return {**steps_of(lake, [one.table for one in inputs]), "code": recipe.origin.code_version}


def _verdict(recipe: Recipe, built: Built) -> str:
    version = built.version
    splits = ", ".join(f"{name} {rows:,}" for name, rows in version.splits.items())
    of = f"Version {version.version} has {counted(version.rows)}{f': {splits}' if splits else ''}."
    empty = [name for name, rows in version.splits.items() if not rows]
    nothing = f" There are none in {', '.join(empty)}." if empty else ""
    contract = f" All keep {name_of(recipe.contract)}." if recipe.contract is not None else ""
    if built.is_new:
        return f"{of}{nothing}{contract}"
    return f"No new version: the rows are those of version {version.version}, by their hash. {of}{nothing}{contract}"


def _metadata(lake: Lakehouse, recipe: Recipe, built: Built) -> dict[str, Any]:
    version, table = built.version, dataset_table(recipe.name)
    types = column_types(lake.connection, table)
    hidden = _hidden(recipe, types)
    shown = sample(lake, table, hidden)
    balance = _balance(lake, recipe, version) if recipe.label is not None and recipe.label not in hidden else None
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in types.items()])
    return {
        **place(lake, table),
        "version": version.version,
        "snapshot": version.snapshot_id,
        "built from snapshot": version.built_from,
        "hash": version.hash,
        "code version": version.code_version,
        **({} if recipe.contract is not None else {"dagster/column_schema": schema}),
        **({"sample": shown} if shown is not None else {}),
        **({"label by split": balance} if balance is not None else {}),
    }


def _hidden(recipe: Recipe, types: Mapping[str, str]) -> list[str]:
    """The columns whose values are not shown. Where a table that is read has private ones, a contract says which those
    of the dataset are; without one it may be any."""
    if recipe.contract is None:
        return [*types] if recipe.private else []
    columns = contract_columns(recipe.contract)
    known = {SPLIT, *(column.name for column in columns)}
    private = {column.name for column in columns if column.private}
    return [name for name in types if name in private or (recipe.private and name not in known)]


def _balance(lake: Lakehouse, recipe: Recipe, version: DatasetVersion) -> dg.MarkdownMetadataValue | None:
    """How often the label has each of its values in each split, as bars; None for a label of more values than a class
    has."""
    rows = lake.connection.execute(
        f"SELECT coalesce({quote(SPLIT)}, 'all') AS split, {quote(str(recipe.label))}::VARCHAR AS label, count(*) "
        f"FROM ({rows_query(lake, version)}) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    labels = sorted({label for _, label, _ in rows})
    if len(labels) > LABELS_SHOWN:
        return None
    counts, lines = {(split, label): count for split, label, count in rows}, []
    for split in version.splits or ["all"]:
        total = sum(counts.get((split, label), 0) for label in labels)
        lines += [split, *(_share(label, counts.get((split, label), 0), total) for label in labels if total)]
    return dg.MetadataValue.md("\n".join(["```", *lines, "```"]))


def _share(label: str, count: int, total: int) -> str:
    return f"  {label[:BAR_CHARACTERS]}  {bar(count, total)} {count / total:.1%} ({count:,})"


def _leaks(lake: Lakehouse, recipe: Recipe, version: DatasetVersion) -> list[Leak]:
    if recipe.label is None:
        return []
    types = column_types(lake.connection, dataset_table(recipe.name))
    return leaks(lake.connection, f"({rows_query(lake, version)})", types, recipe)


def _leakage(key: dg.AssetKey, recipe: Recipe, found: Sequence[Leak]) -> dg.AssetCheckResult:
    text = "\n".join(f"- {one.column} {one.text}." for one in found)
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=LEAKAGE,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"What a model would learn from these is not known when it is to predict:\n\n{text}"
        if found
        else f"No feature alone tells {recipe.label}, and the splits are apart.",
        metadata={"findings": len(found), "columns": ", ".join(dict.fromkeys(one.column for one in found)) or "none"},
    )


def dataset_sensor(
    folder: Path, recipe: Recipe, inputs: Sequence[_Input], every: timedelta | None, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for a build when a table that the dataset reads, or its code, has changed since it was built last; no more
    often than `every`, if that is given."""
    broken, key = broken_asset(folder), dataset_key(recipe.name)

    @dg.sensor(
        name=f"dataset_{recipe.name}_sensor",
        job=job,
        minimum_interval_seconds=least_interval(min(every, LOOKS) if every is not None else LOOKS),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the tables that the dataset reads: asks for a build when they have changed.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings) as lake:
            now = input_versions(lake, recipe, inputs)
        missing = without_rows([one.table for one in inputs], now)
        if missing:
            return dg.SkipReason(f"There are no rows yet of {', '.join(missing)}.")
        last = made_of(context.instance, key)
        if last is not None and last.inputs == now:
            return dg.SkipReason("The tables that it reads have not changed since it was built last.")
        if last is not None and every is not None and datetime.now(UTC) < last.at + every:
            return dg.SkipReason(f"It is built at most every {every}: next at {last.at + every:%Y-%m-%d %H:%M:%S} UTC.")
        return request_once(
            context.instance, f"dataset_{recipe.name}", {recipe.name: [Request([key], now)]}, every or LOOKS
        )

    return look
