"""A bucket, or what lies below a prefix in it, as a `Storage`: S3 and what speaks its protocol, Google's and Azure's.

Only complete objects are listed, and an object is read by the etag it was listed with: one that is overwritten between
the two, or while it is read, is refused by the store itself. obstore does the requests, with its retries; it was chosen
since it lists after a key, reads by etag and has one interface for the three clouds. Keys that it takes for no paths
are left to `exact_keys`.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.storage import CHANGED, Delivery, Pattern, StorageUnavailableError, pattern_of, ready
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.files.storage.unpacking import spooled
from data_platform.options import duration_text

if TYPE_CHECKING:
    from data_platform.ingestion.files.storage.exact_keys import ExactKeys

logger = logging.getLogger(__name__)

PAGE = 1000
"""Keys in a page of a listing: what S3 gives in one answer."""

SHOWN_KEYS = 5
"""Keys that a warning names at most."""

MOST_EMPTY = 20
"""Objects without a byte that are asked for one by one, whether each is a file or stands for a folder."""

PART = 64 << 20
"""Bytes of an object that are read by one request: what a time-out or a lost connection costs at most."""

_GONE = (exceptions.NotFoundError, FileNotFoundError)
_REFUSED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)

_HIGHEST = "\U0010ffff"


class Bucket:
    """What lies below a prefix in a bucket; see `Place` and `Storage`, whose methods these are."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        """`url` and `options` hold no variables of the environment any more. Connects to nothing."""
        self._url, self._options = url, options
        self._store = _store(url, options)

    def __str__(self) -> str:
        return self._url

    @contextmanager
    def session(self) -> Iterator["Bucket"]:
        """Itself: there is no connection to keep."""
        yield self

    @property
    def store(self) -> Any:
        """The client, for those that write."""
        return self._store

    def find(self, pattern: str, stable_for: float, start: str = "") -> list[Delivery]:
        """As of every storage. Only what begins like the pattern up to its first wildcard is listed, from `start`."""
        wanted = pattern_of(pattern)
        with self._explained():
            try:
                found = [one for one in self._listed(wanted.beginning, start) if wanted.matches(one.path)]
                # `a.csv` and `a.csv/` are one path to obstore; and which of many empty ones are folders is told by one
                # listing, where a request for each would take its time.
                empty = sum(not one.size for one in found)
                refused = len({one.path for one in found}) < len(found) or (
                    empty > MOST_EMPTY and self._url.startswith("s3://")
                )
            except exceptions.InvalidPathError:
                if not self._url.startswith("s3://"):
                    raise
                refused = True
            if refused:
                return ready(self._found_exactly(wanted, start), stable_for, start, time.time())
            # Programs that show buckets as folders make empty objects whose keys end in a slash.
            found = [one for one in found if one.size or self._is_there(one.path)]
        return ready(found, stable_for, start, time.time())

    def _found_exactly(self, wanted: Pattern, start: str) -> list[Delivery]:
        """What matches a pattern, by keys that are listed as they are. Warns of those by which nothing can be read."""
        found, passed = [], []
        for one in self._exact.listed(wanted.beginning, _before(start)):
            if not _is_unreadable(one.path):
                if wanted.matches(one.path):
                    found.append(one)
            elif one.size and wanted.matches(one.path.rstrip("/")):
                passed.append(one.path)
        if passed:
            logger.warning(
                "%s: %d of its objects are not read, since their keys end in a slash or have a part `.` or `..`: %s. "
                "Rename them if they are files.",
                self,
                len(passed),
                ", ".join(repr(path) for path in passed[:SHOWN_KEYS]) + ", ..." * (len(passed) > SHOWN_KEYS),
            )
        return found

    @cached_property
    def _exact(self) -> "ExactKeys":
        """The other client, made once: that takes it a tenth of a second."""
        try:
            from data_platform.ingestion.files.storage.exact_keys import ExactKeys
        except ImportError as error:
            raise PlatformError(
                f"{self} holds a key that only botocore can read, and that cannot be imported ({error}). Install it "
                "where Dagster runs: pip install 'data-platform[buckets]'."
            ) from None
        place = urlsplit(self._url)
        prefix = place.path.strip("/")
        return ExactKeys(
            place.netloc, f"{prefix}/" if prefix else "", self._options, _endpoint(self._url, self._options)
        )

    def _listed(self, beginning: str, start: str) -> list[Delivery]:
        """The objects whose paths have a beginning, from `start` on."""
        folder = beginning.rpartition("/")[0]
        # After a key; the one wanted first is to be among the rest. A store lists below whole folders alone.
        after = _before(max(beginning[len(folder) :].lstrip("/") and beginning, start))
        if self._lists_in_order:
            found, last = [], beginning + _HIGHEST
            for page in obstore.list(self._store, folder or None, offset=after or None, chunk_size=PAGE):
                paths = [meta["path"] for meta in page]
                if paths != sorted(paths) or (paths and paths[0] < after):
                    logger.info("%s does not list its keys in their order: all of them are listed", self)
                    break
                found += [_delivery(meta) for meta in page if meta["path"].startswith(beginning)]
                if paths and paths[-1] > last:
                    return found
            else:
                return found
        pages = obstore.list(self._store, folder or None, chunk_size=PAGE)
        return [_delivery(meta) for page in pages for meta in page if meta["path"].startswith(beginning)]

    @property
    def _lists_in_order(self) -> bool:
        """Whether a listing may begin and end amid the keys: Amazon's directory buckets and Azure's hierarchical ones
        list folder by folder. Of other stores a page shows it."""
        place = urlsplit(self._url)
        return place.scheme != "az" and not place.netloc.endswith("--x-s3")

    def _is_there(self, path: str) -> bool:
        if _is_odd(path):
            return not _is_unreadable(path) and self._exact.is_there(path)
        try:
            obstore.head(self._store, path)
        except _GONE:
            return False
        return True

    def is_ended(self, delivery: Delivery, line_end: bytes) -> bool:  # noqa: ARG002 - it is complete
        """True: there are only complete objects."""
        return True

    def leads_out(self, delivery: Delivery) -> bool:  # noqa: ARG002 - there are no links
        return False

    def exists(self, delivery: Delivery) -> bool:
        with self._explained():
            return self._is_there(delivery.path)

    @contextmanager
    def opened(self, delivery: Delivery, spool: Path | None) -> Iterator[BinaryIO]:
        with spooled(spool) as file:
            with self._explained(delivery.path):
                try:
                    for begin in range(0, delivery.size, PART):
                        self._read_part(delivery, begin, min(begin + PART, delivery.size), file)
                except _GONE:
                    path = delivery.path
                    if not _is_odd(path) and any(one.path == path for one in self._listed(path, "")):
                        raise PlatformError(
                            "its key ends in a slash, as those of folders do, and is not read. Rename the object."
                        ) from None
                    raise
            file.seek(0)
            yield file

    def _read_part(self, delivery: Delivery, begin: int, end: int, file: BinaryIO) -> None:
        """Write a part of an object to the file; begun anew when the connection is lost amid it, as often as the
        options say."""
        options: dict[str, Any] = {"range": (begin, end)}
        if delivery.etag:
            options["if_match"] = delivery.etag
        for attempt in range(self._options.max_retries + 1):
            file.seek(begin)
            try:
                if _is_odd(delivery.path):
                    self._exact.read(delivery, begin, end, file)
                    return
                got = obstore.get(self._store, delivery.path, options=options)  # type: ignore[arg-type]  # as documented
                if delivery.etag and (etag := got.meta["e_tag"]) and _bare(etag) != _bare(delivery.etag):
                    raise PlatformError(CHANGED)  # there are stores that do not mind what they are asked to match
                for block in got.stream(min_chunk_size=1 << 20):
                    file.write(memoryview(block))
                if file.tell() != end:
                    raise PlatformError(
                        f"{self} gave {file.tell() - begin:,} bytes instead of {end - begin:,}. It is tried again."
                    )
                return
            except exceptions.GenericError:
                # Until the first byte came the client itself has tried again.
                if file.tell() == begin or attempt == self._options.max_retries:
                    raise

    def changed(self, delivery: Delivery) -> bool:  # noqa: ARG002 - it was read by its etag
        return False

    def take(self, delivery: Delivery, target: str | None) -> bool:
        """As of every storage, by a copy and a deletion. S3 deletes the object only if it is still the one that was
        found; in the other clouds, whose client cannot ask for that, one that is overwritten within the moment between
        the last look and the deletion is lost, unless the bucket keeps versions."""
        if _is_odd(delivery.path) or (target is not None and _is_odd(target)):
            raise PlatformError("its key is no path, and is not moved or deleted. Rename the object")
        with self._explained(delivery.path):
            if not self._is_as_found(delivery):
                return False
            if target is not None:
                if (there := self._head(target)) is None:
                    obstore.copy(self._store, delivery.path, target)
                elif not self._is_copy(there, delivery):
                    raise FileExistsError(f"{target} exists")
                # Else it is the copy of a load that was ended before it came to delete the object.
                if not self._is_as_found(delivery):
                    obstore.delete(self._store, target)  # maybe the copy is of the later one
                    return False
            try:
                if self._url.startswith("s3://") and delivery.etag:
                    self._exact.delete(delivery)
                else:
                    obstore.delete(self._store, delivery.path)
            except exceptions.PreconditionError:
                if target is not None:
                    obstore.delete(self._store, target)
                return False
        return True

    def _is_copy(self, there: Any, delivery: Delivery) -> bool:
        """Whether an object has the content of a delivery. The etag says so in S3; in the other clouds, and of objects
        that came in parts, each object has one of its own."""
        if there["size"] != delivery.size:
            return False
        return there["e_tag"] == delivery.etag or self._digest(there["path"]) == self._digest(delivery.path)

    def _digest(self, path: str) -> bytes:
        content = hashlib.sha256()
        for block in obstore.get(self._store, path).stream(min_chunk_size=1 << 20):
            content.update(memoryview(block))
        return content.digest()

    def _is_as_found(self, delivery: Delivery) -> bool:
        there = self._head(delivery.path)
        return there is not None and (there["size"], there["e_tag"] or "") == (delivery.size, delivery.etag)

    def gives_several(self) -> bool:
        return True

    def _head(self, path: str) -> Any:
        """What is known of an object; None if there is none."""
        try:
            return obstore.head(self._store, path)
        except _GONE:
            return None

    @contextmanager
    def _explained(self, path: str | None = None) -> Iterator[None]:
        """What goes wrong, as a person may act upon it."""
        try:
            yield
        except exceptions.PreconditionError:
            if path is not None and not self.exists(Delivery(path, 0, 0)):  # Azure says so of what is gone as well
                raise FileNotFoundError(f"{self}/{path} is gone") from None
            raise PlatformError(CHANGED) from None
        except FileExistsError:
            raise
        except (exceptions.BaseError, OSError) as error:
            raise self._failure(error, path) from None

    def _failure(self, error: Exception, path: str | None) -> Exception:
        """What an error of the client means, of the object `path` or of the bucket."""
        options = self._options
        if re.search("NoSuchBucket|ContainerNotFound", str(error)) or (
            path is None and (isinstance(error, _GONE) or "404 Not Found" in str(error))
        ):
            return StorageUnavailableError(
                f"There is no bucket {urlsplit(self._url).netloc}, of which {self} is to be read{self._at()}. Make it, "
                "or correct `folder` or `endpoint`."
            )
        code = _code(error)
        if code in _EXPIRED:
            return StorageUnavailableError(
                f"The credentials for {self}{self._at()} are not valid, or not any more ({_said(error)}). Those of a "
                f"role are renewed by themselves; what was set by hand must be set anew. {self._credentials()}"
            )
        if code == "RequestTimeTooSkewed":
            return StorageUnavailableError(
                f"The clock of this machine and that of the store of {self}{self._at()} differ too much "
                f"({_said(error)}). Set the clock (NTP)."
            )
        if code == "InvalidObjectState" and path is not None:
            return PlatformError(
                "it is archived (a storage class such as GLACIER), and cannot be read before it is restored. Restore "
                "it, or let `path` or `partitions` leave it out."
            )
        if "redirect without LOCATION" in str(error):
            return StorageUnavailableError(
                f"The bucket of {self} lies in another region than `region` of the source (or AWS_REGION) says"
                f"{self._at()}. Set `region`."
            )
        if isinstance(error, _GONE):
            return FileNotFoundError(f"{self}/{path} is gone")
        if isinstance(error, _REFUSED) or re.search(r"status code: 40[13]\b", str(error)):
            if path is not None and code not in _WRONG_KEYS:  # the bucket could be listed: others may be read
                return PlatformError(f"it may not be read with these credentials ({_said(error)}); grant them that.")
            return StorageUnavailableError(
                f"{self} may not be read{self._at()} with the credentials that were given ({_said(error)}). Needed is "
                f"the right to list the bucket and to read its objects. {self._credentials()}"
            )
        if path is not None and re.search(r"status code: 4(?!08|29)\d\d\b", str(error)):
            # It is this object's affair: encrypted with a key of its own, or with one that was disabled.
            return PlatformError(f"the store refuses to give it ({_said(error)}).")
        if isinstance(error, exceptions.InvalidPathError) or "empty path segment" in str(error):
            return PlatformError(
                f"{self} holds a key that is no path ({_said(error)}). Rename the object, or name a `folder` further "
                "down."
            )
        if "169.254.169.254" in str(error):  # where a machine at Amazon asks for its role
            return StorageUnavailableError(f"There are no credentials for {self}{self._at()}. {self._credentials()}")
        return StorageUnavailableError(
            f"{self} does not answer as it should{self._at()}: {_said(error)}. Is the store up, and can this machine "
            f"reach it? `timeout` ({options.timeout:g} s), `max_retries` ({options.max_retries}) and `patience` "
            f"({duration_text(options.patience)}) of the source say how long it is waited for."
        )

    def _at(self) -> str:
        return f" at {self._options.endpoint}" if self._options.endpoint else ""

    def _credentials(self) -> str:
        if not self._url.startswith("s3://"):
            return "Set the variables GOOGLE_* or AZURE_* of the environment, or `anonymous: true` for a public bucket."
        return (
            "Set `access_key_id` and `secret_access_key` of the source, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY where Dagster runs, or `anonymous: true` for a public bucket."
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _delivery(meta: Any) -> Delivery:
    modified = (meta["last_modified"] - _EPOCH) // timedelta(microseconds=1) * 1000
    return Delivery(meta["path"], meta["size"], modified, etag=meta["e_tag"] or "")


def _is_odd(path: str) -> bool:
    """Whether a path is one that obstore refuses."""
    return "" in path.split("/") or any(one < " " or one == "\x7f" for one in path) or _is_unreadable(path)


def _is_unreadable(path: str) -> bool:
    """Whether nothing can be read by a path: addresses have no such parts, and what ends in a slash is a folder."""
    parts = path.split("/")
    return not parts[-1] or "." in parts or ".." in parts


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _before(path: str) -> str:
    """A text that sorts before a path, with next to nothing between them."""
    return path[:-1] + chr(ord(path[-1]) - 1) + "~" if path and ord(path[-1]) > 0x20 else path[:-1]


_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestExpired")
_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


def _code(error: Exception) -> str:
    """What the store calls the failure; empty if it does not say."""
    found = re.search(r"<Code>([\w.]+)</Code>|error occurred \(([\w.]+)\)", str(error))
    return (found.group(1) or found.group(2)) if found else ""


def _said(error: Exception) -> str:
    """What the store says, or else the client, without its own inner parts."""
    if found := re.search(r"<Code>([\w.]+)</Code>.*?<Message>(.*?)</Message>", str(error), re.DOTALL):
        status = re.search(r"status code: (\d+ )", f"{error} ")
        said = f"{status.group(1) if status else ''}{found.group(1)}: {found.group(2).rstrip('.')}"
        return shortened(said, 300)
    return shortened(str(error).split("\n\nDebug source:")[0].replace("\n", " "), 300)


def _endpoint(url: str, options: StorageOptions) -> str | None:
    return options.endpoint or (os.environ.get("AWS_ENDPOINT_URL") if url.startswith("s3://") else None)


def _store(url: str, options: StorageOptions) -> Any:
    place, endpoint = urlsplit(url), _endpoint(url, options)
    shared: dict[str, Any] = {
        "prefix": place.path.strip("/") or None,
        "client_options": {
            "connect_timeout": timedelta(seconds=options.timeout),
            "read_timeout": timedelta(seconds=options.timeout),
            "timeout": options.answer_timeout,
            "allow_http": (endpoint or "").startswith("http://"),
        },
        "retry_config": {"max_retries": options.max_retries, "retry_timeout": options.patience},
    }
    if options.anonymous:
        shared["skip_signature"] = True
    try:
        if place.scheme == "gs":
            return GCSStore(place.netloc, **shared)
        if place.scheme == "az":
            return AzureStore(place.netloc, **shared)
        given: dict[str, Any] = {
            "endpoint": endpoint,
            "region": options.region,
            "access_key_id": options.access_key_id and options.access_key_id.get_secret_value(),
            "secret_access_key": options.secret_access_key and options.secret_access_key.get_secret_value(),
        }
        return S3Store(place.netloc, **shared, **{name: one for name, one in given.items() if one})
    except exceptions.BaseError as error:
        raise PlatformError(f"{url} cannot be reached by what is given: {_said(error)}.") from None
