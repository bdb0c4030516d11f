"""What the position of a table of files tells: which files are loaded, with what content, and which is the newest. What
an entry consists of is said in `source`.
"""

import re

from data_platform.ingestion.files.storage import Delivery
from data_platform.ingestion.source import Position


def is_known(position: Position, delivery: Delivery) -> bool:
    """Whether a position has the file as it stands, by size and times."""
    entry = position.get(delivery.path)
    return entry is not None and entry.rpartition(":")[0] in (delivery.version, delivery.earlier_version)


def modified(entry: str) -> int:
    """Time of modification in an entry of a position [ns]."""
    return int(entry.split(":", 2)[1])


def by_name(path: str) -> tuple[list[str | int], str]:
    """What orders paths by their names: digits as the numbers that they are, so that 10 comes after 9."""
    parts = re.split("([0-9]+)", path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path


class Loaded:
    """What a position tells of the contents that were loaded, kept up to date during a reading."""

    def __init__(self, position: Position, *, named: bool) -> None:
        """`named` says that the newest path by name is asked for."""
        self._named = named
        self._content_of: dict[str, str] = {}
        self._path_of: dict[str, str] = {}
        self._newest: tuple[int, str] = (-1, "")
        self.newest_path: str | None = None
        self.add(position)

    @property
    def newest(self) -> str | None:
        """The path of the file that was modified last."""
        return self._newest[1] or None

    def add(self, position: Position) -> None:
        for path, entry in position.items():
            content = entry.rpartition(":")[2]
            self._content_of[path] = content
            self._path_of[content] = path
            self._newest = max(self._newest, (modified(entry), path))
            if self._named and (self.newest_path is None or by_name(self.newest_path) < by_name(path)):
                self.newest_path = path

    def content_of(self, path: str) -> str | None:
        """The content that was loaded last under a path."""
        return self._content_of.get(path)

    def path_of(self, content: str) -> str | None:
        """A path under which a content was loaded."""
        return self._path_of.get(content)
