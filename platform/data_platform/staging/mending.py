"""Before a staged table is made again from raw: which files of it, and of what belongs to it, are lost. Raw has to be
whole; the rest is made again as far as raw has it. How files are examined and taken out is in `lakehouse.inspection`.
"""

import logging

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.inspection import Damage, damaged, stored_files, take_out
from data_platform.staging.choice import Input
from data_platform.staging.recipe import Recipe

logger = logging.getLogger(__name__)

SHOWN_FILES = 5


def require_raw(lake: Lakehouse, recipe: Recipe, chosen: Input) -> None:
    """Raise PlatformError if raw rows that are to be staged again lie in a file that is lost or unreadable."""
    found = [one for one in damaged(lake, {recipe.raw}) if _is_read(one, chosen)]
    if found:
        raise PlatformError(
            f"{recipe.source}/{recipe.table} cannot be staged again, as raw itself is damaged: {_shown(found)}. "
            "Nothing was changed. Restore the file from a backup, or see with `dp doctor --deep` what it held and what "
            "brings that back."
        )


def _is_read(damage: Damage, chosen: Input) -> bool:
    first, last = damage.file.loads or (chosen.load_from, chosen.load_to)
    return first <= chosen.load_to and last >= chosen.load_from


def take_out_damaged(lake: Lakehouse, recipe: Recipe) -> None:
    """Take files that are lost or unreadable out of the versions and the quarantine of a table, which are read while
    everything is staged again. The staged table itself is replaced."""
    found = damaged(lake, {recipe.versions, recipe.quarantine})
    for file in take_out(lake, found):
        logger.warning(
            "%s: %d rows of %s are lost with the file %s; what raw still has of them is made again",
            recipe.name,
            file.rows,
            file.table,
            file.path,
        )


def rows_by_catalog(lake: Lakehouse, recipe: Recipe) -> int:
    """How many rows the staged table has by the catalog, which counts them by file, without reading any."""
    files = [file for file in stored_files(lake, {recipe.staged}) if file.current]
    return sum(-file.rows if file.deletes else file.rows for file in files)


def _shown(found: list[Damage]) -> str:
    shown = [f"{one.file.path} ({one.kind}: {one.detail})" for one in found[:SHOWN_FILES]]
    more = len(found) - SHOWN_FILES
    return "; ".join([*shown, *([f"and {more} more"] if more > 0 else [])])
