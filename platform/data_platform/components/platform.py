"""A whole platform from its `defs` folder: every source and model, the maintenance, the lakehouse resource.

Dagster gives up a whole code location for one bad `defs.yaml`. Here each folder is loaded by itself: one that cannot
be loaded appears as an asset `broken/<folder>` that says why, and everything else goes on. With
`DATA_PLATFORM_STRICT=1`, as in CI, the mistake is raised instead.
"""

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import dagster as dg
import yaml
from dagster._check import CheckError
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException
from pydantic import ValidationError

from data_platform.components.audits import audit_definitions
from data_platform.components.component import DEFS, Environment, PlatformComponent, folder_of, folders
from data_platform.components.export import Export
from data_platform.components.external import ExternalJob, loaded_after_jobs
from data_platform.components.keys import BROKEN, platform_key
from data_platform.components.maintenance import maintenance_definitions
from data_platform.components.mistakes import reason_of
from data_platform.components.models import DbtModels
from data_platform.components.openlineage import reporting
from data_platform.components.ownership import broken_asset, earlier_platforms, refusals
from data_platform.components.resource import LakehouseResource
from data_platform.components.source import SourceComponent
from data_platform.components.spec import SourceSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Source
from data_platform.instance.liveness import watched
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.state import keep_private
from data_platform.redaction import scrub, scrub_process


def platform_definitions(
    package: Path, *, settings: Settings | None = None, sources: Mapping[str, Source] | None = None
) -> dg.Definitions:
    """The definitions of the platform package in `package`, whose sources lie in `package/defs/<name>/defs.yaml`.

    `settings` are those of the environment unless given; `sources` take the place of the sources that have their names.
    """
    environment = Environment(settings or settings_from_environment(), sources or {})
    scrub_process()
    keep_private(environment.settings)
    first, refused = not earlier_platforms(package), refusals(package)
    found = {folder: _folder_definitions(folder, environment, refused.get(folder)) for folder in folders(package)}
    parts = loaded_after_jobs(_apart(found, environment))
    # Starting a process for each step costs more than most steps: in-process unless a setting says otherwise.
    executor = {"multiprocess": dg.multiprocess_executor, "in_process": dg.in_process_executor}
    return dg.Definitions.merge(
        *parts,
        maintenance_definitions(parts, package.name, environment.settings, first=first),
        audit_definitions(parts, None if first else platform_key("full_audit", package.name)),
        dg.Definitions(
            resources={"lakehouse": LakehouseResource.at(settings)},
            executor=reporting(watched(executor[environment.settings.executor])),
        ),
    )


def source_spec(package: Path, source: str, settings: Settings | None = None) -> SourceSpec:
    """One source of a platform, without the definitions made of it. `settings` are those of the environment unless
    given.

    Raises PlatformError if there is none, or it is broken.
    """
    component, folder = source_component(package, source), folder_of(package, source)
    try:
        return component.spec(folder, Environment(settings or settings_from_environment()))
    except BROKEN_BY as error:
        raise PlatformError(reason_of(error, folder / DEFS)) from None


def source_component(package: Path, source: str) -> SourceComponent:
    """The component of one source: its options as `defs.yaml` has them. Raises PlatformError as `source_spec` does."""
    folder = folder_of(package, source)
    if folder in (refused := refusals(package)):
        raise PlatformError(refused[folder])
    try:
        component = _tree(folder).load_component(folder)
    except BROKEN_BY as error:
        raise PlatformError(reason_of(error, folder / DEFS)) from None
    if not isinstance(component, SourceComponent):
        raise PlatformError(f"{folder / DEFS} describes no source, but a {type(component).__name__}.")
    return component


def export_of(folder: Path) -> Export | None:
    """The export that a folder describes, which can be loaded; None if it describes something else."""
    component = _tree(folder).load_component(folder)
    return component if isinstance(component, Export) else None


def models_of(folder: Path) -> DbtModels | None:
    """The models that a folder describes, which can be loaded; None if it describes something else."""
    component = _tree(folder).load_component(folder)
    return component if isinstance(component, DbtModels) else None


