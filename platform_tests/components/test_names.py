"""Names of sources and tables that would make the schema, table or operation of another: refused, each alone."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from platform_tests.components.shop import Shop

from data_platform.components.platform import broken_sources, platform_definitions
from data_platform.errors import PlatformError

DEFS = """
type: data_platform.components.FileSource
attributes:
  folder: {folder}
  tables:
"""
TABLE = """
    {table}:
      key: [pallet]
      path: {table}-*.csv
      format: {{type: csv}}
      contract: {name}.defs.shop.contracts.Pallet
      history: {history}
"""


def add(shop: Shop, source: str, tables: Mapping[str, bool]) -> None:
    """A source with tables, each with a history or without."""
    folder = shop.package / "defs" / source
    folder.mkdir()
    (folder / "__init__.py").touch()
    given = [TABLE.format(table=table, name=shop.name, history=str(kept).lower()) for table, kept in tables.items()]
    (folder / "defs.yaml").write_text(DEFS.format(folder=shop.depot) + "".join(given))


def keys(package: Path) -> set[str]:
    graph = platform_definitions(package).resolve_asset_graph()
    return {"/".join(key.path) for key in graph.get_all_asset_keys()}


@pytest.mark.parametrize(
    ("source", "tables", "reason"),
    [
        ("modelled", {"pallets": False}, "'modelled' cannot be one"),
        ("raw", {"pallets": False}, "'raw' cannot be one"),
        ("platform", {"pallets": False}, "'platform' cannot be one"),
        ("reconciliation", {"pallets": False}, "'reconciliation' cannot be one"),
        ("Staged", {"pallets": False}, "'Staged' cannot be one"),
        ("s" * 101, {"pallets": False}, "has no more than 100 letters"),
        ("more", {"x" * 101: False}, "must be up to 100 lower case letters"),
        ("more", {"Pallets": False}, "must be up to 100 lower case letters"),
        ("more", {"ü": False}, "must be up to 100 lower case letters"),
        ("more", {"pallets": True, "pallets_versions": False}, "a table of the source is called pallets_versions"),
        ("more", {"pallets_history": False, "pallets": True}, "a table of the source is called pallets_history"),
    ],
)
def test_a_name_that_would_be_taken_for_another_breaks_its_source_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, source: str, tables: Mapping[str, bool], reason: str
) -> None:
    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    add(shop, source, tables)
    broken = broken_sources(shop.package)
    assert set(broken) == {source}
    assert reason in broken[source]
    assert {f"broken/{source}", "raw/shop/orders", "raw/depot/pallets"} <= keys(shop.package)


def test_two_sources_that_make_one_operation_are_told_apart(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    add(shop, "a", {"b__c": False, "d": False})
    add(shop, "a__b", {"c": False})
    with pytest.raises(PlatformError, match=r"a table makes the operation raw__a__b__c, and so does one of .*/a/defs"):
        platform_definitions(shop.package)
    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    found = keys(shop.package)
    assert {"raw/a/b__c", "raw/a/d", "raw/shop/orders", "broken/a__b"} <= found
    assert "raw/a__b/c" not in found
    assert set(broken_sources(shop.package)) == {"a__b"}


def test_two_sources_whose_names_differ_by_case_only_are_told_apart(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(shop, "Shop", {"pallets": False})
    with pytest.raises(PlatformError, match="There are two sources shop"):
        platform_definitions(shop.package)
    monkeypatch.delenv("DATA_PLATFORM_STRICT")
    assert {"raw/Shop/pallets", "broken/shop"} <= keys(shop.package)


def test_names_that_only_look_alike_stand_beside_each_other(shop: Shop) -> None:
    add(shop, "a", {"b_c": False, "pallets_versions": False})
    add(shop, "a_b", {"c": False, "pallets": True})
    add(shop, "B_c", {"d": False})
    add(shop, "x" * 100, {"y" * 100: True})
    assert broken_sources(shop.package) == {}
    assert {"raw/a/b_c", "raw/a_b/c", f"staged/{'x' * 100}/{'y' * 100}"} <= keys(shop.package)
