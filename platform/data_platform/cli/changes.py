"""`dp changes`: what sources that are read by their log of changes keep for us, and its removal. How each database does
it is `ingestion.changes`' work.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_platform.components.spec import SourceSpec
    from data_platform.ingestion.changes.held import Held

app = typer.Typer(help="What sources keep for us that are read by their log of changes.", no_args_is_help=True)

Platform = Annotated[str | None, typer.Option(help="The platform, if several have the source.")]


@app.callback()
def changes() -> None:
    """What sources keep for us that are read by their log of changes."""


@app.command("list")
def list_(
    source: Annotated[str | None, typer.Argument(help="The source; default: all that are read by their log.")] = None,
    platform: Platform = None,
) -> None:
    """Show the replication slots, publications and logs that sources keep for us, and how much of the log that is. The
    exit code is 1 if a source does not answer, or keeps more than its `retained_above`."""
    from rich.markup import escape

    from data_platform.cli.show import console, grid
    from data_platform.options import size_text

    specs = [_spec(source, platform)] if source else _all(platform)
    if not specs:
        print("No source is read by its log of changes. A SqlSource is, with `changes: true` in its defs.yaml.")
        return
    table = grid("source", "kind", "name", "state", "behind", "kept", "made by", right=["behind", "kept"])
    wrong = []
    for spec in specs:
        try:
            found = _held(spec)
        except PlatformError as error:
            wrong.append(f"{spec.name}: {error}")
            continue
        kept = max((one.retained or 0 for one in found), default=0)
        if kept > (spec.retained_above or 0):
            limit = size_text(spec.retained_above or 0)
            wrong.append(f"{spec.name} keeps {size_text(kept)}, more than `retained_above` allows ({limit}).")
        for one in found:
            figures = ["" if value is None else size_text(value) for value in (one.behind, one.retained)]
            by = "the platform" if one.is_ours else "a person"
            table.add_row(spec.name, one.kind, escape(one.name), escape(one.state), *figures, by)
        if not found:
            table.add_row(spec.name, "nothing", "", "", "", "", "")
    if table.row_count:
        console().print(table)
    if wrong:
        raise PlatformError("\n".join(wrong))


@app.command()
def drop(
    source: Annotated[str, typer.Argument(help="The source.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    platform: Platform = None,
) -> None:
    """Remove what the platform made at a source to read its changes. What a person made stays.

    What was loaded stays as well. The changes from now on are lost to the platform: to read the source again, load all
    of its tables anew with `dp run SOURCE --full-refresh`.
    """
    from data_platform.ingestion.changes.held import change_source

    spec = _spec(source, platform)
    ours = [one for one in _held(spec) if one.is_ours]
    if not ours:
        print(f"The platform made nothing at {source} that is there now.")
        return
    print(f"At {source}: {', '.join(f'{one.kind} {one.name}' for one in ours)}.")
    print("Its changes from now on are lost to the platform; what was loaded stays.")
    if not yes and not typer.confirm("Remove it?"):
        raise typer.Exit(1)
    with spec.open() as opened:
        dropped = change_source(opened, source).drop()
    print(f"Removed: {', '.join(f'{one.kind} {one.name}' for one in dropped) or 'nothing'}.")
    print(f"To read {source} by its changes again: dp run {source} --full-refresh")


def _spec(source: str, platform: str | None) -> "SourceSpec":
    """A source that is read by its log. Raises PlatformError if there is none of that name, or it is not."""
    from data_platform.components.platform import source_spec
    from data_platform.components.workspace import platform_of
    from data_platform.ingestion.changes.held import has_no_log

    spec = source_spec(platform_of(source, platform), source)
    if spec.retained_above is None:
        raise has_no_log(source)
    return spec


def _all(platform: str | None) -> "list[SourceSpec]":
    """All sources that are read by their log. One whose files are broken is passed over: `dp doctor` names it."""
    from data_platform.components.component import folders
    from data_platform.components.platform import source_spec
    from data_platform.components.workspace import platform_names, platform_package

    found = []
    for package in [platform_package(one) for one in ([platform] if platform else platform_names())]:
        for folder in folders(package):
            try:
                spec = source_spec(package, folder.name)
            except PlatformError:
                continue
            found += [spec] if spec.retained_above is not None else []
    return found


def _held(spec: "SourceSpec") -> "Sequence[Held]":
    from data_platform.ingestion.changes.held import change_source
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse

    reading = spec.reading_of(next(iter(spec.tables)))
    with open_lakehouse(spec.settings) as lake:
        position = ledger.head(lake, "raw", spec.name, reading).position if ledger.exists(lake) else {}
    with spec.open() as opened:
        return change_source(opened, spec.name).held(position)
