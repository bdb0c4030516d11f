"""What becomes of a file once its rows are committed: it is moved, or deleted. By default nothing is touched. How a
storage does either is its own matter; which files are loaded is `source`'s.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import PurePosixPath
from threading import Lock
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import (
    Delivery,
    Distant,
    Movable,
    Pattern,
    Storage,
    StorageUnavailableError,
    below,
)
from data_platform.ingestion.files.storage.ahead import AT_ONCE
from data_platform.options import Options

logger = logging.getLogger(__name__)

SHOWN = 10
"""Files that an error names at most."""


class AfterLoad(Options):
    """What becomes of files that are loaded; one of the two."""

    move: Annotated[str, AfterValidator(below)] | None = Field(
        default=None,
        description="A folder below the source's own, `done`, to which they are moved with the folders that they lie "
        "in. It is made, and what lies in it is not read. A file of a name that is taken there becomes `a-2.csv`.",
    )
    delete: bool = Field(default=False, description="They are deleted.")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "AfterLoad":
        if (self.move is None) != self.delete:
            raise ValueError("`after_load` is either `{move: FOLDER}` or `{delete: true}`")
        if self.move is not None and any(sign in self.move for sign in "*?["):
            raise ValueError("`move` is a folder, such as `done`, and no pattern")
        return self

    @property
    def folder(self) -> str:
        """What the paths of files that were moved begin with; empty if none are."""
        return "" if self.move is None else "/".join(PurePosixPath(self.move).parts) + "/"


def movable(folder: Storage, table: str) -> Movable:
    """The folder, as one whose files can be moved. Raises PlatformError if they can only be read."""
    if not isinstance(folder, Movable):
        raise PlatformError(f"Table {table}: what lies below {folder} can only be read. Remove `after_load`.")
    return folder


def refuse_moved(folder: Storage, table: str, pattern: str, after_load: AfterLoad) -> None:
    """Raise PlatformError if files of a table of which nothing is known to be loaded were moved before: a full refresh
    would leave out their rows."""
    if after_load.move is None or not (moved := folder.find(after_load.folder + pattern, 0)):
        return
    raise PlatformError(
        f"Table {table} is to be loaded from the beginning, but {len(moved):,} of its files were moved to "
        f"{after_load.move} after an earlier load ({moved[0].path}, ...), and their rows would be missing. Move them "
        f"back into {folder}; or, if they are not to be loaded, name another folder as `move`."
    )


def tidy(
    folder: Storage, table: str, after_load: AfterLoad, loaded: Iterable[Delivery], others: Mapping[str, Pattern]
) -> None:
    """Move or delete files that are loaded, unless they changed since they were found. `others` are the patterns of
    the source's other tables. Raises PlatformError that names those with which it could not be done."""
    places = movable(folder, table)
    names = _Names(after_load)

    def done(delivery: Delivery) -> str | None:
        try:
            _refuse(delivery, after_load, others)
            if not _taken(places, delivery, names):
                logger.info("%s is left where it is: it changed after it was loaded, or is gone", delivery.path)
        except StorageUnavailableError:
            raise
        except (PlatformError, OSError) as error:
            return f"{delivery.path}: {error}"
        return None

    with ThreadPoolExecutor(AT_ONCE if isinstance(folder, Distant) else 1, "files") as threads:
        try:
            said = list(threads.map(done, loaded))
        except StorageUnavailableError:  # the others would fare no better
            threads.shutdown(cancel_futures=True)
            raise
    if failed := [one for one in said if one is not None]:
        more = [f"and {len(failed) - SHOWN:,} more"] if len(failed) > SHOWN else []
        files = "1 file" if len(failed) == 1 else f"{len(failed):,} files"
        raise PlatformError(
            f"Table {table}: the rows of {files} below {folder} are loaded, but to "
            f"{'delete' if after_load.delete else f'move to {after_load.move}'} failed, as `after_load` says. It is "
            "tried again with the next load:\n  " + "\n  ".join([*failed[:SHOWN], *more])
        )


def _refuse(delivery: Delivery, after_load: AfterLoad, others: Mapping[str, Pattern]) -> None:
    if delivery.linked:
        raise PlatformError("it is a link, or lies behind one. Have the file itself delivered")
    reached = [delivery.path, *([after_load.folder + delivery.path] if after_load.move else [])]
    for name, pattern in others.items():
        for path in reached:
            if pattern.matches(path):
                raise PlatformError(
                    f"table {name} reads {path} as well. Let the `path` of each table match its own files, or remove "
                    "`after_load`"
                )


def _taken(places: Movable, delivery: Delivery, names: "_Names") -> bool:
    for target in names.of(delivery):
        try:
            return places.take(delivery, target)
        except FileExistsError:
            continue
    raise AssertionError("names have no end")


class _Names:
    """Where files are moved to, each name tried for one file alone: several are moved at once."""

    def __init__(self, after_load: AfterLoad) -> None:
        self._after_load, self._tried, self._lock = after_load, set[str](), Lock()

    def of(self, delivery: Delivery) -> Iterator[str | None]:
        """None for one that is deleted; else its own name, and others of the same ending: `a.csv.gz`, `a-2.csv.gz`."""
        if self._after_load.delete:
            yield None
            return
        path = self._after_load.folder + delivery.path
        folder, slash, name = path.rpartition("/")
        stem, dot, suffixes = name.partition(".")
        for number in count(1):
            target = path if number == 1 else f"{folder}{slash}{stem}-{number}{dot}{suffixes}"
            with self._lock:
                is_free = target not in self._tried
                self._tried.add(target)
            if is_free:
                yield target
