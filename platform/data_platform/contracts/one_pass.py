"""A first look at the rules of a contract, all of them in one pass over a batch. Which rows break which rule is asked
of Pandera (`audit`), and only where this look does not clear the whole batch.

Pandera runs each rule as a query of its own, which takes about a millisecond for each of them however few the rows are:
most of the time of a small increment's audit, or of one request to a model.
"""

import polars as pl
import polars.exceptions
from pandera.api.checks import Check
from pandera.api.function_dispatch import Dispatcher
from pandera.api.polars.container import DataFrameSchema
from pandera.api.polars.types import PolarsData

ROWS = 10_000
"""Rows up to which the look pays: with more of them the rules themselves take the time, not their number."""


def all_rules_hold(typed: pl.DataFrame, schema: DataFrameSchema) -> bool:
    """Whether it is sure that every row keeps every rule. False where one may be broken, where a rule is not one of
    Pandera's own, for the table as a whole, or cannot be applied, and where there are more than ROWS rows."""
    if len(typed) > ROWS or schema.checks:
        return False
    checks = [(column, check) for column, one in schema.columns.items() for check in one.checks]
    if not all(_is_of_pandera(check) for _, check in checks):
        return False
    schema.get_backend(typed)  # it registers the functions of the rules, which Pandera does at the first validation
    try:
        kept = [_kept(typed.lazy(), column, check, f"{number}") for number, (column, check) in enumerate(checks)]
        return not kept or all(pl.concat(kept, how="horizontal").select(pl.all().all()).collect().row(0))
    except polars.exceptions.PolarsError:
        # Pandera is asked next, and tells of it.
        return False


def _is_of_pandera(check: Check) -> bool:
    of_its_own = isinstance(check._check_fn, Dispatcher)
    return of_its_own and not check.element_wise and check.groupby is None


def _kept(rows: pl.LazyFrame, column: str, check: Check, name: str) -> pl.LazyFrame:
    """Which rows keep one rule, as Pandera reckons it: a null keeps each that does not say otherwise."""
    # By its name: a copied schema has copies of the rules, made before Pandera knew how they read Polars.
    of_pandera = Check.get_builtin_check_fn(check._check_fn.__name__)
    found: pl.LazyFrame = of_pandera(PolarsData(rows, column), **check._check_kwargs)
    return found.select(pl.first().fill_null(value=bool(check.ignore_na)).alias(name))
