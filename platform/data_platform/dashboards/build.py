"""Building a page: all of its queries in one transaction, so that all figures are of one snapshot, and the file, which
takes the place of the one before only when it is whole. When a page is built is decided in `components.dashboards`.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from data_platform.dashboards.markup import Made, page_html
from data_platform.dashboards.pages import Page
from data_platform.dashboards.queries import Rows, require_columns, require_shown, rows_of, tables_there
from data_platform.exports.folders.local import LocalPlace
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.state import make_folder
from data_platform.lakehouse.tables import Table

FOLDER = "dashboards"
"""The folder of the home in which all pages lie."""


@dataclass(frozen=True)
class Built:
    """A page that was built: its file, the snapshot of all its figures, how many rows it shows, and of what size and in
    how many seconds it was made. `empty` are the titles of blocks without rows."""

    file: Path
    snapshot: int
    rows: int
    bytes: int
    seconds: float
    empty: tuple[str, ...]


def file_of(settings: Settings, page: str) -> Path:
    """Where a page lies, be it that it was not built yet."""
    return settings.home / FOLDER / f"{page}.html"


def build_page(
    lake: Lakehouse,
    page: Page,
    pages: Sequence[Page],
    asset: str,
    ui: str,
    private: Mapping[Table, Collection[str]] = MappingProxyType({}),
) -> Built:
    """Build a page from the lakehouse as it is now. `pages` are those that it links to, itself among them, `asset` is
    the path of its asset, `ui` the address of the UI, and `private` are columns that must not be shown.

    Raises PlatformError, with file and line, for a query that DuckDB refuses or that its block cannot show; the page
    that was there before stays.
    """
    began = time.monotonic()
    make_folder(lake.settings.home / FOLDER, lake.settings)
    # Locked before anything is read: of two that build at once the later one shows the later snapshot.
    with LocalPlace(lake.settings.home).folder(FOLDER) as folder:
        made, found = _found(lake, page, private)
        data = page_html(page, pages, found, made, asset, ui).encode()
        folder.replace(f"{page.name}.html", data, None)
    return Built(
        file_of(lake.settings, page.name),
        made.snapshot,
        sum(len(rows.rows) for rows in found if rows is not None),
        len(data),
        time.monotonic() - began,
        tuple(str(block.title) for (block, _), rows in zip(page.blocks, found, strict=True) if rows and not rows.rows),
    )


def require_drawable(lake: Lakehouse, page: Page, private: Mapping[Table, Collection[str]]) -> None:
    """Raise PlatformError, with file and line, for a page that could not be built from the lakehouse as it is now.
    Nothing is written."""
    made, found = _found(lake, page, private)
    page_html(page, [page], found, made, page.name, "")


def _found(lake: Lakehouse, page: Page, private: Mapping[Table, Collection[str]]) -> tuple[Made, list[Rows | None]]:
    """The rows of all blocks, None for those without a query, and the snapshot that they are of."""
    lake.connection.execute(f"USE {quote(CATALOG)}")
    with lake.reading():
        snapshot = current_snapshot(lake.connection)
        committed_at = lake.connection.execute(
            f"SELECT snapshot_time FROM ducklake_snapshots({literal(CATALOG)}) WHERE snapshot_id = ?", [snapshot]
        ).fetchone()
        there = tables_there(lake)
        found = [rows_of(lake, query, there) if query is not None else None for _, query in page.blocks]
    for (_, query), rows in zip(page.blocks, found, strict=True):
        if query is not None and rows is not None and not rows.missing:
            require_columns(query, rows)
            require_shown(query, rows, private)
    now = datetime.now(UTC)
    return Made(snapshot, committed_at[0].astimezone(UTC) if committed_at else now, now), found
