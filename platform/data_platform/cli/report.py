"""`dp report`: say that a job of another orchestrator has made something, where nobody starts or waits for it here.
What such jobs are is in `components.external`."""

from typing import Annotated, Any

import typer

from data_platform.cli.run import selected_platform
from data_platform.errors import PlatformError


def report(
    asset: Annotated[str, typer.Argument(help="What was made: etl/events, or external/etl/events.")],
    rows: Annotated[int | None, typer.Option(min=0, help="How many rows it has.")] = None,
    run: Annotated[str | None, typer.Option(help="The run that made it, as its orchestrator calls it.")] = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if there are several.")] = None,
) -> None:
    """Report that a job of another orchestrator, or of cron, has made an asset. What `then` names is run after it."""
    import dagster as dg

    from data_platform.cli.instance import dagster_storage, prepare_dagster_home
    from data_platform.components.execution import select
    from data_platform.components.external import RUN
    from data_platform.components.keys import EXTERNAL
    from data_platform.components.platform import platform_definitions
    from data_platform.components.workspace import platform_package
    from data_platform.lakehouse.settings import settings_from_environment

    settings = settings_from_environment()
    prepare_dagster_home(settings)
    definitions = platform_definitions(platform_package(selected_platform([], platform)))
    graph = definitions.resolve_asset_graph()
    there = sorted(key for key in graph.get_all_asset_keys() if key.path[0] == EXTERNAL)
    if not there:
        raise PlatformError("No ExternalJob of this platform makes anything. Describe one in a defs.yaml first.")
    found = select(there, [asset])
    metadata: dict[str, Any] = {
        **({"dagster/row_count": rows} if rows is not None else {}),
        **({RUN: run} if run is not None else {}),
    }
    with dagster_storage(settings), dg.DagsterInstance.get() as instance:
        for key in found:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
    print(f"reported: {', '.join('/'.join(key.path) for key in found)}")
