"""Sensors look and never decide: one for each source compares how far the source has come with the ledger, and asks
for one run of the tables that have something new. What is loaded is decided by the load, from the ledger.

They keep no cursor. What was asked for is known by tags on its run, one a table: while a run of a table is under way
it is not asked for again, and after a failure the same news is asked for again ever more slowly, until the source
moves. One table that fails holds up no other.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg

from data_platform.components.keys import raw_key, staged_key
from data_platform.components.spec import SourceSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Position, Source
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import shared_lakehouse

LOOK_TAG = ".dagster/look"
"""Runs that a sensor asked for have a tag `.dagster/look.<table>` for each table, whose value stands for what was new.
The UI does not show tags that begin with `.dagster/`."""

SOURCE_TAG = "source"
MAX_WAIT = timedelta(hours=1)
ATTEMPTS_COUNTED = 12
"""Enough to reach the longest wait from any interval."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class TableState:
    """What the ledger knows of a table: positions, whether loads await staging, when it was last loaded. `read_at` is
    when it was last read, be it that nothing was new."""

    position: Mapping[str, str]
    unstaged: bool
    read_at: datetime | None


@dataclass(frozen=True)
class Asked:
    """What a sensor would ask for: the assets of one table or model, and what is new there, as anything that JSON can
    hold and that changes once a run has done its work."""

    assets: Sequence[dg.AssetKey]
    news: object


