"""What the platform does for itself, as scheduled assets: keeping the lakehouse and Dagster's own storage small. How
it is done to the lakehouse is in `lakehouse.maintenance`; the nightly audit is in `audits`.
"""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from data_platform.components.failures import RETRIES, failure
from data_platform.components.keys import CHECK, KEEP_REPLACED, REACHABLE, platform_key
from data_platform.components.resource import LakehouseResource
from data_platform.components.retraining import last_attempts
from data_platform.components.run_records import KEEP_RECORDS, run_records_sensor
from data_platform.ingestion.retention import Retired, retire_replaced_loads
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import Settings

KEEP_RUNS = timedelta(days=30)

RUNS_KEY = platform_key("run_history")


def lakehouse_maintenance(keep_replaced: Mapping[tuple[str, str], timedelta], platform: str) -> dg.AssetsDefinition:
    """The asset that takes care of the lakehouse. `keep_replaced` is how long raw keeps a full refresh that was
    replaced, by source and table, where that is not left to the settings; what other platforms than `platform` own is
    left to them."""

    @dg.asset(
        key=platform_key("lakehouse_maintenance"),
        group_name="platform",
        kinds={"ducklake"},
        owners=["team:platform"],
        retry_policy=RETRIES,
        description="Deletes full refreshes from raw some time after they were replaced, merges small files, expires "
        "snapshots older than 30 days that nothing stands on, deletes files without a table, and clears what dbt and "
        "interrupted steps left behind.",
    )
    def maintenance(lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
        return _maintained(lakehouse, keep_replaced, platform)

    return maintenance


def raw_retention(keep_replaced: Mapping[tuple[str, str], timedelta], platform: str) -> dg.AssetsDefinition:
    """The asset that takes care of the raw tables of a platform which another one of the workspace comes before: that
    one takes care of the lakehouse."""

    @dg.asset(
        key=platform_key("raw_retention", platform),
        group_name="platform",
        kinds={"ducklake"},
        owners=["team:platform"],
        retry_policy=RETRIES,
        description=f"Deletes full refreshes from the raw tables of {platform} some time after they were replaced.",
    )
    def retention(lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
        try:
            with lakehouse.open() as lake:
                retired = _retired(lake, keep_replaced, platform)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            raise failure(error) from None
        return dg.MaterializeResult(metadata=_figures(retired))

    return retention


def _retired(lake: Lakehouse, keep_replaced: Mapping[tuple[str, str], timedelta], platform: str) -> Retired:
    # In lower case: the lakehouse tells names apart without regard to it.
    others = {source for source, owner in ledger.owners(lake, "source").items() if owner != platform}
    return retire_replaced_loads(lake, keep_replaced, without=others)


def _figures(retired: Retired) -> dict[str, Any]:
    return {
        "replaced loads deleted": retired.loads,
        "rows of replaced loads deleted": retired.rows,
        "replaced loads left, with rows in quarantine": retired.left_in_quarantine,
    }


def _maintained(
    lakehouse: LakehouseResource, keep_replaced: Mapping[tuple[str, str], timedelta], platform: str
) -> dg.MaterializeResult[None]:
    settings = lakehouse.settings
    try:
        with lakehouse.open() as lake:
            retired = _retired(lake, keep_replaced, platform)
            done = maintain(lake)
    except Exception as error:  # noqa: BLE001 - a library may raise anything
        raise failure(error) from None
    cleared = 0
    for leftover in (settings.spool, settings.home / "dbt" / "run"):
        for path in leftover.glob("*") if leftover.exists() else ():
            if datetime.now(UTC) - datetime.fromtimestamp(path.stat().st_mtime, UTC) > timedelta(days=1):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                cleared += 1
    return dg.MaterializeResult(
        metadata={
            **_figures(retired),
            "files merged": done.files_merged,
            "files left for the next time": done.files_left,
            "snapshots expired": done.snapshots_expired,
            "files deleted": done.files_deleted,
            "orphaned files deleted": done.orphans_deleted,
            "files of unknown origin": done.files_unknown,
            "leftovers cleared": cleared,
        }
    )


@dg.asset(key=RUNS_KEY, group_name="platform", kinds={"dagster"}, owners=["team:platform"])
def run_history(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
    """Deletes Dagster's own runs and their events once they are 30 days old; the ledger keeps what they did, and a line
    on each for 400 days. The latest run of each asset stays."""
    now = datetime.now(UTC)
    deleted = delete_runs(context.instance, now - KEEP_RUNS)
    try:
        with lakehouse.open() as lake:
            forgotten = ledger.forget_runs(lake, now - KEEP_RECORDS)
    except Exception as error:  # noqa: BLE001 - a library may raise anything
        raise failure(error) from None
    return dg.MaterializeResult(metadata={"runs deleted": deleted, "runs deleted from the ledger": forgotten})


def delete_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the runs that ended and were made before a time, with their events; how many.

    A run that holds the latest materialisation or check of an asset stays: without it the asset would look as if
    it had never been made. So does the last attempt to train a model anew, which the next one may have to wait for.
    """
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    old = instance.get_run_ids(dg.RunsFilter(statuses=ended, created_before=before))
    kept = latest_runs(instance) | last_attempts(instance) if old else set()
    gone = [run_id for run_id in old if run_id not in kept]
    for run_id in gone:
        instance.delete_run(run_id)
    return len(gone)


def latest_runs(instance: dg.DagsterInstance) -> set[str]:
    """The runs that hold the latest materialisation of an asset, or of the latest verdict of its checks."""
    records = instance.get_asset_records()
    latest = [record.asset_entry.last_materialization_record for record in records]
    runs = {record.run_id for record in latest if record is not None}
    keys = [record.asset_entry.asset_key for record in records]
    checks = [dg.AssetCheckKey(key, check) for key in keys for check in (CHECK, REACHABLE)]
    evaluated = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    return runs | {record.run_id for record in evaluated.values()}


def kept_replaced(parts: Sequence[dg.Definitions]) -> dict[tuple[str, str], timedelta]:
    """How long raw keeps a full refresh that was replaced, by source and table, where the table itself says so."""
    specs = [
        spec
        for part in parts
        for asset in part.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
        if KEEP_REPLACED in spec.metadata
    ]
    return {(spec.key.path[1], spec.key.path[2]): timedelta(seconds=spec.metadata[KEEP_REPLACED]) for spec in specs}


def maintenance_definitions(
    parts: Sequence[dg.Definitions], platform: str, settings: Settings, *, first: bool = True
) -> dg.Definitions:
    """The maintenance assets of a platform, given the definitions of its sources, and their daily schedule. Of several
    platforms in a workspace the `first` takes care of what they share, and brings runs that ended into the ledger."""
    keep = kept_replaced(parts)
    assets: list[Any] = (
        [lakehouse_maintenance(keep, platform), run_history] if first else [raw_retention(keep, platform)]
    )
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
    sensors = [run_records_sensor(settings)] if first else []
    return dg.Definitions(assets=assets, jobs=[job], schedules=[schedule], sensors=sensors)
