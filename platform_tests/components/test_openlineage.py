"""What steps do as events of OpenLineage, at a receiver on this machine: one that takes them, breaks, or hangs."""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.plan.objects import StepRetryData, StepSuccessData
from dagster_shared.error import SerializableErrorInfo
from platform_tests.components.shop import ORDERS, Shop
from platform_tests.lineage_receiver import receiver

from data_platform.components import openlineage
from data_platform.components.execution import Outcome, execute
from data_platform.components.openlineage import reported
from data_platform.components.run_records import SENSOR
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.observability.openlineage import (
    NOT_INSTALLED,
    Dataset,
    Emitter,
    StepEvent,
    is_configured,
    lakehouse_namespace,
)


def run(shop: Shop, *names: str) -> dict[str, Outcome]:
    outcomes = execute(shop.definitions, shop.instance, [dg.AssetKey(name.split("/")) for name in names])
    return {outcome.name: outcome for outcome in outcomes}


def run_by_the_executor(shop: Shop, *names: str) -> None:
    """As runs of the UI and of sensors are executed: by the platform's own executor."""
    job = shop.definitions.resolve_job_def("load_shop")
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    keys = frozenset(dg.AssetKey(name.split("/")) for name in names)
    run = shop.instance.create_run_for_job(job, run_config=config, asset_selection=keys)
    for _ in execute_run_iterator(InMemoryJob(job), run, shop.instance):
        pass


def warnings(shop: Shop) -> list[str]:
    """What the log of the last run says of events."""
    last = shop.instance.get_runs(limit=1)[0].run_id
    return [one.user_message for one in shop.instance.all_logs(last) if one.user_message.startswith("OpenLineage")]


