"""`dp add source` and `dp add table`: ask for what was not said, have tables profiled and drafted (`drafting`), write
them, and try them: each is loaded, staged and audited as it will be. What is reported of it is in `drafts`; `dp add
page` is in `page`.

A folder that exists is never written to by `dp add source`; `dp add table` adds to one, and replaces a table only with
`--force`.
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli import asking
from data_platform.cli.environment import in_environment
from data_platform.cli.page import page
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.components.source import SourceComponent
    from data_platform.components.spec import SourceSpec
    from data_platform.drafting.draft import Draft, Target, Wish
    from data_platform.drafting.profile import Profile, Request, TableProfile
    from data_platform.drafting.trial import Verdict
    from data_platform.ingestion.source import TableOptions

app = typer.Typer(help="Add to a platform.", no_args_is_help=True)
app.command()(page)

KeyOption = Annotated[
    str | None, typer.Option(help="Columns that identify a row, by commas; default: as declared, or as seen.")
]
CursorOption = Annotated[str | None, typer.Option(help="Column that grows with each change: loads only what is new.")]
ParamOption = Annotated[str | None, typer.Option(help="APIs: the parameter that asks for rows since a cursor.")]
OwnerOption = Annotated[
    str | None, typer.Option(help="Who answers for the tables: team:shop or an e-mail address; default: team:SOURCE.")
]
EncodingOption = Annotated[
    str | None, typer.Option(help="Files: the encoding of those that are not UTF-8; default: as their words show it.")
]
PlatformOption = Annotated[str | None, typer.Option(help="The platform, if workspace.yaml names several.")]


@dataclass(frozen=True)
class DraftOptions:
    """What the options say of every table that is drafted."""

    key: Sequence[str]
    cursor: str | None
    param: str | None
    owner: str


def draft_options(
    source: str, key: str | None, cursor: str | None, param: str | None, owner: str | None
) -> DraftOptions:
    """The options of a command. Raises PlatformError for what cannot be an owner."""
    columns = [name.strip() for name in (key or "").split(",") if name.strip()]
    if owner is not None and not re.fullmatch(r"team:[A-Za-z0-9_]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
        raise PlatformError(f"{owner!r} is no owner: write team:shop or an e-mail address.")
    return DraftOptions(columns, cursor, param, owner or f"team:{source}")


@app.callback()
def add() -> None:
    """Add to a platform."""


@app.command()
def source(
    name: Annotated[str, typer.Argument(help="What the source is called here: lower case, such as shop.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="sql, rest, file, kafka, iceberg, delta, ducklake, dlt, singer, or a kind of another package; "
            "default: as the address is.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Database (postgresql://, mysql://, a SQLite file), first page of an API, lake (iceberg+https://, "
            'iceberg+sqlite:///, delta+s3://, delta+/folder, ducklake+postgresql://), or "{{ env.NAME }}".'
        ),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            help="Folder of files; a relative one lies in the platform's landing folder, or here. Or s3://, gs://, "
            "az://, sftp://, hdfs://, https:// (one whose index is shown)."
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="A table to take; several times for several (of an API: paths below the URL)."),
    ] = None,
    every_table: Annotated[bool, typer.Option("--all", help="Take all tables that there are.")] = False,
    tap: Annotated[
        str | None,
        typer.Option(help="Singer: the pip package of a tap, the name of its program, or its path."),
    ] = None,
    dlt: Annotated[
        str | None,
        typer.Option(help="dlt: a function that gives a source or resource, as package.module:function."),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            help="What a tap, a function of dlt, a lake or a folder elsewhere is configured with: a file of JSON, or "
            "KEY=VALUE, several times."
        ),
    ] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="Databases: read every change from the log, not the tables.")
    ] = False,
    encoding: EncodingOption = None,
    key: KeyOption = None,
    cursor: CursorOption = None,
    cursor_param: ParamOption = None,
    token_env: Annotated[
        str | None, typer.Option(help="APIs and https:// folders: the environment variable with the bearer token.")
    ] = None,
    owner: OwnerOption = None,
    platform: PlatformOption = None,
) -> None:
    """Profile a database, an API, files, topics, a lake, a tap or a function of dlt, draft a source from it (defs.yaml,
    contract, staging), and try the draft.

    The exit code is 1 if a table could not be drafted or failed its trial, or the source lacks what its log needs.
    """
    from data_platform.cli.choosing import chosen_kind, chosen_platform, refuse_unused
    from data_platform.cli.drafts import keep_secrets, report, report_source
    from data_platform.components.source import type_name
    from data_platform.components.spec import NAME, RESERVED
    from data_platform.drafting.configuration import configuration
    from data_platform.drafting.draft import with_references
    from data_platform.drafting.profile import Request
    from data_platform.drafting.texts import write_folder
    from data_platform.lakehouse.settings import settings_from_environment

    package = chosen_platform(platform)
    target = package / "defs" / name
    if not NAME.fullmatch(name) or name in RESERVED:
        raise PlatformError(
            f"{name!r} cannot name a source: up to 100 lower case letters, digits and underscores, a letter first, and "
            f"none of {', '.join(sorted(RESERVED))}."
        )
    if target.exists():
        raise PlatformError(
            f"{target} exists already. Nothing was changed. Add a table to it by `dp add table {name} TABLE`, remove "
            f"it by `dp remove {name}`, or take another name."
        )
    chosen = draft_options(name, key, cursor, cursor_param, owner)
    settings = settings_from_environment()
    component, address = chosen_kind(kind, url, folder, tap, dlt)
    refuse_unused(component, changes=changes, config=config, encoding=encoding)
    written, secrets = configuration(name, config or [], component.secrets())
    with in_environment(secrets):
        request = Request(name, address, table or [], token_env, settings, written, changes, encoding)
        if not request.tables and (choices := component.choices(request)):
            request = replace(request, tables=choices if every_table else asking.chosen_tables(choices))
        profile = profiled(component.profile, request)
        drafts, failures = draft_all(profile, component, chosen, {})
        drafts = with_references(drafts)
        write_folder(target, package.name, type_name(component), profile.attributes, drafts, failures)
        remembered = {**secrets, **profile.remember}
        with in_environment(remembered):
            try:
                verdicts = attempt(load(package, name), [draft.name for draft in drafts])
                mark(target, verdicts)
            except BaseException:
                shutil.rmtree(target)
                raise
    kept = keep_secrets(settings, drafts, remembered)
    report(target, drafts, verdicts, failures, kept)
    report_source(name, profile)
    if failures or profile.missing or not all(verdict.passed for verdict in verdicts.values()):
        raise typer.Exit(1)


@app.command("table")
def add_table(
    source: Annotated[str, typer.Argument(help="The source that the tables are added to.")],
    tables: Annotated[
        list[str], typer.Argument(metavar="TABLE...", help="Tables, as the source calls them (of an API: their paths).")
    ],
    encoding: EncodingOption = None,
    key: KeyOption = None,
    cursor: CursorOption = None,
    cursor_param: ParamOption = None,
    owner: OwnerOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Draft a table that is there again: its contract and staging function are written anew."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    platform: PlatformOption = None,
) -> None:
    """Draft further tables of a source that is there, or draft some again, and try them.

    Of a table that is there, what a new draft would change is shown, and written with --force alone. Options in
    defs.yaml that a draft does not make (cursor, refuse_above, ...), and its key and masks stay. The exit code is 1
    if a table could not be drafted, or failed its trial.
    """
    from data_platform.cli.drafts import keep_secrets, report
    from data_platform.components.component import folder_of
    from data_platform.components.platform import source_component, source_spec
    from data_platform.components.workspace import platform_of
    from data_platform.drafting.draft import with_references
    from data_platform.drafting.editing import changes, undo, write
    from data_platform.drafting.profile import Request
    from data_platform.lakehouse.settings import settings_from_environment

    package = platform_of(source, platform)
    target = folder_of(package, source)
    settings = settings_from_environment()
    component = source_component(package, source)
    spec = source_spec(package, source)
    chosen = draft_options(source, key, cursor, cursor_param, owner)
    request = Request(source, "", tables, None, settings, encoding=encoding)
    profile = renamed(profiled(component.profile_more, request), component)
    there = [one.name for one in profile.tables if one.name in spec.tables]
    options = {name: spec.tables[name].table for name in there}
    drafts, failures = draft_all(profile, type(component), chosen, spec_contracts(spec, set(there)), options)
    drafts = [
        replace(draft, contract=spec.tables[draft.name].contract.__name__) if draft.name in there else draft
        for draft in drafts
    ]
    drafts = with_references(drafts, targets(component, spec))
    made = changes(target, ".".join(target.parts[-3:]), drafts)
    if there:
        for change in made:
            print(change.diff(), end="")
        named = ", ".join(there)
        if not made:
            print(f"{named}: a new draft is the same. Nothing was changed.")
            return
        if not force:
            raise PlatformError(
                f"{source} has {named} already; above is what a new draft would change. Nothing was changed: write it "
                f"by `dp add table {source} {' '.join(tables)} --force`, or change the files by hand."
            )
        if not yes and asking.is_terminal():
            typer.confirm(
                f"Write this? What was changed by hand in contract and function of {named} is lost.",
                abort=True,
                err=True,
            )
    write(made)
    try:
        verdicts = attempt(load(package, source), [draft.name for draft in drafts])
        mark(target, verdicts)
    except BaseException:
        undo(made)
        raise
    kept = keep_secrets(settings, drafts, {})
    report(target, drafts, verdicts, failures, kept)
    if failures or not all(verdict.passed for verdict in verdicts.values()):
        raise typer.Exit(1)


def profiled(profile: Callable[["Request"], "Profile"], request: "Request") -> "Profile":
    """What is profiled; a person is asked in which encoding a file reads right, where its words do not tell. Raises
    PlatformError, naming the option, where standard input is no terminal."""
    from data_platform.drafting.encoding import UnclearEncodingError

    try:
        return profile(request)
    except UnclearEncodingError as unclear:
        if not unclear.readings or not asking.is_terminal():
            raise
        print(unclear)
        shown = {f"{name}: {reading}": name for name, reading in unclear.readings.items()}
        (chosen,) = asking.picked("In which does it read right? A number", [*shown], several=False)
    return profile(replace(request, encoding=shown[chosen]))


def draft_all(
    profile: "Profile",
    component: type["SourceComponent"],
    chosen: DraftOptions,
    contracts: Mapping[str, str],
    there: Mapping[str, "TableOptions"] = MappingProxyType({}),
) -> tuple[list["Draft"], dict[str, str]]:
    """The drafts of all tables that can be drafted, and why the others cannot. `contracts` are those that are there;
    of the tables that are `there`, key, masks and the choice of columns stay unless another one is chosen.

    Raises PlatformError if there is none.
    """
    from data_platform.drafting.draft import draft_table

    drafts: list[Draft] = []
    failures = dict(profile.failures)
    for one in profile.tables:
        taken = {*contracts, *(draft.contract for draft in drafts)}
        try:
            options = {} if chosen.cursor is None else component.incremental(chosen.cursor, chosen.param)
            one = as_before(one, there[one.name]) if one.name in there else one
            draft = draft_table(one, wish(one, chosen, there.get(one.name)), taken)
            drafts.append(replace(draft, profile=replace(one, place={**one.place, **options})))
        except PlatformError as error:
            failures[one.name] = str(error)
    if not drafts:
        raise PlatformError(" ".join(dict.fromkeys(failures.values())))
    return drafts, failures


def as_before(profile: "TableProfile", options: "TableOptions") -> "TableProfile":
    """A profile with the columns alone that `columns` of a table names."""
    cursor = getattr(options, "cursor", None)
    wanted = {*(getattr(options, "columns", None) or profile.rows.column_names), *([cursor.column] if cursor else [])}
    return replace(profile, rows=profile.rows.select([name for name in profile.rows.column_names if name in wanted]))


def wish(profile: "TableProfile", chosen: DraftOptions, options: "TableOptions | None") -> "Wish":
    """What is wished of a table: what was chosen, and else what holds of it already, as far as its rows have that."""
    from data_platform.drafting.draft import Wish
    from data_platform.drafting.naming import column_names

    if options is None:
        return Wish(chosen.key, chosen.cursor, chosen.owner)
    names = {name for pair in column_names(profile.rows.column_names).items() for name in pair}
    key = options.key if set(options.key) <= names else []
    return Wish(chosen.key or key, chosen.cursor, chosen.owner, options.mask, options.mask_within)


def renamed(profile: "Profile", component: "SourceComponent") -> "Profile":
    """The profile of further tables of a source, by the names that they have there; new ones by names of their own."""
    from data_platform.drafting.naming import distinct_names

    known = {component.origin(name, table): name for name, table in component.options.tables.items()}
    new = [one for one in profile.tables if one.origin not in known]
    names = distinct_names(
        [one.name for one in new], [one.name for one in new], [*component.options.tables, *known.values()]
    )
    by_origin = {**known, **{one.origin: name for one, name in zip(new, names, strict=True)}}
    tables: list[TableProfile] = []
    for one in profile.tables:
        name = by_origin[one.origin]
        # A database finds a table by its own name unless `table` says another; other kinds always name it.
        place: dict[str, Any] = dict(one.place)
        if not {"path", "topic", "stream", "resource"} & place.keys():
            place = {**place, "table": one.origin} if name != one.origin else place
        tables.append(replace(one, name=name, place=place))
    return replace(profile, tables=tables)


def spec_contracts(spec: "SourceSpec", without: set[str]) -> dict[str, str]:
    """The names of a source's contracts, but for those of some tables."""
    return {table.contract.__name__: name for name, table in spec.tables.items() if name not in without}


