"""Folders and files of the platform's state: nobody but their owner may read them, whatever the umask of the process;
or, with `DATA_PLATFORM_GROUP_ACCESS=1`, their group too. What lies in them is others' business.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data_platform.lakehouse.settings import Settings

OTHERS, GROUP = 0o007, 0o070


def forbidden(settings: Settings) -> int:
    """The permissions that no file of the state has."""
    return OTHERS if settings.group_access else OTHERS | GROUP


def keep_private(settings: Settings) -> None:
    """Have whatever this process and its children write from now on be private. Called where a process begins."""
    os.umask(forbidden(settings))


def make_folder(path: Path, settings: Settings) -> None:
    """Make a folder of the state, and those above it that are not there. One that is there stays as it is: `loose` says
    which of them others may read."""
    if path.is_dir():
        return
    make_folder(path.parent, settings)
    path.mkdir(0o700, exist_ok=True)
    if settings.group_access:
        path.chmod(0o2770)  # what is made in it belongs to the same group


def make_file(path: Path, settings: Settings) -> None:
    """Make an empty file of the state, if it is not there."""
    make_folder(path.parent, settings)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if settings.group_access and os.fstat(descriptor).st_size == 0:
            os.fchmod(descriptor, 0o660)
    finally:
        os.close(descriptor)


def loose(settings: Settings) -> Iterator[tuple[Path, int]]:
    """The folders and files of the state that others may read or write, with their permissions. What lies in a private
    folder is private."""
    home = settings.home
    if _is_loose(home, settings):
        yield home, stat.S_IMODE(home.stat().st_mode)
    catalog = Path(settings.catalog).absolute()
    places = [catalog, catalog.with_name(f"{catalog.name}-wal")] if settings.catalog_is_sqlite else []
    places += [Path(settings.data).absolute()] if settings.data_is_local else []
    for place in places:
        if not place.is_relative_to(home.absolute()) and _is_loose(place, settings):
            yield place, stat.S_IMODE(place.stat().st_mode)


def _is_loose(path: Path, settings: Settings) -> bool:
    return path.exists() and bool(path.stat().st_mode & forbidden(settings))
