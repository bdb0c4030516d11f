"""Plots of a model as small SVG images within Markdown, which the UI shows: no library, no file, no script. What is
drawn is computed in `ml.training`.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

SIDE, MARGIN = 240, 34
"""Width and height of the area of a curve, and what is around it, in pixels."""

BARS = 12
"""The features that are shown at most, the most important ones."""

BAR_HEIGHT, LABEL_WIDTH, BAR_WIDTH = 18, 150, 180

INK, GREY = "#1f5fbf", "#999999"

Point = tuple[float, float]


def roc_plot(points: Sequence[Point], auc: float | None) -> str:
    """The ROC curve, beside what a guess would give."""
    title = "ROC" if auc is None else f"ROC, area {auc:.4f}"
    return _image(title, _curve(title, points, "share of the others above", "share of the true ones above"))


def calibration_plot(groups: Sequence[tuple[float, float, int]]) -> str:
    """What was said and what was so, by groups of equal size, beside the line on which they would be equal."""
    title = "calibration"
    points = [(said, was) for said, was, _ in groups]
    return _image(title, _curve(title, points, "mean prediction", "share that was so", dots=True))


def importance_plot(shares: Mapping[str, float]) -> str:
    """The shares of the features in what the model learned, as bars."""
    shown = list(shares.items())[:BARS]
    most = max((share for _, share in shown), default=0.0) or 1.0
    lines = []
    for place, (name, share) in enumerate(shown):
        top = 24 + place * BAR_HEIGHT
        lines.append(
            f'<text x="{LABEL_WIDTH}" y="{top + 12}" text-anchor="end">{escape(name[:24])}</text>'
            f'<rect x="{LABEL_WIDTH + 6}" y="{top + 2}" width="{max(1.0, BAR_WIDTH * share / most):.1f}" '
            f'height="{BAR_HEIGHT - 5}" fill="{INK}"/>'
            f'<text x="{LABEL_WIDTH + 12 + BAR_WIDTH * share / most:.1f}" y="{top + 12}">{share:.1%}</text>'
        )
    left_out = len(shares) - len(shown)
    title = "importance" + (f", without the {left_out} least" if left_out else "")
    width, height = LABEL_WIDTH + BAR_WIDTH + 60, 30 + len(shown) * BAR_HEIGHT
    return _image(title, _svg(width, height, f'<text x="6" y="14" font-weight="bold">{title}</text>', *lines))


def _curve(title: str, points: Sequence[Point], across: str, up: str, *, dots: bool = False) -> str:
    """A line from 0 to 1 in both directions, beside the diagonal."""
    places = [(MARGIN + x * SIDE, MARGIN + (1 - y) * SIDE) for x, y in _thinned(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    end = MARGIN + SIDE
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{INK}"/>' for x, y in places] if dots else []
    return _svg(
        SIDE + 2 * MARGIN,
        SIDE + 2 * MARGIN,
        f'<text x="{MARGIN}" y="16" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{GREY}"/>',
        f'<line x1="{MARGIN}" y1="{end}" x2="{end}" y2="{MARGIN}" stroke="{GREY}" stroke-dasharray="4"/>',
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="2"/>',
        *marks,
        f'<text x="{MARGIN + SIDE / 2}" y="{end + 24}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="14" y="{MARGIN + SIDE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {MARGIN + SIDE / 2})">{escape(up)}</text>',
        *(f'<text x="{MARGIN + one * SIDE:.0f}" y="{end + 12}" text-anchor="middle">{one}</text>' for one in (0, 1)),
    )


def _thinned(points: Sequence[Point], most: int = 200) -> list[Point]:
    """So many points of a curve at most, its ends among them: more are not seen."""
    step = max(1, -(-len(points) // most))
    return [*points[:-1:step], *points[-1:]]


def _svg(width: int, height: int, *parts: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def _image(title: str, svg: str) -> str:
    return f"![{title}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"
