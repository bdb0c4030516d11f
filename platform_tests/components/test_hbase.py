"""The component `HbaseSource`: from its `defs.yaml` to staged rows, what its sensor asks for, and what it says of
mistakes."""

from pathlib import Path

import pytest
import yaml
from platform_tests.components.shop import Shop, failures, names_of
from platform_tests.hbase_servers import Hbase
from platform_tests.ingestion.hbase.cells import Cells

from data_platform.components.mistakes import mistakes_in

DEFS = """
type: data_platform.components.HbaseSource
attributes:
  url: "{{{{ env.HBASE_REST_URL }}}}"
  max_retries: 0
  tables:
    pallets:
      table: {table}
      row_key: {{name: pallet, decode: utf8}}
      columns: {{"f:sku": sku}}
      incremental: {{lag: 1m}}
      reconcile: daily
      key: [pallet]
      contract: {name}.defs.shop.contracts.Pallet
"""

BOTH = ["raw/yard/pallets", "staged/yard/pallets"]


def yard(shop: Shop, table: str) -> None:
    """A source `yard` beside the others of the shop."""
    folder = shop.package / "defs" / "yard"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(DEFS.format(name=shop.name, table=table))


def staged(shop: Shop) -> list[tuple[object, ...]]:
    return shop.query("SELECT pallet, sku FROM staged_yard.pallets ORDER BY ALL")


def test_rows_are_staged_by_key_the_sensor_asks_for_what_is_new_and_deletes_are_reconciled(
    shop: Shop, hbase: Hbase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBASE_REST_URL", hbase.url)
    cells = Cells.make(hbase.url)
    yard(shop, cells.name)
    cells.put({b"1": {"f:sku": b"tea"}, b"2": {"f:sku": b"mug"}, b"3": {"f:sku": b"\xff"}})
    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection)[:2] == BOTH
    assert "more than the 5%" in str(failures(shop.run(*BOTH)))
    cells.delete("3")
    assert shop.run(*BOTH).success
    assert staged(shop) == [(1, "tea"), (2, "mug")]
    assert shop.tick("yard_sensor") == "Nothing new in pallets."
    cells.put({b"2": {"f:sku": b"pen"}})
    cells.delete("1")
    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection) == BOTH
    assert shop.follow(request).success
    assert staged(shop) == [(1, "tea"), (2, "pen")]
    assert shop.run("reconciliation/yard/pallets", *BOTH).success
    shop.run(*BOTH)
    assert staged(shop) == [(2, "pen")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": "a", "start": "b"}, "`prefix` and `start` or `stop` do not go together"),
        ({"start": "b", "stop": "a"}, "does not come after `start`"),
        ({"start": "\\q"}, "begins no byte"),
        ({"columns": {"f:a": "x", "f:b": "X"}}, "two columns are called"),
        ({"columns": {":a": "x"}}, "names no family"),
        ({"columns": {}}, "at least 1"),
        ({"columns": {"f:a": {"name": "x", "decode": "varint"}}}, "utf8"),
        ({"columns": {"f:a": "_timestamp"}}, "needs a name of its own"),
        ({"reconcile": "daily"}, "`reconcile` is for a table that is `incremental`"),
        ({"reconcile": "daily", "incremental": True, "key": []}, "there is none: name it"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, options: dict[str, object], words: str) -> None:
    table = {"columns": {"f:a": "a"}, "key": ["row_key"], "contract": "x.y.Z", **options}
    attributes = {"url": "http://127.0.0.1:8080", "tables": {"t": table}}
    described = {"type": "data_platform.components.HbaseSource", "attributes": attributes}
    (tmp_path / "defs.yaml").write_text(yaml.safe_dump(described))
    assert words in " ".join(mistakes_in(tmp_path / "defs.yaml"))
