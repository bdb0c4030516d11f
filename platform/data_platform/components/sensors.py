"""Sensors look and never decide: one for each source compares how far the source has come with the ledger, and asks
for one run of the tables that have something new. What is loaded is decided by the load, from the ledger.

They keep no cursor. A look that was asked for already is known by a tag on its run: while that run is under way
nothing is asked again, and after a failure the same look is asked again ever more slowly, until the source moves.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from data_platform.components.keys import raw_key, staged_key
from data_platform.components.spec import SourceSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Position
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

LOOK_TAG = "data_platform/look"
SOURCE_TAG = "data_platform/source"
MAX_WAIT = timedelta(hours=1)
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class TableState:
    """What the ledger knows of a table: positions, whether loads await staging, when it was last loaded."""

    position: Mapping[str, str]
    unstaged: bool
    loaded_at: datetime | None


def source_sensor(spec: SourceSpec) -> dg.SensorDefinition:
    """The sensor of a source: looks every `every`, asks for the tables that have something new."""
    targets = [key for table in spec.tables for key in (raw_key(spec.name, table), staged_key(spec.name, table))]

    @dg.sensor(
        name=f"{spec.name}_sensor",
        target=dg.AssetSelection.assets(*targets),
        minimum_interval_seconds=max(1, int(spec.every.total_seconds())),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Looks every {spec.every} whether {spec.name} has something new, and asks for those tables.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(UTC)
        states = read_states(spec)
        try:
            with spec.open() as source:
                looks = {table: source.position(table) for table in spec.tables}
                new = [t for t in spec.tables if has_news(looks[t], states[t], now, spec.refresh)]
        except PlatformError as error:
            # The tick fails with the reason; other sources have sensors of their own.
            raise dg.Failure(description=str(error)) from None
        if not new:
            return dg.SkipReason(f"Nothing new in {', '.join(spec.tables)}.")
        keys = [key for table in new for key in (raw_key(spec.name, table), staged_key(spec.name, table))]
        return request_once(context.instance, spec.name, news(new, looks, states), keys, spec.every)

    return look


def read_states(spec: SourceSpec) -> dict[str, TableState]:
    """The ledger's state of each table of a source; empty states while there is no lakehouse."""
    nothing = {table: TableState({}, unstaged=False, loaded_at=None) for table in spec.tables}
    settings = settings_from_environment()
    try:
        with open_lakehouse(settings, read_only=True) as lake:
            return {**nothing, **_states(lake, spec)} if ledger.exists(lake) else nothing
    except PlatformError:
        if settings.catalog_is_sqlite:
            return nothing
        raise


def _states(lake: Lakehouse, spec: SourceSpec) -> dict[str, TableState]:
    rows = lake.connection.execute(
        f"SELECT layer, table_name, partition, value, moved_at FROM {ledger.name('positions')} WHERE source = ?",
        [spec.name],
    ).fetchall()
    landed = dict(
        lake.connection.execute(
            f"SELECT table_name, max(load_id) FROM {ledger.name('loads')} WHERE source = ? AND status = 'landed' "
            "AND rows_landed > 0 GROUP BY table_name",
            [spec.name],
        ).fetchall()
    )
    states = {}
    for table in spec.tables:
        raw = {partition: value for layer, name, partition, value, _ in rows if (layer, name) == ("raw", table)}
        staged = {partition: value for layer, name, partition, value, _ in rows if (layer, name) == ("staged", table)}
        times = [
            at for layer, name, partition, _, at in rows if (layer, name, partition) == ("raw", table, ledger.STEP)
        ]
        raw.pop(ledger.STEP, None)
        unstaged = landed.get(table, 0) > int(staged.get("load_id", "0"))
        states[table] = TableState(raw, unstaged, times[0] if times else None)
    return states


def has_news(look: Position | None, state: TableState, now: datetime, refresh: timedelta) -> bool:
    """Whether a table is worth a run: the source moved, rows await staging, or it is time to read it again."""
    if state.unstaged:
        return True
    if look is not None and any(state.position.get(entry) != value for entry, value in look.items()):
        return True
    blind = look is None or set(look) == {"rows"}
    return blind and (state.loaded_at is None or now - state.loaded_at >= refresh)


def news(
    new: list[str], looks: Mapping[str, Position | None], states: Mapping[str, TableState]
) -> dict[str, list[object]]:
    """What makes up a request: the same news is not asked for twice. Where a look tells nothing, the time of the last
    load stands for it."""
    return {
        table: [
            looks[table],
            dict(states[table].position),
            str(states[table].loaded_at) if looks[table] is None else "",
        ]
        for table in new
    }


def request_once(
    instance: dg.DagsterInstance,
    name: str,
    what: object,
    keys: Sequence[dg.AssetKey],
    every: timedelta,
) -> dg.RunRequest | dg.SkipReason:
    """One request for `keys`, unless a run that this sensor asked for is under way, or one for the same `what` ended
    just now.

    One run at a time for each source: what arrives meanwhile is taken in by the next, all of it at once. `what` is
    anything JSON can hold that changes once a run has done its work.
    """
    digest = hashlib.sha256(json.dumps([name, what], sort_keys=True, default=str).encode()).hexdigest()[:16]
    tag = f"{name}-{digest}"
    if instance.get_runs(dg.RunsFilter(tags={SOURCE_TAG: name}, statuses=UNDER_WAY), limit=1):
        return dg.SkipReason(f"A run of {name} is under way; what is new meanwhile is taken in by the next.")
    records = instance.get_run_records(dg.RunsFilter(tags={LOOK_TAG: tag}), limit=20)
    attempt = len(records)
    if attempt:
        ended = max(record.update_timestamp.replace(tzinfo=UTC) for record in records)
        wait = min(every * 2**attempt, MAX_WAIT) - (datetime.now(UTC) - ended)
        if wait > timedelta(0):
            return dg.SkipReason(
                f"{attempt} run{'s' * (attempt > 1)} for the same news did not take it in (see the runs tagged "
                f"{LOOK_TAG}={tag}); asking again in {int(wait.total_seconds())} s, or as soon as something moves."
            )
    return dg.RunRequest(run_key=f"{tag}-{attempt}", asset_selection=list(keys), tags={LOOK_TAG: tag, SOURCE_TAG: name})
