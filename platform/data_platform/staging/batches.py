"""Raw rows in frames of bounded size, staged and audited one by one. What becomes of good and bad is `step`'s work."""

from collections.abc import Iterator, Sequence

import polars as pl

from data_platform.contracts.audit import Audited, ContractError, Known, audit
from data_platform.contracts.contract import Column
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.transaction import Table
from data_platform.lakehouse.transaction import columns_of as lake_columns
from data_platform.staging.recipe import LINEAGE, VERSION, Recipe, carried_columns

BATCH_ROWS = 250_000


def raw_batches(
    lake: Lakehouse, raw: Table, condition: str, parameters: Sequence[object] = ()
) -> Iterator[pl.DataFrame]:
    """Raw rows that meet a condition, in frames of bounded size."""
    reader = lake.cursor().connection.execute(f"SELECT * FROM {raw.sql} WHERE {condition}", list(parameters))
    for batch in reader.to_arrow_reader(BATCH_ROWS):
        if batch.num_rows:
            yield pl.DataFrame(pl.from_arrow(batch))


def stage_batch(raw: pl.DataFrame, recipe: Recipe, known: Known | None) -> Audited:
    """Run the staging function on a frame of raw rows and audit what it gives."""
    carried = carried_columns(recipe)
    frame = raw.lazy()
    if VERSION in carried and recipe.newest_by is not None:
        if recipe.newest_by not in raw.columns:
            raise ContractError(
                f"{recipe.source}/{recipe.table}: `newest_by` names the column {recipe.newest_by}, which neither the "
                f"contract nor the raw table has. The raw table has: {', '.join(raw.columns)}."
            )
        frame = frame.with_columns(pl.col(recipe.newest_by).alias(VERSION))
    if recipe.function is not None:
        frame = recipe.function(frame)
    try:
        staged = frame.collect()
    except pl.exceptions.PolarsError as error:
        where = getattr(recipe.function, "__qualname__", "the staging function")
        # What follows `: [` are values of the rows, which may be private.
        what = str(error).splitlines()[0].split(": [")[0]
        raise ContractError(
            f"{recipe.source}/{recipe.table}: {where} failed on the raw rows: {what}. "
            f"The raw table has: {', '.join(raw.columns)}."
        ) from None
    return audit(staged, recipe.contract, carried, recipe.key, known)


def quarantine_entries(raw: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """The raw rows behind bad staged rows, as quarantine entries. Several bad rows of one raw row are one entry."""
    reasons = bad.group_by("_load_id", "_row").agg(pl.col("reasons").explode())
    rows = raw.join(reasons, on=list(LINEAGE), how="inner")
    record = [column for column in raw.columns if column not in ("_load_id", "_loaded_at", "_row")]
    has_place = {"_file", "_line"} <= set(raw.columns)
    return rows.select(
        pl.format("{}:{}", "_load_id", "_row").alias("quarantine_id"),
        pl.lit("staged").alias("layer"),
        pl.col("_load_id").alias("load_id"),
        pl.col("_row").alias("row"),
        (pl.col("_file") if has_place else pl.lit(None, dtype=pl.String)).alias("file"),
        (pl.col("_line") if has_place else pl.lit(None, dtype=pl.Int64)).alias("line"),
        pl.struct(record).struct.json_encode().alias("record"),
        "reasons",
    )


def lookup(lake: Lakehouse) -> Known:
    """Look up which values a referenced staged table has; none if it does not exist yet."""

    def known(column: Column, values: pl.Series) -> pl.Series:
        reference = column.references
        if reference is None:
            raise AssertionError("only columns with a reference are looked up")
        source, _, name = reference.table.partition("/")
        table = Table(f"staged_{source}", name)
        if reference.column not in lake_columns(lake.connection, table):
            return values.clear()
        lake.connection.register("wanted", values.alias("value").to_frame().to_arrow())
        found = lake.connection.execute(
            f"SELECT DISTINCT value FROM wanted SEMI JOIN {table.sql} AS t ON t.{quote(reference.column)} = value"
        ).pl()
        lake.connection.unregister("wanted")
        return found["value"].cast(values.dtype)

    return known