def job_of(folder: Path) -> ExternalJob | None:
    """The job of another orchestrator that a folder describes, which can be loaded; None if it describes something
    else."""
    component = _tree(folder).load_component(folder)
    return component if isinstance(component, ExternalJob) else None


def broken_sources(package: Path, only: str | None = None) -> dict[str, str]:
    """The sources and models of a platform (or `only` one of them) that cannot be loaded, and why."""
    reasons = {folder.name: reason for folder, reason in refusals(package).items() if only in (None, folder.name)}
    parts = {}
    for folder in folders(package):
        if only not in (None, folder.name) or folder.name in reasons:
            continue
        try:
            parts[folder] = _tree(folder).build_defs_at_path(folder)
        except BROKEN_BY as error:
            reasons[folder.name] = reason_of(error, folder / DEFS)
    return reasons | {folder.name: reason for folder, reason in _clashes(parts).items()}


BROKEN_BY = (
    ComponentTreeException,
    dg.DagsterError,
    CheckError,
    PlatformError,
    ValidationError,
    ImportError,
    SyntaxError,
    yaml.YAMLError,
    UnicodeDecodeError,
    OSError,
)
"""What a mistake in a folder is raised as; whatever goes wrong while its modules run is a ComponentTreeException."""


def _tree(folder: Path) -> ComponentTree:
    """A tree of one folder alone: Dagster reads every file of a tree before it builds any of it, and one that is no
    YAML would take all the others with it."""
    # Dagster warns at each load of each component that parts of its own implementation are beta.
    warnings.filterwarnings("ignore", category=dg.BetaWarning, module="dagster")
    return ComponentTree.from_module(import_module(".".join(folder.parts[-3:])), folder.parents[2])


def _apart(parts: Mapping[Path, dg.Definitions], environment: Environment) -> list[dg.Definitions]:
    """The definitions of the folders; of one whose operations are those of another only that it is broken."""
    reasons = _clashes(parts)
    if reasons and environment.settings.strict:
        raise PlatformError(next(iter(reasons.values())))
    return [_broken(folder, reasons[folder]) if folder in reasons else part for folder, part in parts.items()]


def _clashes(parts: Mapping[Path, dg.Definitions]) -> dict[Path, str]:
    """The folders that make an operation or a schedule of a name that one before makes, and what is to be done. These
    have the names of source and table joined by two underscores: `a` and `b__c` make the name that `a__b` and `c`
    make."""
    owners: dict[str, Path] = {}
    reasons = {}
    for folder, part in parts.items():
        operations = [one.node_def.name for one in part.assets or () if isinstance(one, dg.AssetsDefinition)]
        schedules = [one.name for one in part.schedules or () if isinstance(one, dg.ScheduleDefinition)]
        names = [*(f"operation {name}" for name in operations), *(f"schedule {name}" for name in schedules)]
        clash = next((name for name in names if name in owners), None)
        if clash is None:
            owners |= dict.fromkeys(names, folder)
        else:
            reasons[folder] = (
                f"{folder / DEFS}: a table makes the {clash}, and so does one of {owners[clash] / DEFS}. "
                "Give it another name here; `table:` keeps the source's own spelling."
            )
    return reasons


def _folder_definitions(folder: Path, environment: Environment, refusal: str | None) -> dg.Definitions:
    try:
        if refusal is not None:
            raise PlatformError(refusal)
        tree = _tree(folder)
        component = tree.load_component(folder)
        if isinstance(component, PlatformComponent):
            return component.definitions(folder, environment)
        return tree.build_defs_at_path(folder)
    except BROKEN_BY as error:
        reason = scrub(reason_of(error, folder / DEFS))
        if environment.settings.strict:
            raise PlatformError(reason) from None
        return _broken(folder, reason)


def _broken(folder: Path, reason: str) -> dg.Definitions:
    @dg.asset(
        key=broken_asset(folder),
        group_name=BROKEN,
        description=f"{folder / DEFS} cannot be loaded:\n\n```\n{reason}\n```\n\nCorrect it, reload the location.",
    )
    def broken() -> None:
        raise dg.Failure(description=f"{folder / DEFS} cannot be loaded: {reason}", allow_retries=False)

    return dg.Definitions(assets=[broken])
