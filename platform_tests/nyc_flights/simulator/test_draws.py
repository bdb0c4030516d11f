"""Draws are SplitMix64, and depend on the seed, the purpose and the row's number alone."""

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyc_flights.simulator import draws

NUMBERS = st.lists(st.integers(0, 2**40), min_size=1, max_size=20)
WORD = 2**64 - 1


def splitmix(number: int, seed: int, purpose: str) -> int:
    salt = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "big")
    z = (number * 0x9E3779B97F4A7C15 + salt) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


@given(NUMBERS, st.integers(0, 2**31), st.text(max_size=10))
def test_bits_are_those_of_splitmix64_whatever_release_of_polars_computes_them(
    numbers: list[int], seed: int, purpose: str
) -> None:
    drawn = pl.DataFrame({"n": numbers}).select(draws.bits(pl.col("n"), seed, purpose)).to_series()
    assert drawn.to_list() == [splitmix(number, seed, purpose) for number in numbers]


@given(NUMBERS, st.integers(-5, 5), st.integers(0, 9))
def test_integers_stay_within_their_bounds(numbers: list[int], low: int, more: int) -> None:
    frame = pl.DataFrame({"n": numbers})
    drawn = frame.select(draws.integer(pl.col("n"), 1, "x", low, low + more)).to_series()
    assert drawn.is_between(low, low + more).all()


def test_kinds_come_at_their_rates_and_most_rows_have_none() -> None:
    rates = {"often": 0.2, "rarely": 0.01, "never": 0.0}
    frame = pl.DataFrame({"n": range(100_000)}).select(kind=draws.kind(pl.col("n"), 1, "x", rates))
    share = dict(frame.group_by("kind").agg(pl.len() / 100_000).rows())
    assert share["often"] == pytest.approx(0.2, abs=0.005)
    assert share["rarely"] == pytest.approx(0.01, abs=0.002)
    assert share[None] == pytest.approx(0.79, abs=0.005)
    assert "never" not in share


def test_purposes_do_not_go_together() -> None:
    frame = pl.DataFrame({"n": range(10_000)}).select(
        a=draws.uniform(pl.col("n"), 1, "a"), b=draws.uniform(pl.col("n"), 1, "b"), c=draws.uniform(pl.col("n"), 2, "a")
    )
    correlations = frame.select(ab=pl.corr("a", "b"), ac=pl.corr("a", "c")).row(0)
    assert all(abs(value) < 0.05 for value in correlations)
