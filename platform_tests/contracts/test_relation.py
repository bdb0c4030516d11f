"""Whole tables held against a contract."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from data_platform.contracts import Contract, Field
from data_platform.contracts import relation as relation_module
from data_platform.contracts.relation import audit_relation
from data_platform.lakehouse.connect import Lakehouse


class Both(Contract):
    """A number that is to be small and unique, beside a name that is to be unique."""

    number: int = Field(le=5, nullable=True, unique=True)
    name: str = Field(nullable=True, unique=True)


ROWS = st.lists(
    st.tuples(st.integers(1, 9) | st.none(), st.sampled_from(["a", "b", "c", "d"]) | st.none()), max_size=12
)


@given(rows=ROWS)
@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_counts_once_however_many_rules_it_breaks(
    lake: Lakehouse, rows: list[tuple[int | None, str | None]]
) -> None:
    frame = pl.DataFrame(rows, schema={"number": pl.Int64, "name": pl.String}, orient="row")
    lake.connection.register("found", frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    verdict = audit_relation(lake, "found", Both)
    numbers, names = [number for number, _ in rows], [name for _, name in rows]
    bad = [
        (number is not None and (number > 5 or numbers.count(number) > 1))
        or (name is not None and names.count(name) > 1)
        for number, name in rows
    ]
    assert (verdict.rows, verdict.rows_failed) == (len(rows), sum(bad))
    assert verdict.passed == (not any(bad))


def test_of_an_increment_the_rows_count_that_are_new_and_the_violation_names_all_that_share_a_value(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relation_module, "BATCH_ROWS", 2)
    frame = pl.DataFrame({"number": [1, 2, 3, 2, 7, 7], "name": ["a", "b", "c", "d", "e", "f"]})
    lake.connection.register("found", frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    verdict = audit_relation(lake, "found", Both, rows="SELECT * FROM found WHERE name > 'c'")
    assert (verdict.rows, verdict.rows_failed) == (3, 3)
    assert {(one.column, one.check): one.rows for one in verdict.violations} == {
        ("number", "not unique"): 4,
        ("number", "at most 5"): 2,
    }
