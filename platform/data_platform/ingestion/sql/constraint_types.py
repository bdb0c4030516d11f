"""What is kept of a relational database's constraints. How they are read, for which a parser of SQL is needed, is in
`constraints`: what only names these types does not wait for its import.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = int | float


@dataclass(frozen=True)
class ForeignKey:
    """Columns whose values are those of columns of another table, which is named as `Session.tables` does."""

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]


@dataclass(frozen=True)
class Constraints:
    """What holds for the rows of one table. `unique` are the columns of each unique index over whole columns and all
    rows, besides the primary key; `allowed` the values that a column may have, `bounds` what its numbers are not below
    or above, under the names of a contract's rules (ge, gt, le, lt)."""

    unique: tuple[tuple[str, ...], ...] = ()
    foreign: tuple[ForeignKey, ...] = ()
    allowed: Mapping[str, tuple[str | Number, ...]] = field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
