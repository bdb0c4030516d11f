"""The components of lakes: from a `defs.yaml` to staged rows, what sensors ask for, and what is said of mistakes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from platform_tests.components.shop import Shop, failures, names_of
from platform_tests.ingestion.lakes import deltas
from platform_tests.ingestion.lakes.catalogs import items, lake_in
from platform_tests.ingestion.lakes.ducklakes import Other

from data_platform.components.mistakes import mistakes_in
from data_platform.lakehouse.settings import settings_from_environment

CONTRACT = '''
"""What the lake holds."""

from data_platform.contracts import Contract, Field


class Item(Contract):
    """An item."""

    id: int = Field(unique=True, description="number")
    name: str = Field(description="name")
'''

BOTH = ["raw/lake/items", "staged/lake/items"]


def lake(shop: Shop, kind: str, attributes: dict[str, Any], **table: Any) -> None:
    """A source `lake` of one table `items` beside the others of the shop."""
    folder = shop.package / "defs" / "lake"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "contracts.py").write_text(CONTRACT)
    tables = {"items": {"key": ["id"], "contract": f"{shop.name}.defs.lake.contracts.Item", **table}}
    described = {"type": f"data_platform.components.{kind}", "attributes": {**attributes, "tables": tables}}
    (folder / "defs.yaml").write_text(yaml.safe_dump(described))


def staged(shop: Shop) -> list[tuple[object, ...]]:
    return shop.query("SELECT id, name FROM staged_lake.items ORDER BY ALL")


def follow(shop: Shop) -> None:
    """Run what the sensor asks for."""
    request = shop.tick("lake_sensor")
    assert not isinstance(request, str), request
    assert names_of(request.asset_selection) == BOTH
    assert failures(shop.follow(request)) == {}


def test_an_iceberg_table_is_staged_by_key_and_followed_by_its_snapshots(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICEBERG", f"sqlite:///{tmp_path}/iceberg.sqlite")
    iceberg = lake_in(tmp_path, f"sqlite:///{tmp_path}/iceberg.sqlite")
    table = iceberg.make()
    table.append(items((1, "tea"), (2, "mug")))
    lake(shop, "IcebergSource", {"catalog": {"type": "sql", "uri": "{{ env.ICEBERG }}"}}, table="shop.items")
    follow(shop)
    assert staged(shop) == [(1, "tea"), (2, "mug")]
    assert shop.tick("lake_sensor") == "Nothing new in items."
    table.append(items((3, "cup")))
    follow(shop)
    table.delete("id = 1")
    table.append(items((2, "jug")))
    table.delete("name = 'mug'")
    follow(shop)
    assert staged(shop) == [(2, "jug"), (3, "cup")]
    assert shop.tick("lake_sensor") == "Nothing new in items."


def test_a_delta_table_is_staged_by_key_and_followed_by_its_versions(shop: Shop, tmp_path: Path) -> None:
    deltas.write(tmp_path, items((1, "tea"), (2, "mug")), configuration=deltas.WITH_FEED)
    lake(shop, "DeltaSource", {"folder": str(tmp_path)}, changes=True)
    follow(shop)
    assert staged(shop) == [(1, "tea"), (2, "mug")]
    deltas.write(tmp_path, items((3, "cup")))
    follow(shop)
    deltas.table(tmp_path).delete("id = 1")
    deltas.table(tmp_path).update(updates={"name": "'jug'"}, predicate="id = 2")
    follow(shop)
    assert staged(shop) == [(2, "jug"), (3, "cup")]
    assert shop.tick("lake_sensor") == "Nothing new in items."


def test_a_table_of_a_ducklake_is_staged_by_key_and_followed_by_its_snapshots(shop: Shop, tmp_path: Path) -> None:
    other = Other(settings_from_environment(), str(tmp_path / "other.sqlite"), tmp_path).make()
    other.insert((1, "tea"), (2, "mug"))
    lake(shop, "DuckLakeSource", {"catalog": other.catalog}, table="shop.items", changes=True)
    follow(shop)
    assert staged(shop) == [(1, "tea"), (2, "mug")]
    other.insert((3, "cup"))
    follow(shop)
    other.run("DELETE FROM l.shop.items WHERE id = 1", "UPDATE l.shop.items SET name = 'jug' WHERE id = 2")
    follow(shop)
    assert staged(shop) == [(2, "jug"), (3, "cup")]
    assert shop.tick("lake_sensor") == "Nothing new in items."


TABLE = {"contract": "x.y.Z"}
CHANGES = {**TABLE, "key": ["id"], "changes": True}


@pytest.mark.parametrize(
    ("kind", "attributes", "words"),
    [
        (
            "IcebergSource",
            {"catalog": {"token": "in the clear"}, "tables": {"t": {**TABLE, "table": "a.b"}}},
            "`token` is a secret",
        ),
        (
            "IcebergSource",
            {"catalog": {"s3.secret-access-key": "x"}, "tables": {"t": {**TABLE, "table": "a.b"}}},
            "is a secret",
        ),
        ("IcebergSource", {"tables": {"t": TABLE}}, "either a `table` of the catalog or the `path`"),
        ("IcebergSource", {"tables": {"t": {**TABLE, "table": "a.b", "path": "c"}}}, "either a `table`"),
        ("IcebergSource", {"tables": {"t": {**TABLE, "table": "a.b", "cursor": {"column": "id"}}}}, "cursor"),
        (
            "DeltaSource",
            {"folder": "x", "settings": {"AWS_SECRET_ACCESS_KEY": "x"}, "tables": {"t": TABLE}},
            "a secret",
        ),
        ("DuckLakeSource", {"catalog": "x", "store": {"SECRET": "x"}, "tables": {"t": TABLE}}, "`SECRET` is a secret"),
        ("DuckLakeSource", {"catalog": "x", "store": {"A b": "x"}, "tables": {"t": TABLE}}, "no option of DuckDB's"),
        ("DeltaSource", {"folder": "x", "tables": {"t": {**TABLE, "changes": True}}}, "`changes` needs a `key`"),
        ("DeltaSource", {"folder": "x", "tables": {"t": {**CHANGES, "newest_by": "id"}}}, "take `newest_by` out"),
    ],
)
def test_mistakes_in_options_are_said(tmp_path: Path, kind: str, attributes: dict[str, Any], words: str) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(yaml.safe_dump({"type": f"data_platform.components.{kind}", "attributes": attributes}))
    (mistake,) = mistakes_in(file)
    assert words in mistake
    assert "in the clear" not in mistake
