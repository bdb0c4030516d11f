"""Running assets without the UI: within this process, one run for each source and one for the models, on the same
instance as the UI's, so that each run is found there. Used by `dp run` and by the demo; what is shown is theirs.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import RunFailureReason
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.remote_origin import CodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import MAX_RETRIES_TAG

from data_platform.components.keys import (
    CHECK,
    DASHBOARDS,
    EXPORT,
    EXTERNAL,
    RECONCILIATION,
    SCORES,
    TRAINED,
    WAITS_FOR,
    job_name,
)
from data_platform.components.mistakes import forget_broken
from data_platform.components.openlineage import reported
from data_platform.components.ownership import broken_asset
from data_platform.components.reasons import reason_of_run, reason_of_step
from data_platform.errors import PlatformError, shortened
from data_platform.instance.liveness import hold, watching
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED
from data_platform.ml.datasets.version import DATASETS

REPOSITORY = "__repository__"
"""What Dagster calls the one repository of a code location that is made of Definitions."""

CAUSE_CHARACTERS = 200
"""How much of a reason is repeated where it is the reason of something else."""

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """What became of one asset in a run. `figures` is its materialisation's metadata by name; `pool` is the one for a
    slot of which it waits, while it does. The `verdict` of one that was skipped says why it was."""

    key: dg.AssetKey
    state: str = "waiting"
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    check_passed: bool | None = None
    verdict: str = ""
    error: str = ""
    pool: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.key.path)


def executable_keys(definitions: dg.Definitions) -> list[dg.AssetKey]:
    """All assets that can be materialised."""
    graph = definitions.resolve_asset_graph()
    return sorted(graph.materializable_asset_keys)


def select(keys: Sequence[dg.AssetKey], selections: Sequence[str]) -> list[dg.AssetKey]:
    """The assets that people mean: `operations` (a source), `operations/flights`, `staged/operations/flights`,
    `modelled`, `modelled/fct_flight`, or a layer. Nothing selected: all raw, staged and modelled tables.

    Raises PlatformError, listing what exists, for a selection that matches nothing.
    """
    tables = [key for key in keys if key.path[0] in (RAW, STAGED, MODELLED)]
    if not selections:
        return tables
    chosen: list[dg.AssetKey] = []
    for selection in selections:
        found = [key for key in keys if matches(key, selection)]
        if not found:
            names = sorted({key.path[1] if key.path[0] in (RAW, STAGED) else "/".join(key.path) for key in keys})
            raise PlatformError(f"Nothing is called {selection}. There are: {', '.join(names)}.")
        chosen += [key for key in found if key not in chosen]
    return chosen


def matches(key: dg.AssetKey, selection: str) -> bool:
    """Whether an asset is among those that one selection means."""
    path, parts = list(key.path), selection.strip("/").split("/")
    # Whoever names a table or a source means to load it.
    short = path[0] not in (RECONCILIATION, DASHBOARDS) and path[1 : 1 + len(parts)] == parts
    return path[: len(parts)] == parts or short


ONE_BY_ONE = (DATASETS, TRAINED, SCORES, EXPORT)
AFTERWARDS = (MODELLED, *ONE_BY_ONE, DASHBOARDS)
"""What comes after sources, in this order."""


def in_runs(keys: Sequence[dg.AssetKey]) -> list[tuple[str, list[dg.AssetKey]]]:
    """Group assets into runs by name: one a source, so that none stops another, then one for the models, then one for
    each of what comes after them, and one for all pages; jobs of other orchestrators have one each."""
    groups: dict[str, list[dg.AssetKey]] = {}
    for key in keys:
        one = key.path[1] if key.path[0] in (RAW, STAGED, RECONCILIATION) else key.path[0]
        groups.setdefault("/".join(key.path[:2]) if one in (EXTERNAL, *ONE_BY_ONE) else one, []).append(key)
    order = {layer: place for place, layer in enumerate(AFTERWARDS)}
    return sorted(groups.items(), key=lambda group: order.get(group[1][0].path[0], -1))


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    tags: Mapping[str, str] | None = None,
    on_change: Callable[[Outcome], None] | None = None,
    location: CodeLocationOrigin | None = None,
) -> list[Outcome]:
    """Materialise `keys` in one run; what became of each. `config` is op config by op name. Never raises for a step
    that failed: its outcome says why. An interruption (Ctrl-C, SIGTERM) ends the run, and is raised again as
    KeyboardInterrupt. The run is one of the job that holds all of `keys`, if there is one, of the code
    location that the UI serves: only then does it show in the UI's Overview and under its job."""
    outcomes = {key: Outcome(key) for key in keys}
    graph = definitions.resolve_asset_graph()
    files = {graph.get(key).metadata.get("defs") for key in keys if key.path[0] in (RAW, STAGED, RECONCILIATION)}
    for file in files - {None}:
        forget_broken(instance, broken_asset(Path(str(getattr(file, "value", file))).parent))
    run_id = str(uuid.uuid4())
    began = time.monotonic()

    def on_event(entry: Any) -> None:
        event = entry.dagster_event
        if event is None:
            return
        for outcome in _take(event, outcomes, ops):
            outcome.seconds = time.monotonic() - began
            if on_change is not None:
                on_change(outcome)

    ops = op_names(definitions)
    job = _job_of(definitions, keys).as_ephemeral_job({}, {})
    # Held before it is there, and until its end is recorded: whatever comes between, the run is found dead.
    release = hold(instance.root_directory, run_id)
    run = instance.create_run_for_job(
        job,
        run_id=run_id,
        run_config={
            **QUIET,
            **({"ops": {op: {"config": dict(given)} for op, given in config.items()}} if config else {}),
        },
        # Whoever executes it here sees that it failed: Dagster's daemon is not to run it again, interrupted or not.
        tags={**job.run_tags, MAX_RETRIES_TAG: "0", **(tags or {})},
        asset_selection=frozenset(keys),
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, REPOSITORY), job.name) if location else None,
    )
    instance.add_event_listener(run_id, on_event)
    failed_run, interrupted = "", False
    with watching(instance):
        # This job has an executor of Dagster's own.
        for event in reported(execute_run_iterator(InMemoryJob(job), run, instance), run, instance, graph):
            interrupted = interrupted or _is_interruption(event)
            if event.event_type == dg.DagsterEventType.RUN_FAILURE:
                failed_run = reason_of_run(event)
    release()
    if interrupted:
        raise KeyboardInterrupt
    _explain(outcomes, definitions, failed_run)
    return list(outcomes.values())


