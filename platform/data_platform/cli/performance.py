"""`dp status --performance`: what took long in the last 7 days, what grows and what waits, from the ledger alone. The
same and more is in the views of the schema `platform`.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data_platform.cli.show import ago, console, grid

if TYPE_CHECKING:
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.ledger import GrowingTable, JobRuns, SlowAsset, WaitingTable

LINES = 10
"""Tables that are shown of each kind."""

SLOWER = 1.5
"""By how much the median has to be above that of before to stand out."""


@dataclass(frozen=True)
class Performance:
    """What `dp status --performance` shows."""

    slowest: "list[SlowAsset]"
    growing: "list[GrowingTable]"
    waiting: "list[WaitingTable]"
    runs: "list[JobRuns]"


def read_performance(lake: "Lakehouse") -> Performance:
    """The figures of a lakehouse as it is."""
    from data_platform.lakehouse import ledger

    with lake.reading():
        return Performance(
            ledger.slowest(lake, LINES),
            ledger.growing(lake, LINES),
            ledger.waiting(lake, LINES),
            ledger.runs_of_jobs(lake),
        )


def as_record(found: Performance) -> dict[str, Any]:
    """The figures as plain values, times in seconds."""
    return asdict(found)


def show_performance(found: Performance) -> None:
    """Print the figures for a person."""
    screen = console()
    if not (found.slowest or found.waiting or found.runs):
        screen.print("No step was done in the last 7 days, and none waits.")
        return
    if found.slowest:
        table = grid(
            "slowest", "steps", "time", "share", "median", "before", "longest", "waited", "rows/s", "CPU", "refused",
            right=["steps", "time", "share", "median", "before", "longest", "waited", "rows/s", "CPU", "refused"],
        )  # fmt: skip
        for slow in found.slowest:
            before = slow.seconds_median_before
            slower = before is not None and slow.seconds_median > SLOWER * before
            table.add_row(
                slow.asset,
                f"{slow.steps:,}",
                duration(slow.seconds),
                f"{slow.share:.0%}",
                f"[yellow]{duration(slow.seconds_median)}[/]" if slower else duration(slow.seconds_median),
                duration(before),
                duration(slow.seconds_longest),
                duration(slow.seconds_waited_median),
                "" if slow.rows_per_second is None else f"{slow.rows_per_second:,.0f}",
                duration(slow.cpu_seconds),
                f"[red]{slow.steps_refused:,}[/]" if slow.steps_refused else "",
            )
        screen.print(table)
    if found.growing:
        table = grid("growing", "rows", "more", "", "written", right=["rows", "more", "", "written"])
        for one in found.growing:
            before_rows = one.rows - one.rows_added
            table.add_row(
                one.asset,
                f"{one.rows:,}",
                f"+{one.rows_added:,}",
                f"+{one.rows_added / before_rows:.0%}" if before_rows > 0 else "new",
                size(one.bytes_written),
            )
        screen.print()
        screen.print(table)
    if found.waiting:
        table = grid("waiting to be staged", "loads", "since", right=["loads"])
        for late in found.waiting:
            table.add_row(f"{late.source}/{late.table}", f"[yellow]{late.loads:,}[/]", ago(late.since))
        screen.print()
        screen.print(table)
    if found.runs:
        table = grid("runs of", "runs", "failed", "waited", "took", right=["runs", "failed", "waited", "took"])
        for job in found.runs:
            table.add_row(
                job.job,
                f"{job.runs:,}",
                f"[red]{job.runs_failed:,}[/]" if job.runs_failed else "",
                duration(job.seconds_waited),
                duration(job.seconds),
            )
        screen.print()
        screen.print(table)
    screen.print()
    screen.print(
        'Of the last 7 days; waited, took and median are medians. More: dp sql "from platform.step_performance"',
        style="dim",
    )


def duration(seconds: float | None) -> str:
    """A duration for a person: `25 ms`, `3.4 s`, `12 min`, `5.2 h`; empty if it is unknown."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(bytes_: int) -> str:
    """A number of bytes for a person: `512 B`, `43 KiB`, `1.2 MiB`, `3.4 GiB`."""
    if bytes_ < 2**10:
        return f"{bytes_} B"
    if bytes_ < 2**20:
        return f"{bytes_ / 2**10:.0f} KiB"
    return f"{bytes_ / 2**20:,.1f} MiB" if bytes_ < 2**30 else f"{bytes_ / 2**30:,.1f} GiB"
