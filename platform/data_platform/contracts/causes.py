"""What is said of an exception that somebody else's code raised: a staging function, a rule of a contract, a source of
another package, a library. Its type, its message without secrets or private values, and the line of the user's code.
What becomes of the step is decided where it is caught.
"""

import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import polars as pl

from data_platform.redaction import WITHHELD, names_no_values, scrub, text_of

MESSAGE_CHARACTERS = 400

WITHOUT_VALUES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.DuplicateError,
    pl.exceptions.SchemaError,
    pl.exceptions.SchemaFieldNotFoundError,
)
"""Exceptions of DuckDB and Polars whose messages name columns and types, but no values of rows. Classes derived from
them are not meant."""

OURS = str(Path(__file__).parents[1])
INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(os.__file__).parent)}
)
"""Where code is that came with Python or was installed."""

EXPRESSION = "This error occurred in the following expression:"


def cause_of(error: BaseException, *, private: bool) -> str:
    """An exception in a line or two: `ZeroDivisionError: division by zero` and where. `private` says that its message
    may hold values which must not be shown."""
    place = place_of(error)
    return message_of(error, private=private) + (f"\n  {place}" if place else "")


def message_of(error: BaseException, *, private: bool) -> str:
    """The type and the message of an exception, and of the one that brought it about, on one line."""
    *_, root = _chain(error)
    message = _shown_message(error, private=private)
    return message if root is error else f"{message} (caused by {_shown_message(root, private=private)})"


def _shown_message(error: BaseException, *, private: bool) -> str:
    """What an exception says, without values of rows where they may be private. Those that Polars lists are left out in
    any case: there may be many."""
    text, *more = [line.strip() for line in text_of(error).splitlines() if line.strip()] or [""]
    listed = ""
    harmless = names_no_values(error) or type(error) in WITHOUT_VALUES
    if isinstance(error, pl.exceptions.PolarsError) and not harmless:
        text, listed, _ = text.partition(": [")
    if private and text and not (harmless or listed):
        text = WITHHELD
    if isinstance(error, pl.exceptions.PolarsError) and EXPRESSION in more[:-1]:
        text += f", in {more[more.index(EXPRESSION) + 1]}"
    name = type(error).__name__
    return f"{name}: {scrub(text)[:MESSAGE_CHARACTERS]}" if text else name


def place_of(error: BaseException, function: Callable[..., Any] | None = None) -> str | None:
    """The line of the user's code that raised an exception, or, if none of it was running, the line of what the
    platform had called. `function` is the one that was called, if that is known: its own file comes first."""
    code = getattr(function, "__code__", None)
    for one in reversed(list(_chain(error))):
        found = _frames(one.__traceback__)
        own = [frame for frame in found if code is not None and frame[0] == code.co_filename]
        own = own or [frame for frame in found if not frame[0].startswith((OURS, *INSTALLED, "<"))]
        if own:
            return _shown(*own[-1])
    if code is not None:
        return f"in an expression that it returned ({code.co_filename}, from line {code.co_firstlineno})"
    if function is not None:
        return "in an expression that it returned"
    found = _frames(error.__traceback__)
    ours = max((number for number, (file, _) in enumerate(found) if file.startswith(OURS)), default=-1)
    called = [frame for frame in found[ours + 1 :] if not frame[0].startswith("<")]
    nearest = called[:1] or found[-1:]
    return _shown(*nearest[0]) if nearest else None


def _frames(found: TracebackType | None) -> list[tuple[str, int]]:
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(found)]


def _shown(file: str, line: int) -> str:
    code = linecache.getline(file, line).strip()
    return f"{file}, line {line}" + (f": {scrub(code)}" if code else "")


def traceback_of(error: BaseException) -> str:
    """The whole way to an exception, file by file and line by line, without any message."""
    found = [frame for one in reversed(list(_chain(error))) for frame in traceback.extract_tb(one.__traceback__)]
    return scrub("".join(traceback.format_list(found)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what brought it about, the latest first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
