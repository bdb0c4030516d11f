"""dbt, run within this process, and what its manifest says. What becomes of a build is decided in `build`.

All that dbt writes (target, logs, partial parse) lies below the platform's home, never in the project's folder.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Any

from data_platform.contracts.contract import Contract
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, attach_url, install_extensions
from data_platform.lakehouse.settings import Settings


@dataclass(frozen=True)
class Project:
    """A dbt project and where its artifacts go."""

    folder: Path
    target: Path

    @property
    def manifest(self) -> Path:
        return self.target / "manifest.json"


@dataclass(frozen=True)
class NodeResult:
    """What became of one node of a build: `status` is dbt's (`success`, `pass`, `fail`, `error`, `skipped`...)."""

    unique_id: str
    status: str
    message: str
    failures: int
    seconds: float


def project_at(folder: Path, settings: Settings) -> Project:
    """The dbt project in a folder. Raises PlatformError if there is none."""
    if not (folder / "dbt_project.yml").exists():
        raise PlatformError(f"There is no dbt project at {folder}: it must hold a dbt_project.yml.")
    return Project(folder, settings.home / "dbt")


def manifest(project: Project, settings: Settings) -> Mapping[str, Any]:
    """The project's manifest, parsed again only if a file of the project is newer.

    Raises PlatformError with dbt's own message if the project cannot be parsed.
    """
    newest = max(file.stat().st_mtime for file in _files(project.folder))
    if not project.manifest.exists() or project.manifest.stat().st_mtime < newest:
        invoke(project, settings, ["parse"])
    loaded: Mapping[str, Any] = json.loads(project.manifest.read_text())
    return loaded


def _files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.yml", "models/**/*", "macros/**/*", "tests/**/*", "seeds/**/*", "snapshots/**/*"):
        yield from (path for path in folder.glob(pattern) if path.is_file())


def invoke(
    project: Project, settings: Settings, arguments: Sequence[str], log: Callable[[str], object] | None = None
) -> list[NodeResult]:
    """Run a dbt command in this process and return the results of its nodes, failed ones included.

    Raises PlatformError when dbt could not run at all (it cannot parse the project, or reach the lakehouse).
    """
    from dbt.cli.main import dbtRunner  # takes more than a second to import

    def heard(event: Any) -> None:
        if log is not None and event.info.name in ("LogModelResult", "LogTestResult", "LogNodeResult"):
            log(event.info.msg)

    folders = ["--project-dir", str(project.folder), "--profiles-dir", str(project.folder)]
    places = ["--target-path", str(project.target), "--log-path", str(project.target / "logs")]
    quiet = ["--quiet", "--no-use-colors", "--no-send-anonymous-usage-stats", "--no-version-check"]
    with _environment(dbt_environment(settings)):
        done = dbtRunner(callbacks=[heard]).invoke([*arguments, *folders, *places, *quiet])
    if done.exception is not None:
        raise PlatformError(f"dbt could not {arguments[0]} {project.folder}: {done.exception}") from done.exception
    results = getattr(done.result, "results", [])
    return [
        NodeResult(
            result.node.unique_id,
            str(getattr(result.status, "value", result.status)),
            result.message or "",
            result.failures or 0,
            result.execution_time,
        )
        for result in results
    ]


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The variables by which the project's profile finds the lakehouse."""
    return {
        "DBT_LAKEHOUSE_ATTACH": attach_url(settings),
        "DBT_LAKEHOUSE_DATA": settings.data,
        "DBT_DUCKDB_EXTENSIONS": str(install_extensions(settings)),
        "DBT_DUCKDB_SPILL": str(settings.spool / "dbt"),
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def models(manifest: Mapping[str, Any]) -> list[str]:
    """The names of the project's models."""
    return [node["name"] for node in manifest["nodes"].values() if node["resource_type"] in ("model", "snapshot")]


def materialization(manifest: Mapping[str, Any], model: str) -> str:
    """How a model is built: `table`, `incremental`, `snapshot`..."""
    node = next(n for n in manifest["nodes"].values() if n["name"] == model and n["resource_type"] != "test")
    kind: str = node["config"]["materialized"]
    return kind


def staged_ancestors(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """The staged tables (`source/table`) that each model is built from, through other models too."""
    ids = {node_id: node["name"] for node_id, node in manifest["nodes"].items() if node["resource_type"] in _BUILT}
    return {name: sorted(_sources(manifest, node_id)) for node_id, name in ids.items()}


def in_order(manifest: Mapping[str, Any], selected: Sequence[str]) -> list[str]:
    """Models such that each comes after those it is built from."""
    ids = {node["name"]: node_id for node_id, node in manifest["nodes"].items() if node["resource_type"] in _BUILT}
    graph = {name: {other for other in ids if ids[other] in manifest["parent_map"].get(ids[name], [])} for name in ids}
    return [name for name in TopologicalSorter(graph).static_order() if name in set(selected)]


_BUILT = ("model", "snapshot")


def _sources(manifest: Mapping[str, Any], node_id: str) -> set[str]:
    found: set[str] = set()
    for parent in manifest["parent_map"].get(node_id, []):
        if parent in manifest["sources"]:
            source = manifest["sources"][parent]
            found.add(f"{source['schema'].removeprefix('staged_')}/{source['name']}")
        else:
            found |= _sources(manifest, parent)
    return found


def tested_models(manifest: Mapping[str, Any], unique_id: str) -> list[str]:
    """The models that a test is about: the one it is attached to, or all it reads."""
    node = manifest["nodes"].get(unique_id) or manifest.get("unit_tests", {}).get(unique_id) or {}
    attached = node.get("attached_node")
    ids = [attached] if attached else node.get("depends_on", {}).get("nodes", [])
    return [manifest["nodes"][one]["name"] for one in ids if one in manifest["nodes"]]


def staged_steps(lake: Lakehouse) -> dict[str, int]:
    """The number of the last staging step of each staged table (`source/table`)."""
    rows = lake.connection.execute(
        f"SELECT source || '/' || table_name, value::BIGINT FROM {ledger.name('positions')} "
        "WHERE layer = 'staged' AND partition = ?",
        [ledger.STEP],
    ).fetchall()
    return dict(rows)


def contracts_of(module: str, names: Sequence[str]) -> dict[str, type[Contract]]:
    """The contracts of a module by the model they belong to: `DimAirline` belongs to dim_airline.

    Raises PlatformError for a contract that belongs to no model.
    """
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        raise PlatformError(f"The contracts {module} cannot be imported: there is no module {error.name!r}.") from None
    own = [
        one for one in vars(loaded).values() if isclass(one) and issubclass(one, Contract) and one.__module__ == module
    ]
    # A contract that others of the module extend is their base, not a table's.
    bases = {base for one in own for base in one.__mro__[1:]}
    contracts = {_snake(one.__name__): one for one in own if one not in bases}
    strangers = sorted(set(contracts) - set(names))
    if strangers:
        raise PlatformError(
            f"{module} has contracts for {', '.join(strangers)}, which are no models. The models: {', '.join(names)}."
        )
    return contracts


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