def require_valid(event: Mapping[str, Any]) -> None:
    """What the standard asks of an event of a run, of its datasets and of each facet."""
    assert event["eventType"] in ("START", "COMPLETE", "FAIL", "ABORT")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    uuid.UUID(event["run"]["runId"])
    assert event["producer"]
    assert event["schemaURL"].startswith("https://openlineage.io/spec/")
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    assert "parent" in event["run"]["facets"]
    datasets = [*event["inputs"], *event["outputs"]]
    owners = [event["run"], event["job"], *datasets]
    facets = [facet for owner in owners for kind in ("facets", "inputFacets", "outputFacets")
              for facet in owner.get(kind, {}).values()]  # fmt: skip
    for facet in facets:
        assert urlsplit(facet["_producer"]).scheme
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")
    for dataset in datasets:
        assert dataset["namespace"]
        assert dataset["name"]


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """The library writes what it finds in the environment into it once more, under other names."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_each_step_is_told_with_what_it_reads_and_writes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (url, events):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "shop")
        done = run(shop, *ORDERS)
        assert {one.state for one in done.values()} == {"done"}
    for event in events:
        require_valid(event)
        assert event["job"]["namespace"] == "shop"
    assert warnings(shop) == []
    steps = [(event["eventType"], event["job"]["name"]) for event in events]
    assert steps == [
        ("START", "raw__shop__orders"), ("COMPLETE", "raw__shop__orders"),
        ("START", "staged__shop__orders"), ("COMPLETE", "staged__shop__orders"),
    ]  # fmt: skip
    assert [event["run"]["runId"] for event in events[::2]] == [event["run"]["runId"] for event in events[1::2]]
    runs = shop.instance.get_runs()
    assert {event["run"]["facets"]["parent"]["run"]["runId"] for event in events} == {one.run_id for one in runs}
    lake = lakehouse_namespace(settings_from_environment())
    raw, staged = events[1], events[3]
    (source,), (landed,) = raw["inputs"], raw["outputs"]
    assert (source["namespace"], source["name"]) == ("source://shop", "orders")
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert (landed["namespace"], landed["name"]) == (lake, "raw_shop.orders")
    assert landed["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert "buyer" in [column["name"] for column in landed["facets"]["schema"]["fields"]]
    (rows,) = staged["outputs"]
    assert [one["name"] for one in staged["inputs"]] == ["raw_shop.orders"]
    made_of = rows["facets"]["columnLineage"]["fields"]["total"]["inputFields"]
    assert {(one["namespace"], one["name"], one["field"]) for one in made_of} == {
        (lake, "raw_shop.orders", "price"),
        (lake, "raw_shop.orders", "quantity"),
    }
    assert [column["name"] for column in rows["facets"]["schema"]["fields"]] == [
        "order_id", "customer", "total", "changed_at",
    ]  # fmt: skip
    assert "@" not in json.dumps(events)  # no row of anybody


def test_a_step_that_fails_says_why_at_each_attempt(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.execute("alter table orders rename to lost")
    with receiver() as (url, events):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        run_by_the_executor(shop, *ORDERS)
    for event in events:
        require_valid(event)
    assert {event["job"]["name"] for event in events} == {"raw__shop__orders"}
    assert [event["eventType"] for event in events] == ["START", "FAIL"] * (len(events) // 2)
    failed = events[-1]
    assert "orders" in failed["run"]["facets"]["errorMessage"]["message"]
    assert [one["name"] for one in failed["outputs"]] == ["raw_shop.orders"]


@pytest.mark.parametrize(("ends", "kind"), [("report_run_failed", "FAIL"), ("report_run_canceled", "ABORT")])
def test_a_step_whose_process_was_killed_is_ended_once_by_whoever_finds_the_run_dead(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, ends: str, kind: str
) -> None:
    shop.run("raw/shop/orders")
    shop.tick(SENSOR)
    job, graph = shop.definitions.resolve_job_def("load_shop"), shop.definitions.resolve_asset_graph()
    killed = shop.instance.create_run_for_job(job)
    busy = SerializableErrorInfo("The source is busy.", [], "PlatformError")
    steps = [
        dg.DagsterEvent(kind, job.name, step_key=step, event_specific_data=data)
        for kind, step, data in (
            ("STEP_START", "raw__shop__products", None),
            ("STEP_SUCCESS", "raw__shop__products", StepSuccessData(1.0)),  # type: ignore[no-untyped-call]
            ("STEP_START", "raw__shop__orders", None),
            ("STEP_UP_FOR_RETRY", "raw__shop__orders", StepRetryData(busy)),  # type: ignore[no-untyped-call]
            ("STEP_RESTARTED", "raw__shop__orders", None),
        )
    ]
    with receiver() as (url, events):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        for step in reported(iter(steps), killed, shop.instance, graph):
            shop.instance.report_dagster_event(step, killed.run_id)
        before = len(events)
        getattr(shop.instance, ends)(killed)
        shop.tick(SENSOR)
        shop.tick(SENSOR)
    (ended,) = events[before:]
    require_valid(ended)
    begun = [one for one in events[:before] if one["eventType"] == "START"][-1]
    assert (ended["eventType"], ended["job"], ended["run"]["runId"]) == (kind, begun["job"], begun["run"]["runId"])
    assert ended["run"]["facets"]["parent"]["run"]["runId"] == killed.run_id
    assert ("it was killed" in json.dumps(ended)) == (kind == "FAIL")
    assert len({one["run"]["runId"] for one in events}) == 3


@pytest.mark.parametrize("broken", ["breaks", "hangs", "is gone"])
def test_a_receiver_that_does_not_take_them_holds_up_no_run_and_fails_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(openlineage, "WAIT_SECONDS", 0.3)
    held = Event()
    with receiver(500 if broken == "breaks" else 201, held if broken == "hangs" else None) as (url, events):
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", url if broken != "is gone" else "http://127.0.0.1:9")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
        assert run(shop, "raw/shop/orders")["raw/shop/orders"].state == "done"
        assert shop.query("SELECT count(*) FROM raw_shop.orders") == [(3,)]
        (warning,) = warnings(shop)
        assert warning.startswith("OpenLineage: 2 of 2 events were not taken by the receiver, and are lost")
        assert (len(events) == 2) == (broken == "breaks")


def test_nothing_is_sent_or_imported_where_nothing_is_configured(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openlineage, "Emitter", None)  # to make one would fail
    assert run(shop, "raw/shop/orders")["raw/shop/orders"].state == "done"
    assert not is_configured({"OPENLINEAGE_URL": ""})
    assert not is_configured({"OPENLINEAGE_URL": "http://localhost", "OPENLINEAGE_DISABLED": "true"})
    assert is_configured({"OPENLINEAGE__TRANSPORT__TYPE": "console"})


EVENT = StepEvent(
    "START", datetime.fromisoformat("2020-01-01T00:00:00+00:00"), str(uuid.uuid4()), "job", str(uuid.uuid4()), "parent",
    outputs=[Dataset("n", "t")],
)  # fmt: skip


def refusing(error: Exception) -> Callable[[], Callable[[Any], None]]:
    def connect() -> Callable[[Any], None]:
        raise error

    return connect


def test_a_library_that_is_not_there_or_a_wrong_setting_is_one_warning() -> None:
    for error, said in (
        (ModuleNotFoundError("no", name="openlineage.client"), NOT_INSTALLED),
        (ValueError("unknown transport"), "not configured well: unknown transport"),
    ):
        emitter = Emitter(refusing(error))
        emitter.put(EVENT)
        assert said in emitter.close(5)
    assert Emitter(refusing(ValueError("no"))).close(5) == ""  # nothing was to be sent


@pytest.mark.parametrize(
    ("catalog", "namespace"),
    [
        ("reader:secret-of-mine@db.example.com/lake?connect_timeout=3", "db.example.com:5432/lake"),
        ("reader:a%40b@One:5433,two/lake", "one:5433,two:5432/lake"),
        ("reader@[::1]/lake", "[::1]:5432/lake"),
        ("/lake?host=/run/postgresql", "localhost:5432/lake"),
    ],
)
def test_the_place_of_the_catalog_is_told_without_who_reads_it(
    monkeypatch: pytest.MonkeyPatch, catalog: str, namespace: str
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CATALOG", f"postgresql://{catalog}")
    assert lakehouse_namespace(settings_from_environment()) == f"ducklake:postgresql://{namespace}"


def test_a_catalog_has_the_same_name_from_whatever_folder_it_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = replace(settings_from_environment(), catalog="catalog.sqlite")
    assert lakehouse_namespace(settings) == f"ducklake:file://{tmp_path}/catalog.sqlite"


def test_a_run_that_cannot_be_described_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(openlineage, "Steps", None)
    assert run(shop, "raw/shop/orders")["raw/shop/orders"].state == "done"
    assert [one for one in warnings(shop) if "the run could not be described: TypeError" in one]
