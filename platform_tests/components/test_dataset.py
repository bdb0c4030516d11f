"""The component `Dataset`: its lineage, what its runs and checks say, and what its sensor asks for."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from platform_tests.components.shop import ORDERS, Shop, checks, failures, materialized, names_of, sample_of
from platform_tests.components.test_audits import AUDIT

from data_platform.components.execution import executable_keys, in_runs, select
from data_platform.components.keys import LEAKAGE, job_name
from data_platform.errors import PlatformError

DATASET = "datasets/large_orders"
COLUMNS = "order_id, changed_at, customer, hash(order_id) % 3 AS visits, total > 50 AS is_large"
QUERY = f"SELECT {COLUMNS} FROM staged_shop.orders"
CONTRACT = '''
from data_platform.contracts import Contract, Field, Instant


class LargeOrder(Contract):
    """An order, and whether it was a large one."""

    order_id: int = Field(unique=True, description="number of the order")
    changed_at: Instant = Field(description="last change")
    customer: str = Field(private=True, description="who ordered")
    visits: int = Field(ge=0, description="earlier visits")
    is_large: bool = Field(description="whether it is more than 50 USD")
'''


def add_dataset(shop: Shop, sql: str = QUERY, **attributes: Any) -> Path:
    """Write the folder of a dataset."""
    folder = shop.package / "defs" / "large_orders"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "contracts.py").write_text(CONTRACT)
    (folder / "orders.sql").write_text(sql)
    said = {
        "query": "orders.sql",
        "key": ["order_id"],
        "time": "changed_at",
        "label": "is_large",
        "split": {"by": "time", "until": {"train": "2020-02-01"}, "rest": "test"},
        **attributes,
    }
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": "data_platform.components.Dataset", "attributes": said}))
    return folder


def order(shop: Shop, first: int, last: int) -> None:
    """An order a day from 2020-01-01 on, of 1 to 100 USD."""
    rows = [
        (i, f"Customer {i}", "x@example.org", 1 + i * 37 % 100, 1, f"2020-{1 + i // 28:02d}-{1 + i % 28:02d}T00:00:00Z")
        for i in range(first, last)
    ]
    shop.order(*rows)


def test_it_is_built_of_its_tables_split_checked_and_follows_them(shop: Shop) -> None:
    add_dataset(shop, contract=f"{shop.name}.defs.large_orders.contracts.LargeOrder")
    keys = executable_keys(shop.definitions)
    assert [name for name, _ in in_runs(select(keys, ["datasets", "shop"]))] == ["shop", DATASET]
    assert job_name(dg.AssetKey(DATASET.split("/"))) == "dataset_large_orders"
    graph = shop.definitions.resolve_asset_graph()
    assert names_of([*graph.get(dg.AssetKey(DATASET.split("/"))).parent_keys]) == ["staged/shop/orders"]
    assert "no rows yet of staged/shop/orders" in str(shop.tick("dataset_large_orders_sensor"))
    order(shop, 0, 60)
    assert shop.run(*ORDERS).success
    request = shop.tick("dataset_large_orders_sensor")
    assert names_of(request.asset_selection) == [DATASET]
    result = shop.follow(request)
    found = materialized(result)[DATASET]
    assert (found["version"], found["dagster/row_count"]) == (1, 60)
    assert [line.split()[0] for line in found["label by split"].splitlines()[1:-1]] == [
        "train", "false", "true", "test", "false", "true",
    ]  # fmt: skip
    assert {(row["customer"], row["visits"] is None) for row in sample_of(found)} == {("(private)", False)}
    assert checks(result)[DATASET] == (
        True, f"Version 1 has 60 rows: train 28, test 32. All keep {shop.name}.defs.large_orders.contracts.LargeOrder.",
    )  # fmt: skip
    (leakage,) = [one for one in result.get_asset_check_evaluations() if one.check_name == LEAKAGE]
    assert leakage.passed
    assert "not changed since" in str(shop.tick("dataset_large_orders_sensor"))
    order(shop, 60, 61)
    assert shop.run(*ORDERS).success
    assert checks(shop.follow(shop.tick("dataset_large_orders_sensor")))[DATASET][1].startswith("Version 2 has 61 rows")
    assert shop.query("SELECT kind, name FROM platform.owners WHERE kind = 'dataset'") == [("dataset", "large_orders")]
    shop.change("UPDATE datasets.large_orders SET order_id = 4 WHERE order_id = 5")
    passed, said = checks(shop.run(AUDIT))[AUDIT]
    assert (passed, said.startswith("datasets.large_orders: ")) == (False, True)


def test_a_feature_that_tells_the_label_fails_the_check_and_what_is_private_stays_so(shop: Shop) -> None:
    add_dataset(shop, QUERY.replace("hash(order_id) % 3 AS visits", "total AS paid"), every="1h")
    order(shop, 0, 60)
    assert shop.run(*ORDERS).success
    result = shop.run(DATASET)
    (leakage,) = [one for one in result.get_asset_check_evaluations() if one.check_name == LEAKAGE]
    assert not leakage.passed
    assert "- paid alone predicts the label is_large almost exactly: AUC 1.000." in str(leakage.description)
    shown = materialized(result)[DATASET]
    assert "label by split" not in shown
    assert {value for row in sample_of(shown) for value in row.values()} == {"(private)"}
    add_dataset(shop, QUERY.replace("order_id, ", "1 AS order_id, ", 1), every="1h")
    del shop.definitions
    assert "It is built at most every 1:00:00" in str(shop.tick("dataset_large_orders_sensor"))
    refused = shop.run(DATASET)
    passed, said = checks(refused)[DATASET]
    assert not passed
    assert "1 key (order_id) has 60 rows. Their values are private." in said
    assert "Customer" not in str(failures(refused))


@pytest.mark.parametrize(
    ("query", "options", "said"),
    [
        ("SELECT * FROM staged_shop.baskets", {}, r"has no table baskets. It has: orders, products"),
        ("SELECT * FROM staged_store.orders", {}, r"has no source store"),
        ("SELECT * FROM modelled.mart", {}, r"there is no model mart"),
        ("SELECT * FROM orders", {}, r"orders.sql reads orders, which is no table of a layer"),
        (QUERY, {"query": "order.sql"}, r"order.sql cannot be read: .* Files of SQL beside it: orders.sql"),
        (QUERY, {"contract": "nowhere.Order"}, r"there is no module 'nowhere'"),
        (QUERY, {"key": []}, r"key"),
    ],
)
def test_a_mistake_in_the_folder_is_said_when_definitions_load(
    shop: Shop, query: str, options: dict[str, Any], said: str
) -> None:
    add_dataset(shop, query, **options)
    with pytest.raises(PlatformError, match=said):
        _ = shop.definitions
