"""What archives hold, zip and tar: which files, and the bytes of each. Which of them are wanted, and where they are
unpacked to, is `unpacking`'s business; no name in an archive ever becomes the name of a file here.

What belongs to no data is passed over: folders, links, devices, and what macOS and Windows put beside files. What is
made to do harm is refused: members that share bytes, more members or longer names than anybody needs.
"""

import io
import stat
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from data_platform.errors import PlatformError, shortened

MOST_MEMBERS = 100_000
"""Files in an archive at most, those in archives within it included."""

LONGEST_NAME = 4_096
"""Characters in the path of a member at most."""

LARGEST_READ = 24 << 20
"""Bytes that a reader of archives may ask for at once: more would be a directory, or a name, that fills memory."""

EXTRA = "encrypted"
"""The extra that brings the reader of zip archives that are encrypted by AES."""

_AES = 99
_METHODS = {
    1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "PPMd"
}  # fmt: skip
_ENCRYPTED = 1
_SPAN_MARK = 4  # bytes before the first member of an archive that could have been split
_UTF_8 = 0x800
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


class Slice(io.RawIOBase):
    """A piece of a stream, as a stream of its own; several may be read by turns."""

    def __init__(self, whole: BinaryIO, begin: int, size: int) -> None:
        super().__init__()
        self._whole, self._begin, self.size, self._at = whole, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self._at)
        if wanted <= 0:
            return 0
        self._whole.seek(self._begin + self._at)
        data = self._whole.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def sliced(whole: BinaryIO, begin: int, size: int) -> BinaryIO:
    """A piece of a stream, buffered."""
    return io.BufferedReader(Slice(whole, begin, size), 1 << 16)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, how to open a stream of its bytes, and whether that stream is at hand: a
    piece of the archive, which need not be unpacked. Of an `encrypted` one damage may be a wrong password."""

    name: str
    size: int
    open: Callable[[], BinaryIO]
    at_hand: bool = False
    encrypted: bool = False


@dataclass(frozen=True)
class Archive:
    """What an archive holds: its files, in the order in which they stand in it, and how many of what was passed over,
    by what it is."""

    kind: str
    members: list[Member] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def archive_of(file: BinaryIO, name: str) -> str | None:
    """Which archive a file is, `zip`, `tar` or none, by its first bytes; it is left at its beginning. A tar without a
    file begins with zeros: its name must say so as well."""
    file.seek(0)
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if len(head) < tarfile.BLOCKSIZE:
        return None
    if head[257:262] == b"ustar" or (not head.strip(b"\0") and ".tar" in name.lower()):
        return "tar"
    # Tar of before 1988 has no mark, but the sum of its first block.
    try:
        found = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return "tar" if found.name and b"\0" in head[:100] else None


def shown(name: str) -> str:
    """The path of a member for a message or a column: with what cannot be printed escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def is_junk(name: str) -> bool:
    """Whether a member is what macOS or Windows put beside files of their own accord."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or not parts or parts[-1] in _JUNK or parts[-1].startswith("._")


def is_document(file: BinaryIO) -> bool:
    """Whether a zip is a file of a format of its own: of an office, or a library of Java."""
    try:
        with zipfile.ZipFile(_Guarded(file)) as opened:
            names = set(opened.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return bool(names & {"[Content_Types].xml", "META-INF/MANIFEST.MF"}) or "mimetype" in names


def opened_archive(file: BinaryIO, kind: str, password: bytes | None) -> Archive:
    """What an archive holds; its members can be opened as long as the file is. Raises PlatformError if it is damaged,
    cut off or made to do harm."""
    return _zip(file, password) if kind == "zip" else _tar(file)


def blocks(member: Member, kind: str) -> Iterator[bytes]:
    """The bytes of a member. Raises PlatformError if it is damaged."""
    try:
        size = 0
        with member.open() as stream:
            while block := stream.read(1 << 20):
                size += len(block)
                yield block
        if size != member.size:
            raise EOFError(f"it has {size:,} bytes of {member.size:,}")
    except RuntimeError as error:  # what the standard library raises for passwords
        if isinstance(error, NotImplementedError):
            raise PlatformError(f"{error}. Have it packed by deflate.") from None
        if "assword" not in str(error):
            raise
        raise PlatformError(
            "it is encrypted, and `zip_password` of the source is not its password. Ask the sender for it."
        ) from None
    except _damage() as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = shortened(str(error), 200) or "it ends too early"
        other = ", or `zip_password` of the source is not its password" if member.encrypted else ""
        raise PlatformError(f"it is damaged in the {kind} archive{other}: {said}. Have it sent again.") from None


def _damage() -> tuple[type[Exception], ...]:
    """What readers of archives raise for damage: that of AES, if it was needed, has an error of its own."""
    found = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, ValueError, OSError, tarfile.TarError)
    aes = sys.modules.get("pyzipper")
    return (*found, NotImplementedError, aes.BadZipFile) if aes else (*found, NotImplementedError)


def _zip(file: BinaryIO, password: bytes | None) -> Archive:
    with_end = _opened_zip(zipfile.ZipFile, file)
    infos: list[Any] = with_end.infolist()
    _refuse_many(len(infos))
    _refuse_shared(infos, with_end.start_dir)
    found = Archive("zip")
    if encrypted := [info for info in infos if info.flag_bits & _ENCRYPTED]:
        if password is None:
            raise PlatformError(
                f"the zip archive is encrypted ({shown(encrypted[0].filename)}). Set `zip_password: "
                "'{{ env.NAME }}'` of the source."
            )
        if any(info.compress_type == _AES for info in encrypted):
            with_end = _opened_zip(_reader_of_aes(), file)
            infos = with_end.infolist()
        with_end.setpassword(password)
    names: set[str] = set()
    for info in infos:
        name = _zip_name(info)
        mode = info.external_attr >> 16
        if info.is_dir() or name.endswith("/"):
            continue
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            found.passed_over["links and devices"] += 1
        elif is_junk(name):
            continue
        else:
            if name in names:
                raise PlatformError(
                    f"the zip archive has two members of the name {shown(name)}, and nothing says which one counts. "
                    "Have it written anew."
                )
            names.add(name)
            found.members.append(
                Member(
                    name,
                    info.file_size,
                    _zip_opener(with_end, info),
                    encrypted=bool(info.flag_bits & _ENCRYPTED),
                )
            )
    return found


def _zip_opener(archive: Any, info: Any) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        if info.compress_type not in (0, 8, 12, 14):
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise NotImplementedError(f"it is packed by {method}, which is not read")
        stream: BinaryIO = archive.open(info)
        return stream

    return opened


def _opened_zip(reader: Any, file: BinaryIO) -> Any:
    try:
        return reader(_Guarded(file))
    except _damage() as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if "not a zip file" in str(error):
            raise PlatformError(
                "the zip archive has no end: it is still being written, or was cut off. It is read when it is "
                "complete; if it is written in place, set `stable_for`; if it stays like this, have it sent again."
            ) from None
        said = shortened(str(error), 200)
        raise PlatformError(f"the zip archive is damaged: {said}. Have it sent again.") from None


def _reader_of_aes() -> Any:
    try:
        from pyzipper import AESZipFile
    except ImportError as error:
        raise PlatformError(
            f"the zip archive is encrypted by AES, whose reader cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
    return AESZipFile


def _refuse_many(count: int) -> None:
    if count > MOST_MEMBERS:
        raise PlatformError(
            f"the archive has more than {MOST_MEMBERS:,} members. Have several smaller ones sent, or larger members."
        )


def _refuse_shared(infos: list[Any], directory: int) -> None:
    """Raise PlatformError for members that lie over one another: so a few bytes would unpack to any number."""
    if not infos:
        return
    if min(info.header_offset for info in infos) > _SPAN_MARK:
        raise PlatformError(
            "the zip archive begins with something that its directory does not name, such as another archive: they "
            "were written one after the other. Have each sent as a file of its own."
        )
    begins = sorted((info.header_offset, info.compress_size, info.filename) for info in infos)
    ends = [begin for begin, _, _ in begins[1:]] + [directory]
    for (begin, size, name), end in zip(begins, ends, strict=True):
        if begin + 30 + size > end:  # bytes of the header before a member, at least
            raise PlatformError(
                f"the zip archive is made to do harm, or damaged: {shown(name)} lies over what follows it. Have it "
                "written anew."
            )


def _zip_name(info: Any) -> str:
    """The path of a member. Names without the mark of UTF-8 are of code page 437, but those that can be read as UTF-8
    are: macOS writes them so."""
    name: str = info.filename
    if not info.flag_bits & _UTF_8 and not name.isascii():
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return _clean(name.replace("\\", "/") if info.create_system == 0 else name)


def _clean(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise PlatformError(f"the archive has a member whose path has more than {LONGEST_NAME:,} characters.")
    # No name is ever used as a path: what would lead out of the archive means nothing.
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def _tar(file: BinaryIO) -> Archive:
    found = Archive("tar")
    members: dict[str, Member] = {}
    at = -1
    try:
        guarded: Any = _Guarded(file)
        with tarfile.open(fileobj=guarded, mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
            for count, info in enumerate(opened):
                _refuse_many(count)
                if info.offset <= at or info.size < 0:
                    raise tarfile.TarError("a member has a negative size")
                at = info.offset
                # Else all of them stay in memory, those that are passed over too.
                opened.members.clear()  # type: ignore[attr-defined]
                if info.isdir():
                    continue
                if not info.isreg():
                    found.passed_over["links and devices"] += 1
                elif not is_junk(name := _clean(info.name)):
                    # The last of several counts, as it does where the archive is unpacked: so tar brings files up to
                    # date.
                    members.pop(name, None)
                    members[name] = _tar_member(file, name, info)
            _refuse_unended(file, opened.offset)
    except tarfile.TarError as error:
        said = str(error)
        if "unexpected end" in said:
            raise PlatformError(_CUT_TAR) from None
        raise PlatformError(f"the tar archive is damaged: {shortened(said, 200)}. Have it sent again.") from None
    found.members.extend(members.values())
    return found


_CUT_TAR = (
    "the tar archive has no end: it is still being written, or was cut off. It is read when it is complete; if it is "
    "written in place, set `stable_for`; if it stays like this, have it sent again."
)


def _refuse_unended(file: BinaryIO, end: int) -> None:
    """Raise PlatformError if what ends the reading of a tar is not its end, a block of zeros (the standard library
    takes a damaged header for one), or if anything but zeros comes after it."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise PlatformError(_CUT_TAR)
    if block.strip(b"\0"):
        raise PlatformError(f"the tar archive is damaged: no header at byte {end:,}. Have it sent again.")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise PlatformError(
                "the tar archive goes on after its end, such as with another archive: they were written one after the "
                "other. Have each sent as a file of its own."
            )


def _tar_member(file: BinaryIO, name: str, info: tarfile.TarInfo) -> Member:
    if info.issparse():
        # Its holes are not in the archive.
        return Member(name, info.size, lambda: tarfile.ExFileObject(_Holder(file), info))  # type: ignore[arg-type]
    return Member(name, info.size, lambda: sliced(file, info.offset_data, info.size), at_hand=True)


class _Holder:
    """What the standard library asks of an archive to read a member of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.fileobj = file


class _Guarded:
    """A stream of which nobody reads more at once than memory has room for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_READ:
            raise PlatformError(
                f"the archive has a directory, or a name, of {size:,} bytes: more than the {LARGEST_READ:,} that are "
                "held in memory. Have several smaller ones sent."
            )
        return self._file.read(size)

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: the file is its owner's."""


def only(name: str, found: Mapping[str, int]) -> str:
    """A note of what was passed over in an archive."""
    what = ", ".join(f"{count:,} {kind}" for kind, count in found.items())
    return f"{name}: {what} in the archive were passed over."
