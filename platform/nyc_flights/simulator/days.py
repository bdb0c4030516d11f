"""Simulated time: how days are numbered and when an operating day closes. No clock is read or kept here."""

from datetime import UTC, datetime, timedelta

import polars as pl

FIRST_DAY = datetime(2013, 1, 1, tzinfo=UTC)
LAST_DAY = 365
CLOSING = timedelta(hours=32)
"""Operating day D is New York's date D. It closes at 08:00 UTC of the next date (three or four in the morning in New
York), when the airports sleep and nearly all of the evening's flights have landed."""


def opens(day: int) -> datetime:
    """The instant (UTC) after which things belong to day `day` (1 = 2013-01-01): the close of the one before."""
    return closes(day - 1)


def closes(day: int) -> datetime:
    """The last instant (UTC) of operating day `day`."""
    return FIRST_DAY + timedelta(days=day - 1) + CLOSING


def date_of(day: int) -> str:
    """The date of an operating day, as `YYYY-MM-DD`."""
    return (FIRST_DAY + timedelta(days=day - 1)).date().isoformat()


def day_of(instant: pl.Expr) -> pl.Expr:
    """The operating day (Int64) within which an instant (Datetime us, UTC) falls."""
    day_us = 86_400_000_000
    return -((pl.lit(closes(0)) - instant).dt.total_microseconds().floordiv(day_us))


def iso(instant: pl.Expr) -> pl.Expr:
    """`YYYY-MM-DDTHH:MM:SSZ`."""
    return instant.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
