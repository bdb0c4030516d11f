"""`dp add source`: asks for an address, has the tables behind it profiled and drafted (`drafting`), writes a folder
that was not there before, loads it as Dagster will, and says what came of it. Nothing that exists is changed.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.components.source import SourceComponent
    from data_platform.components.spec import SourceSpec
    from data_platform.drafting.draft import Draft
    from data_platform.drafting.profile import TableProfile

app = typer.Typer(help="Add to a platform.", no_args_is_help=True)


@app.callback()
def add() -> None:
    """Add to a platform."""


@app.command()
def source(
    name: Annotated[str, typer.Argument(help="What the source is called here: lower case, such as shop.")],
    kind: Annotated[
        str | None,
        typer.Option("--type", help="sql, rest, file, or a kind of another package; default: what the address says."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help='Database (postgresql://, mysql://, a SQLite file), first page of an API, or "{{ env.NAME }}".'
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of files; a relative one lies in the platform's landing folder, or here."),
    ] = None,
    table: Annotated[list[str] | None, typer.Option(help="A table to take; several times for several.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Columns that identify a row, by commas; default: as declared.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option(help="Column that grows with each change: loads only what is new.")
    ] = None,
    cursor_param: Annotated[
        str | None, typer.Option(help="APIs: the parameter that asks for rows since a cursor.")
    ] = None,
    token_env: Annotated[str | None, typer.Option(help="APIs: the environment variable with the bearer token.")] = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if workspace.yaml names several.")] = None,
) -> None:
    """Profile a database, an API or files, and draft a source from it: defs.yaml, contract, staging."""
    from data_platform.components.source import type_name
    from data_platform.components.spec import NAME, RESERVED
    from data_platform.components.workspace import platform_package
    from data_platform.drafting.profile import Request
    from data_platform.drafting.texts import write_folder
    from data_platform.drafting.trial import trial
    from data_platform.lakehouse.settings import settings_from_environment

    package = platform_package(platform)
    target = package / "defs" / name
    if not NAME.fullmatch(name) or name in RESERVED:
        raise PlatformError(
            f"{name!r} cannot name a source: up to 100 lower case letters, digits and underscores, a letter first, and "
            f"none of {', '.join(sorted(RESERVED))}."
        )
    if target.exists():
        raise PlatformError(
            f"{target} exists already. Nothing was changed: add a table to its defs.yaml, or take another name."
        )
    settings = settings_from_environment()
    component, address = chosen_kind(kind, url, folder)
    request = Request(name, address, table or [], token_env, settings.landing, settings.spool)
    profile = component.profile(request)
    drafts = [drafted(one, component, key, cursor, cursor_param) for one in profile.tables]
    write_folder(target, package.name, type_name(component), profile.attributes, drafts)
    try:
        spec = load(package, name)
        verdicts = [trial(spec.tables[draft.name].recipe(spec.name), draft) for draft in drafts]
    except BaseException:
        shutil.rmtree(target)
        raise
    if profile.remember:
        from data_platform.cli.environment import remember

        remember(settings.home, profile.remember)
        os.environ.update(profile.remember)
    report(name, target, package, drafts, verdicts, profile.remember)


def chosen_kind(kind: str | None, url: str | None, folder: Path | None) -> tuple[type["SourceComponent"], str]:
    """The kind of source that is meant, and its address; a person is asked where neither was given.

    Raises PlatformError, naming the kinds that are registered, if there is none by that name or none for the address.
    """
    from data_platform.components.source import source_kinds
    from data_platform.components.spec import resolve

    kinds = source_kinds()
    address = str(folder) if folder is not None else url
    if kind is None and folder is not None:
        kind = "file"
    if kind is None and address is None:
        kind = prompt("What is it: " + ", ".join(kinds), "--type", list(kinds))
    if kind is not None and kind not in kinds:
        raise PlatformError(f"There is no kind of source {kind!r}. There are: {', '.join(kinds)}.")
    if address is None:
        file = kind == "file"
        address = prompt("Folder with the files" if file else "Address", "--folder" if file else "--url")
    if kind is not None:
        return kinds[kind], address
    recognised = [one for one in kinds.values() if one.recognises(resolve(address, "--url"))]
    if not recognised:
        raise PlatformError(f"What kind of source is at {address}? Say so with --type {'|'.join(kinds)}.")
    return recognised[0], address


def prompt(question: str, option: str, choices: Sequence[str] = ()) -> str:
    """Ask a person. Raises PlatformError, naming the option, where standard input is no terminal."""
    if not sys.stdin.isatty():
        raise PlatformError(f"{question}? Say so with {option}{' ' + '|'.join(choices) if choices else ''}.")
    answer: str = typer.prompt(question).strip()
    if choices and answer not in choices:
        raise PlatformError(f"{answer!r} is none of {', '.join(choices)}.")
    return answer


def drafted(
    profile: "TableProfile", component: type["SourceComponent"], key: str | None, cursor: str | None, param: str | None
) -> "Draft":
    """The draft of one table, with the key and the cursor that were given."""
    from data_platform.drafting.draft import draft_table

    columns = [name.strip() for name in (key or "").split(",") if name.strip()]
    options = {} if cursor is None else {"cursor": component.cursor_options(cursor, param)}
    draft = draft_table(profile, columns, cursor)
    return replace(draft, profile=replace(profile, place={**profile.place, **options}))


def load(package: Path, name: str) -> "SourceSpec":
    """Load the new source as Dagster will. Raises PlatformError if it does not load."""
    import importlib

    from data_platform.components.platform import broken_sources, source_spec

    importlib.invalidate_caches()
    broken = broken_sources(package, name)
    if broken:
        raise PlatformError(f"The draft of {name} does not load, so nothing was written: {broken[name]}")
    return source_spec(package, name)


def report(
    name: str,
    target: Path,
    package: Path,
    drafts: Sequence["Draft"],
    verdicts: Sequence[str],
    remembered: Mapping[str, str],
) -> None:
    """Say what was found, what was written, and what to do next."""
    from data_platform.cli.show import console, grid
    from data_platform.drafting.draft import CURSORS
    from data_platform.drafting.texts import dbt_source_text

    screen = console()
    for draft, verdict in zip(drafts, verdicts, strict=True):
        table = grid("column", "type", "null", "")
        for column in draft.columns:
            marks = [
                *(["key"] if column.name in draft.key else []),
                *(["masked"] if column.private else []),
                *(["e-mail addresses within are masked"] if column.within else []),
                *([f"was {column.raw!r}"] if column.raw != column.name else []),
                *([f"null for {', '.join(repr(label) for label in column.labels)}"] if column.labels else []),
                *column.notes,
            ]
            table.add_row(column.name, column.annotation, "yes" if column.nullable else "", ", ".join(marks))
        read = f"{draft.profile.rows.num_rows:,} rows read"
        print(f"\n{name}/{draft.name}: {read}; contract {draft.contract}, {verdict}.")
        screen.print(table)
        for note in draft.profile.notes:
            print(f"  {note}")
        likely = [column.raw for column in draft.columns if column.name in CURSORS and column.annotation == "Instant"]
        if likely and draft.cursor is None and "path" not in draft.profile.place:
            print(f"  loads read the whole table; if {likely[0]} grows with every change, write into defs.yaml:")
            print(f"      cursor: {{column: {likely[0]}, lag: 15m}}")
    print(f"\nWritten: {target}")
    for path in sorted(target.iterdir()):
        if path.is_file():
            print(f"  {path.name}")
    for variable in remembered:
        print(f"The address is kept as {variable} in the file `environment` of the home, readable by you alone.")
    masked = any(column.private or column.within for draft in drafts for column in draft.columns)
    if masked and not os.environ.get("DATA_PLATFORM_MASK_KEY"):
        print("Masking needs a key: set DATA_PLATFORM_MASK_KEY (openssl rand -hex 32), and keep it.")
    print("\nNext:")
    print("  1. Read contracts.py: say what you know of the data (isin, ge, le, references) and what columns mean.")
    print(f"  2. dp run {name}{_platform_option(package)}")
    print(f"  3. dp status; dp quarantine show {name}/{drafts[0].name}; dp read staged/{name}/{drafts[0].name}")
    print(f"  4. To model it, write dbt_project/models/sources/{name}.yml:\n")
    print("".join(f"       {line}\n" for line in dbt_source_text(name, drafts[0]).splitlines()), end="")
    print(f"     and read it in a model: select * from {{{{ source('staged_{name}', '{drafts[0].name}') }}}}")


def _platform_option(package: Path) -> str:
    from data_platform.components.workspace import platform_names

    return f" --platform {package.name}" if len(platform_names()) > 1 else ""
