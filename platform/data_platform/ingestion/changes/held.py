"""What change capture keeps at its source, and how it is shown and removed: the part of such a source that is not
reading. How each database does it is in its own folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from data_platform.errors import PlatformError
from data_platform.ingestion.source import Position, Source


@dataclass(frozen=True)
class Held:
    """Something at the source that change capture depends on: a replication slot, a publication, a binary log.

    `kind` and `name` are the server's own words, `state` what it says of it ("reserved", "lost", ...). `behind` are the
    bytes of the log written since the committed position, `retained` those that the server keeps on its disk because
    of it; None where there is no such figure. `is_ours` if the platform made it: what a person made is never dropped.
    """

    kind: str
    name: str
    state: str = ""
    behind: int | None = None
    retained: int | None = None
    is_ours: bool = True


@runtime_checkable
class ChangeSource(Source, Protocol):
    """A source that is read by its log of changes: all of its tables in one reading, with one position."""

    def held(self, after: Position) -> Sequence[Held]:
        """What is kept at the source for the reading whose stored position is `after` (empty: nothing was read). Raises
        PlatformError if the source does not answer."""
        ...

    def drop(self) -> Sequence[Held]:
        """Remove what the platform made at the source, and nothing else; what it was. Raises PlatformError if the
        source does not answer, or if a reading is under way."""
        ...


def change_source(source: Source, name: str) -> ChangeSource:
    """The source called `name`, if it is read by its log of changes. Raises PlatformError if it is not."""
    if not isinstance(source, ChangeSource):
        raise has_no_log(name)
    return source


def has_no_log(name: str) -> PlatformError:
    """What to raise if somebody asks for the log of a source that is read in another way."""
    return PlatformError(
        f"{name} is not read by its log of changes, so nothing is kept for it at the source. A SqlSource is, with "
        "`changes: true` in its defs.yaml."
    )
