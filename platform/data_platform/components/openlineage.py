"""The steps of a run as events of OpenLineage, whatever a step does: they are taken from what Dagster's executor says
of steps and from the definitions of assets, so that no step knows of it. What an event holds, and how it is sent, is in
`observability.openlineage`.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.log_manager import DagsterLogManager

from data_platform.components.reasons import reason_of_error, reason_of_step
from data_platform.instance.executors import with_around
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED
from data_platform.observability.openlineage import (
    Column,
    Dataset,
    Emitter,
    StepEvent,
    is_configured,
    lakehouse_namespace,
)
from data_platform.redaction import scrub

WAIT_SECONDS = 5.0
"""How long the end of a run waits for the receiver at most."""

INTERRUPTED_SECONDS = 0.5
"""The same, of a run that is interrupted: it is to end at once."""

SOURCE = "source://"
"""Begins the namespace of what raw tables are loaded from: the source's name follows, not its address."""

STEPS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:data-platform:step")
"""Begins the ids of attempts at steps, which follow from Dagster's: whoever finds a run dead can name what is open."""

BEGINS = (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED)
ENDS = (
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
)

OTHER = "dagster"
"""The namespace of assets that are no tables of the lakehouse: exports, jobs of other orchestrators."""


def reporting(definition: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor that reports the steps of its runs where the environment says where to."""

    def around(events: Iterator[dg.DagsterEvent], plan_context: Any) -> Iterator[dg.DagsterEvent]:
        graph = plan_context.job.get_definition().asset_layer.asset_graph
        return reported(events, plan_context.dagster_run, plan_context.instance, graph)

    return with_around(definition, around)


def reported(
    events: Iterator[dg.DagsterEvent], run: dg.DagsterRun, instance: dg.DagsterInstance, graph: AssetGraph
) -> Iterator[dg.DagsterEvent]:
    """The events of a run as they come, of which those of steps are reported where the environment says where to. What
    goes wrong in that is a warning in the run's log."""
    if not is_configured(os.environ):
        yield from events
        return
    log = DagsterLogManager.create([], instance=instance, dagster_run=run)
    try:
        steps = Steps(run, graph)
    except Exception as error:  # noqa: BLE001 - what is reported of a run must not fail it
        log.warning(f"OpenLineage: the run could not be described: {scrub(f'{type(error).__name__}: {error}')}")
        yield from events
        return
    emitter, ended = Emitter(), False
    try:
        for event in events:
            try:
                described = steps.take(event)
            except Exception as error:  # noqa: BLE001 - what is reported of a step must not fail it
                log.warning(f"OpenLineage: a step could not be described: {scrub(f'{type(error).__name__}: {error}')}")
            else:
                if described is not None:
                    emitter.put(described)
            yield event
        ended = True
    finally:
        warning = emitter.close(WAIT_SECONDS if ended else INTERRUPTED_SECONDS)
        if warning:
            log.warning(warning)


def report_killed(instance: dg.DagsterInstance, records: Sequence[dg.RunRecord]) -> str:
    """Report the end of steps that were begun in runs which ended without it, as their process was killed: ABORT where
    the run was cancelled, else FAIL. What to warn of, empty if the receiver took all of it. To report twice says the
    same twice."""
    if not is_configured(os.environ):
        return ""
    events = [event for record in records for event in _left_open(instance, record)]
    if not events:
        return ""
    emitter = Emitter()
    for event in events:
        emitter.put(event)
    return emitter.close(WAIT_SECONDS)


def _left_open(instance: dg.DagsterInstance, record: dg.RunRecord) -> list[StepEvent]:
    run = record.dagster_run
    if run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        return []
    attempts: dict[str, int] = {}
    begun: set[str] = set()
    for entry in instance.all_logs(run.run_id, of_type={*BEGINS, *ENDS}):
        event = entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type in BEGINS:
            attempts[event.step_key] = attempts.get(event.step_key, 0) + 1
            begun.add(event.step_key)
        else:
            begun.discard(event.step_key)
    if not begun:
        return []
    cancelled = run.status == dg.DagsterRunStatus.CANCELED
    ended = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
    return [
        StepEvent(
            "ABORT" if cancelled else "FAIL",
            ended,
            attempt_id(run.run_id, step, attempts[step]),
            step,
            run.run_id,
            run.job_name,
            error=None if cancelled else "The run's process ended before the step did: it was killed, or it crashed.",
        )
        for step in sorted(begun)
    ]


def attempt_id(run_id: str, step: str, attempt: int) -> str:
    """The id of an attempt at a step, the first being 1."""
    return str(uuid.uuid5(STEPS, f"{run_id}/{step}/{attempt}"))


class Steps:
    """The steps of one run, as far as they have come: what was materialised in each, and how often it was begun."""

    def __init__(self, run: dg.DagsterRun, graph: AssetGraph) -> None:
        self._run, self._graph = run, graph
        self._namespace = lakehouse_namespace(settings_from_environment())
        self._keys = {one.node_def.name: one.keys for one in graph.assets_defs if one.is_executable}
        self._attempts: dict[str, int] = {}
        self._made: dict[str, dict[dg.AssetKey, dict[str, Any]]] = {}

    def take(self, event: dg.DagsterEvent) -> StepEvent | None:
        """Take note of an event; what is to be reported of it, if anything."""
        kind, step = event.event_type, event.step_key
        if step is None:
            return None
        if kind in BEGINS:
            self._attempts[step], self._made[step] = self._attempts.get(step, 0) + 1, {}
            return self._event("START", step)
        if kind == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            metadata = event.step_materialization_data.materialization.metadata
            self._made.setdefault(step, {})[event.asset_key] = {name: one.value for name, one in metadata.items()}
        if step not in self._attempts:  # it failed before it began
            return None
        if kind == dg.DagsterEventType.STEP_SUCCESS:
            return self._event("COMPLETE", step)
        if kind == dg.DagsterEventType.STEP_FAILURE:
            return self._event("FAIL", step, reason_of_step(event))
        if kind == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            error = event.step_retry_data.error
            return self._event("FAIL", step, reason_of_error(error) or "tried again")
        return None

    def _event(self, kind: Any, step: str, error: str | None = None) -> StepEvent:
        keys, made = self._assets(step), self._made[step]
        inputs = [dataset for key in keys for dataset in self._inputs(key, keys, made.get(key, {}))]
        return StepEvent(
            kind,
            datetime.now(UTC),
            attempt_id(self._run.run_id, step, self._attempts[step]),
            step,
            self._run.run_id,
            self._run.job_name,
            list({(one.namespace, one.name): one for one in inputs}.values()),
            [self._output(key, made.get(key, {})) for key in keys],
            error,
        )

    def _assets(self, step: str) -> Sequence[dg.AssetKey]:
        """The assets that a step is to make in this run."""
        chosen = self._run.asset_selection
        return sorted(key for key in self._keys.get(step, ()) if chosen is None or key in chosen)

    def _inputs(self, key: dg.AssetKey, made_here: Sequence[dg.AssetKey], figures: dict[str, Any]) -> Sequence[Dataset]:
        if key.path[0] == RAW:
            return [Dataset(f"{SOURCE}{key.path[1]}", key.path[2], rows=figures.get("rows read"))]
        parents = sorted(self._graph.get(key).parent_keys - set(made_here))
        return [self._dataset(parent) for parent in parents]

    def _output(self, key: dg.AssetKey, figures: dict[str, Any]) -> Dataset:
        # That of a table as it is now, else that which its contract or model declares.
        declared = self._graph.get(key).metadata.get("dagster/column_schema")
        schema = figures.get("dagster/column_schema") or getattr(declared, "schema", declared)
        lineage = figures.get("dagster/column_lineage")
        return replace(
            self._dataset(key),
            columns=[Column(one.name, one.type, one.description) for one in schema.columns] if schema else (),
            made_of={
                column: [(self._dataset(one.asset_key), one.column_name) for one in deps]
                for column, deps in (lineage.deps_by_column.items() if lineage else ())
            },
            rows=rows_written(figures),
            bytes=figures.get("bytes"),
        )

    def _dataset(self, key: dg.AssetKey) -> Dataset:
        layer, *rest = key.path
        if layer in (RAW, STAGED) and len(rest) == 2:
            return Dataset(self._namespace, f"{layer}_{rest[0]}.{rest[1]}")
        if layer == MODELLED and len(rest) == 1:
            return Dataset(self._namespace, f"{MODELLED}.{rest[0]}")
        return Dataset(OTHER, "/".join(key.path))


def rows_written(figures: dict[str, Any]) -> int | None:
    """The rows that a step wrote, given the figures of its materialisation; None if they do not say."""
    if "rows landed" in figures:
        return int(figures["rows landed"])
    if "rows inserted" in figures:
        return int(figures["rows inserted"]) + int(figures["rows updated"])
    return figures.get("dagster/row_count")
