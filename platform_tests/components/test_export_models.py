"""Exports as `dp` shows them: of a model, from the source to the file by `dp run`, and what `dp status` says of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from platform_tests.components.models_shop import add_models
from platform_tests.components.shop import Shop
from platform_tests.components.test_export import add_export
from platform_tests.ingestion.http.server import Answer, running_api
from typer.testing import CliRunner

from data_platform.cli.app import app


def dp(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def status() -> dict[str, Any]:
    (found,) = json.loads(dp("status", "--json")[1])["exports"]
    return dict(found)


@pytest.fixture
def platform(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop, which `dp` finds as its platform, with an export of its orders."""
    add_export(shop, f"{{type: files, folder: {shop.folder}/out, format: csv}}", mode="replace")
    monkeypatch.setenv("DAGSTER_HOME", str(shop.folder / "dagster"))
    monkeypatch.setattr("data_platform.components.workspace.platform_package", lambda name=None: shop.package)
    monkeypatch.setattr("data_platform.components.workspace.platform_names", lambda: [shop.name])
    return shop


def exported(folder: Path) -> str:
    sales = folder / "out" / "sales"
    file: str = json.loads((sales / "latest.json").read_text())["file"]
    return (sales / file).read_text()


def test_a_model_is_exported_after_it_was_built_and_the_status_says_how_far(platform: Shop) -> None:
    add_models(platform)
    file = platform.package / "defs" / "crm" / "defs.yaml"
    file.write_text(file.read_text().replace("orders: {from: staged/shop/orders", "sales: {from: modelled/mart_sales"))
    code, said = dp("run", "shop", "depot", "modelled", "crm")
    assert code == 0, said
    assert exported(platform.folder).splitlines()[1] == '"3","12.0"'
    first = status()
    assert (first["export"], first["table"], first["source"]) == ("crm", "sales", "modelled/mart_sales")
    assert (first["state"], first["behind"], first["reason"]) == ("agrees", 0, "")
    platform.order((4, "Dan", "dan@example.org", 5.0, 1, "2021-01-01T00:00:00Z"))
    assert dp("run", "shop", "modelled")[0] == 0
    assert (status()["version"], status()["behind"]) == (first["version"], 1)
    shown = " ".join(dp("status")[1].split())
    assert f"export/crm/sales modelled/mart_sales {first['version']}" in shown
    assert dp("run", "crm")[0] == 0
    assert exported(platform.folder).splitlines()[1] == '"4","17.0"'
    assert (status()["version"] > first["version"], status()["behind"]) == (True, 0)


def test_an_export_that_failed_keeps_the_version_that_it_had_and_says_why(platform: Shop) -> None:
    assert dp("run", "shop/orders", "crm")[0] == 0
    version = status()["version"]
    platform.order((4, "Dan", "dan@example.org", 5.0, 1, "2021-01-01T00:00:00Z"))
    (platform.folder / "out" / "orders" / ".owner.json").write_text("{}")
    assert dp("run", "shop/orders", "crm")[0] == 1
    found = status()
    assert (found["state"], found["version"], found["behind"]) == ("failed", version, 1)
    assert "files that this export did not make" in found["reason"]
    assert "export/crm/orders failed" in " ".join(dp("status")[1].split())


def test_an_export_that_is_removed_with_its_data_is_no_longer_in_the_status(
    platform: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.components.workspace.platform_of", lambda name, chosen=None: platform.package)
    with running_api(lambda _: Answer({})) as api:
        add_export(platform, f"{{type: http, url: '{api.url}', deletes: mark}}")
        assert dp("run", "shop/orders", "crm")[0] == 0
    assert platform.query("SELECT name FROM platform.pins") == [("export/crm/orders",)]
    kept = dp("remove", "crm", "--yes")
    assert "how far export/crm/orders came" in kept[1], kept
    assert status()["table"] == "orders"
    assert dp("remove", "crm", "--data", "--yes")[0] == 0
    assert json.loads(dp("status", "--json")[1])["exports"] == []
    assert platform.query("SELECT name FROM platform.pins") == []
