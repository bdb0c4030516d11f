"""What staging a table takes and gives: the recipe, resolved from `defs.yaml` and the raw table, the result, and the
names of the columns that the platform adds. What is done with them is in `step`, `batches` and `merge`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from data_platform.contracts.audit import ContractError
from data_platform.contracts.contract import Column, Contract, contract_columns
from data_platform.contracts.violations import Violation
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import (
    CHANGE_COLUMNS,
    CHANGE_DETAILS,
    ROW_ID,
    TOMBSTONE_COLUMNS,
    Table,
    column_types,
    quarantine_table,
    raw_table,
    staged_table,
)

VERSION = "_version"
"""What orders the versions of a row where the contract does not have that column: the raw value in its own type, which
may not be text. Absent where the contract has it, or where order of delivery decides."""

OPERATION, ORDER = CHANGE_COLUMNS
COMMITTED_AT, _ = CHANGE_DETAILS

APPLIED = "_applied"
"""Marks deletes and truncates that an earlier step applied: they are read again to decide, not to be counted."""

VALID_FROM = "_valid_from"
"""Since when a version of the history holds."""

VALIDITY = ("valid_from", "valid_to", "is_current")
"""What the view of the history adds to a version."""

ADDED = {"_staging_id": "BIGINT", "_staged_at": "TIMESTAMP WITH TIME ZONE"}

StagingFunction = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True)
class Recipe:
    """How one table is staged: what `defs.yaml` says of it, resolved. Without a `key` rows are only added.

    `changes` says that the raw rows are changes from a log, with an operation and an order, and `dated` that they say
    when they were committed: that is known from the raw table (`resolved`). `tombstones` says that some of them say of
    an earlier one that the source no longer has it: that is known of the rows that a step reads. `soft_delete` is the
    raw column that marks rows as deleted in the source, and `marked` its type if the raw table has it, and its
    rows are no changes. `history` keeps every version of each row in a table of its own.

    Of the versions of a row the one that was delivered last is the newest, unless `newest_by` names a column that says
    otherwise. `clock` is the column that says since when a version holds where `newest_by` does not: the cursor. Of
    changes it is when they were committed.

    Raises ContractError for a history, or a mark of deleted rows, without a key.
    """

    source: str
    table: str
    key: tuple[str, ...]
    contract: type[Contract]
    function: StagingFunction | None = None
    newest_by: str | None = None
    clock: str | None = None
    refuse_above: float = 0.05
    history: bool = False
    changes: bool = False
    dated: bool = False
    tombstones: bool = False
    soft_delete: str | None = None
    marked: str | None = None

    def __post_init__(self) -> None:
        if self.history and not self.key:
            raise ContractError(
                f"{self.name}: `history` keeps the versions of each row, so it needs a `key` to tell rows apart."
            )
        if self.soft_delete is not None and not self.key:
            raise ContractError(
                f"{self.name}: `soft_delete` takes deleted rows out of the staged table by their `key`, and there is "
                "none: name it."
            )

    @property
    def name(self) -> str:
        """What messages call the table."""
        return f"{self.source}/{self.table}"

    @property
    def raw(self) -> Table:
        return raw_table(self.source, self.table)

    @property
    def staged(self) -> Table:
        return staged_table(self.source, self.table)

    @property
    def quarantine(self) -> Table:
        return quarantine_table(self.source, self.table)

    @property
    def versions(self) -> Table:
        """Where the history keeps all versions."""
        return Table(self.staged.schema, f"{self.table}_versions")

    @property
    def history_view(self) -> Table:
        """The view of the versions with their validity."""
        return Table(self.staged.schema, f"{self.table}_history")

    @property
    def direct(self) -> bool:
        """Whether audited rows have just the columns of the staged table, so that their file may become part of it."""
        return not (self.removes or self.history)

    @property
    def removes(self) -> bool:
        """Whether raw rows may take others away, which OPERATION says."""
        return self.changes or self.marks_deletes

    @property
    def marks_deletes(self) -> bool:
        """Whether some of the plain rows may say that one is gone: tombstones, or rows that are marked as deleted."""
        return self.tombstones or self.marked is not None

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The contract's columns."""
        return tuple(contract_columns(self.contract))

    @cached_property
    def version(self) -> str | None:
        """The staged column that orders the versions of a row: of changes, their order in the log; else the contract's
        own column `newest_by`, typed, or the raw value in VERSION; None where order of delivery decides."""
        if self.changes:
            return ORDER
        if self.newest_by is None or self.newest_by in {column.name for column in self.columns}:
            return self.newest_by
        return VERSION

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The columns that order the versions of a row, the last one deciding among equals."""
        return ROW_ID if self.version is None else (self.version, *ROW_ID)

    @cached_property
    def carried(self) -> tuple[str, ...]:
        """The columns that pass through the staging function beside the contract's."""
        version = (VERSION,) if self.version == VERSION else ()
        changes = (OPERATION, ORDER) if self.changes else ()
        marks = (OPERATION,) if self.marks_deletes else ()
        tombstones = TOMBSTONE_COLUMNS if self.tombstones else ()
        clocks = ("_loaded_at", *((COMMITTED_AT,) if self.dated else ())) if self.history else ()
        return (*ROW_ID, *version, *changes, *marks, *tombstones, *clocks)


