"""How tests declare a page: its blocks as YAML, in a file of a folder of their own."""

from pathlib import Path
from textwrap import dedent, indent

from data_platform.dashboards.pages import Page, Query, read_page


def write_page(folder: Path, *blocks: str, title: str = "Sales", name: str = "sales") -> Path:
    """The file of a page with these blocks."""
    file = folder / f"{name}.yaml"
    items = [f"- {indent(dedent(block).strip(), '  ').strip()}" for block in blocks]
    file.write_text("\n".join([f"title: {title!r}", "blocks:", *items]) + "\n")
    return file


def page_of(folder: Path, *blocks: str, title: str = "Sales", name: str = "sales") -> Page:
    """A page with these blocks."""
    return read_page(write_page(folder, *blocks, title=title, name=name))


def query_of(folder: Path, sql: str) -> Query:
    """The query of a table's block, which begins in line 6 of its file."""
    body = indent(sql, "    ")
    (query,) = page_of(folder, f"type: table\ntitle: Orders\nsql: |\n{body}").queries
    return query


def chart(kind: str, sql: str, **more: str) -> str:
    """The block of a chart."""
    lines = [f"{key}: {value}" for key, value in more.items()]
    return "\n".join(["type: chart", "title: Chart", f"chart: {kind}", f"sql: {sql}", "alt: What it shows.", *lines])
