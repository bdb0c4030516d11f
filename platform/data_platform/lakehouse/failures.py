"""Failures of what the lakehouse stands on, in words that say where: a disk that is full, a catalog's server that does
not answer, a catalog's file that is locked or damaged, a data file that is lost. What DuckDB raises for anything else
is a mistake of ours or of a query, and stays as it is.
"""

import errno
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.catalog import without_password
from data_platform.lakehouse.settings import Settings, redact_url

FULL = ("no space left", "not enough space", "file too large", "disk quota", "disk is full")
FULL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_BELOW = 2**20
"""Free bytes below which a disk is taken for full where SQLite says no more than that it could not write."""

LOCKED = ("database is locked", "database table is locked")
UNWRITABLE = ("readonly database", "unable to open database")
DAMAGED = ("database disk image is malformed", "file is not a database")
UNSPECIFIC = "disk i/o error"

BROKEN = (
    "server closed the connection",
    "terminating connection",
    "no connection to the server",
    "could not receive data",
    "could not send data",
    "connection has been closed",
    "connection reset",
    "ssl syscall",
    "ssl error",
    "broken pipe",
)
"""What PostgreSQL and its client say of a connection that broke, in small letters."""

NO_ANSWER = (
    *BROKEN,
    "connection to server",
    "could not connect",
    "could not translate host name",
    "connection refused",
    "the database system is",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "connection timed out",
    "timeout expired",
    'failed to execute query "rollback"',
    'failed to execute query "commit"',
)
"""What they say of a connection that broke or was not made, and DuckDB of one that it cannot end a transaction on."""

NOT_PARQUET = (
    "no magic bytes",
    "too small to be a parquet",
    "not a parquet",
    "invalid parquet",
    "decompress",
    "corrupt",
    "thrift",
)
GONE = ("no such file or directory", "404", "no files found", "nosuchkey")
_PATH = re.compile(r"""["']([^"']+\.parquet)["']|(\S+\.parquet)""")

CANCELED = "canceling statement due to user request"

TELLING = (*FULL, *LOCKED, *UNWRITABLE, *DAMAGED, UNSPECIFIC, *NO_ANSWER, *NOT_PARQUET, *GONE)

INSPECT = "`dp doctor --deep` says which tables lost what, and how to mend each."


def interruption(error: BaseException) -> BaseException | None:
    """The interruption (Ctrl-C, SIGTERM) that an error is, or that led to it. One that comes while DuckDB works is
    raised by DuckDB as a RuntimeError of its own, which looks like a query that failed; by ADBC's PostgreSQL driver as
    a query that somebody canceled."""
    found: BaseException | None = error
    while isinstance(found, Exception):
        if CANCELED in str(found):
            return KeyboardInterrupt()
        found = found.__cause__ or found.__context__
    return found if not isinstance(found, GeneratorExit) else None


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Raise what `explain` knows of an error of the block in its place; any other is raised as it was."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        found = explain(error, settings)
        if found is None:
            raise
        raise found from error


def explain(error: BaseException, settings: Settings) -> PlatformError | None:
    """What an error says of the disks, the catalog or the data files; None if it is about none of them."""
    text = str(error)
    lower = text.lower()
    if getattr(error, "errno", None) in FULL_CODES or any(sign in lower for sign in FULL):
        return _full(settings, text)
    if not isinstance(error, duckdb.Error):
        return None
    lost = _of_data_file(settings, text)
    if lost is not None:
        return lost
    if settings.catalog_is_sqlite and any(sign in lower for sign in (*LOCKED, *DAMAGED, *UNWRITABLE, UNSPECIFIC)):
        return _of_sqlite(settings, text)
    if not settings.catalog_is_sqlite and any(sign in lower for sign in NO_ANSWER):
        return TransientError(
            f"The catalog's server at {redact_url(settings.catalog)} does not answer, or ended the connection: "
            f"{_reason(_said(settings, text))} What was not committed is not there; the next run takes up where the "
            "ledger stands. Check that the server runs and takes connections, and LAKEHOUSE_CATALOG."
        )
    return None


