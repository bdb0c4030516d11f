"""The audit: rows against their contract, good split from bad in one pass, with every reason a bad row has.
Where the rows come from and where the bad ones go is the step's business (`staging.step`, `contracts.quarantine`).

Types come first: each column is cast to what the contract says, and a value that does not cast is a reason like any
other. Then Pandera checks the values. Missing values and uniqueness are checked here: a value that did not cast is not
missing as well, and a batch may hold several versions of one row, which repeats neither the key nor a value that is
unique to it. The step keeps the newest good version.

What a rule finds is kept as one bit a row. Reasons are put together only for the rows that are asked for, so a batch
of which every row breaks several rules takes hardly more memory than a good one.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import pandera.errors
import polars as pl
from pandera.api.polars.container import DataFrameSchema
from pandera.constants import CHECK_OUTPUT_KEY

from data_platform.contracts.causes import cause_of
from data_platform.contracts.conform import conform
from data_platform.contracts.contract import Column, Contract, contract_columns, name_of, rule, schema_of
from data_platform.contracts.hints import likely_cause
from data_platform.contracts.one_pass import all_rules_hold
from data_platform.contracts.texts import as_text
from data_platform.contracts.violations import PRIVATE, REASON, Violation
from data_platform.errors import PlatformError

MAX_VALUE_CHARACTERS = 200

MISSING = "missing"
"""The reason of a null where none may be."""

NOT_UNIQUE = "not unique"
"""The reason of a value that several rows have though it is to be unique."""

REASONS, NUMBER = "__reasons", "__number"
"""Columns beside those of a user: why a row is bad, and its number. No contract has a column of such a name."""

REASONED_ROWS = 25_000
"""Bad rows in a frame at most: each may have a reason for each rule of its contract."""

Known = Callable[[Column, pl.Series], pl.Series]
"""Given a column that references another table and distinct values of it, the values that exist there."""


class ContractError(PlatformError):
    """The frame as a whole cannot be held against the contract: a column that it needs is not there, or a staging
    function or a rule failed."""


@dataclass(frozen=True, eq=False)
class Broken:
    """A rule that rows broke: a mask over all rows of the batch, and the column's values as they were given (None for
    a rule of the row as a whole). The values of `private` columns are not shown."""

    column: str
    check: str
    rows: pl.Series
    values: pl.Series | None
    private: bool = False
    fatal: bool = True

    def texts(self, rows: pl.Series) -> pl.Series:
        """The values of some rows (a mask) as text."""
        count = int(rows.sum())
        if self.private:
            return pl.Series([PRIVATE], dtype=pl.String).new_from_index(0, count)
        if self.values is None:
            return pl.Series([None], dtype=pl.String).new_from_index(0, count)
        return as_text(self.values.filter(rows)).str.slice(0, MAX_VALUE_CHARACTERS)

    @property
    def violation(self) -> Violation:
        """How many rows broke the rule, and the value of the first of them."""
        first = pl.select(pl.arange(0, len(self.rows)) == self.rows.arg_max()).to_series()
        return Violation(self.column, self.check, int(self.rows.sum()), self.texts(first)[0], self.fatal)


@dataclass(frozen=True, eq=False)
class Audited:
    """The outcome for one batch: all `rows`, in the contract's types, with the columns that are carried along, and the
    rules that some of them broke. `identifying` are the columns that bad rows are given with, besides their reasons:
    what is carried along, the key, the version."""

    rows: pl.DataFrame
    broken: Sequence[Broken]
    identifying: Sequence[str]

    @cached_property
    def failed(self) -> pl.Series:
        """Which rows are bad, as a mask."""
        mask = pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(self.rows))
        for one in self.broken:
            if one.fatal:
                mask = mask | one.rows
        return mask

    @cached_property
    def rows_failed(self) -> int:
        """How many rows are bad. A row that breaks several rules counts once."""
        return int(self.failed.sum())

    @property
    def good(self) -> pl.DataFrame:
        """The rows that keep the contract: its columns and those that are carried along."""
        return self.rows.filter(~self.failed) if self.rows_failed else self.rows

    @property
    def bad(self) -> pl.DataFrame:
        """All bad rows: what identifies them, and `reasons` (a column of the key of that name has precedence)."""
        rows = self.with_reasons(self.failed)
        return rows if "reasons" in rows.columns else rows.rename({REASONS: "reasons"})

    def bad_frames(self, together: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The bad rows in frames of about REASONED_ROWS, those with the same values of `together` in one frame."""
        rows = self.rows.select(together).with_row_index(NUMBER).filter(self.failed).sort(together)
        places = rows.select(NUMBER, (pl.struct(together).rle_id() // REASONED_ROWS).alias("__frame"))
        for frame in places.partition_by("__frame", maintain_order=True):
            yield self.with_reasons(_mask(frame[NUMBER], len(self.rows)))

    def sample(self, limit: int, by: Sequence[str]) -> pl.DataFrame:
        """Bad rows: of each reason the `limit` that are first by the columns `by`."""
        places = self.rows.select(by).with_row_index(NUMBER)
        chosen = [places.filter(one.rows).bottom_k(limit, by=list(by))[NUMBER] for one in self.broken if one.fatal]
        return self.with_reasons(_mask(pl.concat(chosen).unique(), len(self.rows)) if chosen else self.failed)

    def with_reasons(self, rows: pl.Series) -> pl.DataFrame:
        """Some bad rows (a mask): what identifies them, and REASONS."""
        long = [_reasons(one, rows) for one in self.broken if one.fatal]
        reasons = pl.concat([pl.DataFrame(schema={NUMBER: pl.UInt32, "reason": REASON}), *long])
        of_row = reasons.group_by(NUMBER).agg(pl.col("reason").alias(REASONS))
        kept = self.rows.select(self.identifying).with_row_index(NUMBER).filter(rows)
        return kept.join(of_row, on=NUMBER, how="left", maintain_order="left").drop(NUMBER)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The broken rules with how many rows broke them, in the order in which they were checked."""
        return tuple(one.violation for one in self.broken)


def _mask(numbers: pl.Series, length: int) -> pl.Series:
    return pl.select(pl.arange(0, length, dtype=pl.UInt32).is_in(numbers.cast(pl.UInt32).implode())).to_series()


def _reasons(broken: Broken, rows: pl.Series) -> pl.DataFrame:
    """The reason that a broken rule is to some rows (a mask), by the row's number."""
    chosen = broken.rows & rows
    given = pl.DataFrame({NUMBER: chosen.arg_true(), "value": broken.texts(chosen)})
    reason = pl.struct(pl.lit(broken.column).alias("column"), pl.lit(broken.check).alias("check"), pl.col("value"))
    return given.select(NUMBER, reason.cast(REASON).alias("reason"))


def audit(
    frame: pl.DataFrame,
    contract: type[Contract],
    carried: Sequence[str],
    key: Sequence[str] = (),
    known: Known | None = None,
    version: str | None = None,
    *,
    unique: bool = True,
) -> Audited:
    """Hold `frame` against `contract`. `carried` are columns carried along untouched, `key` identifies a row (its
    columns may not be null), `version` orders its versions, `known` looks up references. `unique` says whether rows
    are compared with each other.

    Raises ContractError when a column is missing that may not be null.
    """
    columns = contract_columns(contract)
    _require_columns(frame, columns, carried, contract)
    typed, not_cast = _typed(frame, columns, carried)
    broken = [*not_cast, *_missing(typed, columns, key, not_cast), *_broken_rules(typed, contract)]
    broken += [*(_repeated(typed, contract, key) if unique else ()), *_orphans(typed, columns, known)]
    return Audited(typed, broken, _identifying(carried, key, version))


def audit_rows(rows: pl.DataFrame | pl.LazyFrame, contract: type[Contract], key: Sequence[str] = ()) -> Audited:
    """What becomes of rows that a staging function gave: `good` are those that keep the contract, in its types, `bad`
    the others, each with its `reasons`. For tests of staging functions: nothing is looked up in other tables.

    Rows without the columns `_load_id` and `_row`, which say what raw row a row comes from, are numbered from 0.
    """
    frame = rows.lazy().collect()
    if "_row" not in frame.columns:
        frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("_row"))
    if "_load_id" not in frame.columns:
        frame = frame.with_columns(pl.lit(1, dtype=pl.Int64).alias("_load_id"))
    return audit(frame, contract, ["_load_id", "_row"], key)


def audit_keys(
    frame: pl.DataFrame, contract: type[Contract], carried: Sequence[str], key: Sequence[str], version: str | None
) -> Audited:
    """Hold only the key of `frame` against `contract`, and the column `version` if the contract has it: rows that say
    which row is gone. The other columns are null.

    Raises ContractError when a column of the key is missing.
    """
    columns = contract_columns(contract)
    of_key = [column for column in columns if column.name in key]
    kept = [column for column in columns if column.name in key or column.name == version]
    _require_columns(frame, [replace(column, nullable=False) for column in of_key], carried, contract)
    typed, not_cast = _typed(frame, kept, carried)
    broken = [*not_cast, *_missing(typed, of_key, key, not_cast)]
    others = [pl.lit(None, dtype=column.dtype).alias(column.name) for column in columns if column not in kept]
    rows = typed.with_columns(others).select(*(column.name for column in columns), *carried)
    return Audited(rows, broken, _identifying(carried, key, version))


def audit_columns(frame: pl.DataFrame, contract: type[Contract], only: tuple[str, ...]) -> Audited:
    """Hold some columns of a contract against it, where the others are not known yet: each row by itself, without the
    rules of the table as a whole. The columns of `frame` that are not in the contract are carried along.

    Raises ContractError when a column of `only` is missing that may not be null.
    """
    columns = [column for column in contract_columns(contract) if column.name in only]
    carried = [name for name in frame.columns if name not in only]
    _require_columns(frame, columns, carried, contract)
    typed, not_cast = _typed(frame, columns, carried)
    broken = [*not_cast, *_missing(typed, columns, (), not_cast), *_broken_rules(typed, contract, only)]
    return Audited(typed, broken, _identifying(carried, (), None))


def _identifying(carried: Sequence[str], key: Sequence[str], version: str | None) -> list[str]:
    return list(dict.fromkeys([*carried, *key, *([version] if version else [])]))


def _require_columns(
    frame: pl.DataFrame, columns: Sequence[Column], carried: Sequence[str], contract: type[Contract]
) -> None:
    needed = [column.name for column in columns if not column.nullable and column.name not in frame.columns]
    if needed:
        there = [name for name in frame.columns if not name.startswith("_")]
        raise ContractError(
            f"The contract {name_of(contract)} needs the column{'s' * (len(needed) > 1)} {', '.join(needed)}, "
            f"which the staged rows do not have. They have: {', '.join(there)}. {likely_cause(needed, there)}"
        )
    lost = [name for name in carried if name not in frame.columns]
    if lost:
        raise ContractError(
            f"The staging function dropped the column{'s' * (len(lost) > 1)} {', '.join(lost)}, which tell which raw "
            "row a staged row comes from. Use `with_columns` rather than `select`; the contract picks its own columns "
            "afterwards."
        )


def _typed(frame: pl.DataFrame, columns: Sequence[Column], carried: Sequence[str]) -> tuple[pl.DataFrame, list[Broken]]:
    """The contract's columns in the contract's types, and the values that would not take them."""
    casts = [
        conform(column.name, frame.schema[column.name], column.dtype, infinite=column.infinite)
        if column.name in frame.columns
        else pl.lit(None, dtype=column.dtype).alias(column.name)
        for column in columns
    ]
    typed = frame.select(*casts, *carried)
    failures = []
    for column in columns:
        if column.name not in frame.columns or typed[column.name].null_count() == frame[column.name].null_count():
            continue
        original = frame[column.name]
        rows = typed[column.name].is_null() & original.is_not_null()
        failures.append(Broken(column.name, f"not {_article(column.dtype)}", rows, original, column.private))
    return typed, failures


def _missing(
    typed: pl.DataFrame, columns: Sequence[Column], key: Sequence[str], not_cast: Sequence[Broken]
) -> Iterator[Broken]:
    """Nulls where none may be: in columns that are not nullable, and in the key. A value that would not cast has
    become null: that it may not be null is not a second reason."""
    cast = {one.column: one.rows for one in not_cast}
    for column in columns:
        if (column.nullable and column.name not in key) or not typed[column.name].null_count():
            continue
        rows = typed[column.name].is_null()
        if column.name in cast:
            rows = rows & ~cast[column.name]
        if rows.any():
            yield Broken(column.name, MISSING, rows, typed[column.name], column.private)


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


@lru_cache(maxsize=256)
def _schema(contract: type[Contract], only: tuple[str, ...] | None = None) -> DataFrameSchema:
    """The schema as Pandera is to check it, or that of some of its columns; a copy, because Pandera's own is shared.
    Nulls and uniqueness are not left to it, and of the rows that fail it gives the mask: the values that it would list
    are not needed."""
    schema = copy.deepcopy(schema_of(contract))
    if only is not None:
        schema.columns = {name: column for name, column in schema.columns.items() if name in only}
        schema.checks = []
    # The contract's columns have been picked already; those that are left beside them are carried along.
    schema.strict = False
    schema.unique = None
    for column in schema.columns.values():
        column.unique = False
        column.nullable = True
    for check in [*schema.checks, *(check for column in schema.columns.values() for check in column.checks)]:
        check.n_failure_cases = 1
    return schema


def _broken_rules(typed: pl.DataFrame, contract: type[Contract], only: tuple[str, ...] | None = None) -> list[Broken]:
    schema = _schema(contract, only)
    if all_rules_hold(typed, schema):
        return []
    try:
        schema.validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        found = errors.schema_errors
    else:
        return []
    private = {column.name for column in contract_columns(contract) if column.private}
    broken = []
    for error in found:
        if not isinstance(error.check_output, pl.DataFrame) or not isinstance(error.failure_cases, pl.DataFrame):
            raise ContractError(_failed_as_a_whole(error, typed, contract, private=bool(private)))
        rows = ~error.check_output[CHECK_OUTPUT_KEY]
        if error.schema is schema or error.schema.name not in typed.columns:
            broken.append(Broken("", rule(error.check), rows, None))
        else:
            name = error.schema.name
            broken.append(Broken(name, rule(error.check), rows, typed[name], name in private))
    return broken


def _failed_as_a_whole(
    error: pandera.errors.SchemaError, typed: pl.DataFrame, contract: type[Contract], *, private: bool
) -> str:
    """Why a rule could not be applied. Of what it raised Pandera keeps the words but not the place, so it is asked once
    more."""
    check = error.check if isinstance(error.check, str) else error.check.error or error.check.name
    column = error.schema.name if error.schema.name in typed.columns else None
    why = "" if private else f"\n  {str(error.failure_cases)[:MAX_VALUE_CHARACTERS]}"
    if not isinstance(error.check, str):
        try:
            error.check(typed.lazy(), column)
        except Exception as raised:  # noqa: BLE001 - it is the user's code: it may raise anything
            why = f"\n  {cause_of(raised, private=private)}"
    of = f" of the column {column}" if column else ""
    return f"The contract {name_of(contract)} cannot be checked: its rule {check}{of} failed.{why}\nCorrect the rule."


def _repeated(typed: pl.DataFrame, contract: type[Contract], key: Sequence[str]) -> Iterator[Broken]:
    """Values that rows of different keys share though they are to be unique, within this batch. As in SQL, nulls are
    not equal to each other."""
    schema = schema_of(contract)
    private = {column.name for column in contract_columns(contract) if column.private}
    unique = [[name] for name, column in schema.columns.items() if column.unique]
    unique += [list(schema.unique)] if schema.unique else []
    for names in unique:
        if set(names) == set(key):
            continue
        known = pl.all_horizontal(pl.col(name).is_not_null() for name in names)
        owners = pl.struct(key).n_unique() if key else pl.len()
        rows = typed.select((known & (owners.over(names) > 1)).alias("rows")).to_series()
        if not rows.any():
            continue
        if len(names) == 1:
            yield Broken(names[0], NOT_UNIQUE, rows, typed[names[0]], names[0] in private)
        else:
            yield Broken("", f"{NOT_UNIQUE}: {', '.join(names)}", rows, None)


def _orphans(typed: pl.DataFrame, columns: Sequence[Column], known: Known | None) -> Iterator[Broken]:
    for column in columns:
        reference = column.references
        if reference is None or known is None:
            continue
        values = typed[column.name].drop_nulls().unique()
        absent = values.filter(~values.is_in(known(column, values).implode()))
        if absent.is_empty():
            continue
        rows = typed[column.name].is_in(absent.implode()).fill_null(False)
        check = f"not in {reference.table}.{reference.column}"
        fatal = reference.orphans == "quarantine"
        yield Broken(column.name, check, rows, typed[column.name], column.private, fatal)
