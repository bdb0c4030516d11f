"""`dp add page`: a first page of one table, or of all that is loaded, drafted by what is there, tried, and written.
What a draft shows is decided in `dashboards.drafts`.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from data_platform.errors import PlatformError

DEFS = """\
# Pages: a YAML file each beside this one. Their keys: `dp docs`.
type: data_platform.components.Dashboards
attributes:
  owner: team:analytics
"""


def page(
    name: Annotated[str, typer.Argument(help="What the page is called: lower case, such as sales.")],
    table: Annotated[
        str | None,
        typer.Option(
            help="The table that it shows: modelled.fct_order or staged/shop/orders; default: what is loaded, how "
            "fresh it is, and what is in quarantine."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Its heading; default: its name, in words.")] = None,
    platform: Annotated[str | None, typer.Option(help="The platform, if workspace.yaml names several.")] = None,
) -> None:
    """Draft a page of a table, by what its columns hold: rows and numbers by day, categories as bars, latest rows."""
    from data_platform.cli.choosing import chosen_platform
    from data_platform.components.component import folders
    from data_platform.components.dashboards import platform_pages, private_columns, require_readable
    from data_platform.components.ownership import DASHBOARDS as COMPONENT
    from data_platform.components.ownership import declared
    from data_platform.components.spec import NAME
    from data_platform.dashboards.build import require_drawable
    from data_platform.dashboards.drafts import draft_table_page, overview_page
    from data_platform.dashboards.pages import page_from
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import find_table
    from data_platform.lakehouse.settings import settings_from_environment

    package = chosen_platform(platform)
    if not NAME.fullmatch(name):
        raise PlatformError(
            f"{name!r} cannot name a page: up to 100 lower case letters, digits and underscores, a letter first."
        )
    there = {one.name: one.file for one in platform_pages(package)}
    if name in there:
        raise PlatformError(f"{there[name]} is the page {name} already. Nothing was changed: take another name.")
    of_pages = [folder for folder in folders(package) if declared(folder)[0] == COMPONENT]
    folder = of_pages[0] if of_pages else package / "defs" / "dashboards"
    if not of_pages and folder.exists():
        raise PlatformError(f"{folder} exists and holds no pages. Nothing was changed: move it away.")
    heading = title or name.replace("_", " ").capitalize()
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        if table is None:
            text = overview_page(heading)
        else:
            shown = find_table(lake, table)
            text = draft_table_page(lake, shown, heading, private_columns(package, shown))
        new = page_from(text, folder / f"{name}.yaml")
        require_drawable(lake, new, require_readable(package, [new]))
    _write(new.file, text, first=not of_pages)
    print(f"Written: {new.file} ({len(new.options.blocks)} blocks)")
    print("\nNext:")
    print("  1. Read it, and keep what you want to see: titles, order, units. Its queries are yours to change.")
    print(f"  2. dp run dashboards/{name}; a sensor has it built again when its tables change.")
    print(f"  3. dp dashboards {name} --open")


def _write(file: Path, text: str, *, first: bool) -> None:
    """Write a page, and the folder around it if it is the first: whole or not at all. Raises PlatformError if that
    cannot be."""
    folder = file.parent
    try:
        if not first:
            with file.open("x", encoding="utf-8") as out:
                out.write(text)
            return
        partial = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        texts = {"__init__.py": '"""The pages: a YAML file each."""\n', "defs.yaml": DEFS, file.name: text}
        for name, one in texts.items():
            (partial / name).write_text(one, encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        raise PlatformError(f"{file} cannot be written: {error.strerror}. Nothing was changed.") from None
