"""What the platforms of one workspace may call their own: each source and each model belongs to one of them, the one
that the workspace names first. A second one of the same name is refused when definitions load, before it could write to
the other's tables. Platforms of other projects on the same lakehouse are kept from it as they write: `ledger.owners`.

The files of the other platforms are read here, none of their code is imported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from data_platform.components.component import DEFS, folders
from data_platform.components.keys import broken_key
from data_platform.components.workspace import workspace_entries
from data_platform.lakehouse.settings import WORKSPACE

MODELS, DASHBOARDS = "DbtModels", "Dashboards"
OF_SCIENCE = {"Dataset": "dataset", "Training": "trained model", "Scores": "table of scores"}
NO_SOURCES = (MODELS, DASHBOARDS, "Alerts", "Export", "ExternalJob", *OF_SCIENCE)
"""The components that describe no source."""


@dataclass(frozen=True)
class Owned:
    """A source, a model or a dataset, and the file that makes it one. `name` is in lower case, as the lakehouse
    compares names."""

    kind: str
    name: str
    where: Path


def earlier_platforms(package: Path) -> list[Path]:
    """The packages of the platforms that the workspace names before this one; none if it does not name this one.

    Raises PlatformError if the workspace cannot be read."""
    project = next((folder for folder in package.resolve().parents if (folder / WORKSPACE).is_file()), None)
    if project is None:
        return []
    entries = workspace_entries(project / WORKSPACE)
    names = [entry.name for entry in entries]
    if package.name not in names:
        return []
    earlier = [entry.package for entry in entries[: names.index(package.name)]]
    return [one for one in earlier if one is not None]


def broken_asset(folder: Path) -> dg.AssetKey:
    """The asset that stands for a folder of a platform while it cannot be loaded. Raises PlatformError if the workspace
    cannot be read."""
    package = folder.parents[1]
    return broken_key(folder.name, package.name if earlier_platforms(package) else None)


def refusals(package: Path) -> dict[Path, str]:
    """The folders of a platform that may not be loaded, and why: the source or a model that they describe is that of a
    platform which the workspace names before this one, or of another folder of this one. Both places are named.

    Raises PlatformError if the workspace cannot be read.
    """
    taken: dict[tuple[str, str], tuple[Owned, str]] = {}
    for one in earlier_platforms(package):
        for folder in folders(one):
            taken |= {(owned.kind, owned.name): (owned, one.name) for owned in _owned(folder)}
    refused = {}
    for folder in folders(package):
        for owned in _owned(folder):
            key = (owned.kind, owned.name)
            if key in taken:
                rival, platform = taken[key]
                refused[folder] = (
                    f"There are two {owned.kind}s {owned.name}: {rival.where}, of the platform {platform}, and "
                    f"{owned.where}, of {package.name}. All that share a lakehouse share its names, so that one would "
                    f"write to the tables of the other. Rename that of {package.name}"
                    + (f", which {WORKSPACE} names later." if platform != package.name else ", or remove one of them.")
                )
                break
            taken[key] = (owned, package.name)
    return refused


def _owned(folder: Path) -> Iterator[Owned]:
    """What a folder makes its platform's: a source, the models of a dbt project, pages, a dataset, a trained model, a
    table of scores, or nothing, if it is an export or sends alerts."""
    kind, attributes = declared(folder)
    if kind in OF_SCIENCE:
        yield Owned(OF_SCIENCE[kind], folder.name.lower(), folder / DEFS)
    elif kind not in NO_SOURCES:
        yield Owned("source", folder.name.lower(), folder / DEFS)
    elif kind == MODELS and isinstance(attributes.get("project"), str):
        for model in sorted(model_files((folder / attributes["project"]).resolve())):
            yield Owned("model", model.stem.lower(), model)
    elif kind == DASHBOARDS:
        for page in sorted(file for file in folder.glob("*.yaml") if file.name != DEFS):
            yield Owned("page", page.stem.lower(), page)


def declared(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """The component of a folder by the name of its class, and its attributes; of a source, which nothing else needs to
    be known of here, empty ones and no name."""
    file = folder / DEFS
    parsed = _parsed(file) if any(kind in _text(file) for kind in NO_SOURCES) else {}
    attributes, kind = parsed.get("attributes"), str(parsed.get("type", "")).rpartition(".")[2]
    return kind, attributes if isinstance(attributes, dict) else {}


def _text(file: Path) -> str:
    """What a file says; nothing if it cannot be read, which whoever loads it reports."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _parsed(file: Path) -> Mapping[str, Any]:
    try:
        parsed = yaml.safe_load(_text(file))
    except yaml.YAMLError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def model_files(project: Path) -> Iterator[Path]:
    """The files of a dbt project's models."""
    paths = _parsed(project / "dbt_project.yml").get("model-paths", ["models"])
    for path in paths if isinstance(paths, list) else []:
        yield from (project / str(path)).rglob("*.sql")