def _is_interruption(event: dg.DagsterEvent) -> bool:
    """Whether an event is that of a step, or of a run, that was asked to stop."""
    if event.event_type == dg.DagsterEventType.STEP_FAILURE:
        return event.step_failure_data.error_source == ErrorSource.INTERRUPT
    if event.event_type == dg.DagsterEventType.RUN_FAILURE:
        return event.job_failure_data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
    return False


def _job_of(definitions: dg.Definitions, keys: Sequence[dg.AssetKey]) -> dg.JobDefinition:
    """The job of the source or layer whose assets `keys` are; Dagster's own of all assets if no job holds them all."""
    names = {job_name(key) for key in keys}
    jobs = {job.name for job in definitions.jobs or ()}
    if len(names) == 1 and (name := names.pop()) in jobs:
        job = definitions.resolve_job_def(name)
        if set(keys) <= set(job.asset_layer.selected_asset_keys):
            return job
    return definitions.resolve_implicit_global_asset_job_def()


def _explain(outcomes: Mapping[dg.AssetKey, Outcome], definitions: dg.Definitions, failed_run: str) -> None:
    """Say of what did not come to an end why not: something upstream failed, or else the run as a whole. `failed_run`
    is why that failed, if it did."""
    left = [outcome for outcome in outcomes.values() if outcome.state in ("waiting", "running")]
    if not failed_run:
        for outcome in left:
            outcome.state = "done"
        return
    if not any(outcome.state == "failed" for outcome in outcomes.values()):
        for outcome in left:
            outcome.state, outcome.error = "failed", failed_run
        return
    graph = definitions.resolve_asset_graph()
    for outcome in left:
        above = [outcomes[key] for key in sorted(graph.get_ancestor_asset_keys(outcome.key)) if key in outcomes]
        causes = [one for one in above if one.state == "failed"]
        outcome.state = "skipped"
        outcome.verdict = (
            "Skipped: " + "; ".join(f"{one.name} failed ({_first_lines(one.error)})" for one in causes)
            if causes
            else "Skipped, as the run failed."
        )


