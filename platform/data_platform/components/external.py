"""The component `ExternalJob`: a job of another orchestrator, or of cron, beside the platform's own assets. An asset
for each thing that it makes: materialised by starting the job, or reported when it ended by itself. How jobs are
started and looked for is in `external`; here it is put into Dagster's words.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from dagster_shared.record import replace
from pydantic import Field

from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.execution import matches, select
from data_platform.components.failures import failure
from data_platform.components.file import place_of
from data_platform.components.keys import EXTERNAL, external_job, external_key
from data_platform.components.mistakes import forget_broken
from data_platform.components.ownership import broken_asset
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import least_interval
from data_platform.components.spec import resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.external.commands import run_command
from data_platform.external.markers import file_version, http_value, query_value
from data_platform.external.options import CommandStart, FileMarker, HttpMarker, HttpStart, JobOptions, QueryMarker
from data_platform.external.runs import Ended, follow
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import RAW
from data_platform.options import Duration, Options, Written

RUN = "run"
"""The metadata that names the run which made an asset."""

HOW = "known by"
"""The metadata of what a job makes that says how it is known that the job ended."""

THEN = "then"
"""The metadata of what a job makes that lists what is run each time the job has ended."""

Result = dg.MaterializeResult[None]
T = TypeVar("T", bound=Options)


class ExternalJobOptions(JobOptions, Written):
    """A job of another orchestrator: it is started here, waited for, or reported from outside (`dp report`)."""

    every: Duration = Field(
        default=timedelta(seconds=30), description="How often the sensor looks whether the job has ended."
    )


class ExternalJob(PlatformComponent):
    """Has a job of another orchestrator take part."""

    model = ExternalJobOptions
    options: ExternalJobOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        options, keys = self.options, [external_key(folder.name, name) for name in self.options.makes]
        specs = [
            dg.AssetSpec(
                key=key,
                group_name=f"external_{folder.name}",
                description=f"{options.description} {made.description}".strip(),
                metadata={
                    "defs": str(folder / DEFS),
                    HOW: self.how(folder.name),
                    **({THEN: options.then} if options.then else {}),
                },
                kinds={"external"},
            )
            for key, made in zip(keys, options.makes.values(), strict=True)
        ]
        sensors = [self.sensor(folder, keys, environment.settings)] if options.wait or options.then else []
        if options.start is None:
            return dg.Definitions(assets=specs, sensors=sensors)
        asset = self.asset(folder, specs, environment.settings)
        job = dg.define_asset_job(
            external_job(folder.name),
            selection=dg.AssetSelection.assets(*keys),
            description=f"Start {folder.name} and follow it to its end.",
        )
        return dg.Definitions(assets=[asset], jobs=[job], sensors=sensors)

    def how(self, job: str) -> str:
        """How it is known that the job has ended."""
        if self.options.start is not None:
            return f"it is started here, by `dp run {job}`"
        if (wait := self.options.wait) is not None:
            looked_for = {
                FileMarker: "a file",
                QueryMarker: "a value of a database",
                HttpMarker: "a value of an HTTP API",
            }[type(wait)]
            return f"its sensor looks for {looked_for} while `dp ui` runs, or the daemon"
        made = f"{job}/{next(iter(self.options.makes))}"
        return (
            f"it is reported, by `dp report {made}` or POST /report_asset_materialization/{EXTERNAL}/{made} to the web "
            "server"
        )

    def asset(self, folder: Path, specs: Sequence[dg.AssetSpec], settings: Settings) -> dg.AssetsDefinition:
        """What the job makes, made by starting it."""
        start, where = self.options.start, folder / DEFS

        @dg.multi_asset(name=f"start_{folder.name}", specs=specs, pool=f"external_{folder.name}")
        def made(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Result]:
            try:
                if isinstance(start, CommandStart):
                    settings.home.mkdir(parents=True, exist_ok=True)
                    resolved = _resolved(start, CommandStart, f"{where}: start")
                    ended = run_command(folder.name, resolved, settings.home, context.log.info)
                else:
                    assert isinstance(start, HttpStart)  # noqa: S101 - or there is no asset to be made
                    with lakehouse.open() as lake:
                        ended = follow(lake, folder.name, _resolved(start, HttpStart, f"{where}: start"))
            except Exception as error:  # noqa: BLE001 - a library may raise anything
                raise failure(error) from None
            for spec in specs:
                yield dg.MaterializeResult(asset_key=spec.key, metadata=_figures(ended))

        return made

    def sensor(self, folder: Path, keys: Sequence[dg.AssetKey], settings: Settings) -> dg.SensorDefinition:
        """Reports that the job ended, once for each end, and asks for what is to be run then. Its cursor says what was
        seen last."""
        broken, name, options, where = broken_asset(folder), folder.name, self.options, folder / DEFS

        @dg.sensor(
            name=f"external_{name}_sensor",
            minimum_interval_seconds=least_interval(options.every),
            default_status=dg.DefaultSensorStatus.RUNNING,
            asset_selection=dg.AssetSelection.all() if options.then else None,
            description=f"Looks whether {name} has ended, and asks for what comes then.",
        )
        def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
            forget_broken(context.instance, broken)
            cursor = json.loads(context.cursor or "{}")
            if options.wait is not None:
                try:
                    seen = self.seen(where, settings)
                except Exception as error:  # noqa: BLE001 - a library may raise anything
                    raise failure(error) from None
                if seen is not None and seen != cursor.get("seen"):
                    events = [dg.AssetMaterialization(key, metadata={RUN: seen}) for key in keys]
                    return dg.SensorResult(asset_events=events, cursor=json.dumps({**cursor, "seen": seen}))
                if seen is None and not isinstance(options.wait, FileMarker) and options.wait.equals is not None:
                    cursor.pop("seen", None)  # it goes on: the same value says next that it ended again
            if not options.then:
                return _skipped("The job has not ended since it was seen last.", cursor)
            ends = map(context.instance.get_latest_materialization_event, keys)
            at = max((str(end.timestamp) for end in ends if end is not None), default=None)
            if at is None or at == cursor.get("followed"):
                return _skipped("The job has not ended since what comes then was asked for last.", cursor)
            repository = context.repository_def
            if repository is None:
                raise PlatformError("The sensor knows no other assets: it is evaluated outside of a platform.")
            materializable = sorted(repository.asset_graph.materializable_asset_keys)
            if (wrong := unknown_in_then(folder, self, materializable)) is not None:
                raise failure(PlatformError(wrong))
            selected = select(materializable, options.then)
            return dg.SensorResult(
                run_requests=[dg.RunRequest(run_key=f"external_{name}-{at}", asset_selection=selected)],
                cursor=json.dumps({**cursor, "followed": at}),
            )

        return look

    def seen(self, where: Path, settings: Settings) -> str | None:
        """What the job left when it ended last; None while there is nothing."""
        wait = self.options.wait
        if isinstance(wait, HttpMarker):
            return http_value(_resolved(wait, HttpMarker, f"{where}: wait"))
        if isinstance(wait, QueryMarker):
            return query_value(_resolved(wait, QueryMarker, f"{where}: wait"))
        assert isinstance(wait, FileMarker)  # noqa: S101 - whoever asks has seen that there is one
        return file_version(place_of(wait, where, settings), wait.path)


def refuse_reported(definitions: dg.Definitions, selections: Sequence[str]) -> None:
    """Raise PlatformError for a selection of nothing but what jobs make that are not started here, with how it is known
    that they ended: nobody can run them."""
    graph = definitions.resolve_asset_graph()
    startable = graph.materializable_asset_keys
    made = sorted(key for key in graph.get_all_asset_keys() - startable if key.path[0] == EXTERNAL)
    for selection in selections:
        found = [key for key in made if matches(key, selection)]
        if found and not any(matches(key, selection) for key in startable):
            job = found[0].path[1]
            how = graph.get(found[0]).metadata[HOW]
            raise PlatformError(
                f"{selection} is what the job {job} of another orchestrator makes, which is not started here: {how}. "
                f"`dp status` says when it ended last; `start` in its defs.yaml has `dp run {job}` start it."
            )


def unknown_in_then(folder: Path, component: "ExternalJob", keys: Sequence[dg.AssetKey]) -> str | None:
    """What is wrong with what the job of a folder has run when it ended, given all that can be run; None if nothing
    is."""
    try:
        select(keys, component.options.then)
    except PlatformError as error:
        return f"{folder / DEFS}: `then`: {error}"
    return None


def loaded_after_jobs(parts: Sequence[dg.Definitions]) -> list[dg.Definitions]:
    """The same definitions, in which the raw tables that are loaded each time a job has ended (its `then`) come after
    what the job makes, as that is where their rows come from: the graph shows it, and a run of both has this order.
    """
    specs = [spec for part in parts for asset in part.assets or () for spec in _specs(asset)]
    raw = [spec.key for spec in specs if spec.key.path[0] == RAW]
    parents: dict[dg.AssetKey, list[dg.AssetKey]] = {}
    for made in (spec for spec in specs if spec.key.path[0] == EXTERNAL):
        # A selection that matches nothing is refused by the sensor, which knows all that there is.
        for key in {key for selection in made.metadata.get(THEN, ()) for key in raw if matches(key, selection)}:
            parents[key] = [*parents.get(key, ()), made.key]

    def after(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.merge_attributes(deps=parents[spec.key]) if spec.key in parents else spec

    def mapped(part: dg.Definitions) -> dg.Definitions:
        assets: list[Any] = list(part.assets or ())
        if not any(spec.key in parents for asset in assets for spec in _specs(asset)):
            return part
        return replace(part, assets=[*dg.map_asset_specs(after, assets)])

    return [mapped(part) for part in parts]


def _specs(asset: Any) -> Sequence[dg.AssetSpec]:
    if isinstance(asset, dg.AssetSpec):
        return [asset]
    return list(asset.specs) if isinstance(asset, dg.AssetsDefinition) else []


def _skipped(reason: str, cursor: Mapping[str, Any]) -> dg.SensorResult:
    """Nothing is reported nor asked for; what was seen may be another state."""
    return dg.SensorResult(skip_reason=reason, cursor=json.dumps(cursor))


def _figures(ended: Ended) -> dict[str, Any]:
    found = {"found again": True} if ended.found else {}
    return {RUN: ended.run, "state": ended.state, "seconds": round(ended.seconds, 1), **found}


def _resolved(options: T, kind: type[T], where: str) -> T:
    """Options with the values of the environment."""
    given = revealed({name: getattr(options, name) for name in options.model_fields_set})
    return kind.model_validate(resolve_all(given, where))
