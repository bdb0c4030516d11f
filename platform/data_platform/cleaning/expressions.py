"""What the modules of expressions share: how a column may be given, and how a costly step is kept off clean rows.
What an expression means belongs in the module named after its subject."""

from collections.abc import Callable

import polars as pl

IntoText = str | pl.Expr
"""A column of text: its name, or an expression that yields it."""

UNREADABLE = "unreadable: "
"""Stands before text that a function could not read and that the cast to the contract's type would read its own way."""

_VALUE = pl.col("value")


def as_expr(expr: IntoText) -> pl.Expr:
    """The column named, or the expression as it is."""
    return pl.col(expr) if isinstance(expr, str) else expr


def staged(expr: pl.Expr, apply: Callable[[pl.Series], pl.Series], returns: pl.DataType | type[pl.DataType]) -> pl.Expr:
    """`apply` on each batch of the column's values: for what takes several native steps, each using the last one twice.

    Written as one expression, such steps repeat their input in the query plan, which doubles with each of them.
    """
    return expr.map_batches(lambda values: apply(values).alias(values.name), return_dtype=returns, is_elementwise=True)


def only_where(expr: pl.Expr, condition: Callable[[pl.Expr], pl.Expr], change: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
    """Text changed in the rows where the condition holds, untouched elsewhere: clean rows cost the condition only.

    Both arguments make native expressions of the value. (`when ... then ... otherwise` computes both branches for
    every row.)
    """
    return staged(expr, lambda values: changed_where(values, condition, change), pl.String)


def changed_where(
    values: pl.Series, condition: Callable[[pl.Expr], pl.Expr], change: Callable[[pl.Expr], pl.Expr]
) -> pl.Series:
    """`only_where` for a series."""
    frame = values.rename("value").to_frame()
    hit = frame.select(condition(_VALUE)).to_series().fill_null(False)
    if not hit.any():
        return values
    return values.clone().scatter(hit.arg_true(), frame.filter(hit).select(change(_VALUE)).to_series())
