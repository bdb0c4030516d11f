"""`dp run`: materialise assets without the UI, with live progress, a summary and an exit code."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from data_platform.errors import PlatformError

MARKS = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]–[/]"}


def run(
    selection: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sources, tables or layers: operations, web/visits, staged/web/visits, modelled. All if none."
        ),
    ] = None,
    full_refresh: Annotated[
        bool,
        typer.Option(
            "--full-refresh",
            help="Read the sources again from the beginning, whatever was loaded; build models from nothing.",
        ),
    ] = False,
    retype: Annotated[
        bool,
        typer.Option("--retype", help="Store raw columns whose type changed in the source as text; their rows stay."),
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Stage everything again from raw.")] = False,
    loads: Annotated[
        str | None, typer.Option(help="Stage a range of loads again (a backfill), such as 3-7; see platform.loads.")
    ] = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if the selection leaves a doubt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome of each asset as JSON.")] = False,
) -> None:
    """Load, stage and model what is selected. The exit code is 1 if anything failed."""
    import dagster as dg

    from data_platform.cli.instance import dagster_storage, prepare_dagster_home
    from data_platform.components.execution import (
        executable_keys,
        execute,
        holders,
        in_runs,
        landed_and_not_staged,
        op_names,
        select,
    )
    from data_platform.components.external import refuse_reported
    from data_platform.components.platform import platform_definitions
    from data_platform.components.run_records import record_ended_runs
    from data_platform.components.workspace import code_location, platform_package
    from data_platform.lakehouse.connect import shared_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    first_load, last_load = load_range(loads)
    if last_load and (rebuild or full_refresh):
        raise PlatformError("--loads stages a part again, --rebuild and --full-refresh everything: give one of them.")
    if retype and full_refresh:
        raise PlatformError("--full-refresh replaces the rows there are, --retype keeps them: give one of them.")
    settings = settings_from_environment()
    prepare_dagster_home(settings)
    package = platform_package(selected_platform(selection or [], platform))
    definitions, location = platform_definitions(package), code_location(package)
    ops = op_names(definitions)
    refuse_reported(definitions, selection or [])
    keys = select(executable_keys(definitions), selection or [])
    console = summary_console(as_json=as_json)
    outcomes, began = [], datetime.now(UTC)
    with (
        dagster_storage(settings),
        dg.DagsterInstance.get() as instance,
        shared_lakehouse(settings) as lake,
        progress_bar(console) as bar,
    ):
        for name, group in in_runs(keys):
            task = bar.add_task(name, total=len(group), doing="")
            config: dict[str, dict[str, Any]] = {}
            for key in group:
                if key.path[0] == "raw" and (full_refresh or retype):
                    config[ops[key]] = {"full_refresh": full_refresh, "retype": retype}
                if key.path[0] in ("modelled", "export") and full_refresh:
                    config[ops[key]] = {"full_refresh": True}
                if key.path[0] == "staged" and (rebuild or last_load):
                    config[ops[key]] = {"rebuild": rebuild, "first_load": first_load, "last_load": last_load}

            def shown(outcome: Any, task: Any = task) -> None:
                if outcome.pool:
                    console.print(waiting(outcome, holders(instance, outcome.pool)), highlight=False)
                bar.update(
                    task,
                    doing=outcome.name,
                    advance=outcome.state in ("failed", "done") and outcome.check_passed is None,
                )

            done = execute(definitions, instance, group, config=config, on_change=shown, location=location)
            if left := landed_and_not_staged(lake, done):
                config = {ops[key]: config[ops[key]] for key in left if ops[key] in config}
                staged = execute(definitions, instance, left, config=config, on_change=shown, location=location)
                done = [outcome for outcome in done if outcome.key not in left] + staged
            outcomes += done
            bar.update(task, completed=len(group), doing="")
        record_ended_runs(lake, instance, began)
    print_outcomes(outcomes, console, as_json=as_json)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def selected_platform(selection: Sequence[str], platform: str | None) -> str | None:
    """The platform that is meant: the named one, or the only one that has what is selected. None where there is only
    one, or where that leaves a doubt."""
    from data_platform.components.execution import executable_keys, select
    from data_platform.components.platform import platform_definitions
    from data_platform.components.workspace import platform_names, platform_of_selections, platform_package

    name = platform_of_selections(selection, platform)
    if name is not None or not selection or len(names := platform_names()) == 1:
        return name
    having = []
    for one in names:
        try:
            select(executable_keys(platform_definitions(platform_package(one))), selection)
        except PlatformError:
            continue
        having.append(one)
    return having[0] if len(having) == 1 else None


def waiting(outcome: Any, runs: list[str]) -> str:
    """What an asset waits for that cannot begin."""
    held = f", held by run {', '.join(run.split('-')[0] for run in runs)}" if runs else ""
    return f"{outcome.name} waits for a slot of pool {outcome.pool}{held}."


def load_range(text: str | None) -> tuple[int, int]:
    """Read `3-7` or `5` as first and last load; (0, 0) for none. Raises PlatformError for anything else."""
    if text is None:
        return 0, 0
    first, _, last = text.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise PlatformError(f"--loads {text!r} is no range of loads: write 3-7, or 5 for one.")
    return int(first), int(last or first)


def progress_bar(console: Console) -> Progress:
    """One line for each run, with what it is doing."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("[dim]{task.fields[doing]}"), console=console)


def summary_console(*, as_json: bool) -> Console:
    """Where progress and summary go: beside the JSON, if that is what is asked for."""
    return Console(stderr=as_json, width=None if sys.stdout.isatty() else 160)


def print_outcomes(outcomes: list[Any], console: Console, *, as_json: bool) -> None:
    """Print what became of each asset, and why some failed."""
    from data_platform.components.execution import errors

    if as_json:
        print(json.dumps([as_record(outcome) for outcome in outcomes], indent=2, default=str))
        return
    console.print(summary_table(outcomes))
    for error, names in errors(outcomes).items():
        console.print(f"[red]{', '.join(names)}[/]: {escape(error)}", highlight=False)


def as_record(outcome: Any) -> dict[str, Any]:
    """An outcome as plain values."""
    plain = {name: value for name, value in outcome.figures.items() if isinstance(value, str | int | float | bool)}
    return {
        "asset": outcome.name,
        "state": outcome.state,
        "seconds": round(outcome.seconds, 3),
        "check_passed": outcome.check_passed,
        "verdict": outcome.verdict,
        "error": outcome.error,
        "figures": plain,
    }


def summary_table(outcomes: list[Any]) -> Table:
    """What became of each asset."""
    table = Table(box=None, header_style="bold")
    for column, justify in (
        ("", "left"),
        ("asset", "left"),
        ("new", "right"),
        ("quarantined", "right"),
        ("rows in all", "right"),
        ("verdict", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for outcome in outcomes:
        figures = outcome.figures
        new = figures.get("rows landed", figures.get("rows inserted", 0) + figures.get("rows updated", 0))
        table.add_row(
            MARKS.get(outcome.state, " "),
            outcome.name,
            f"{new:,}" if new else "",
            f"{figures['rows quarantined']:,}" if figures.get("rows quarantined") else "",
            f"{figures['dagster/row_count']:,}" if "dagster/row_count" in figures else "",
            escape(outcome.verdict) if outcome.check_passed is not False else f"[red]{escape(outcome.verdict)}[/]",
        )
    return table
