"""Contracts as they are loaded by name: which names their columns may have."""

from typing import Any

import polars as pl
import pytest

from data_platform.contracts import Contract, Field
from data_platform.contracts.contract import contract_columns, load_contract, require_stageable
from data_platform.errors import PlatformError


class Underscored(Contract):
    """A document's own id."""

    name: str
    _id: str


class Mangled(Contract):
    """A document's own version."""

    name: str
    __v: int


class Inherited(Underscored):
    """Of a base that has one."""

    other: str


class Helper(Contract):
    """A name of a helper."""

    name: str = Field(alias="__v")


class Own(Contract):
    """A name that staging adds."""

    name: str = Field(alias="_Load_ID")


class Everything(Contract):
    """A name that Polars takes for all columns."""

    name: str = Field(alias="*")


class Pattern(Contract):
    """A name that Polars takes for a pattern."""

    name: str = Field(alias="^a$")


class Cased(Contract):
    """Two names that DuckDB takes for one."""

    name: str
    Name: str


class Fine(Contract):
    """Any other names and types."""

    id_: str = Field(alias="_id")
    odd: int = Field(alias='a b."c"')
    row_id: int
    tags: pl.List(pl.Int64)  # type: ignore[valid-type]
    seen: pl.Struct({"at": pl.Datetime("us", "UTC")})  # type: ignore[valid-type]
    ratio: pl.Float32


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (Underscored, r'has a column _id: .* Write `id: \.\.\. = Field\(alias="_id"\)`'),
        (Inherited, "has a column _id:"),
        (Mangled, "has a column '__v', a name that the platform or Polars uses itself"),
        (Helper, "has a column '__v', a name that the platform or Polars uses itself"),
        (Own, "has a column '_Load_ID', a name that the platform"),
        (Everything, r"has a column '\*'"),
        (Pattern, r"has a column '\^a\$'"),
        (Cased, "has the columns name and Name, which differ by upper and lower case only"),
    ],
)
def test_a_name_that_cannot_stand_in_a_staged_table_is_refused(contract: type[Contract], message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        require_stageable(contract.__name__, contract)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (pl.Array(pl.Int64, 2), r"Declare it pl\.List\(Int64\)"),
        (pl.Duration("us"), "a number and name its unit"),
        (pl.Int128, r"Declare it pl\.Decimal\(38, 0\)"),
        (pl.Datetime("ns", "UTC"), "Declare it Instant"),
        (pl.List(pl.Struct({"a": pl.Duration("ms")})), "a number and name its unit"),
        (pl.Null(), "the type that its values have"),
    ],
)
def test_a_type_that_the_lakehouse_does_not_store_is_refused_with_another(dtype: Any, message: str) -> None:
    contract = type("Any", (Contract,), {"__annotations__": {"value": dtype}, "__module__": __name__})
    with pytest.raises(PlatformError, match=f"has the column value of type .*{message}"):
        require_stageable("Any", contract)


def test_other_names_are_those_of_the_columns() -> None:
    contract = load_contract(f"{__name__}.Fine")
    assert [column.name for column in contract_columns(contract)] == [
        "_id",
        'a b."c"',
        "row_id",
        "tags",
        "seen",
        "ratio",
    ]
