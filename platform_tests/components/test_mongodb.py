"""The component `MongodbSource`: from its `defs.yaml` to staged rows, what its sensor asks for, and what it says of
mistakes."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from platform_tests.components.shop import Shop, names_of
from platform_tests.ingestion.mongodb.documents import NOON, Documents
from platform_tests.mongo_servers import Mongodb

from data_platform.components.mistakes import mistakes_in
from data_platform.components.mongodb import require_client
from data_platform.errors import PlatformError

DEFS = """
type: data_platform.components.MongodbSource
attributes:
  url: "{{{{ env.YARD_URL }}}}"
  database: shop
  tables:
    pallets:
      collection: {collection}
      id_column: pallet
      cursor: {{column: at, lag: 1m}}
      reconcile: daily
      key: [pallet]
      contract: {name}.defs.shop.contracts.Pallet
"""

BOTH = ["raw/yard/pallets", "staged/yard/pallets"]


def test_documents_are_staged_by_key_the_sensor_asks_for_what_is_new_and_deletes_are_reconciled(
    shop: Shop, mongodb: Mongodb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YARD_URL", mongodb.url)
    documents = Documents(mongodb.url)
    documents.put(*({"_id": n, "sku": sku, "at": NOON} for n, sku in enumerate(["tea", "mug", "pot"])))
    folder = shop.package / "defs" / "yard"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(DEFS.format(name=shop.name, collection=documents.name))

    def staged() -> list[tuple[object, ...]]:
        return shop.query("SELECT pallet, sku FROM staged_yard.pallets ORDER BY ALL")

    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection)[:2] == BOTH
    assert shop.follow(request).success
    assert staged() == [(0, "tea"), (1, "mug"), (2, "pot")]
    assert shop.tick("yard_sensor") == "Nothing new in pallets."
    documents.put({"_id": 1, "sku": "pen", "at": NOON + timedelta(hours=1)})
    documents.there.delete_one({"_id": 0})
    request = shop.tick("yard_sensor")
    assert names_of(request.asset_selection) == BOTH
    assert shop.follow(request).success
    assert staged() == [(0, "tea"), (1, "pen"), (2, "pot")]
    assert shop.run("reconciliation/yard/pallets", *BOTH).success
    shop.run(*BOTH)
    assert staged() == [(1, "pen"), (2, "pot")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cursor": {"column": "a.b"}}, "the cursor a.b is within a field"),
        ({"cursor": {"column": "at"}, "columns": ["a"]}, "`columns` leaves out at, the cursor"),
        ({"columns": ["a.b"]}, "`columns` names a.b: fields of the document itself"),
        ({"columns": []}, "at least 1"),
        ({"id_column": ""}, "at least 1"),
        ({"reconcile": "daily"}, "`reconcile` is for a table with a `cursor`"),
        ({"reconcile": "daily", "cursor": {"column": "at"}, "key": []}, "there is none: name it"),
        ({"filter": "x"}, "filter"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, options: dict[str, object], words: str) -> None:
    table = {"key": ["id"], "contract": "x.y.Z", **options}
    attributes = {"url": "mongodb://127.0.0.1", "tables": {"t": table}}
    described = {"type": "data_platform.components.MongodbSource", "attributes": attributes}
    (tmp_path / "defs.yaml").write_text(yaml.safe_dump(described))
    assert words in " ".join(mistakes_in(tmp_path / "defs.yaml"))


def test_the_client_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(PlatformError, match=r"pip install 'data-platform\[mongodb\]'"):
        require_client()
