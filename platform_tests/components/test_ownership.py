"""Several platforms on one lakehouse: each writes to its own tables alone, and says so where a name is taken."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from data_platform.cli.init import init_platform, init_project
from data_platform.components.execution import execute
from data_platform.components.platform import broken_sources, platform_definitions, source_spec
from data_platform.components.workspace import platform_names
from data_platform.errors import PlatformError
from data_platform.ingestion.retention import Retired
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


@dataclass(frozen=True)
class Two:
    """A project of the platforms `bolts` and, named after it, `nuts`."""

    folder: Path

    def package(self, name: str) -> Path:
        return self.folder / "platform" / name

    def source(self, platform: str, name: str) -> Path:
        """Give a platform a source of a name; its defs.yaml."""
        folder = self.package(platform) / "defs" / name
        (self.package(platform) / "defs" / f"{platform}_example").rename(folder)
        file = folder / "defs.yaml"
        file.write_text(file.read_text().replace(f"{platform}.defs.{platform}_example", f"{platform}.defs.{name}"))
        return file

    def model(self, project: str, name: str) -> Path:
        """Give a dbt project a model of a name."""
        file = self.folder / project / "models" / "marts" / f"{name}.sql"
        file.write_text("select 1 as number")
        return file

    def assets(self, platform: str) -> set[str]:
        graph = platform_definitions(self.package(platform)).resolve_asset_graph()
        return {key.to_user_string() for key in graph.get_all_asset_keys()}


@pytest.fixture
def two(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    (home / "extensions").mkdir(exist_ok=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "extensions").symlink_to(home / "extensions")
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    project.mkdir()
    init_project(project, tmp_path / "home" / "landing", "bolts")
    init_platform(project, tmp_path / "home" / "landing", "nuts")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project / "platform"))
    yield Two(project)
    for module in [name for name in sys.modules if name.split(".")[0] in ("bolts", "nuts")]:
        del sys.modules[module]


def test_platforms_as_they_are_made_share_no_asset(two: Two) -> None:
    assert broken_sources(two.package("bolts")) == broken_sources(two.package("nuts")) == {}
    assert not two.assets("bolts") & two.assets("nuts")


def test_a_second_source_of_a_name_is_refused_and_both_places_are_named(two: Two) -> None:
    first, second = two.source("bolts", "shop"), two.source("nuts", "shop")
    assert "raw/shop/orders" in two.assets("bolts")
    assert two.assets("nuts") >= {"broken/nuts/shop", "modelled/mart_nuts_orders"}
    assert "raw/shop/orders" not in two.assets("nuts")
    reason = broken_sources(two.package("nuts"))["shop"]
    assert str(first) in reason
    assert str(second) in reason
    assert "of the platform bolts" in reason
    with pytest.raises(PlatformError, match="There are two sources shop"):
        source_spec(two.package("nuts"), "shop")
    assert broken_sources(two.package("bolts")) == {}


def test_a_second_model_of_a_name_is_refused_and_both_places_are_named(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two.model("dbt_project", "dim_airline"), two.model("dbt_nuts", "DIM_airline")
    assert "modelled/dim_airline" in two.assets("bolts")
    assert "broken/nuts/modelled" in two.assets("nuts")
    reason = broken_sources(two.package("nuts"))["modelled"]
    assert str(first) in reason
    assert str(second) in reason
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    with pytest.raises(PlatformError, match="There are two models dim_airline"):
        platform_definitions(two.package("nuts"))


def test_two_dbt_projects_of_one_platform_have_no_model_of_one_name(two: Two) -> None:
    two.model("dbt_nuts", "mart_bolts_orders")
    again = two.package("bolts") / "defs" / "more"
    again.mkdir()
    (again / "defs.yaml").write_text(
        "type: data_platform.components.DbtModels\n"
        "attributes: {project: ../../../../dbt_nuts, contracts: bolts.defs.modelled.contracts}\n"
    )
    assert "There are two models mart_bolts_orders" in broken_sources(two.package("bolts"), "more")["more"]


def test_what_another_platform_has_but_cannot_be_read_hides_nothing(two: Two) -> None:
    (two.package("bolts") / "defs" / "bolts_example" / "defs.yaml").write_text("{: no yaml")
    assert broken_sources(two.package("nuts")) == {}


def run(two: Two, platform: str, *assets: str) -> dg.ExecuteInProcessResult:
    definitions = platform_definitions(two.package(platform))
    chosen = [dg.AssetKey(asset.split("/")) for asset in assets]
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=instance, asset_selection=chosen, raise_on_error=False)


def reasons(result: dg.ExecuteInProcessResult) -> str:
    return " ".join(str(event.step_failure_data.user_failure_data) for event in result.get_step_failure_events())


def test_a_platform_of_another_project_on_the_same_lakehouse_writes_nothing_to_what_is_anothers(two: Two) -> None:
    """Each in a workspace of its own, so that only the lakehouse knows of both."""
    two.source("bolts", "shop")
    assets = "raw/shop/orders", "staged/shop/orders", "modelled/mart_bolts_orders"
    landing = two.folder.parent / "home" / "landing"
    (two.folder / "dbt_project" / "models" / "sources" / "bolts_example.yml").write_text(
        "version: 2\nsources: [{name: bolts_example, schema: staged_shop, database: lake, tables: [{name: orders}]}]\n"
    )
    assert run(two, "bolts", *assets).success
    two.source("nuts", "shop")
    (two.folder / "workspace.yaml").write_text(
        "load_from:\n- python_module: {module_name: nuts.definitions, working_directory: platform}\n"
    )
    two.model("dbt_nuts", "mart_bolts_orders")
    with open_lakehouse(settings_from_environment()) as lake:
        before = lake.connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()
        assert ledger.owners(lake, "source") == {"shop": "bolts"}
        for asset in assets:
            failed = run(two, "nuts", asset)
            assert not failed.success
            assert "belongs to the platform bolts, so nuts writes nothing to it" in reasons(failed)
        assert lake.connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall() == before
    assert landing.exists()


def test_maintenance_leaves_the_loads_of_other_platforms_to_them(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, set[str]] = {}

    def retire(lake: object, keep: dict[tuple[str, str], timedelta], *, without: set[str]) -> Retired:
        asked[len(asked)] = without
        return Retired()

    for platform in ("bolts", "nuts"):
        assert run(two, platform, f"raw/{platform}_example/orders").success
    monkeypatch.setattr("data_platform.components.maintenance.retire_replaced_loads", retire)
    assert run(two, "bolts", "platform/lakehouse_maintenance").success
    assert run(two, "nuts", "platform/nuts/raw_retention").success
    assert asked == {0: {"nuts_example"}, 1: {"bolts_example"}}


def test_other_code_locations_of_a_workspace_are_no_platforms_and_stop_none(two: Two) -> None:
    file = two.folder / "workspace.yaml"
    file.write_text(file.read_text() + "  - python_file: other.py\n  - python_module: json\n")
    assert platform_names() == ["bolts", "nuts", "json"]
    assert broken_sources(two.package("nuts")) == {}
    file.write_text("load_from: {python_file: other.py}\n")
    assert broken_sources(two.package("nuts")) == {}
    file.write_text("load_from:\n- python_module: {attribute: defs}\n")
    with pytest.raises(PlatformError, match="each platform is an entry of `load_from`"):
        broken_sources(two.package("nuts"))


def test_each_platform_may_send_alerts_of_its_own(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS_URL", "http://127.0.0.1:1/hook")
    for name in ("bolts", "nuts"):
        folder = two.package(name) / "defs" / "alerts"
        folder.mkdir()
        (folder / "defs.yaml").write_text(
            'type: data_platform.components.Alerts\nattributes:\n  url: "{{ env.ALERTS_URL }}"\n'
        )
    for name in ("bolts", "nuts"):
        assert broken_sources(two.package(name)) == {}


@pytest.mark.parametrize("platform", ["bolts", "nuts"])
def test_what_stood_for_a_broken_folder_is_forgotten_by_its_own_platform_alone(two: Two, platform: str) -> None:
    """Both have models in a folder `modelled`; the source of each is mended, and runs."""
    kept, gone = {"bolts": ("broken/nuts", "broken"), "nuts": ("broken", "broken/nuts")}[platform]
    definitions = platform_definitions(two.package(platform))
    with dg.DagsterInstance.ephemeral() as instance:

        def known() -> set[str]:
            return {key.to_user_string() for key in instance.all_asset_keys() if key.path[0] == "broken"}

        for name in ("modelled", f"{platform}_example"):
            for place in (kept, gone):
                key = dg.AssetKey([*place.split("/"), name])
                instance.report_runless_asset_event(dg.AssetMaterialization(key))
        for sensor in ("modelled_sensor", f"{platform}_example_sensor"):
            with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
                definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        assert known() == {f"{kept}/modelled", f"{kept}/{platform}_example"}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(dg.AssetKey([*gone.split("/"), f"{platform}_example"]))
        )
        (outcome,) = execute(definitions, instance, [dg.AssetKey(["raw", f"{platform}_example", "orders"])])
        assert outcome.error == ""
        assert known() == {f"{kept}/modelled", f"{kept}/{platform}_example"}