def _full(settings: Settings, text: str) -> PlatformError:
    lower = text.lower()
    # PostgreSQL says it of files of its own: "could not extend file", "could not write to file pg_wal/...".
    if not settings.catalog_is_sqlite and any(sign in lower for sign in ("could not extend", "could not write to")):
        return TransientError(
            f"The disk of the catalog's server at {redact_url(settings.catalog)} is full: {_said(settings, text)} "
            "Nothing was changed. Free space there and run it again."
        )
    return PlatformError(
        f"The disk is full: {disks(_folders(settings))}. Nothing was changed. Free space and run it again. "
        f"({_said(settings, text)})"
    )


def _of_sqlite(settings: Settings, text: str) -> PlatformError:
    lower, said = text.lower(), _said(settings, text)
    folder = Path(settings.catalog).resolve().parent
    if any(sign in lower for sign in LOCKED):
        return TransientError(
            f"The catalog {settings.catalog} is locked by another program, which has it open for writing: a backup, or "
            "a shell with a transaction that was not ended. Nothing was changed. End that program (`fuser -v "
            f"{settings.catalog}` names it) and run it again. ({said})"
        )
    if UNSPECIFIC in lower and _free(folder) < FULL_BELOW:
        return _full(settings, text)
    if any(sign in lower for sign in DAMAGED):
        return PlatformError(
            f"The catalog {settings.catalog} is damaged: {said} Stop what writes to it, and restore it from its backup "
            "(with its -wal file, if there is one)."
        )
    return PlatformError(
        f"The catalog {settings.catalog} cannot be read or written: {said} Check that this user may write to it and to "
        f"its folder, and that the disk is in order ({disks([folder])})."
    )


def _of_data_file(settings: Settings, text: str) -> PlatformError | None:
    """A file of the lakehouse that is gone, or that is no Parquet file any more."""
    found = _PATH.search(text)
    path = (found[1] or found[2]) if found else ""
    if not path.startswith(settings.data.rstrip("/") + "/") or "*" in path:
        return None
    # A file and its table may be called by what would be a sign: `404` in an id, a source `thrift_shop`.
    lower = text.replace(path, "").lower()
    if any(sign in lower for sign in GONE):
        return PlatformError(
            f"The file {path} of the lakehouse is lost. The table is as it was. Restore it from a backup, or: {INSPECT}"
        )
    if "permission denied" in lower:
        return PlatformError(
            f"The file {path} of the lakehouse may not be read or written by this user. Nothing was changed. Give the "
            "file and its folder their permissions back."
        )
    if any(sign in lower for sign in NOT_PARQUET):
        return PlatformError(
            f"The file {path} of the lakehouse is damaged ({_said(settings, text)}) The table is as it was. Restore it "
            f"from a backup, or: {INSPECT}"
        )
    return None


def _said(settings: Settings, text: str) -> str:
    """The line of what was said that has the reason, without the catalog's password."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason was given"]
    telling = [line for line in lines if any(sign in line.lower() for sign in TELLING)]
    line = (telling or lines[-1:])[0]
    return without_password(line, settings).rstrip(".") + "."


def _reason(said: str) -> str:
    """What PostgreSQL's client said, without what DuckDB was about."""
    _, sign, rest = said.partition("connection to server")
    return f"{sign}{rest}" if sign else said


def _folders(settings: Settings) -> list[Path]:
    """The local folders that the platform writes to."""
    folders = [settings.spool, settings.home]
    if settings.data_is_local:
        folders.insert(0, Path(settings.data))
    if settings.catalog_is_sqlite:
        folders.insert(0, Path(settings.catalog).parent)
    return folders


def disks(folders: Sequence[Path]) -> str:
    """How much is free on each disk that the folders lie on: `0 bytes free in /data/lake`. If any of them is full, of
    the others nothing is said."""
    found: dict[int, tuple[int, Path]] = {}
    for folder in folders:
        there = _existing(folder)
        found.setdefault(there.stat().st_dev, (_free(there), there))
    full = [one for one in found.values() if one[0] < FULL_BELOW]
    return ", ".join(f"{_size(free)} free in {folder}" for free, folder in full or found.values())


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(size: int) -> str:
    for unit, least in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size} bytes"
