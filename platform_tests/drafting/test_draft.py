"""Types that are drafted from values: such that the values that were seen survive them."""

import polars as pl
import pyarrow as pa
import pytest

from data_platform.contracts.conform import converted
from data_platform.drafting.draft import draft_column

TYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
    "Annotated[pl.Decimal, 38, 9]": pl.Decimal(38, 9),
    "Annotated[pl.Decimal, 38, 2]": pl.Decimal(38, 2),
    "Annotated[pl.Decimal, 38, 1]": pl.Decimal(38, 1),
    "Annotated[pl.Decimal, 38, 0]": pl.Decimal(38, 0),
}


@pytest.mark.parametrize(
    ("texts", "drafted"),
    [
        (["1745678901234567890", "1745678901234567891"], "int"),
        (["1.5", "0.30000000000000004", "123456.25"], "float"),
        (["1e30", "1.5"], "float"),
        (["12345678901234567.123456789", "1.5"], "Annotated[pl.Decimal, 38, 9]"),
        (["-1234567890123456789.10", "0.25", "7", "0.000"], "Annotated[pl.Decimal, 38, 2]"),
        (["0.000000000000000000", "100000000000000000000.0", "1.5"], "Annotated[pl.Decimal, 38, 1]"),
        (["99999999999999999999", "1"], "Annotated[pl.Decimal, 38, 0]"),
        (["1" * 30 + "." + "1" * 30], "str"),
    ],
)
def test_numbers_keep_their_digits(texts: list[str], drafted: str) -> None:
    values = pl.Series("number", texts)
    found = draft_column("number", "number", values, pa.string(), None, whole=True, blanks=False).annotation
    assert found == drafted
    assert converted(values, TYPES[drafted]).null_count() == 0
