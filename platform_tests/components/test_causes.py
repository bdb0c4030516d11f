"""Unexpected exceptions in every step, as the verdict, `dp run` and `--json` tell them."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.models_shop import add_models
from platform_tests.components.shop import ORDERS, Shop, checks, failures

from data_platform.cli.run import as_record
from data_platform.components.execution import errors, execute
from data_platform.components.keys import raw_key, staged_key
from data_platform.components.platform import platform_definitions

CHECKED = """
import pandera.polars as pa


class Product(Contract):
    sku: str = Field()
    price: float = Field()

    @pa.check("price")
    def is_fair(cls, data):
        return 1 / 0  # in the contract
"""


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def run(shop: Shop, *names: str) -> dict[str, dict[str, Any]]:
    """What `dp run --json` prints, by asset."""
    keys = [dg.AssetKey(name.split("/")) for name in names]
    outcomes = execute(platform_definitions(shop.package), shop.instance, keys)
    records = json.loads(json.dumps([as_record(outcome) for outcome in outcomes]))
    return {record["asset"]: record for record in records}


def test_a_staging_function_that_divides_by_zero_is_told_in_the_verdict_and_in_json(shop: Shop) -> None:
    file = shop.package / "defs" / "shop" / "staging.py"
    change(file, "    total =", "    share = 1 / 0\n    total =")
    found = run(shop, *ORDERS)
    told = found[ORDERS[1]]
    assert (told["state"], told["check_passed"]) == ("failed", False)
    for text in (told["error"], told["verdict"]):
        assert "ZeroDivisionError: division by zero" in text
        assert f"{file}, line 6: share = 1 / 0" in text


def test_a_rule_of_a_contract_that_raises_is_told_with_its_line(shop: Shop) -> None:
    file = shop.package / "defs" / "shop" / "contracts.py"
    file.write_text(file.read_text() + CHECKED)
    told = run(shop, "raw/shop/products", "staged/shop/products")["staged/shop/products"]
    assert "its rule is fair of the column price failed" in told["error"].replace("_", " ")
    assert "ZeroDivisionError: division by zero" in told["error"]
    assert (
        f"{file}, line {file.read_text().splitlines().index('        return 1 / 0  # in the contract') + 1}"
        in (told["verdict"])
    )


PALLET = """

import pandera.polars as pa


class DimPallet(Contract):
    pallet: int = Field()

    @pa.dataframe_check
    def is_there(cls, data):
        return {}["no such thing"]
"""


class Broken:
    """A source of another package with a mistake in it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def probe(self, tables: Any, after: Any) -> Any:
        raise self.error

    def reading(self, tables: Any, after: Any) -> Any:
        raise self.error


def broken(shop: Shop, error: Exception) -> dg.Definitions:
    return platform_definitions(shop.package, sources={"shop": Broken(error)})


def test_a_source_of_another_package_that_raises_is_told_without_values_of_private_columns(shop: Shop) -> None:
    shop.definitions = broken(shop, KeyError("ada@example.org"))
    result = shop.run(*ORDERS)
    told = failures(result)["raw__shop__orders"]
    assert told.startswith("An unexpected error.\n  KeyError: (not shown: it may hold values of private columns)")
    assert f"{__file__}, line " in told
    assert "raise self.error" in told
    assert checks(result)[ORDERS[0]] == (False, told)
    assert "ada@example.org" not in "".join(str(event) for event in result.all_events)
    (check,) = result.get_asset_check_evaluations()
    assert "load_tables" in str(check.metadata["traceback"].value)


def test_a_sensors_tick_tells_it_as_well(shop: Shop) -> None:
    shop.definitions = broken(shop, ValueError("bob@example.org"))
    with pytest.raises(dg.Failure) as failed:
        shop.tick("shop_sensor")
    assert "ValueError: (not shown" in str(failed.value.description)
    assert "bob@example.org" not in str(failed.value.description)


@pytest.mark.parametrize(("error", "attempts"), [(ConnectionResetError("gone"), 4), (TypeError("a mistake"), 1)])
def test_what_may_be_gone_by_then_is_tried_again_and_a_mistake_is_not(
    shop: Shop, error: Exception, attempts: int
) -> None:
    shop.definitions = broken(shop, error)
    result = shop.run(ORDERS[0])
    starts = [event for event in result.all_events if event.event_type_value in ("STEP_START", "STEP_RESTARTED")]
    assert len(starts) == attempts
    assert len(result.get_asset_check_evaluations()) == 1


def test_what_is_skipped_says_which_step_failed_and_why(shop: Shop) -> None:
    outcomes = execute(
        broken(shop, TypeError("no such thing")),
        shop.instance,
        [raw_key("shop", "products"), staged_key("shop", "products")],
    )
    found = {outcome.name: outcome for outcome in outcomes}
    staged = found["staged/shop/products"]
    assert staged.state == "skipped"
    assert staged.verdict.startswith("Skipped: raw/shop/products failed (An unexpected error. TypeError: no such thing")
    assert list(errors(outcomes).values()) == [["raw/shop/products"]]


def test_a_users_own_asset_that_raises_is_told_by_its_cause(shop: Shop) -> None:
    @dg.asset(key=["reports", "weekly"])
    def weekly() -> None:
        raise RuntimeError("the printer is at postgresql://me:hunter22@printer/x")

    definitions = dg.Definitions.merge(platform_definitions(shop.package), dg.Definitions(assets=[weekly]))
    (outcome,) = execute(definitions, shop.instance, [dg.AssetKey(["reports", "weekly"])])
    assert outcome.state == "failed"
    assert outcome.error.startswith("RuntimeError: the printer is at postgresql://***@printer/x")
    assert Path(__file__).name in outcome.error
    assert "Error occurred while executing op" not in outcome.error


def test_a_run_that_fails_before_its_first_step_is_a_failure_with_its_reason(shop: Shop) -> None:
    @dg.resource
    def printer(_: Any) -> None:
        raise RuntimeError("no paper")

    @dg.asset(key=["reports", "weekly"], required_resource_keys={"printer"})
    def weekly() -> None: ...

    definitions = dg.Definitions.merge(
        platform_definitions(shop.package), dg.Definitions(assets=[weekly], resources={"printer": printer})
    )
    (outcome,) = execute(definitions, shop.instance, [dg.AssetKey(["reports", "weekly"])])
    assert outcome.state == "failed"
    assert "RuntimeError: no paper" in outcome.error


def test_a_rule_of_a_models_contract_that_raises_is_told_in_the_models_check(shop: Shop) -> None:
    add_models(shop)
    file = shop.package / "defs" / "modelled" / "contracts.py"
    file.write_text(file.read_text() + PALLET)
    shop.run("raw/depot/pallets", "staged/depot/pallets")
    result = shop.run("modelled/dim_pallet")
    passed, told = checks(result)["modelled/dim_pallet"]
    assert not passed
    assert "KeyError: 'no such thing'" in told
    assert f"{file}, line " in told
    assert "KeyError: 'no such thing'" in failures(result)["models"]
