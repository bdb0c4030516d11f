"""The audit: rows against their contract, good split from bad in one pass, with every reason a bad row has.
Where the rows come from and where the bad ones go is the step's business (`staging.step`, `contracts.quarantine`).

Types come first: each column is cast to what the contract says, and a value that does not cast is a reason like any
other. Then Pandera checks the values. Uniqueness is ours to check: a batch may hold several versions of one row, and
that repeats neither the key nor a value that is unique to it. The step keeps the newest good version.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandera.errors
import polars as pl
from pandera.api.polars.container import DataFrameSchema

from data_platform.cleaning.time import parse_instant
from data_platform.contracts.contract import Column, Contract, contract_columns, name_of, rule, schema_of
from data_platform.errors import PlatformError

REASON = pl.Struct({"column": pl.String, "check": pl.String, "value": pl.String})
"""Why a row failed: the column (empty for the row as a whole), the rule in words, and the value that broke it."""

LONG = {"index": pl.UInt32, "column": pl.String, "check": pl.String, "value": pl.String}

TRUE = ["true", "t", "yes", "y", "1"]
FALSE = ["false", "f", "no", "n", "0"]
MAX_VALUE_CHARACTERS = 200

EXACT_IN_FLOAT = 2**53
"""Below this a float tells one whole number from the next."""

MISSING = "missing"
"""The reason of a null where none may be."""

Known = Callable[[Column, pl.Series], pl.Series]
"""Given a column that references another table and distinct values of it, the values that exist there."""


class ContractError(PlatformError):
    """The frame as a whole cannot be held against the contract: a column that it needs is not there."""


@dataclass(frozen=True)
class Audited:
    """The outcome for one batch. `good` has exactly the contract's columns and the lineage columns; `bad` has the
    lineage columns, what identifies the row and its version, and `reasons`; `violations` counts rows by `column` and
    `check`, with an example `value`, and says by `fatal` whether such a row is bad or only worth a look (a kept
    orphan)."""

    good: pl.DataFrame
    bad: pl.DataFrame
    violations: pl.DataFrame


def audit(
    frame: pl.DataFrame,
    contract: type[Contract],
    lineage: Sequence[str],
    key: Sequence[str] = (),
    known: Known | None = None,
    version: str | None = None,
) -> Audited:
    """Hold `frame` against `contract`. `lineage` are columns carried along untouched, `key` identifies a row (its
    columns may not be null), `version` orders its versions, `known` looks up references.

    Raises ContractError when a column is missing that may not be null.
    """
    columns = contract_columns(contract)
    typed, failures = _typed(frame, columns, lineage, contract)
    problems = [failures, _broken_rules(typed, contract, failures)]
    problems += [_repeated(typed, contract, key), _null_keys(typed, columns, key)]
    orphans = _orphans(typed, columns, known)
    private = [column.name for column in columns if column.private]
    fatal = _without_values(pl.concat([*problems, orphans.filter("quarantine").drop("quarantine")]), private)
    kept = _without_values(orphans.filter(~pl.col("quarantine")).drop("quarantine"), private)
    told = list(dict.fromkeys([*lineage, *key, *([version] if version else [])]))
    if fatal.is_empty():
        bad = typed.select(told).clear().with_columns(pl.lit(None, dtype=pl.List(REASON)).alias("reasons"))
        good = typed
    else:
        reasons = fatal.group_by("index").agg(pl.struct("column", "check", "value").cast(REASON).alias("reasons"))
        numbered = typed.with_row_index("index")
        bad = numbered.select("index", *told).join(reasons, on="index", how="inner").drop("index")
        good = numbered.join(reasons, on="index", how="anti", maintain_order="left").drop("index")
    return Audited(good, bad, pl.concat([_counted(fatal, fatal=True), _counted(kept, fatal=False)]))


def _without_values(failures: pl.DataFrame, private: Sequence[str]) -> pl.DataFrame:
    value = pl.when(pl.col("column").is_in(private)).then(pl.lit("(private)")).otherwise(pl.col("value"))
    return failures.with_columns(value.alias("value"))


def _counted(failures: pl.DataFrame, *, fatal: bool) -> pl.DataFrame:
    return failures.group_by("column", "check", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("rows"), pl.col("value").first(), pl.lit(fatal).alias("fatal")
    )


def _typed(
    frame: pl.DataFrame, columns: Sequence[Column], lineage: Sequence[str], contract: type[Contract]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The contract's columns in the contract's types, and the values that would not take them."""
    missing = [column for column in columns if column.name not in frame.columns]
    needed = [column.name for column in missing if not column.nullable]
    if needed:
        raise ContractError(
            f"The contract {name_of(contract)} needs the column{'s' * (len(needed) > 1)} {', '.join(needed)}, "
            f"which the staged rows do not have. They have: {', '.join(frame.columns)}. "
            "Was it renamed or dropped in the source? Repair it in the staging function, or change the contract."
        )
    lost = [name for name in lineage if name not in frame.columns]
    if lost:
        raise ContractError(
            f"The staging function dropped the lineage column{'s' * (len(lost) > 1)} {', '.join(lost)}. "
            "Use `with_columns` rather than `select`; the contract picks its own columns afterwards."
        )
    casts = [
        _without_nan(conform(column.name, frame.schema[column.name], column.dtype), column.dtype)
        if column.name in frame.columns
        else pl.lit(None, dtype=column.dtype).alias(column.name)
        for column in columns
    ]
    typed = frame.select(*casts, *lineage)
    changed = [
        c for c in columns if c.name in frame.columns and (frame.schema[c.name] != c.dtype or c.dtype.is_float())
    ]
    counts = typed.select(c.name for c in changed).null_count().row(0) if changed else ()
    before = frame.select(c.name for c in changed).null_count().row(0) if changed else ()
    failures = [pl.DataFrame(schema=LONG)]
    for column, after, originally in zip(changed, counts, before, strict=True):
        if after == originally:
            continue
        failed = frame.select(pl.col(column.name).alias("original")).with_row_index("index")
        failed = failed.filter(typed[column.name].is_null() & pl.col("original").is_not_null())
        failures.append(
            failed.select(
                pl.col("index"),
                pl.lit(column.name).alias("column"),
                pl.lit(f"not {_article(column.dtype)}").alias("check"),
                _as_text(failed["original"]).alias("value"),
            )
        )
    return typed, pl.concat(failures)


