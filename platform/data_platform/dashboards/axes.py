"""The axes of charts: what of a column's values is drawn, in which order categories stand, and how numbers are written.
What is drawn between them is in `charts`.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from data_platform.dashboards.options import ChartBlock, ColumnOptions
from data_platform.dashboards.queries import Rows
from data_platform.dashboards.values import category, heading_of, is_monthly, is_number, is_time

Spec = dict[str, Any]

TICKS = 5

LARGE, TINY = 1e9, 1e-4
"""From here on, and below, numbers at an axis are written short: 2bn, 3e-7."""

LEAST_LABEL = 90
"""The fewest pixels of a name below an axis: of names that do not fit so, every second one is left out, or more."""


@dataclass(frozen=True)
class Axis:
    """A column of a chart's rows: its values as the specification has them, `t` for times, `q` for numbers, `o` for
    categories, in whose order they come."""

    kind: str
    values: list[Any]
    title: str
    unit: str | None
    categories: list[str]
    monthly: bool = False


def axis_of(block: ChartBlock, found: Rows, column: str, *, as_category: bool = False) -> Axis:
    """A column as an axis."""
    kind, values = found.columns[column], found.values(column)
    options = block.columns.get(column, ColumnOptions())
    title, unit = heading_of(column, options), options.unit
    monthly = is_monthly(values)
    if is_number(kind) and not as_category:
        return Axis("q", [_number(value) for value in values], title, unit, [])
    if is_time(kind) and not as_category:
        return Axis("t", [_milliseconds(value) for value in values], title, unit, [], monthly)
    names = [category(value, unit, monthly=monthly) for value in values]
    return Axis("o", names, title, unit, list(dict.fromkeys(names)), monthly)


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


def _milliseconds(value: Any) -> float | None:
    # Infinity, which DuckDB gives as the last day of the calendar, and which tables have for "until further notice".
    if value is None or (value.year, value.month, value.day) in ((1, 1, 1), (9999, 12, 31)):
        return None
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def number_format(axis: Axis) -> str:
    """How numbers stand at an axis, in the notation of d3: with as many decimals as tell one tick from the next."""
    if axis.unit == "bytes":
        return "~s"
    there = [value for value in axis.values if value is not None] or [0.0]
    percent = axis.unit == "%"
    spread, greatest = max(there) - min(there), max(map(abs, there))
    if 0 < greatest < TINY and not percent:
        return ".3~g"
    if spread >= greatest / TICKS / 1000 and greatest >= LARGE:
        return ".4~s"
    if not spread:
        return ",.4~%" if percent else ",.4~f"
    step = spread / TICKS * (100 if percent else 1)
    digits = max(0, -math.floor(math.log10(step)))
    return f",.{digits}~%" if percent else f",.{digits}~f"


def in_order(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The different names in the order of the rows: where a group's rows (a line of a heatmap, a series) lack some of
    them, as the other groups have them. Where groups contradict each other, as they come first."""
    first = {name: place for place, name in enumerate(dict.fromkeys(names))}
    after: dict[str, set[str]] = {name: set() for name in first}
    last: dict[str, str] = {}
    for name, group in zip(names, groups, strict=True):
        if (before := last.get(group, name)) != name:
            after[before].add(name)
        last[group] = name
    waiting = dict.fromkeys(first, 0)
    for those in after.values():
        for name in those:
            waiting[name] += 1
    free = [(place, name) for name, place in first.items() if not waiting[name]]
    heapq.heapify(free)
    found: list[str] = []
    while free:
        _, name = heapq.heappop(free)
        found.append(name)
        for follower in after[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(free, (first[follower], follower))
    return found if len(found) == len(first) else list(first)


def alone(x: Axis, y: Axis, series: Sequence[str]) -> list[int]:
    """The rows of which no line is seen: those of a series with nothing before and after them."""
    places = {name: place for place, name in enumerate(x.categories)}
    found: list[int] = []
    for one in dict.fromkeys(series):
        rows = [row for row, name in enumerate(series) if name == one and x.values[row] is not None]
        rows.sort(key=lambda row: places[x.values[row]] if places else x.values[row])
        there = [y.values[row] is not None for row in rows]
        found += [
            row
            for row, before, own, after in zip(rows, [False, *there], there, [*there[1:], False], strict=False)
            if own and not before and not after
        ]
    return found


def number_axis(axis: Axis, *, grid: bool = True, ticks: int = TICKS) -> Spec:
    """The axis of numbers."""
    title = f"{axis.title} (s)" if axis.unit == "s" else axis.title
    written = number_format(axis)
    # d3 has the prefixes of physics: a billion would be a G.
    words = f"replace(replace(format(datum.value, '{written}'), 'G', 'bn'), 'T', 'tn')"
    said = {"labelExpr": words} if written == ".4~s" else {"format": written}
    if axis.unit == "bytes":
        said = {"labelExpr": f"format(datum.value, '{written}') + 'B'"}
    return {"title": title, **said, "grid": grid, "tickCount": ticks, "domain": False}


def category_axis(axis: Axis, *, title: bool = True, width: int | None = None) -> Spec:
    """The axis of categories; `width` [px] is that of a chart along which they stand."""
    angle: Spec = {}
    if width is not None:
        angle = {
            "labelAngle": 0,
            "labelOverlap": True,
            "labelLimit": max(LEAST_LABEL, (width - 50) // max(len(axis.categories), 1)),
        }
    return {
        "title": axis.title if title else None,
        "grid": False,
        "ticks": False,
        "domain": False,
        "labelPadding": 6,
        **angle,
    }
