"""The component `ExternalJob`: what jobs of other orchestrators make are assets, made by starting them, or reported."""

import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import Shop, failures, materialized, names_of
from platform_tests.external.orchestrator import Orchestrator, start
from platform_tests.ingestion.http.server import Answer, running_api

from data_platform.components.execution import executable_keys, in_runs, select
from data_platform.components.external import ExternalJobOptions

EVENTS, SUMS = "external/etl/events", "external/etl/sums"


def add_job(shop: Shop, **attributes: Any) -> None:
    """Write the folder of a job that makes two things."""
    import yaml

    folder = shop.package / "defs" / "etl"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    said = {"makes": {"events": {"description": "What happened."}, "sums": {}}, **attributes}
    (folder / "defs.yaml").write_text(
        yaml.safe_dump({"type": "data_platform.components.ExternalJob", "attributes": said})
    )


def tick(shop: Shop, cursor: str | None = None) -> Any:
    """Evaluate its sensor, and keep what it reports as the daemon does."""
    definitions = shop.definitions
    sensor = next(one for one in definitions.sensors or () if one.name == "external_etl_sensor")
    assert isinstance(sensor, dg.SensorDefinition)
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=shop.instance, cursor=cursor, repository_def=repository) as context:
        found = sensor.evaluate_tick(context)
    for event in found.asset_events:
        shop.instance.report_runless_asset_event(event)
    return found


def latest(shop: Shop, name: str) -> dg.AssetMaterialization | None:
    event = shop.instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
    return event.asset_materialization if event is not None else None


def test_a_job_that_is_started_makes_its_assets(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETL_TOKEN", "top-secret-token")
    with running_api(lambda _: Answer()) as api:
        orchestrator = Orchestrator(api)
        api.answer = orchestrator.answer
        add_job(shop, start=start(api.url, auth={"type": "bearer", "token": "{{ env.ETL_TOKEN }}"}))
        result = shop.run(EVENTS, SUMS)
        assert result.success
        (run,) = orchestrator.started
        assert materialized(result)[EVENTS]["run"] == materialized(result)[SUMS]["run"] == run
        assert api.asked[0].headers["Authorization"] == "Bearer top-secret-token"
        orchestrator.states = ["failed"]
        assert "ended as failed" in str(failures(shop.run(EVENTS, SUMS)))
    keys = executable_keys(shop.definitions)
    assert names_of(select(keys, ["etl"])) == [EVENTS, SUMS]
    assert EVENTS not in names_of(select(keys, []))
    assert [name for name, _ in in_runs(select(keys, ["external"]))] == ["external/etl"]


def test_a_command_that_is_started_makes_them_too(shop: Shop) -> None:
    add_job(shop, start={"type": "command", "command": ["sh", "-c", "test -n $DATA_PLATFORM_RUN"]})
    assert shop.run(EVENTS, SUMS).success


def test_a_marker_that_changes_reports_them_once_and_what_comes_then_is_run(shop: Shop) -> None:
    runs = shop.folder / "runs.sqlite"
    with sqlite3.connect(runs) as connection:
        connection.execute("create table runs (number integer)")
    add_job(
        shop, wait={"type": "query", "url": f"sqlite://{runs}", "query": "select max(number) from runs"}, then=["shop"]
    )
    assert [key for key in executable_keys(shop.definitions) if key.path[0] == "external"] == []
    waiting = tick(shop)
    assert waiting.skip_message
    assert latest(shop, EVENTS) is None
    with sqlite3.connect(runs) as connection:
        connection.execute("insert into runs values (7)")
    seen = tick(shop, waiting.cursor)
    reported = latest(shop, SUMS)
    assert reported is not None
    assert reported.metadata["run"].value == "7"
    (request,) = (asked := tick(shop, seen.cursor)).run_requests
    assert "raw/shop/orders" in names_of(request.asset_selection)
    assert EVENTS not in names_of(request.asset_selection)
    assert shop.follow(request).success
    assert tick(shop, asked.cursor).skip_message


def test_a_state_that_comes_back_is_another_end(shop: Shop) -> None:
    runs = shop.folder / "runs.sqlite"
    query = {
        "type": "query",
        "url": f"sqlite://{runs}",
        "query": "select state from run -- of the job",
        "equals": "done",
    }
    add_job(shop, wait=query)
    connection = sqlite3.connect(runs, isolation_level=None)
    connection.execute("create table run as select 'done' as state")
    cursor, reported = None, list[int]()
    for state in ("done", "done", "running", "done"):
        connection.execute("update run set state = ?", [state])
        found = tick(shop, cursor)
        cursor, reported = found.cursor, [*reported, len(found.asset_events)]
    connection.close()
    assert reported == [2, 0, 0, 2]


def test_a_file_is_looked_for_where_sources_of_files_lie(shop: Shop, tmp_path: Path) -> None:
    add_job(shop, wait={"type": "file", "folder": str(tmp_path / "out"), "path": "*/_SUCCESS"})
    (tmp_path / "out" / "2024").mkdir(parents=True)
    waiting = tick(shop)
    (tmp_path / "out" / "2024" / "_SUCCESS").touch()
    seen = tick(shop, waiting.cursor)
    assert latest(shop, EVENTS) is not None
    assert tick(shop, seen.cursor).skip_message == "The job has not ended since it was seen last."


def test_what_is_reported_from_outside_has_the_rest_run(shop: Shop) -> None:
    add_job(shop, then=["shop/orders"])
    for name in (EVENTS, SUMS):
        shop.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(name.split("/"))))
        (request,) = tick(shop).run_requests
        assert names_of(request.asset_selection) == ["raw/shop/orders", "staged/shop/orders"]


def test_tables_that_are_loaded_then_come_after_what_the_job_makes(shop: Shop) -> None:
    add_job(shop, then=["shop/orders"])
    graph = shop.definitions.resolve_asset_graph()

    def parents(name: str) -> list[str]:
        return sorted(names_of(list(graph.get(dg.AssetKey(name.split("/"))).parent_keys)))

    assert parents("raw/shop/orders") == [EVENTS, SUMS]
    assert parents("staged/shop/orders") == ["raw/shop/orders"]
    assert parents("raw/shop/products") == []
    assert shop.run("raw/shop/orders", "staged/shop/orders").success


def test_what_is_to_be_run_then_and_does_not_exist_is_said(shop: Shop) -> None:
    add_job(shop, then=["shop/nothing"])
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(EVENTS.split("/"))))
    with pytest.raises(dg.Failure, match=r"`then`: .*shop/nothing"):
        tick(shop)


@pytest.mark.parametrize(
    ("call", "path", "reason"),
    [
        ("start", "dags/{id}", r"`start` names \{id\}, and may name \{run\}; `\{id\}` is known after the start"),
        ("status", "runs/{runn}", r"`status` names \{runn\}, and may name \{run\}"),
        ("cancel", "runs/{id}", r"`cancel` names \{id\}"),
    ],
)
def test_placeholders_that_nothing_stands_for_are_refused(call: str, path: str, reason: str) -> None:
    said = start("http://127.0.0.1")
    said[call] = {**said[call], "path": path}
    with pytest.raises(ValueError, match=reason):
        ExternalJobOptions.model_validate({"makes": {"events": {}}, "start": said})


def test_a_job_is_started_or_waited_for() -> None:
    both = {
        "makes": {"events": {}},
        "start": {"type": "command", "command": ["true"]},
        "wait": {"type": "query", "url": "sqlite:///x", "query": "select 1"},
    }
    with pytest.raises(ValueError, match="`wait` is for jobs that others start"):
        ExternalJobOptions.model_validate(both)
