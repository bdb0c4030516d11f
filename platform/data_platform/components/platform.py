"""A whole platform from its `defs` folder: every source and model, the maintenance, the lakehouse resource.

Dagster gives up a whole code location for one bad `defs.yaml`. Here each folder is loaded by itself: one that cannot
be loaded appears as an asset `broken/<folder>` that says why, and everything else goes on. With
`DATA_PLATFORM_STRICT=1`, as in CI, the mistake is raised instead.
"""

import os
import warnings
from pathlib import Path

import dagster as dg
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException
from pydantic import ValidationError

from data_platform.components.maintenance import maintenance_definitions
from data_platform.components.resource import LakehouseResource
from data_platform.errors import PlatformError

BROKEN = "broken"


def platform_definitions(package: Path) -> dg.Definitions:
    """The definitions of the platform package in `package`, whose sources lie in `package/defs/<name>/defs.yaml`."""
    # Dagster warns at each load of each component that parts of its own implementation are beta.
    warnings.filterwarnings("ignore", category=dg.BetaWarning, module="dagster")
    tree = ComponentTree.for_project(package.parent)
    folders = sorted(path.parent for path in (package / "defs").glob("*/defs.yaml"))
    parts = [_folder_definitions(tree, folder) for folder in folders]
    executor = dg.multiprocess_executor if os.environ.get("DATA_PLATFORM_EXECUTOR") == "multiprocess" else None
    return dg.Definitions.merge(
        *parts,
        maintenance_definitions(),
        # Starting a process for each step costs more than most steps: in-process unless told otherwise.
        dg.Definitions(resources={"lakehouse": LakehouseResource()}, executor=executor or dg.in_process_executor),
    )


def _folder_definitions(tree: ComponentTree, folder: Path) -> dg.Definitions:
    try:
        return tree.build_defs_at_path(folder)
    except (ComponentTreeException, dg.DagsterError, PlatformError, ValidationError, ImportError, SyntaxError) as error:
        if os.environ.get("DATA_PLATFORM_STRICT") == "1":
            raise
        return _broken(folder, reason_of(error))


def reason_of(error: BaseException) -> str:
    """The message at the bottom of a chain of errors: the mistake itself rather than who noticed it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _broken(folder: Path, reason: str) -> dg.Definitions:
    @dg.asset(
        key=dg.AssetKey([BROKEN, folder.name]),
        group_name=BROKEN,
        description=f"{folder}/defs.yaml cannot be loaded:\n\n```\n{reason}\n```\n\nCorrect it, reload the location.",
    )
    def broken() -> None:
        raise dg.Failure(description=f"{folder}/defs.yaml cannot be loaded: {reason}", allow_retries=False)

    return dg.Definitions(assets=[broken])
