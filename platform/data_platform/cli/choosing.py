"""Which platform a new source is for, and which kind of source an address is of: what was said, and else what a person
answers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_platform.cli import asking
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.components.source import SourceComponent


def chosen_platform(name: str | None) -> Path:
    """The platform that a new source is for: the one that is named, or the only one; a person is asked among several.

    Raises PlatformError, listing them, where there is nobody to ask.
    """
    from data_platform.components.workspace import platform_names, platform_package

    if name is None and len(names := platform_names()) > 1 and asking.is_terminal():
        return platform_package(asking.picked("Which platform is it for?", names, several=False)[0])
    return platform_package(name)


ADDRESSES = {"file": ("Folder with the files", "--folder"), "singer": ("Tap", "--tap"), "dlt": ("Function", "--dlt")}
"""What the address of a kind is called, and the option that gives it, where that is not a URL."""


def chosen_kind(
    kind: str | None, url: str | None, folder: str | None, tap: str | None, dlt: str | None
) -> tuple[type["SourceComponent"], str]:
    """The kind of source that is meant, and its address; a person is asked where neither was given.

    Raises PlatformError, naming the kinds that are registered, if there is none by that name or none for the address,
    or if addresses of several kinds were given.
    """
    from data_platform.components.source import source_kinds
    from data_platform.components.spec import resolve

    kinds = source_kinds()
    places = {"--url": url, "--folder": folder, "--tap": tap, "--dlt": dlt}
    given = {option: place for option, place in places.items() if place is not None}
    if len(given) > 1:
        raise PlatformError(f"{' and '.join(given)} are addresses of different sources. Give one.")
    address = next(iter(given.values()), None)
    own = next((name for name, (_, option) in ADDRESSES.items() if option in given), None)
    if own in ("singer", "dlt") and kind not in (None, own):
        raise PlatformError(f"{next(iter(given))} is the address of a source of the kind {own}, not {kind}.")
    kind = kind or own
    if kind is None and address is None:
        kind = asking.prompt("What is it: " + ", ".join(kinds), "--type", list(kinds))
    if kind is not None and kind not in kinds:
        raise PlatformError(f"There is no kind of source {kind!r}. There are: {', '.join(kinds)}.")
    if address is None:
        address = asking.prompt(*ADDRESSES.get(kind or "", ("Address", "--url")))
    if kind is not None:
        return kinds[kind], address
    recognised = [one for one in kinds.values() if one.recognises(resolve(address, "--url"))]
    if not recognised:
        raise PlatformError(f"What kind of source is at {address}? Say so with --type {'|'.join(kinds)}.")
    return recognised[0], address


def refuse_unused(
    component: type["SourceComponent"], *, changes: bool, config: Sequence[str] | None, encoding: str | None
) -> None:
    """Raise PlatformError for an option that says nothing to a kind of source."""
    from data_platform.components import (
        DeltaSource,
        DltSource,
        DuckLakeSource,
        FileSource,
        IcebergSource,
        SingerSource,
        SqlSource,
    )

    if changes and not issubclass(component, SqlSource):
        raise PlatformError(f"--changes is for databases, which have a log of changes; this is a {component.__name__}.")
    if encoding and not issubclass(component, FileSource):
        raise PlatformError(f"--encoding is for files (--folder), whose text has one; this is a {component.__name__}.")
    configured = DeltaSource | DltSource | DuckLakeSource | FileSource | IcebergSource | SingerSource
    if config and not issubclass(component, configured):
        raise PlatformError(
            f"--config is for taps (--tap), functions of dlt (--dlt), lakes and files elsewhere; this is "
            f"a {component.__name__}."
        )
