"""`dp reconcile`: hold tables against their source now, and stage what was found to differ."""

from typing import Annotated

import typer

from data_platform.cli.run import print_outcomes, progress_bar, selected_platform, summary_console
from data_platform.errors import PlatformError


def reconcile(
    selection: Annotated[
        list[str] | None,
        typer.Argument(help="Tables or sources that have `reconcile` in defs.yaml: shop/orders, shop. All if none."),
    ] = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if the selection leaves a doubt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome of each asset as JSON.")] = False,
) -> None:
    """Compare tables with their source, for what a cursor cannot see. The exit code is 1 if anything failed, or
    differs and was not applied."""
    import dagster as dg

    from data_platform.cli.instance import dagster_storage, prepare_dagster_home
    from data_platform.components.execution import executable_keys, execute, in_runs
    from data_platform.components.keys import RECONCILIATION, staged_key
    from data_platform.components.platform import platform_definitions
    from data_platform.components.workspace import code_location, platform_package
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import shared_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    settings = settings_from_environment()
    prepare_dagster_home(settings)
    package = platform_package(selected_platform(selection or [], platform))
    definitions, location = platform_definitions(package), code_location(package)
    there = [key for key in executable_keys(definitions) if key.path[0] == RECONCILIATION]
    keys = chosen(there, selection or [])
    console = summary_console(as_json=as_json)
    outcomes = []
    with (
        dagster_storage(settings),
        dg.DagsterInstance.get() as instance,
        shared_lakehouse(settings) as lake,
        progress_bar(console) as bar,
    ):
        for name, group in in_runs(keys):
            task = bar.add_task(name, total=len(group), doing="")
            outcomes += execute(definitions, instance, group, location=location)
            awaiting = ledger.loads_awaiting_staging(lake)
            staged = [staged_key(*key.path[1:]) for key in group if awaiting.get((key.path[1], key.path[2]))]
            if staged:
                outcomes += execute(definitions, instance, staged, location=location)
            bar.update(task, completed=len(group), doing="")
    print_outcomes(outcomes, console, as_json=as_json)
    if any(outcome.state == "failed" or outcome.check_passed is False for outcome in outcomes):
        raise typer.Exit(1)


def chosen(keys: list, selection: list[str]) -> list:  # type: ignore[type-arg]
    """The reconciliations of what people name. Raises PlatformError if one of them has none, or there are none."""
    names = {key: "/".join(key.path[1:]) for key in keys}
    if not keys:
        raise PlatformError(
            "No table has `reconcile` in its defs.yaml. Add `reconcile: daily` to one with a key and a cursor."
        )
    found = []
    for wanted in selection:
        matching = [key for key in keys if wanted.strip("/") in (names[key], key.path[1])]
        if not matching:
            raise PlatformError(
                f"{wanted} has no `reconcile` in its defs.yaml. There is: {', '.join(sorted(names.values()))}."
            )
        found += [key for key in matching if key not in found]
    return found or keys
