"""The component `Scores`: what its asset comes after, what it shows, and what its check says."""

from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, Shop, checks, failures, materialized, names_of
from platform_tests.components.test_training import add_dataset, add_model

from data_platform.components.platform import source_spec
from data_platform.errors import PlatformError

DEFS = """
type: data_platform.components.Scores
attributes:
  model: delay
  {rows}
  key: [order_id]
  contract: {name}.defs.late.contracts.Late
  schedule: {schedule}
  follow: true
  every: 0s
"""

QUERY = """
select order_id, 23 as hour, total as distance, false as is_weekend, 'B6' as carrier from staged_shop.orders;
"""

CONTRACT = '''
from data_platform.contracts import Contract, Field


class Late(Contract):
    """How likely an order is late."""

    order_id: int = Field(unique=True, description="number of the order")
    score: float = Field(ge=0, le=1, description="probability that it is late")

    class Config(Contract.Config):
        metadata = {"owner": "team:shop"}
'''


def add_scores(shop: Shop, rows: str = "query: rows.sql", query: str = QUERY, schedule: str = "0 6 * * *") -> None:
    folder = shop.package / "defs" / "late"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "rows.sql").write_text(query)
    (folder / "contracts.py").write_text(CONTRACT)
    (folder / "defs.yaml").write_text(DEFS.format(rows=rows, name=shop.name, schedule=repr(schedule)))
    vars(shop).pop("definitions", None)


def test_rows_are_scored_by_the_model_in_production_and_the_check_says_it(shop: Shop) -> None:
    add_model(shop)
    add_scores(shop)
    add_dataset()
    graph = shop.definitions.resolve_asset_graph()
    assert sorted(names_of(list(graph.get(dg.AssetKey(["scores", "late"])).parent_keys))) == [
        "models/delay",
        "staged/shop/orders",
    ]
    (schedule,) = [one for one in shop.definitions.schedules or () if one.name == "score_late_schedule"]
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.cron_schedule == "0 6 * * *"
    assert shop.tick("score_late_sensor") == "There are no rows yet of staged/shop/orders."
    without_model = shop.run(*ORDERS, "scores/late")
    assert "There is no model delay. None was trained yet" in failures(without_model)["scores__late"]
    assert not checks(without_model)["scores/late"][0]
    assert shop.tick("score_late_sensor") == "No version of the model delay is in production."
    assert shop.run("models/delay").success
    result = shop.follow(shop.tick("score_late_sensor"))
    assert result.success, failures(result)
    assert checks(result)["scores/late"] == (True, "All 3 new scores keep the contract.")
    shown = materialized(result)["scores/late"]
    assert (shown["rows scored"], shown["dagster/row_count"], shown["model version"]) == (3, 3, 1)
    assert 0 <= shown["least score"] <= shown["mean score"] <= shown["greatest score"] <= 1
    assert checks(shop.run("scores/late"))["scores/late"] == (True, "No row was without a score.")
    assert shop.tick("score_late_sensor") == "All rows are scored by version 1 of the model delay."
    shop.order((4, "Eve", "eve@example.org", 1.0, 1, "2020-01-05T00:00:00Z"))
    assert shop.run(*ORDERS).success
    assert materialized(shop.follow(shop.tick("score_late_sensor")))["scores/late"]["rows scored"] == 1
    # Another version in production is new to all rows.
    add_dataset(seed=2)
    assert materialized(shop.run("models/delay"))["models/delay"]["in production"].startswith("this version, in the")
    assert names_of(shop.tick("score_late_sensor").asset_selection) == ["scores/late"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": "table: staged_shop.orders"}, r"`table: staged_shop\.orders` is none: name it as raw/SOURCE/TABLE"),
        ({"rows": "query: row.sql"}, r"The query .*row\.sql cannot be read: .*Files of SQL beside it: rows\.sql"),
        (
            {"query": "select now() as order_id from staged_shop.orders"},
            "calls .*, which gives something else each time",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_file(shop: Shop, given: dict[str, Any], said: str) -> None:
    add_scores(shop, **given)
    with pytest.raises(PlatformError, match=said):
        _ = shop.definitions


def test_scores_are_no_source(shop: Shop) -> None:
    add_scores(shop)
    with pytest.raises(PlatformError, match="describes no source, but a Scores"):
        source_spec(shop.package, "late")
