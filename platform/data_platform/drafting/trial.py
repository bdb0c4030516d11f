"""A trial of a draft: the rows of the profile, staged and audited as they will be once the source is loaded."""

import os

import polars as pl

from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within
from data_platform.contracts.violations import commonest
from data_platform.drafting.draft import Draft
from data_platform.staging.batches import stage_batch
from data_platform.staging.recipe import Recipe


def trial(recipe: Recipe, draft: Draft) -> str:
    """Hold the rows of the profile against the drafted contract; what came of it, in a sentence."""
    rows = pl.DataFrame(pl.from_arrow(draft.profile.rows))
    if rows.is_empty():
        return "there were no rows to try it on"
    # A key for this trial alone: what was masked with it is thrown away.
    key = MaskKey(os.urandom(32))
    rows = mask_columns(rows, [column.raw for column in draft.columns if column.private], key)
    rows = mask_emails_within(rows, [column.raw for column in draft.columns if column.within], key)
    numbered = rows.with_columns(
        pl.lit(1, pl.Int64).alias("_load_id"), pl.int_range(pl.len(), dtype=pl.Int64).alias("_row")
    )
    audited = stage_batch(numbered, recipe, None)
    if not audited.rows_failed:
        return f"all {len(rows):,} rows that were read satisfy it"
    reasons = "; ".join(commonest(audited.violations))
    return f"{audited.rows_failed:,} of the {len(rows):,} rows that were read break it: {reasons}"
