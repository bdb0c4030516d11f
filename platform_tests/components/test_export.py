"""The component `Export`: its assets and their lineage, what its runs say, and what its sensor asks for."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from platform_tests.components.shop import ORDERS, Shop, checks, materialized, names_of
from platform_tests.exports.conftest import Place, postgresql_place
from platform_tests.exports.fakesnow import fakesnow, snowflake
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.http.server import Answer, running_api
from platform_tests.servers import free_port
from pyiceberg.catalog import load_catalog

from data_platform.cli.doctor import _platform_findings
from data_platform.components.execution import executable_keys, in_runs, select
from data_platform.components.export import table_export
from data_platform.errors import PlatformError
from data_platform.exports.options import ExportOptions, ExportTable

__all__ = ["fakesnow", "postgresql_place", "server", "snowflake", "store"]

EXPORT = "export/crm/orders"

DEFS = """
type: data_platform.components.Export
attributes:
  to: {to}
  tables:
    orders: {{from: staged/shop/orders, mode: {mode}{more}}}
"""


def add_export(shop: Shop, to: str, mode: str = "merge", more: str = "") -> None:
    """Write the folder of an export."""
    folder = shop.package / "defs" / "crm"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(DEFS.format(to=to, mode=mode, more=more))


def to_postgresql(shop: Shop, place: Place, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    monkeypatch.setenv("CRM_URL", place.url)
    add_export(shop, '{type: postgresql, url: "{{ env.CRM_URL }}", schema: platform}', more=more)


def test_it_follows_the_staged_table_and_says_what_it_wrote(
    shop: Shop, postgresql_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_postgresql(shop, postgresql_place, monkeypatch)
    assert "as it was last staged" in str(shop.tick("export_crm_sensor"))
    graph = shop.definitions.resolve_asset_graph()
    assert names_of(
        list(graph.get(next(k for k in graph.materializable_asset_keys if k.path[0] == "export")).parent_keys)
    ) == ["staged/shop/orders"]
    assert shop.run(*ORDERS).success
    request = shop.tick("export_crm_sensor")
    assert names_of(request.asset_selection) == [EXPORT]
    result = shop.follow(request)
    assert checks(result)[EXPORT] == (
        True,
        "The target holds all 3 rows, by their hash. All rows were written or compared: the first export.",
    )
    assert materialized(result)[EXPORT]["rows inserted"] == 3
    assert "as it was last staged" in str(shop.tick("export_crm_sensor"))
    assert postgresql_place.query("select * from platform.orders where order_id = 1")[0][:2] == (1, 5.0)
    shop.execute("update orders set quantity = 7, changed_at = '2021-01-01T00:00:00Z' where order_id = 3")
    assert shop.run(*ORDERS).success
    figures = materialized(shop.follow(shop.tick("export_crm_sensor")))[EXPORT]
    assert (figures["rows inserted"], figures["rows updated"], figures["rows deleted"]) == (0, 1, 0)


def test_a_private_column_is_exported_only_if_it_is_named(
    shop: Shop, postgresql_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_postgresql(shop, postgresql_place, monkeypatch)
    assert shop.run(*ORDERS, EXPORT).success
    columns = "select column_name from information_schema.columns where table_name = 'orders' order by 1"
    assert postgresql_place.query(columns) == [("changed_at",), ("order_id",), ("total",)]


def test_one_that_is_named_is_exported(shop: Shop, postgresql_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    to_postgresql(shop, postgresql_place, monkeypatch, ", private: [customer]")
    assert shop.run(*ORDERS, EXPORT).success
    assert postgresql_place.query("select customer from platform.orders order by 1") == [("Ada",), ("Bob",), ("Cyd",)]


def test_a_change_at_the_target_fails_the_check_and_a_full_refresh_mends_it(
    shop: Shop, postgresql_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_postgresql(shop, postgresql_place, monkeypatch)
    assert shop.run(*ORDERS, EXPORT).success
    postgresql_place.query("update platform.orders set changed_at = 'yesterday' where order_id = 2")
    passed, said = checks(shop.run(EXPORT))[EXPORT]
    assert not passed
    assert "other values in as many rows" in said
    again = shop.run(EXPORT, config={"export__crm__orders": {"full_refresh": True}})
    assert checks(again)[EXPORT][0]


def test_a_target_that_does_not_let_us_in_fails_the_run_without_the_password(
    shop: Shop, postgres: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_URL", "postgresql://postgres:hunter2hunter2@127.0.0.1:1/nowhere")
    add_export(shop, '{type: postgresql, url: "{{ env.CRM_URL }}"}')
    assert shop.run(*ORDERS).success
    result = shop.run(EXPORT)
    assert not result.success
    passed, said = checks(result)[EXPORT]
    assert not passed
    assert "cannot be reached" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_files_are_named_by_their_version_and_latest_names_the_newest(shop: Shop, tmp_path: Path, form: str) -> None:
    add_export(shop, f"{{type: files, folder: {tmp_path}/out, format: {form}}}", mode="replace")
    assert shop.run(*ORDERS).success
    result = shop.run(EXPORT)
    assert checks(result)[EXPORT][0]
    folder = tmp_path / "out" / "orders"
    latest = json.loads((folder / "latest.json").read_text())
    assert (folder / latest["file"]).stat().st_size == latest["bytes"]
    assert (latest["rows"], list(latest["columns"])) == (3, ["order_id", "total", "changed_at"])
    shop.run(EXPORT)
    assert json.loads((folder / "latest.json").read_text()) == latest


def test_files_go_to_a_bucket_with_credentials_from_the_environment(
    shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT_KEY", KEYS["access_key_id"])
    monkeypatch.setenv("OUT_SECRET", KEYS["secret_access_key"])
    add_export(
        shop,
        f"{{type: files, folder: 's3://{store.name}/out', format: xlsx, endpoint: '{store.endpoint}', "
        "access_key_id: '{{ env.OUT_KEY }}', secret_access_key: '{{ env.OUT_SECRET }}', region: us-east-1}",
        mode="replace",
    )
    assert shop.run(*ORDERS).success
    result = shop.run(EXPORT)
    assert checks(result)[EXPORT] == (True, "The target holds all 3 rows.")
    file = materialized(result)[EXPORT]["file"]
    assert file.startswith(f"s3://{store.name}/out/orders/orders-")
    assert file.removeprefix(f"s3://{store.name}/") in store.bucket.keys
    found = next(one for one in _platform_findings(shop.package) if one.what.endswith("/crm"))
    assert (found.verdict, found.detail) == ("ok", "the target of its exports (files) answers")


@pytest.fixture
def emulator() -> Iterator[str]:
    """A store in a process of its own: while Delta Lake's client looks for a table, no other thread of ours runs."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        for _ in range(300):
            try:
                requests.put(f"http://127.0.0.1:{port}/lakes-of-shop", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def test_a_table_of_delta_lake_in_a_bucket_is_merged_into(
    shop: Shop, emulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT_KEY", KEYS["access_key_id"])
    monkeypatch.setenv("OUT_SECRET", KEYS["secret_access_key"])
    add_export(
        shop,
        f"{{type: delta, folder: 's3://lakes-of-shop/out', endpoint: '{emulator}', "
        "access_key_id: '{{ env.OUT_KEY }}', secret_access_key: '{{ env.OUT_SECRET }}', region: us-east-1}",
    )
    assert shop.run(*ORDERS).success
    said = "The target holds all 3 rows. All rows were written: the first export."
    assert checks(shop.run(EXPORT))[EXPORT] == (True, said)
    shop.execute("update orders set quantity = 7, changed_at = '2021-01-01T00:00:00Z' where order_id = 3")
    assert shop.run(*ORDERS).success
    figures = materialized(shop.run(EXPORT))[EXPORT]
    assert (figures["rows updated"], figures["version of the table"]) == (1, 1)


def test_a_table_of_iceberg_is_merged_into_and_rows_of_others_fail_its_check(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_URL", f"sqlite:///{tmp_path}/iceberg.sqlite")
    more = f"warehouse: 'file://{tmp_path}/warehouse'"
    catalog = f"{{type: sql, uri: '{{{{ env.LAKE_URL }}}}', {more}}}"
    add_export(shop, f"{{type: iceberg, catalog: {catalog}, namespace: out}}")
    assert shop.run(*ORDERS).success
    said = "The target holds all 3 rows. All rows were written: the first export."
    assert checks(shop.run(EXPORT))[EXPORT] == (True, said)
    shop.execute("update orders set quantity = 7, changed_at = '2021-01-01T00:00:00Z' where order_id = 3")
    assert shop.run(*ORDERS).success
    assert materialized(shop.run(EXPORT))[EXPORT]["rows updated"] == 1
    load_catalog("default", type="sql", uri=os.environ["LAKE_URL"]).load_table("out.orders").delete("order_id = 1")
    passed, said = checks(shop.run(EXPORT))[EXPORT]
    assert not passed
    assert re.search(r"first by its snapshot \d+ \(overwrite\): 3 are due, 2 there: .* --full-refresh", said)
    found = next(one for one in _platform_findings(shop.package) if one.what.endswith("/crm"))
    assert (found.verdict, found.detail) == ("ok", "the target of its exports (iceberg) answers")


def test_a_table_of_snowflake_is_exported_by_an_address_from_the_environment(
    shop: Shop, snowflake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSE_URL", snowflake)
    add_export(shop, '{type: snowflake, url: "{{ env.HOUSE_URL }}"}')
    assert shop.run(*ORDERS).success
    said = "The target holds all 3 rows. All rows were written or compared: the first export."
    assert checks(shop.run(EXPORT))[EXPORT] == (True, said)
    monkeypatch.setenv("HOUSE_URL", snowflake.replace("/DB/", "/NOWHERE/"))
    result = shop.run(EXPORT)
    assert not result.success
    assert "The schema must be there" in checks(result)[EXPORT][1]


def test_a_secret_of_a_catalog_that_is_written_out_is_refused(shop: Shop) -> None:
    add_export(shop, "{type: iceberg, catalog: {type: rest, uri: 'http://a.b', token: hunter2hunter2}, namespace: out}")
    with pytest.raises(Exception, match=r"`token` is a secret: take it from the environment") as failed:
        shop.run(EXPORT)
    assert "hunter2" not in str(failed.value)


def test_an_endpoint_is_sent_what_changed_with_a_token_from_the_environment(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_TOKEN", "top-secret-token")
    with running_api(lambda _: Answer({"ok": True})) as api:
        auth = "{type: bearer, token: '{{ env.CRM_TOKEN }}'}"
        add_export(shop, f"{{type: http, url: '{api.url}', auth: {auth}, deletes: mark}}")
        assert shop.run(*ORDERS).success
        result = shop.follow(shop.tick("export_crm_sensor"))
        passed, said = checks(result)[EXPORT]
        assert passed
        assert said.endswith("what it holds is not read. All rows were sent: the first export.")
        assert materialized(result)[EXPORT]["rows sent"] == 3
        assert api.asked[0].headers["Authorization"] == "Bearer top-secret-token"
        assert [row["order_id"] for row in api.asked[0].json] == [1, 2, 3]
        assert "as it was last staged" in str(shop.tick("export_crm_sensor"))
        found = next(one for one in _platform_findings(shop.package) if one.what.endswith("/crm"))
        assert found.verdict == "ok"
        api.answer = lambda _: Answer({"said": "Ada is no customer of top-secret-token"}, status=422)
        shop.execute("update orders set quantity = 7, changed_at = '2021-01-01T00:00:00Z' where order_id = 3")
        assert shop.run(*ORDERS).success
        passed, said = checks(shop.run(EXPORT))[EXPORT]
    assert not passed
    assert "batch 1 of 1 (rows 1 to 1)" in said
    assert "Ada" not in said
    assert "top-secret" not in said


def test_a_place_that_files_are_not_exported_to_is_said(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT_FOLDER", "ftp://host/out")
    add_export(shop, "{type: files, folder: '{{ env.OUT_FOLDER }}'}", mode="replace")
    assert shop.run(*ORDERS).success
    passed, said = checks(shop.run(EXPORT))[EXPORT]
    assert not passed
    assert "`folder` begins with ftp://" in said


MISTAKES = [
    ({"from": "staged/shop/nothing", "mode": "merge"}, "has no table nothing. It has: orders, products"),
    ({"from": "staged/nowhere/orders", "mode": "merge"}, "has no source nowhere"),
    ({"from": "modelled/nothing", "mode": "replace"}, "there is no model nothing"),
    ({"from": "staged/shop/orders", "mode": "merge", "private": ["total"]}, "They say: customer, email"),
]


@pytest.mark.parametrize(("said", "reason"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_what_the_platform_does_not_have_is_refused_when_definitions_load(
    shop: Shop, said: dict[str, object], reason: str
) -> None:
    with pytest.raises(PlatformError, match=reason):
        table_export(shop.package / "defs" / "crm", "orders", ExportTable.model_validate(said))


def test_files_cannot_be_merged(shop: Shop) -> None:
    add_export(shop, "{type: files, folder: out}")
    with pytest.raises(PlatformError, match="files are written whole: `mode: replace` for orders"):
        _ = shop.definitions


@pytest.mark.parametrize("name", ["my orders", "größe", "../orders"])
def test_names_that_no_asset_has_are_refused(name: str) -> None:
    table = {"from": "staged/shop/orders", "mode": "replace"}
    with pytest.raises(ValueError, match="no table can be exported as"):
        ExportOptions.model_validate({"to": {"type": "files", "folder": "out"}, "tables": {name: table}})


def test_dp_run_takes_the_name_of_an_export_and_without_a_name_exports_nothing(shop: Shop, tmp_path: Path) -> None:
    add_export(shop, f"{{type: files, folder: {tmp_path}/out}}", mode="replace")
    keys = executable_keys(shop.definitions)
    assert names_of(select(keys, ["crm"])) == [EXPORT]
    assert EXPORT not in names_of(select(keys, []))
    assert [name for name, _ in in_runs(select(keys, ["export", "shop"]))] == ["shop", "export/crm"]


def test_dp_doctor_says_whether_the_target_answers(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_URL", "postgresql://postgres:hunter2hunter2@127.0.0.1:1/nowhere")
    add_export(shop, '{type: postgresql, url: "{{ env.CRM_URL }}"}')
    found = next(one for one in _platform_findings(shop.package) if one.what.endswith("/crm"))
    assert found.verdict == "error"
    assert "cannot be reached" in found.detail
    assert "hunter2" not in found.detail
