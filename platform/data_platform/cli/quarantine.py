"""`dp quarantine`: list the rows that failed, let them in once they pass, or discard them.
What quarantine is lies in `contracts.quarantine`, judging rows again in `staging.step`."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.show import CELL_CHARACTERS, ago, console, grid, print_json
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.contracts.quarantine import Selection
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.tables import Table

app = typer.Typer(help="Look at rows that failed, let them in, or discard them.", no_args_is_help=True)

TableArgument = Annotated[str, typer.Argument(metavar="SOURCE/TABLE", help="Such as operations/bookings.")]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="One entry; may be given several times.")]
ColumnOption = Annotated[str | None, typer.Option(help="Only entries that failed because of this column.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LISTED = 20
"""Ids that are printed one by one; beyond, their number says enough."""


@app.command("list")
def list_entries(as_json: JsonOption = False) -> None:
    """Count the open entries of every table by reason."""
    from data_platform.contracts.quarantine import summary
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        found = summary(lake.connection)
    if as_json:
        print_json(list(found))
        return
    if not found:
        print("Nothing is in quarantine.")
        return
    table = grid("table", "layer", "rows", "since", "column", "rule", "example", right=["rows"])
    for one in found:
        table.add_row(
            f"{one['source']}/{one['table']}",
            one["layer"],
            f"{one['rows']:,}",
            ago(one["since"]),
            one["column"] or "(row)",
            one["check"],
            _cut(one["example"]),
        )
    console().print(table)
    print("A row with several reasons counts once for each. Look closer with dp quarantine show SOURCE/TABLE.")


@app.command()
def show(
    table: TableArgument,
    id: IdOption = None,  # noqa: A002 - the option's own name
    column: ColumnOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Entries at most, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show open entries with every reason, and the row as it was."""
    from data_platform.contracts.violations import reason_text
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    source, name = split(table)
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        stored, selection = chosen(lake, source, name, id, column)
        condition, parameters = selection.where()
        rows = lake.connection.execute(
            "SELECT quarantine_id, layer, load_id, row, file, line, record, reasons, quarantined_at "
            f"FROM {stored.sql} WHERE {condition} ORDER BY quarantined_at DESC, quarantine_id LIMIT ?",
            [*parameters, limit],
        ).fetchall()
        count = count_open(lake, stored, selection)
    keys = ("id", "layer", "load_id", "row", "file", "line", "record", "reasons", "quarantined_at")
    entries = [dict(zip(keys, row, strict=True)) for row in rows]
    if as_json:
        print_json(entries)
        return
    screen = console()
    for entry in entries:
        place = f"{entry['file']}, line {entry['line']}" if entry["file"] else f"load {entry['load_id']}"
        _print_plain(screen, f"{entry['id']}  {entry['layer']}, {place}, {ago(entry['quarantined_at'])}", "bold")
        for reason in entry["reasons"]:
            _print_plain(screen, f"  {reason_text(reason)}", "yellow")
        _print_plain(screen, f"  {entry['record']}", "dim")
    print(f"{len(entries):,} of {count:,} open entries of {table}.")


