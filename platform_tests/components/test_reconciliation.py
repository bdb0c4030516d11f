"""The reconciliation of a table as Dagster shows it: an asset with its verdict, run by its own schedule and by
`dp reconcile`, and by no load."""

import json
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, Shop, checks, failures, materialized, names_of
from typer.testing import CliRunner

from data_platform.cli.app import app
from data_platform.components.execution import executable_keys, select
from data_platform.components.platform import platform_definitions
from data_platform.errors import PlatformError

RECONCILIATION = "reconciliation/shop/orders"


def configure(shop: Shop, text: str, to: str = "") -> None:
    """Add `text` to the options of the orders, and read the definitions again."""
    defs = shop.package / "defs" / "shop" / "defs.yaml"
    cursor = "      cursor: {column: changed_at}\n"
    defs.write_text(defs.read_text().replace(cursor, f"{cursor}      {text}\n"))
    if "definitions" in shop.__dict__:
        del shop.definitions


@pytest.fixture
def loaded(shop: Shop) -> Shop:
    return with_a_deleted_order(shop)


def with_a_deleted_order(shop: Shop) -> Shop:
    """A shop whose orders are held against their source every night, loaded, with one deleted since."""
    configure(shop, "reconcile: daily")
    shop.order((9, "Zoe", "zoe@example.org", 1.0, 1, "2030-01-01T00:00:00Z"))
    result = shop.run(*ORDERS)
    assert result.success, failures(result)
    shop.execute("delete from orders where order_id = 1")
    return shop


def test_what_differs_lands_and_is_shown_and_the_sensor_has_it_staged(loaded: Shop) -> None:
    result = loaded.run(RECONCILIATION)
    assert result.success, failures(result)
    passed, verdict = checks(result)[RECONCILIATION]
    assert passed
    assert verdict == "1 of 4 keys differ: 1 deleted in the source (deleted: order_id = 1). They landed as load 2."
    shown = materialized(result)[RECONCILIATION]
    assert (shown["deleted in the source"], shown["rows landed"], shown["load"]) == (1, 1, 2)
    assert [dict(record.data) for record in shown["examples"].records] == [
        {"difference": "deleted", "key": "order_id = 1"}
    ]
    observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    assert [("/".join(one.asset_key.path), one.metadata["rows compared"].value) for one in observed] == [
        ("raw/shop/orders", 4)
    ]
    request = loaded.tick("shop_sensor")
    assert "staged/shop/orders" in names_of(request.asset_selection)
    assert loaded.follow(request).success
    assert loaded.query("SELECT order_id FROM staged_shop.orders ORDER BY 1") == [(2,), (3,), (9,)]
    again = loaded.run(RECONCILIATION)
    assert checks(again)[RECONCILIATION] == (True, "All 3 keys are as in the source.")


def test_loads_do_not_reconcile(loaded: Shop) -> None:
    keys = executable_keys(loaded.definitions)
    assert names_of(select(keys, ["shop/orders"])) == ["raw/shop/orders", "staged/shop/orders"]
    assert RECONCILIATION not in names_of(select(keys, []) + select(keys, ["shop"]))
    assert names_of(select(keys, ["reconciliation/shop"])) == [RECONCILIATION]
    job = loaded.definitions.get_job_def("load_shop")
    assert dg.AssetKey(RECONCILIATION.split("/")) not in job.asset_layer.executable_asset_keys


def test_each_time_has_a_schedule_that_asks_for_its_tables(loaded: Shop) -> None:
    (schedule,) = [one for one in loaded.definitions.schedules or () if one.name == "reconcile_shop"]
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.default_status) == ("0 1 * * *", dg.DefaultScheduleStatus.RUNNING)
    with dg.build_schedule_context(instance=loaded.instance) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert names_of(request.asset_selection) == [RECONCILIATION]


def test_differences_that_are_not_applied_are_a_warning(loaded: Shop) -> None:
    defs = loaded.package / "defs" / "shop" / "defs.yaml"
    defs.write_text(defs.read_text().replace("reconcile: daily", "reconcile: {apply: false}"))
    del loaded.definitions  # read again
    result = loaded.run(RECONCILIATION)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "Nothing was changed (`apply: false`)" in (check.description or "")
    assert loaded.query("SELECT max(_load_id) FROM raw_shop.orders") == [(1,)]


def test_private_keys_are_not_shown(shop: Shop) -> None:
    contracts = shop.package / "defs" / "shop" / "contracts.py"
    contracts.write_text(contracts.read_text().replace("Field(unique=True, ", "Field(unique=True, private=True, "))
    result = with_a_deleted_order(shop).run(RECONCILIATION)
    assert "1 deleted in the source. They landed" in checks(result)[RECONCILIATION][1]
    assert "examples" not in materialized(result)[RECONCILIATION]


