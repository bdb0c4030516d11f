"""A whole table, or any query, held against a contract: in batches, so that memory stays bounded whatever the size, and
uniqueness over all of it. How one batch is judged is in `audit`; who asks, and what follows from the verdict, is the
models' build (`modelling.build`) and the nightly audit (`components.audits`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import polars as pl

from data_platform.contracts.audit import NOT_UNIQUE, Known, audit
from data_platform.contracts.contract import Contract, contract_columns, schema_of
from data_platform.contracts.violations import Violation, fatal, summed
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.redaction import first_line

BATCH_ROWS = 250_000


@dataclass(frozen=True)
class Verdict:
    """How many rows were checked, the rules that rows broke, most frequent first, and how many rows broke any (one that
    breaks a rule and has a value that is to be unique twice counts twice). What is to be unique is checked over the
    whole relation, whichever rows are."""

    rows: int
    violations: Sequence[Violation] = ()
    rows_failed: int = 0

    @property
    def broken(self) -> list[Violation]:
        """The violations that no row may have, most frequent first."""
        return fatal(self.violations)

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
    found: list[Violation] = []
    checked = failed = 0
    try:
        reader = lake.connection.execute(rows or f"SELECT * FROM {relation}").to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            frame = pl.DataFrame(pl.from_arrow(batch))
            # Whether values are unique is asked of the whole relation, not of a batch.
            audited = audit(frame, contract, [], key, known, unique=False)
            checked += len(frame)
            failed += audited.rows_failed
            found += audited.violations
        repeated = [_repeated(lake, relation, columns) for columns in unique_columns(contract, key)]
    except duckdb.Error as error:
        raise PlatformError(f"{relation} cannot be audited: {first_line(error)}") from None
    broken = [one for one in repeated if one is not None]
    columns = [column.name for column in contract_columns(contract)]
    return Verdict(checked, summed([*found, *broken], columns), failed + sum(one.rows for one in broken))


def unique_columns(contract: type[Contract], key: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The columns whose values, together, occur once in a table: its key, and what the contract says."""
    unique = {tuple(key): None} if key else {}
    unique |= {(column.name,): None for column in contract_columns(contract) if column.unique}
    together = schema_of(contract).unique
    if together and set(together) not in [set(columns) for columns in unique]:
        unique[tuple(together)] = None
    return list(unique)


def _repeated(lake: Lakehouse, relation: str, columns: Sequence[str]) -> Violation | None:
    """The rows that share values which are to be unique, as a violation; None if there are none. Nulls are equal to
    nothing."""
    names = quote_all(columns)
    there = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)
    row = lake.connection.execute(
        f"SELECT sum(rows) FROM (SELECT {names}, count(*) AS rows FROM {relation} WHERE {there} GROUP BY {names} "
        "HAVING count(*) > 1)"
    ).fetchone()
    return Violation(", ".join(columns), NOT_UNIQUE, int(row[0])) if row is not None and row[0] else None
