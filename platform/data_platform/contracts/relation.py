"""A whole table, or any query, held against a contract: in batches, so that memory stays bounded whatever the size, and
uniqueness over all of it. How one batch is judged is in `audit`; who asks, and what follows from the verdict, is the
models' build (`modelling.build`) and the nightly audit (`components.audits`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import polars as pl

from data_platform.contracts.audit import Known, audit
from data_platform.contracts.contract import Contract, contract_columns, schema_of
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all

BATCH_ROWS = 250_000
NOT_UNIQUE = "not unique"


@dataclass(frozen=True)
class Verdict:
    """How many rows were checked, and the rules that rows broke: dictionaries of column, check, rows, value and fatal.
    Of values that are there several times, `rows` counts the values."""

    rows: int
    violations: Sequence[dict[str, Any]] = field(default_factory=tuple)

    @property
    def broken(self) -> list[dict[str, Any]]:
        """The violations that no row may have, most frequent first."""
        return [violation for violation in self.violations if violation["fatal"]]

    @property
    def passed(self) -> bool:
        return not self.broken


def audit_relation(
    lake: Lakehouse,
    relation: str,
    contract: type[Contract],
    *,
    key: Sequence[str] = (),
    rows: str | None = None,
    known: Known | None = None,
) -> Verdict:
    """Hold `relation` (SQL that can stand after FROM) against a contract: `rows`, a query, gives those to check by
    themselves (by default all); `key` and what the contract calls unique is checked over the whole relation. `known`
    looks values up through a connection of its own: this one is read from meanwhile.

    Raises PlatformError when the relation cannot be read, ContractError when it lacks a column.
    """
    found = []
    checked = 0
    try:
        reader = lake.connection.execute(rows or f"SELECT * FROM {relation}").to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            frame = pl.DataFrame(pl.from_arrow(batch))
            checked += len(frame)
            found.append(audit(frame, contract, lineage=[], key=key, known=known).violations)
        repeated = [_repeated(lake, relation, columns) for columns in unique_columns(contract, key)]
    except duckdb.Error as error:
        raise PlatformError(f"{relation} cannot be audited: {str(error).splitlines()[0]}") from None
    return Verdict(checked, [*_summed(found), *(violation for one in repeated for violation in one)])


def unique_columns(contract: type[Contract], key: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The columns whose values, together, occur once in a table: its key, and what the contract says."""
    unique = {tuple(key): None} if key else {}
    unique |= {(column.name,): None for column in contract_columns(contract) if column.unique}
    together = schema_of(contract).unique
    if together and set(together) not in [set(columns) for columns in unique]:
        unique[tuple(together)] = None
    return list(unique)


def _summed(found: Sequence[pl.DataFrame]) -> list[dict[str, Any]]:
    """The violations of all batches together. What a batch says of uniqueness is left to the whole table."""
    if not found:
        return []
    told = pl.concat(found).filter(~pl.col("check").str.starts_with(NOT_UNIQUE))
    summed = told.group_by("column", "check", "fatal").agg(pl.col("rows").sum(), pl.col("value").first())
    return summed.sort("rows", "column", "check", descending=[True, False, False]).to_dicts()


def _repeated(lake: Lakehouse, relation: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Values that occur several times, as a violation; none if there are none. Nulls are equal to nothing."""
    names = quote_all(columns)
    there = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)
    row = lake.connection.execute(
        f"SELECT count(*) FROM (SELECT {names} FROM {relation} WHERE {there} GROUP BY ALL HAVING count(*) > 1)"
    ).fetchone()
    if row is None or not row[0]:
        return []
    label = ", ".join(columns)
    return [{"column": label, "check": NOT_UNIQUE, "rows": int(row[0]), "value": None, "fatal": True}]
