"""Which raw rows a staging step reads: what landed since the last one, everything, or a range of loads again. What is
done with them is in `step`."""

from dataclasses import dataclass

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import column_types
from data_platform.staging.recipe import Recipe


@dataclass(frozen=True)
class Input:
    """Which raw rows a step reads, and whether they replace the staged table. `since` is the first load that counts at
    all: the last full refresh made those before it history. `again` is a condition on rows that say which raw row they
    come from: it is one that is read again here. None if no row was staged of those that are read, or none stays."""

    kind: ledger.StagingKind
    condition: str
    load_from: int
    load_to: int
    replaces: bool
    parameters: tuple[object, ...] = ()
    since: int = 1
    again: str | None = None


def choose(
    lake: Lakehouse, recipe: Recipe, head: ledger.Head, *, rebuild: bool, loads: tuple[int, int] | None
) -> Input | None:
    """The loads to stage. A full refresh makes earlier loads history: staging starts at the last one."""
    if not column_types(lake.connection, recipe.raw):
        return None
    staged_to = int(head.position.get("load_id", "0"))
    bounds = ledger.landed_bounds(lake, recipe.source, recipe.table)
    last, whole = bounds.last, bounds.whole
    since = whole or 1
    if loads is not None:
        first, until = loads
        if not 1 <= first <= until <= staged_to:
            raise PlatformError(
                f"{recipe.source}/{recipe.table}: loads {first} to {until} cannot be staged again; "
                f"loads 1 to {staged_to} have been staged."
            )
        if until < whole:
            gone = (
                f" Of those, retention has deleted full refreshes up to load {bounds.retired_to} from raw "
                "(`keep_replaced`)."
                if first <= bounds.retired_to
                else ""
            )
            raise PlatformError(
                f"{recipe.source}/{recipe.table}: loads {first} to {until} were replaced by the full refresh of load "
                f"{whole}.{gone} Stage loads {whole} to {staged_to} again, or the whole table with --rebuild."
            )
        first = max(first, whole)
        of_loads = _between(first, until)
        return Input("backfill", of_loads, first, until, replaces=False, since=since, again=of_loads)
    if rebuild:
        return Input("rebuild", _between(since, last), since, last, replaces=True, since=since) if last else None
    if last <= staged_to:
        return None
    if whole > staged_to:
        return Input("whole", _between(whole, last), whole, last, replaces=True, since=since)
    return Input("rows", _between(staged_to + 1, last), staged_to + 1, last, replaces=False, since=since)


def _between(first: int, last: int) -> str:
    return f"_load_id BETWEEN {first} AND {last}"
