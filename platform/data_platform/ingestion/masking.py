"""Masking of rows before anything of them is written: the columns that a table's options name. What a masked value
looks like is `cleaning.masking`'s business.
"""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within, mask_key
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.settings import Settings


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
