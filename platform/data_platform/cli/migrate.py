"""`dp migrate`: brings a lakehouse of an earlier release up to date, after data-platform was upgraded. The first run or
sensor tick does it too; this does it when it suits, and says what it did."""

from pathlib import Path
from typing import Annotated

import typer

from data_platform.cli.show import print_json
from data_platform.errors import PlatformError


def migrate(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Bring the lakehouse of an earlier release up to date: its ledger in one commit, then its catalog. Again, it does
    nothing; a lakehouse of a newer release is refused. Stop whatever has it open first: an earlier release cannot
    commit to it afterwards, and what is open may miss tables of the catalog that are gone."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.maintenance import update_catalog
    from data_platform.lakehouse.settings import redact_url, settings_from_environment
    from data_platform.modelling.views import replace_views
    from data_platform.observability.views import replace_views as replace_ledger_views

    settings = settings_from_environment()
    before = now = dropped = 0
    made_anew = False
    views: list[str] = []
    if not settings.catalog_is_sqlite or Path(settings.catalog).exists():
        with open_lakehouse(settings) as lake:
            before, now = ledger.migrate(lake)
            views = replace_views(lake) if now else []
            dropped = update_catalog(lake) if now else 0
            # DuckLake crashes where options are set of a schema after views were made in it.
            made_anew = bool(now) and replace_ledger_views(lake)
    if as_json:
        print_json({"from": before, "to": now, "models": views})
        return
    where = f"The ledger of {redact_url(settings.catalog)}"
    if not now:
        print(f"There is no ledger at {redact_url(settings.catalog)} yet: nothing to bring up to date.")
    elif before == now:
        print(
            f"{where} has version {now}, which is this release's{'.' if dropped or made_anew else ': nothing to do.'}"
        )
    else:
        print(f"{where} was brought from version {before} to version {now}.")
    if made_anew:
        print("The views over it are those of this release now.")
    if dropped:
        print(f"{dropped:,} tables that nothing is kept in any more are gone from its catalog.")
    if views:
        print(f"Published models that were views are tables now: {', '.join(views)}.")


def adopt(
    former: Annotated[str, typer.Argument(help="What the platform was called before.")],
    platform: Annotated[str | None, typer.Option(help="The platform, if workspace.yaml names several.")] = None,
) -> None:
    """Let a platform that was renamed have the sources and models that it wrote under its former name."""
    from data_platform.components.workspace import platform_names, platform_package
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    new = platform_package(platform).name
    if former in platform_names():
        raise PlatformError(f"{former} is still a platform of this workspace: what it writes stays its own.")
    with open_lakehouse(settings_from_environment()) as lake:
        adopted = ledger.adopt(lake, former, new)
    print(f"{new} has: {', '.join(adopted)}." if adopted else f"Nothing in this lakehouse belongs to {former}.")
