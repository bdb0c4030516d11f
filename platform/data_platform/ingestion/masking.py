"""Masking of rows before anything of them is written: the columns that a table's options name, with the one key that
the lakehouse's masks are made with. What a masked value looks like is `cleaning.masking`'s business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within, mask_key
from data_platform.errors import PlatformError
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.settings import MASK_KEY_VARIABLE, Settings


@dataclass(frozen=True)
class Mask:
    """The columns of a table that are masked as a whole, and those in which e-mail addresses are."""

    columns: tuple[str, ...]
    within: tuple[str, ...]
    key: MaskKey

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are masked in any way."""
        return (*self.columns, *self.within)

    def apply(self, rows: pa.Table) -> pa.Table:
        """The rows with their private columns masked."""
        frame = pl.DataFrame(pl.from_arrow(rows.select([c for c in rows.column_names if c in self.names])))
        masked = mask_columns(frame, [c for c in self.columns if c in frame.columns], self.key)
        masked = mask_emails_within(masked, [c for c in self.within if c in frame.columns], self.key)
        for column in masked.columns:
            index = rows.column_names.index(column)
            rows = rows.set_column(index, column, masked[column].to_arrow(compat_level=pl.CompatLevel.oldest()))
        return rows


def mask_of(table: TableOptions, settings: Settings) -> Mask | None:
    """What to mask of a table; None for nothing. Raises PlatformError if there is no key to mask with."""
    if not (table.mask or table.mask_within):
        return None
    return Mask(tuple(table.mask), tuple(table.mask_within), mask_key(settings.mask_secret))


def require_key(
    connection: duckdb.DuckDBPyConnection, masks: Mapping[tuple[str, str], Mask], *, full_refresh: bool
) -> ledger.MaskKeys:
    """Raise PlatformError if tables (by source and name) would be masked with another key than the lakehouse's, or, but
    for a full refresh, than the rows that they hold. Else the keys that the lakehouse knows. There must be a ledger."""
    known = ledger.mask_keys(connection)
    for (source, table), mask in masks.items():
        given = mask.key.fingerprint
        if known.current not in (None, given):
            raise PlatformError(
                f"{source}/{table} is not loaded: {MASK_KEY_VARIABLE} holds another key (fingerprint {given}) than the "
                f"one that this lakehouse is masked with ({known.current}, since {known.since:%Y-%m-%d %H:%M} UTC). "
                "The same person would have two masks, and joins would miss. Set the first key again; to change it for "
                "good, see `dp mask rotate --help`."
            )
        before = known.tables.get((source, table), given)
        if before != given and not full_refresh:
            raise PlatformError(
                f"{source}/{table} is not loaded: its rows are masked with an earlier key (fingerprint {before}), and "
                f"the key was changed since ({given}). Read it again: `dp run {source}/{table} --full-refresh`; or "
                f"keep the rows that it has, which join with no new ones: `dp mask rotate --keep {source}/{table}`."
            )
    return known


def record_keys(
    connection: duckdb.DuckDBPyConnection, masks: Mapping[tuple[str, str], Mask], at: datetime, *, full_refresh: bool
) -> None:
    """Note, within the transaction of the rows, which key tables are masked with, where that is not known yet. Raises
    PlatformError as `require_key` does: the key may have been changed since the load began."""
    known = require_key(connection, masks, full_refresh=full_refresh)
    for table, mask in masks.items():
        if known.tables.get(table) != mask.key.fingerprint:
            ledger.record_mask_key(connection, mask.key.fingerprint, [table], at)
