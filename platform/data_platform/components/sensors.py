"""Sensors probe and never decide: one for each source compares how far the source has come with the ledger, and
requests one run of the tables that have changes. What is loaded is decided by the load, from the ledger.

They keep no cursor. What was requested is known by tags on its run, one a table: while a run of a table is under way
it is not requested again, and after a failure the same changes are requested again ever more slowly, until the source
moves. One table that fails holds up no other.
"""

import hashlib
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from data_platform.components.failures import failure
from data_platform.components.keys import raw_key, staged_key
from data_platform.components.mistakes import forget_broken
from data_platform.components.ownership import broken_asset
from data_platform.components.reachability import note_unreachable
from data_platform.components.source_log import note_source_log
from data_platform.components.spec import SourceSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.changes.held import change_source
from data_platform.ingestion.source import Probe
from data_platform.instance.liveness import end_dead_runs, running
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import Settings

PROBE_TAG = ".dagster/probe"
"""Runs that a sensor requested have a tag `.dagster/probe.<table>` for each table, whose value stands for what was new.
The UI does not show tags that begin with `.dagster/`."""

SOURCE_TAG = "source"
MAX_WAIT = timedelta(hours=1)
ATTEMPTS_COUNTED = 12
"""Enough to reach the longest wait from any interval."""

Job = dg.JobDefinition | UnresolvedAssetJobDefinition

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def looking(
    context: dg.SensorEvaluationContext, broken: dg.AssetKey, settings: Settings, *, private: bool = False
) -> Iterator[Lakehouse]:
    """The lakehouse as of one snapshot, for a sensor that looks what is new in it. `broken` is the asset that stood for
    its folder while it could not be loaded. Raises dg.Failure, without values where they are `private`."""
    forget_broken(context.instance, broken)
    try:
        with shared_lakehouse(settings) as lake:
            ledger.exists(lake)  # brings that of an earlier release up to date, in a transaction of its own
            with lake.reading():
                yield lake
    except Exception as error:  # noqa: BLE001 - a library may raise anything
        raise failure(error, private=private) from None


@dataclass(frozen=True)
class TableState:
    """What the ledger knows of a table: positions, whether loads await staging, when it was last loaded. `read_at` is
    when it was last read, be it that nothing was new."""

    position: Mapping[str, str]
    unstaged: bool
    read_at: datetime | None


@dataclass(frozen=True)
class Request:
    """What a sensor would have run: the assets of one table or model, and what is new there, as anything that JSON can
    hold and that changes once a run has done its work."""

    assets: Sequence[dg.AssetKey]
    changes: object


