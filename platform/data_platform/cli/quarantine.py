"""`dp quarantine`: list the rows that failed, let them in once they pass, or discard them.
What quarantine is lies in `contracts.quarantine`, judging rows again in `staging.step`."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.show import CELL_CHARACTERS, ago, console, grid, print_json
from data_platform.errors import PlatformError, shortened

if TYPE_CHECKING:
    from data_platform.contracts.quarantine import Selection
    from data_platform.contracts.violations import Violation
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.tables import Table
    from data_platform.staging.recipe import StagingResult

app = typer.Typer(help="Look at rows that failed, let them in, or discard them.", no_args_is_help=True)

TableArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="As dp run takes it: operations/bookings, staged/operations/bookings, or a source."
    ),
]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="One entry; may be given several times.")]
ColumnOption = Annotated[str | None, typer.Option(help="Only entries that failed because of this column.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LISTED = 20
"""Ids that are printed one by one; beyond, their number says enough."""


@app.command("list")
def list_entries(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Sources or tables, as dp run takes them. All if none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count the open entries of every table by reason."""
    from data_platform.contracts.quarantine import open_rows, summary
    from data_platform.contracts.violations import counted
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.tables import quarantine_table

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        wanted = [table for name in names or () for table in named(lake, name)]
        found = [one for one in summary(lake.connection) if not names or (one["source"], one["table"]) in wanted]
        tables = dict.fromkeys((one["source"], one["table"]) for one in found)
        rows = {"/".join(one): open_rows(lake.connection, quarantine_table(*one)) for one in tables}
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
    each = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    print(
        f"{counted(sum(rows.values()))} in all: {each}. Above, one with several reasons counts once for each. "
        "Look closer with dp quarantine show NAME."
    )


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

    keys = ("id", "layer", "load_id", "row", "file", "line", "record", "reasons", "quarantined_at")
    found: list[tuple[str, int, list[dict[str, Any]]]] = []
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        for one in chosen(lake, table, id, column):
            condition, parameters = one.selection.where()
            rows = lake.connection.execute(
                "SELECT quarantine_id, layer, load_id, row, file, line, record, reasons, quarantined_at "
                f"FROM {one.stored.sql} WHERE {condition} ORDER BY quarantined_at DESC, quarantine_id LIMIT ?",
                [*parameters, limit],
            ).fetchall()
            entries = [{"table": one.name, **dict(zip(keys, row, strict=True))} for row in rows]
            found.append((one.name, count_open(lake, one), entries))
    if as_json:
        print_json([entry for _, _, entries in found for entry in entries])
        return
    screen = console()
    for name, count, entries in found:
        for entry in entries:
            place = f"{entry['file']}, line {entry['line']}" if entry["file"] else f"load {entry['load_id']}"
            _print_plain(screen, f"{entry['id']}  {entry['layer']}, {place}, {ago(entry['quarantined_at'])}", "bold")
            for reason in entry["reasons"]:
                _print_plain(screen, f"  {reason_text(reason)}", "yellow")
            _print_plain(screen, f"  {entry['record']}", "dim")
        print(f"{len(entries):,} of {count:,} open entries of {name}.")


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
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.transaction import taken_up
    from data_platform.staging.step import replay as replay_rows

    settings = settings_from_environment()
    # What there is to replay is asked first: that is quick, and loading the platform takes seconds.
    with open_lakehouse(settings, read_only=True) as lake:
        before = [(one, open_ids(lake, one.stored, one.selection)) for one in chosen(lake, table, id, column)]
    replayed: list[Replayed] = []
    for one, entries in before:
        spec = source_spec(platform_of(one.source, platform), one.source)
        if one.table not in spec.tables:
            raise PlatformError(f"{spec.where} has no table {one.table} any more. It has: {', '.join(spec.tables)}.")
        with open_lakehouse(settings) as lake:
            ledger.claim(lake, spec.platform, "source", [spec.name])
            recipe, run_id = spec.tables[one.table].recipe(one.source), str(uuid.uuid4())
            result = taken_up(partial(replay_rows, lake, recipe, one.selection, run_id=run_id))
            after = open_ids(lake, one.stored, one.selection)
        replayed.append(Replayed.of(one.name, entries, after, result))
    if as_json:
        records = [one.as_record() for one in replayed]
        print_json(records[0] if len(records) == 1 else records)
        return
    for each in replayed:
        each.show()


