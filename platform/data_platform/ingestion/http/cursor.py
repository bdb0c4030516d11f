"""How far an incremental HTTP table was read: the stored cursor, what to ask for next, and what comes again.

The raw column is text as the source wrote it, and the landing compares it as text. So that this is right, the stored
instant carries in its spelling what was seen: `...Z` while every value was written `YYYY-MM-DDTHH:MM:SS[.fff]Z`, which
sorts as text; `...+00:00` once any was not (another offset, a blank for the T, a bare date), and then what may come
again is counted generously: from the day before the westernmost clock, 12 hours behind UTC. Numbers do not sort as
text at all, so every landed row is looked at. Looking at too many rows costs time; at too few, it would cost doubles.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from data_platform.errors import PlatformError
from data_platform.ingestion.http.options import HttpCursor, comparable, instant
from data_platform.ingestion.source import Overlap, Position

ENTRY = "cursor"
_SORTS_AS_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_WESTERNMOST = timedelta(hours=12)


def asked_from(cursor: HttpCursor, after: Position) -> str | None:
    """The value of the cursor's parameter: the stored cursor less the lag, else `initial`, else None: no parameter."""
    start = _start(cursor, after)
    if start is None:
        return None
    if cursor.type == "instant":
        return str(start.strftime(cursor.format))
    return format(start, "f") if cursor.type == "number" else str(start)


def overlap(cursor: HttpCursor, after: Position) -> Overlap | None:
    """The rows that a read after this position may deliver again; see the top of the module."""
    if ENTRY not in after:
        return None
    if cursor.type == "number":
        return Overlap(cursor.column, "")
    asked = asked_from(cursor, after) or ""
    if cursor.type == "text":
        return Overlap(cursor.column, asked)
    since = instant(asked, cursor.format)  # what the format rounded down is delivered as well
    if after[ENTRY].endswith("Z"):
        return Overlap(cursor.column, since.strftime("%Y-%m-%dT%H:%M:%S"))
    return Overlap(cursor.column, (since - _WESTERNMOST).strftime("%Y-%m-%d"))


def _start(cursor: HttpCursor, after: Position) -> Any:
    if ENTRY in after:
        try:
            newest = comparable(cursor, after[ENTRY])
        except ValueError as error:
            raise PlatformError(
                f"The stored position of column {cursor.column!r} is no {cursor.type}: {error}. Was the cursor's type "
                "changed? Then load the table afresh with --full-refresh."
            ) from error
        return newest if cursor.type == "text" else newest - cursor.lag_value
    return None if cursor.initial is None else comparable(cursor, cursor.initial)


@dataclass
class Progress:
    """The newest cursor of everything read so far, beginning with the stored one."""

    cursor: HttpCursor
    after: Position
    rows: int = 0
    _newest: Any = None
    _text: str = ""
    _sorts_as_text: bool = True
    _column_seen: bool = False
    _columns: dict[str, None] = field(default_factory=dict)
    _last: Any = None

    def __post_init__(self) -> None:
        if ENTRY in self.after:
            self._text = self.after[ENTRY]
            self._newest = comparable(self.cursor, self._text)
            self._sorts_as_text = self._text.endswith("Z")

    def see(self, values: Iterable[str | None] | None, rows: int, columns: Iterable[str]) -> None:
        """Take note of one page: its cursor column, None if no row has it. Raises PlatformError."""
        name = self.cursor.column
        self._columns |= dict.fromkeys(columns)
        self._column_seen = self._column_seen or values is not None
        for index, text in enumerate([None] * rows if values is None else values):
            if text is None:
                if self.cursor.nulls == "refuse":
                    raise PlatformError(
                        f"row {self.rows + index} has no {name!r}, and the cursor says nulls: refuse. With nulls: "
                        "include such rows land whenever the API gives them"
                    )
                continue
            self._advance(text, self.rows + index)
        self.rows += rows

    def _advance(self, text: str, row: int) -> None:
        try:
            value = comparable(self.cursor, text)
        except ValueError as error:
            raise PlatformError(
                f"row {row} has {text[:60]!r} in {self.cursor.column!r}, which is no {self.cursor.type} ({error}). "
                "Give the cursor another `type`: instant, number or text"
            ) from None
        if self.cursor.ordered and self._last is not None and value < self._last:
            raise PlatformError(
                f"row {row} has {text[:60]!r} in {self.cursor.column!r}, older than the row before it, but the cursor "
                "says ordered: true. Ask the API to sort, or say ordered: false"
            )
        self._last = value
        if self.cursor.type == "instant":
            self._sorts_as_text = self._sorts_as_text and _SORTS_AS_TEXT.fullmatch(text) is not None
        if self._newest is None or value > self._newest:
            self._newest, self._text = value, text

    def position(self) -> Position:
        """Where all that was seen ends; empty if no cursor was ever seen. It never goes back. Raises PlatformError."""
        if self.rows and not self._column_seen:
            raise PlatformError(
                f"no row has the cursor's column {self.cursor.column!r}. There are {', '.join(self._columns)}"
            )
        if self._newest is None:
            return {}
        if isinstance(self._newest, datetime):
            text = self._newest.astimezone(UTC).isoformat()
            return {ENTRY: text.replace("+00:00", "Z") if self._sorts_as_text else text}
        return {ENTRY: self._text}
