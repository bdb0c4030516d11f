"""A whole table, or any query, held against a contract: in batches, so that memory stays bounded whatever the size, and
uniqueness over all of it. How one batch is judged is in `audit`; who asks, and what follows from the verdict, is the
models' build (`modelling.build`) and the nightly audit (`components.audits`).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import polars as pl

from data_platform.contracts.audit import NOT_UNIQUE, Known, audit
from data_platform.contracts.contract import Contract, contract_columns, schema_of
from data_platform.contracts.violations import Violation, fatal, summed
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.redaction import first_line

BATCH_ROWS = 250_000


@dataclass(frozen=True)
class Verdict:
    """How many rows were checked, the rules that rows broke, most frequent first, and how many of the rows that were
    checked broke any: each counts once. What is to be unique is checked over the whole relation, whichever rows are;
    its violation counts all rows that share a value."""

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

    Raises PlatformError when the relation cannot be read (TransientError if the catalog's server does not answer, or
    the catalog is locked), ContractError when it lacks a column.
    """
    found: list[Violation] = []
    checked = failed = 0
    try:
        repeated = {names: _repeated(lake, relation, names) for names in unique_columns(contract, key)}
        broken = {names: one for names, one in repeated.items() if one is not None}
        # Whether values are unique is asked of the whole relation, not of a batch; a row says whether it is such a one.
        mark = f"__repeated_{uuid.uuid4().hex}"
        marked = " OR ".join(f"({quote_all(names)}) IN ({_shared(relation, names)})" for names in broken) or "false"
        query = f"SELECT *, coalesce({marked}, false) AS {mark} FROM ({rows or f'SELECT * FROM {relation}'})"
        for batch in lake.connection.execute(query).to_arrow_reader(BATCH_ROWS):
            frame = pl.DataFrame(pl.from_arrow(batch))
            audited = audit(frame.drop(mark), contract, [], key, known, unique=False)
            checked += len(frame)
            failed += int((audited.failed | frame[mark]).sum())
            found += audited.violations
    except duckdb.Error as error:
        failure = PlatformError(f"{relation} cannot be audited: {first_line(error)}")
        raise (explain(error, lake.settings) or failure) from None
    columns = [column.name for column in contract_columns(contract)]
    return Verdict(checked, summed([*found, *broken.values()], columns), failed)


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
    row = lake.connection.execute(
        f"SELECT sum(rows) FROM ({_shared(relation, columns, 'count(*) AS rows')})"
    ).fetchone()
    return Violation(", ".join(columns), NOT_UNIQUE, int(row[0])) if row is not None and row[0] else None


def _shared(relation: str, columns: Sequence[str], chosen: str | None = None) -> str:
    """A query of the values, together, that several rows have in some columns; or of something else about them."""
    names = quote_all(columns)
    there = " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)
    return f"SELECT {chosen or f'({names})'} FROM {relation} WHERE {there} GROUP BY {names} HAVING count(*) > 1"