def test_a_key_of_which_a_private_column_is_made_is_not_shown(shop: Shop) -> None:
    """The private `number` of the contract is made of `order_id`, the key."""
    contracts, staging = (shop.package / "defs" / "shop" / name for name in ("contracts.py", "staging.py"))
    contracts.write_text(
        contracts.read_text().replace("    customer:", "    number: int = Field(private=True)\n    customer:", 1)
    )
    renamed = 'pl.col("buyer").alias("customer"), pl.col("order_id").alias("number")'
    staging.write_text(staging.read_text().replace('pl.col("buyer").alias("customer")', renamed))
    result = with_a_deleted_order(shop).run(RECONCILIATION)
    assert "1 deleted in the source. They landed" in checks(result)[RECONCILIATION][1]
    assert "examples" not in materialized(result)[RECONCILIATION]
    observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    assert [set(one.metadata) & {"examples"} for one in observed] == [set()]


def test_schedules_of_several_times_are_told_apart_from_those_of_other_sources(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (
        "    {name}: {{table: orders, key: [order_id], cursor: {{column: changed_at}}, reconcile: {every}, contract: "
        f"{shop.name}.defs.shop.contracts.Order, stage: {shop.name}.defs.shop.staging.orders}}}}\n"
    )
    configure(shop, "reconcile: daily")
    defs = shop.package / "defs" / "shop" / "defs.yaml"
    defs.write_text(defs.read_text() + table.format(name="old", every="weekly"))
    for source in ("shop_orders", "shop__orders"):
        (shop.package / "defs" / source).mkdir()
        (shop.package / "defs" / source / "defs.yaml").write_text(
            "type: data_platform.components.SqlSource\nattributes:\n  url: '{{ env.SHOP_URL }}'\n  tables:\n"
            + table.format(name="all", every="daily")
        )
    with pytest.raises(PlatformError, match="makes the schedule reconcile_shop__orders, and so does one of"):
        platform_definitions(shop.package)
    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    names = [one.name for one in platform_definitions(shop.package).schedules or ()]
    assert len(set(names)) == len(names)
    assert sorted(name for name in names if name.startswith("reconcile_")) == [
        "reconcile_shop__old",
        "reconcile_shop__orders",
        "reconcile_shop_orders",
    ]


def test_a_source_that_cannot_be_compared_fails_with_its_reason(loaded: Shop) -> None:
    loaded.execute("alter table orders rename to gone")
    result = loaded.run(RECONCILIATION)
    assert not result.success
    assert "There is no table orders" in next(iter(failures(result).values()))
    assert not checks(result)[RECONCILIATION][0]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("reconcile: 5m", "'5m' is no interval here"),
        ("reconcile: {every: daily, compare: all}", "compare"),
        ("reconcile: '61 1 * * *'", "'61 1 * * *', which is no cron expression"),
    ],
)
def test_mistakes_are_said_with_their_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, option: str, said: str
) -> None:
    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    configure(shop, option)
    (asset,) = [
        spec
        for one in shop.definitions.assets or ()
        if isinstance(one, dg.AssetsDefinition)
        for spec in one.specs
        if spec.key == dg.AssetKey(["broken", "shop"])
    ]
    assert said in (asset.description or "")
    assert "defs.yaml" in (asset.description or "")


@pytest.fixture
def reconciled(loaded: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """That shop as the one platform that the commands know."""
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: loaded.package)
    monkeypatch.setattr("data_platform.components.workspace.platform_names", lambda: [loaded.name])
    return loaded


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["reconcile", *arguments])


def test_the_command_stages_what_it_found_and_says_its_verdict(reconciled: Shop) -> None:
    result = command("shop/orders")
    assert result.exit_code == 0, result.output
    assert "1 deleted in the source" in result.output
    assert reconciled.query("SELECT order_id FROM staged_shop.orders ORDER BY 1") == [(2,), (3,), (9,)]
    found = command("shop", "--json")
    (record,) = json.loads(found.stdout)
    assert (record["asset"], record["verdict"]) == (RECONCILIATION, "All 3 keys are as in the source.")


def test_the_command_names_the_tables_that_there_are(reconciled: Shop) -> None:
    result = command("shop/products")
    assert result.exit_code == 1
    assert "shop/products has no `reconcile` in its defs.yaml. There is: shop/orders." in " ".join(
        result.output.split()
    )
