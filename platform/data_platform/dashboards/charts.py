"""Charts as SVG: a specification of Vega-Lite made of a chart's few words and its rows, drawn by vl-convert within this
process, without a network. Colours are variables of the page's style (`style.css`), which has them for light and dark.
"""

from collections.abc import Sequence
from typing import Any

from data_platform.dashboards.axes import (
    Axis,
    Spec,
    alone,
    axis_of,
    category_axis,
    in_order,
    number_axis,
    number_format,
)
from data_platform.dashboards.options import ChartBlock, ColumnOptions
from data_platform.dashboards.pages import Query
from data_platform.dashboards.queries import Rows
from data_platform.dashboards.svg import tidied
from data_platform.dashboards.values import WHOLE, digits_of, is_number, is_time, label_of, printable, shown
from data_platform.errors import PlatformError

VEGA_LITE = "6.1"
"""The version of Vega-Lite that specifications are written for; vl-convert has several."""

SERIES = 8
"""Colours that can be told apart, on white and on black."""

SHADES = 6
"""Steps of colour of a heatmap."""

NARROW = 320
"""The width [px] of a chart on a telephone: drawn anew, for one that is only made smaller cannot be read."""

WIDE = {"half": 504, "full": 1056}
"""Widths [px] on a wide screen."""

LABELLED_BARS, LABELLED_CELLS = 30, 14
"""Up to so many bars, and columns of a heatmap, have their values written beside or in them."""

LETTER = 7.5
"""The width [px] of a letter of 12 px, in fonts that run wide."""


def draw(query: Query, found: Rows, name: str) -> str:
    """The chart of a query's rows as SVG, once for wide screens and once for narrow ones, `name` beginning its ids.
    Raises PlatformError, with file and line, for columns of which no such chart can be made, or if what draws it is not
    installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise PlatformError(
            f"Drawing charts needs the package vl-convert-python, which cannot be imported ({error}). Install it where "
            "Dagster runs: pip install 'data-platform[dashboards]'."
        ) from None
    block = query.block
    assert isinstance(block, ChartBlock)  # noqa: S101 - the caller has seen to it
    drawn = []
    for kind, width in (("wide", WIDE[block.width]), ("narrow", NARROW)):
        svg = vl_convert.vegalite_to_svg(_printable(specification(query, block, found, width)), vl_version=VEGA_LITE)
        drawn.append(tidied(str(svg), f"{name}-{kind}", block, f"chart {kind}"))
    return "".join(drawn)


def has_values(block: ChartBlock, found: Rows) -> bool:
    """Whether there is anything to be drawn: a number that is one."""
    lies = is_number(found.columns[block.x]) and not is_number(found.columns[block.y])
    column = block.color if block.chart == "heatmap" else block.x if block.chart == "bar" and lies else block.y
    if column is None or not is_number(found.columns[column]):
        return True  # refused when it is drawn
    return any(value is not None for value in axis_of(block, found, column).values)


def _printable(spec: Any) -> Any:
    """A specification without what cannot stand in SVG: vl-convert ends the process where it meets that."""
    if isinstance(spec, dict):
        return {_printable(key): _printable(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_printable(value) for value in spec]
    return printable(spec) if isinstance(spec, str) else spec


def specification(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    """The specification of a chart in Vega-Lite, `width` pixels wide. Raises PlatformError, with file and line."""
    made = {"line": _line, "bar": _bar, "heatmap": _heatmap}[block.chart](query, block, found, width)
    return {
        **made,
        "width": width,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": None,
        "padding": {"left": 2 + _slack(block, found, width), "right": 8, "top": 2, "bottom": 2},
        "config": {
            "aria": False,
            "view": {"stroke": None},
            "axis": {
                **{f"{part}Color": "var(--quiet)" for part in ("label", "title")},
                **{f"{part}Color": "var(--line)" for part in ("grid", "tick", "domain")},
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "labelLimit": _limit(width),
                "titlePadding": 10,
            },
            "legend": {
                "labelColor": "var(--ink)",
                "titleColor": "var(--quiet)",
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "orient": "top",
                **_legend(block, found, width),
            },
        },
    }


def _legend(block: ChartBlock, found: Rows, width: int) -> Spec:
    """How many names of series stand beside each other, and how much of each is shown, so that none is cut off by the
    chart's edge or written over the next: the browser's font may be wider than the one that measures them."""
    if block.color is None or block.chart == "heatmap":
        return {}
    names = set(axis_of(block, found, block.color, as_category=True).categories)
    longest = LETTER * max(map(len, names), default=0)
    return {
        "columns": max(1, min(len(names), int((width - 30) // (longest + 40)))),
        "labelLimit": width - 70,
        "columnPadding": 16,
    }


def _limit(width: int) -> int:
    """The most pixels that a name at an axis takes; longer ones end in three points."""
    return 110 if width == NARROW else 210


def _slack(block: ChartBlock, found: Rows, width: int) -> int:
    """Room [px] to the left of names of categories: the browser's font may be wider than the one that measures them."""
    if is_number(found.columns[block.y]) or is_time(found.columns[block.y]):
        return 8
    longest = max((len(str(value)) for value in found.values(block.y)), default=0)
    return min(round(longest * 1.2), 14 if width == NARROW else 30)


