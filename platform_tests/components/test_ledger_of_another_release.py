"""What sensors, runs and maintenance do where the ledger is of another release."""

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, Shop, failures

NEWER = "INSERT INTO lake.platform.schema_version VALUES (99, now())"
REASON = "newer release: its ledger has version 99"


@pytest.mark.parametrize("sensor", ["shop_sensor", "depot_sensor"])
def test_a_sensor_does_not_read_a_newer_ledger(shop: Shop, sensor: str) -> None:
    shop.run(*ORDERS)
    shop.change(NEWER)
    with pytest.raises(dg.Failure, match=REASON):
        shop.tick(sensor)


def test_no_step_is_run_on_a_newer_ledger(shop: Shop) -> None:
    shop.run(*ORDERS)
    shop.change(NEWER)
    before = shop.query("SELECT id FROM ducklake_current_snapshot('lake')")
    for asset in ("raw/shop/orders", "staged/shop/orders", "platform/lakehouse_maintenance", "platform/full_audit"):
        assert REASON in next(iter(failures(shop.run(asset)).values())), asset
    assert shop.query("SELECT id FROM ducklake_current_snapshot('lake')") == before
