"""Exported files in buckets: S3 and what speaks its protocol, Google's and Azure's. An object is there whole or not at
all, a large one by several requests too; the small file that names the newest is only replaced if it still is the one
that was read, so that of two exports at once, of two machines too, the later one is tried again.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.exports.folders.local import locked
from data_platform.ingestion.files.storage.objects import Bucket
from data_platform.ingestion.files.storage.options import StorageOptions

PART, PARTS = 16 << 20, 9_000
"""The least bytes of an object that are sent by one request, and the most of those requests: S3 takes 10,000."""

GONE = (exceptions.NotFoundError, FileNotFoundError)
MOVED = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
REFUSED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)


def part_of(size: int) -> int:
    """Bytes of each part of an object of so many."""
    return max(PART, -(-size // PARTS))


class BucketPlace:
    """A prefix in a bucket; see `Place`. Drafts and locks are kept in `spool`, a folder of this machine."""

    def __init__(self, url: str, options: StorageOptions, spool: Path) -> None:
        self._url, self._options, self._spool = url.rstrip("/"), options, spool

    @contextmanager
    def folder(self, table: str) -> Iterator["ObjectsFolder"]:
        url = f"{self._url}/{table}"
        spool = self._spool / f"export-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        with locked(spool / "lock", url):
            yield ObjectsFolder(url, Bucket(url, self._options).store, spool)

    def ping(self) -> None:
        folder = ObjectsFolder(self._url, Bucket(self._url, self._options).store, self._spool)
        folder.read("nothing-of-this-name")


class ObjectsFolder:
    """What lies below the prefix of one table; see `Folder`, whose methods these are."""

    def __init__(self, url: str, store: Any, spool: Path) -> None:
        self._url, self._store, self._spool = url, store, spool

    def __str__(self) -> str:
        return self._url

    def names(self) -> list[str]:
        with self._explained():
            return sorted(one["path"] for page in obstore.list(self._store) for one in page)

    def size(self, name: str) -> int | None:
        with self._explained():
            try:
                return int(obstore.head(self._store, name)["size"])
            except GONE as error:
                self._require_bucket(error)
                return None

    def read(self, name: str) -> tuple[bytes, str] | None:
        with self._explained():
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["e_tag"] or ""
            except GONE as error:
                self._require_bucket(error)
                return None

    def draft(self, name: str) -> Path:
        return self._spool / name

    def put(self, name: str, draft: Path) -> None:
        with self._explained():
            obstore.put(self._store, name, draft, chunk_size=part_of(draft.stat().st_size))
        draft.unlink()

    def replace(self, name: str, data: bytes, tag: str | None) -> None:
        with self._explained():
            try:
                obstore.put(self._store, name, data, mode={"e_tag": tag} if tag else "create")
            except MOVED:
                raise TransientError(
                    f"{self._url}/{name} was written by another export meanwhile. What it names was left as it is."
                ) from None

    def remove(self, name: str) -> None:
        with self._explained():
            try:
                obstore.delete(self._store, name)
            except GONE as error:
                self._require_bucket(error)

    def local(self, name: str) -> Path | None:  # noqa: ARG002 - none lies here
        return None

    @staticmethod
    def _require_bucket(error: Exception) -> None:
        """Raise the error if it says that there is no such bucket, rather than no such object."""
        if "NoSuchBucket" in str(error):
            raise error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong, as a person may act upon it."""
        try:
            yield
        except (exceptions.BaseError, OSError) as error:
            said = shortened(str(error).split("\n\nDebug source:")[0].replace("\n", " "), 300)
            if "NoSuchBucket" in str(error):
                raise PlatformError(f"There is no bucket for {self._url}. Make it, or correct `folder`.") from None
            if isinstance(error, REFUSED) or "status code: 403" in str(error):
                raise PlatformError(
                    f"{self._url} may not be written with these credentials ({said}). They need the right to list the "
                    "bucket, and to read, write and delete its objects."
                ) from None
            raise TransientError(
                f"{self._url} does not answer as it should: {said}. What was not whole by then has no name."
            ) from None
