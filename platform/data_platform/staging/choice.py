"""Which raw rows a staging step reads: what landed since the last one, everything, or a range of loads again. What is
done with them is said in `step`."""

from dataclasses import dataclass

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import column_types
from data_platform.staging.recipe import Recipe


@dataclass(frozen=True)
class Input:
    """Which raw rows a step reads, and whether they replace the staged table. `since` is the first load that counts at
    all: the last full refresh made those before it history."""

    kind: str
    condition: str
    load_from: int
    load_to: int
    replaces: bool
    parameters: tuple[object, ...] = ()
    since: int = 1


def choose(
    lake: Lakehouse, recipe: Recipe, head: ledger.Head, *, rebuild: bool, loads: tuple[int, int] | None
) -> Input | None:
    """The loads to stage. A full refresh makes earlier loads history: staging starts at the last one."""
    if not column_types(lake.connection, recipe.raw):
        return None
    staged_to = int(head.position.get("load_id", "0"))
    landed = lake.connection.execute(
        f"SELECT coalesce(max(load_id), 0), coalesce(max(load_id) FILTER (kind = 'snapshot'), 0) "
        f"FROM {ledger.name('loads')} WHERE source = ? AND table_name = ? AND status = 'landed' "
        "AND (rows_landed > 0 OR kind = 'snapshot')",
        [recipe.source, recipe.table],
    ).fetchone()
    last, snapshot = landed if landed is not None else (0, 0)
    if loads is not None:
        first, until = loads
        if not 1 <= first <= until <= staged_to:
            raise PlatformError(
                f"{recipe.source}/{recipe.table}: loads {first} to {until} cannot be staged again; "
                f"loads 1 to {staged_to} have been staged."
            )
        if until < snapshot:
            raise PlatformError(
                f"{recipe.source}/{recipe.table}: loads {first} to {until} were replaced by the full refresh of load "
                f"{snapshot}. Stage loads {snapshot} to {staged_to} again, or the whole table with --rebuild."
            )
        first = max(first, snapshot)
        return Input("backfill", _between(first, until), first, until, replaces=False, since=snapshot or 1)
    if rebuild:
        if not last:
            return None
        return Input("rebuild", _between(snapshot or 1, last), snapshot or 1, last, replaces=True, since=snapshot or 1)
    if last <= staged_to:
        return None
    if snapshot > staged_to:
        return Input("snapshot", _between(snapshot, last), snapshot, last, replaces=True, since=snapshot)
    return Input("additions", _between(staged_to + 1, last), staged_to + 1, last, replaces=False, since=snapshot or 1)


def _between(first: int, last: int) -> str:
    return f"_load_id BETWEEN {first} AND {last}"


def last_full_refresh(lake: Lakehouse, recipe: Recipe) -> int:
    """The last load that replaced all before it; 0 if none did."""
    row = lake.connection.execute(
        f"SELECT max(load_id) FROM {ledger.name('loads')} WHERE (source, table_name, status, kind) = (?, ?, ?, ?)",
        [recipe.source, recipe.table, "landed", "snapshot"],
    ).fetchone()
    return int(row[0] or 0) if row is not None else 0


def loaded_without_rows(lake: Lakehouse, recipe: Recipe) -> int:
    """The last load of a table of which no row ever landed; 0 if it was never loaded."""
    row = lake.connection.execute(
        f"SELECT max(load_id) FROM {ledger.name('loads')} "
        "WHERE source = ? AND table_name = ? AND status = 'landed' HAVING sum(rows_landed) = 0",
        [recipe.source, recipe.table],
    ).fetchone()
    return int(row[0]) if row is not None else 0
