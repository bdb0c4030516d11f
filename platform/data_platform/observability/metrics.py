"""The ledger as metrics of Prometheus and OpenMetrics: what all steps and runs come to, how old each table is, what is
in quarantine. Names follow Prometheus' conventions: base units, `_total` for what only grows. Labels are names of
sources, tables, models and jobs, and words of a fixed set: their number follows the number of tables. How they are
served is in `cli.metrics`; nothing is counted here that the ledger does not know.

A counter begins anew where a table is removed with its data, or runs are forgotten after 400 days: to Prometheus that
is a restart.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import get_args

import duckdb
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from data_platform.contracts.quarantine import open_rows_of_all
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.redaction import first_line, scrub

PREFIX = "data_platform"
TABLE = ("layer", "source", "table")
JOB = "dagster_job"
"""Not `job`: that is what Prometheus calls where it scrapes."""

DONE = ("landed", "staged", "published")
"""Outcomes of steps that changed their table, or found it as it is."""

OUTCOMES = {"raw": ("landed", "refused"), "staged": ("staged", "refused"), "modelled": ("published", "refused")}
"""How steps of a layer end."""

Row = tuple[Sequence[str], float]


@dataclass(frozen=True)
class Figures:
    """What one version of the lakehouse has to say. `quarantined` are open entries by source and table, `awaiting`
    loads that wait to be staged."""

    snapshot: int
    steps: Sequence[ledger.StepTotals]
    runs: Sequence[ledger.RunTotals]
    verdicts: Sequence[ledger.LastVerdict]
    quarantined: dict[tuple[str, str], int]
    awaiting: dict[tuple[str, str], int]


def read_figures(lake: Lakehouse, before: Figures | None = None) -> Figures:
    """The figures of the lakehouse as it is, in one transaction that waits for no writer; `before`, where nothing was
    committed since. Raises PlatformError if the ledger is not this release's."""
    with lake.reading():
        snapshot = current_snapshot(lake.connection)
        if before is not None and before.snapshot == snapshot:
            return before
        known = ledger.exists(lake)
        return Figures(
            snapshot,
            ledger.step_totals(lake),
            ledger.run_totals(lake),
            ledger.last_verdicts(lake),
            open_rows_of_all(lake.connection) if known else {},
            ledger.loads_awaiting_staging(lake),
        )


def families(figures: Figures, now: datetime) -> Iterator[Metric]:
    """The metrics of some figures, at a time. What alerts are made of is there as 0 before anything is counted, for
    each table and job that is known: Prometheus sees no growth in a series that begins with what it has to warn of."""
    steps, runs = figures.steps, figures.runs
    done = {(one.layer, one.source, one.table): one.last_at for one in steps if one.outcome in DONE}
    of_table = [((one.layer, one.source, one.table, one.outcome), one) for one in steps]
    of_job = [((one.job, one.status, one.asked_by), one) for one in runs]
    no_steps = {(one.layer, one.source, one.table, end): 0 for one in steps for end in OUTCOMES[one.layer]}
    no_runs = {(one.job, status, one.asked_by): 0 for one in runs for status in get_args(ledger.RunStatus)}
    no_rows = {(one.source, one.table): 0 for one in steps if one.layer != "modelled"}
    outcome, job = (*TABLE, "outcome"), (JOB, "status", "asked_by")
    yield _gauge(
        "table_age_seconds",
        "Seconds since a table was last loaded, staged or published.",
        TABLE,
        [(table, (now - at).total_seconds()) for table, at in done.items()],
    )
    yield _gauge(
        "table_last_success_timestamp_seconds",
        "When a table was last loaded, staged or published (Unix time).",
        TABLE,
        [(table, at.timestamp()) for table, at in done.items()],
    )
    yield _counter(
        "steps",
        "Loads, stagings and publications by how they ended.",
        outcome,
        [*(no_steps | {labels: one.steps for labels, one in of_table}).items()],
    )
    yield _counter(
        "step_seconds", "Time that steps took.", outcome, [(labels, one.seconds) for labels, one in of_table]
    )
    yield _counter(
        "step_cpu_seconds",
        "Processor time of loads and stagings; of the tables of one reading each has that of all.",
        outcome,
        [(labels, one.cpu_seconds) for labels, one in of_table if one.layer != "modelled"],
    )
    yield _counter(
        "rows_read",
        "Rows that loads and stagings read.",
        outcome,
        [(labels, one.rows_read) for labels, one in of_table if one.layer != "modelled"],
    )
    yield _counter(
        "rows_written",
        "Rows that were landed, inserted, updated or published.",
        outcome,
        [(labels, one.rows_written) for labels, one in of_table if one.outcome in DONE],
    )
    yield _counter(
        "rows_quarantined",
        "Rows that could not be read (raw), or that broke the contract (staged).",
        outcome,
        [(labels, one.rows_quarantined) for labels, one in of_table if one.layer != "modelled"],
    )
    yield _gauge(
        "quarantine_open_rows",
        "Rows in quarantine that are neither replayed nor discarded.",
        TABLE[1:],
        sorted((no_rows | figures.quarantined).items()),
    )
    yield _gauge(
        "loads_awaiting_staging",
        "Loads that changed the raw table and are not staged yet.",
        TABLE[1:],
        [
            ((one.source, one.table), figures.awaiting.get((one.source, one.table), 0))
            for one in steps
            if (one.layer, one.outcome) == ("raw", "landed")
        ],
    )
    yield _gauge(
        "contract_passed",
        "Whether the last verdict on a table was that it satisfies its contract (1) or not (0).",
        TABLE,
        [((one.layer, one.source or "", one.table), one.passed) for one in figures.verdicts],
    )
    yield _counter(
        "runs",
        "Runs by how they ended and who asked for them.",
        job,
        [*(no_runs | {labels: one.runs for labels, one in of_job}).items()],
    )
    yield _counter("run_seconds", "Time that runs took.", job, [(labels, one.seconds) for labels, one in of_job])
    yield _counter(
        "run_wait_seconds",
        "Time between the request for a run and its beginning.",
        job,
        [(labels, one.seconds_waited) for labels, one in of_job],
    )
    succeeded: dict[str, datetime] = {}
    for one in runs:
        if one.status == "success":
            succeeded[one.job] = max(one.last_at, succeeded.get(one.job, one.last_at))
    yield _gauge(
        "run_last_success_timestamp_seconds",
        "When a run of a job last succeeded (Unix time).",
        (JOB,),
        [((name,), at.timestamp()) for name, at in succeeded.items()],
    )
    yield _gauge("snapshot", "The version of the lakehouse that this was read from.", (), [((), figures.snapshot)])


