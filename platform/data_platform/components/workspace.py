"""Which platforms there are: the packages that workspace.yaml names, and the definitions of one of them."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import yaml

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import WORKSPACE, project_folder


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


def load_platform(name: str | None = None) -> dg.Definitions:
    """The definitions of a platform."""
    from data_platform.components.platform import platform_definitions  # which asks this module for the others

    return platform_definitions(platform_package(name))
