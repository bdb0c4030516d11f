"""Charts as SVG: a specification of Vega-Lite made of a chart's few words and its rows, drawn by vl-convert within this
process, without a network. Colours are variables of the page's style (`style.css`), which has them for light and dark.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any
from xml.etree import ElementTree

from data_platform.dashboards.options import ChartBlock, ColumnOptions
from data_platform.dashboards.pages import Query
from data_platform.dashboards.queries import Rows
from data_platform.dashboards.values import (
    WHOLE,
    category,
    decimals,
    heading_of,
    is_monthly,
    is_number,
    is_time,
    label_of,
    shown,
)
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

SVG = "http://www.w3.org/2000/svg"

UNUSED = ("role", "class", "pointer-events", "version", "clip-path")
"""Attributes of a drawing that say nothing here. Nothing needs to be clipped: scales hold all that is drawn; and the
ids of clippings are not unique in a page."""

INHERITED = ("fill", "stroke", "stroke-width", "font-size", "text-anchor")
"""Attributes that are said once for a group, if all in it have the same."""

DEEP = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")

Spec = dict[str, Any]


@dataclass(frozen=True)
class _Axis:
    """A column of a chart's rows: its values as the specification has them, `t` for times, `q` for numbers, `o` for
    categories, in whose order they come."""

    kind: str
    values: list[Any]
    title: str
    unit: str | None
    categories: list[str]
    monthly: bool = False


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
        svg = vl_convert.vegalite_to_svg(specification(query, block, found, width), vl_version=VEGA_LITE)
        drawn.append(_tidied(str(svg), f"{name}-{kind}", block, f"chart {kind}"))
    return "".join(drawn)


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
            },
            "legend": {
                "labelColor": "var(--ink)",
                "titleColor": "var(--quiet)",
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": "normal",
                "orient": "top",
            },
        },
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


def _axis(block: ChartBlock, found: Rows, column: str, *, as_category: bool = False) -> _Axis:
    kind, values = found.columns[column], found.values(column)
    options = block.columns.get(column, ColumnOptions())
    title, unit = heading_of(column, options), options.unit
    monthly = is_monthly(values)
    if is_number(kind) and not as_category:
        return _Axis("q", [_number(value) for value in values], title, unit, [])
    if is_time(kind) and not as_category:
        return _Axis("t", [_milliseconds(value) for value in values], title, unit, [], monthly)
    names = [category(value, unit, monthly=monthly) for value in values]
    return _Axis("o", names, title, unit, list(dict.fromkeys(names)), monthly)


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


def _milliseconds(value: Any) -> float | None:
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _require_number(query: Query, block: ChartBlock, found: Rows, column: str, what: str) -> None:
    if not is_number(found.columns[column]):
        numbers = [name for name, kind in found.columns.items() if is_number(kind)]
        raise PlatformError(
            f"{query.at()}: `{what}` of the {block.chart} {block.title!r} needs a number, and {column} is "
            f"{found.columns[column]}. Its numbers: {', '.join(numbers) or 'none'}."
        )


def _rows(**columns: Sequence[Any]) -> dict[str, Any]:
    names = list(columns)
    return {"values": [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _format(axis: _Axis) -> str:
    """How numbers stand at an axis, in the notation of d3."""
    if axis.unit in ("%", "bytes"):
        return ".0%" if axis.unit == "%" else "~s"
    there = [value for value in axis.values if value is not None]
    spread = max(there, default=0.0) - min(there, default=0.0)
    return ",.0f" if spread >= 5 else ",.2~f" if spread >= 0.05 else ",.2~g"


def _number_axis(axis: _Axis, *, grid: bool = True, ticks: int = 5) -> Spec:
    title = f"{axis.title} (s)" if axis.unit == "s" else axis.title
    return {"title": title, "format": _format(axis), "grid": grid, "tickCount": ticks, "domain": False}


def _category_axis(axis: _Axis, *, title: bool = True, upright: bool = False) -> Spec:
    angle = {"labelAngle": 0, "labelOverlap": True} if upright else {}
    return {
        "title": axis.title if title else None,
        "grid": False,
        "ticks": False,
        "domain": False,
        "labelPadding": 6,
        **angle,
    }


def _colour(query: Query, block: ChartBlock, found: Rows) -> tuple[list[str], Spec | None]:
    """The series of each row, and how series are coloured; empty names where a chart has none."""
    if block.color is None:
        return [""] * len(found.rows), None
    axis = _axis(block, found, block.color, as_category=True)
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
        "scale": {"domain": axis.categories, "range": shades},
        "legend": {"title": None},
    }


def _line(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    _require_number(query, block, found, block.y, "y")
    x, y = _axis(block, found, block.x), _axis(block, found, block.y)
    series, colour = _colour(query, block, found)
    points = len(set(x.values)) <= (31 if width > NARROW else 16)
    along = _along(x, width)
    dashes: Spec = {}
    if colour is not None:
        # Not by colour alone.
        legend = {"title": None, "symbolType": "stroke", "symbolStrokeWidth": 2, "symbolSize": 300}
        colour = colour | {"legend": legend}
        dashes = {"strokeDash": colour | {"scale": colour["scale"] | DASHES}}
    return {
        "data": _rows(x=x.values, y=y.values, c=series),
        "height": 220,
        "mark": {
            "type": "line",
            "strokeWidth": 2,
            "color": "var(--c1)",
            **({"point": {"size": 36, **({} if colour else {"color": "var(--c1)"})}} if points else {}),
        },
        "encoding": {
            "x": along,
            "y": {"field": "y", "type": "quantitative", "scale": {"zero": False}, "axis": _number_axis(y)},
            **({"color": colour, **dashes} if colour else {}),
        },
    }


DASHES = {"range": [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [10, 4], [4, 4], [1, 3], [12, 3, 3, 3]]}
"""How the lines of a chart differ besides by colour."""


def _along(x: _Axis, width: int) -> Spec:
    """The horizontal axis of lines."""
    if x.kind == "o":
        return {
            "field": "x",
            "type": "ordinal",
            "scale": {"domain": x.categories},
            "axis": _category_axis(x, upright=True),
        }
    ticks = 4 if width == NARROW else 7 if width <= WIDE["half"] else 12
    if x.kind == "q":
        numbers = {**_number_axis(x, grid=False, ticks=ticks), "domain": True}
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
    measure, names = _axis(block, found, number), _axis(block, found, name, as_category=True)
    series, colour = _colour(query, block, found)
    labelled = lies and colour is None and len(names.categories) <= LABELLED_BARS
    there = [value for value in measure.values if value is not None]
    least, greatest = min([0, *there]), max([0, *there])
    options = block.columns.get(number, ColumnOptions())
    beside = f" {options.unit}" if options.unit and options.unit not in WHOLE else ""
    digits = decimals(found.values(number), options.unit)
    labels = [shown(value, options.unit, digits) + beside for value in found.values(number)]
    along, across = ("x", "y") if lies else ("y", "x")
    # Room for the labels: as many pixels as the longest needs, of those that the names of the bars leave.
    needed = 10 + LETTER * max(map(len, labels), default=0)
    left = width - 24 - min(_limit(width), LETTER * max(map(len, names.categories), default=0))
    room = (greatest - least or 1) * needed / max(left - needed, needed)
    scale = {"domainMin": least, "domainMax": greatest + room} if labelled else {}
    axis = None if labelled else _number_axis(measure, ticks=4 if lies and width == NARROW else 5)
    encoding: Spec = {
        along: {"field": "v", "type": "quantitative", "axis": axis, "scale": scale},
        across: {
            "field": "n",
            "type": "ordinal",
            "scale": {"domain": names.categories, "paddingInner": 0.3},
            "axis": _category_axis(names, title=not lies, upright=not lies),
        },
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "color": "var(--c1)", "cornerRadiusEnd": 2},
            "encoding": {"color": colour} if colour else {},
        }
    ]
    if labelled:
        mark = {"type": "text", "align": "left", "dx": 5, "fontSize": 12, "color": "var(--ink)"}
        layers.append({"mark": mark, "encoding": {"text": {"field": "l"}}})
    return {
        "data": _rows(n=names.values, v=measure.values, c=series, l=labels),
        "height": {"step": 24} if lies else 220,
        "encoding": encoding,
        "layer": layers,
    }


def _heatmap(query: Query, block: ChartBlock, found: Rows, width: int) -> Spec:
    if block.color is None:
        raise PlatformError(f"{query.at()}: the heatmap {block.title!r} needs `color`: the column of its numbers.")
    _require_number(query, block, found, block.color, "color")
    x = _axis(block, found, block.x, as_category=True)
    y = _axis(block, found, block.y, as_category=True)
    measure = _axis(block, found, block.color)
    options = block.columns.get(block.color, ColumnOptions())
    least = 0 if options.unit == "%" or _greatest(measure) >= 10 else None
    labels = [shown(value, options.unit, least).replace(" %", "%") for value in measure.values]
    kept = [place for place, value in enumerate(measure.values) if value is not None]

    def shades(name: str, legend: Spec | None) -> Spec:
        scale = {"type": "quantize", "range": [f"var(--{name}{number + 1})" for number in range(SHADES)]}
        return {"field": "v", "type": "quantitative", "scale": scale, "legend": legend}

    shown_as = {"title": label_of(block.color, options) + (f" ({options.unit})" if _beside(options) else "")}
    legend = {**shown_as, "format": _format(measure), "gradientLength": 180, "gradientThickness": 10}
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
                "scale": {"domain": x.categories, "paddingInner": 0.04},
                "axis": _category_axis(x, upright=True),
            },
            "y": {
                "field": "y",
                "type": "ordinal",
                "scale": {"domain": y.categories, "paddingInner": 0.04},
                "axis": _category_axis(y, title=False),
            },
        },
        "layer": layers,
        "resolve": {"scale": {"color": "independent"}},
    }


def _beside(options: ColumnOptions) -> bool:
    return bool(options.unit) and options.unit != "%"


def _greatest(axis: _Axis) -> float:
    return max((abs(value) for value in axis.values if value is not None), default=0.0)


def _tidied(svg: str, name: str, block: ChartBlock, classes: str) -> str:
    """The drawing as an image that has a name and a description, without what is not seen, and needless digits."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)  # noqa: S314 - it was just drawn here
    for parent in root.iter():
        for child in list(parent):
            unseen = child.get("class") in ("background", "foreground") and "fill" not in child.attrib
            if unseen or child.tag == f"{{{SVG}}}defs":
                parent.remove(child)
    for one in root.iter():
        for attribute in list(one.attrib):
            if attribute in UNUSED or attribute.startswith("aria-"):
                del one.attrib[attribute]
            elif attribute == "font-family":
                del one.attrib[attribute]  # the page's own
            elif attribute in ("d", "transform", "viewBox", "width", "height", "x2", "y2"):
                one.set(attribute, DEEP.sub(lambda found: f"{float(found.group()):.2f}", one.attrib[attribute]))
    for one in root.iter(f"{{{SVG}}}g"):
        for attribute in INHERITED:
            values = {child.get(attribute) for child in one}
            if len(one) > 1 and len(values) == 1 and (value := values.pop()) is not None:
                one.set(attribute, value)
                for child in one:
                    del child.attrib[attribute]
    root.attrib |= {"class": classes, "role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for place, (tag, text) in enumerate((("title", block.title), ("desc", block.alt))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = " ".join(text.split())
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")