def source_sensor(spec: SourceSpec, job: Job) -> dg.SensorDefinition:
    """The sensor of a source: probes it every `every`, and requests runs of its `job` for the tables that have
    changes. A source that does not answer fails the tick at once, and the checks of its tables once that lasts."""
    broken = broken_asset(spec.where.parent)

    @dg.sensor(
        name=f"{spec.name}_sensor",
        job=job,
        minimum_interval_seconds=least_interval(spec.every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Probes {spec.name} every {spec.every.total_seconds():g} s and requests the tables that have "
        "changes.",
    )
    def tick(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        now = datetime.now(UTC)
        forget_broken(context.instance, broken)
        if spec.hours is not None and not spec.hours.left(now):
            begin = spec.hours.next_begin(now)
            return dg.SkipReason(f"Outside of `hours` ({spec.hours}): it is read from {begin:%Y-%m-%d %H:%M} UTC on.")
        # A tick that fails shows the reason; other sources have sensors of their own.
        try:
            states = read_states(spec)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            raise failure(error, private=spec.private) from None
        try:
            with spec.open() as source:
                positions = {table: state.position for table, state in states.items()}
                probes = source.probe(list(spec.tables), positions)
                if spec.retained_above is not None:
                    position = positions[next(iter(spec.tables))]
                    note_source_log(context.instance, spec, change_source(source, spec.name).held(position))
        except Exception as error:  # noqa: BLE001 - a source of another package may raise anything
            failed = failure(error, private=spec.private)
            note_unreachable(context.instance, spec, dict.fromkeys(spec.tables, str(failed.description)), now)
            raise failed from None
        failures = {
            table: str(failure(one.failure).description) for table, one in probes.items() if one.failure is not None
        }
        note_unreachable(context.instance, spec, failures, now)
        try:
            probes = usable(probes, context.log.warning)
        except PlatformError as error:
            raise failure(error) from None
        requests = {}
        read_at = last_reads(context.instance, spec.name, [t for t, probe in probes.items() if not probe.complete])
        for table, probe in probes.items():
            state = states[table]
            if table in read_at:
                state = states[table] = replace(state, read_at=_latest(state.read_at, read_at[table]))
            if wanted := requests_of(spec, table, probe, state, now):
                requests[table] = wanted
        if not requests:
            return dg.SkipReason(_nothing(probes, states, spec.refresh))
        return request_runs(context.instance, spec, requests)

    return tick


def request_runs(
    instance: dg.DagsterInstance, spec: SourceSpec, requests: Mapping[str, Sequence[Request]]
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run for all tables of which something is requested, and one for each that is followed, as others would have
    to wait for its end. If none may be requested now, the reasons."""
    followed = [table for table in requests if spec.tables[table].table.follows is not None]
    groups = [[table for table in requests if table not in followed], *([table] for table in followed)]
    answers = [
        request_once(instance, spec.name, {table: requests[table] for table in group}, spec.every)
        for group in groups
        if group
    ]
    runs = [one for one in answers if isinstance(one, dg.RunRequest)]
    return runs or dg.SkipReason(" ".join(str(one.skip_message) for one in answers if isinstance(one, dg.SkipReason)))


def _nothing(probes: Mapping[str, Probe], states: Mapping[str, TableState], refresh: timedelta) -> str:
    """What a sensor says when it asks for nothing: of which tables it knows that nothing is new, and when it reads
    those of which it knows nothing."""
    known = [table for table, probe in probes.items() if probe.supported]
    words = [f"Nothing new in {', '.join(known)}."] if known else []
    for table, probe in probes.items():
        if not probe.supported:
            last = states[table].read_at
            when = f"at {last + refresh:%Y-%m-%d %H:%M:%S} UTC" if last else "now"
            words.append(
                f"{table}: it answers, but nothing tells whether anything is new, short of reading it; it is read "
                f"every {refresh} (`refresh`), next {when}."
            )
    return " ".join(words)


def least_interval(every: timedelta) -> int:
    """The seconds that Dagster is to let pass between two ticks. Its daemon looks every five seconds (that of `dp ui`
    every second) which sensors are due, and a tick begins a moment after that: one that asked for five seconds would be
    passed over each second time."""
    return max(1, int(every.total_seconds()) - 1)


def usable(probes: Mapping[str, Probe], warn: Callable[[str], object]) -> dict[str, Probe]:
    """The probes that succeeded, with a warning for each that failed. Raises the first failure if none succeeded."""
    failures = [probe.failure for probe in probes.values() if probe.failure is not None]
    if failures and len(failures) == len(probes):
        raise failures[0]
    for each in failures:
        warn(str(each))
    return {table: probe for table, probe in probes.items() if probe.failure is None}


def last_reads(instance: dg.DagsterInstance, source: str, tables: Sequence[str]) -> dict[str, datetime]:
    """When tables were last read by a run that ended well, by one query for all of them. The ledger does not know if
    nothing was new."""
    if not tables:
        return {}
    keys = {raw_key(source, table): table for table in tables}
    events = instance.event_log_storage.get_latest_materialization_events(list(keys))
    return {
        keys[key]: datetime.fromtimestamp(event.timestamp, UTC)
        for key, event in events.items()
        if event is not None and key in keys
    }


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
    nothing, states = ledger.TableState(), {}
    for table in spec.tables:
        reading = found.get(spec.reading_of(table), nothing)
        awaiting = found.get(table, nothing).awaiting
        states[table] = TableState(reading.position, bool(awaiting), reading.loaded_at)
    return states


def is_due(probe: Probe, state: TableState, now: datetime, refresh: timedelta) -> bool:
    """Whether it is time to read a table again of which a probe does not tell everything."""
    return not probe.complete and (state.read_at is None or now - state.read_at >= refresh)


def requests_of(spec: SourceSpec, table: str, probe: Probe, state: TableState, now: datetime) -> list[Request]:
    """What to request of one table, the first before the others; nothing if nothing is new.

    Rows that only await staging are not read again, and do not wait for a source of which some cannot be read. Tables
    that share a reading are read together.
    """
    raw, staged = [raw_key(spec.name, one) for one in spec.sharing(table)], staged_key(spec.name, table)
    requests = [Request([staged], [dict(state.position), "unstaged"])] if state.unstaged else []
    if probe.changes:
        requests.append(Request([*raw, staged], [dict(probe.changes), dict(state.position)]))
    elif is_due(probe, state, now, spec.refresh):
        requests.append(Request([*raw, staged], [{}, str(state.read_at)]))
    return requests


def request_once(
    instance: dg.DagsterInstance,
    name: str,
    requests: Mapping[str, Sequence[Request]],
    every: timedelta,
    tags: Mapping[str, str] | None = None,
) -> dg.RunRequest | dg.SkipReason:
    """One run for all that is requested, by table or model: of each the first request that is not about what a run
    under way is about, and did not end just now without taking in the same changes. If nothing is left, the reasons.
    `tags` are further ones of the run.
    """
    busy = assets_under_way(instance)
    runs = _RequestedRuns(instance, name)
    ready: dict[str, _Ready] = {}
    reasons = []
    for item, wanted in requests.items():
        for one in wanted:
            found = _ready_or_not(runs, item, one, busy, every)
            if isinstance(found, _Ready):
                ready[item] = found
                break
            reasons.append(found)
    if not ready:
        return dg.SkipReason(" ".join(dict.fromkeys(reasons)))
    digests = {item: one.digest for item, one in ready.items()}
    # The same tick evaluated twice requests once: the key changes with the changes, and with each attempt at the same.
    last = [one.last for one in ready.values() if one.last]
    key = hashlib.sha256(json.dumps([name, digests, last], sort_keys=True).encode()).hexdigest()[:32]
    return dg.RunRequest(
        run_key=f"{name}-{key}",
        asset_selection=list(dict.fromkeys(asset for one in ready.values() for asset in one.assets)),
        tags={
            **(tags or {}),
            SOURCE_TAG: name,
            **{f"{PROBE_TAG}.{item}": digest for item, digest in digests.items()},
        },
    )


@dataclass(frozen=True)
class _Ready:
    """A request that may be made now. `digest` stands for what is new, `last` is the last run for the same."""

    assets: Sequence[dg.AssetKey]
    digest: str
    last: str


class _RequestedRuns:
    """The runs that a sensor requested. Each is read once in a tick: the record of a run of a thousand tables is large,
    and it is about each of them."""

    def __init__(self, instance: dg.DagsterInstance, name: str) -> None:
        self._instance, self.name = instance, name
        self._records: dict[str, dg.RunRecord] = {}
        self._any = bool(instance.get_run_ids(dg.RunsFilter(tags={SOURCE_TAG: name}), limit=1))

    def of(self, item: str, digest: str) -> list[dg.RunRecord]:
        """The last runs for the same changes of a table or model, the newest first."""
        if not self._any:
            return []
        same = dg.RunsFilter(tags={f"{PROBE_TAG}.{item}": digest, SOURCE_TAG: self.name})
        ids = self._instance.get_run_ids(same, limit=ATTEMPTS_COUNTED)
        unread = [run_id for run_id in ids if run_id not in self._records]
        if unread:
            records = self._instance.get_run_records(dg.RunsFilter(run_ids=unread))
            self._records |= {record.dagster_run.run_id: record for record in records}
        return [self._records[run_id] for run_id in ids if run_id in self._records]


def _ready_or_not(
    runs: _RequestedRuns, item: str, one: Request, busy: Container[dg.AssetKey], every: timedelta
) -> _Ready | str:
    """A request that may be made now, or why it may not."""
    if any(asset in busy for asset in one.assets):
        return f"{item}: a run is under way."
    digest = hashlib.sha256(json.dumps([runs.name, one.changes], sort_keys=True, default=str).encode()).hexdigest()[:16]
    records = runs.of(item, digest)
    wait = remaining_wait([record.update_timestamp for record in records], every, datetime.now(UTC))
    if wait > timedelta(0):
        return (
            f"{item}: {len(records)} run{'s' * (len(records) > 1)} for the same changes did not take them in; the "
            f"next one in {int(wait.total_seconds())} s, or as soon as something moves."
        )
    return _Ready(one.assets, digest, records[0].dagster_run.run_id if records else "")


def remaining_wait(ended: Sequence[datetime], every: timedelta, now: datetime) -> timedelta:
    """How long to wait before the same is asked for again, given when runs for it ended: twice as long each time."""
    if not ended:
        return timedelta(0)
    wait: timedelta = min(every * 2 ** min(len(ended), ATTEMPTS_COUNTED), MAX_WAIT)
    return wait - (now - max(ended))


def assets_under_way(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """The assets that runs under way are about, whoever asked for them.

    Runs of this machine whose process died are ended first. One that is executed elsewhere, and gave no sign of life
    for as long as the longest wait, is passed over; should it live after all, the ledger keeps the two apart.
    """
    end_dead_runs(instance)
    alive = running(instance)
    assets: set[dg.AssetKey] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        if run.run_id in alive or _gave_a_sign(instance, record):
            assets |= _assets_of(instance, run)
    return assets


def _gave_a_sign(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    latest = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    last = max([record.update_timestamp.timestamp(), *(entry.timestamp for entry in latest)])
    return datetime.now(UTC).timestamp() - last < MAX_WAIT.total_seconds()


def _assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets of a run; that of a whole job has no selection of its own, but a plan."""
    if run.asset_selection is not None:
        return set(run.asset_selection)
    if run.execution_plan_snapshot_id is None:
        return set()
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    properties = [output.properties for step in plan.steps for output in step.outputs]
    return {one.asset_key for one in properties if one is not None and one.asset_key is not None}
