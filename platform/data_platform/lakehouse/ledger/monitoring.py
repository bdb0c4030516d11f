"""What all steps and runs come to: since the ledger began, as a monitoring system counts them, and in the last 7 days,
as a person looks at them. Tables by themselves are asked for in `queries`, in SQL by the views.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.queries import AWAITING_STAGING
from data_platform.lakehouse.ledger.schema import exists
from data_platform.lakehouse.ledger.views import VIEWS, seconds


@dataclass(frozen=True)
class StepTotals:
    """All steps of one table (`source` is empty for models) that ended alike. `last_at` is when the last of them ended.
    What was not measured counts as nothing; of the tables of one reading each has the processor time of all."""

    layer: str
    source: str
    table: str
    outcome: str
    steps: int
    seconds: float
    cpu_seconds: float
    rows_read: int
    rows_written: int
    rows_quarantined: int
    last_at: datetime


@dataclass(frozen=True)
class RunTotals:
    """All runs of one job that ended alike and that the same kind of asker asked for. `seconds_waited` are those before
    a run began."""

    job: str
    status: str
    asked_by: str
    runs: int
    seconds: float
    seconds_waited: float
    last_at: datetime


@dataclass(frozen=True)
class SlowAsset:
    """The steps of one kind of a table in the last 7 days: `seconds` of all of them together, of which it has a `share`
    among all tables, of the median and the longest one, and of the median of the 21 days before;
    `seconds_waited_median` is how long what was staged had waited. None where that is not known."""

    asset: str
    kind: str
    steps: int
    steps_refused: int
    seconds: float
    share: float
    seconds_median: float
    seconds_median_before: float | None
    seconds_longest: float
    seconds_waited_median: float | None
    rows_per_second: float | None
    cpu_seconds: float | None


@dataclass(frozen=True)
class GrowingTable:
    """A table that grew in the last 7 days: its rows, how many more than before, and the bytes that were written."""

    asset: str
    rows: int
    rows_added: int
    bytes_written: int


@dataclass(frozen=True)
class WaitingTable:
    """A table of which `loads` have landed that are not staged, the first of them at a time."""

    source: str
    table: str
    loads: int
    since: datetime


@dataclass(frozen=True)
class JobRuns:
    """The runs of a job in the last 7 days: how many, how many failed or were cancelled, and the medians of how long
    they waited and took; None if none of them began."""

    job: str
    runs: int
    runs_failed: int
    seconds_waited: float
    seconds: float | None


def slowest(lake: Lakehouse, limit: int) -> list[SlowAsset]:
    """The tables whose steps took longest together."""
    return [
        SlowAsset(*row)
        for row in _asked(
            lake,
            f"""
        SELECT asset, kind, steps, steps_refused, seconds, seconds / nullif(sum(seconds) OVER (), 0), seconds_median,
            seconds_median_before, seconds_longest, seconds_waited_median, rows_per_second, cpu_seconds
        FROM ({VIEWS["asset_performance"]}) WHERE seconds IS NOT NULL ORDER BY seconds DESC, asset LIMIT {limit:d}""",
        )
    ]


def growing(lake: Lakehouse, limit: int) -> list[GrowingTable]:
    """The tables that grew by most rows."""
    return [
        GrowingTable(*row)
        for row in _asked(
            lake,
            f"""
        SELECT asset, arg_max(rows, day), sum(rows_added)::BIGINT AS added, coalesce(sum(bytes_written), 0)::BIGINT
        FROM ({VIEWS["table_growth"]}) WHERE day > (now() - INTERVAL 7 DAY)::DATE
        GROUP BY asset HAVING added > 0 ORDER BY added DESC, asset LIMIT {limit:d}""",
        )
    ]


def waiting(lake: Lakehouse, limit: int) -> list[WaitingTable]:
    """The tables with loads that are not staged, what waits longest first."""
    return [
        WaitingTable(*row)
        for row in _asked(
            lake,
            f"""
        SELECT source, table_name, count(*), min(ended_at) AS since
        FROM {AWAITING_STAGING} JOIN (SELECT source, table_name, load_id, ended_at FROM {name("loads")})
        USING (source, table_name, load_id)
        GROUP BY source, table_name ORDER BY since, source, table_name LIMIT {limit:d}""",
        )
    ]


def runs_of_jobs(lake: Lakehouse) -> list[JobRuns]:
    """The runs of each job, those that waited longest first."""
    return [
        JobRuns(*row)
        for row in _asked(
            lake,
            f"""
        SELECT job, count(*), count(*) FILTER (status <> 'success'), median(seconds_waited) AS waited, median(seconds)
        FROM ({VIEWS["run_performance"]}) WHERE ended_at > now() - INTERVAL 7 DAY
        GROUP BY job ORDER BY waited DESC, job""",
        )
    ]


def _asked(lake: Lakehouse, query: str) -> list[Any]:
    return lake.connection.execute(query).fetchall() if exists(lake) else []


def step_totals(lake: Lakehouse) -> list[StepTotals]:
    """All steps, by table and outcome."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        f"""SELECT layer, source, table_name, outcome, count(*), coalesce(sum(seconds), 0),
            coalesce(sum(cpu_seconds), 0), coalesce(sum(rows_read), 0)::BIGINT,
            coalesce(sum(rows_written), 0)::BIGINT, coalesce(sum(rows_quarantined), 0)::BIGINT, max(ended_at)
        FROM (
            SELECT 'raw' AS layer, source, table_name, status AS outcome,
                {seconds("started_at", "ended_at")} AS seconds, cpu_seconds,
                rows_read, rows_landed AS rows_written, rows_quarantined, ended_at
            FROM {name("loads")}
            UNION ALL
            SELECT 'staged', source, table_name, status, {seconds("started_at", "ended_at")}, cpu_seconds, rows_read,
                rows_inserted + rows_updated, rows_quarantined, ended_at
            FROM {name("stagings")}
            UNION ALL
            SELECT 'modelled', '', model, 'published', seconds, NULL, NULL, rows_written, NULL, published_at
            FROM {name("publications")}
            UNION ALL
            SELECT 'modelled', '', table_name, 'refused', NULL, NULL, NULL, NULL, NULL, audited_at
            FROM {name("audits")} WHERE kind = 'build' AND NOT passed
        )
        GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    return [StepTotals(*row) for row in rows]


def run_totals(lake: Lakehouse) -> list[RunTotals]:
    """All runs of which the ledger knows, by job, status and who asked for them."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        "SELECT job, status, asked_by, count(*), "
        f"coalesce(sum({seconds('started_at', 'ended_at')}), 0), "
        f"sum({seconds('asked_at', 'coalesce(started_at, ended_at)')}), max(ended_at) "
        f"FROM {name('runs')} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [RunTotals(*row) for row in rows]
