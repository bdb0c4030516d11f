"""Where exported files are put, as `files` sees it. Each kind of place is a module of its own (`local`, `objects`,
`sftp`); all of them give a file its name only once it is whole.
"""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from data_platform.errors import PlatformError

NAME = re.compile(r"(?!\.)[^/\\%?#*\[\]\x00-\x1f]+")
"""A name that a folder may have everywhere, and that means itself in a URL."""


def require_folder_name(table: str) -> None:
    """Raise PlatformError for a table that no folder can be called like."""
    if not NAME.fullmatch(table):
        raise PlatformError(
            f"No folder can be called {table!r}: its name must not be empty, begin with a point, or hold one of "
            "/ \\ % ? # * [ ]. Give the table another name in defs.yaml."
        )


class Folder(Protocol):
    """The folder of one table, for one export. All of it may raise PlatformError."""

    def __str__(self) -> str:
        """The folder as messages name it, without secrets."""

    def names(self) -> list[str]:
        """The names of the files in it."""

    def size(self, name: str) -> int | None:
        """The bytes of a file; None if it is not there."""

    def read(self, name: str) -> tuple[bytes, str] | None:
        """A small file, and the tag of its version where the place has one; None if it is not there."""

    def draft(self, name: str) -> Path:
        """The path on this machine under which a file is written before `put` gives it its name."""

    def put(self, name: str, draft: Path) -> None:
        """Put a file in its place, all at once, in that of another one of its name."""

    def replace(self, name: str, data: bytes, tag: str | None) -> None:
        """Put a small file in the place of the version that `read` gave the tag of; None: of none. Raises
        TransientError if another export came first, where the place can tell."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def local(self, name: str) -> Path | None:
        """The file, if it lies on this machine."""


class Place(Protocol):
    """Where the folders of all tables of an export lie."""

    def folder(self, table: str) -> AbstractContextManager[Folder]:
        """The folder of a table, made if it is not there, for the time of the block, in which no other export of this
        machine writes to it."""

    def ping(self) -> None:
        """Raise PlatformError if the place does not answer."""
