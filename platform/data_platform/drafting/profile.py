"""Profiles of the tables of a system that is to become a source: which tables there are, what the system says of their
columns, and their first rows, read by the code that will load them. How each kind of system is profiled is in a module
of its own; what is drafted from a profile is in `draft`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_platform.drafting.times import Times
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Reading, Source
from data_platform.ingestion.sql.comments import Comments
from data_platform.ingestion.sql.constraint_types import Constraints
from data_platform.lakehouse.settings import Settings

SAMPLE_ROWS = 20_000
"""Rows that are read of a table for its draft, at most, and about as many once more to try the draft."""

SAMPLE_SECONDS = 60.0
"""How long somebody else's program is read for its first rows, where it gives few of them in that time."""

READ_WITHIN = timedelta(days=1)
"""How long a source may go unread that is read every `refresh` even if nothing is new."""

NAME_CHARACTERS = 80
"""Characters in a drafted name at most."""

NO_CONSTRAINTS = Constraints()
NO_COMMENTS = Comments()
UNUSED: dict[str, Any] = {"key": ["unknown"], "contract": "unknown.unknown.Unknown"}
"""Required options of a table that do not matter for reading its first rows."""


@dataclass(frozen=True)
class Declared:
    """What the source itself says of a column: its type in the source's words, whether it may be null, and how instants
    are written in it where they are text."""

    kind: str
    nullable: bool
    times: Times | None = None


@dataclass(frozen=True)
class TableProfile:
    """One table of a system: its name here, what `defs.yaml` says of where it is, its first rows.

    `whole` tells whether these are all rows there are. `origin` is what the source calls the table, `key` its primary
    key there; they, `declared`, `constraints` and `comments` are empty where the source says nothing. `notes` are
    sentences for a person to read. `fresh_within` is how long nothing may be staged before that is a sign that
    something is wrong, if it can be known. `takes_cursor` tells whether `cursor` may be written of it.
    """

    name: str
    place: Mapping[str, Any]
    rows: pa.Table
    whole: bool
    declared: Mapping[str, Declared] = field(default_factory=dict)
    key: Sequence[str] = ()
    notes: Sequence[str] = ()
    origin: str = ""
    constraints: Constraints = NO_CONSTRAINTS
    comments: Comments = NO_COMMENTS
    fresh_within: timedelta | None = None
    takes_cursor: bool = True


@dataclass(frozen=True)
class Request:
    """What a person asks to have profiled: the new source's name, its address (a URL, a file, a folder, a tap, a
    function), the tables that are wanted (all if none), and the environment variable that holds a token. `config` is
    what a tap, a function or a lake is configured with, secrets as variables of the environment; `changes` asks for a
    database to be read by its log; `encoding` is that of files that are not UTF-8. Relative folders are looked for
    below `landing`; `spool` takes unpacked files."""

    name: str
    address: str
    tables: Sequence[str]
    token_variable: str | None
    settings: Settings
    config: Mapping[str, Any] = field(default_factory=dict)
    changes: bool = False
    encoding: str | None = None

    @property
    def landing(self) -> Path:
        return self.settings.landing

    @property
    def spool(self) -> Path:
        return self.settings.spool


@dataclass(frozen=True)
class Profile:
    """The profiled tables, what `defs.yaml` says of the source itself, environment variables to keep, and the tables
    that could not be profiled, with the reason. `notes` are sentences on the source for a person to read, `missing`
    those on what has to be done at the source before it can be loaded."""

    tables: Sequence[TableProfile]
    attributes: Mapping[str, Any]
    remember: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()


def slug(name: str) -> str:
    """A name as the lakehouse and Python can write it: `Order Items` is `order_items`."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.split("/")[-1])
    plain = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return (plain if plain[:1].isalpha() else f"t_{plain}")[:NAME_CHARACTERS].rstrip("_")


def profile_each(
    names: Sequence[str], wanted: Sequence[str], profile: Callable[[str, str], TableProfile]
) -> tuple[list[TableProfile], dict[str, str]]:
    """What `profile` makes of each table that is wanted, called by its name here and that of the source; and those that
    cannot be read, with the reason. Raises PlatformError, with all reasons, if none can."""
    tables, failures = [], {}
    for name, origin in zip(names, wanted, strict=True):
        try:
            tables.append(profile(name, origin))
        except PlatformError as error:
            failures[origin] = str(error)
    if not tables:
        raise PlatformError(" ".join(dict.fromkeys(failures.values())))
    return tables, failures


def first_rows(source: Source, table: str) -> tuple[pa.Table, bool]:
    """The first rows of a table, and whether they are all of them. Closes the reading at once."""
    with source.reading([table], {}) as reading:
        return rows_of(reading)


def rows_of(reading: Reading) -> tuple[pa.Table, bool]:
    """The first rows of a reading of one table, and whether they are all of them."""
    gathered: list[pa.Table] = []
    count, whole = 0, True
    batches = iter(reading)
    try:
        for batch in batches:
            gathered.append(batch.rows.slice(0, SAMPLE_ROWS))
            count += batch.rows.num_rows
            if count >= SAMPLE_ROWS:
                whole = False
                break
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    kept = [rows for rows in gathered if rows.num_columns]
    return (pa.concat_tables(kept, promote_options="default") if kept else pa.table({})), whole
