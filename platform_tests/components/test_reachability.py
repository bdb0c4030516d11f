"""A source that does not answer: what its tables show while it lasts, and afterwards. And what is left of mistakes."""

from datetime import timedelta

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop

from data_platform.components import reachability
from data_platform.components.keys import REACHABLE, raw_key
from data_platform.components.platform import platform_definitions

DEAD = "postgresql://reader:s3cret@127.0.0.1:1/shop"


def verdicts(shop: Shop, table: str) -> list[tuple[bool, dg.AssetCheckSeverity, str]]:
    """What the check of a table's source said, the first verdict first."""
    key = dg.AssetCheckKey(raw_key("shop", table), REACHABLE)
    records = shop.instance.event_log_storage.get_asset_check_execution_history(key, 100)
    found = [record.evaluation for record in reversed(records)]
    return [
        (one.passed, one.severity, one.description or "") for one in found if isinstance(one, dg.AssetCheckEvaluation)
    ]


def tick(shop: Shop) -> str:
    """Why the tick of the shop's sensor failed."""
    with pytest.raises(dg.Failure) as failed:
        shop.tick("shop_sensor")
    return str(failed.value.description)


def test_a_source_that_does_not_answer_is_a_warning_then_a_failure_and_is_over_when_it_answers(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.follow(shop.tick("shop_sensor"))
    assert [passed for passed, _, _ in verdicts(shop, "products")] == [True]
    alive = str(shop.database)
    monkeypatch.setenv("SHOP_URL", DEAD)
    reason = tick(shop)
    tick(shop)
    # Only what changes is written.
    assert len(verdicts(shop, "products")) == 2
    passed, severity, told = verdicts(shop, "products")[-1]
    assert (passed, severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.startswith("The source has not answered since 20")
    assert "It fails if that lasts 5 min." in told
    assert reason in told
    assert "s3cret" not in told

    monkeypatch.setattr(reachability, "PATIENCE", timedelta(0))
    tick(shop)
    since = told.partition("since ")[2][:19]
    passed, severity, told = verdicts(shop, "products")[-1]
    assert (passed, severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert since in told, "it counts from the first tick that failed"
    # A table says itself how long it may take: `fresh_within` of the orders is a day.
    assert verdicts(shop, "orders")[-1][1] == dg.AssetCheckSeverity.WARN
    tick(shop)
    assert len(verdicts(shop, "products")) == 3

    monkeypatch.setenv("SHOP_URL", f"sqlite://{alive}")
    assert shop.tick("shop_sensor") == "Nothing new in orders, products."
    for table in ("orders", "products"):
        assert verdicts(shop, table)[-1][::2] == (True, "The source answers.")
    shop.tick("shop_sensor")
    assert len(verdicts(shop, "products")) == 4


def test_a_run_that_begins_and_fails_meanwhile_does_not_make_it_count_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", DEAD)
    tick(shop)
    shop.run(*PRODUCTS)
    monkeypatch.setattr(reachability, "PATIENCE", timedelta(0))
    since = verdicts(shop, "products")[0][2].partition("since ")[2][:19]
    tick(shop)
    assert since in verdicts(shop, "products")[-1][2]


def test_one_table_that_cannot_be_probed_leaves_the_others_green(shop: Shop) -> None:
    shop.follow(shop.tick("shop_sensor"))
    shop.execute("drop table products")
    shop.tick("shop_sensor")
    assert [passed for passed, _, _ in verdicts(shop, "orders")] == [True]
    assert [passed for passed, _, _ in verdicts(shop, "products")] == [True, False]
    assert "products" in verdicts(shop, "products")[-1][2]


def test_a_lakehouse_that_does_not_answer_is_no_fault_of_the_source(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", "postgresql://keeper:s3cret@127.0.0.1:1/lake")
    tick(shop)
    assert verdicts(shop, "orders") == []


@pytest.mark.parametrize("mended_by", ["a tick", "a run", "a reconciliation"])
def test_the_asset_that_stood_for_a_mistake_goes_when_the_source_loads_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, mended_by: str
) -> None:
    from data_platform.components.execution import execute

    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    file = shop.package / "defs" / "shop" / "defs.yaml"
    cursor = "cursor: {column: changed_at}\n"
    good = file.read_text().replace(cursor, f"{cursor}      reconcile: daily\n")
    file.write_text(good.replace("key: [sku]", "ky: [sku]"))
    key = dg.AssetKey(["broken", "shop"])
    shop.definitions = platform_definitions(shop.package)
    assert not shop.run("broken/shop").success
    assert key in shop.instance.all_asset_keys()
    file.write_text(good)
    shop.definitions = platform_definitions(shop.package)
    if mended_by == "a tick":
        shop.tick("shop_sensor")
    else:
        names = ORDERS if mended_by == "a run" else ("reconciliation/shop/orders",)
        execute(shop.definitions, shop.instance, [dg.AssetKey(name.split("/")) for name in names])
    assert key not in shop.instance.all_asset_keys()
