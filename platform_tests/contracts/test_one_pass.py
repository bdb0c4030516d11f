"""A batch that the one pass clears is one in which Pandera finds nothing, whatever the rules are."""

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.contracts import one_pass
from data_platform.contracts.audit import _schema, audit
from data_platform.contracts.contract import Contract, Field
from data_platform.contracts.one_pass import all_rules_hold


class Measured(Contract):
    number: int = Field(ge=0, lt=9, ne=4)
    share: float = Field(gt=-0.5, le=1.5, nullable=True)
    place: str = Field(isin=["a", "b"], notin=["c"], str_length={"min_value": 1, "max_value": 2}, nullable=True)
    code: str = Field(str_matches="^x", str_contains="y", str_startswith="x", str_endswith="z", nullable=True)
    middle: int = Field(in_range={"min_value": 1, "max_value": 3}, nullable=True)


ROWS = st.fixed_dictionaries(
    {
        "number": st.one_of(st.integers(-1, 9), st.sampled_from([1, 2, 3])),
        "share": st.sampled_from([None, -0.5, 0.0, 1.5, 2.0, 0.5, 1.0]),
        "place": st.sampled_from([None, "a", "b", "a", "b", "c", ""]),
        "code": st.sampled_from([None, "xyz", "xyyz", "xyz", "xyz", "z", "xz"]),
        "middle": st.sampled_from([None, 0, 1, 2, 3]),
    }
)
SCHEMA = {"number": pl.Int64, "share": pl.Float64, "place": pl.String, "code": pl.String, "middle": pl.Int64}


def pandera_finds_nothing(rows: pl.DataFrame, contract: type[Contract]) -> bool:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(one_pass, "ROWS", -1)
        return not audit(rows, contract, [], unique=False).broken


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, max_size=3))
def test_it_clears_exactly_the_batches_in_which_pandera_finds_nothing(rows: list[dict[str, object]]) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA)
    assert all_rules_hold(frame, _schema(Measured)) == pandera_finds_nothing(frame, Measured)


def test_a_rule_of_the_contracts_own_is_left_to_pandera_and_so_is_one_called_as_panderas() -> None:
    class Own(Contract):
        number: int

        @pa.check("number")
        @classmethod
        def isin(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col(data.key or "") > 1)

    assert not all_rules_hold(pl.DataFrame({"number": [5]}), _schema(Own))
    assert audit(pl.DataFrame({"number": [1]}), Own, []).rows_failed == 1


def test_a_rule_that_cannot_be_applied_clears_nothing_and_pandera_says_why() -> None:
    class Odd(Contract):
        number: int = Field(str_matches="a")

    frame = pl.DataFrame({"number": [5]})
    assert not all_rules_hold(frame, _schema(Odd))
    with pytest.raises(Exception, match="cannot be checked"):
        audit(frame, Odd, [])


def test_a_contract_without_rules_is_cleared_and_a_large_batch_is_not_looked_at() -> None:
    class Plain(Contract):
        number: int

    assert all_rules_hold(pl.DataFrame({"number": [1]}), _schema(Plain))
    assert not all_rules_hold(pl.DataFrame({"number": range(one_pass.ROWS + 1)}), _schema(Plain))
