"""What was measured as one table, and as JSON. Nothing is measured here, and nothing fails because it is slow."""

from dataclasses import asdict, dataclass
from typing import Any

from platform_tests.benchmarks.measure import Measured
from rich.table import Table
from rich.text import Text

PEAK_AIM = 1024.0
"""Memory [MiB] that no step may exceed, whatever it moves."""


@dataclass(frozen=True)
class Row:
    """One comparison. `aim` bounds the ratio to `reference`, or, without one, the seconds; None: shown, not judged.

    `ours` and `reference` do the same work unless `what` says otherwise; `beside` names the reference.
    """

    benchmark: str
    what: str
    ours: Measured
    beside: str = ""
    reference: Measured | None = None
    aim: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.ours.seconds / self.reference.seconds

    @property
    def cpu_ratio(self) -> float | None:
        return None if self.reference is None or not self.reference.cpu else self.ours.cpu / self.reference.cpu

    @property
    def verdict(self) -> str:
        """Whether both aims, of time and of memory, are met."""
        figure = self.ours.seconds if self.ratio is None else self.ratio
        missed = [*(["time"] if self.aim is not None and figure > self.aim else [])]
        missed += ["memory"] if self.ours.peak > PEAK_AIM else []
        if missed:
            return f"{' and '.join(missed)} above aim"
        return "within aim" if self.aim is not None else "memory within aim"


def table(rows: list[Row], scale: str) -> Table:
    """The rows as one table for the terminal."""
    shown = Table(title=f"Benchmarks, scale {scale}: medians of runs in turns", title_justify="left")
    shown.add_column("what")
    shown.add_column("ours \\[s]", justify="right")
    shown.add_column("CPU \\[s]", justify="right")
    shown.add_column("beside")
    for name in ("reference \\[s]", "CPU \\[s]", "ratio", "CPU ratio", "aim"):
        shown.add_column(name, justify="right")
    shown.add_column("peak \\[MiB]", justify="right")
    shown.add_column("verdict")
    benchmark = ""
    for row in rows:
        if benchmark and row.benchmark != benchmark:
            shown.add_section()
        benchmark = row.benchmark
        shown.add_row(
            row.what,
            _number(row.ours.seconds),
            _number(row.ours.cpu or None),
            row.beside,
            _number(row.reference.seconds if row.reference else None),
            _number(row.reference.cpu if row.reference else None),
            _number(row.ratio),
            _number(row.cpu_ratio),
            _aim(row),
            f"{row.ours.peak:,.0f}",
            Text(row.verdict, style="red" if "above" in row.verdict else "green"),
        )
    return shown


def as_json(rows: list[Row], scale: str) -> dict[str, Any]:
    """All figures, for a file that later runs can be compared with."""
    return {
        "scale": scale,
        "rows": [
            {**asdict(row), "ratio": row.ratio, "cpu_ratio": row.cpu_ratio, "verdict": row.verdict} for row in rows
        ],
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _aim(row: Row) -> str:
    if row.aim is None:
        return ""
    return f"≤ {row.aim:g} s" if row.reference is None else f"≤ {row.aim:g}"
