"""`dp dashboards`: the pages of a platform, where they lie, and one of them opened in a browser. Nothing is built here:
`dp run dashboards` does that, and the sensor.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from data_platform.cli.show import ago, console, grid, print_json
from data_platform.errors import PlatformError

PlatformOption = Annotated[
    str | None, typer.Option("--platform", help="The platform, where workspace.yaml names several.")
]


def dashboards(
    page: Annotated[str | None, typer.Argument(help="One page, such as operations: prints where it lies.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser; without a page, the first.")] = False,
    platform: PlatformOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the pages of the platform, or print where one lies."""
    from data_platform.components.dashboards import platform_pages
    from data_platform.components.workspace import platform_package
    from data_platform.dashboards.build import file_of
    from data_platform.lakehouse.settings import settings_from_environment

    package, settings = platform_package(platform), settings_from_environment()
    pages = {one.name: one for one in platform_pages(package)}
    if page is not None and page not in pages:
        raise PlatformError(f"There is no page {page} in {package.name}. There are: {', '.join(pages) or 'none'}.")
    files = {name: file_of(settings, name) for name in pages if page in (None, name)}
    if open_it or page is not None:
        built = [name for name, file in files.items() if file.is_file()]
        if not built:
            what = f"The page {page}" if page is not None else f"No page of {package.name}"
            raise PlatformError(
                f"{what} {'was not' if page is not None else 'was'} built yet. Build it: dp run dashboards"
            )
        file = files[built[0]]
        print(file)
        if open_it and typer.launch(file.absolute().as_uri()):
            raise PlatformError(f"There is no browser here that could be started. Open {file} in one.")
        return
    at = {name: datetime.fromtimestamp(file.stat().st_mtime, UTC) for name, file in files.items() if file.is_file()}
    if as_json:
        print_json(
            [
                {"page": name, "title": one.options.title, "file": str(files[name]), "built_at": at.get(name)}
                for name, one in pages.items()
            ]
        )
        return
    if not pages:
        print(f"{package.name} has no pages. How to declare them: `Dashboards` in the reference (`dp docs`).")
        return
    table = grid("page", "title", "built", "file")
    for name, one in pages.items():
        table.add_row(name, one.options.title, ago(at.get(name)), str(files[name]) if name in at else "not built yet")
    console().print(table)
