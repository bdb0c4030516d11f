"""Which platforms there are: the packages that workspace.yaml names, and the code locations that they are there."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.workspace.load import location_origins_from_yaml_paths

from data_platform.components.platform import folders
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import REPOSITORY
from data_platform.lakehouse.tables import QUARANTINE, RAW, STAGED

WORKSPACE = REPOSITORY / "workspace.yaml"
LAYERS = (RAW, STAGED, QUARANTINE)
"""What may stand before the name of a source in a selection."""


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


def code_location(package: Path, workspace: Path = WORKSPACE) -> CodeLocationOrigin | None:
    """The code location by which the UI serves a platform; None if the workspace does not name it. A run that has it is
    shown under its job."""
    for origin in location_origins_from_yaml_paths([str(workspace)]):
        target = origin.loadable_target_origin
        if (target.module_name or "").split(".")[0] == package.name:
            return origin
    return None