@dataclass(frozen=True)
class Replayed:
    """What became of the entries of one table, by their ids: those that are staged now, those that still fail, those of
    loads that were refused, and those that could not be read at all."""

    table: str
    passed: list[str]
    failing: list[str]
    refused: list[str]
    unreadable: list[str]
    violations: "Sequence[Violation]"

    @classmethod
    def of(cls, table: str, before: Mapping[str, str], after: Mapping[str, str], result: "StagingResult") -> "Replayed":
        """Tell them apart by what was open before and what still is, each with its layer by id."""
        from data_platform.contracts.violations import fatal

        staged = [entry for entry, layer in before.items() if layer == "staged"]
        # The id of an entry names the load and the row.
        loads = {entry: int(entry.partition(":")[0]) for entry in staged if entry in after}
        return cls(
            table,
            passed=[entry for entry in staged if entry not in after],
            failing=[entry for entry, load in loads.items() if load <= result.load_to],
            refused=[entry for entry, load in loads.items() if load > result.load_to],
            unreadable=[entry for entry, layer in before.items() if layer != "staged"],
            violations=fatal(result.violations),
        )

    def as_record(self) -> dict[str, Any]:
        """As plain values."""
        from data_platform.contracts.violations import as_records

        return {**vars(self), "violations": as_records(self.violations)}

    def show(self) -> None:
        """Print it for a person."""
        screen = console()
        _print_plain(screen, f"{len(self.passed):,} rows pass and are staged{_ids(self.passed)}", "green")
        if self.failing:
            _print_plain(screen, f"{len(self.failing):,} rows still fail{_ids(self.failing)}", "yellow")
            for violation in self.violations:
                _print_plain(screen, f"  {violation}", "yellow")
        if self.refused:
            print(
                f"{len(self.refused):,} rows are of loads whose staging was refused: `dp run staged/{self.table}` "
                "stages all rows of those loads again."
            )
        if self.unreadable:
            print(
                f"{len(self.unreadable):,} records could not be read at all, so there is nothing to stage: have them "
                f"delivered again, then `dp quarantine discard {self.table} --id ...`."
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

    if everything == bool(id or column):
        raise PlatformError(
            "Say what is to be discarded: --id ID (several times, if need be), --column NAME, or --all."
        )
    settings = settings_from_environment()
    with open_lakehouse(settings, read_only=True) as lake:
        meant = chosen(lake, table, id, column)
        counts = [f"{count_open(lake, one):,} open entries of {one.name}" for one in meant]
    if not yes:
        typer.confirm(f"Discard {' and '.join(counts)}?", abort=True, err=True)

    def close(connection: Any) -> int:
        at = datetime.now(UTC)
        return sum(close_entries(connection, one.stored, "discarded", at, one.selection) for one in meant)

    with open_lakehouse(settings) as lake:
        closed = commit(lake, close)
    if as_json:
        print_json({"discarded": closed})
    else:
        print(f"{closed:,} entries of {', '.join(one.name for one in meant)} are discarded.")


@dataclass(frozen=True)
class Chosen:
    """Open entries of one table that are meant."""

    source: str
    table: str
    stored: "Table"
    selection: "Selection"

    @property
    def name(self) -> str:
        return f"{self.source}/{self.table}"


def named(lake: "Lakehouse", name: str) -> list[tuple[str, str]]:
    """Source and table of every quarantine that a name means, as `dp run` understands it: a source, a table with or
    without its layer, or a table as SQL spells it. Raises PlatformError, listing those that exist, if it means none."""
    from data_platform.contracts.quarantine import quarantine_tables

    there = quarantine_tables(lake.connection)
    parts = name.strip("/").split("/")
    if len(parts) == 1 and "." in name:
        schema, _, table = name.partition(".")
        parts = [*schema.partition("_")[::2], table]
    if parts[0] in ("raw", "staged", "quarantine"):
        parts = parts[1:]
    found = [(source, table) for source, table in there if [source, table][: len(parts)] == parts]
    if not found:
        names = ", ".join(f"{source}/{table}" for source, table in there) or "none"
        raise PlatformError(f"Nothing of {name} is in quarantine. Tables with one: {names}.")
    return found


def chosen(lake: "Lakehouse", name: str, ids: Sequence[str] | None, column: str | None) -> list[Chosen]:
    """The open entries that are meant, by table.

    Raises PlatformError if there is no such quarantine, nothing in it is open, or an id or the column selects nothing.
    """
    from data_platform.contracts.quarantine import Selection
    from data_platform.lakehouse.tables import quarantine_table

    tables = named(lake, name)
    if ids and len(tables) > 1:
        raise PlatformError(
            f"An id is one of a table, and {name} has several: {', '.join('/'.join(one) for one in tables)}."
        )
    selection = Selection(tuple(ids or ()), column)
    found, reasons = [], []
    for source, table in tables:
        one = Chosen(source, table, quarantine_table(source, table), selection)
        try:
            require_open(lake, one)
        except PlatformError as error:
            reasons.append(str(error))
        else:
            found.append(one)
    if not found:
        raise PlatformError(" ".join(reasons))
    return found


def require_open(lake: "Lakehouse", one: Chosen) -> None:
    """Raise PlatformError, saying what there is, if nothing is open, or an id or the column selects nothing."""
    from data_platform.contracts.quarantine import Selection

    found = open_ids(lake, one.stored, one.selection)
    ids, column = one.selection.ids, one.selection.column
    missing = [entry for entry in ids if entry not in found]
    if found and not missing:
        return
    everything = open_ids(lake, one.stored, Selection())
    if not everything:
        raise PlatformError(f"{one.name} has no open entry in quarantine.")
    if missing:
        there = ", ".join(list(everything)[:LISTED])
        raise PlatformError(
            f"{one.name} has no open entry {', '.join(missing)}{' for that column' if column else ''}. "
            f"Open are {len(everything):,}: {there}{', ...' if len(everything) > LISTED else ''}."
        )
    columns = lake.connection.execute(
        f'SELECT DISTINCT reason."column" FROM (SELECT unnest(reasons) AS reason FROM {one.stored.sql} '
        "WHERE status = 'open') ORDER BY 1"
    ).fetchall()
    raise PlatformError(
        f"No open entry of {one.name} failed because of the column {column}. "
        f"They failed because of: {', '.join(row[0] or '(the row as a whole)' for row in columns)}."
    )


def open_ids(lake: "Lakehouse", stored: "Table", selection: "Selection") -> dict[str, str]:
    """The layer of each selected open entry, by id."""
    condition, parameters = selection.where()
    return dict(
        lake.connection.execute(
            f"SELECT quarantine_id, layer FROM {stored.sql} WHERE {condition} ORDER BY quarantine_id", parameters
        ).fetchall()
    )


def count_open(lake: "Lakehouse", one: Chosen) -> int:
    """How many open entries are meant."""
    condition, parameters = one.selection.where()
    row = lake.connection.execute(f"SELECT count(*) FROM {one.stored.sql} WHERE {condition}", parameters).fetchone()
    return int(row[0]) if row else 0


def _ids(ids: Sequence[str]) -> str:
    return f": {', '.join(ids)}" if 0 < len(ids) <= LISTED else ""


def _cut(value: Any) -> str:
    return shortened("" if value is None else str(value), CELL_CHARACTERS)


def _print_plain(screen: Any, text: str, style: str) -> None:
    """Print a value from the data: nothing in it is taken for markup."""
    screen.print(text, style=style, markup=False, soft_wrap=True)