def _without_nan(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Not-a-number as null, so that it is told as what it is. It is greater than every bound, and spoils every sum."""
    return values.fill_nan(None) if dtype.is_float() else values


def _article(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "a whole number"
    if dtype.is_numeric():
        return "a number"
    if dtype == pl.Boolean:
        return "true or false"
    if dtype == pl.Date:
        return "a date (YYYY-MM-DD)"
    if isinstance(dtype, pl.Datetime):
        return "an instant (ISO 8601)"
    return f"a {dtype}"


def _as_text(values: pl.Series) -> pl.Series:
    if values.dtype.is_nested():
        return pl.Series([str(value) for value in values.to_list()], dtype=pl.String).str.slice(0, MAX_VALUE_CHARACTERS)
    return values.cast(pl.String, strict=False).str.slice(0, MAX_VALUE_CHARACTERS)


def conform(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Column `name` of type `dtype` as `wanted`; null where a value does not fit without loss."""
    column = pl.col(name)
    if dtype == wanted:
        return column
    if dtype == pl.Null:
        return column.cast(wanted)
    if isinstance(wanted, pl.Datetime):
        return _conform_instant(column, dtype, wanted).alias(name)
    if dtype == pl.String:
        text = column.str.strip_chars()
        if wanted.is_integer():
            number = text.cast(pl.Float64, strict=False)
            exact = (number == number.floor()) & (number.abs() < EXACT_IN_FLOAT)
            whole = pl.when(exact).then(number.cast(wanted, strict=False))
            return pl.coalesce(text.cast(wanted, strict=False), whole).alias(name)
        if wanted == pl.Boolean:
            lower = text.str.to_lowercase()
            return pl.when(lower.is_in(TRUE)).then(True).when(lower.is_in(FALSE)).then(False).alias(name)
        if wanted == pl.Date:
            return text.str.to_date("%Y-%m-%d", strict=False).alias(name)
        return text.cast(wanted, strict=False).alias(name)
    if wanted.is_integer() and dtype.is_numeric() and not dtype.is_integer():
        return pl.when(column == column.floor()).then(column.cast(wanted, strict=False)).alias(name)
    return column.cast(wanted, strict=False)


def _conform_instant(column: pl.Expr, dtype: pl.DataType, wanted: pl.Datetime) -> pl.Expr:
    if dtype == pl.String:
        instant = parse_instant(column)
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        instant = column.dt.replace_time_zone("UTC")
    elif dtype == pl.Date:
        instant = column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    else:
        instant = column
    if wanted.time_zone is None:
        return instant.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(wanted)
    return instant.dt.convert_time_zone(wanted.time_zone).cast(wanted)


@lru_cache(maxsize=256)
def _schema(contract: type[Contract]) -> DataFrameSchema:
    """The schema as Pandera is to check it; a copy, because Pandera's own is shared."""
    schema = copy.deepcopy(schema_of(contract))
    # The contract's columns have been picked already; those that are left beside them are the lineage.
    schema.strict = False
    schema.unique = None
    for column in schema.columns.values():
        column.unique = False
    return schema


def _repeated(typed: pl.DataFrame, contract: type[Contract], key: Sequence[str]) -> pl.DataFrame:
    """Values that rows of different keys share though they are to be unique, within this batch. As in SQL, nulls are
    not equal to each other."""
    schema = schema_of(contract)
    unique = [[name] for name, column in schema.columns.items() if column.unique]
    unique += [list(schema.unique)] if schema.unique else []
    frames = [pl.DataFrame(schema=LONG)]
    for names in unique:
        if set(names) == set(key):
            continue
        known = typed.with_row_index("index").drop_nulls(names)
        owners = pl.struct(key).n_unique() if key else pl.len()
        broken = known.filter(owners.over(names) > 1)
        one = len(names) == 1
        frames.append(
            broken.select(
                "index",
                pl.lit(names[0] if one else "").alias("column"),
                pl.lit("not unique" if one else f"not unique: {', '.join(names)}").alias("check"),
                (_as_text(broken[names[0]]) if one else pl.lit(None, dtype=pl.String)).alias("value"),
            )
        )
    return pl.concat(frames)


def _broken_rules(typed: pl.DataFrame, contract: type[Contract], cast_failures: pl.DataFrame) -> pl.DataFrame:
    schema = _schema(contract)
    try:
        schema.validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
    else:
        return pl.DataFrame(schema=LONG)
    broken = cases.filter(pl.col("index").is_null())
    if not broken.is_empty():
        first = broken.row(0, named=True)
        raise ContractError(
            f"The contract {name_of(contract)} cannot be checked: {first['check']} of {first['column']} "
            f"failed as a whole ({str(first['failure_case'])[:300]})."
        )
    words = _words(schema)
    long = cases.select(
        pl.col("index").cast(pl.UInt32),
        pl.when(pl.col("schema_context") == "Column").then(pl.col("column")).otherwise(pl.lit("")).alias("column"),
        pl.col("check"),
        pl.col("check_number"),
        pl.when(pl.col("schema_context") == "Column")
        .then(pl.col("failure_case").cast(pl.String).str.slice(0, MAX_VALUE_CHARACTERS))
        .alias("value"),
    )
    long = long.join(words, on=["column", "check_number"], how="left", nulls_equal=True).select(
        "index",
        "column",
        pl.coalesce("words", pl.col("check").replace({"not_nullable": MISSING})).alias("check"),
        "value",
    )
    # A value that would not cast has become null: that it may not be null is not a second reason.
    nulls = pl.col("check") == MISSING
    casts = cast_failures.select("index", "column", pl.lit(True).alias("cast"))
    long = long.join(casts, on=["index", "column"], how="left")
    return long.filter(~(nulls & pl.col("cast").fill_null(False))).drop("cast")


def _words(schema: DataFrameSchema) -> pl.DataFrame:
    """The rules in words, by column and number of the check."""
    rows = [("", number, rule(check)) for number, check in enumerate(schema.checks)]
    for name, column in schema.columns.items():
        rows += [(name, number, rule(check)) for number, check in enumerate(column.checks)]
    return pl.DataFrame(rows, schema={"column": pl.String, "check_number": pl.Int32, "words": pl.String}, orient="row")


def _null_keys(typed: pl.DataFrame, columns: Sequence[Column], key: Sequence[str]) -> pl.DataFrame:
    """Null key columns that the contract's own rules let pass."""
    nullable = [column.name for column in columns if column.name in key and column.nullable]
    frames = [pl.DataFrame(schema=LONG)]
    for name in nullable:
        rows = typed.select(pl.col(name)).with_row_index("index").filter(pl.col(name).is_null())
        frames.append(
            rows.select(
                "index",
                pl.lit(name).alias("column"),
                pl.lit(MISSING).alias("check"),
                pl.lit(None, dtype=pl.String).alias("value"),
            )
        )
    return pl.concat(frames)


def _orphans(typed: pl.DataFrame, columns: Sequence[Column], known: Known | None) -> pl.DataFrame:
    frames = [pl.DataFrame(schema={**LONG, "quarantine": pl.Boolean})]
    for column in columns:
        reference = column.references
        if reference is None or known is None:
            continue
        values = typed[column.name].drop_nulls().unique()
        absent = values.filter(~values.is_in(known(column, values).implode()))
        if absent.is_empty():
            continue
        rows = typed.select(pl.col(column.name).alias("original")).with_row_index("index")
        rows = rows.filter(pl.col("original").is_in(absent.implode()))
        frames.append(
            rows.select(
                "index",
                pl.lit(column.name).alias("column"),
                pl.lit(f"not in {reference.table}.{reference.column}").alias("check"),
                pl.col("original").cast(pl.String).alias("value"),
                pl.lit(reference.orphans == "quarantine").alias("quarantine"),
            )
        )
    return pl.concat(frames)
