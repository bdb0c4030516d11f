"""Point in time: what was known of one table at the moment that a row of another speaks of. The same in SQL is in the
page on data science; what of a dataset was known too late is found by `leakage`.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from data_platform.errors import PlatformError

MICROSECOND = timedelta(microseconds=1)

_AVAILABLE, _MOMENT, _NUMBER = "__available", "__moment", "__number"

_NEVER = -(2**62)
"""A moment, in microseconds, at which nothing was known yet."""


def as_of(
    left: pl.LazyFrame | pl.DataFrame,
    right: pl.LazyFrame | pl.DataFrame,
    *,
    by: str | Sequence[str],
    at: str,
    known_at: str,
    delay: timedelta,
    max_age: timedelta,
) -> pl.LazyFrame:
    """Add to each row of `left` the columns of the newest row of `right` with the same `by` that was known then: its
    `known_at` plus `delay` is not after the row's `at`, and it is not older than `max_age`. Where there is none they
    are null. The rows stay in their order; of rows of `right` with the same `by` and `known_at` the last one counts:
    sort rows of the lakehouse before, which come in no order, or leave one of them. A null in `by`, in `at` or in
    `known_at` goes with nothing.

    `known_at` stays in the result, so that a dataset can declare it. Both limits must be given: how long it takes until
    a row of `right` can be read (`timedelta(0)`: at once), and how old it may be.

    Raises PlatformError for columns that are not there, that both have, or that are no times of the same zone, and for
    limits that nothing can meet.
    """
    names = [by] if isinstance(by, str) else list(by)
    left, right = left.lazy(), right.lazy()
    _require(left.collect_schema(), right.collect_schema(), names, at, known_at)
    if delay < timedelta(0) or max_age < delay:
        raise PlatformError(
            f"max_age ({max_age}) must not be less than delay ({delay}), nor that less than zero: no row could be "
            "known and be young enough."
        )
    known = (
        right.filter(pl.col(known_at).is_not_null(), *(pl.col(name).is_not_null() for name in names))
        .with_columns((_not_before(known_at, right) + delay // MICROSECOND).alias(_AVAILABLE))
        .sort(_AVAILABLE, maintain_order=True)
    )
    given = pl.all_horizontal(pl.col(name).is_not_null() for name in [at, *names])
    moment = pl.when(given).then(pl.col(at).dt.timestamp("us")).otherwise(_NEVER)
    # The left frame stands in the plan once: read a second time, its rows may come in another order.
    return (
        left.with_row_index(_NUMBER)
        .with_columns(moment.alias(_MOMENT))
        .sort(_MOMENT)
        .join_asof(
            known,
            left_on=_MOMENT,
            right_on=_AVAILABLE,
            by=names or None,
            strategy="backward",
            # Measured from when a row was available, as the two are compared.
            tolerance=(max_age - delay) // MICROSECOND,
            check_sortedness=False,
            coalesce=False,
        )
        .sort(_NUMBER)
        .drop(_NUMBER, _MOMENT, _AVAILABLE)
    )


def _not_before(name: str, rows: pl.LazyFrame) -> pl.Expr:
    """A time in microseconds, rounded up: what is finer must not be known too early."""
    kind = rows.collect_schema()[name]
    if isinstance(kind, pl.Datetime) and kind.time_unit == "ns":
        return -(-pl.col(name).dt.timestamp("ns") // 1000)
    return pl.col(name).dt.timestamp("us")


def _require(left: pl.Schema, right: pl.Schema, by: Sequence[str], at: str, known_at: str) -> None:
    """Raise PlatformError for columns with which the frames cannot be joined."""
    for side, schema, wanted in (("left", left, [*by, at]), ("right", right, [*by, known_at])):
        missing = [name for name in wanted if name not in schema]
        if missing:
            raise PlatformError(f"The {side} frame has no column {', '.join(missing)}. It has: {', '.join(schema)}.")
        taken = [name for name in (_AVAILABLE, _MOMENT, _NUMBER) if name in schema]
        if taken:
            raise PlatformError(f"The {side} frame has the column {taken[0]}, which is used here: rename it.")
    if len(set(by)) < len(by):
        raise PlatformError(f"`by` names a column twice: {', '.join(by)}.")
    both = [name for name in right if name in left and name not in by]
    if both:
        raise PlatformError(
            f"Both frames have the column{'s' * (len(both) > 1)} {', '.join(both)}: rename them in one, or leave them "
            "out there."
        )
    kinds = {at: left[at], known_at: right[known_at]}
    for name, kind in kinds.items():
        if not isinstance(kind, pl.Datetime):
            raise PlatformError(f"The column {name} is a {kind}, and must be a time (Datetime).")
    zones = {kind.time_zone for kind in kinds.values() if isinstance(kind, pl.Datetime)}
    if len(zones) > 1:
        raise PlatformError(
            f"{at} is a {left[at]} and {known_at} a {right[known_at]}: bring both to the same time zone."
        )
    for name in by:
        if left[name].is_nested():
            raise PlatformError(f"{name} is a {left[name]}: take columns of one value in `by`.")
        if left[name] != right[name]:
            raise PlatformError(f"{name} is a {left[name]} in the left frame and a {right[name]} in the right one.")
