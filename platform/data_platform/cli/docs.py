"""`dp docs`: the reference of every key of `defs.yaml`, for people and for editors. It is made in
`components.reference`."""

from typing import Annotated

import typer


def docs(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema for editors, as in platform/defs.schema.json.")
    ] = False,
) -> None:
    """Print the reference of every key of defs.yaml, as Markdown."""
    from data_platform.components import reference

    print(reference.schema_text() if schema else reference.page(), end="")
