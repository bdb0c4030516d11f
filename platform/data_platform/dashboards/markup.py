"""A page as HTML: one file with its style and a few lines of script inlined, which needs no network and works without
the script. Every value passes through `html.escape`. What is in a block's chart is in `charts`.
"""

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

from data_platform.dashboards.charts import draw, has_values
from data_platform.dashboards.options import Block, ChartBlock, ColumnOptions, FiguresBlock, QueryBlock, TextBlock
from data_platform.dashboards.pages import Page, Query
from data_platform.dashboards.queries import Rows, named
from data_platform.dashboards.values import WHOLE, digits_of, heading_of, is_number, is_time, label_of, shown
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED, Table

DATA_ROWS = 60
"""Up to so many rows the data of a chart stand below it as a table."""


@dataclass(frozen=True)
class Made:
    """What the foot of a page says: the snapshot that all its figures are of, and when the page was made."""

    snapshot: int
    committed_at: datetime
    at: datetime


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def page_html(page: Page, pages: Sequence[Page], found: Sequence[Rows | None], made: Made, asset: str, ui: str) -> str:
    """A page as HTML. `found` are the rows of each of its blocks, None for text; `pages` are those that it links to,
    itself among them, `asset` the path of its asset, and `ui` the address of the UI."""
    title, summary = escape(page.options.title), escape(page.options.summary)
    script = _file("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    blocks = "\n".join(
        _section(number, block, query, rows, ui)
        for number, ((block, query), rows) in enumerate(zip(page.blocks, found, strict=True), start=1)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{_file("style.css")}</style>
</head>
<body>
<header>
<nav aria-label="Pages"><ul>{"".join(_links(page, pages))}</ul></nav>
<h1>{title}</h1>
{f'<p class="quiet">{summary}</p>' if summary else ""}
</header>
<main>
{blocks}
</main>
<footer>
<p>All figures are of snapshot {made.snapshot} of the lakehouse, committed {_time(made.committed_at)}. The page was made
{_time(made.at)} as the asset {_asset_link(asset, asset, ui)}.</p>
</footer>
<script>{script}</script>
</body>
</html>
"""


def _time(at: datetime) -> str:
    return f'<time datetime="{at.isoformat(timespec="seconds")}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'


def _links(page: Page, pages: Sequence[Page]) -> Iterator[str]:
    for one in pages:
        current = ' aria-current="page"' if one.name == page.name else ""
        yield f'<li><a href="{quote(one.name)}.html"{current}>{escape(one.options.title)}</a></li>'


def _asset_link(asset: str, text: str, ui: str) -> str:
    return f'<a href="{escape(ui.rstrip("/"))}/assets/{quote(asset)}">{escape(text)}</a>'


def _section(number: int, block: Block, query: Query | None, rows: Rows | None, ui: str) -> str:
    name = f"b{number}"
    heading = f'<h2 id="{name}">{escape(block.title)}</h2>' if block.title else ""
    labelled = f' aria-labelledby="{name}"' if block.title else ""
    begin = f'<section class="{block.width}"{labelled}>{heading}'
    if isinstance(block, TextBlock):
        paragraphs = [" ".join(part.split()) for part in block.text.split("\n\n")]
        return begin + "".join(f"<p>{escape(part)}</p>" for part in paragraphs if part) + "</section>"
    assert query is not None  # noqa: S101 - every block but text has a query
    assert rows is not None  # noqa: S101
    note = f'<p class="note">{escape(block.note)}</p>' if block.note else ""
    return begin + note + _body(name, block, query, rows) + _origin(block, query, rows, ui) + "</section>"


def _body(name: str, block: QueryBlock, query: Query, rows: Rows) -> str:
    if not rows.rows:
        why = f": {', '.join(map(str, rows.missing))} has not been made" if rows.missing else ""
        return f'<p class="empty">No rows yet{escape(why)}.</p>'
    if isinstance(block, ChartBlock):
        if not has_values(block, rows):
            return '<p class="empty">No values yet.</p>'
        return f'<div class="body">{draw(query, rows, name)}</div>'
    if isinstance(block, FiguresBlock):
        return f'<dl class="figures">{"".join(_figures(block, rows))}</dl>'
    count = len(rows.rows)
    said = f"The first {count:,} rows of more" if rows.more else f"{count:,} row{'s' * (count != 1)}"
    return f'<div class="body">{_table(block, rows, said)}</div>'


def _figures(block: FiguresBlock, rows: Rows) -> Iterator[str]:
    for (name, kind), value in zip(rows.columns.items(), rows.rows[0], strict=True):
        options = block.columns.get(name, ColumnOptions())
        beside = options.unit if value is not None and options.unit not in (None, *WHOLE) else ""
        written = shown(value, options.unit, options.decimals)
        # A day is not broken at its hyphens.
        text = (
            " ".join(f"<span>{escape(part)}</span>" for part in written.split()) if is_time(kind) else escape(written)
        )
        unit = f" <small>{escape(beside)}</small>" if beside else ""
        yield (f"<div><dt>{escape(label_of(name, options))}</dt><dd{_classed(_class(kind))}>{text}{unit}</dd></div>")


def _table(block: QueryBlock, rows: Rows, said: str) -> str:
    options = [block.columns.get(name, ColumnOptions()) for name in rows.columns]
    classes = [_class(kind) for kind in rows.columns.values()]
    heads = "".join(
        f'<th scope="col"{_classed(kind)}>{escape(heading_of(name, one))}</th>'
        for name, one, kind in zip(rows.columns, options, classes, strict=True)
    )
    digits = [digits_of(rows.values(name), one) for name, one in zip(rows.columns, options, strict=True)]
    lines = []
    for row in rows.rows:
        cells = [
            _cell(place, value, one.unit, digit, kind)
            for place, (value, one, digit, kind) in enumerate(zip(row, options, digits, classes, strict=True))
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    caption = f'<caption><span class="unseen">{escape(block.title)}: </span>{said}</caption>'
    label = escape(f"{block.title}, as a table")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="sortable">{caption}'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class(kind: str) -> str:
    return "number" if is_number(kind) else "time" if is_time(kind) else ""


def _classed(name: str) -> str:
    return f' class="{name}"' if name else ""


def _cell(place: int, value: Any, unit: str | None, digits: int | None, kind: str) -> str:
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    by = ' data-v=""' if value is None else ""
    if kind == "number":  # what the column is sorted by
        by = f' data-v="{value if value is not None and math.isfinite(value) else ""}"'
    return f"<{tag}{scope}{_classed(kind)}{by}>{escape(shown(value, unit, digits))}</{tag}>"


def _origin(block: QueryBlock, query: Query, rows: Rows, ui: str) -> str:
    """Where the figures come from: the tables, the query, and for a chart the data themselves."""
    data = _table(block, rows, f"{len(rows.rows):,} rows") if _is_small(block, rows) else ""
    tables = ", ".join(_table_link(table, ui) for table in named(query).tables)
    head = "Data and query" if data else "Query"
    reads = f"<p>Reads {tables}.</p>" if tables else ""
    sql = f"<pre>{escape(block.sql.strip())}</pre>"
    return f"<details><summary>{head}</summary>{data}{reads}{sql}</details>"


def _is_small(block: QueryBlock, rows: Rows) -> bool:
    return isinstance(block, ChartBlock) and 0 < len(rows.rows) <= DATA_ROWS


def _table_link(table: Table, ui: str) -> str:
    if table.schema == MODELLED:
        return _asset_link(f"{MODELLED}/{table.name}", str(table), ui)
    if table.layer in (RAW, STAGED):
        return _asset_link(f"{table.layer}/{table.source}/{table.name}", str(table), ui)
    return escape(str(table))
