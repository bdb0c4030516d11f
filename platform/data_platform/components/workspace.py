"""Which platforms there are: the packages that workspace.yaml names, and the code locations that they are there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths

from data_platform.components.component import folders
from data_platform.components.keys import RECONCILIATION
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import WORKSPACE, project_folder
from data_platform.lakehouse.tables import QUARANTINE, RAW, STAGED

LAYERS = (RAW, STAGED, QUARANTINE, RECONCILIATION)
"""What may stand before the name of a source in a selection."""


@dataclass(frozen=True)
class Entry:
    """One platform of a workspace: the name of its package, and the folder from which it is imported, if the workspace
    says so."""

    name: str
    root: Path | None

    @property
    def package(self) -> Path | None:
        """The folder of the package, of which nothing is imported; None if there is none."""
        if self.root is not None and (self.root / self.name).is_dir():
            return self.root / self.name
        spec = find_spec(self.name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        return Path(places[0]) if places else None


def workspace_entries(workspace: Path) -> list[Entry]:
    """The platforms that a workspace names, in its order: its Python modules, whatever other code locations it has.
    Raises PlatformError if it cannot be read."""
    try:
        entries = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"]
        given = [entry["python_module"] for entry in entries if "python_module" in entry]
        modules = [{"module_name": one} if isinstance(one, str) else one for one in given]
        return [
            Entry(
                module["module_name"].split(".")[0],
                workspace.parent / root if (root := module.get("working_directory")) else None,
            )
            for module in modules
        ]
    except OSError as error:
        raise PlatformError(f"{workspace} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise PlatformError(
            f"{workspace} cannot be read ({error}): each platform is an entry of `load_from`, a python_module with a "
            "module_name."
        ) from None


def platform_names(workspace: Path | None = None) -> list[str]:
    """The platform packages that a workspace names, in its order; by default that of the project. Raises PlatformError
    if it cannot be read."""
    return [entry.name for entry in workspace_entries(workspace or project_folder() / WORKSPACE)]


def platform_package(name: str | None = None, workspace: Path | None = None) -> Path:
    """The folder of a platform's package, which can be imported from then on; without a name, that of the only one
    there is.

    Raises PlatformError, naming those that exist, if there is none by that name, or several and no name was given.
    """
    workspace = workspace or project_folder() / WORKSPACE
    entries = {entry.name: entry for entry in workspace_entries(workspace)}
    names = ", ".join(entries)
    if name is None and len(entries) != 1:
        raise PlatformError(f"Say which platform is meant (--platform): {names}.")
    chosen = name or next(iter(entries))
    if chosen not in entries:
        raise PlatformError(f"There is no platform {chosen}. {workspace} names: {names}.")
    root = entries[chosen].root
    if root is not None and str(root) not in sys.path:
        # As Dagster does it with the workspace's `working_directory`: the project need not be installed.
        sys.path.insert(0, str(root))
    package = entries[chosen].package
    if package is None:
        raise PlatformError(
            f"There is no package {chosen}, which {workspace} names: not below {root or 'the folders of Python'}. "
            "Correct the entry, or install the package."
        )
    return package


def platform_of(source: str, name: str | None = None) -> Path:
    """The folder of the platform that has a source (or a folder of models) of that name: the one that is called `name`,
    if that is given, else the only one that has it.

    Raises PlatformError, listing what there is, if none has it, or several do.
    """

    packages = [platform_package(one) for one in ([name] if name else platform_names())]
    found = [package for package in packages if source in [folder.name for folder in folders(package)]]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(package.name for package in found)
        raise PlatformError(
            f"Several platforms have {source}: {names}. Say which is meant: --platform {found[0].name}."
        )
    there = [f"{package.name}: {', '.join(one.name for one in folders(package)) or 'none'}" for package in packages]
    raise PlatformError(f"There is no source {source}. There are: {'; '.join(there)}.")


def platform_of_selections(selections: Sequence[str], name: str | None = None) -> str | None:
    """The platform whose tables are selected (`shop`, `staged/shop/orders`, `modelled/fct_order`) where that is
    certain: the only one there is, the one that is called `name`, or the only one with sources of these names. None if
    it is not."""

    if name is not None or len(names := platform_names()) == 1:
        return name
    parts = [selection.strip("/").split("/") for selection in selections]
    wanted = {one[1] if one[0] in LAYERS and len(one) > 1 else one[0] for one in parts}
    having = [one for one in names if wanted & {folder.name for folder in folders(platform_package(one))}]
    return having[0] if len(having) == 1 else None


def code_location(package: Path, workspace: Path | None = None) -> CodeLocationOrigin | None:
    """The code location by which the UI serves a platform; None if the workspace does not name it. A run that has it is
    shown under its job."""
    for origin in location_origins_from_yaml_paths([str(workspace or project_folder() / WORKSPACE)]):
        target = origin.loadable_target_origin
        if (target.module_name or "").split(".")[0] == package.name:
            return origin
    return None
