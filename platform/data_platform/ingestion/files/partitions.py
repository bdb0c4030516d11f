"""What the paths of files tell: which of them can be new, given those that are loaded, where paths begin with a date or
sort as they come; and the values of columns in folders that are called `name=value`, as Hive and Spark call them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from data_platform.errors import PlatformError
from data_platform.options import Duration, Options

NAME = "name"
"""What `by` says of paths that sort in the order in which the files come."""

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for null."""

_DIGITS = {"%Y": 4, "%m": 2, "%d": 2, "%H": 2}
"""The parts of a date, largest first, and how many digits each has: paths then sort as the dates do."""


class Partitions(Options):
    """Where the date stands in the paths of a table's files, and how late one may come."""

    by: str = Field(
        description="How paths begin, with the date in them: dt=%Y-%m-%d, orders/%Y/%m/%d/%H, orders_%Y%m%d. Or "
        "`name`: each new path sorts, as text, after all before it (00000041.json, not 9.json and then 10.json); "
        "one that does not is never seen, and a file that cannot be read holds back those after it."
    )
    late: Duration = Field(
        default=timedelta(days=1),
        description="Of dates: how long after the date of the newest loaded file one of an earlier date may come: "
        "1d, 6h.",
    )

    @field_validator("by")
    @classmethod
    def _sorts_by_date(cls, by: str) -> str:
        if by == NAME:
            return by
        parts = re.findall("%.?", by)
        if not parts or parts != list(_DIGITS)[: len(parts)]:
            raise ValueError(
                f"{by!r} must hold a date, its largest part first, each once: %Y, %Y and %m, up to %Y, %m, %d and %H; "
                f"or be {NAME}"
            )
        return by

    @model_validator(mode="after")
    def _lateness_of_dates(self) -> "Partitions":
        if self.by_name and "late" in self.model_fields_set:
            raise ValueError(f"`late` is for dates: `by: {NAME}` looks at what sorts after the last path alone")
        return self

    @property
    def by_name(self) -> bool:
        """Whether paths sort in the order in which the files come."""
        return self.by == NAME

    def refuse_other(self, path: str) -> None:
        """Raise ValueError if the files that a pattern means need not begin as `by` says."""
        if self.by_name:
            return
        fixed = self.by.split("%")[0]
        common = min(len(fixed), len(re.split(r"[*?\[]", path)[0]))
        if fixed[:common] != path[:common]:
            raise ValueError(f"`partitions` says that paths begin with {fixed!r}, where `path` is {path!r}")

    def start(self, loaded: Iterable[str]) -> str:
        """What the paths that are looked at do not sort before: the last of those that are loaded, or the newest date
        in them, less `late`. Empty, so that all are, while none (with a date) is loaded. Dates beyond tomorrow do not
        count: a mistake in one name would hide all that comes until then."""
        if self.by_name:
            return max(loaded, default="")
        shape = re.compile("".join(_expression(part) for part in re.split("(%.)", self.by)))
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime(self.by)
        dates = (found.group() for path in loaded if (found := shape.match(path)))
        newest = max((date for date in dates if date <= tomorrow), default=None)
        if newest is None:
            return ""
        try:
            return (datetime.strptime(newest, self.by) - self.late).strftime(self.by)
        except (ValueError, OverflowError):  # 2024-13-45: by such a name nothing may be left out
            return ""


def _expression(part: str) -> str:
    return f"[0-9]{{{_DIGITS[part]}}}" if part in _DIGITS else re.escape(part)


def path_values(path: str, names: Sequence[str]) -> dict[str, str | None]:
    """The values of columns in a path: of `dt` in `dt=2026-01-01/a.csv`. Raises PlatformError if one is not there, or
    twice."""
    found: dict[str, list[str]] = {}
    for folder in path.split("/")[:-1]:
        name, sign, value = folder.partition("=")
        if sign:
            found.setdefault(unquote(name), []).append(value)
    for name in names:
        if len(values := found.get(name, [])) != 1:
            there = ", ".join(found) or "none"
            raise PlatformError(
                f"its path has {len(values) or 'no'} folder{'s' * (len(values) > 1)} `{name}=...`, which "
                f"`partition_columns` names. Its columns: {there}. Correct that, or let `path` match other files"
            )
    return {name: None if (value := found[name][0]) == HIVE_NULL else unquote(value) for name in names}


def identity(content: str, path: str, names: Sequence[str]) -> str:
    """What tells whether a file holds the rows of another: the hash of its bytes, and the values in its path. Raises
    PlatformError as `path_values` does."""
    if not names:
        return content
    return hashlib.sha256(json.dumps([content, path_values(path, names)]).encode()).hexdigest()


def with_path_values(
    parsed: Iterator[tuple[pa.Table, pa.Table]], values: Mapping[str, str | None]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows and rejects of a file, the rows with the values of its path as text in front. Raises PlatformError if the
    file has a column of such a name itself: nobody can tell which is meant."""
    for rows, rejects in parsed:
        if both := {name.lower() for name in rows.column_names} & {name.lower() for name in values}:
            raise PlatformError(
                f"it has a column {', '.join(sorted(both))} itself: take that out of `partition_columns`"
            )
        columns = {name: pa.repeat(pa.scalar(value, pa.string()), rows.num_rows) for name, value in values.items()}
        columns |= {name: rows[name] for name in rows.column_names}
        yield pa.table(columns), rejects
