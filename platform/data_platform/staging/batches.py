"""Raw rows in frames of bounded size, staged and audited one by one. What becomes of good and bad is `step`'s work."""

from collections.abc import Iterator, Sequence

import polars as pl

from data_platform.contracts.audit import Audited, ContractError, Known, audit
from data_platform.contracts.contract import Column
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import ROW_ID, Table, column_types, staged_table
from data_platform.staging.recipe import VERSION, Recipe, carried_columns, version_of

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
    return audit(staged, recipe.contract, carried, recipe.key, known, version_of(recipe))


def quarantine_entries(raw: pl.DataFrame, bad: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """The raw rows behind bad staged rows, as quarantine entries. Several bad rows of one raw row are one entry, which
    has a key if they have the same."""
    version = version_of(recipe)
    told = bad.select(
        *ROW_ID,
        pl.col("reasons").alias("__reasons"),
        _key(bad.schema, recipe.key).alias("__key"),
        (pl.lit(None, dtype=pl.String) if version is None else _text(version, bad.schema[version])).alias("__version"),
    )
    one = pl.col("__key").n_unique() == 1
    reasons = told.group_by(*ROW_ID).agg(
        pl.col("__reasons").explode(),
        pl.when(one).then(pl.col("__key").first()).alias("__key"),
        pl.when(one).then(pl.col("__version").first()).alias("__version"),
    )
    rows = raw.join(reasons, on=list(ROW_ID), how="inner")
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
        pl.col("__reasons").alias("reasons"),
        pl.col("__key").alias("key"),
        pl.col("__version").alias("version"),
    )


def _key(schema: pl.Schema, key: Sequence[str]) -> pl.Expr:
    """The columns of a key as a list of text; null if one of them is null, as then they identify nothing."""
    known = pl.all_horizontal(pl.col(name).is_not_null() for name in key)
    return pl.when(known).then(pl.concat_list(_text(name, schema[name]) for name in key))


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text that DuckDB casts back to the same value."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return column.cast(pl.String, strict=False)


def lookup(lake: Lakehouse) -> Known:
    """Look up which values a referenced staged table has; none if it does not exist yet."""

    def known(column: Column, values: pl.Series) -> pl.Series:
        reference = column.references
        if reference is None:
            raise AssertionError("only columns with a reference are looked up")
        source, _, name = reference.table.partition("/")
        table = staged_table(source, name)
        if reference.column not in column_types(lake.connection, table):
            return values.clear()
        lake.connection.register("wanted", values.alias("value").to_frame().to_arrow())
        found = lake.connection.execute(
            f"SELECT DISTINCT value FROM wanted SEMI JOIN {table.sql} AS t ON t.{quote(reference.column)} = value"
        ).pl()
        lake.connection.unregister("wanted")
        return found["value"].cast(values.dtype)

    return known
