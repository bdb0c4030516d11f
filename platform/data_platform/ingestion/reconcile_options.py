"""What `defs.yaml` says of a table that is held against its source. How that is done is `reconcile`'s work."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from data_platform.ingestion.source import TableOptions
from data_platform.options import Options, duration

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


class ReconciledTable(TableOptions):
    """A table of a source that can say which rows it has."""

    reconcile: Annotated[
        Reconcile | None, BeforeValidator(_reconcile, json_schema_input_type=Reconcile | str | None)
    ] = Field(
        default=None,
        description="Compare the table with its source now and then, and bring right what a load cannot see: "
        "`daily`, or {every: weekly, compare: rows, apply: false}. It needs a `key`, "
        "and a table of which each load reads what is new.",
    )

    def require_reconcilable(self, *, incremental: bool, how: str) -> None:
        """Raise ValueError where `reconcile` says nothing: without a key, or where each load reads all rows. `how` says
        what makes a table of this kind incremental."""
        if self.reconcile is not None and not self.key:
            raise ValueError("`reconcile` compares a table with its source by its `key`, and there is none: name it")
        if self.reconcile is not None and not incremental:
            raise ValueError(
                f"`reconcile` is for a table {how}: without it each load reads all rows, and nothing is left to "
                "compare. Take it out"
            )
