"""`dp add source`: from a look at the data to a source that loads, is audited and can be modelled.

It looks (`look`, `look_http`), drafts (`draft`), writes a folder that was not there before, loads it as Dagster will,
and holds the rows it saw against the drafted contract. Nothing that exists is changed.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.components.spec import SourceSpec
    from data_platform.drafting.draft import Draft
    from data_platform.drafting.profile import Found

app = typer.Typer(help="Add to a platform.", no_args_is_help=True)

NAME = re.compile(r"[a-z][a-z0-9_]*")


class Kind(StrEnum):
    """What kind of system a source is."""

    sql = "sql"
    rest = "rest"
    file = "file"


COMPONENTS = {Kind.sql: "SqlSource", Kind.rest: "RestSource", Kind.file: "FileSource"}


@app.callback()
def add() -> None:
    """Add to a platform."""


@app.command()
def source(
    name: Annotated[str, typer.Argument(help="What the source is called here: lower case, such as shop.")],
    kind: Annotated[
        Kind | None, typer.Option("--type", help="sql, rest or file; default: what the address says.")
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
    """Look at a database, an API or files, and draft a source from it: defs.yaml, contract, staging."""
    from data_platform.components.workspace import platform_package
    from data_platform.lakehouse.settings import settings_from_environment

    package = platform_package(platform)
    target = package / "defs" / name
    if not NAME.fullmatch(name):
        raise PlatformError(
            f"{name!r} cannot name a source: lower case letters, digits and underscores, a letter first."
        )
    if target.exists():
        raise PlatformError(
            f"{target} exists already. Nothing was changed: add a table to its defs.yaml, or take another name."
        )
    settings = settings_from_environment()
    if kind is None:
        kind = _kind(url, folder)
    if kind is Kind.file and folder is None:
        folder = Path(_asked("Folder with the files", "--folder"))
    if kind is not Kind.file and url is None:
        url = _asked("Address", "--url")
    looked = look(name, kind, url, folder, table or [], token_env, settings.landing, settings.spool)
    drafts = [_drafted(found, key, cursor, kind, cursor_param) for found in looked.found]
    write(target, package, kind, looked.attributes, drafts)
    try:
        spec = load(package, name)
        verdicts = [judge(spec, draft) for draft in drafts]
    except BaseException:
        shutil.rmtree(target)
        raise
    if looked.remember:
        from data_platform.cli.environment import remember

        remember(settings.home, looked.remember)
        os.environ.update(looked.remember)
    report(name, target, package, drafts, verdicts, looked)


@dataclass(frozen=True)
class Looked:
    """What a look found: the tables, what `defs.yaml` says of the source, and variables to keep in the home."""

    found: Sequence["Found"]
    attributes: dict[str, Any]
    remember: dict[str, str]


def _kind(url: str | None, folder: Path | None) -> Kind:
    if folder is not None:
        return Kind.file
    if url is not None:
        return Kind.rest if resolved(url).startswith(("http://", "https://")) else Kind.sql
    return Kind(_asked("What is it: sql, rest or file", "--type", [kind.value for kind in Kind]))


def _asked(question: str, option: str, choices: Sequence[str] = ()) -> str:
    """Ask a person. Raises PlatformError, naming the option, where nobody is there to answer."""
    if not sys.stdin.isatty():
        raise PlatformError(f"{question}? Say so with {option}{' ' + '|'.join(choices) if choices else ''}.")
    answer: str = typer.prompt(question).strip()
    if choices and answer not in choices:
        raise PlatformError(f"{answer!r} is none of {', '.join(choices)}.")
    return answer


def resolved(url: str) -> str:
    """The address itself, of one that names an environment variable."""
    from data_platform.components.spec import resolve

    return resolve(url, "--url")


def look(
    name: str,
    kind: Kind,
    url: str | None,
    folder: Path | None,
    tables: Sequence[str],
    token_env: str | None,
    landing: Path,
    spool: Path,
) -> Looked:
    """Look at the source's data. Raises PlatformError if it cannot be reached or read."""
    from data_platform.drafting.api import look_at_api
    from data_platform.drafting.profile import look_at_database, look_at_files

    if kind is Kind.file:
        assert folder is not None  # noqa: S101 - asked for above
        given = folder.expanduser()
        # The landing folder is where a relative `folder` will be looked for, so it is looked for there first.
        within = landing / given
        spool.mkdir(parents=True, exist_ok=True)
        place = within if within.is_dir() else given.resolve()
        written = str(given) if within.is_dir() else str(place)
        attributes = {"description": f"Files delivered to {written}.", "folder": written}
        return Looked(look_at_files(place, tables, spool), attributes, {})
    assert url is not None  # noqa: S101 - asked for above
    address = resolved(url)
    if kind is Kind.rest:
        token = os.environ.get(token_env) if token_env else None
        if token_env and not token:
            raise PlatformError(f"--token-env names {token_env}, which is not set in the environment.")
        base, found = look_at_api(address, tables[0] if tables else None, token)
        auth = {"auth": {"type": "bearer", "token": "{{ env." + str(token_env) + " }}"}} if token_env else {}
        return Looked([found], {"description": f"The API at {base}.", "url": base, **auth}, {})
    found_tables = look_at_database(address, tables)
    written, remembered = database_address(name, url, address)
    attributes = {"description": f"The database {name}.", "url": written}
    return Looked(found_tables, attributes, remembered)


