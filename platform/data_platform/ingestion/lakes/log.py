"""The log of a Delta table as files: what each commit added and removed, and which files are there.

delta-rs shows no single commits, and its own file system stops the whole process while a store does not answer. obstore
speaks to the same stores by the same settings.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore
from obstore import exceptions
from obstore.store import LocalStore, from_url

CLIENT = frozenset(
    {"allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout"}
    | {"pool_max_idle_per_host", "proxy_url", "read_timeout", "timeout", "user_agent", "randomize_addresses"}
    | {"default_content_type", "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle"}
    | {"http2_max_frame_size", "proxy_ca_certificate", "proxy_excludes", "root_certificate_directory"}
)
"""Settings that are of the HTTP client, and not of a store."""

FLAGS = {"true": True, "false": False}

PATIENCE = {"max_retries": "3", "retry_timeout": "30s"}
"""How long a store is waited for that does not answer, unless the settings say otherwise."""

GONE = (exceptions.NotFoundError, FileNotFoundError)


@dataclass(frozen=True)
class Commit:
    """What one commit did: the files that it added, with their rows if it says so, and removed, and those of its change
    feed; paths as the log has them. `describes` tells whether it changed the table's description, and `starves_feed`
    whether to one that has no change feed: delta-rs does not read the rows of such a commit."""

    version: int
    added: Mapping[str, int] = field(default_factory=dict)
    removed: Sequence[str] = ()
    feed: Sequence[str] = ()
    describes: bool = False
    starves_feed: bool = False

    @property
    def appends(self) -> bool:
        """Whether it only added rows."""
        return bool(self.added) and not self.removed

    @property
    def is_silent(self) -> bool:
        """Whether it changed no rows."""
        return not (self.added or self.removed or self.feed)


def is_remote(folder: str) -> bool:
    """Whether a folder is the URL of a store."""
    return "://" in folder and not folder.startswith("file://")


def with_patience(folder: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of a store as delta-rs is given them."""
    if not is_remote(folder):
        return dict(settings)
    names = {name.lower().removeprefix("aws_") for name in settings}
    added = {} if "retry_timeout" in names or "max_retries" in names else dict(PATIENCE)
    if _endpoint(settings).startswith("http://") and "allow_http" not in names:
        added["allow_http"] = "true"
    return {**settings, **added}


def _endpoint(settings: Mapping[str, str]) -> str:
    given = (value for name, value in settings.items() if name.lower() in ("aws_endpoint_url", "endpoint_url"))
    return next(given, os.environ.get("AWS_ENDPOINT_URL", ""))


class Folder:
    """A folder of a store, of which files are read whole. Errors are those of obstore."""

    def __init__(self, folder: str, settings: Mapping[str, str]) -> None:
        self.store = _store(folder, settings)

    def commit(self, version: int) -> Commit | None:
        """What a commit did; None if the log does not have it any more."""
        try:
            content = bytes(obstore.get(self.store, f"_delta_log/{version:020}.json").bytes())
        except GONE:
            return None
        return parsed(version, content)

    def first_missing(self, paths: Iterable[str]) -> str | None:
        """The first of these files that is not there. Paths are as the log has them; one outside of the folder (of a
        shallow clone) is taken to be there."""
        for path in paths:
            if "://" in path:
                continue
            try:
                obstore.head(self.store, unquote(path))
            except GONE:
                return path
        return None

    def folders(self) -> list[str]:
        """The names of the folders in it."""
        return sorted(path.strip("/") for path in obstore.list_with_delimiter(self.store)["common_prefixes"])


def parsed(version: int, content: bytes) -> Commit:
    """The actions of a commit that change rows."""
    added: dict[str, int] = {}
    removed, feed, describes, starves = [], [], False, False
    for line in content.splitlines():
        action = json.loads(line) if line.strip() else {}
        if (add := action.get("add")) and add.get("dataChange", True):
            added[add["path"]] = int(json.loads(add.get("stats") or "{}").get("numRecords") or 0)
        if (remove := action.get("remove")) and remove.get("dataChange", True):
            removed.append(remove["path"])
        if cdc := action.get("cdc"):
            feed.append(cdc["path"])
        if about := action.get("metaData"):
            describes = True
            starves = about.get("configuration", {}).get("delta.enableChangeDataFeed", "").lower() != "true"
    return Commit(version, added, removed, feed, describes, starves)


def _store(folder: str, settings: Mapping[str, str]) -> Any:
    if not is_remote(folder):
        path = Path(folder.removeprefix("file://"))
        if not path.is_dir():
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(path))
        return LocalStore(path)
    client: dict[str, Any] = {}
    config: dict[str, Any] = {}
    retries: dict[str, Any] = {"max_retries": 3}
    for name, value in with_patience(folder, settings).items():
        plain = name.lower().removeprefix("aws_")
        if plain in CLIENT:
            client[plain] = FLAGS.get(value.lower(), value)
        elif plain == "max_retries":
            retries[plain] = int(value)
        elif plain != "retry_timeout" and _is_known(folder, name.lower(), value):
            config[name.lower()] = value
    return from_url(folder, config=config, client_options=client, retry_config=retries)  # type: ignore[call-overload]


def _is_known(folder: str, name: str, value: str) -> bool:
    """Whether a setting is of the store: others are of the writing of Delta tables."""
    try:
        from_url(folder, config={name: value})  # type: ignore[call-overload]
    except exceptions.UnknownConfigurationKeyError:
        return False
    except exceptions.BaseError:
        return True  # it wants another one besides
    return True
