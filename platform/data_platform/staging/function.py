"""Running a table's staging function, and saying what is wrong with it if it fails: what it raised, and where in its
code. What becomes of the rows is `batches`' work.
"""

import polars as pl

from data_platform.contracts.audit import ContractError
from data_platform.contracts.causes import message_of, place_of
from data_platform.errors import PlatformError
from data_platform.staging.recipe import VERSION, Recipe, StagingFunction


def run_function(raw: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """What the staging function makes of a frame of raw rows. Raises ContractError if it fails, or overwrites the
    columns that say which raw row a staged row is made of."""
    frame = raw.lazy()
    if VERSION in recipe.carried and recipe.newest_by is not None:
        if recipe.newest_by not in raw.columns:
            raise ContractError(
                f"{recipe.name}: `newest_by` names the column {recipe.newest_by}, which neither the "
                f"contract nor the raw table has. The raw table has: {', '.join(raw.columns)}."
            )
        frame = frame.with_columns(pl.col(recipe.newest_by).alias(VERSION))
    if recipe.function is None:
        return frame.collect()
    try:
        staged = recipe.function(frame)
        if not isinstance(staged, pl.LazyFrame):
            raise _wrong_type(recipe, recipe.function, staged)
        found = staged.collect()
    except PlatformError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code: it may raise anything
        raise ContractError(_failure(recipe, recipe.function, error, raw.columns)) from None
    _require_origins(raw, found, recipe, recipe.function)
    return found


def _require_origins(raw: pl.DataFrame, staged: pl.DataFrame, recipe: Recipe, function: StagingFunction) -> None:
    """Refuse staged rows that say they come of a raw row that was not given, or of another place in a log of changes.
    When a load is staged again, its rows are found by these columns. Columns that were dropped are the audit's to
    name."""
    carried = [name for name in recipe.carried if name in raw.columns and name in staged.columns]
    if all(staged[name].equals(raw[name], null_equal=True) for name in carried):
        return  # no row was left out or moved, which is the usual case and quicker to find out
    changed = [name for name in carried if staged.schema[name] != raw.schema[name]]
    if (
        not changed
        and not staged.select(carried).join(raw.select(carried), on=carried, how="anti", nulls_equal=True).is_empty()
    ):
        changed = [name for name in carried if not staged[name].is_in(raw[name].implode(), nulls_equal=True).all()]
        changed = changed or carried
    if changed:
        raise ContractError(
            f"{recipe.name}: the staging function {_name(function)} overwrites {', '.join(changed)}, which "
            f"{'tells' if len(changed) == 1 else 'tell'} which raw row a staged row comes from. Nothing was staged; "
            "leave these columns as they are, and give yours another name."
        )


def _wrong_type(recipe: Recipe, function: StagingFunction, given: object) -> ContractError:
    return ContractError(
        f"{recipe.name}: the staging function {_name(function)} returned {type(given).__name__}, not a LazyFrame. It "
        "takes the raw rows as a LazyFrame and returns the staged rows as one."
    )


def _failure(recipe: Recipe, function: StagingFunction, error: BaseException, columns: list[str]) -> str:
    return (
        f"{recipe.name}: the staging function {_name(function)} failed on the raw rows.\n"
        f"  {message_of(error, private=any(column.private for column in recipe.columns))}\n"
        f"  {place_of(error, function)}\n"
        f"The raw table has: {', '.join(columns)}. Nothing was staged; correct the function and run it again."
    )


def _name(function: StagingFunction) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