@dataclass(frozen=True)
class StagingResult:
    """What a step did. `rows_read` = inserted + updated + superseded + filtered + quarantined + removals, as long as
    the staging function makes at most one row of each. `rows_removals` are raw rows that take rows away (deletes and
    truncates of a log of changes), `rows_deleted` the staged rows that are gone. `rows_same_key` are those of the
    superseded that gave way to a row of the same key, of the same delivery, with other values: their key is not unique.
    `same_keys` are examples of it."""

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
    rows_removals: int = 0
    bytes: int = 0
    rows_same_key: int = 0
    same_keys: tuple[str, ...] = ()
    violations: Sequence[Violation] = ()


def resolved(lake: Lakehouse, recipe: Recipe, first_load: int) -> Recipe:
    """The recipe as the raw table has it: whether its rows are changes, whether some of `first_load` and later are
    tombstones, and whether there is a column that marks deleted rows."""
    columns = column_types(lake.connection, recipe.raw)
    tombstones = TOMBSTONE_COLUMNS.keys() <= columns.keys() and bool(
        lake.connection.execute(
            f"SELECT 1 FROM {recipe.raw.sql} WHERE _deleted_load_id IS NOT NULL AND _load_id >= ? LIMIT 1", [first_load]
        ).fetchall()
    )
    changes = CHANGE_COLUMNS.keys() <= columns.keys()
    return replace(
        recipe,
        changes=changes,
        dated=changes and COMMITTED_AT in columns,
        tombstones=tombstones,
        marked=columns.get(recipe.soft_delete) if recipe.soft_delete is not None and not changes else None,
    )


def audited_schema(lake: Lakehouse, recipe: Recipe) -> pa.Schema:
    """The Arrow schema of audited rows: the contract's columns, and those that are carried along."""
    columns = {column.name: column.dtype for column in recipe.columns}
    carried = {
        "_load_id": pl.Int64,
        "_row": pl.Int64,
        "_loaded_at": pl.Datetime("us", "UTC"),
        COMMITTED_AT: pl.Datetime("us", "UTC"),
        OPERATION: pl.String,
        ORDER: pl.Int64,
        **dict.fromkeys(TOMBSTONE_COLUMNS, pl.Int64),
    }
    types: dict[str, Any] = {**columns, **{name: carried[name] for name in recipe.carried if name != VERSION}}
    schema = pl.DataFrame(schema=types).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    if VERSION in recipe.carried:
        schema = schema.append(pa.field(VERSION, _version_type(lake, recipe)))
    schema = schema.append(pa.field(APPLIED, pa.bool_())) if recipe.removes else schema
    return pa.schema([one.with_type(_in_microseconds(one.type)) for one in schema])


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """Times of day to the microsecond: those of Polars are to the nanosecond, which DuckLake has no column for."""
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_in_microseconds(one.type)) for one in kind])
    return kind


def ordered_as_text(column: str, where: str) -> str:
    """Why a column of text cannot order versions, and what to do instead."""
    return (
        f"`newest_by` names {column}, which is text in {where}, and text does not order versions: '9' would be newer "
        f"than '10'. Give {column} its type in the contract (`{column}: int`, `{column}: Instant`), or leave "
        "`newest_by` out: what is delivered last is then the newest."
    )


def _version_type(lake: Lakehouse, recipe: Recipe) -> pa.DataType:
    raw = column_types(lake.connection, recipe.raw)
    if recipe.newest_by is None or recipe.newest_by not in raw:
        return pa.string()
    if raw[recipe.newest_by] == "VARCHAR":
        raise ContractError(f"{recipe.name}: {ordered_as_text(recipe.newest_by, str(recipe.raw))}")
    empty = lake.connection.execute(f"SELECT {quote(recipe.newest_by)} FROM {recipe.raw.sql} LIMIT 0").to_arrow_table()
    return pl.DataFrame(pl.from_arrow(empty)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema.field(0).type