def targets(component: "SourceComponent", spec: "SourceSpec") -> dict[str, "Target"]:
    """The tables of a source that others may refer to, by what the source calls them."""
    from data_platform.contracts.contract import contract_columns
    from data_platform.drafting.draft import Target

    found = {}
    for name, table in spec.tables.items():
        columns = {one.name: (one.name, one.dtype) for one in contract_columns(table.contract) if not one.private}
        found[component.origin(name, table.table)] = Target(name, columns)
    return found


def load(package: Path, name: str) -> "SourceSpec":
    """Load a source as Dagster will. Raises PlatformError if it does not load."""
    import importlib

    from data_platform.components.component import folder_of
    from data_platform.components.platform import broken_sources, source_spec

    importlib.invalidate_caches()
    own = f"{'.'.join(folder_of(package, name).parts[-3:])}."
    for module in [one for one in sys.modules if one.startswith(own)]:
        del sys.modules[module]
    broken = broken_sources(package, name)
    if broken:
        raise PlatformError(f"The draft of {name} does not load, so nothing was written: {broken[name]}")
    return source_spec(package, name)


def attempt(spec: "SourceSpec", names: Sequence[str]) -> dict[str, "Verdict"]:
    """Try tables of a source: load, stage and audit them into a lakehouse that is thrown away."""
    from data_platform.drafting.trial import Trying, Verdict, tried

    readings = list(dict.fromkeys(spec.reading_of(name) for name in names))
    covered = [(reading, spec.readings.get(reading, [reading])) for reading in readings]
    if spec.trial is not None:
        covered = [(name, [name]) for name in names]
    tables = {
        name: Trying(spec.tables[name].table, spec.tables[name].recipe(spec.name))
        for _, those in covered
        for name in those
    }
    try:
        with (spec.trial or spec.open)() as opened:
            verdicts = tried(opened, spec.name, covered, tables, spec.settings)
    except PlatformError as error:
        return {name: Verdict(failures=(f"its source cannot be read: {error}",)) for name in names}
    return {name: verdicts[name] for name in names}


def mark(target: Path, verdicts: Mapping[str, "Verdict"]) -> None:
    """Write into `defs.yaml` which tables failed their trial, and why."""
    from data_platform.drafting.editing import with_verdicts

    file = target / "defs.yaml"
    before = file.read_text(encoding="utf-8")
    after = with_verdicts(file, before, verdicts)
    if after != before:
        file.write_text(after, encoding="utf-8")
