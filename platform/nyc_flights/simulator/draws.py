"""Chance that does not depend on order: a draw is a function of the seed, a purpose and a row's number.

Any day can so be played alone, in any process, with the same result. SplitMix64 (Steele, Lea and Flood, 2014) in
plain unsigned arithmetic, because Polars' own `hash` may change from one release to the next.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate

import polars as pl

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


@cache
def _u64(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.UInt64)


def _shift_mix(z: pl.Expr, shift: int) -> pl.Expr:
    return z ^ (z // _u64(1 << shift))


def bits(number: pl.Expr, seed: int, purpose: str) -> pl.Expr:
    """64 mixed bits (UInt64) for each row `number` (a non-negative integer), for one `purpose`."""
    salt = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "big")
    z = number.cast(pl.UInt64) * _u64(_GAMMA) + _u64(salt)
    z = _shift_mix(z, 30) * _u64(_MIX_1)
    z = _shift_mix(z, 27) * _u64(_MIX_2)
    return _shift_mix(z, 31)


def uniform(number: pl.Expr, seed: int, purpose: str) -> pl.Expr:
    """A float in [0, 1) for each row."""
    return (bits(number, seed, purpose) // _u64(1 << 11)).cast(pl.Float64) * 2.0**-53


def integer(number: pl.Expr, seed: int, purpose: str, low: int, high: int) -> pl.Expr:
    """An Int64 in [low, high], both included."""
    return (uniform(number, seed, purpose) * (high - low + 1)).floor().cast(pl.Int64) + low


def choice(number: pl.Expr, seed: int, purpose: str, options: Sequence[str]) -> pl.Expr:
    """One of the options for each row, all equally likely."""
    return pick(integer(number, seed, purpose, 0, len(options) - 1), options)


def pick(index: pl.Expr, options: Sequence[str]) -> pl.Expr:
    """The option at a 0-based index."""
    return index.replace_strict(list(range(len(options))), list(options), return_dtype=pl.String)


def kind(number: pl.Expr, seed: int, purpose: str, rates: Mapping[str, float]) -> pl.Expr:
    """The name of at most one happening for each row, each with its own rate; null for none."""
    ends = list(accumulate(rates.values()))
    index = pl.lit(pl.Series(ends, dtype=pl.Float64)).search_sorted(uniform(number, seed, purpose), side="right")
    return index.replace_strict(list(range(len(rates))), list(rates), default=None, return_dtype=pl.String)


def scalar(number: int, seed: int, purpose: str) -> float:
    """`uniform` for a single number."""
    return float(pl.select(uniform(pl.lit(number), seed, purpose)).item())
