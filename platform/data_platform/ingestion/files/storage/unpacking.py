"""What a delivered file holds: the file itself, what it was compressed from, or the members of an archive. Each layer
is known by its first bytes, and everything is unpacked whole before any row of it is delivered, so that a damaged or
truncated file is found out first. How single layers are read is in `compression`, `encryption` and `archives`.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import Pattern, pattern_of
from data_platform.ingestion.files.storage.archives import (
    MOST_MEMBERS,
    Member,
    archive_of,
    blocks,
    is_document,
    only,
    opened_archive,
    shown,
    sliced,
)
from data_platform.ingestion.files.storage.compression import compression_of, decompressed, promised
from data_platform.ingestion.files.storage.encryption import NO_KEYS, Keys, decrypted, encryption_of, refuse_plain

SPOOL_MEMORY = 32 << 20
"""Bytes of a file kept in memory before the spool folder is used."""

DEEPEST = 3
"""How many archives may lie within one another, and how often what lies in one may be packed over again."""

RATIO = 1_000
RATIO_FROM = 256 << 20
"""What unpacks to more than so many bytes must not be so many times its size: data unpacks to less than a hundred."""

SEPARATOR = "!/"
"""What stands between the path of an archive and that of a member in it."""

_ARCHIVE_NAME = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tzst)$|\.tar\.[a-z0-9]+$", re.IGNORECASE)


@dataclass(frozen=True)
class Unpacking:
    """How the files of a table are unpacked: `most` bytes at most, members of archives that match `members` (all that
    are not hidden without it) in the order that `order` gives their paths. With `zip_is_data` a zip may be a file
    of the format."""

    most: int
    members: str | None = None
    order: Callable[[str], Any] = str
    zip_is_data: bool = False
    keys: Keys = NO_KEYS


@dataclass(frozen=True)
class Part:
    """A file to be parsed: its path, below the folder and in archives (`daily.zip!/eu/orders.csv`), and its bytes."""

    path: str
    stream: BinaryIO

    @property
    def inner(self) -> str:
        """The path in the archive; empty for what lies in none."""
        return self.path.partition(SEPARATOR)[2]


@dataclass(frozen=True)
class Contents:
    """What a delivered file holds; `archive` says whether it is one."""

    parts: Sequence[Part]
    notes: Sequence[str]
    archive: bool


def is_packed(file: BinaryIO) -> bool:
    """Whether a file begins as a packed one, so that its last bytes tell nothing; it is left somewhere else."""
    return compression_of(file) is not None or encryption_of(file) is not None or archive_of(file, "") is not None


def spooled(spool: Path | None) -> BinaryIO:
    """An empty temporary file that is in memory while it is small, and gone once it is closed."""
    if spool:
        spool.mkdir(parents=True, exist_ok=True)
    made = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY, dir=str(spool) if spool else None)  # noqa: SIM115
    return cast(BinaryIO, made)


def members_pattern(text: str | None) -> Pattern:
    """Which members of archives are wanted: a pattern without a slash is one of names in any folder."""
    return pattern_of("**/*" if text is None else text if "/" in text else f"**/{text}")


@contextmanager
def contents(file: BinaryIO, path: str, spool: Path | None, how: Unpacking) -> Iterator[Contents]:
    """What a file at its beginning holds, in seekable streams, for as long as the block lasts. What is packed is
    unpacked whole first, beyond 32 MiB into a temporary file in `spool` that has no name.

    Raises PlatformError when any layer or member is damaged, cut off or encrypted, when the name promises a compression
    that is not there, when a limit is passed, and when an archive has files, but none that is wanted.
    """
    with ExitStack() as stack:
        walk = _Walk(file, spool, how, stack)
        walk.take(file, path, "")
        if walk.is_archive and not walk.parts and walk.unwanted:
            some = ", ".join(shown(name) for name in walk.unwanted[:5])
            more = f" and {walk.unwanted_count - 5:,} more" if walk.unwanted_count > 5 else ""
            raise PlatformError(
                f"the archive has no member that `members` ({how.members or 'all that are not hidden'}) wants. It "
                f"has: {some}{more}."
            )
        notes = [only(path, walk.passed_over)] if walk.passed_over else []
        if walk.is_archive and not walk.parts:
            notes.append(f"{path} is an archive without a file.")
        yield Contents(walk.parts, notes, walk.is_archive)


class _Walk:
    """The way through the layers of one file. What is unpacked goes to one temporary file, piece after piece."""

    def __init__(self, file: BinaryIO, spool: Path | None, how: Unpacking, stack: ExitStack) -> None:
        self._how, self._wanted, self._spool = how, members_pattern(how.members), spool
        self._size = file.seek(0, 2)
        file.seek(0)
        self._pool = stack.enter_context(spooled(spool))
        self._unpacked: Counter[int] = Counter()
        self._count = 0
        self.parts: list[Part] = []
        self.unwanted: list[str] = []
        self.unwanted_count = 0
        self.passed_over: Counter[str] = Counter()
        self.is_archive = False

    def take(
        self, stream: BinaryIO, path: str, inner: str, *, within: int = 0, packed: int = 0, wanted: bool = True
    ) -> None:
        """Take what a stream holds: `path` names it, `inner` is its path in the archive that it lies in, `within` how
        many archives it lies in, `packed` how often it was packed since."""
        depth = within * (DEEPEST + 1) + packed + 1
        layer: tuple[str, Iterator[bytes]] | None = None
        if (found := compression_of(stream)) is not None:
            layer = found.name, decompressed(stream, found)
        elif (by := encryption_of(stream)) is not None:
            layer = by, decrypted(stream, by, self._how.keys, self._spool)
        if layer is not None:
            if packed == DEEPEST:
                raise PlatformError(f"it is packed more than {DEEPEST} times over. Have it packed once.")
            whole = self._keep(layer[1], depth, layer[0])
            self.take(whole, path, inner, within=within, packed=packed + 1, wanted=wanted)
            return
        kind = archive_of(stream, path)
        if kind == "zip" and (is_document(stream) or (self._how.zip_is_data and not _has_end(stream))):
            kind = None
        if kind is not None:
            if within == DEEPEST:
                raise PlatformError(f"archives lie within one another more than {DEEPEST} deep. Have one sent.")
            self._take_archive(stream, kind, path, within, depth)
        elif wanted:
            if not packed:
                _refuse_broken_promise(stream, path)
                refuse_plain(path)
            stream.seek(0)
            self.parts.append(Part(path, stream))
        elif inner:
            self._leave(inner)

    def _take_archive(self, stream: BinaryIO, kind: str, path: str, within: int, depth: int) -> None:
        self.is_archive = True
        archive = opened_archive(stream, kind, self._how.keys.zip_password)
        self.passed_over.update(archive.passed_over)
        self._count += len(archive.members)
        if self._count > MOST_MEMBERS:
            raise PlatformError(f"there are more than {MOST_MEMBERS:,} members in the archives within the archive.")
        for member in sorted(archive.members, key=lambda member: self._how.order(member.name)):
            wanted = self._wanted.matches(member.name)
            if not wanted and not _ARCHIVE_NAME.search(member.name):
                self._leave(member.name)
                continue
            full = f"{path}{SEPARATOR}{shown(member.name)}"
            try:
                whole = self._unpacked_member(member, kind, depth)
                self.take(whole, full, member.name, within=within + 1, wanted=wanted)
            except _NamedError:
                raise
            except PlatformError as error:
                raise _NamedError(f"{full.partition(SEPARATOR)[2]}: {error}") from None

    def _unpacked_member(self, member: Member, kind: str, depth: int) -> BinaryIO:
        if member.at_hand:
            self._grow(member.size, depth, kind)
            return member.open()
        return self._keep(blocks(member, kind), depth, kind)

    def _leave(self, name: str) -> None:
        self.unwanted_count += 1
        if len(self.unwanted) < 5:
            self.unwanted.append(name)

    def _keep(self, data: Iterable[bytes], depth: int, what: str) -> BinaryIO:
        """Write blocks to the end of the pool; the stream of them."""
        begin = end = self._pool.seek(0, 2)
        for block in data:
            self._grow(len(block), depth, what)
            self._pool.seek(end)  # the blocks may come from the pool itself
            end += self._pool.write(block)
        return sliced(self._pool, begin, end - begin)

    def _grow(self, size: int, depth: int, what: str) -> None:
        self._unpacked[depth] += size
        total, most = self._unpacked[depth], self._how.most
        if total > most:
            raise PlatformError(
                f"{self._size:,} bytes of {what} expand to more than {most:,}, the limit "
                "`max_unpacked` of the table. If the file is meant to be that large, raise it in "
                "defs.yaml; the spool folder must have room for it."
            )
        if total > RATIO_FROM and total > RATIO * self._size:
            raise PlatformError(
                f"{self._size:,} bytes of {what} expand to more than {RATIO:,} times as many, which data does not. If "
                "that is meant, have it delivered unpacked."
            )


class _NamedError(PlatformError):
    """An error that names the member of the archive that it is about."""


def _has_end(stream: BinaryIO) -> bool:
    try:
        opened_archive(stream, "zip", b"")
    except PlatformError:
        return False
    return True


def _refuse_broken_promise(stream: BinaryIO, path: str) -> None:
    named = promised(path)
    if named is None:
        return
    stream.seek(0)
    if start := stream.read(len(named.begins)):
        suffix = next(one for one in named.suffixes if path.lower().endswith(one))
        start = start[:2] if len(named.begins) == 2 else start
        raise PlatformError(
            f"it is named {suffix} but does not start like {named.name} ({start.hex(' ')}, "
            f"not {named.begins.hex(' ')})."
        )
