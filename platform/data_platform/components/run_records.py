"""Which runs have ended, brought from Dagster's own storage, which keeps them for 30 days, into the ledger, where they
are asked for beside what their steps did: a sensor does it, so that no run waits for it, and `dp run` for its own.
What is asked of them is in `observability.views`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
import duckdb
from dagster._core.storage.tags import (
    BACKFILL_ID_TAG,
    PARENT_RUN_ID_TAG,
    RETRY_NUMBER_TAG,
    SCHEDULE_NAME_TAG,
    SENSOR_NAME_TAG,
)

from data_platform.components.failures import failure
from data_platform.components.openlineage import report_killed
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import commit

SENSOR = "run_records"
EVERY = timedelta(seconds=30)

KEEP_RECORDS = timedelta(days=400)
"""How long the ledger keeps runs: a year, and some of the one before to compare with."""

PAGE = 200
"""Runs that one look brings at most: each takes Dagster a few milliseconds."""

OVERLAP = timedelta(minutes=1)
"""How far a look goes back behind the last run that was brought: Dagster writes the time of a change before it commits
the change, so that a run may appear behind a later one."""

STATUSES: dict[dg.DagsterRunStatus, ledger.RunStatus] = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


def record_ended_runs(
    lake: Lakehouse,
    instance: dg.DagsterInstance,
    since: datetime | None,
    warn: Callable[[str], object] = lambda _: None,
) -> datetime | None:
    """Write the runs that ended after `since` to the ledger, the first first, a page of them at most; when the last of
    them changed, `since` if there is none, or no ledger yet. Those that are written already stay as they are. Of new
    ones, steps that were left open are ended at a receiver of OpenLineage; `warn` is given what it did not take."""
    if not ledger.exists(lake):
        return since
    while True:
        ended = dg.RunsFilter(statuses=list(STATUSES), updated_after=since)
        records = instance.get_run_records(ended, limit=PAGE, order_by="update_timestamp", ascending=True)
        if not records:
            return since
        since = records[-1].update_timestamp
        known = ledger.recorded_runs(lake, [record.dagster_run.run_id for record in records])
        new = [record for record in records if record.dagster_run.run_id not in known]
        if new:
            # Before the commit: killed in between, the next look says it again.
            if warning := report_killed(instance, new):
                warn(warning)
            commit(lake, partial(_record, [run_of(instance, record) for record in new]))
            return since


def _record(runs: Sequence[ledger.Run], connection: duckdb.DuckDBPyConnection) -> None:
    ledger.record_runs(connection, *runs)


def record_missing_runs(lake: Lakehouse, instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Write those runs of some that the ledger does not have: they are about to be deleted, and the sensor that brings
    them may have been off."""
    if not ledger.exists(lake):
        return
    for first in range(0, len(run_ids), PAGE):
        page = run_ids[first : first + PAGE]
        missing = [*set(page) - ledger.recorded_runs(lake, page)]
        records = instance.get_run_records(dg.RunsFilter(run_ids=missing)) if missing else ()
        if records:
            commit(lake, partial(_record, [run_of(instance, record) for record in records]))


def run_of(instance: dg.DagsterInstance, record: dg.RunRecord) -> ledger.Run:
    """A run that has ended, as the ledger keeps it."""
    run = record.dagster_run
    stats = instance.get_run_stats(run.run_id)
    asked_by, asker = asked_by_whom(run.tags)
    ended = record.end_time or record.update_timestamp.timestamp()
    # Of when a run was made, Dagster's SQLite keeps whole seconds; of when it joined the queue, all of it.
    asked = datetime.fromtimestamp(stats.enqueued_time, UTC) if stats.enqueued_time else record.create_timestamp
    return ledger.Run(
        run.run_id,
        run.job_name,
        STATUSES[run.status],
        asked_by,
        asker,
        asked,
        datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None,
        datetime.fromtimestamp(ended, UTC),
        stats.steps_succeeded + stats.steps_failed,
        stats.steps_failed,
    )


def asked_by_whom(tags: Mapping[str, str]) -> tuple[ledger.AskedBy, str | None]:
    """Who asked for a run with these tags, and the name of the sensor, schedule or backfill; a person otherwise, in the
    UI or by `dp run`. A run that a person executes again has the tags of the first; what Dagster tries again by itself
    has a number besides."""
    by_person = PARENT_RUN_ID_TAG in tags and RETRY_NUMBER_TAG not in tags
    if SENSOR_NAME_TAG in tags and not by_person:
        return "sensor", tags[SENSOR_NAME_TAG]
    if SCHEDULE_NAME_TAG in tags and not by_person:
        return "schedule", tags[SCHEDULE_NAME_TAG]
    if BACKFILL_ID_TAG in tags:
        return "backfill", tags[BACKFILL_ID_TAG]
    return "person", None


def run_records_sensor(settings: Settings) -> dg.SensorDefinition:
    """Brings the runs that have ended into the ledger; its cursor is how far it came, in this Dagster's storage."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=int(EVERY.total_seconds()),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Brings the runs that have ended into the ledger (`platform.run_performance`). Asks for none.",
    )
    def bring(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        # One that lies ahead was set by a clock that has been set back since: runs that end now would lie behind it.
        cursor = min(datetime.fromisoformat(context.cursor), datetime.now(UTC)) if context.cursor else None
        since = cursor - OVERLAP if cursor is not None else None
        try:
            with shared_lakehouse(settings) as lake:
                last = record_ended_runs(lake, context.instance, since, context.log.warning)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            raise failure(error) from None
        if last is None:
            return dg.SkipReason("Nothing was loaded yet, or no run has ended.")
        if last != since:
            context.update_cursor(last.isoformat())
        return dg.SkipReason("The runs that have ended are in the ledger.")

    return bring
