"""The models as assets: built unseen, audited, published together or not at all, and asked for when they are behind."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.models_shop import FCT, MART, PALLET, SOURCE_ASSETS, add_models
from platform_tests.components.shop import Shop, checks, failures, materialized, names_of

from data_platform.cli.status import Status, read_status
from data_platform.components import workspace
from data_platform.components.execution import execute
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

MODELS = [FCT, MART, PALLET]


@pytest.fixture
def models(shop: Shop) -> Shop:
    """The shop with models, its sources loaded, nothing modelled yet."""
    add_models(shop)
    assert shop.run(*SOURCE_ASSETS).success
    return shop


def order(shop: Shop, number: int, price: float, day: int) -> None:
    """An order comes in, or changes, and is staged."""
    shop.order((number, "Dan", "dan@example.org", price, 1, f"2020-02-{day:02}T00:00:00Z"))
    assert shop.run("raw/shop/orders", "staged/shop/orders").success


def published(shop: Shop) -> list[tuple[Any, ...]]:
    return shop.query("SELECT * FROM modelled.mart_sales")


def audited(result: dg.ExecuteInProcessResult) -> Mapping[str, object]:
    return {
        "/".join(check.asset_key.path): check.metadata["rows audited"].value
        for check in result.get_asset_check_evaluations()
    }


def test_the_sensor_asks_for_what_is_behind_and_all_of_it_is_published_at_one_snapshot(models: Shop) -> None:
    request = models.tick("modelled_sensor")
    assert sorted(names_of(request.asset_selection)) == sorted(MODELS)
    result = models.follow(request)
    assert result.success, failures(result)
    assert published(models) == [(3, 12.0)]
    assert models.query("SELECT count(*), count(DISTINCT snapshot_id) FROM platform.publications") == [(3, 1)]
    shown = materialized(result)[MART]
    assert (shown["dagster/row_count"], shown["dagster/table_name"]) == (1, "modelled.mart_sales")
    assert checks(result)[FCT] == (True, checks(result)[FCT][1])
    assert "1 dbt tests passed. 3 rows satisfy" in checks(result)[FCT][1]
    assert models.tick("modelled_sensor") == "Every model is built from the latest rows."

    # Lineage decides: a pallet has to do with one model only.
    models.deliver("pallets-2.csv", "8,mug")
    models.run("raw/depot/pallets", "staged/depot/pallets")
    assert names_of(models.tick("modelled_sensor").asset_selection) == [PALLET]

    # The cost of the audit follows the increment; uniqueness is held over the whole table.
    order(models, 4, 5.0, day=1)
    result = models.run(FCT, MART)
    assert audited(result) == {FCT: 1, MART: 1}
    assert published(models) == [(4, 17.0)]
    models.change("INSERT INTO modelled.fct_order SELECT * FROM modelled.fct_order WHERE order_id = 1")
    order(models, 5, 5.0, day=2)
    result = models.run(FCT, MART)
    assert not result.success
    assert "order_id not unique" in failures(result)["models"]
    assert published(models) == [(4, 17.0)]

    # Building anew repairs it, and then every row is audited.
    result = models.run(FCT, MART, config={"models": {"full_refresh": True}})
    assert result.success, failures(result)
    assert audited(result) == {FCT: 5, MART: 1}
    assert published(models) == [(5, 22.0)]


@pytest.mark.parametrize(("price", "reason"), [(60.0, "total at most 50"), (200.0, "dbt test no_order_is_above_100")])
def test_a_model_that_breaks_its_contract_or_test_keeps_every_model_as_it_was_until_it_is_repaired(
    models: Shop, price: float, reason: str
) -> None:
    assert models.run(*MODELS).success
    order(models, 4, price, day=1)
    models.deliver("pallets-2.csv", "8,mug")
    models.run("raw/depot/pallets", "staged/depot/pallets")
    result = models.follow(models.tick("modelled_sensor"))
    assert not result.success
    assert materialized(result) == {}
    told = failures(result)["models"]
    assert told.startswith("Nothing was published, every published model stays as it was. What broke:\nfct_order: ")
    assert reason in told
    assert checks(result)[FCT][0] is False
    assert checks(result)[PALLET][0] is True
    assert published(models) == [(3, 12.0)]
    assert models.query("SELECT count(*) FROM modelled.dim_pallet") == [(1,)]
    assert "for the same changes" in models.tick("modelled_sensor")

    # What is built by hand meanwhile is built on what is published.
    assert models.run(MART).success
    assert published(models) == [(3, 12.0)]

    # The repaired row replaces the bad one, which is not held against it any more.
    order(models, 4, 10.0, day=2)
    request = models.tick("modelled_sensor")
    assert {FCT, MART} <= set(names_of(request.asset_selection))
    result = models.follow(request)
    assert result.success, failures(result)
    assert published(models) == [(4, 22.0)]


def test_a_refused_staging_step_makes_no_model_stale(models: Shop) -> None:
    models.follow(models.tick("modelled_sensor"))
    models.deliver("pallets-2.csv", "eight,mug", "nine,mug")
    assert "pallets" in str(failures(models.run("raw/depot/pallets", "staged/depot/pallets")))
    assert models.tick("modelled_sensor") == "Every model is built from the latest rows."


def test_a_model_built_without_what_it_reads_stays_behind_and_is_asked_for_together_with_it(models: Shop) -> None:
    assert models.run(*MODELS).success
    order(models, 4, 5.0, day=1)
    assert models.run(MART).success
    assert published(models) == [(3, 12.0)]
    assert sorted(names_of(models.tick("modelled_sensor").asset_selection)) == [FCT, MART]


def test_models_wait_for_tables_that_are_not_there_yet_and_hold_up_no_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_models(shop)
    assert shop.tick("modelled_sensor") == (
        "Every model is built from the latest rows, but for dim_pallet, fct_order, mart_sales, left out until there is "
        "depot/pallets, shop/orders."
    )
    result = shop.run(*MODELS)
    assert "need tables that do not exist yet: depot/pallets, shop/orders" in failures(result)["models"]
    shop.run("raw/depot/pallets", "staged/depot/pallets")
    assert names_of(shop.tick("modelled_sensor").asset_selection) == [PALLET]

    # Those of which all is there do not wait with the others, of whose checks nothing is said.
    keys = [dg.AssetKey(name.split("/")) for name in MODELS]
    outcomes = {one.name: one for one in execute(shop.definitions, shop.instance, keys)}
    assert {name: one.state for name, one in outcomes.items()} == {FCT: "skipped", MART: "skipped", PALLET: "done"}
    assert outcomes[MART].verdict == "Left out: it waits for shop/orders, of which there is nothing yet."
    assert outcomes[MART].check_passed is None
    assert shop.query("SELECT DISTINCT table_name FROM platform.audits WHERE layer = 'modelled'") == [("dim_pallet",)]

    monkeypatch.setattr(workspace, "platform_names", lambda: [shop.name])
    monkeypatch.setattr(workspace, "platform_package", lambda name: shop.package)
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        status = read_status(lake, Status("", "", 0, 0))
    waits = {one.model: one.waits_for for one in status.models}
    assert waits == {"dim_pallet": [], "fct_order": ["shop/orders"], "mart_sales": ["shop/orders"]}


def test_models_follow_scores_as_they_do_staged_tables(shop: Shop) -> None:
    project = add_models(shop) / "models"
    sources = "  - {name: scores, database: lake, schema: scores, tables: [{name: sold}]}\n"
    (project / "sources.yml").write_text((project / "sources.yml").read_text() + sources)
    (project / "fct_score.sql").write_text("select * from {{ source('scores', 'sold') }}")
    assert "fct_score" in shop.tick("modelled_sensor")
    for moves in range(2):
        with open_lakehouse(settings_from_environment()) as lake:
            lake.connection.execute("CREATE SCHEMA IF NOT EXISTS scores")
            lake.connection.execute("CREATE OR REPLACE TABLE scores.sold AS SELECT 1 AS number")
            ledger.ensure_ledger(lake)
            head = ledger.head(lake, "scores", "model", "sold")
            ledger.advance(lake.connection, head, {"version": str(moves)}, datetime.now(UTC))
        request = shop.tick("modelled_sensor")
        assert names_of(request.asset_selection) == ["modelled/fct_score"]
        result = shop.follow(request)
        assert result.success, failures(result)


def test_a_lakehouse_that_does_not_answer_fails_run_and_tick_without_the_password(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_models(shop)
    monkeypatch.setenv("LAKEHOUSE_CATALOG", "postgresql://keeper:s3cret@127.0.0.1:1/lake")
    told = failures(shop.run(*MODELS))["models"]
    with pytest.raises(dg.Failure) as failed:
        shop.tick("modelled_sensor")
    for text in (told, str(failed.value.description)):
        assert "127.0.0.1" in text
        assert "s3cret" not in text
