"""Running a table's staging function, and saying what is wrong with it if it fails: what it raised, and where in its
code. What becomes of the rows is `batches`' work.
"""

import linecache
import sysconfig
import traceback
from pathlib import Path

import polars as pl

from data_platform.contracts.audit import ContractError
from data_platform.errors import PlatformError
from data_platform.staging.recipe import VERSION, Recipe, StagingFunction

MESSAGE_CHARACTERS = 400

WITHOUT_VALUES = (
    AttributeError,
    ImportError,
    NameError,
    TypeError,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.DuplicateError,
    pl.exceptions.SchemaError,
    pl.exceptions.SchemaFieldNotFoundError,
)
"""Exceptions whose messages name code, columns and types, but no values of rows."""

LIBRARIES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
"""Where code is not the user's."""

EXPRESSION = "This error occurred in the following expression:"


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
    except Exception as error:  # noqa: BLE001 - it is the user's code: it may raise anything
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


def _failure(recipe: Recipe, function: StagingFunction, error: Exception, columns: list[str]) -> str:
    return (
        f"{recipe.name}: the staging function {_name(function)} failed on the raw rows.\n"
        f"  {type(error).__name__}: {_message(error, private=any(column.private for column in recipe.columns))}\n"
        f"  {_place(function, error)}\n"
        f"The raw table has: {', '.join(columns)}. Nothing was staged; correct the function and run it again."
    )


def _message(error: Exception, *, private: bool) -> str:
    """What the exception says, on one line, without values of rows where they may be private. Those that Polars lists
    are left out in any case: there may be many."""
    text, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    listed = ""
    if isinstance(error, pl.exceptions.PolarsError) and not isinstance(error, WITHOUT_VALUES):
        text, listed, _ = text.partition(": [")
    if private and not (isinstance(error, WITHOUT_VALUES) or listed):
        text = "(not shown: it may hold values of private columns)"
    if isinstance(error, pl.exceptions.PolarsError) and EXPRESSION in more[:-1]:
        text += f", in {more[more.index(EXPRESSION) + 1]}"
    return text[:MESSAGE_CHARACTERS]


def _place(function: StagingFunction, error: Exception) -> str:
    """The line of the user's code that raised; of an expression that Polars ran later, where its function is."""
    code = getattr(function, "__code__", None)
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if code is not None and frame[0] == code.co_filename]
    own = own or [frame for frame in frames if not frame[0].startswith((*LIBRARIES, "<"))]
    if own:
        file, line = own[-1]
        return f"{file}, line {line}: {linecache.getline(file, line).strip()}"
    if code is None:
        return "in an expression that it returned"
    return f"in an expression that it returned ({code.co_filename}, from line {code.co_firstlineno})"


def _name(function: StagingFunction) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