def _gauge(name: str, about: str, labels: Sequence[str], rows: Sequence[Row]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, about: str, labels: Sequence[str], rows: Sequence[Row]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", about, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


class LedgerCollector(Collector):
    """Reads the ledger at each scrape. `open_lake` opens the lakehouse for reading; it stays open between scrapes, and
    is opened anew after an error. A ledger that cannot be read makes `data_platform_up` 0 and gives nothing else; the
    reason goes to the log, which only whoever runs this can read."""

    def __init__(self, open_lake: Callable[[], AbstractContextManager[Lakehouse]], release: str) -> None:
        self._open_lake, self._release = open_lake, release
        self._lock, self._opened = Lock(), ExitStack()
        self._lake: Lakehouse | None = None
        self._figures: Figures | None = None

    def collect(self) -> Iterator[Metric]:
        """The metrics of the ledger as it is now. Scrapes that come at the same time take turns."""
        with self._lock:
            try:
                if self._lake is None:
                    self._lake = self._opened.enter_context(self._open_lake())
                figures = self._figures = read_figures(self._lake, self._figures)
            except (PlatformError, duckdb.Error, OSError) as error:
                self._close()
                figures = None
                reason = str(error) if isinstance(error, PlatformError) else first_line(error)
                logging.getLogger(__name__).error("The ledger cannot be read: %s", scrub(reason))
        yield from self._of_itself(up=figures is not None)
        if figures is not None:
            yield from families(figures, datetime.now(UTC))

    def describe(self) -> Iterator[Metric]:
        """The names of all metrics, for scrapes that ask for some of them (`?name[]=...`). Nothing is read."""
        yield from self._of_itself(up=False)
        yield from families(Figures(0, (), (), (), {}, {}), datetime.now(UTC))

    def _of_itself(self, *, up: bool) -> Iterator[Metric]:
        build = InfoMetricFamily(f"{PREFIX}_build", "The release that reads the ledger.")
        build.add_metric((), {"version": self._release})
        yield build
        yield _gauge("up", "Whether the ledger could be read.", (), [((), up)])

    def close(self) -> None:
        """Close the lakehouse."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._lake = self._figures = None
        try:
            self._opened.close()
        except (PlatformError, duckdb.Error) as error:
            logging.getLogger(__name__).warning("The lakehouse was closed with an error: %s", scrub(first_line(error)))