def source_sensor(spec: SourceSpec) -> dg.SensorDefinition:
    """The sensor of a source: looks every `every`, asks for the tables that have something new."""
    targets = [key for table in spec.tables for key in (raw_key(spec.name, table), staged_key(spec.name, table))]

    @dg.sensor(
        name=f"{spec.name}_sensor",
        target=dg.AssetSelection.assets(*targets),
        minimum_interval_seconds=least_interval(spec.every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Looks every {spec.every.total_seconds():g} s whether {spec.name} has something new, and asks for "
        "those tables.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(UTC)
        try:
            states = read_states(spec)
            with spec.open() as source:
                looks = take_looks(source, list(spec.tables), context.log.warning)
        except PlatformError as error:
            # The tick fails with the reason; other sources have sensors of their own.
            raise dg.Failure(description=str(error)) from None
        asked = {}
        for table, told in looks.items():
            state = states[table]
            if is_blind(told):
                state = replace(state, read_at=_latest(state.read_at, read_at(context.instance, spec.name, table)))
            one = asked_of(spec, table, told, state, now)
            if one is not None:
                asked[table] = one
        if not asked:
            return dg.SkipReason(f"Nothing new in {', '.join(looks)}.")
        return request_once(context.instance, spec.name, asked, spec.every)

    return look


def least_interval(every: timedelta) -> int:
    """The seconds that Dagster is to let pass between two ticks. Its daemon looks every five seconds which sensors are
    due, and a tick begins a moment after that: one that asked for five seconds would be passed over each second time.
    """
    return max(1, int(every.total_seconds()) - 1)


def take_looks(source: Source, tables: Sequence[str], warn: Callable[[str], object]) -> dict[str, Position | None]:
    """How far each table of a source has come. A table that cannot be looked at is left out, with a warning, as long
    as others can.

    Raises PlatformError if the source gives nothing: after the second table that fails before any was seen, so that a
    source which does not answer is not waited for once a table.
    """
    looks: dict[str, Position | None] = {}
    failed: list[PlatformError] = []
    for table in tables:
        try:
            looks[table] = source.position(table)
        except PlatformError as error:
            failed.append(error)
            if not looks and len(failed) > 1:
                break
    if not looks:
        raise failed[0]
    for reason in failed:
        warn(str(reason))
    return looks


def read_at(instance: dg.DagsterInstance, source: str, table: str) -> datetime | None:
    """When a table was last read by a run that ended well. The ledger does not know if nothing was new."""
    event = instance.get_latest_materialization_event(raw_key(source, table))
    return datetime.fromtimestamp(event.timestamp, UTC) if event is not None else None


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def read_states(spec: SourceSpec) -> dict[str, TableState]:
    """The ledger's state of each table of a source; empty states where nothing was ever loaded. A lakehouse that is
    not there yet is created: on PostgreSQL nothing tells one from a catalog that does not answer.

    Raises PlatformError if the lakehouse cannot be opened.
    """
    with shared_lakehouse(spec.settings) as lake:
        ledger.exists(lake)  # brings that of an earlier release up to date, which needs a transaction of its own
        with lake.reading():
            found = ledger.table_states(lake, spec.name)
    states = {table: found.get(table, ledger.TableState()) for table in spec.tables}
    return {table: TableState(one.position, bool(one.awaiting), one.loaded_at) for table, one in states.items()}


def is_blind(look: Position | None) -> bool:
    """Whether a look says nothing, or not all: rows that change in place leave their number as it is."""
    return look is None or set(look) == {"rows"}


def has_moved(look: Position | None, state: TableState) -> bool:
    """Whether the source has come further than the ledger says."""
    return look is not None and any(state.position.get(entry) != value for entry, value in look.items())


def has_news(look: Position | None, state: TableState, now: datetime, refresh: timedelta) -> bool:
    """Whether a table is worth a run: the source moved, rows await staging, or it is time to read it again."""
    due = is_blind(look) and (state.read_at is None or now - state.read_at >= refresh)
    return state.unstaged or has_moved(look, state) or due


def asked_of(spec: SourceSpec, table: str, look: Position | None, state: TableState, now: datetime) -> Asked | None:
    """What to ask for of one table; None if nothing is new. Rows that only await staging are not read again."""
    if not has_news(look, state, now, spec.refresh):
        return None
    raw, staged = raw_key(spec.name, table), staged_key(spec.name, table)
    if has_moved(look, state):
        return Asked([raw, staged], [look, dict(state.position)])
    if state.unstaged:
        return Asked([staged], [dict(state.position), "unstaged"])
    return Asked([raw, staged], [look, str(state.read_at)])


def request_once(
    instance: dg.DagsterInstance, name: str, asked: Mapping[str, Asked], every: timedelta
) -> dg.RunRequest | dg.SkipReason:
    """One request for all that is asked for, by table or model, except what a run under way is about, and what ended
    just now without taking in the same news. If nothing is left, the reasons.
    """
    busy = assets_under_way(instance)
    ready: dict[str, str] = {}
    last: list[str] = []
    reasons = []
    for item, one in asked.items():
        if busy.intersection(one.assets):
            reasons.append(f"{item}: a run is under way.")
            continue
        digest = hashlib.sha256(json.dumps([name, one.news], sort_keys=True, default=str).encode()).hexdigest()[:16]
        records = instance.get_run_records(
            dg.RunsFilter(tags={f"{LOOK_TAG}.{item}": digest, SOURCE_TAG: name}), limit=ATTEMPTS_COUNTED
        )
        wait = remaining_wait([record.update_timestamp for record in records], every, datetime.now(UTC))
        if wait > timedelta(0):
            reasons.append(
                f"{item}: {len(records)} run{'s' * (len(records) > 1)} for the same news did not take it in; asking "
                f"again in {int(wait.total_seconds())} s, or as soon as something moves."
            )
            continue
        ready[item] = digest
        last += [record.dagster_run.run_id for record in records[:1]]
    if not ready:
        return dg.SkipReason(" ".join(reasons))
    # The same tick evaluated twice asks once: the key changes with the news, and with each attempt at the same.
    key = hashlib.sha256(json.dumps([name, ready, last], sort_keys=True).encode()).hexdigest()[:32]
    return dg.RunRequest(
        run_key=f"{name}-{key}",
        asset_selection=list(dict.fromkeys(asset for item in ready for asset in asked[item].assets)),
        tags={SOURCE_TAG: name, **{f"{LOOK_TAG}.{item}": digest for item, digest in ready.items()}},
    )


def remaining_wait(ended: Sequence[datetime], every: timedelta, now: datetime) -> timedelta:
    """How long to wait before the same is asked for again, given when runs for it ended: twice as long each time."""
    if not ended:
        return timedelta(0)
    wait: timedelta = min(every * 2 ** min(len(ended), ATTEMPTS_COUNTED), MAX_WAIT)
    return wait - (now - max(ended))


def assets_under_way(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """The assets that runs under way are about, whoever asked for them.

    A process that was killed leaves its run under way for ever. One without a sign of life for as long as the longest
    wait is passed over; should it live after all, the ledger keeps the two apart.
    """
    assets: set[dg.AssetKey] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        latest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        alive = max([record.update_timestamp.timestamp(), *(entry.timestamp for entry in latest)])
        if datetime.now(UTC).timestamp() - alive < MAX_WAIT.total_seconds():
            assets |= _assets_of(instance, run)
    return assets


def _assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets of a run; that of a whole job has no selection of its own, but a plan."""
    if run.asset_selection is not None:
        return set(run.asset_selection)
    if run.execution_plan_snapshot_id is None:
        return set()
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    properties = [output.properties for step in plan.steps for output in step.outputs]
    return {one.asset_key for one in properties if one is not None and one.asset_key is not None}
