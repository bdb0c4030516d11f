"""dbt, run within this process. What reads what is in `lineage`, what becomes of a build is decided in `build`.

All that dbt writes (target, logs, partial parse) lies below the platform's home, never in the project's folder.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import isclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from data_platform.contracts.contract import Contract
from data_platform.errors import PlatformError
from data_platform.lakehouse.catalog import without_password
from data_platform.lakehouse.settings import Settings
from data_platform.modelling.landing import refused
from data_platform.modelling.lineage import require_no_cycle
from data_platform.redaction import scrub, without_values

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

PARTIAL_PARSE = "partial_parse.msgpack"

TEST = "LogTestResult"
RESULTS = ("LogModelResult", "LogNodeResult", TEST)
"""dbt's events about the end of a node."""

PUBLISHABLE = ("table", "incremental")

BUILD_VARIABLE = "DBT_BUILD"
"""By which the profile tells the plugin the folder of the pin that dbt is to read."""

MACROS = Path(__file__).resolve().parent / "macros"
"""The macros that have models computed by the platform, and generic tests: a project has them by a link, so that they
are always those of the release that is installed."""

LINK = "platform_macros"
"""What the link is called in a project; its `macro-paths` name it."""


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
    """The dbt project in a folder, its link to the platform's macros made or renewed where it needs to be. Raises
    PlatformError if there is no project, or the link cannot be made."""
    file = folder / "dbt_project.yml"
    if not file.exists():
        raise PlatformError(f"There is no dbt project at {folder}: it must hold a dbt_project.yml.")
    if LINK in file.read_text(encoding="utf-8"):
        link_macros(folder)
    # Projects that share a home keep what they parsed apart.
    return Project(folder, settings.home / "dbt" / hashlib.sha256(bytes(folder.resolve())).hexdigest()[:8])


def link_macros(folder: Path) -> None:
    """Let a project have the macros of this release by a link. One that someone made within the project (a relative
    one), or a folder in its place, stays as it is. Raises PlatformError if the link cannot be written."""
    link, partial = folder / LINK, folder / f".{LINK}.{os.getpid()}"
    if link.exists() and not (link.is_symlink() and link.readlink().is_absolute() and link.resolve() != MACROS):
        return
    try:
        partial.symlink_to(MACROS, target_is_directory=True)
        partial.replace(link)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PlatformError(
            f"{link} cannot be made: {error.strerror}. It must be a link to {MACROS}: let the user who runs this write "
            "there once, or make it by hand."
        ) from None


def manifest(project: Project, settings: Settings) -> Mapping[str, Any]:
    """The project's manifest, parsed again only if the content of a file of the project changed.

    Each content has a file of its own, put in place whole: a build that rewrites dbt's own manifest, or a second
    process that parses the same project, is never met halfway. Raises PlatformError with dbt's own message if the
    project cannot be parsed, or has a model that could not be published, or that reads itself.
    """
    parsed = _parsed(project, "json")
    if not parsed.exists():
        parse = Project(project.folder, project.target / "parse")
        parse.target.mkdir(parents=True, exist_ok=True)
        with FileLock(parse.target / "lock"):
            if not parsed.exists():
                invoke(parse, settings, ["parse"])
                for older in project.target.glob("manifest-*"):
                    older.unlink(missing_ok=True)
                # Copied, as the next parse begins from it.
                shutil.copyfile(parse.target / PARTIAL_PARSE, _parsed(project, "msgpack"))
                parse.manifest.replace(parsed)
    loaded: Mapping[str, Any] = json.loads(parsed.read_text(encoding="utf-8"))
    require_no_cycle(loaded)
    _require_publishable(loaded)
    return loaded


def is_parsed(project: Project) -> bool:
    """Whether the project's manifest is there as its files are now: to make it takes seconds."""
    return _parsed(project, "json").exists()


def _parsed(project: Project, kind: str) -> Path:
    return project.target / f"manifest-{fingerprint(project)}.{kind}"


def fingerprint(project: Project) -> str:
    """What the project's files hold, and which dbt reads them, in a few letters. Times of modification would miss a
    file that was removed, and one that an image brought along with its old date."""
    digest = hashlib.sha256(version("dbt-core").encode())
    for file in [*sorted(_files(project.folder)), *sorted(MACROS.iterdir())]:
        name = file.relative_to(project.folder) if file.is_relative_to(project.folder) else file.name
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.yml", "models/**/*", "macros/**/*", "tests/**/*", "seeds/**/*", "snapshots/**/*"):
        yield from (path for path in folder.glob(pattern) if path.is_file())


