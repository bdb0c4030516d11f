"""How values are written."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from data_platform.dashboards.options import ColumnOptions
from data_platform.dashboards.values import decimals, digits_of, shown


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, None, "–"),
        (float("nan"), "%", "–"),
        (float("inf"), None, "∞"),
        (1234567, None, "1,234,567"),
        (10**30, None, f"{10**30:,}"),
        (0.8412, "%", "84.1 %"),
        (-0.00001, "%", "0.0 %"),
        (Decimal("12.50"), "USD", "12.5"),
        (0.35, "s", "0.35 s"),
        (59.6, "s", "60 s"),
        (3725, "s", "1 h 2 min"),
        (-90, "s", "-1 min 30 s"),
        (90061, "s", "1 d 1 h"),
        (12_300_000, "bytes", "12.3 MB"),
        (True, None, "yes"),
        (date(2013, 1, 14), None, "2013-01-14"),
        (datetime(2013, 1, 14, 5, 30, tzinfo=UTC), None, "2013-01-14 05:30 UTC"),
        ("x" * 300, None, "x" * 199 + "…"),
        ("a\x00b\x1b[0m\ud800", None, "a\ufffdb\ufffd[0m\ufffd"),
    ],
)
def test_a_value_is_written_as_people_read_it(value: object, unit: str | None, text: str) -> None:
    assert shown(value, unit) == text


def test_the_numbers_of_a_column_have_as_many_decimals_as_each_other() -> None:
    values = [7.0, 10.25, None, -3.5]
    digits = decimals(values, "min")
    assert [shown(value, "min", digits) for value in values] == ["7.0", "10.2", "–", "-3.5"]
    assert decimals([1.0, 2.0, float("nan")], None) == 0
    assert decimals([], None) == 0
    assert digits_of([0.7481, 0.7502], ColumnOptions(decimals=4)) == 4
    assert digits_of([0.7481, 0.7502], ColumnOptions()) == 2
