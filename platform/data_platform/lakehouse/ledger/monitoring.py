"""What all steps and runs come to since the ledger began, as a monitoring system counts them. Tables by themselves are
asked for in `queries`, in SQL by the views.
"""

from dataclasses import dataclass
from datetime import datetime

from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.schema import exists


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


def step_totals(lake: Lakehouse) -> list[StepTotals]:
    """All steps, by table and outcome."""
    if not exists(lake):
        return []
    rows = lake.connection.execute(
        f"""SELECT layer, source, table_name, outcome, count(*), coalesce(sum(seconds), 0),
            coalesce(sum(cpu_seconds), 0), coalesce(sum(rows_read), 0)::BIGINT,
            coalesce(sum(rows_written), 0)::BIGINT, coalesce(sum(rows_quarantined), 0)::BIGINT, max(ended_at)
        FROM (
            SELECT 'raw' AS layer, source, table_name, status AS outcome, epoch(ended_at - started_at) AS seconds,
                cpu_seconds, rows_read, rows_landed AS rows_written, rows_quarantined, ended_at
            FROM {name("loads")}
            UNION ALL
            SELECT 'staged', source, table_name, status, epoch(ended_at - started_at), cpu_seconds, rows_read,
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
        "SELECT job, status, asked_by, count(*), coalesce(sum(epoch(ended_at - started_at)), 0), "
        "sum(epoch(coalesce(started_at, ended_at) - asked_at)), max(ended_at) "
        f"FROM {name('runs')} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [RunTotals(*row) for row in rows]