@app.command()
def replay(
    table: TableArgument,
    id: IdOption = None,  # noqa: A002 - the option's own name
    column: ColumnOption = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if several have the source.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Stage quarantined rows again with today's staging function and contract; those that pass leave quarantine."""
    from data_platform.components.platform import source_spec
    from data_platform.components.workspace import platform_of
    from data_platform.contracts.violations import as_records, fatal
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.transaction import taken_up
    from data_platform.staging.step import replay as replay_rows

    source, name = split(table)
    settings = settings_from_environment()
    # What there is to replay is asked first: that is quick, and loading the platform takes seconds.
    with open_lakehouse(settings, read_only=True) as lake:
        stored, selection = chosen(lake, source, name, id, column)
        before = open_ids(lake, stored, selection)
    spec = source_spec(platform_of(source, platform), source)
    if name not in spec.tables:
        raise PlatformError(f"{spec.where} has no table {name} any more. It has: {', '.join(spec.tables)}.")
    with open_lakehouse(settings) as lake:
        recipe, run_id = spec.tables[name].recipe(source), str(uuid.uuid4())
        result = taken_up(lambda: replay_rows(lake, recipe, selection, run_id=run_id))
        after = open_ids(lake, stored, selection)
    staged = [entry for entry, layer in before.items() if layer == "staged"]
    unreadable = [entry for entry, layer in before.items() if layer != "staged"]
    passed = [entry for entry in staged if entry not in after]
    # The id of an entry names the load and the row.
    loads = {entry: int(entry.partition(":")[0]) for entry in staged if entry in after}
    failing = [entry for entry, load in loads.items() if load <= result.load_to]
    refused = [entry for entry, load in loads.items() if load > result.load_to]
    violations = fatal(result.violations)
    if as_json:
        print_json(
            {
                "passed": passed,
                "failing": failing,
                "refused": refused,
                "unreadable": unreadable,
                "violations": as_records(violations),
            }
        )
        return
    screen = console()
    _print_plain(screen, f"{len(passed):,} rows pass and are staged{_ids(passed)}", "green")
    if failing:
        _print_plain(screen, f"{len(failing):,} rows still fail{_ids(failing)}", "yellow")
        for violation in violations:
            _print_plain(screen, f"  {violation}", "yellow")
    if refused:
        print(
            f"{len(refused):,} rows are of loads whose staging was refused: `dp run staged/{table}` stages all rows of "
            "those loads again."
        )
    if unreadable:
        print(
            f"{len(unreadable):,} records could not be read at all, so there is nothing to stage: have them delivered "
            f"again, then `dp quarantine discard {table} --id ...`."
        )


@app.command()
def discard(
    table: TableArgument,
    id: IdOption = None,  # noqa: A002 - the option's own name
    column: ColumnOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Discard every open entry.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Close entries for good, without letting their rows in. They stay readable, with status `discarded`."""
    from datetime import UTC, datetime

    from data_platform.contracts.quarantine import close_entries
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.transaction import commit

    source, name = split(table)
    if everything == bool(id or column):
        raise PlatformError(
            "Say what is to be discarded: --id ID (several times, if need be), --column NAME, or --all."
        )
    settings = settings_from_environment()
    with open_lakehouse(settings, read_only=True) as lake:
        stored, selection = chosen(lake, source, name, id, column)
        count = count_open(lake, stored, selection)
    if not yes:
        typer.confirm(f"Discard {count:,} open entries of {table}?", abort=True, err=True)
    with open_lakehouse(settings) as lake:
        at = datetime.now(UTC)
        closed = commit(lake, lambda connection: close_entries(connection, stored, "discarded", at, selection))
    if as_json:
        print_json({"discarded": closed})
    else:
        print(f"{closed:,} entries of {table} are discarded.")


def split(table: str) -> tuple[str, str]:
    """Source and table of `source/table`. Raises PlatformError for anything else."""
    parts = table.strip("/").split("/")
    if parts[0] in ("staged", "raw", "quarantine") and len(parts) == 3:
        parts = parts[1:]
    if len(parts) != 2 or not all(parts):
        raise PlatformError(f"{table!r} names no table: write SOURCE/TABLE, such as operations/bookings.")
    return parts[0], parts[1]


def chosen(
    lake: "Lakehouse", source: str, name: str, ids: Sequence[str] | None, column: str | None
) -> tuple["Table", "Selection"]:
    """The quarantine of a table and the open entries that are meant.

    Raises PlatformError if there is no such quarantine, nothing in it is open, or an id or the column selects nothing.
    """
    from data_platform.contracts.quarantine import Selection, require_quarantine

    stored = require_quarantine(lake.connection, source, name)
    selection = Selection(tuple(ids or ()), column)
    found = open_ids(lake, stored, selection)
    missing = [entry for entry in ids or () if entry not in found]
    if missing or not found:
        everything = open_ids(lake, stored, Selection())
        if not everything:
            raise PlatformError(f"{source}/{name} has no open entry in quarantine.")
        if missing:
            there = ", ".join(list(everything)[:LISTED])
            raise PlatformError(
                f"{source}/{name} has no open entry {', '.join(missing)}{' for that column' if column else ''}. "
                f"Open are {len(everything):,}: {there}{', ...' if len(everything) > LISTED else ''}."
            )
        columns = lake.connection.execute(
            f'SELECT DISTINCT reason."column" FROM (SELECT unnest(reasons) AS reason FROM {stored.sql} '
            "WHERE status = 'open') ORDER BY 1"
        ).fetchall()
        raise PlatformError(
            f"No open entry of {source}/{name} failed because of the column {column}. "
            f"They failed because of: {', '.join(row[0] or '(the row as a whole)' for row in columns)}."
        )
    return stored, selection


def open_ids(lake: "Lakehouse", stored: "Table", selection: "Selection") -> dict[str, str]:
    """The layer of each selected open entry, by id."""
    condition, parameters = selection.where()
    return dict(
        lake.connection.execute(
            f"SELECT quarantine_id, layer FROM {stored.sql} WHERE {condition} ORDER BY quarantine_id", parameters
        ).fetchall()
    )


def count_open(lake: "Lakehouse", stored: "Table", selection: "Selection") -> int:
    """How many open entries are selected."""
    condition, parameters = selection.where()
    row = lake.connection.execute(f"SELECT count(*) FROM {stored.sql} WHERE {condition}", parameters).fetchone()
    return int(row[0]) if row else 0


def _ids(ids: Sequence[str]) -> str:
    return f": {', '.join(ids)}" if 0 < len(ids) <= LISTED else ""


def _cut(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"


def _print_plain(screen: Any, text: str, style: str) -> None:
    """Print a value from the data: nothing in it is taken for markup."""
    screen.print(text, style=style, markup=False, soft_wrap=True)
