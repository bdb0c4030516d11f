"""In which split a row is, as SQL: by its time, by its place in the order of times, or by a hash of its key."""

from collections.abc import Mapping, Sequence

from data_platform.lakehouse.sql import literal, quote
from data_platform.ml.datasets.options import HashSplit, OrderSplit, Split, TimeSplit

HASH_DIGITS = 13
"""Hexadecimal digits of the hash that are taken: as many as a DOUBLE holds exactly."""


def split_column(split: Split | None, key: Sequence[str], time: str | None) -> str:
    """The expression of the split that a row is in; NULL where there are no splits, or none has its time."""
    if isinstance(split, TimeSplit | OrderSplit):
        assert time is not None  # noqa: S101 - the options require it
        return by_time(split, time) if isinstance(split, TimeSplit) else by_order(split, time)
    return by_hash(split, key) if isinstance(split, HashSplit) else "NULL::VARCHAR"


def by_time(split: TimeSplit, time: str) -> str:
    """The first split that ends after the time."""
    cases = " ".join(
        f"WHEN {quote(time)}::TIMESTAMPTZ < TIMESTAMPTZ {literal(moment.isoformat())} THEN {literal(name)}"
        for name, moment in split.until.items()
    )
    return f"CASE {cases} ELSE {literal(split.rest) if split.rest is not None else 'NULL'} END"


def by_hash(split: HashSplit, key: Sequence[str]) -> str:
    """The split in whose range of [0, 1) the MD5 of the key's text lies."""
    columns = split.together or key
    text = ", ".join(
        f"coalesce(strlen({quote(name)}::VARCHAR) || ':' || {quote(name)}::VARCHAR, '-')" for name in columns
    )
    return _of_shares(
        split.shares, f"(('0x' || left(md5(concat({text})), {HASH_DIGITS}))::BIGINT / {16**HASH_DIGITS}.0)"
    )


def by_order(split: OrderSplit, time: str) -> str:
    """The split in whose range of [0, 1) the share of rows lies that are earlier."""
    return _of_shares(split.shares, f"((rank() OVER (ORDER BY {quote(time)}) - 1) / (count(*) OVER ())::DOUBLE)")


def _of_shares(shares: Mapping[str, float], place: str) -> str:
    """The split in whose range a place from 0 to 1 lies."""
    cases, upper, (*names, last) = [], 0.0, shares
    for name in names:
        upper += shares[name]
        cases.append(f"WHEN {place} < {upper!r} THEN {literal(name)}")
    return f"CASE {' '.join(cases)} ELSE {literal(last)} END"
