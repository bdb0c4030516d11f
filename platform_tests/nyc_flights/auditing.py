"""Holds what the staging functions make of spoiled rows against the truth of the simulator."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars.testing import assert_frame_equal

from data_platform.contracts import Contract
from data_platform.contracts.audit import Audited, Known, audit
from data_platform.contracts.contract import Column
from data_platform.lakehouse.tables import ROW_ID
from data_platform.staging.recipe import StagingFunction

WORDS = {
    "outside range": r"^(at least|at most|more than|less than) ",
    "unknown label": r"^one of ",
    "missing": r"^missing$",
    "not readable as its type": r"^not (a|an) ",
    "unknown reference": r"^not in ",
}
"""How the audit words the sorts of rules that the truth names."""


@dataclass(frozen=True)
class Staged:
    """Raw rows after staging and audit. `good` has one row for each key, the last one in the order of the raw rows."""

    good: pl.DataFrame
    bad: pl.DataFrame
    audited: Audited


def stage(
    raw: pl.DataFrame,
    function: StagingFunction,
    contract: type[Contract],
    key: Sequence[str],
    known: dict[str, pl.Series] | None = None,
) -> Staged:
    """Stage and audit raw rows as the platform does. `known` gives the values of referenced tables."""
    numbered = raw.with_row_index("_row").with_columns(pl.lit(1, dtype=pl.Int64).alias("_load_id"))
    numbered = numbered.cast({"_row": pl.Int64})
    audited = audit(function(numbered.lazy()).collect(), contract, ROW_ID, key, _lookup(known))
    good = audited.good.sort("_row").unique(list(key), keep="last", maintain_order=True).drop(*ROW_ID)
    bad = audited.bad.select(*ROW_ID, "reasons").explode("reasons").unnest("reasons").join(numbered, on=list(ROW_ID))
    return Staged(good, bad, audited)


def _lookup(known: dict[str, pl.Series] | None) -> Known | None:
    if known is None:
        return None

    def look(column: Column, values: pl.Series) -> pl.Series:
        assert column.references is not None
        exists = known[column.references.table]
        return values.filter(values.is_in(exists.implode()))

    return look


def assert_quarantined(found: pl.DataFrame, due: pl.DataFrame) -> None:
    """The bad rows (`key`, `column`, `check`) are those that the truth calls for, each for its own reason only."""
    sorts = [pl.when(pl.col("check").str.contains(words)).then(pl.lit(name)) for name, words in WORDS.items()]
    reasons = found.select("key", failing_column="column", rule=pl.coalesce(*sorts, "check"))
    expected = due.select("key", "failing_column", "rule")
    assert_frame_equal(reasons.sort(pl.all()), expected.sort(pl.all()))


def assert_repaired(good: pl.DataFrame, expected: pl.DataFrame, key: Sequence[str]) -> None:
    """The good rows are the expected ones, value for value."""
    assert good.height > 0
    assert_frame_equal(good.sort(key), expected.select(good.columns).sort(key), check_exact=True)


def happened(truth: pl.DataFrame, table: str) -> set[str]:
    """The kinds of dirt that a table suffered from."""
    return set(truth.filter(table=table)["kind"])
