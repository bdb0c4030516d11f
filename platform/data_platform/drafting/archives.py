"""The tables that the members of archives make up. How each is written is in `files`, how archives are unpacked in
`ingestion.files.storage.unpacking`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from data_platform.drafting.groups import Group, numbered
from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import slug
from data_platform.errors import PlatformError
from data_platform.ingestion.files.loaded import by_name
from data_platform.ingestion.files.source import FileTable
from data_platform.ingestion.files.storage.archives import archive_of, is_document
from data_platform.ingestion.files.storage.compression import compression_of, decompressed
from data_platform.ingestion.files.storage.unpacking import SEPARATOR, Contents, Part, Unpacking, contents

MOST = int(FileTable.model_fields["max_unpacked"].default)

Recognise = Callable[[Path, BinaryIO], object]
"""Raises PlatformError for a stream, which a path names, that is no table."""


def with_members(folder: Path, groups: Mapping[str, Group], spool: Path, recognise: Recognise) -> dict[str, Group]:
    """The same tables, but of archives that hold several kinds of members a table of each. The newest file of each
    lies in the folder."""
    found: list[tuple[str, str, Group]] = []
    for name, group in groups.items():
        tables, newest = [group], folder / group.files[0].path
        # What cannot be unpacked is refused when its table is drafted.
        with suppress(PlatformError, OSError):
            if is_archive(newest):
                tables = _of_archive(group, newest, spool, recognise)
        for one in tables:
            inner = one.members if len(tables) > 1 and one.members else None
            stem = slug(inner.split(".")[0].replace("*", "").strip("-_ ")) if inner else ""
            whole = slug(re.sub(r"[*.]", " ", inner)) if inner else name
            found.append((stem or name, whole, one))
    names = distinct_names([stem for stem, _, _ in found], [whole for _, whole, _ in found])
    return dict(zip(names, (one for _, _, one in found), strict=True))


def last_part(group: Group, newest: Path, parts: Sequence[Part]) -> Part:
    """The last of the newest file's parts that is of the table. Raises PlatformError if there is none."""
    found = [part for part in parts if group.members in (None, numbered(name_of(part)))]
    if not found:
        raise PlatformError(f"{newest} is an archive without a file: put one with some rows there.")
    return found[-1]


def _of_archive(group: Group, newest: Path, spool: Path, recognise: Recognise) -> list[Group]:
    """The tables that the members of an archive make up; those that are no table are named in a note."""
    with unpacked(newest, spool) as held:
        if not held.archive or not held.parts:
            return [group]
        members, other = [], []
        for name, parts in of_members(held.parts).items():
            try:
                recognise(Path(name), parts[-1].stream)
                members.append(name)
            except PlatformError as error:
                other.append((name, str(error)))
        if not members:
            shown = "; ".join(reason for _, reason in other[:3])
            return [replace(group, notes=(f"no file in {newest.name} is a table: {shown}",))]
        count = len(held.parts)
        notes = [f"{newest.name} is an archive of {count:,} file{'s' * (count != 1)}"]
        if other:
            notes.append(f"of its files these are no table and not read: {', '.join(name for name, _ in other[:5])}")
        alone = len(members) == 1 and not other
        return [replace(group, members=None if alone else name, notes=tuple(notes)) for name in members]


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