def database_address(name: str, given: str, address: str) -> tuple[str, dict[str, str]]:
    """How `defs.yaml` writes a database's address, and what the environment has to hold for it.

    A SQLite file is no secret; the address of a server may hold a password, so it is kept in the environment.
    """
    if "{{" in given:
        return given, {}
    if "://" not in address or address.startswith("sqlite://"):
        return str(Path(address.removeprefix("sqlite://")).expanduser().resolve()), {}
    variable = f"{name.upper()}_URL"
    if os.environ.get(variable, address) != address:
        raise PlatformError(
            f"The address would be kept as {variable}, which is set to something else. Unset it, or give "
            f'--url "{{{{ env.NAME }}}}" with the variable that holds this address.'
        )
    return f"{{{{ env.{variable} }}}}", {variable: address}


def _drafted(found: "Found", key: str | None, cursor: str | None, kind: Kind, cursor_param: str | None) -> "Draft":
    from dataclasses import replace

    from data_platform.drafting.draft import draft_table

    columns = [name.strip() for name in (key or "").split(",") if name.strip()]
    if cursor and kind is Kind.file:
        raise PlatformError("Files need no --cursor: each is loaded once.")
    if cursor and kind is Kind.rest and not cursor_param:
        raise PlatformError("An API needs to be asked for what is new: give --cursor-param, such as since.")
    drafted = draft_table(found, columns, cursor)
    if cursor is None:
        return drafted
    options = {"column": cursor, **({"param": cursor_param} if cursor_param else {})}
    return replace(drafted, found=replace(found, place={**found.place, "cursor": options}))


def write(target: Path, package: Path, kind: Kind, attributes: dict[str, Any], drafts: Sequence["Draft"]) -> None:
    """Write the source's folder, whole or not at all."""
    from data_platform.drafting.draft import contracts_text, defs_text, staging_text

    module = f"{package.name}.defs.{target.name}"
    files = {
        "__init__.py": f'"""The source {target.name}: its contracts and how its raw rows are staged."""\n',
        "defs.yaml": defs_text(module, COMPONENTS[kind], attributes, drafts),
        "contracts.py": contracts_text(target.name, drafts),
        "staging.py": staging_text(target.name, drafts),
    }
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for file, text in files.items():
            if text is not None:
                (partial / file).write_text(text, encoding="utf-8")
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PlatformError(f"{target} cannot be written: {error.strerror}.") from None


def load(package: Path, name: str) -> "SourceSpec":
    """Load the new source as Dagster will. Raises PlatformError if it does not load."""
    import importlib

    from data_platform.components.platform import broken_sources, source_spec

    importlib.invalidate_caches()
    broken = broken_sources(package, name)
    if broken:
        raise PlatformError(f"The draft of {name} does not load, so nothing was written: {broken[name]}")
    return source_spec(package, name)


def judge(spec: "SourceSpec", draft: "Draft") -> str:
    """Hold the rows that were looked at against the drafted contract; what came of it, in a sentence."""
    import polars as pl

    from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within
    from data_platform.staging.batches import stage_batch

    rows = pl.DataFrame(pl.from_arrow(draft.found.rows))
    if rows.is_empty():
        return "there were no rows to try it on"
    # A key for this look alone: what was masked with it is thrown away.
    key = MaskKey(os.urandom(32))
    rows = mask_columns(rows, [column.raw for column in draft.columns if column.private], key)
    rows = mask_emails_within(rows, [column.raw for column in draft.columns if column.within], key)
    numbered = rows.with_columns(
        pl.lit(1, pl.Int64).alias("_load_id"), pl.int_range(pl.len(), dtype=pl.Int64).alias("_row")
    )
    audited = stage_batch(numbered, spec.tables[draft.name].recipe(spec.name), None)
    if audited.bad.is_empty():
        return f"all {len(rows):,} rows that were looked at satisfy it"
    worst = audited.violations.filter("fatal").sort("rows", descending=True).row(0, named=True)
    reason = f"{worst['column']} {worst['check']} ({worst['rows']:,} rows)"
    return f"{len(audited.bad):,} of the {len(rows):,} rows that were looked at break it: {reason}"


def report(
    name: str, target: Path, package: Path, drafts: Sequence["Draft"], verdicts: Sequence[str], looked: Looked
) -> None:
    """Say what was found, what was written, and what to do next."""
    from data_platform.cli.show import console, grid
    from data_platform.drafting.draft import CURSORS, dbt_source_text

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
        looked_at = f"{draft.found.rows.num_rows:,} rows looked at"
        print(f"\n{name}/{draft.name}: {looked_at}; contract {draft.contract}, {verdict}.")
        screen.print(table)
        for note in draft.found.notes:
            print(f"  {note}")
        likely = [column.raw for column in draft.columns if column.name in CURSORS and column.annotation == "Instant"]
        if likely and draft.cursor is None and "path" not in draft.found.place:
            print(f"  loads read the whole table; if {likely[0]} grows with every change, write into defs.yaml:")
            print(f"      cursor: {{column: {likely[0]}, lag: 15m}}")
    print(f"\nWritten: {target}")
    for path in sorted(target.iterdir()):
        if path.is_file():
            print(f"  {path.name}")
    for variable in looked.remember:
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
