"""`dp add source` drafts tables of lakes: their types and keys as they say themselves, and how they are reached."""

from pathlib import Path

import duckdb
import pyarrow as pa
import yaml
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.lakes import deltas
from platform_tests.ingestion.lakes.catalogs import items, lake_in
from platform_tests.ingestion.lakes.ducklakes import Other
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from data_platform.lakehouse.settings import settings_from_environment


def attributes_of(package: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((package / "defs" / name / "defs.yaml").read_text())["attributes"]
    return found


def test_tables_of_an_iceberg_catalog_are_drafted_by_their_schemas_and_staged(
    dp: Dp, package: Path, tmp_path: Path
) -> None:
    iceberg = lake_in(tmp_path, f"sqlite:///{tmp_path}/iceberg.sqlite")
    fields = [
        NestedField(1, "id", LongType(), required=True, doc="number of the item"),
        NestedField(2, "name", StringType()),
    ]
    table = iceberg.catalog.create_table("shop.items", Schema(*fields, identifier_field_ids=[1]))
    table.append(items((1, "tea"), (2, "mug")).cast(table.schema().as_arrow()))
    iceberg.make("moves", pa.schema([("at", pa.timestamp("us", "UTC")), ("n", pa.int32())]))
    url = f"iceberg+sqlite:///{tmp_path}/iceberg.sqlite"
    done = dp("add", "source", "ice", "--url", url, "--all", "--config", "s3.endpoint=http://127.0.0.1:9")
    assert "moves" in done.stdout + done.stderr
    found = attributes_of(package, "ice")
    catalog = {"type": "sql", "uri": url.removeprefix("iceberg+"), "s3.endpoint": "http://127.0.0.1:9"}
    assert found["catalog"] == catalog
    assert found["tables"]["items"]["key"] == ["id"]  # type: ignore[index]
    assert "number of the item" in (package / "defs" / "ice" / "contracts.py").read_text()
    _, frames = run(package, "ice")
    assert frames["items"].sort("id").select("id", "name").rows() == [(1, "tea"), (2, "mug")]


def test_a_metadata_file_is_drafted_as_the_one_table_that_it_is_of(dp: Dp, package: Path, tmp_path: Path) -> None:
    table = lake_in(tmp_path, f"sqlite:///{tmp_path}/iceberg.sqlite").make()
    table.append(items((1, "tea"), (2, "mug")))
    done = dp("add", "source", "ice", "--url", table.metadata_location)
    assert done.exit_code == 0, done.stderr
    found = attributes_of(package, "ice")
    assert "catalog" not in found
    assert found["tables"]["items"]["path"] == table.metadata_location  # type: ignore[index]


def test_tables_below_a_folder_of_delta_are_drafted_and_their_feed_is_noted(
    dp: Dp, package: Path, tmp_path: Path
) -> None:
    deltas.write(tmp_path, items((1, "tea"), (2, "mug")), configuration=deltas.WITH_FEED)
    done = dp("add", "source", "lakes", "--url", f"delta+{tmp_path}", "--key", "id")
    assert done.exit_code == 0, done.stderr
    assert "it has a change feed" in done.stdout
    found = attributes_of(package, "lakes")
    assert found["folder"] == str(tmp_path)
    assert found["tables"]["items"]["key"] == ["id"]  # type: ignore[index]
    _, frames = run(package, "lakes")
    assert frames["items"].sort("id").select("id", "name").rows() == [(1, "tea"), (2, "mug")]


def test_tables_of_a_ducklake_are_drafted(dp: Dp, package: Path, tmp_path: Path) -> None:
    other = Other(settings_from_environment(), str(tmp_path / "other.sqlite"), tmp_path).make()
    other.insert((1, "tea"), (2, "mug"))
    other.run("COMMENT ON COLUMN l.shop.items.name IS 'what it is called'")
    done = dp("add", "source", "lakes", "--url", f"ducklake+{other.catalog}", "--key", "id")
    assert done.exit_code == 0, done.stderr
    found = attributes_of(package, "lakes")
    assert (found["catalog"], found["tables"]["items"]["table"]) == (other.catalog, "shop.items")  # type: ignore[index]
    assert "what it is called" in (package / "defs" / "lakes" / "contracts.py").read_text()
    _, frames = run(package, "lakes")
    assert frames["items"].sort("id").select("id", "name").rows() == [(1, "tea"), (2, "mug")]


def test_tables_of_a_duckdb_file_are_drafted(dp: Dp, package: Path, tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "other.duckdb") as connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR, paid DECIMAL(9, 2))")
        connection.execute("INSERT INTO items VALUES (1, 'tea', 3.5), (2, 'mug', NULL)")
    done = dp("add", "source", "lakes", "--url", f"duckdb://{tmp_path}/other.duckdb")
    assert done.exit_code == 0, done.stderr
    found = attributes_of(package, "lakes")
    assert (found["url"], found["tables"]["items"]["key"]) == (f"duckdb://{tmp_path}/other.duckdb", ["id"])  # type: ignore[index]
    _, frames = run(package, "lakes")
    assert frames["items"].sort("id").select("id", "name").rows() == [(1, "tea"), (2, "mug")]