def _first_lines(error: str) -> str:
    """The beginning of a reason, on one line."""
    return shortened(" ".join(error.split()), CAUSE_CHARACTERS)


def _take(
    event: dg.DagsterEvent, outcomes: Mapping[dg.AssetKey, Outcome], ops: Mapping[dg.AssetKey, str]
) -> list[Outcome]:
    """Note what an event says; the outcomes that it changed."""
    kind = event.event_type
    if kind == dg.DagsterEventType.ENGINE_EVENT and event.step_key is not None:
        pool = event.engine_event_data.metadata.get("pool")
        return _set(_of_step(event, outcomes, ops), pool=pool.value) if pool is not None else []
    if kind == dg.DagsterEventType.STEP_START:
        return _set(_of_step(event, outcomes, ops), state="running", pool="")
    if (
        kind == dg.DagsterEventType.ASSET_MATERIALIZATION
        and event.asset_key is not None
        and event.asset_key in outcomes
    ):
        materialization = event.step_materialization_data.materialization
        figures = {name: value.value for name, value in materialization.metadata.items()}
        return _set([outcomes[event.asset_key]], state="done", figures=figures)
    if kind == dg.DagsterEventType.ASSET_OBSERVATION and event.asset_key is not None and event.asset_key in outcomes:
        observed = event.asset_observation_data.asset_observation
        if WAITS_FOR in observed.metadata:
            return _set([outcomes[event.asset_key]], state="skipped", verdict=observed.description or "")
    if kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if check.check_name == CHECK and check.asset_key in outcomes:
            verdict = check.description or ""
            return _set([outcomes[check.asset_key]], check_passed=check.passed, verdict=verdict)
    if kind == dg.DagsterEventType.STEP_RESTARTED:
        return _set(_of_step(event, outcomes, ops), state="running")
    if kind == dg.DagsterEventType.STEP_UP_FOR_RETRY:
        return _set(_of_step(event, outcomes, ops), state="retrying")
    if kind == dg.DagsterEventType.STEP_FAILURE:
        error = reason_of_step(event)
        waiting = [outcome for outcome in _of_step(event, outcomes, ops) if outcome.state != "done"]
        return _set(waiting, state="failed", error=error)
    return []


def _set(outcomes: list[Outcome], **values: Any) -> list[Outcome]:
    for outcome in outcomes:
        for name, value in values.items():
            setattr(outcome, name, value)
    return outcomes


def _of_step(
    event: dg.DagsterEvent, outcomes: Mapping[dg.AssetKey, Outcome], ops: Mapping[dg.AssetKey, str]
) -> list[Outcome]:
    """The assets of the step that an event is about: one of a source, those that share a reading, or all models."""
    return [outcome for outcome in outcomes.values() if ops.get(outcome.key) == event.step_key]


def landed_and_not_staged(lake: Lakehouse, outcomes: Sequence[Outcome]) -> list[dg.AssetKey]:
    """The staged tables of which a run passed over rows that landed: of a source that could be read only in part, the
    raw step fails, and with it what follows in the same run."""
    skipped = [outcome.key for outcome in outcomes if outcome.state == "skipped" and outcome.key.path[0] == STAGED]
    if not skipped or not ledger.exists(lake):
        return []
    awaiting = ledger.loads_awaiting_staging(lake)
    return [key for key in skipped if awaiting.get((key.path[1], key.path[2]))]


def holders(instance: dg.DagsterInstance, pool: str) -> list[str]:
    """The ids of the runs that hold the slots of a pool."""
    return sorted(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)


def errors(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """What went wrong, each reason once, with the assets it kept from being made."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.error:
            names = found.setdefault(outcome.error, [])
            names += [] if outcome.name in names else [outcome.name]
    return found


def op_names(definitions: dg.Definitions) -> dict[dg.AssetKey, str]:
    """The op that materialises each asset: one of its own, that of a reading over several tables, or that of dbt."""
    return {
        key: one.node_def.name
        for one in definitions.resolve_asset_graph().assets_defs
        if one.is_executable
        for key in one.keys
    }
