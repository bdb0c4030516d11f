"""Violations: the rules that rows of a table broke, how they are added up, worded and stored. How rows are held against
their contract is in `audit`; how a violation looks in Dagster is in `components.metadata`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

REASON = pl.Struct({"column": pl.String, "check": pl.String, "value": pl.String})
"""Why one row failed: the column (empty for the row as a whole), the rule in words, and the value that broke it."""

PRIVATE = "(private)"
"""What is shown in place of the values of private columns."""

COMMONEST = 3
"""How many reasons a message gives."""


@dataclass(frozen=True)
class Violation:
    """A rule that rows broke: the column (empty for the row as a whole), the rule in words, how many rows broke it, and
    the value of one of them (None for a null, or where the rule concerns no single value).

    `fatal` rows are quarantined; the others are kept, and only counted (rows whose parent may be late).
    """

    column: str
    check: str
    rows: int
    value: str | None = None
    fatal: bool = True

    def __str__(self) -> str:
        """`amount not a number: 12 rows, such as 'abc'`."""
        example = "" if self.value is None else f", such as {_shown(self.value)}" if self.value else ", which are empty"
        return f"{self.column or 'row'} {self.check}: {counted(self.rows)}{example}"


def counted(rows: int) -> str:
    """`1 row`, `2 rows`, `12,000 rows`."""
    return f"{rows:,} row{'s' * (rows != 1)}"


def _shown(value: str) -> str:
    return value if value == PRIVATE else repr(value)


def summed(violations: Iterable[Violation], columns: Sequence[str]) -> tuple[Violation, ...]:
    """The violations of several batches as those of all rows together, most frequent first, those as frequent in the
    order of the contract's `columns`. The example is the first batch's."""
    found: dict[tuple[str, str, bool], Violation] = {}
    for one in violations:
        rule = (one.column, one.check, one.fatal)
        known = found.get(rule)
        found[rule] = one if known is None else replace(known, rows=known.rows + one.rows)
    places = {column: place for place, column in enumerate(columns)}
    # A rule of the row as a whole, or of several columns, comes before those of one column.
    return tuple(sorted(found.values(), key=lambda one: (-one.rows, places.get(one.column, -1), one.check)))


def fatal(violations: Iterable[Violation]) -> list[Violation]:
    """The violations that no row may have."""
    return [one for one in violations if one.fatal]


def commonest(violations: Sequence[Violation], limit: int = COMMONEST) -> list[str]:
    """The most frequent fatal violations in words, each with an example."""
    broken = sorted(fatal(violations), key=lambda one: -one.rows)
    words = [str(one) for one in broken[:limit]]
    return words if len(broken) <= limit else [*words, f"and {len(broken) - limit} more"]


def as_records(violations: Iterable[Violation]) -> list[dict[str, Any]]:
    """The violations as the ledger stores them, in JSON."""
    return [asdict(one) for one in violations]


def reason_text(reason: Mapping[str, Any]) -> str:
    """One row's reason (a REASON) in words: `amount: at least 0, but it is '-3'`."""
    value = f", but it is {_shown(str(reason['value']))}" if reason["value"] is not None else ""
    return f"{reason['column'] or 'the row'}: {reason['check']}{value}"
