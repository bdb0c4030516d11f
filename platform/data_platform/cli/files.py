"""`dp doctor --deep`: the catalog held against the files of the lakehouse, what is lost, and what brings it back. How
files are examined is in `lakehouse.inspection`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from data_platform.cli.show import console, grid, print_json

if TYPE_CHECKING:
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.inspection import Damage, StoredFile
    from data_platform.lakehouse.settings import Settings
    from data_platform.lakehouse.tables import Table

TAKE_OUT = "dp doctor --deep --take-out"
VERSIONS = "_versions"
SHOWN = 50
"""Damaged files that a person is shown at most."""


@dataclass(frozen=True)
class Lost:
    """A file that is damaged, as it is shown: its table, what is wrong, what is lost with it, and what brings it back.
    `current` is false if only earlier versions of the table need it."""

    table: str
    file: str
    damage: str
    lost: str
    mend: str
    current: bool


@dataclass(frozen=True)
class LakehouseState:
    """What decides, beside a damaged file itself, what brings its rows back: the tables that there are, and of each raw
    table with damaged files the last load that replaced all of its rows (0: none did, or the ledger cannot tell)."""

    tables: "Collection[Table]"
    whole_loads: "Mapping[Table, int]"


def deep(settings: "Settings", *, as_json: bool, take_out: bool) -> bool:
    """Examine all files, print what is found, and take what is damaged out of its tables if that is wanted. Whether
    all is well: every file that a table's present version needs is whole, or was taken out.

    Raises PlatformError if there is no lakehouse, or it cannot be opened.
    """
    from data_platform.lakehouse import inspection
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.ledger.names import SCHEMA

    with open_lakehouse(settings, read_only=not take_out) as lake:
        files = inspection.stored_files(lake)
        with progress(files) as seen:
            damages = list(inspection.inspect(lake, files, seen=seen))
        # Nothing can be asked of a ledger that has lost files.
        ledger_is_whole = not any(damage.file.current and damage.file.table.schema == SCHEMA for damage in damages)
        state = state_of(lake, damages, ledger_is_whole=ledger_is_whole)
        found = [described(damage, state) for damage in damages]
        gone = inspection.take_out(lake, damages) if take_out else []
    if as_json:
        print_json(
            {
                "files": len(files),
                "bytes": sum(file.bytes for file in files),
                "damaged": [vars(one) for one in found],
                "taken_out": [file.path for file in gone],
            }
        )
    else:
        show(found, files, gone)
    out = {file.path for file in gone}
    left = [damage for damage in damages if damage.file.current and not _is_out(damage, out, gone)]
    return not left


def _is_out(damage: "Damage", out: set[str], gone: "Sequence[StoredFile]") -> bool:
    numbers = {(file.table_id, file.data_file) for file in gone}
    return damage.file.path in out or (damage.file.table_id, damage.file.data_file) in numbers


@contextmanager
def progress(files: "Sequence[StoredFile]") -> Iterator[Callable[[], object]]:
    """A bar on stderr, if a person looks at it; what is to be called after each file that was looked at."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (TextColumn("files"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("files", total=len(files))
        yield partial(bar.advance, task)


def show(found: Sequence[Lost], files: "Sequence[StoredFile]", gone: "Sequence[StoredFile]") -> None:
    """Print for a person what was found."""
    from rich.text import Text

    screen = console()
    size = sum(file.bytes for file in files) / 2**20
    if not found:
        screen.print(f"[green]✓[/] files: all {len(files):,} that the catalog lists ({size:,.1f} MiB) are whole")
        return
    screen.print(
        f"[red]✗[/] files: {len(found):,} of {len(files):,} that the catalog lists ({size:,.1f} MiB) are damaged"
    )
    table = grid("table", "file", "what is wrong", "what is lost", "what brings it back")
    for one in found[:SHOWN]:
        table.add_row(*(Text(text) for text in (one.table, one.file, one.damage, one.lost, one.mend)))
    screen.print(table)
    if len(found) > SHOWN:
        screen.print(f"... and {len(found) - SHOWN:,} more: --json lists all")
    screen.print("If there is a backup of a file, put it back in its place: that brings everything back.")
    for file in gone:
        screen.print(Text(f"Taken out of {file.table}: {file.path}"), soft_wrap=True)


def state_of(lake: "Lakehouse", damages: "Sequence[Damage]", *, ledger_is_whole: bool) -> LakehouseState:
    """What the remedies of damaged files depend on, asked once for all of them."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.tables import RAW, all_tables

    damaged = {damage.file.table for damage in damages if damage.file.current}
    raw = [table for table in damaged if table.layer == RAW and table.source]
    whole = {
        table: ledger.landed_bounds(lake, table.source, table.name).whole if ledger_is_whole else 0 for table in raw
    }
    return LakehouseState(set(all_tables(lake.connection)) if damaged else set(), whole)


def described(damage: "Damage", state: LakehouseState) -> Lost:
    """A damaged file, with what it means."""
    file = damage.file
    loads = "" if file.loads is None else f" of {_loads(*file.loads)}"
    rows = f"the list of {file.rows:,} deleted rows" if file.deletes else f"{file.rows:,} rows"
    lost = f"{rows}{loads}" if file.current else f"{rows}{loads}, in earlier versions only"
    detail = f"{damage.kind}: {damage.detail}"
    return Lost(str(file.table), file.path, detail, lost, mend(file, state), file.current)


def _loads(first: int, last: int) -> str:
    return f"load {first}" if first == last else f"loads {first} to {last}"


def mend(file: "StoredFile", state: LakehouseState) -> str:
    """What brings back the rows of a file, and what nothing brings back."""
    from data_platform.lakehouse.ledger.names import SCHEMA
    from data_platform.lakehouse.tables import MODELLED, QUARANTINE, RAW, SCORES, STAGED, Table
    from data_platform.ml.registry.store import FILES

    table = file.table
    name = f"{table.source}/{table.name}"
    if not file.current:
        return "nothing to do: it goes when those versions expire; until then they cannot be read"
    if table.schema == SCHEMA:
        return "only its backup: the ledger cannot be made again"
    if table.schema == MODELLED:
        return f"dp run modelled/{table.name} --full-refresh"
    if table.layer == STAGED:
        base = table.name.removesuffix(VERSIONS)
        if base != table.name and Table(f"{RAW}_{table.source}", table.name) not in state.tables:
            return (
                f"dp run staged/{table.source}/{base} --rebuild, which makes the versions of what raw still has; those "
                "of before its last full refresh are lost"
            )
        return f"dp run staged/{name} --rebuild"
    if table.layer == QUARANTINE:
        return (
            f"dp run staged/{name} --rebuild, which finds the rows that break the contract again; records that could "
            f"not be read come again with dp run {name} --full-refresh; entries that were closed are lost"
        )
    if table.schema == SCORES:
        return f"{TAKE_OUT}, then dp run scores/{table.name} for those of the model in production; others are lost"
    if table == FILES:
        return f"its backup; without one, {TAKE_OUT}, then dp run models/NAME trains each model in it again"
    if table.layer == RAW and table.source:
        whole = state.whole_loads[table]
        if file.loads is not None and file.loads[1] < whole:
            return f"{TAKE_OUT}: these rows were replaced by the full refresh of load {whole}, so nothing reads them"
        return (
            f"{TAKE_OUT}, after which loads go on without these rows; then dp run {name} --full-refresh reads again "
            "what the source still has. Rows that it has not any more are lost from raw; the staged table keeps what "
            "was made of them until that refresh, or a --rebuild"
        )
    return f"its backup; without one, {TAKE_OUT} leaves the table without these rows"
