"""Columns whose type changes, in a table whose rows stay: which they are, whether every stored value can be had in the
new type, and the query that gives it. The callers write the table anew with it.

DuckLake can alter a type by itself, but compares what files hold in their own type (see
`ingestion.landing.stored_in_wider_types`); a rewrite is right for every type, and types change seldom.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from data_platform.lakehouse.sql import quote

EXACT = {"DATE": "TIMESTAMP", **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), "DOUBLE")}
"""In which type text must be equal to what it is cast to: DuckDB rounds '2.5' to a whole number, and cuts off hours."""


@dataclass(frozen=True)
class Loss:
    """Stored values that the new type does not hold: of how many rows, and one of them."""

    column: str
    stored: str
    wanted: str
    rows: int
    example: str

    def __str__(self) -> str:
        rows = f"{self.rows:,} value{'s' * (self.rows > 1)}"
        return f"{rows} of {self.column} ({self.stored}) cannot be stored as {self.wanted} unchanged"


def retyped(stored: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The stored columns whose type changes, with their new types."""
    return {name: wanted[name] for name, kind in stored.items() if wanted.get(name, kind) != kind}


def as_wanted(stored: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What to select of a stored table to have the `wanted` columns in their types, null where it lacks them."""
    return ", ".join(
        (quote(name) if stored[name] == kind else f"CAST({quote(name)} AS {kind}) AS {quote(name)}")
        if name in stored
        else f"NULL::{kind} AS {quote(name)}"
        for name, kind in wanted.items()
    )


def losses(
    connection: duckdb.DuckDBPyConnection, rows: str, stored: Mapping[str, str], wanted: Mapping[str, str]
) -> list[Loss]:
    """The columns of `rows` (what stands after FROM) of which some value would be lost, or become another one."""
    changed = retyped(stored, wanted)
    if not changed:
        return []
    figures = []
    for name, kind in changed.items():
        lost = f"{quote(name)} IS NOT NULL AND ({_differs(quote(name), stored[name], kind)})"
        figures += [f"count(*) FILTER ({lost})", f"min({quote(name)}::VARCHAR) FILTER ({lost})"]
    row = connection.execute(f"SELECT {', '.join(figures)} FROM {rows}").fetchone()
    values = row if row is not None else ()
    return [
        Loss(name, stored[name], kind, count, example)
        for (name, kind), count, example in zip(changed.items(), values[::2], values[1::2], strict=True)
        if count
    ]


def _differs(value: str, stored: str, wanted: str) -> str:
    cast = f"TRY_CAST({value} AS {wanted})"
    exact = stored
    if stored == "VARCHAR":
        exact = "DOUBLE" if wanted.startswith("DECIMAL") else EXACT.get(wanted, "")
    if not exact:
        return f"{cast} IS NULL"
    return f"{cast} IS NULL OR TRY_CAST({cast} AS {exact}) IS DISTINCT FROM TRY_CAST({value} AS {exact})"
