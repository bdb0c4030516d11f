"""What assets and their checks show of themselves: what is in quarantine, what columns mean, and nothing internal."""

from typing import Any

import dagster as dg
import yaml
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from platform_tests.components.models_shop import add_models
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, checks, failures, materialized

from data_platform.components.keys import CHECK, model_key, raw_key
from data_platform.components.metadata import OWN_COLUMNS
from data_platform.components.platform import platform_definitions
from data_platform.lakehouse.tables import PLATFORM_COLUMNS


def check_metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the contract check of an asset shows, tables as lists of rows."""
    (found,) = [
        one
        for one in result.get_asset_check_evaluations()
        if one.check_name == CHECK and "/".join(one.asset_key.path) == asset
    ]
    return {
        name: [dict(record.data) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in found.metadata.items()
    }


def test_rows_in_quarantine_are_shown_with_reasons_without_private_values_and_with_what_to_do(shop: Shop) -> None:
    shop.order((4, "Dan", "dan@example.org", -1.0, 1, "2020-01-04T00:00:00Z"))
    shown = check_metadata(shop.run(*ORDERS), ORDERS[1])
    assert shown["in quarantine"].startswith("1 row. All of them: dp quarantine show shop/orders.")
    assert "dp quarantine replay shop/orders" in shown["in quarantine"]
    (why,) = shown["in quarantine, why"]
    assert why == {"column": "total", "rule": "at least 0", "rows": 1, "example": "-1.0"}
    (row,) = shown["in quarantine, the latest"]
    assert row["why"] == "total: at least 0, but it is '-1.0'"
    assert '"order_id": 4' in row["row"]
    assert '"buyer": "(private)"' in row["row"]
    assert '"email": "(private)"' in row["row"]
    assert "Dan" not in str(shown)
    # They are shown as long as they are there, also when nothing new comes.
    assert check_metadata(shop.run(*ORDERS), ORDERS[1])["in quarantine"].startswith("1 row.")
    assert "in quarantine" not in check_metadata(shop.run(*PRODUCTS), PRODUCTS[1])


def test_of_a_refused_step_the_check_shows_them_too(shop: Shop) -> None:
    shop.execute("update orders set price = -1 where order_id < 3")
    shown = check_metadata(shop.run(*ORDERS), ORDERS[1])
    assert shown["in quarantine"].startswith("2 rows.")
    assert len(shown["in quarantine, the latest"]) == 2


def test_records_that_could_not_be_read_are_shown_on_the_raw_table(shop: Shop) -> None:
    shop.deliver("pallets-2.csv", *[f"{number},mug" for number in range(20, 60)], "9,mug,too much")
    result = shop.run("raw/depot/pallets", "staged/depot/pallets")
    assert result.success, failures(result)
    shown = check_metadata(result, "raw/depot/pallets")
    (row,) = shown["in quarantine, the latest"]
    assert row["row"] == "9,mug,too much"
    assert "in quarantine" not in check_metadata(result, "staged/depot/pallets")


def test_private_rows_are_blanked_whole_where_nobody_knows_what_a_private_column_is_made_of(shop: Shop) -> None:
    staging = shop.package / "defs" / "shop" / "staging.py"
    staging.write_text(staging.read_text().replace("    total =", "    assert raw.collect().height\n    total ="))
    shop.order((4, "Dan", "dan@example.org", -1.0, 1, "2020-01-04T00:00:00Z"))
    result = shop.run(*ORDERS)
    assert result.success, failures(result)
    assert "Dan" not in str(check_metadata(result, ORDERS[1]))
    assert "Ada" not in str(materialized(result)[ORDERS[0]]["sample"])


def test_raw_columns_say_where_they_come_from_and_what_becomes_of_them(shop: Shop) -> None:
    columns = materialized(shop.run(*ORDERS))[ORDERS[0]]["dagster/column_schema"].columns
    described = {column.name: column.description for column in columns}
    assert described["order_id"] == "`order_id` as shop gives it. number of the order"
    assert described["buyer"] == "`buyer` as shop gives it. Staged as `customer` (who ordered)"
    assert described["email"] == "`email` as shop gives it, hashed before the first write."
    assert described["price"] == "`price` as shop gives it. Staged as `total` (what is to be paid)"
    assert described["_load_id"].startswith("Number of the load that brought the row")
    assert all(described.values())


def test_a_rule_that_is_new_is_said_in_the_verdict_until_a_rebuild_applies_it(shop: Shop) -> None:
    assert shop.run(*ORDERS).success
    contracts = shop.package / "defs" / "shop" / "contracts.py"
    contracts.write_text(contracts.read_text().replace("Field(ge=0, unit", "Field(ge=0, le=4.5, unit"))
    fresh = Shop(shop.folder, shop.name, shop.instance)
    forget(shop.name)
    result = fresh.run(*ORDERS)
    told = checks(result)[ORDERS[1]][1]
    assert "not yet applied to rows that were staged before: total at most 4.5." in told
    assert "`dp run staged/shop/orders --rebuild`" in told
    assert check_metadata(result, ORDERS[1])["rules not applied to earlier rows"] == "total at most 4.5"
    rebuilt = fresh.run(ORDERS[1], config={"staged__shop__orders": {"rebuild": True}})
    assert "1 of 3 rows are in quarantine" in checks(rebuilt)[ORDERS[1]][1]
    assert "New in the contract" not in checks(rebuilt)[ORDERS[1]][1]


def forget(package: str) -> None:
    """Have the modules of a package imported anew."""
    import sys

    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[module]


def test_the_launchpad_shows_the_options_of_the_steps_and_no_configuration_of_ours(shop: Shop) -> None:
    snapshot = shop.definitions.resolve_job_def("load_shop").get_job_snapshot()
    schema = snapshot.config_schema_snapshot
    root = schema.get_config_snap(snapshot.mode_def_snaps[0].root_config_key or "")
    shown = yaml.safe_load(default_values_yaml_from_type_snap(schema, root))
    assert shown["ops"]["raw__shop__orders"] == {"config": {"full_refresh": False, "retype": False}}
    assert "lakehouse" not in shown.get("resources", {})


def test_a_model_is_described_in_words_without_its_sql(shop: Shop) -> None:
    add_models(shop)
    shop.definitions = platform_definitions(shop.package)
    graph = shop.definitions.resolve_asset_graph()
    for model in ("fct_order", "mart_sales", "dim_pallet"):
        description = graph.get(model_key(model)).description or ""
        assert "select" not in description.lower()
    assert graph.get(raw_key("shop", "orders")).owners == ["team:shop"]


def test_every_column_that_the_platform_adds_to_raw_rows_is_described() -> None:
    assert set(OWN_COLUMNS) >= PLATFORM_COLUMNS
