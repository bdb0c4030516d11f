"""What staging a table takes and gives: the recipe, resolved from `defs.yaml`, the result, and the names of the
columns that the platform adds. What is done with them is in `step`, `batches` and `merge`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa

from data_platform.contracts.contract import Contract, contract_columns
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import ROW_ID, Table, column_types, quarantine_table, raw_table, staged_table

VERSION = "_version"
"""What orders the versions of a row where the contract does not have that column: the raw value in its own type, so
text is compared as text. Absent where the contract has it, or where order of arrival decides."""

ADDED = {"_staging_id": "BIGINT", "_staged_at": "TIMESTAMP WITH TIME ZONE"}

StagingFunction = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Recipe:
    """How one table is staged: what `defs.yaml` says of it, resolved."""

    source: str
    table: str
    key: tuple[str, ...]
    contract: type[Contract]
    function: StagingFunction | None = None
    newest_by: str | None = None
    refuse_above: float = 0.05

    @property
    def raw(self) -> Table:
        return raw_table(self.source, self.table)

    @property
    def staged(self) -> Table:
        return staged_table(self.source, self.table)

    @property
    def quarantine(self) -> Table:
        return quarantine_table(self.source, self.table)


@dataclass(frozen=True)
class StagingResult:
    """What a step did. `rows_read` = inserted + updated + superseded + filtered + quarantined, as long as the staging
    function makes at most one row of each. `violations` are dictionaries of column, check, rows, value and fatal."""

    source: str
    table: str
    staging_id: int = 0
    load_from: int = 0
    load_to: int = 0
    rows_read: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    rows_superseded: int = 0
    rows_filtered: int = 0
    rows_quarantined: int = 0
    bytes: int = 0
    violations: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def version_of(recipe: Recipe) -> str | None:
    """The staged column that orders the versions of a row: the contract's own, typed, if it has the column
    `newest_by`, else the raw value in VERSION; None where order of arrival decides."""
    names = {column.name for column in contract_columns(recipe.contract)}
    return recipe.newest_by if recipe.newest_by is None or recipe.newest_by in names else VERSION


def order_of(recipe: Recipe) -> tuple[str, ...]:
    """The columns that order the versions of a row, the last one deciding among equals."""
    version = version_of(recipe)
    return ROW_ID if version is None else (version, *ROW_ID)


def carried_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns that pass through the staging function beside the contract's."""
    return (*ROW_ID, VERSION) if version_of(recipe) == VERSION else ROW_ID


def staged_schema(lake: Lakehouse, recipe: Recipe) -> pa.Schema:
    """The Arrow schema of audited rows: the contract's columns, the lineage, the version if it is carried along."""
    columns = {column.name: column.dtype for column in contract_columns(recipe.contract)}
    empty = pl.DataFrame(schema={**columns, "_load_id": pl.Int64, "_row": pl.Int64})
    schema = empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return schema.append(pa.field(VERSION, _version_type(lake, recipe))) if version_of(recipe) == VERSION else schema


def _version_type(lake: Lakehouse, recipe: Recipe) -> pa.DataType:
    if recipe.newest_by is None or recipe.newest_by not in column_types(lake.connection, recipe.raw):
        return pa.string()
    probe = lake.connection.execute(f"SELECT {quote(recipe.newest_by)} FROM {recipe.raw.sql} LIMIT 0").to_arrow_table()
    return pl.DataFrame(pl.from_arrow(probe)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema.field(0).type
