"""How runs without the UI look in the UI: under their job, at their code location, beside those of the sensors."""

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from platform_tests.components.models_shop import add_models
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop

from data_platform.components.execution import execute
from data_platform.components.platform import platform_definitions
from data_platform.components.workspace import code_location
from data_platform.lakehouse.settings import REPOSITORY

MODEL = "modelled/dim_pallet"
DEPOT = ("raw/depot/pallets", "staged/depot/pallets")


def workspace(folder: Path, package: str) -> Path:
    file = folder / "workspace.yaml"
    file.write_text(
        "load_from:\n  - python_module:\n      module_name: other.definitions\n      location_name: other\n"
        f"  - python_module:\n      module_name: {package}.definitions\n      location_name: my shop\n"
    )
    return file


@pytest.mark.parametrize(
    ("assets", "job"),
    [
        ([*ORDERS, *PRODUCTS], "load_shop"),
        ([PRODUCTS[1]], "load_shop"),
        (list(DEPOT), "load_depot"),
        ([MODEL], "build_models"),
        ([*ORDERS, *DEPOT], "__ASSET_JOB"),
        (["platform/run_history"], "__ASSET_JOB"),
    ],
)
def test_a_run_is_one_of_the_job_that_holds_its_assets(shop: Shop, assets: list[str], job: str) -> None:
    add_models(shop)
    location = code_location(shop.package, workspace(shop.folder, shop.name))
    if assets == [MODEL]:
        shop.run(*DEPOT)
    keys = [dg.AssetKey(name.split("/")) for name in assets]
    outcomes = execute(shop.definitions, shop.instance, keys, tags={"source": "shop"}, location=location)
    assert [outcome.state for outcome in outcomes] == ["done"] * len(keys)
    run = shop.instance.get_runs(limit=1)[0]
    assert (run.job_name, run.status) == (job, dg.DagsterRunStatus.SUCCESS)
    assert run.asset_selection == frozenset(keys)
    assert (run.tags["source"], run.tags["dagster/max_retries"]) == ("shop", "0")
    # What the UI's Overview, its list of jobs and their pages ask for.
    assert run.remote_job_origin is not None
    assert (run.remote_job_origin.location_name, run.remote_job_origin.job_name) == ("my shop", job)
    found = shop.instance.get_runs(dg.RunsFilter(job_name=job, tags={REPOSITORY_LABEL_TAG: "__repository__@my shop"}))
    assert [one.run_id for one in found] == [run.run_id]


def test_a_sensors_request_is_for_the_job_of_its_source(shop: Shop) -> None:
    add_models(shop)
    jobs = {sensor.name: [job.job_name for job in sensor.targets] for sensor in shop.definitions.sensors or ()}
    assert jobs["shop_sensor"] == ["load_shop"]
    assert jobs["depot_sensor"] == ["load_depot"]
    assert jobs["modelled_sensor"] == ["build_models"]
    assert shop.tick("shop_sensor").asset_selection


def test_a_platform_that_the_workspace_does_not_name_has_no_location(tmp_path: Path) -> None:
    assert code_location(tmp_path / "acme", workspace(tmp_path, "shop")) is None
    found = code_location(REPOSITORY / "platform" / "nyc_flights")
    assert found is not None
    assert found.location_name == "nyc_flights"


def test_the_readmes_schedule_starts_by_itself(shop: Shop) -> None:
    text = (REPOSITORY / "README.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "ScheduleDefinition" in block]
    names: dict[str, Any] = {"dg": dg, "platform_definitions": platform_definitions, "Path": Path}
    names["__file__"] = str(shop.package / "definitions.py")
    exec(f"def defs():\n{indent(block, '    ')}", names)  # noqa: S102 - it is the README's
    (schedule,) = [one for one in names["defs"]().get_repository_def().schedule_defs if one.job_name == "load_shop"]
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
