"""One file of nested JSON feeds a table of the objects and a table of what is within them."""

from pathlib import Path

from platform_tests.ingestion.deliveries import table, write
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.contracts import Contract, Field
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

pytestmark = ON_SQLITE


class Order(Contract):
    """An order."""

    id: int = Field(unique=True, description="number of the order")


class Line(Contract):
    """A line of an order."""

    order_id: int = Field(description="number of the order")
    line: int = Field(ge=1, description="number of the line in its order")
    sku: str = Field(description="number of the article")


def test_orders_and_their_lines_are_two_tables_and_lines_without_an_order_are_quarantined(
    lake: Lakehouse, tmp_path: Path
) -> None:
    content = '{"id": 1, "lines": [{"sku": "a"}, {"sku": "b"}, 7]}\n{"lines": [{"sku": "c"}]}\n{"id": 2}\n'
    write(tmp_path, "day.jsonl", content, 1)
    nested = {"type": "json_lines", "rows": "lines", "parent": {"order_id": "id", "line": "lines[#]"}}
    tables = {
        "orders": table("*.jsonl", format={"type": "json_lines"}, refuse_above=1.0),
        "lines": table("*.jsonl", format=nested, key=["order_id", "line"], refuse_above=1.0),
    }
    for name, declared in tables.items():
        load_table(lake, "shop", Files(tmp_path, tables), name, declared, run_id="run")
    stage_table(lake, Recipe("shop", "orders", ("id",), Order, refuse_above=1.0), run_id="run")
    stage_table(lake, Recipe("shop", "lines", ("order_id", "line"), Line, refuse_above=1.0), run_id="run")

    def rows(query: str) -> list[tuple[object, ...]]:
        return lake.connection.execute(query).fetchall()

    assert rows("SELECT id FROM staged_shop.orders ORDER BY id") == [(1,), (2,)]
    assert rows("SELECT order_id, line, sku FROM staged_shop.lines ORDER BY line") == [(1, 1, "a"), (1, 2, "b")]
    bad = 'SELECT layer, line, reasons[1]."check" FROM quarantine_shop.lines ORDER BY layer'
    assert [(layer, line) for layer, line, _ in rows(bad)] == [("raw", 1), ("staged", 2)]
    assert "element 3 of lines[*]: not a JSON object" in str(rows(bad)[0][2])
