"""Whether sources answer, as a check of their raw tables: what is dead is not green. The sensor of a source notes it
here, as no run begins while a source does not answer; each load that ends well passes the check.

Since when a source has not answered is kept in the check's own history, so nothing else has to remember it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from data_platform.components.keys import REACHABLE, raw_key
from data_platform.components.spec import SourceSpec, TableSpec

PATIENCE = timedelta(minutes=5)
"""How long a source may not answer before the check fails, where a table does not say how fresh it is to be."""

SINCE = "unreachable since"
ANSWERS = "The source answers."
LOOKED_AT = 10
"""Executions of the check that are looked through: those of runs which have just begun have no verdict."""


def allowed(table: TableSpec) -> timedelta:
    """How long the source of a table may not answer before the table's check fails."""
    return table.table.fresh_within or PATIENCE


def in_words(within: timedelta) -> str:
    """`5 min`, `24 h`, `90 s`."""
    seconds = int(within.total_seconds())
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def note_unreachable(
    instance: dg.DagsterInstance, spec: SourceSpec, failures: Mapping[str, str], now: datetime
) -> None:
    """Note which tables of a source could not be reached just now, and why; all others could. Something is written only
    when it changes: a warning at first, a failure once that lasted for as long as the table allows, and a pass when the
    source answers again."""
    keys = {dg.AssetCheckKey(raw_key(spec.name, table), REACHABLE): table for table in spec.tables}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    for key, table in keys.items():
        fine = key not in latest or latest[key].status == AssetCheckExecutionRecordStatus.SUCCEEDED
        before = None if fine else last_evaluation(instance, key)
        if table in failures:
            found = _unreachable(key, failures[table], before, allowed(spec.tables[table]), now)
        elif before is not None and not before.passed:
            found = dg.AssetCheckEvaluation(
                asset_key=key.asset_key, check_name=REACHABLE, passed=True, description=ANSWERS
            )
        else:
            continue
        if found is not None:
            instance.report_runless_asset_event(found)


def _unreachable(
    key: dg.AssetCheckKey, reason: str, before: dg.AssetCheckEvaluation | None, within: timedelta, now: datetime
) -> dg.AssetCheckEvaluation | None:
    """The verdict on a table that cannot be reached; None if it was the same before."""
    since = now
    if before is not None and not before.passed and SINCE in before.metadata:
        since = datetime.fromtimestamp(float(before.metadata[SINCE].value), UTC)  # type: ignore[arg-type]
    severity = dg.AssetCheckSeverity.ERROR if now - since >= within else dg.AssetCheckSeverity.WARN
    if before is not None and not before.passed and before.severity == severity:
        return None
    lasts = "" if severity == dg.AssetCheckSeverity.ERROR else f" It fails if that lasts {in_words(within)}."
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=REACHABLE,
        passed=False,
        severity=severity,
        description=f"The source has not answered since {since:%Y-%m-%d %H:%M:%S} UTC.{lasts} The table is as it was "
        f"when it was last loaded.\n\n{reason}",
        metadata={SINCE: dg.MetadataValue.timestamp(since)},
    )


def last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The last verdict of a check; None if there is none."""
    for record in instance.event_log_storage.get_asset_check_execution_history(key, LOOKED_AT):
        event = record.event.dagster_event if record.event is not None else None
        if event is not None and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            return event.asset_check_evaluation_data
    return None
