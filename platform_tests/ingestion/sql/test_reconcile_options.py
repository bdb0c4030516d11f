"""How a reconciliation is asked for in YAML, and which ranges of keys are read together."""

from typing import Any

import pytest
from pydantic import ValidationError

from data_platform.ingestion.sql.comparison import joined
from data_platform.ingestion.sql.source import SqlTable


@pytest.mark.parametrize(
    ("given", "cron"),
    [
        ("daily", "0 1 * * *"),
        ("1d", "0 1 * * *"),
        ("24h", "0 1 * * *"),
        ("weekly", "0 1 * * 0"),
        ("7d", "0 1 * * 0"),
        ("hourly", "0 * * * *"),
        ("6h", "0 */6 * * *"),
        ("30 22 * * 6", "30 22 * * 6"),
        ({"every": "4h", "compare": "rows"}, "0 */4 * * *"),
        ({"apply": False}, "0 1 * * *"),
    ],
)
def test_when_it_is_done_is_an_interval_or_a_cron_expression(given: Any, cron: str) -> None:
    table = SqlTable.model_validate({"contract": "x", "key": ["id"], "cursor": {"column": "at"}, "reconcile": given})
    assert table.reconcile is not None
    assert table.reconcile.every == cron


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reconcile": "5m"}, "'5m' is no interval here: write hourly, daily"),
        ({"reconcile": "often"}, "'often' is no interval here"),
        ({"reconcile": "daily", "key": []}, "by its `key`, and there is none"),
        ({"reconcile": "daily", "cursor": None}, "nothing is left to compare"),
    ],
)
def test_a_reconciliation_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SqlTable.model_validate({"contract": "x", "key": ["id"], "cursor": {"column": "at"}, **options})


def test_ranges_are_joined_where_they_lie_closest() -> None:
    assert joined([]) == []
    assert joined([5]) == [(5, 5)]
    assert joined([1, 2, 3, 9]) == [(1, 3), (9, 9)]
    many = joined(range(0, 10_000, 10))
    assert len(many) <= 200
    assert {n for first, last in many for n in range(first, last + 1)} >= set(range(0, 10_000, 10))
