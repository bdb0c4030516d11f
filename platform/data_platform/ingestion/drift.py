"""Drift: how the columns that a source gives depart from those of its raw table, and what becomes of them. Reading and
landing the rows is `load`'s work; what the columns mean is the contract's.

Names are compared as DuckDB does, without regard to case: a source that now says `Email` means the column `email`,
and is masked as before. Whole numbers are stored as BIGINT from the start, so that a source whose column becomes wider
needs nothing: DuckLake 1.0 keeps wrong statistics of a column whose type is altered, and reads wrong rows by them.
"""

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.lakehouse.tables import LOAD_COLUMNS

INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"})
"""What BIGINT holds."""

UNKNOWN = "UNKNOWN"
"""In place of a type, for a column that holds nothing but nulls."""


class LoadRefusedError(PlatformError):
    """The load was refused: the table is as it was, and records that could not be read are in quarantine."""


@dataclass
class Columns:
    """The columns of one raw table during a load: `before` as they are stored (empty if the table is not there yet),
    `settled` as they will be, `seen` as the source gave them. `drift` names columns that were `added` or `ignored`."""

    label: str
    policy: Literal["evolve", "ignore", "refuse"]
    before: dict[str, str]
    settled: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    drift: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settled = {column: kind for column, kind in self.before.items() if column not in LOAD_COLUMNS}

    def named(self, rows: pa.Table) -> pa.Table:
        """The rows with their columns spelt as they are stored. Raises PlatformError for names that clash."""
        stored = {column.lower(): column for column in (*self.settled, *sorted(self.seen))}
        names: dict[str, str] = {}
        for column in rows.column_names:
            lower = column.lower()
            if lower in LOAD_COLUMNS or lower in names:
                other = (
                    "a name that the platform uses itself" if lower in LOAD_COLUMNS else f"and a column {names[lower]}"
                )
                raise PlatformError(
                    f"{self.label} has a column {column}, {other}. Nothing was loaded. Leave it out with `columns`, or "
                    "rename it in a view of the source."
                )
            names[lower] = stored.get(lower, column)
        return rows.rename_columns(list(names.values()))

    def require_masked(self, rows: pa.Table, wanted: list[str]) -> None:
        """Raise PlatformError if a column that is to be masked is missing and may have come in the clear under another
        name: it was never there (a misspelling), or it is gone and others are new (a renaming)."""
        absent = [column for column in wanted if column not in rows.column_names]
        unknown = [column for column in absent if column not in self.settled and column not in self.seen]
        if unknown:
            raise PlatformError(
                f"{self.label} is to mask {', '.join(unknown)}, which the source does not give. "
                f"It gives: {', '.join(rows.column_names)}. Nothing was loaded: correct `mask` in defs.yaml."
            )
        added = self._added(rows)
        if absent and added and self.policy != "ignore":
            raise LoadRefusedError(
                f"{self.label} no longer gives {', '.join(absent)}, which is masked, and gives {', '.join(added)} "
                "instead, which is not. Nothing was loaded. If it was renamed, name it under `mask`; if not, leave the "
                "new one out with `drift: ignore`."
            )

    def admit(self, rows: pa.Table) -> pa.Table:
        """The rows without the columns that the policy leaves out. Raises LoadRefusedError if it refuses them."""
        self.seen |= set(rows.column_names)
        added = self._added(rows)
        if not added:
            return rows
        if self.policy == "refuse":
            raise LoadRefusedError(
                f"{self.label} has new column{'s' * (len(added) > 1)} {', '.join(added)}, and its drift policy is to "
                "refuse. Nothing was loaded. Add them to the contract and set `drift: evolve`, or set `drift: ignore`."
            )
        self._note("ignored" if self.policy == "ignore" else "added", added)
        return rows.drop_columns(added) if self.policy == "ignore" else rows

    def settle(self, incoming: dict[str, str]) -> dict[str, str]:
        """The type that each incoming column is stored in. Raises LoadRefusedError for one that does not fit the raw
        table's."""
        types = {}
        for column, given in incoming.items():
            kind = self.settled.get(column, "VARCHAR") if given == UNKNOWN else given
            kind = "BIGINT" if kind in INTEGERS else kind
            stored = self.settled.get(column, kind)
            if stored != kind and not fits(kind, stored):
                raise LoadRefusedError(
                    f"{self.label}: column {column} was {stored} and is now {kind}. Nothing was loaded. Cast it back "
                    "in the source, or drop the raw table and load it afresh with --full-refresh."
                )
            types[column] = stored
        self.settled |= types
        return types

    def found(self) -> dict[str, list[str]]:
        """All drift of this load: what was noted, and stored columns that the source no longer gives, as `lost`."""
        lost = sorted(c for c in self.before if c not in LOAD_COLUMNS and c not in self.seen) if self.seen else []
        return {**self.drift, **({"lost": lost} if lost else {})}

    def _added(self, rows: pa.Table) -> list[str]:
        return [column for column in rows.column_names if column not in self.before] if self.before else []

    def _note(self, what: str, columns: list[str]) -> None:
        self.drift[what] = sorted({*self.drift.get(what, []), *columns})


def fits(kind: str, stored: str) -> bool:
    """Whether every value of type `kind` can be stored as `stored` without loss."""
    if stored == "VARCHAR":
        return True
    if kind == "FLOAT" and stored == "DOUBLE":
        return True
    if kind.startswith("DECIMAL(") and stored.startswith("DECIMAL("):
        (p1, s1), (p2, s2) = (tuple(map(int, t[8:-1].split(","))) for t in (kind, stored))
        return s2 >= s1 and p2 - s2 >= p1 - s1
    return False
