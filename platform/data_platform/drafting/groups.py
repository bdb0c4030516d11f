"""Which tables the files of a folder make up, and the members of the archives among them. How each is written is in
`files`, how archives are unpacked in `ingestion.files.storage.unpacking`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import slug
from data_platform.errors import PlatformError
from data_platform.ingestion.files.loaded import by_name
from data_platform.ingestion.files.source import FileTable
from data_platform.ingestion.files.storage.archives import archive_of, is_document
from data_platform.ingestion.files.storage.compression import compression_of, decompressed
from data_platform.ingestion.files.storage.unpacking import SEPARATOR, Contents, Part, Unpacking, contents

MOST = int(FileTable.model_fields["max_unpacked"].default)


@dataclass(frozen=True)
class Group:
    """Files that make up a table: the pattern of their names, the newest of them, and of archives the pattern of the
    members; None where they are all of one table."""

    pattern: str
    newest: Path
    members: str | None = None
    notes: tuple[str, ...] = ()

    def last(self, parts: Sequence[Part]) -> Part:
        """The last of the newest file's parts that is of the table. Raises PlatformError if there is none."""
        found = [part for part in parts if self.members in (None, numbered(name_of(part)))]
        if not found:
            raise PlatformError(f"{self.newest} is an archive without a file: put one with some rows there.")
        return found[-1]


Recognise = Callable[[Path, BinaryIO], object]
"""Raises PlatformError for a stream, which a path names, that is no table."""


def file_groups(folder: Path, spool: Path, recognise: Recognise) -> dict[str, Group]:
    """The tables in a folder by name: files whose names differ by digits alone are one, as are such members of an
    archive."""
    patterns: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            patterns.setdefault(numbered(path.name), []).append(path)
    groups: list[tuple[str, Group]] = []
    for pattern, paths in patterns.items():
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        found = [Group(pattern, newest)]
        # What cannot be unpacked is refused when its table is drafted.
        with suppress(PlatformError, OSError):
            if is_archive(newest):
                found = _of_archive(pattern, newest, spool, recognise)
        groups += [(one.members if len(found) > 1 and one.members else pattern, one) for one in found]
    stems = [name.split(".")[0].replace("*", "").strip("-_ ") or folder.name for name, _ in groups]
    whole = [slug(re.sub(r"[*.]", " ", name)) for name, _ in groups]
    names = distinct_names([slug(stem) for stem in stems], whole)
    return dict(zip(names, (group for _, group in groups), strict=True))


def _of_archive(pattern: str, newest: Path, spool: Path, recognise: Recognise) -> list[Group]:
    """The tables that the members of an archive make up; those that are no table are named in a note."""
    with unpacked(newest, spool) as held:
        if not held.archive or not held.parts:
            return [Group(pattern, newest)]
        members, other = [], []
        for name, parts in of_members(held.parts).items():
            try:
                recognise(Path(name), parts[-1].stream)
                members.append(name)
            except PlatformError as error:
                other.append((name, str(error)))
        if not members:
            shown = "; ".join(reason for _, reason in other[:3])
            return [Group(pattern, newest, notes=(f"no file in {newest.name} is a table: {shown}",))]
        count = len(held.parts)
        notes = [f"{newest.name} is an archive of {count:,} file{'s' * (count != 1)}"]
        if other:
            notes.append(f"of its files these are no table and not read: {', '.join(name for name, _ in other[:5])}")
        alone = len(members) == 1 and not other
        return [Group(pattern, newest, None if alone else name, tuple(notes)) for name in members]


def numbered(name: str) -> str:
    """The pattern of the names that differ from one by digits alone."""
    packed = next((end for end in (".bz2", ".tbz2", ".lz4") if name.lower().endswith(end)), "")
    stem = name[: len(name) - len(packed)]
    return re.sub(r"\d[\d\-_T:]*", "*", stem) + name[len(stem) :]


def is_archive(path: Path) -> bool:
    """Whether a file is an archive to be unpacked, compressed or not. Raises PlatformError if it is damaged."""
    with path.open("rb") as file:
        start: BinaryIO = file
        while (found := compression_of(start)) is not None:
            start = BytesIO(next(decompressed(start, found), b""))
        kind = archive_of(start, path.name)
        # Only the beginning of a compressed file is here; documents are hardly ever compressed once more.
        return kind is not None and not (kind == "zip" and start is file and is_document(file))


@contextmanager
def unpacked(path: Path, spool: Path) -> Iterator[Contents]:
    """What a file holds: the members of an archive, or itself. Raises PlatformError if it cannot be unpacked."""
    try:
        with path.open("rb") as file, ExitStack() as stack:
            try:
                found = stack.enter_context(contents(file, path.name, spool, Unpacking(MOST, order=by_name)))
            except PlatformError as error:
                raise PlatformError(f"{path}: {error}") from None
            yield found
    except OSError as error:
        raise PlatformError(f"{path} cannot be read: {error}.") from None


def of_members(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """The members of an archive by the pattern of their names: those that differ by digits alone are one table."""
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(numbered(name_of(part)), []).append(part)
    return groups


def name_of(part: Part) -> str:
    """The name of a member, without the archives and the folders that it lies in."""
    return part.inner.rpartition(SEPARATOR)[2].rpartition("/")[2]
