"""`dp remove`: take a source, or a table of one, out of a platform; or an export, a dataset, a model, scores. The files
go first; what was loaded or made stays until it is dropped by `--data`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.cli.remove_made import drop_made, made_of, refuse_needed
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import duckdb

    from data_platform.drafting.editing import Change
    from data_platform.lakehouse.ledger import OwnedKind
    from data_platform.lakehouse.settings import Settings


@dataclass(frozen=True)
class Stored:
    """A table or view of the lakehouse that belongs to a source, and its rows."""

    schema: str
    name: str
    is_view: bool
    rows: int


def remove(
    what: Annotated[
        str,
        typer.Argument(metavar="SOURCE[/TABLE]", help="Such as shop, or shop/orders; or a dataset, a model, scores."),
    ],
    data: Annotated[
        bool,
        typer.Option("--data", help="Drop what was loaded or made as well: rows, positions, versions and their files."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    platform: Annotated[str | None, typer.Option(help="The platform, if several have the source.")] = None,
) -> None:
    """Remove the files of a source, a table or the like, and with --data what was loaded or made of it."""
    from data_platform.components.component import folder_of
    from data_platform.lakehouse.settings import settings_from_environment

    source, _, table = what.strip("/").partition("/")
    settings = settings_from_environment()
    package = _platform_with(source, platform)
    stored, exported = stored_tables(settings, source, table), exported_tables(settings, source, table)
    made = made_of(settings, source) if not table else []
    has_files = package is not None and (not table or table in tables_of(folder_of(package, source)))
    if not has_files and not stored and not exported and not made:
        raise PlatformError(f"There is no source or table {what}, and nothing was loaded of it.")
    if not has_files and not data:
        raise PlatformError(f"{what} has no files any more. Drop what was loaded of it by `dp remove {what} --data`.")
    if data and stored:
        refuse_anothers(settings, "source", source)
    for one in made if data else ():
        refuse_anothers(settings, one.kind, one.name)
    if data:
        refuse_needed(settings, made)
    if has_files:
        assert package is not None  # noqa: S101 - as has_files says
        remove_files(folder_of(package, source), table, yes=yes)
        for file in mentions(package, source, table):
            print(f"It is still named in {file}.")
    if not stored and not exported and not made:
        return
    tables = [f"{one.schema}.{one.name} ({one.rows:,} rows)" for one in stored if not one.is_view]
    tables += [one.text for one in made]
    names = ", ".join([*tables, *(f"how far export/{source}/{one} came" for one in exported)])
    if not data:
        print(f"What was loaded stays: {names}.")
        print(f"Drop it by: dp remove {what} --data")
        return
    if not yes:
        typer.confirm(f"Drop {names}, and the positions of what was loaded?", abort=True, err=True)
    if stored or exported:
        drop(settings, source, table, stored)
    if made:
        drop_made(settings, made)
    print(f"Dropped: {names}. Earlier versions can be read until maintenance lets them go.")


def _platform_with(source: str, platform: str | None) -> Path | None:
    """The platform that has the source; None if none has it."""
    from data_platform.components.component import folders
    from data_platform.components.workspace import platform_names, platform_of, platform_package

    names = [platform] if platform else platform_names()
    there = [one for one in names if source in [folder.name for folder in folders(platform_package(one))]]
    return platform_of(source, platform) if there else None


def tables_of(folder: Path) -> list[str]:
    """The tables in the `defs.yaml` of a source."""
    from data_platform.drafting.editing import table_nodes

    file = folder / "defs.yaml"
    return [str(key.value) for key, _ in table_nodes(file, file.read_text(encoding="utf-8"))]


def remove_files(folder: Path, table: str, *, yes: bool) -> None:
    """Remove the folder of a source, or what its files say of one table, after a person agreed to it."""
    from data_platform.drafting.editing import write

    if table and tables_of(folder) != [table]:
        changes = changes_without(folder, table)
        for change in changes:
            print(change.diff(), end="")
        if not yes:
            typer.confirm(f"Take {table} out of {folder}?", abort=True, err=True)
        write(changes)
        print(f"{folder.name}/{table} is removed.")
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in files:
        print(f"  {path}")
    if not yes:
        typer.confirm(f"Remove {folder} with these {len(files)} files?", abort=True, err=True)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise PlatformError(f"{error.filename} cannot be removed: {error.strerror}.") from None
    print(f"{folder.name} is removed.")


def changes_without(folder: Path, table: str) -> list["Change"]:
    """What it takes to take one table out of the files of a source: its entry, its contract and its staging function,
    unless another table uses them."""
    import yaml

    from data_platform.drafting.editing import Change, without_definition, without_table

    defs = folder / "defs.yaml"
    text = defs.read_text(encoding="utf-8")
    tables = yaml.safe_load(text)["attributes"]["tables"]
    after = {defs: without_table(defs, text, table)}
    for option, file in (("contract", folder / "contracts.py"), ("stage", folder / "staging.py")):
        path = tables[table].get(option)
        others = [other.get(option) for name, other in tables.items() if name != table]
        own = f"{folder.name}.{file.stem}"
        if path and path not in others and path.rpartition(".")[0].endswith(own) and file.exists():
            after[file] = without_definition(file, file.read_text(encoding="utf-8"), path.rpartition(".")[2])
    made = [Change(file, file.read_text(encoding="utf-8"), changed) for file, changed in after.items()]
    return [change for change in made if change.before != change.after]


def mentions(package: Path, source: str, table: str) -> list[Path]:
    """Files of the platform, of its tests and of the dbt project that still name a source or its table."""
    root = package.parents[1]
    wanted = [f"staged_{source}", f'"{source}/{table}', f"{package.name}.defs.{source}."]
    places = [package / "defs", root / "platform_tests" / package.name, root / "dbt_project" / "models"]
    found = []
    for path in (path for place in places if place.is_dir() for path in sorted(place.rglob("*"))):
        if path.suffix in (".py", ".sql", ".yml", ".yaml") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if path.parent.name != source and any(one in text for one in wanted) and table in text:
                found.append(path)
    return found


def stored_tables(settings: "Settings", source: str, table: str) -> list[Stored]:
    """What the lakehouse holds of a source, or of one table of it; nothing while there is no lakehouse."""
    from data_platform.lakehouse.connect import CATALOG, open_lakehouse
    from data_platform.lakehouse.tables import QUARANTINE, RAW, STAGED, all_tables

    if settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        return []
    schemas = [f"{layer}_{source}" for layer in (RAW, STAGED, QUARANTINE)]
    names = [table, f"{table}_versions", f"{table}_history"]
    with open_lakehouse(settings, read_only=True) as lake:
        views = lake.connection.execute(
            "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = ?", [CATALOG]
        ).fetchall()
        found = [one for one in all_tables(lake.connection) if one.schema in schemas]
        return [
            Stored(one.schema, one.name, (one.schema, one.name) in views, _count(lake.connection, one.sql))
            for one in sorted(found, key=lambda one: schemas.index(one.schema))
            if not table or one.name in names
        ]


def exported_tables(settings: "Settings", export: str, table: str) -> list[str]:
    """The tables of an export, or the one table, of which the ledger says how far they came."""
    from data_platform.exports.progress import LAYER
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse

    if settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        return []
    with open_lakehouse(settings, read_only=True) as lake:
        found = sorted(name for one, name in ledger.tables_of(lake, LAYER) if one == export)
    return [name for name in found if not table or name == table]


def _count(connection: "duckdb.DuckDBPyConnection", relation: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(row[0]) if row else 0


def refuse_anothers(settings: "Settings", kind: "OwnedKind", name: str) -> None:
    """Raise PlatformError if what was loaded of a source, or made, belongs to a platform of another project."""
    from data_platform.components.workspace import platform_names
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse

    with open_lakehouse(settings) as lake:
        owner = ledger.owners(lake, kind).get(name.lower())
    if owner is not None and owner not in (names := platform_names()):
        raise PlatformError(
            f"What was loaded of {name} belongs to the platform {owner}, which is not of this project (its "
            f"platforms: {', '.join(names)}), so nothing was removed. Drop it from there; or, if {owner} was renamed, "
            f"run `dp adopt {owner}` first."
        )


def drop(settings: "Settings", source: str, table: str, stored: Sequence[Stored]) -> None:
    """Drop tables and what the ledger says of them, in one commit."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import CATALOG, open_lakehouse
    from data_platform.lakehouse.sql import quote
    from data_platform.lakehouse.transaction import commit

    def work(connection: "duckdb.DuckDBPyConnection") -> None:
        for one in sorted(stored, key=lambda one: not one.is_view):
            kind = "VIEW" if one.is_view else "TABLE"
            connection.execute(f"DROP {kind} {quote(CATALOG, one.schema, one.name)}")
        ledger.forget_tables(connection, source, [table] if table else None)

    with open_lakehouse(settings) as lake:
        ledger.exists(lake)
        commit(lake, work)
