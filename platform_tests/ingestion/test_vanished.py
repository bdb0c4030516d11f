"""Columns that a source has ceased to fill are found, with what came in their place."""

from collections.abc import Sequence

import pyarrow as pa
import pytest
from platform_tests.ingestion.landing import ON_SQLITE, load
from platform_tests.tables import MemorySource, batch_of

from data_platform.ingestion.vanished import vanished
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE


def land(lake: Lakehouse, *rows: dict[str, object], full_refresh: bool = False) -> list[str]:
    """Load rows; what is found of the columns afterwards."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    result = load(lake, MemorySource([batch_of(pa.table(columns), {"cursor": repr(rows)})]), full_refresh=full_refresh)
    return [str(one) for one in vanished(lake, "shop", "orders", min(result.loads))]


def customers(first: int, **columns: object) -> list[dict[str, object]]:
    return [{"id": number, **columns} for number in range(first, first + 3)]


def test_a_renamed_column_is_named_with_its_new_name_and_stays_so_until_a_full_refresh(lake: Lakehouse) -> None:
    assert land(lake, *customers(1, country="FR")) == []
    assert land(lake, *customers(4, country="DE")) == []
    told = "country was never null up to load 2 and always is since ({} rows), and the column nation came with it: "
    assert land(lake, *customers(7, nation="DE")) == [told.format(3) + "it looks like a renaming"]
    assert land(lake, *customers(10, nation="JP")) == [told.format(6) + "it looks like a renaming"]
    assert land(lake, *customers(13, nation="JP"), full_refresh=True) == [told.format(9) + "it looks like a renaming"]
    assert land(lake, *customers(16, nation="JP")) == []


@pytest.mark.parametrize("later", [{"country": None}, {}])
def test_a_column_that_is_null_from_some_load_on_is_named(lake: Lakehouse, later: dict[str, object]) -> None:
    land(lake, *customers(1, country="FR"))
    assert land(lake, *customers(4, **later)) == ["country was never null up to load 1 and always is since (3 rows)"]
    assert land(lake, *customers(7, country="FR")) == []
    assert land(lake, *customers(10, **later)) == []


@pytest.mark.parametrize(
    "rows",
    [
        [[{"id": 1, "note": None}], [{"id": 2, "note": None}]],
        [[{"id": 1, "note": "a"}, {"id": 2}], [{"id": 3}]],
        [[{"id": 1, "note": "a"}], [{"id": 2, "note": "b"}, {"id": 3}]],
    ],
)
def test_a_column_that_was_null_before_or_is_not_always_so_is_nothing_new(
    lake: Lakehouse, rows: Sequence[Sequence[dict[str, object]]]
) -> None:
    assert [land(lake, *some) for some in rows] == [[], []]


def test_nothing_is_said_of_a_table_without_rows(lake: Lakehouse) -> None:
    load(lake, MemorySource([batch_of(pa.table({"id": pa.array([], pa.int64())}), {"cursor": "1"})]))
    assert vanished(lake, "shop", "orders", 1) == []
