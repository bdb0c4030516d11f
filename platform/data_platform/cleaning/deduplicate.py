"""One row for each key, the newest. Which rows a source has deleted is not decided here."""

from collections.abc import Sequence
from typing import TypeVar

import polars as pl

from data_platform.errors import PlatformError

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_ARRIVAL = "__arrival__"


def newest(frame: Frame, key: str | Sequence[str], by: str | Sequence[str] = ()) -> Frame:
    """Keep the row with the greatest `by` for each `key`; among equals, and without `by`, the one that arrived last.

    `by` may be several columns, the first counting most. A null in it is older than any value. The rows kept stay in
    their order of arrival. Rows with a null in the key are all kept: no two of them are known to be the same thing, and
    it is for the contract to refuse them. Raises PlatformError for a column that does not exist.
    """
    keys: list[str] = [key] if isinstance(key, str) else list(key)
    order: list[str] = [by] if isinstance(by, str) else list(by)
    columns = frame.collect_schema().names()
    missing = [name for name in [*keys, *order] if name not in columns]
    if missing or not keys:
        what = f"There is no column {', '.join(missing)}" if missing else "No key was given"
        raise PlatformError(f"{what} to deduplicate by. The columns are {', '.join(columns)}.")
    without_key = pl.any_horizontal(pl.col(name).is_null() for name in keys)
    kept = frame.with_row_index(_ARRIVAL)
    for name in [*order, _ARRIVAL]:
        # The greatest of all columns in turn: max() passes over nulls, and is null where there is nothing else.
        kept = kept.filter(without_key | pl.col(name).eq_missing(pl.col(name).max().over(keys)))
    return kept.drop(_ARRIVAL)
