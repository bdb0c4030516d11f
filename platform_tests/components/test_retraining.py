"""Models that are trained anew when a query says so: what the sensor asks for and when, what is refused, and which
version is in production afterwards."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from platform_tests.components.shop import ORDERS, Shop, failures, materialized, names_of
from platform_tests.components.test_sensors import under_way
from platform_tests.components.test_training import dp

from data_platform.components.keys import GATES
from data_platform.components.maintenance import delete_runs
from data_platform.errors import PlatformError

DATASET, MODEL, SENSOR = "datasets/orders", "models/lateness", "retrain_lateness_sensor"

QUERY = """
SELECT order_id, changed_at, (total % 100)::INT AS hour, 5 AS distance, false AS is_weekend, 'B6' AS carrier,
    total >= 100 AS late
FROM staged_shop.orders
"""

RETRAIN = """
-- the first one
select 'no version yet' as reason, count(*) as orders from staged_shop.orders
having count(*) >= 100 and not exists (from platform.models where model = 'lateness');

select 'new orders' as reason, count(*) as orders from staged_shop.orders
where order_id > (select max(order_id) from datasets.orders) having count(*) >= 100
"""


def add(shop: Shop, queries: str = RETRAIN, *, every: str = "7d", of_rows: Any = None, **attributes: Any) -> Path:
    """Write the folders of a dataset and of a model that is trained on it when `queries` say so."""
    split = {"by": "order", "shares": {"train": "60%", "test": "40%"}}
    of_dataset = {"query": "rows.sql", "key": ["order_id"], "time": "changed_at", "label": "late", "split": split}
    of_model = {
        "dataset": "orders",
        "function": "platform_tests.ml.delays.boosted",
        "features": ["hour", "distance", "is_weekend", "carrier"],
        "metrics": ["auc"],
        "gates": {"better_than_production": {"metric": "auc", "by": 0.002}},
        "promote": "automatically",
        "every": "0s",
        "retrain": {"query": "retrain.sql", "at_most_every": every},
    }
    for name, kind, given, sql, text in (
        ("orders", "Dataset", {**of_dataset, "follow": False, **(of_rows or {})}, "rows.sql", QUERY),
        ("lateness", "Training", {**of_model, **attributes}, "retrain.sql", queries),
    ):
        folder = shop.package / "defs" / name
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / sql).write_text(text)
        said = {"type": f"data_platform.components.{kind}", "attributes": given}
        (folder / "defs.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    vars(shop).pop("definitions", None)
    return shop.package / "defs" / "lateness"


def order(shop: Shop, first: int, last: int, *, late_after_noon: bool = True) -> None:
    """Orders of all hours, which are late after noon, or before it, and stage them."""
    rows = [(i, i * 7 % 24, datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i)) for i in range(first, last)]
    shop.order(
        *(
            (i, "Ada", "ada@example.org", hour + 100.0 * ((hour >= 12) is late_after_noon), 1, f"{at:%FT%TZ}")
            for i, hour, at in rows
        )
    )
    assert shop.run(*ORDERS).success


def gates(result: dg.ExecuteInProcessResult) -> tuple[bool, str]:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == GATES]
    return found.passed, str(found.description)


def stages() -> list[tuple[int, str]]:
    return [(one["version"], one["stage"]) for one in json.loads(dp("model", "list", "--json")[1])]


def test_a_model_is_trained_when_there_is_reason_and_only_a_better_one_takes_over(shop: Shop) -> None:
    add(shop)
    assert [one.name for one in shop.definitions.sensors or () if "orders" in one.name] == []
    order(shop, 10, 60)
    said = str(shop.tick(SENSOR))
    assert said.startswith("There is no reason to train it anew. ")
    assert "retrain.sql:6 waits for datasets.orders, of which nothing is there" in said
    # The first one: the dataset is built in the same run.
    order(shop, 60, 310)
    request = shop.tick(SENSOR)
    assert sorted(names_of(request.asset_selection)) == [DATASET, MODEL]
    assert request.tags["reason"] == "no version yet"
    assert shop.tick(SENSOR).run_key == request.run_key
    result = shop.follow(request)
    assert result.success, failures(result)
    assert materialized(result)[MODEL]["why"] == "no version yet"
    assert "training: trained (no version yet); passed all 1 gates" in dp("model", "show", "lateness")[1]
    assert shop.tick(SENSOR) == "There is no reason to train it anew."
    # What is late is another, so the model is wrong; but it was trained just now.
    order(shop, 310, 1210, late_after_noon=False)
    said = str(shop.tick(SENSOR))
    assert said.startswith("There is reason to train it anew: new orders (orders 900). It was trained last, or tried ")
    assert "next at " in said
    add(shop, every="0s")
    result = shop.follow(shop.tick(SENSOR))
    assert gates(result)[0], gates(result)
    assert stages() == [(1, "retired"), (2, "production")]
    # A reason that was none: the next one is no better.
    order(shop, 1210, 1400, late_after_noon=False)
    result = shop.follow(shop.tick(SENSOR))
    assert result.success
    passed, said = gates(result)
    assert (passed, "Version 3 did not pass 1 of 1 gates. better than production" in said) == (False, True)
    assert stages() == [(1, "retired"), (2, "production"), (3, "candidate")]
    add(shop, every="1h")
    assert shop.tick(SENSOR) == "There is no reason to train it anew."


def test_a_run_that_ended_between_dataset_and_model_is_not_doubled_and_counts_as_an_attempt(shop: Shop) -> None:
    add(shop, every="0s")
    order(shop, 10, 310)
    request = shop.tick(SENSOR)
    run = under_way(shop, request)
    assert shop.tick(SENSOR) == "lateness: a run is under way."
    assert shop.run(DATASET).success
    shop.instance.report_run_failed(run)
    again = shop.tick(SENSOR)
    assert sorted(names_of(again.asset_selection)) == [DATASET, MODEL]
    assert again.run_key != request.run_key
    add(shop, every="7d")
    assert "no version yet (orders 303). It was trained last, or tried to be" in str(shop.tick(SENSOR))
    # However old the run is: without it nobody would know of the attempt.
    assert delete_runs(shop.instance, datetime.now(UTC) + timedelta(days=1)) == 0
    assert "It was trained last, or tried to be" in str(shop.tick(SENSOR))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "select 1 as reason;\n\nselect 'x' as reason\nfrom staged_shop.baskets",
            "sql:4: there is no table staged_shop.ba",
        ),
        ("select 'x' as reason from datasets.order", r"sql:1: there is no table datasets.order. Did you mean orders\?"),
        ("select 'x' as reason\nfrom orders", "sql:2: orders is no table of the lakehouse. Write schema and table"),
        ("select 'x' as reason from read_csv('a.csv')", "reads tables alone"),
        (
            "select\n customer as reason from staged_shop.orders",
            "names customer, which is private or masked in staged_sh",
        ),
        ("select 1 as reason; drop table datasets.orders", r"sql:1: a query is needed, .* not DROP"),
        ("select reason from (", "sql: this SQL cannot be read: Parser Error"),
        ("-- later", "has no query"),
    ],
)
def test_a_query_with_a_mistake_is_refused_when_definitions_load(shop: Shop, sql: str, said: str) -> None:
    add(shop, sql)
    with pytest.raises(PlatformError, match=said):
        _ = shop.definitions


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"follow": True}, "`retrain` has one built and trains on it when there is a reason to: take one of them"),
        ({"dataset": "order"}, "has the dataset order built, which this platform does not have. It has: orders"),
        ({"retrain": {"query": "when.sql", "at_most_every": "7d"}}, "Files of SQL beside it: retrain.sql"),
    ],
)
def test_options_that_do_not_go_together_are_refused(shop: Shop, attributes: dict[str, Any], said: str) -> None:
    add(shop, **attributes)
    with pytest.raises(PlatformError, match=said):
        _ = shop.definitions


def test_a_dataset_that_would_be_built_by_itself_as_well_is_refused(shop: Shop) -> None:
    add(shop, of_rows={"follow": True})
    with pytest.raises(PlatformError, match=r"Write `follow: false` into the defs\.yaml of orders"):
        _ = shop.definitions
    add(shop, of_rows={"every": "1h"})
    with pytest.raises(PlatformError, match="`every` is how often its sensor has it built"):
        _ = shop.definitions


def test_a_query_that_fails_fails_the_tick_with_its_line(shop: Shop) -> None:
    order(shop, 10, 12)
    for sql, said in (
        (
            "select 'x' as reason where false;\nselect total\nfrom staged_shop.orders",
            "sql:2: the query gives no column `r",
        ),
        ("select *, 'x' as reason from staged_shop.orders", "names customer, which is private"),
        ("select 'x' as reason,\n totl from staged_shop.orders", "sql:2: .*totl.* staged_shop.orders has: .*total"),
        ("select error('no') as reason from staged_shop.orders", "sql:1: .*no"),
    ):
        add(shop, sql)
        with pytest.raises(dg.Failure, match=said):
            shop.tick(SENSOR)


def test_rows_without_a_text_are_no_reason_and_many_reasons_are_one_tag(shop: Shop) -> None:
    add(shop, "select case when false then 'x' end as reason; select ' ' as reason")
    assert shop.tick(SENSOR) == "There is no reason to train it anew."
    add(shop, "select 'number ' || n || repeat('.', 90) as reason from range(9) as r(n)")
    tag = shop.tick(SENSOR).tags["reason"]
    assert (tag.count("number"), len(tag), tag[-1]) == (4, 400, "…")
