"""What `defs.yaml` says of a relational source and its tables: names and values, checked against each other. What is
done with them belongs in `source` and `reading`.
"""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from data_platform.ingestion.source import TableOptions
from data_platform.ingestion.sql.reach import Cursor
from data_platform.options import Duration, Options, duration

MOST_READERS = 16
"""Connections by which one table is read at once, at most."""

EVERY = {"hourly": "0 * * * *", "daily": "0 1 * * *", "weekly": "0 1 * * 0"}
"""The names of intervals as cron expressions: nightly ones at 01:00 UTC, before the audit and the maintenance."""

CRON = re.compile(r"(?:[0-9A-Za-z*/,?#-]+ +){4}[0-9A-Za-z*/,?#-]+")


def _cron(value: object) -> object:
    """An interval, or a cron expression, as a cron expression."""
    text = str(value).strip()
    if text in EVERY or CRON.fullmatch(text):
        return EVERY.get(text, text)
    try:
        interval = duration(text)
    except ValueError:
        interval = timedelta(0)
    hours, rest = divmod(interval, timedelta(hours=1))
    if interval == timedelta(days=7):
        return EVERY["weekly"]
    if interval == timedelta(days=1):
        return EVERY["daily"]
    if rest or hours not in (1, 2, 3, 4, 6, 8, 12):
        raise ValueError(
            f"{text!r} is no interval here: write hourly, daily, weekly, 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d, or a "
            "cron expression in UTC, such as '30 22 * * 6'"
        )
    return EVERY["hourly"] if hours == 1 else f"0 1/{hours} * * *" if hours == 12 else f"0 */{hours} * * *"


class Reconcile(Options):
    """When, and by what, a table is held against its source."""

    every: Annotated[str, BeforeValidator(_cron)] = Field(
        default="daily",
        validate_default=True,
        description="hourly, daily (at 01:00 UTC), weekly, an interval such as 6h, or a cron expression in UTC.",
    )
    compare: Literal["keys", "rows"] = Field(
        default="keys",
        description="`keys` finds rows that were deleted, added late or given another key; `rows` also those with "
        "other values, at the price of a hash of every column.",
    )
    apply: bool = Field(
        default=True,
        description="Land what differs: tombstones for rows that are gone, and the rows that were missed. If not, the "
        "check warns of them.",
    )


def _reconcile(value: object) -> object:
    return {"every": value} if isinstance(value, str) else value


class Parallel(Options):
    """How a whole table is read by several connections at once."""

    readers: int = Field(ge=2, le=MOST_READERS, description="Connections that read it at once.")
    column: str | None = Field(
        default=None,
        min_length=1,
        description="Whole-number column by whose ranges it is divided; default: where the rows lie (PostgreSQL, "
        "SQLite), or for a view the first whole-number column of its key.",
    )


def _parallel(value: object) -> object:
    return {"readers": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Replica(Options):
    """A copy of the database that is read in its place."""

    url: str = Field(description="As `url`, of the same kind; `{{ env.NAME }}` for secrets.")
    max_lag: Duration = Field(
        default=timedelta(minutes=5), description="How far it may be behind the primary to be read: 30s, 5m."
    )
    when_late: Literal["fail", "primary"] = Field(
        default="fail",
        description="What a load does if it is further behind, stopped or out of reach: `fail` for now, to be tried "
        "again by the sensor, or read the `primary` (PostgreSQL, MariaDB).",
    )


class SqlTable(TableOptions):
    """A table or view of a relational database."""

    table: str | None = Field(
        default=None, description="Its name in the source, `schema.table` if need be; default: the name it has here."
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to read; default: all.")
    as_text: list[str] = Field(
        default=[],
        description="Columns that are read as the text which the database shows of them, for values that have no place "
        "in their type: `0000-00-00` of MySQL, `NaN` in a numeric of so many digits. Not the cursor.",
    )
    cursor: Cursor | None = Field(default=None, description="Reads only what is new; without it, each load reads all.")
    reconcile: Annotated[Reconcile | None, BeforeValidator(_reconcile)] = Field(
        default=None,
        description="Compare the table with its source now and then, and bring right what the cursor cannot see: "
        "`daily`, or {every: weekly, compare: rows, apply: false}. It needs a key and a cursor.",
    )
    parallel: Annotated[Parallel | None, BeforeValidator(_parallel, json_schema_input_type=Parallel | int | None)] = (
        Field(
            default=None,
            description="Read the table by several connections at once, of one snapshot: 4, or {readers: 4, column: "
            "id}. PostgreSQL and SQLite, without a cursor; no more than the limit of the `pool` leaves.",
        )
    )

    @model_validator(mode="after")
    def _cursor_is_fit(self) -> "SqlTable":
        if self.cursor is not None and self.cursor.column in self.as_text:
            raise ValueError(f"`as_text` names {self.cursor.column}, the cursor, which has to keep its type")
        if self.parallel is not None and self.cursor is not None:
            raise ValueError(
                "`parallel` and `cursor` do not go together: a cursor is read in its order, so that a load that ends "
                "early goes on from where it was, and ranges that are read at once have no order. Take one of them out"
            )
        if self.reconcile is not None and not self.key:
            raise ValueError("`reconcile` compares a table with its source by its `key`, and there is none: name it")
        if self.reconcile is not None and self.cursor is None:
            raise ValueError(
                "`reconcile` is for a table with a `cursor`: without one each load reads all of it, and nothing is "
                "left to compare. Take it out"
            )
        return self
