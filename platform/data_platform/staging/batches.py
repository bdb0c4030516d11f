"""Raw rows in frames of bounded size, staged and audited one by one. What becomes of good and bad is `passing`'s work.

Rows from a log of changes are of three kinds: versions of a row, which are staged and audited; deletes, of which only
the key matters; truncates, which hold nothing but their place in the log. Plain rows may have tombstones among them.
"""

from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.contracts.audit import REASONS, Audited, ContractError, Known, audit, audit_keys
from data_platform.contracts.contract import Column
from data_platform.contracts.texts import as_json, as_text, in_calendar
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import LOAD_COLUMNS, ROW_ID, TOMBSTONE_COLUMNS, column_types, staged_table
from data_platform.staging.function import run_function
from data_platform.staging.recipe import OPERATION, Recipe
from data_platform.staging.unchanged import with_unchanged_values

BATCH_ROWS = 250_000

MIDNIGHT = 86_400_000_000
"""The time of day 24:00:00, in microseconds."""

VERSIONS, DELETE, TRUNCATE = ("insert", "update"), "delete", "truncate"
"""The operations of a log of changes."""

NOT_DELETED = ("", "false", "f", "no", "n", "0", "0.0")
"""What a column that marks deleted rows holds of others, as text in lower case; null as well. Anything else, such as a
time, marks a row as deleted."""

UPSERT = "upsert"
"""The operation of a version of which the source did not say whether it is new."""


def raw_batches(
    lake: Lakehouse, recipe: Recipe, condition: str, parameters: Sequence[object] = ()
) -> Iterator[pl.DataFrame]:
    """Raw rows that meet a condition, in frames of bounded size, with the values that a log of changes did not repeat.
    Times of day are text in a frame that has MIDNIGHT."""
    raw, private = recipe.raw, any(column.private for column in recipe.columns)
    reader = lake.duplicate().connection.execute(f"SELECT * FROM {raw.sql} WHERE {condition}", list(parameters))
    for batch in reader.to_arrow_reader(BATCH_ROWS):
        if batch.num_rows:
            frame = pl.DataFrame(pl.from_arrow(_with_midnight(batch)))
            yield with_unchanged_values(lake, raw, recipe.key, frame, private=private) if recipe.changes else frame


