"""`dp logs`."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.cli.conftest import Dp

from data_platform.cli.instance import prepare_dagster_home
from data_platform.components.execution import execute
from data_platform.components.keys import CHECK
from data_platform.lakehouse.settings import settings_from_environment

KEY = dg.AssetKey(["staged", "shop", "orders"])


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    prepare_dagster_home(settings_from_environment())
    with dg.DagsterInstance.get() as instance:
        yield instance


def orders(instance: dg.DagsterInstance, *, good: bool) -> str:
    """A run of one table; its id."""

    @dg.asset(key=KEY, check_specs=[dg.AssetCheckSpec(CHECK, asset=KEY)])
    def staged(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        context.log.info("7 rows [red]read[/]")
        if not good:
            yield dg.AssetCheckResult(passed=False, check_name=CHECK, description="2 of 7 rows are bad")
            raise dg.Failure("2 of 7 rows are bad", allow_retries=False)
        yield dg.MaterializeResult(metadata={"rows inserted": 7000, "rows updated": 0})
        yield dg.AssetCheckResult(passed=True, check_name=CHECK, description="All is well")

    execute(dg.Definitions(assets=[staged]), instance, [KEY])
    return instance.get_runs(limit=1)[0].run_id


def test_a_run_is_told_by_its_steps_figures_verdicts_and_reasons(dp: Dp, instance: dg.DagsterInstance) -> None:
    run_id = orders(instance, good=True)
    shown = dp("logs", run_id[:8]).stdout
    assert f"Run {run_id} of __ASSET_JOB: success" in shown
    assert "staged/shop/orders  is made: 7,000 rows inserted" in shown
    assert "staged/shop/orders  is checked: contract passed: All is well" in shown
    assert "says: 7 rows [red]read[/]" in shown
    assert "STEP_OUTPUT" not in shown
    assert "LOGS_CAPTURED" in dp("logs", run_id, "--all").stdout


@pytest.mark.parametrize("name", ["shop/orders", "staged/shop/orders", "shop"])
def test_of_a_table_the_last_run_is_told_and_why_it_failed(dp: Dp, instance: dg.DagsterInstance, name: str) -> None:
    orders(instance, good=True)
    run_id = orders(instance, good=False)
    found = json.loads(dp("logs", name, "--json").stdout)
    assert (found["run"], found["status"]) == (run_id, "FAILURE")
    told = {event["event"]: event for event in found["events"] if event["failed"]}
    assert told["is checked"]["text"] == "contract failed: 2 of 7 rows are bad"
    assert told["failed"]["step"] is None or told["failed"]["text"]
    assert "2 of 7 rows are bad" in [event["text"] for event in found["events"] if event["event"] == "failed"]


def test_a_name_of_nothing_says_what_there_is(dp: Dp, instance: dg.DagsterInstance) -> None:
    orders(instance, good=True)
    done = dp("logs", "shop/order")
    assert done.exit_code == 1
    assert "Nothing is called shop/order. There are: shop." in done.stderr


def test_a_run_that_was_deleted_is_no_longer_told(dp: Dp, instance: dg.DagsterInstance) -> None:
    instance.delete_run(orders(instance, good=True))
    done = dp("logs", "shop/orders")
    assert done.exit_code == 1
    assert "No run of shop/orders is kept any more" in done.stderr
