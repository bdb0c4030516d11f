"""Which platforms there are: the packages that workspace.yaml names, and the code locations that they are there."""

from importlib.util import find_spec
from pathlib import Path

import yaml
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import REPOSITORY

WORKSPACE = REPOSITORY / "workspace.yaml"


def platform_names(workspace: Path = WORKSPACE) -> list[str]:
    """The platform packages that a workspace names, in its order. Raises PlatformError if it cannot be read."""
    try:
        entries = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"]
        return [entry["python_module"]["module_name"].split(".")[0] for entry in entries]
    except FileNotFoundError:
        raise PlatformError(f"There is no {workspace}: run dp from a checkout of the platform.") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise PlatformError(
            f"{workspace} cannot be read ({error}): each entry of `load_from` is a python_module with a module_name."
        ) from None


def platform_package(name: str | None = None, workspace: Path = WORKSPACE) -> Path:
    """The folder of a platform's package; without a name, that of the only one there is.

    Raises PlatformError, naming those that exist, if there is none by that name, or several and no name was given.
    """
    names = platform_names(workspace)
    if name is None and len(names) != 1:
        raise PlatformError(f"Say which platform is meant (--platform): {', '.join(names)}.")
    chosen = name or names[0]
    if chosen not in names:
        raise PlatformError(f"There is no platform {chosen}. {workspace} names: {', '.join(names)}.")
    spec = find_spec(chosen)
    if spec is None or not spec.submodule_search_locations:
        raise PlatformError(f"The platform {chosen} is not installed: `pip install -e .` in {workspace.parent}.")
    return Path(spec.submodule_search_locations[0])


def code_location(package: Path, workspace: Path = WORKSPACE) -> CodeLocationOrigin | None:
    """The code location by which the UI serves a platform; None if the workspace does not name it. A run that has it is
    shown under its job."""
    for origin in location_origins_from_yaml_paths([str(workspace)]):
        target = origin.loadable_target_origin
        if (target.module_name or "").split(".")[0] == package.name:
            return origin
    return None