def _require_number(query: Query, block: ChartBlock, found: Rows, column: str, what: str) -> None:
    if not is_number(found.columns[column]):
        numbers = [name for name, kind in found.columns.items() if is_number(kind)]
        raise PlatformError(
            f"{query.at()}: `{what}` of the {block.chart} {block.title!r} needs a number, and {column} is "
            f"{found.columns[column]}. Its numbers: {', '.join(numbers) or 'none'}."
        )


def _require_distinct(query: Query, block: ChartBlock, rows: Sequence[tuple[str, str]], what: str) -> None:
    """Raise PlatformError for rows that would be drawn on each other."""
    more = len(rows) - len(set(rows))
    if more:
        raise PlatformError(
            f"{query.at()}: the {block.chart} {block.title!r} has one {what}, and the query gives {more:,} "
            f"row{'s' * (more > 1)} more than that: they would be drawn on each other. Group them."
        )


def _rows(**columns: Sequence[Any]) -> dict[str, Any]:
    names = list(columns)
    return {"values": [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _colour(query: Query, block: ChartBlock, found: Rows, along: Axis) -> tuple[list[str], Spec | None]:
    """The series of each row, and how series are coloured; empty names where a chart has none."""
    if block.color is None:
        return [""] * len(found.rows), None
    axis = axis_of(block, found, block.color, as_category=True)
    if len(axis.categories) > SERIES:
        raise PlatformError(
            f"{query.at()}: `color` of the {block.chart} {block.title!r} is {block.color}, which has "
            f"{len(axis.categories)} values, and {SERIES} colours can be told apart. Leave some out, or put the rest "
            "together."
        )
    shades = [f"var(--c{number + 1})" for number in range(len(axis.categories))]
    return axis.values, {
        "field": "c",
        "type": "nominal",
        "scale": {"domain": in_order(axis.values, [str(value) for value in along.values]), "range": shades},
        "legend": {"title": None},
    }


def _line(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    _require_number(query, block, found, block.y, "y")
    if block.reference == "diagonal":
        _require_number(query, block, found, block.x, "x")
    x, y = axis_of(block, found, block.x), axis_of(block, found, block.y)
    series, colour = _colour(query, block, found, x)
    points = len(set(x.values)) <= (31 if width > NARROW else 16)
    along = _along(x, series, width)
    dashes: Spec = {}
    if colour is not None:
        # Not by colour alone.
        legend = {"title": None, "symbolType": "stroke", "symbolStrokeWidth": 2, "symbolSize": 300}
        colour = colour | {"legend": legend}
        dashes = {"strokeDash": colour | {"scale": colour["scale"] | DASHES}}
    mark = {
        "type": "line",
        "strokeWidth": 2,
        "color": "var(--c1)",
        **({"point": {"size": 36, **({} if colour else {"color": "var(--c1)"})}} if points else {}),
    }
    up = {"field": "y", "type": "quantitative", "scale": {"zero": False}, "axis": number_axis(y)}
    encoding = {"x": along, "y": up, **({"color": colour, **dashes} if colour else {})}
    columns = {"x": x.values, "y": y.values, "c": series}
    lines: Spec = {"data": _rows(**columns), "mark": mark, "encoding": encoding}
    # A point between two gaps is no line, and would not be seen.
    lonely = [] if points else alone(x, y, series)
    dots: list[Spec] = [
        {
            "data": _rows(**{name: [those[row] for row in lonely] for name, those in columns.items()}),
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 36, "color": "var(--c1)"},
            "encoding": {name: one for name, one in encoding.items() if name != "strokeDash"},
        }
    ]
    references = [*_diagonal(block, x, y, {"x": along, "y": up}), *_limit_at(block, "y")]
    return {"height": 220, "layer": [*references, lines, *(dots if lonely else [])]}


REFERENCE = {"color": "var(--ink)", "strokeDash": [5, 4], "strokeWidth": 1.5}
"""How the line looks that others are compared with."""


def _limit_at(block: ChartBlock, channel: str) -> list[Spec]:
    """The line at a number of an axis, if there is to be one."""
    if not isinstance(block.reference, float):
        return []
    at: Spec = {channel: {"datum": block.reference, "type": "quantitative", "title": None}}
    return [{"data": {"values": [{}]}, "mark": {"type": "rule", **REFERENCE}, "encoding": at}]


def _diagonal(block: ChartBlock, x: Axis, y: Axis, encoding: Spec) -> list[Spec]:
    """The line on which `y` is equal to `x`, over all that either of them reaches, if there is to be one."""
    there = [value for value in (*x.values, *y.values) if value is not None]
    if block.reference != "diagonal" or not there:
        return []
    ends = [min(there), max(there)]
    return [{"data": _rows(x=ends, y=ends), "mark": {"type": "line", **REFERENCE}, "encoding": encoding}]


DASHES = {"range": [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [10, 4], [4, 4], [1, 3], [12, 3, 3, 3]]}
"""How the lines of a chart differ besides by colour."""


def _along(x: Axis, series: Sequence[str], width: int) -> Spec:
    """The horizontal axis of lines."""
    if x.kind == "o":
        return {
            "field": "x",
            "type": "ordinal",
            "scale": {"domain": in_order(x.values, series)},
            "axis": category_axis(x, width=width),
        }
    ticks = 4 if width == NARROW else 7 if width <= WIDE["half"] else 12
    if x.kind == "q":
        numbers = {**number_axis(x, grid=False, ticks=ticks), "domain": True}
        return {"field": "x", "type": "quantitative", "scale": {"zero": False}, "axis": numbers}
    there = sorted({value for value in x.values if value is not None})
    days = (there[-1] - there[0]) / 86_400_000 if there else 0
    whole_days = all(value % 86_400_000 == 0 for value in there)
    form = "%b %Y" if x.monthly or days > 300 else "%-d %b" if whole_days or days >= 3 else "%-d %b %H:%M"
    axis: Spec = {"title": x.title, "format": form, "grid": False, "labelOverlap": True, "labelFlush": False}
    # Where all of them have room, just those that there are: else a day would be written twice.
    axis["values" if len(there) <= ticks else "tickCount"] = there if len(there) <= ticks else ticks
    return {"field": "x", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}


def _bar(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    lies = is_number(found.columns[block.x]) and not is_number(found.columns[block.y])
    number, name = (block.x, block.y) if lies else (block.y, block.x)
    _require_number(query, block, found, number, "x" if lies else "y")
    measure, names = axis_of(block, found, number), axis_of(block, found, name, as_category=True)
    series, colour = _colour(query, block, found, names)
    _require_distinct(
        query,
        block,
        list(zip(names.values, series, strict=True)),
        f"bar for each {name}" + (f" and {block.color}" if block.color else ""),
    )
    labelled = lies and colour is None and len(names.categories) <= LABELLED_BARS
    there = [value for value in measure.values if value is not None]
    there += [block.reference] if isinstance(block.reference, float) else []
    least, greatest = min([0, *there]), max([0, *there])
    options = block.columns.get(number, ColumnOptions())
    beside = f" {options.unit}" if options.unit and options.unit not in WHOLE else ""
    digits = digits_of(found.values(number), options)
    labels = [shown(value, options.unit, digits) + beside for value in found.values(number)]
    along, across = ("x", "y") if lies else ("y", "x")
    # Room for the labels: as many pixels as the longest needs, of those that the names of the bars leave.
    needed = 10 + LETTER * max(map(len, labels), default=0)
    left = width - 24 - min(_limit(width), LETTER * max(map(len, names.categories), default=0))
    room = (greatest - least or 1) * needed / max(left - needed, needed)
    # Labels of negative bars stand to the left of them.
    scale = {"domainMin": least - room * (least < 0), "domainMax": greatest + room} if labelled else {}
    axis = None if labelled else number_axis(measure, ticks=4 if lies and width == NARROW else 5)
    encoding: Spec = {
        along: {"field": "v", "type": "quantitative", "axis": axis, "scale": scale},
        across: {
            "field": "n",
            "type": "ordinal",
            "scale": {"domain": in_order(names.values, series), "paddingInner": 0.3},
            "axis": category_axis(names, title=not lies, width=None if lies else width),
        },
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "color": "var(--c1)", "cornerRadiusEnd": 2},
            "encoding": {"color": colour} if colour else {},
        }
    ]
    if labelled:
        beyond = {"align": {"expr": "datum.v < 0 ? 'right' : 'left'"}, "dx": {"expr": "datum.v < 0 ? -5 : 5"}}
        mark = {"type": "text", **beyond, "fontSize": 12, "color": "var(--ink)"}
        layers.append({"mark": mark, "encoding": {"text": {"field": "l"}}})
    bars: Spec = {
        "data": _rows(n=names.values, v=measure.values, c=series, l=labels),
        "encoding": encoding,
        "layer": layers,
    }
    return {"height": {"step": 24} if lies else 220, "layer": [bars, *_limit_at(block, along)]}


def _heatmap(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    if block.color is None:
        raise PlatformError(f"{query.at()}: the heatmap {block.title!r} needs `color`: the column of its numbers.")
    _require_number(query, block, found, block.color, "color")
    x = axis_of(block, found, block.x, as_category=True)
    y = axis_of(block, found, block.y, as_category=True)
    measure = axis_of(block, found, block.color)
    options = block.columns.get(block.color, ColumnOptions())
    least = 0 if options.unit == "%" or _greatest(measure) >= 10 else None
    digits = least if options.decimals is None else options.decimals
    labels = [shown(value, options.unit, digits).replace(" %", "%") for value in measure.values]
    kept = [place for place, value in enumerate(measure.values) if value is not None]
    _require_distinct(
        query, block, list(zip(x.values, y.values, strict=True)), f"cell for each {block.x} and {block.y}"
    )

    def shades(name: str, legend: Spec | None) -> Spec:
        scale = {"type": "quantize", "range": [f"var(--{name}{number + 1})" for number in range(SHADES)]}
        return {"field": "v", "type": "quantitative", "scale": scale, "legend": legend}

    shown_as = {"title": label_of(block.color, options) + (f" ({options.unit})" if _beside(options) else "")}
    legend = {**shown_as, "format": number_format(measure), "gradientLength": 180, "gradientThickness": 10}
    layers: list[Spec] = [{"mark": {"type": "rect"}, "encoding": {"color": shades("h", legend)}}]
    if len(x.categories) <= (LABELLED_CELLS if width == WIDE["half"] else 2 * LABELLED_CELLS if width > NARROW else 7):
        text = {"text": {"field": "l"}, "color": shades("t", None)}
        layers.append({"mark": {"type": "text", "fontSize": 11}, "encoding": text})
    return {
        "data": _rows(
            x=[x.values[place] for place in kept],
            y=[y.values[place] for place in kept],
            v=[measure.values[place] for place in kept],
            l=[labels[place] for place in kept],
        ),
        "height": {"step": 23},
        "encoding": {
            "x": {
                "field": "x",
                "type": "ordinal",
                "scale": {"domain": in_order(x.values, y.values), "paddingInner": 0.04},
                "axis": category_axis(x, width=width),
            },
            "y": {
                "field": "y",
                "type": "ordinal",
                "scale": {"domain": in_order(y.values, x.values), "paddingInner": 0.04},
                "axis": category_axis(y, title=False),
            },
        },
        "layer": layers,
        "resolve": {"scale": {"color": "independent"}},
    }


def _beside(options: ColumnOptions) -> bool:
    return bool(options.unit) and options.unit != "%"


def _greatest(axis: Axis) -> float:
    return max((abs(value) for value in axis.values if value is not None), default=0.0)