def _with_midnight(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Polars has no 24:00:00 and would make it null: then nobody would know what was there."""
    for place, field in enumerate(batch.schema):
        if not pa.types.is_time64(field.type):
            continue
        late = pc.equal(batch.column(place).cast(pa.int64()), MIDNIGHT)
        if pc.any(late).as_py():
            earlier = pc.if_else(late, None, batch.column(place)).cast(pa.string())
            text = pc.if_else(late, "24:00:00", earlier)
            batch = batch.set_column(place, pa.field(field.name, pa.string()), text)
    return batch


def stage_batch(raw: pl.DataFrame, recipe: Recipe, known: Known | None) -> Audited:
    """Run the staging function on a frame of raw rows and audit what it gives."""
    staged = run_function(raw, recipe)
    return audit(staged, recipe.contract, recipe.carried, recipe.key, known, recipe.version)


def stage_changes(
    raw: pl.DataFrame, recipe: Recipe, known: Known | None
) -> tuple[Sequence[Audited], Sequence[Audited]]:
    """The versions of rows in a frame of changes, as `stage_batch` gives them, and the rows that take others away:
    deletes, which have only their key, and truncates, which have none.

    Raises ContractError for an operation that is none, or that a table without a key cannot follow.
    """
    _require_operations(raw, recipe)
    versions, deletes, truncates = (
        raw.filter(pl.col(OPERATION).is_in(operations)) for operations in (VERSIONS, [DELETE], [TRUNCATE])
    )
    staged = [stage_batch(versions, recipe, known)] if len(versions) else []
    removals = _stage_deletes(deletes, recipe) if len(deletes) else []
    if len(truncates):
        nulls = (pl.lit(None, dtype=column.dtype).alias(column.name) for column in recipe.columns)
        removals.append(Audited(truncates.select(*nulls, *recipe.carried), (), ()))
    return staged, removals


def stage_with_deletes(
    raw: pl.DataFrame, recipe: Recipe, known: Known | None
) -> tuple[Sequence[Audited], Sequence[Audited]]:
    """The versions of rows in a frame, as `stage_batch` gives them, and the deletes among them (tombstones, and rows
    that are marked as deleted) as rows of which only the key is known. A row that the staging function leaves out, or
    whose key does not take the contract's type, was never staged: neither is its delete."""
    rows = with_operation(raw, recipe)
    versions, deletes = (rows.filter(pl.col(OPERATION) == operation) for operation in (UPSERT, DELETE))
    staged = [stage_batch(versions, recipe, known)] if len(versions) else []
    if deletes.is_empty():
        return staged, []
    found = audit_keys(run_function(deletes, recipe), recipe.contract, recipe.carried, recipe.key, recipe.version)
    return staged, [Audited(found.good, (), ())]


def with_operation(raw: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """A frame with what its rows do, if some of them may say that one is gone; of a log of changes they say it."""
    if not recipe.marks_deletes:
        return raw
    gone = pl.col("_deleted_load_id").is_not_null() if recipe.tombstones else pl.lit(value=False)
    if recipe.marked is not None and recipe.soft_delete is not None:
        mark = pl.col(recipe.soft_delete)
        gone = gone | (mark.is_not_null() & ~mark.cast(pl.String).str.to_lowercase().is_in(NOT_DELETED))
    return raw.with_columns(pl.when(gone).then(pl.lit(DELETE)).otherwise(pl.lit(UPSERT)).alias(OPERATION))


def is_marked(column: str, kind: str) -> str:
    """A condition on raw rows: whether their `column`, of a DuckDB type, marks them as deleted. Files that hold no such
    row are not opened."""
    if kind == "BOOLEAN":
        return f"{quote(column)} = true"
    others = ", ".join(map(literal, NOT_DELETED))
    return f"({quote(column)} IS NOT NULL AND lower({quote(column)}::VARCHAR) NOT IN ({others}))"


def _require_operations(raw: pl.DataFrame, recipe: Recipe) -> None:
    there = set(raw[OPERATION].unique().to_list())
    unknown = there - {*VERSIONS, DELETE, TRUNCATE}
    if unknown:
        raise ContractError(
            f"{recipe.name}: the raw rows have the operations {', '.join(sorted(map(repr, unknown)))}. Changes are "
            f"{', '.join(VERSIONS)}, {DELETE} or {TRUNCATE}."
        )
    if not recipe.key and there & {"update", DELETE}:
        raise ContractError(
            f"{recipe.name}: the source updates or deletes rows, but the table has no key to tell which. Name the "
            "columns that identify a row under `key` in defs.yaml."
        )


def _stage_deletes(raw: pl.DataFrame, recipe: Recipe) -> list[Audited]:
    """Deletes as staged rows of which only the key is known.

    They go through the staging function, which may rename or make the key. If it leaves some out (their other columns
    are null), their key is taken from the raw columns of that name: a delete is never lost.
    """
    found = audit_keys(run_function(raw, recipe), recipe.contract, recipe.carried, recipe.key, recipe.version)
    lost = raw.join(found.rows, on=list(ROW_ID), how="anti")
    if lost.is_empty():
        return [found]
    absent = [name for name in recipe.key if name not in raw.columns]
    if absent:
        raise ContractError(
            f"{recipe.name}: the staging function leaves out deleted rows, and the raw table has no column "
            f"{', '.join(absent)} that would give their key. A row whose {OPERATION} is {DELETE!r} holds only what the "
            "source gives of a deleted row: let it pass."
        )
    keys = lost.select(*recipe.key, *recipe.carried)
    return [found, audit_keys(keys, recipe.contract, recipe.carried, recipe.key, recipe.version)]


def quarantine_entries(raw: pl.DataFrame, bad: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """The raw rows behind bad staged rows, as quarantine entries. Several bad rows of one raw row are one entry, which
    has a key if they have the same."""
    version = recipe.version
    failed = bad.select(
        *ROW_ID,
        pl.col(REASONS).alias("__reasons"),
        _key(bad.schema, recipe.key).alias("__key"),
        (pl.lit(None, dtype=pl.String) if version is None else _text(version, bad.schema[version])).alias("__version"),
    )
    one = pl.col("__key").n_unique() == 1
    reasons = failed.group_by(*ROW_ID).agg(
        pl.col("__reasons").explode(),
        pl.when(one).then(pl.col("__key").first()).alias("__key"),
        pl.when(one).then(pl.col("__version").first()).alias("__version"),
    )
    # The raw columns stay apart: a source may have one of any name.
    places = raw.select(*ROW_ID).with_row_index("at").join(reasons, on=list(ROW_ID), how="inner")
    rows = raw[places["at"]]
    file, line = (rows["_file"], rows["_line"]) if {"_file", "_line"} <= set(raw.columns) else (None, None)
    return places.select(
        pl.format("{}:{}", "_load_id", "_row").alias("quarantine_id"),
        pl.lit("staged").alias("layer"),
        pl.col("_load_id").alias("load_id"),
        pl.col("_row").alias("row"),
        pl.lit(file, dtype=pl.String).cast(pl.String).alias("file"),
        pl.lit(line, dtype=pl.Int64).cast(pl.Int64, strict=False).alias("line"),
        as_json(rows.select(pl.exclude(*LOAD_COLUMNS, *TOMBSTONE_COLUMNS))).alias("record"),
        pl.col("__reasons").alias("reasons"),
        pl.col("__key").alias("key"),
        pl.col("__version").alias("version"),
    )


def _key(schema: pl.Schema, key: Sequence[str]) -> pl.Expr:
    """The columns of a key as a list of text; null if one of them is null, as then they identify nothing, or
    if there is no key."""
    if not key:
        return pl.lit(None, dtype=pl.List(pl.String))
    known = pl.all_horizontal(pl.col(name).is_not_null() for name in key)
    return pl.when(known).then(pl.concat_list(_text(name, schema[name]) for name in key))


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text that DuckDB casts back to the same value."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        inside = pl.when(in_calendar(column, dtype)).then(column)
        return inside.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return column.map_batches(as_text, return_dtype=pl.String)


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
            f"SELECT DISTINCT wanted.value FROM wanted SEMI JOIN {table.sql} AS t "
            f"ON t.{quote(reference.column)} = wanted.value"
        ).pl()
        lake.connection.unregister("wanted")
        return found["value"].cast(values.dtype)

    return known
