"""What the platform does for itself, as scheduled assets: a full audit of every staged table, and keeping the
lakehouse and Dagster's own storage small. How it is done is in `lakehouse.maintenance` and `observability`.
"""

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from data_platform.components.resource import LakehouseResource
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import settings_from_environment

KEEP_RUNS = timedelta(days=30)
RUNS_AT_ONCE = 500

LAKEHOUSE_KEY = dg.AssetKey(["platform", "lakehouse_maintenance"])
RUNS_KEY = dg.AssetKey(["platform", "run_history"])


@dg.asset(key=LAKEHOUSE_KEY, group_name="platform", kinds={"ducklake"}, owners=["team:platform"])
def lakehouse_maintenance(lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
    """Merges small files, expires snapshots older than 30 days that nothing stands on, deletes files without a table,
    and clears what dbt and interrupted steps left behind."""
    settings = settings_from_environment()
    with lakehouse.open() as lake:
        done = maintain(lake)
    cleared = 0
    for leftover in (settings.spool, settings.home / "dbt" / "run"):
        for path in leftover.glob("*") if leftover.exists() else ():
            if datetime.now(UTC) - datetime.fromtimestamp(path.stat().st_mtime, UTC) > timedelta(days=1):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                cleared += 1
    return dg.MaterializeResult(
        metadata={
            "files merged": done.files_merged,
            "snapshots expired": done.snapshots_expired,
            "files deleted": done.files_deleted,
            "orphaned files deleted": done.orphans_deleted,
            "leftovers cleared": cleared,
        }
    )


@dg.asset(key=RUNS_KEY, group_name="platform", kinds={"dagster"}, owners=["team:platform"])
def run_history(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Deletes Dagster's own runs and their events once they are 30 days old; the ledger keeps what they did."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    before = dg.RunsFilter(statuses=ended, created_before=datetime.now(UTC) - KEEP_RUNS)
    deleted = 0
    while records := context.instance.get_run_records(before, limit=RUNS_AT_ONCE):
        for record in records:
            context.instance.delete_run(record.dagster_run.run_id)
        deleted += len(records)
    return dg.MaterializeResult(metadata={"runs deleted": deleted})


def maintenance_definitions() -> dg.Definitions:
    """The maintenance assets and their daily schedule."""
    assets: list[Any] = [lakehouse_maintenance, run_history]
    job = dg.define_asset_job(
        "maintenance", dg.AssetSelection.assets(*assets), description="Daily care of the lakehouse and of Dagster."
    )
    schedule = dg.ScheduleDefinition(
        name="daily_maintenance",
        job=job,
        cron_schedule="30 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night at 03:30 UTC.",
    )
    return dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])
