"""`dp mask`: the key of the masks, changed for good. What is masked, and that no other key is used by mistake, is
`ingestion.masking`'s business.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from data_platform.errors import PlatformError

app = typer.Typer(help="The key of the masks.", no_args_is_help=True)


@app.callback()
def mask() -> None:
    """The key of the masks."""


@app.command()
def rotate(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="A table whose source no longer has all its rows, such as web/visits: the rows that it has keep their "
            "masks, which join with no new ones. Several times for several."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Mask with the key that DATA_PLATFORM_MASK_KEY holds now, from now on, instead of the one before.

    Masks cannot be computed from masks, and raw holds nothing else: each table with masked columns has to be read again
    from its source (`dp run TABLE --full-refresh`), and takes no new rows until then. What the source no longer has is
    lost by that, unless the table is kept as it is (--keep). In the meantime, and for tables that are kept, the same
    person has two masks. Make the change when both keys can be spared: the old one is of no use afterwards.
    """
    from data_platform.cleaning.masking import mask_key
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import MASK_KEY_VARIABLE, settings_from_environment
    from data_platform.lakehouse.transaction import commit

    settings = settings_from_environment()
    given = mask_key(settings.mask_secret).fingerprint
    with open_lakehouse(settings) as lake:
        if not ledger.exists(lake) or (known := ledger.mask_keys(lake.connection)).current is None:
            raise PlatformError(
                "Nothing is masked in this lakehouse yet: the first load that masks takes the key there is."
            )
        masked = {"/".join(table): table for table in sorted(known.tables)}
        unknown = [name for name in keep or [] if name not in masked]
        if unknown:
            raise PlatformError(f"No rows of {', '.join(unknown)} are masked. There are: {', '.join(masked)}.")
        if given == known.current and not keep:
            left = ["/".join(table) for table in known.of_earlier_keys()]
            raise PlatformError(
                f"{MASK_KEY_VARIABLE} holds the key of this lakehouse already (fingerprint {given}). "
                + (_next(left) if left else "Set it to the new one first: `openssl rand -hex 32`.")
            )
        kept = [masked[name] for name in dict.fromkeys(keep or [])]
        read_again = [name for name, table in masked.items() if table not in kept and known.tables[table] != given]
        print(f"Key before: {known.current}, since {known.since:%Y-%m-%d %H:%M} UTC. Key from now on: {given}.")
        print(f"To be read again: {', '.join(read_again) or 'nothing'}. Kept: {', '.join(keep or []) or 'nothing'}.")
        if not yes and not typer.confirm("Change the key?"):
            raise typer.Exit(1)
        commit(lake, lambda connection: ledger.record_mask_key(connection, given, kept, datetime.now(UTC)))
    print(f"The key is changed. {_next(read_again)}".strip())


def _next(tables: list[str]) -> str:
    """What to do with the tables that have to be read again."""
    if not tables:
        return ""
    return (
        f"Read again, until when they take no new rows: dp run {' '.join(tables)} --full-refresh. Then build the "
        "incremental models that hold masked columns from nothing (`full_refresh` in the launchpad)."
    )
