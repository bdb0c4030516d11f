"""Drafts are held against the whole way: what load, staging or audit would refuse or set aside is their verdict."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.tables import MemorySource, batch_of, rejects

from data_platform.contracts import Contract, Field, Instant
from data_platform.drafting.trial import Trying, Verdict, tried
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Batch, Position, Reading, TableOptions
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe


class Thing(Contract):
    """One thing."""

    id: int = Field()
    amount: Annotated[pl.Decimal, 18, 2] = Field(nullable=True)
    email: str = Field(nullable=True, private=True)


def verdict(
    home: Path,
    source: Any,
    *,
    key: Sequence[str] = ("id",),
    mask: Sequence[str] = (),
    refuse_above: float = 0.05,
    contract: type[Contract] = Thing,
) -> Verdict:
    options = TableOptions(contract="x", key=list(key), mask=list(mask), refuse_above=refuse_above)
    recipe = Recipe("shop", "things", tuple(key), contract, refuse_above=refuse_above)
    settings = Settings(home, str(home / "none.sqlite"), str(home / "none"))
    found = tried(source, "shop", [("things", ["things"])], {"things": Trying(options, recipe)}, settings)
    assert not (home / "none.sqlite").exists()
    assert not list(settings.spool.glob("trial-*"))
    return found["things"]


def things(*rows: tuple[Any, ...], rejected: pa.Table | None = None) -> MemorySource:
    names = ("id", "amount", "email")
    table = pa.table({name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)})
    return MemorySource([batch_of(table, {"cursor": "1"}, *([rejected] if rejected is not None else []))])


GOOD = [(str(number), "1.50", None) for number in range(40)]


def test_a_draft_that_every_row_satisfies_passes(home: Path) -> None:
    found = verdict(home, things(*GOOD))
    assert (found.rows, found.staged, found.passed) == (40, 40, True)
    assert str(found) == "all 40 rows that were read satisfy it"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("1", "1.505", None), ("2", "1.5", None)], "1 row would go to quarantine: amount not a"),
        ([("one", "1", None)], "such as 'one'"),
        ([(None, "1", None)], "id missing"),
        ([("1", "1", None), ("1", "2", None), ("3", "2", None)], "the key id is not unique: 1 row would give way"),
    ],
)
def test_rows_that_would_be_set_aside_or_lost_fail_it_with_an_example(
    home: Path, rows: list[tuple[Any, ...]], words: str
) -> None:
    found = verdict(home, things(*rows))
    assert not found.passed
    assert words in str(found)


def test_records_that_cannot_be_read_fail_it_with_their_place(home: Path) -> None:
    bad = rejects(("orders.csv", 7, "103;;", "1 field instead of 4"))
    found = verdict(home, things(*GOOD[:2], rejected=bad))
    assert "1 record cannot be read: 1 field instead of 4 (orders.csv:7): '103;;'" in str(found)
    assert not found.passed
    within = verdict(home, things(*GOOD, rejected=bad))
    assert (within.passed, within.rows, within.staged) == (True, 41, 40)
    assert "40 of the 41 rows" in str(within)


def test_a_private_value_is_not_shown_whatever_is_wrong_with_it(home: Path) -> None:
    bad = rejects(("orders.csv", 7, "someone@example.com", "odd"))
    rows = [("1", "1", "someone@example.com"), ("1", "2", "someone@example.com")]
    found = verdict(home, things(*rows, rejected=bad), mask=["email"])
    assert not found.passed
    assert "example.com" not in str(found)
    unmasked = verdict(home, things(*rows), key=["email"])
    assert "(private)" in str(unmasked)
    assert "example.com" not in str(unmasked)


def test_a_table_without_a_key_keeps_every_row(home: Path) -> None:
    rows = [("1", "1", None), ("1", "1", None), ("1", "2", None)]
    found = verdict(home, things(*rows), key=())
    assert (found.passed, found.staged) == (True, 3)


class Dated(Contract):
    """A thing with a time."""

    id: int = Field()
    at: Instant = Field()


def test_what_a_library_of_types_cannot_hold_is_a_verdict_and_no_traceback(home: Path) -> None:
    late = pa.table({"id": [1, 2], "at": pa.array([2**63 - 1, 0], pa.timestamp("us", "UTC"))})
    found = verdict(home, MemorySource([batch_of(late, {"cursor": "1"})]), contract=Dated)
    assert "1 row would go to quarantine" in str(found)


def test_a_contract_that_the_rows_do_not_fit_at_all_is_said(home: Path) -> None:
    odd = MemorySource([batch_of(pa.table({"other": [1]}), {"cursor": "1"})])
    assert "it cannot be staged: " in str(verdict(home, odd))


class Failing:
    """A source that breaks in its middle."""

    def probe(self, tables: Sequence[str], after: Any) -> dict[str, Any]:
        return {}

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[Reading]:
        raise PlatformError("The server is gone.")
        yield


def test_a_source_that_cannot_be_read_is_said(home: Path) -> None:
    assert str(verdict(home, Failing())) == "FAILED its trial: it cannot be loaded: The server is gone."


class Endless:
    """A source without an end, which notes how much of it was read."""

    def __init__(self) -> None:
        self.batches = 0

    def probe(self, tables: Sequence[str], after: Any) -> dict[str, Any]:
        return {}

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["Endless"]:
        yield self

    def overlap(self, table: str) -> None:
        return None

    def committed(self, position: Position) -> None:
        raise AssertionError("a source is not told of what was only tried")

    def __iter__(self) -> Iterator[Batch]:
        while True:
            ids = [str(self.batches * 1000 + number) for number in range(1000)]
            empty = pa.nulls(1000, pa.string())
            self.batches += 1
            yield Batch("things", pa.table({"id": ids, "amount": empty, "email": empty}), "whole", None)


def test_a_trial_ends_although_the_source_does_not_and_tells_it_nothing(home: Path) -> None:
    source = Endless()
    found = verdict(home, source)
    assert found.passed
    assert found.staged == 20_000
    assert source.batches <= 30
