"""Running assets without the UI: within this process, one run for each source and one for the models, on the same
instance as the UI's, so that each run is found there. Used by `dp run` and by the demo; what is shown is theirs.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from data_platform.components.keys import CHECK, RECONCILIATION
from data_platform.components.liveness import hold, watching
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """What became of one asset in a run. `figures` is its materialisation's metadata by name; `pool` is the one for a
    slot of which it waits, while it does."""

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
        parts = selection.strip("/").split("/")
        found = [key for key in keys if _matches(list(key.path), parts)]
        if not found:
            names = sorted({key.path[1] if key.path[0] in (RAW, STAGED) else "/".join(key.path) for key in keys})
            raise PlatformError(f"Nothing is called {selection}. There are: {', '.join(names)}.")
        chosen += [key for key in found if key not in chosen]
    return chosen


def _matches(path: list[str], parts: list[str]) -> bool:
    # Whoever names a table or a source means to load it.
    short = path[0] != RECONCILIATION and path[1 : 1 + len(parts)] == parts
    return path[: len(parts)] == parts or short


def in_runs(keys: Sequence[dg.AssetKey]) -> list[tuple[str, list[dg.AssetKey]]]:
    """Group assets into runs by name: one a source, so that none stops another, then one for the models."""
    groups: dict[str, list[dg.AssetKey]] = {}
    for key in keys:
        groups.setdefault(key.path[1] if key.path[0] in (RAW, STAGED, RECONCILIATION) else key.path[0], []).append(key)
    return sorted(groups.items(), key=lambda group: group[0] == MODELLED)


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    tags: Mapping[str, str] | None = None,
    on_change: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Materialise `keys` in one run; what became of each. `config` is op config by op name. Never raises for a step
    that failed: its outcome says why."""
    outcomes = {key: Outcome(key) for key in keys}
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
    instance.add_event_listener(run_id, on_event)
    job = definitions.resolve_implicit_global_asset_job_def()
    run_config = {**QUIET, **({"ops": {op: {"config": dict(given)} for op, given in config.items()}} if config else {})}
    release = hold(instance, run_id)
    try:
        with watching(instance):
            result = job.execute_in_process(
                run_config=run_config,
                instance=instance,
                asset_selection=list(keys),
                tags=dict(tags or {}),
                run_id=run_id,
                raise_on_error=False,
            )
    finally:
        release()
    for outcome in outcomes.values():
        if outcome.state in ("waiting", "running"):
            outcome.state = "skipped" if not result.success else "done"
    return list(outcomes.values())


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
        data = event.step_failure_data
        reason = data.user_failure_data.description if data.user_failure_data else None
        error = reason or (data.error.message.strip() if data.error else "failed")
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
