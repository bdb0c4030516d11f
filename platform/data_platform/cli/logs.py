"""`dp logs`: what happened in a run, or in the last run of a table, without the UI. What is kept of it is Dagster's."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.show import console, print_json
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import dagster as dg

TOLD = {
    "RUN_START": "begins",
    "RUN_SUCCESS": "succeeded",
    "RUN_FAILURE": "failed",
    "RUN_CANCELED": "was cancelled",
    "STEP_START": "begins",
    "STEP_UP_FOR_RETRY": "is tried again",
    "STEP_RESTARTED": "begins again",
    "STEP_SKIPPED": "is skipped",
    "STEP_SUCCESS": "is done",
    "STEP_FAILURE": "failed",
    "ASSET_MATERIALIZATION": "is made",
    "ASSET_CHECK_EVALUATION": "is checked",
}
"""The events that are log_entries, in words; those of Dagster's own machinery are left out."""

LEAST = 4
"""Characters of a run's id at least."""


def logs(
    name: Annotated[str, typer.Argument(metavar="RUN|TABLE", help="A run's id or its beginning, or a table's name.")],
    every: Annotated[bool, typer.Option("--all", help="Every event, Dagster's own machinery included.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what happened in a run, or in the last run of a table: steps, figures, verdicts, reasons."""
    import dagster as dg

    from data_platform.cli.instance import prepare_dagster_home
    from data_platform.lakehouse.settings import settings_from_environment

    prepare_dagster_home(settings_from_environment())
    with dg.DagsterInstance.get() as instance:
        run = find_run(instance, name)
        entries = list(log_entries(instance, run.run_id, every=every))
    if as_json:
        print_json({"run": run.run_id, "job": run.job_name, "status": run.status.value, "events": entries})
        return
    screen = console()
    screen.print(f"Run {run.run_id} of {run.job_name}: {run.status.value.lower()}", style="bold", markup=False)
    for entry in entries:
        who = entry["asset"] or entry["step"] or "run"
        style = "red" if entry["failed"] else None
        line = f"{entry['at']:%H:%M:%S}  {who}  {entry['event']}"
        screen.print(line + (f": {entry['text']}" if entry["text"] else ""), style=style, markup=False, soft_wrap=True)


def find_run(instance: "dg.DagsterInstance", name: str) -> "dg.DagsterRun":
    """The run of that id, or whose id begins so, or else the last one that was about a table of that name. Raises
    PlatformError if there is none, or if several begin so."""
    from data_platform.components.execution import select

    if len(name) >= LEAST and set(name) <= set("0123456789abcdef-"):
        found = [one for one in instance.get_run_ids() if one.startswith(name)]
        if len(found) > 1:
            raise PlatformError(f"Several runs begin with {name}: {', '.join(found[:10])}. Give more of the id.")
        if found:
            return _run(instance, found[0])
    keys = select(sorted(instance.all_asset_keys()), [name])
    records = instance.get_asset_records(keys)
    runs = {record.asset_entry.last_run_id for record in records if record.asset_entry.last_run_id}
    # Of a run that was deleted only the assets know.
    there = instance.get_run_records(with_ids(sorted(runs)), limit=1) if runs else []
    if not there:
        raise PlatformError(f"No run of {name} is kept any more: runs are deleted after 30 days. See `dp status`.")
    return there[0].dagster_run


def with_ids(runs: list[str]) -> "dg.RunsFilter":
    """The runs with these ids, the latest first."""
    import dagster as dg

    return dg.RunsFilter(run_ids=runs)


def _run(instance: "dg.DagsterInstance", run_id: str) -> "dg.DagsterRun":
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise PlatformError(f"The run {run_id} was deleted just now.")
    return run


def log_entries(instance: "dg.DagsterInstance", run_id: str, *, every: bool) -> Iterator[dict[str, Any]]:
    """The events of a run as plain values: when, of which step or asset, what, and what it says."""
    from data_platform.components.reasons import reason_of_run, reason_of_step

    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor)
        for record in page.records:
            entry = record.event_log_entry
            event = entry.dagster_event
            kind = event.event_type_value if event is not None else ""
            if not every and event is not None and kind not in TOLD:
                continue
            text, failed = entry.user_message, kind in ("STEP_FAILURE", "RUN_FAILURE")
            if event is None:
                kind = "says"
            elif kind == "STEP_FAILURE":
                text = reason_of_step(event)
            elif kind == "RUN_FAILURE":
                text = reason_of_run(event)
            elif kind == "ASSET_CHECK_EVALUATION":
                check = event.asset_check_evaluation_data
                failed = not check.passed
                text = f"{check.check_name} {'passed' if check.passed else 'failed'}: {check.description or ''}"
            elif kind == "ASSET_MATERIALIZATION":
                text = figures(event)
            elif kind in TOLD:
                text = ""
            yield {
                "at": datetime.fromtimestamp(entry.timestamp, UTC),
                "step": event.step_key if event is not None else entry.step_key,
                "asset": asset_of(event),
                "event": TOLD.get(kind, kind),
                "failed": failed,
                "text": text,
            }
        cursor = page.cursor
        if not page.has_more:
            return


def asset_of(event: "dg.DagsterEvent | None") -> str | None:
    """The asset that an event is about, if it is about one."""
    if event is None:
        return None
    if event.event_type_value == "ASSET_CHECK_EVALUATION":
        return "/".join(event.asset_check_evaluation_data.asset_key.path)
    return "/".join(event.asset_key.path) if event.asset_key is not None else None


def figures(event: "dg.DagsterEvent") -> str:
    """The numbers of a materialisation that are not nought."""
    metadata = event.step_materialization_data.materialization.metadata
    found = {name: value.value for name, value in metadata.items() if name.startswith("rows ")}
    return ", ".join(f"{value:,} {name}" for name, value in found.items() if isinstance(value, int) and value)