def _require_publishable(manifest: Mapping[str, Any]) -> None:
    """Raise PlatformError, naming all of them, if the project has nodes that the platform cannot build."""
    reasons = [f"{node['name']}: {reason}" for node in manifest["nodes"].values() if (reason := _unpublishable(node))]
    if reasons:
        raise PlatformError("These models cannot be published:\n" + "\n".join(reasons))
    macros = {macro["name"] for macro in manifest["macros"].values() if macro["package_name"] != "dbt_duckdb"}
    lacking = [kind for kind in PUBLISHABLE if f"materialization_{kind}_duckdb" not in macros]
    if lacking:
        raise PlatformError(
            f"The project has no materialization for {', '.join(lacking)}, by which the platform computes a model "
            f"where nobody sees it. Add {LINK} to the macro-paths in its dbt_project.yml: it is a link to the macros "
            "that come with the platform, and made by itself."
        )


def _unpublishable(node: Mapping[str, Any]) -> str:
    kind = node["config"].get("materialized")
    if node["resource_type"] == "seed":
        return "a seed is not loaded here. Read the file as a source (data_platform.components.FileSource)."
    if node["resource_type"] == "snapshot":
        return (
            "a snapshot is not supported. Keep history in an incremental model, which knows what is published as "
            "{{ this }}."
        )
    if node["resource_type"] != "model" or kind == "ephemeral":
        return ""
    if kind not in PUBLISHABLE:
        return (
            f"a {kind} is no table. Materialize it as {' or '.join(PUBLISHABLE)}, or as ephemeral, which is part of "
            "the models that read it."
        )
    if node["language"] != "sql":
        return f"a model in {node['language']} is not supported, only SQL is."
    if node["alias"] != node["name"]:
        return f"an alias ({node['alias']}) is not supported: a model is published under its own name."
    return refused(node["config"])


def build(
    project: Project,
    settings: Settings,
    folder: Path,
    arguments: Sequence[str],
    log: Callable[[str], object] | None = None,
) -> list[NodeResult]:
    """Run `dbt build` on the lakehouse that is pinned in a folder (see `pin`), from what `manifest` parsed, as long as
    the project has not changed since; else it is parsed anew. The artifacts in JSON are not written: the ledger and
    Dagster's events hold what they would."""
    from dbt.contracts.graph.manifest import Manifest

    parsed = _parsed(project, "msgpack")
    known = Manifest.from_msgpack(parsed.read_bytes()) if parsed.exists() else None
    return invoke(project, settings, ["build", "--no-write-json", *arguments], log, known, folder)


def invoke(
    project: Project,
    settings: Settings,
    arguments: Sequence[str],
    log: Callable[[str], object] | None = None,
    manifest: "Manifest | None" = None,
    folder: Path | None = None,
) -> list[NodeResult]:
    """Run a dbt command in this process and return the results of its nodes, failed ones included. What it computes can
    be published if it runs on the pin of a `folder`, else it goes with the command.

    Raises PlatformError when dbt could not run at all (it cannot parse the project, or reach the lakehouse).
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner  # takes more than a second to import

    def on_event(event: Any) -> None:
        # A test that passed is counted in its model's check.
        passed = event.info.name == TEST and event.info.level == "info"
        if log is not None and event.info.name in RESULTS and not passed:
            log(event.info.msg)

    folders = ["--project-dir", str(project.folder), "--profiles-dir", str(project.folder)]
    places = ["--target-path", str(project.target), "--log-path", str(project.target / "logs")]
    quiet = ["--quiet", "--no-use-colors", "--no-send-anonymous-usage-stats", "--no-version-check"]
    try:
        with _environment({BUILD_VARIABLE: str(folder or "")}):
            done = dbtRunner(manifest, callbacks=[on_event]).invoke([*arguments, *folders, *places, *quiet])
    finally:
        # dbt-duckdb would keep its database, and the lakehouse as this command saw it, for the next one.
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
    if done.exception is not None:
        why = without_password(str(done.exception), settings)
        raise PlatformError(f"dbt could not {arguments[0]} {project.folder}: {why}") from None
    results = getattr(done.result, "results", [])
    return [
        NodeResult(
            result.node.unique_id,
            str(getattr(result.status, "value", result.status)),
            scrub(without_password(without_values(result.message or ""), settings)),
            result.failures or 0,
            result.execution_time,
        )
        for result in results
    ]


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
    unknown = sorted(set(contracts) - set(names))
    if unknown:
        raise PlatformError(
            f"{module} has contracts for {', '.join(unknown)}, which are no models. The models: {', '.join(names)}."
        )
    return contracts


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
