"""`dp test`: whether a source can be reached, and each of its tables is there. Nothing is loaded."""

from typing import Annotated

import typer

from data_platform.errors import PlatformError


def connect(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source, or one table of it: shop, shop/orders.")],
    platform: Annotated[str | None, typer.Option(help="The platform, if several have the source.")] = None,
) -> None:
    """Connect to a source and look whether its tables are there. The exit code is 1 if anything cannot be reached."""
    from data_platform.components.platform import source_spec
    from data_platform.components.workspace import platform_of

    name, _, table = source.strip("/").partition("/")
    spec = source_spec(platform_of(name, platform), name)
    if table and table not in spec.tables:
        raise PlatformError(f"{name} has no table {table}. It has: {', '.join(spec.tables)}.")
    tables = [table] if table else list(spec.tables)
    try:
        with spec.open() as opened:
            probes = opened.probe(tables, {})
    except PlatformError as error:
        raise PlatformError(f"{name} cannot be reached: {error}") from None
    failures = {one: failure for one in tables if (failure := probes[one].failure) is not None}
    if failures:
        reasons = "; ".join(f"{one}: {failure}" for one, failure in failures.items())
        raise PlatformError(f"{len(failures)} of {len(tables)} tables of {name} cannot be read: {reasons}")
    print(f"{name} answers: {', '.join(tables)}.")
