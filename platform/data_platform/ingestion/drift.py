"""Drift: how the columns that a source gives depart from those of its raw table, and what becomes of them. Reading
and landing the rows is `landing`'s work; what the columns mean is the contract's.

Names are compared as DuckDB does, without regard to case: a source that now says `Email` means the column `email`,
and is masked as before. Whole numbers are stored as BIGINT from the start, so that the commonest widening needs
nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.source import LONGEST_NAME, MAX_COLUMNS, too_many_columns
from data_platform.lakehouse.tables import CHANGE_COLUMNS, LOAD_COLUMNS, PLATFORM_COLUMNS, TOMBSTONE_COLUMNS

INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"})
"""What BIGINT holds."""

ONLY_NULLS = "NULL"
"""In place of a type, for a column that holds nothing but nulls."""


class LoadRefusedError(PlatformError):
    """The load was refused: the table is as it was, and a sample of what could not be read is in quarantine."""


@dataclass(frozen=True)
class Drift:
    """How the columns of a load departed from those of the raw table: names, and `column: type to type` for types."""

    added: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.ignored or self.lost or self.widened)

    def as_dict(self) -> dict[str, list[str]]:
        """What there is of it, by kind."""
        return {kind: list(getattr(self, kind)) for kind in self.__dataclass_fields__ if getattr(self, kind)}

    def __or__(self, later: "Drift") -> "Drift":
        return Drift(
            **{
                kind: tuple(dict.fromkeys([*getattr(self, kind), *getattr(later, kind)]))
                for kind in self.__dataclass_fields__
            }
        )


@dataclass
class Columns:
    """The columns of one raw table during a load: `before` as they are stored (empty if the table is not there yet),
    `settled` as they will be, `seen` as the source gave them.

    `retype` says what becomes of a column whose new type the stored one cannot be widened to: "refuse" the load, store
    it as "text" (which holds anything: a log of changes must be read on), or "replace" the table.
    """

    label: str
    policy: Literal["evolve", "ignore", "refuse"]
    before: dict[str, str]
    retype: Literal["refuse", "text", "replace"] = "refuse"
    settled: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    replaced: bool = False
    most: int = MAX_COLUMNS

    def __post_init__(self) -> None:
        self.settled = {column: kind for column, kind in self.before.items() if column not in LOAD_COLUMNS}

    def named(self, rows: pa.Table) -> pa.Table:
        """The rows with their columns spelt as they are stored. Columns whose names differ by case only are one, as
        long as no row has a value in several. Raises PlatformError for names that clash."""
        stored = {column.lower(): column for column in (*self.settled, *sorted(self.seen))}
        spellings: dict[str, list[str]] = {}
        for column in rows.column_names:
            lower = column.lower()
            if not column or "\0" in column:
                what = f"named {column!r}, which holds a NUL character" if column else "without a name"
                raise PlatformError(
                    f"{self.label} has a column {what}: the lakehouse has none such. Nothing was loaded. Name it in "
                    "the file, or in a view of the source."
                )
            if len(column) > LONGEST_NAME:
                raise PlatformError(
                    f"{self.label} has a column whose name has {len(column):,} characters ({shortened(column, 40)}), "
                    f"more than the {LONGEST_NAME:,} that a name may have. Nothing was loaded. Where keys are values, "
                    "have them written as a list of objects."
                )
            if lower in LOAD_COLUMNS or lower in TOMBSTONE_COLUMNS:
                raise PlatformError(
                    f"{self.label} has a column {column}, a name that the platform uses itself. Nothing was loaded. "
                    "Leave it out with `columns`, or rename it in the file or in a view of the source."
                )
            spellings.setdefault(lower, []).append(column)
        together = {*stored, *spellings}
        if len(together) > self.most:
            raise LoadRefusedError(str(too_many_columns(self.label, together, self.most)))
        names = {stored.get(lower, columns[0]): columns for lower, columns in spellings.items()}
        if list(names) == rows.column_names:
            return rows
        return pa.table({name: self._as_one(rows, columns) for name, columns in names.items()})

    def _as_one(self, rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
        """Columns whose names differ by case only, as one."""
        first, *others = (rows[column] for column in columns)
        for other in others:
            if other.type != first.type or pc.any(pc.and_(pc.is_valid(first), pc.is_valid(other))).as_py():
                raise PlatformError(
                    f"{self.label} has the columns {' and '.join(columns)}, which differ by upper and lower case only "
                    "and hold values in the same rows: the lakehouse takes them for one. Nothing was loaded. Leave one "
                    "out with `columns`, or rename it in the file or in a view of the source."
                )
            first = pc.coalesce(first, other)
        return first

    def require_masked(self, columns: Sequence[str], wanted: Sequence[str]) -> None:
        """Raise PlatformError if a column that is to be masked is missing and may have come in the clear under another
        name: it was never there (a misspelling), or it is gone and others are new (a renaming)."""
        absent = [column for column in wanted if column not in columns]
        unknown = [column for column in absent if column not in self.settled and column not in self.seen]
        if unknown:
            raise PlatformError(
                f"{self.label} is to mask {', '.join(unknown)}, which the source does not give. "
                f"It gives: {', '.join(columns)}. Nothing was loaded: correct `mask` in defs.yaml."
            )
        added = self._new(columns)
        if absent and added and self.policy != "ignore":
            raise LoadRefusedError(
                f"{self.label} no longer gives {', '.join(absent)}, which is masked, and gives {', '.join(added)} "
                "instead, which is not. Nothing was loaded. If it was renamed, name it under `mask`; if not, leave the "
                "new one out with `drift: ignore`."
            )

    def admit(self, rows: pa.Table) -> pa.Table:
        """The rows without the columns that the policy leaves out. Raises LoadRefusedError if it refuses them."""
        added = self._new(rows.column_names)
        if added and self.policy == "refuse":
            raise LoadRefusedError(
                f"{self.label} has new column{'s' * (len(added) > 1)} {', '.join(added)}, and its drift policy is to "
                "refuse. Nothing was loaded. Add them to the contract and set `drift: evolve`, or set `drift: ignore`."
            )
        self.seen.update(rows.column_names)
        if not added:
            return rows
        if self.policy == "ignore":
            self.ignored.update(added)
            return rows.drop_columns(added)
        self.added.update(added)
        return rows

    def settle(self, incoming: Mapping[str, str]) -> None:
        """Take note of the types of incoming columns: each is stored in the type it has, or in a wider one that holds
        what is stored and what comes. Raises LoadRefusedError if there is none."""
        settled = {}
        for column, given in incoming.items():
            stored = self.settled.get(column)
            if given == ONLY_NULLS:
                settled[column] = stored or "VARCHAR"
                continue
            kind = "BIGINT" if given in INTEGERS else given
            settled[column] = kind if stored is None else wider(stored, kind) or self._retyped(column, stored, kind)
        self.settled |= settled

    def _retyped(self, column: str, stored: str, kind: str) -> str:
        if self.retype == "text" and column not in CHANGE_COLUMNS:
            return "VARCHAR"
        if self.retype == "replace":
            self.replaced = True
            return kind
        raise LoadRefusedError(
            f"{self.label}: column {column} was {stored} and is now {kind}. Nothing was loaded. Keep the rows "
            f"there are and store the column as text: dp run {self.label} --retype. Or replace the raw table by what "
            f"the source has now: dp run {self.label} --full-refresh."
        )

    def widened(self) -> dict[str, str]:
        """The stored columns whose type changes, with their new types."""
        return {
            column: self.settled[column]
            for column, kind in self.before.items()
            if column in self.settled and self.settled[column] != kind
        }

    def holds_changes(self) -> bool | None:
        """Whether the raw table is of changes of a log; None if there is none yet."""
        return set(CHANGE_COLUMNS) <= set(self.before) if self.before else None

    def hold_no_changes(self) -> None:
        """Take note that the raw table will be of plain rows."""
        for column in CHANGE_COLUMNS:
            self.settled.pop(column, None)

    def dropped(self) -> list[str]:
        """The stored columns that the raw table will not have any more."""
        return [column for column in self.before if column not in LOAD_COLUMNS and column not in self.settled]

    def found(self) -> Drift:
        """All drift of this load."""
        lost = sorted(c for c in self.before if c not in PLATFORM_COLUMNS and c not in self.seen) if self.seen else []
        widened = (f"{column}: {self.before[column]} to {kind}" for column, kind in self.widened().items())
        return Drift(tuple(sorted(self.added)), tuple(sorted(self.ignored)), tuple(lost), tuple(widened))

    def _new(self, columns: Sequence[str]) -> list[str]:
        known = {*self.before, *CHANGE_COLUMNS}
        return [column for column in columns if column not in known] if self.before else []


def wider(stored: str, given: str) -> str | None:
    """The type that holds every value of both without loss; None if there is none but text."""
    if given == stored or stored == "VARCHAR":
        return stored
    if {stored, given} == {"FLOAT", "DOUBLE"}:
        return "DOUBLE"
    digits, incoming = _digits(stored), _digits(given)
    if digits is None or incoming is None:
        return None
    whole, scale = max(digits[0], incoming[0]), max(digits[1], incoming[1])
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= 38 else None


_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def _digits(kind: str) -> tuple[int, int] | None:
    """Digits before and after the point that an exact number of this type may have."""
    if kind == "BIGINT":
        return 19, 0
    if kind == "UBIGINT":
        return 20, 0
    match = _DECIMAL.fullmatch(kind)
    return (int(match[1]) - int(match[2]), int(match[2])) if match else None
