"""Which files make up a table, as their paths tell. What is in them is in `files`."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import slug
from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import Delivery, Storage, unrecordable


@dataclass(frozen=True)
class Group:
    """The files of one table, newest first, and the pattern of their paths; of archives that of the members too; None
    where they are all of one table."""

    pattern: str
    files: Sequence[Delivery]
    members: str | None = None
    notes: tuple[str, ...] = ()


def file_groups(folder: Storage, wanted: Sequence[str], other: str) -> dict[str, Group]:
    """The tables that the files in a folder make up, by name: those that are wanted, or all of them, as where one that
    is wanted may be in an archive; where no file lies in the folder itself, those of the folders below. One whose files
    have no name is called `other`.

    Raises PlatformError if there is no file.
    """
    found = [one for one in folder.find("*", 0) or folder.find("**/*", 0) if not unrecordable(one.path)]
    # Such as _SUCCESS and _delta_log: what programs note of files.
    found = [one for one in found if not re.search(r"(^|/)_", one.path)] or found
    if not found:
        raise PlatformError(f"There is no file in {folder}. Put a first one there, then add the source.")
    patterns: dict[str, list[Delivery]] = {}
    for one in sorted(found, key=lambda one: one.path):
        patterns.setdefault(_pattern(one.path), []).append(one)
    whole = [slug(re.sub(r"[*./=]", " ", pattern)) for pattern in patterns]
    names = distinct_names([slug(_stem(pattern) or other) for pattern in patterns], whole)
    groups = {
        name: Group(pattern, sorted(files, key=lambda one: (one.mtime_ns, one.path), reverse=True))
        for name, (pattern, files) in zip(names, patterns.items(), strict=True)
    }
    return {name: groups[name] for name in (wanted if wanted and groups.keys() >= set(wanted) else groups)}


def _pattern(path: str) -> str:
    """The pattern of the files whose paths differ by digits, by unique ids, or by the value of `name=value/`."""
    pattern = re.sub(r"([*?\[])", r"[\1]", path)
    pattern = re.sub(r"(?:(?<=/)|^)(\w+)=[^/]+/", r"\1=*/", pattern)
    pattern = re.sub(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", "*", pattern)
    return re.sub(r"\*(?:[-_]?\*)+", "*", numbered(pattern))


def numbered(name: str) -> str:
    """The pattern of the names that differ from one by digits alone; those of an ending such as `.bz2` stay."""
    packed = next((end for end in (".bz2", ".tbz2", ".lz4") if name.lower().endswith(end)), "")
    stem = name[: len(name) - len(packed)]
    return re.sub(r"\d[\d\-_T:]*", "*", stem) + name[len(stem) :]


def partition_columns(pattern: str) -> list[str]:
    """The names of the columns whose values are in the paths of a pattern: `dt` in `dt=*/*.csv`."""
    found = re.findall(r"(?:(?<=/)|^)([A-Za-z]\w*)=\*/", pattern)
    return found if len({one.lower() for one in found}) == len(found) else []


def _stem(pattern: str) -> str:
    """What a pattern calls its files: the innermost folder with a name, or else the beginning of their own."""
    *folders, file = pattern.split("/")
    named = [one for one in folders if "*" not in one and "[" not in one]
    return named[-1] if named else file.split(".")[0].replace("*", "").strip("-_ ")


def due(group: Group) -> timedelta | None:
    """Within which time the next file is to be expected: twice the longest time between the dates in the names of
    three or more; None if they do not tell."""
    names = [re.search(r"(\d{4})-?_?(\d{2})-?_?(\d{2})(?!\d)", one.path) for one in group.files]
    days = set()
    for found in names:
        with suppress(ValueError):
            days.add(date(*map(int, found.groups())) if found else date.min)
    if len(days) < 3 or date.min in days:
        return None
    ordered = sorted(days)
    return 2 * max(later - earlier for earlier, later in pairwise(ordered))
