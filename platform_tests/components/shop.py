"""A small platform of a shop, made anew for a test: a SQLite source `shop` with two tables and a folder `depot` of CSV
files, with contracts and staging functions, loaded as any platform package is."""

import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from data_platform.components.keys import CHECK
from data_platform.components.platform import platform_definitions
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

CONTRACTS = '''
from data_platform.contracts import Contract, Field, Instant


class Order(Contract):
    """An order of the shop."""

    order_id: int = Field(unique=True, description="number of the order")
    customer: str = Field(private=True, description="who ordered")
    total: float = Field(ge=0, unit="USD", description="what is to be paid")
    changed_at: Instant = Field(description="last change")

    class Config(Contract.Config):
        metadata = {"owner": "team:shop"}


class Product(Contract):
    """What the shop sells."""

    sku: str = Field(description="number of the article")
    price: float = Field(gt=0, unit="USD", description="price")


class Pallet(Contract):
    """What stands in the depot."""

    pallet: int = Field(description="number of the pallet")
    sku: str = Field(description="what stands on it")
'''

STAGING = """
import polars as pl


def orders(raw: pl.LazyFrame) -> pl.LazyFrame:
    total = pl.col("price").cast(pl.Float64) * pl.col("quantity").cast(pl.Float64)
    return raw.with_columns(total.alias("total"), pl.col("buyer").alias("customer"))
"""

SHOP = """
type: data_platform.components.SqlSource
attributes:
  description: The shop's database.
  url: "{{{{ env.SHOP_URL }}}}"
  every: 5s
  refresh: 1h
  tables:
    orders:
      key: [order_id]
      cursor: {{column: changed_at}}
      contract: {name}.defs.shop.contracts.Order
      stage: {name}.defs.shop.staging.orders
      mask: [email]
      refuse_above: 50%
      fresh_within: 1d
    products:
      key: [sku]
      contract: {name}.defs.shop.contracts.Product
"""

DEPOT = """
type: data_platform.components.FileSource
attributes:
  folder: {folder}
  every: 5s
  tables:
    pallets:
      key: [pallet]
      path: pallets-*.csv
      format: {{type: csv}}
      contract: {name}.defs.shop.contracts.Pallet
"""

Row = tuple[object, ...]


@dataclass
class Shop:
    """The platform below `folder`, its source database, and the instance that its runs are on."""

    folder: Path
    name: str
    instance: dg.DagsterInstance

    @property
    def package(self) -> Path:
        return self.folder / self.name

    @property
    def database(self) -> Path:
        return self.folder / "shop.sqlite"

    @property
    def depot(self) -> Path:
        return self.folder / "depot"

    @cached_property
    def definitions(self) -> dg.Definitions:
        return platform_definitions(self.package)

    def execute(self, statement: str, rows: Sequence[Row] = ()) -> None:
        """Change the source."""
        with sqlite3.connect(self.database) as connection:
            connection.executemany(statement, rows) if rows else connection.execute(statement)

    def order(self, *rows: Row) -> None:
        """Orders: number, buyer, email, price, quantity, time of change."""
        self.execute("insert or replace into orders values (?, ?, ?, ?, ?, ?)", rows)

    def deliver(self, name: str, *lines: str) -> None:
        self.depot.mkdir(exist_ok=True)
        (self.depot / name).write_text("\n".join(["pallet,sku", *lines]) + "\n")

    def run(
        self,
        *names: str,
        config: Mapping[str, Mapping[str, object]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialise assets by name (`raw/shop/orders`) in one run."""
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {op: {"config": dict(given)} for op, given in (config or {}).items()},
            },
            instance=self.instance,
            asset_selection=[dg.AssetKey(name.split("/")) for name in names],
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def follow(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Run what a sensor asks for."""
        names = ["/".join(key.path) for key in request.asset_selection or []]
        return self.run(*names, tags=request.tags)

    def tick(self, sensor: str) -> Any:
        """Evaluate a sensor: its one request, else the message of the skip. Raises what fails the tick."""
        definition = next(one for one in self.definitions.sensors or () if one.name == sensor)
        assert isinstance(definition, dg.SensorDefinition)
        with dg.build_sensor_context(instance=self.instance) as context:
            told = definition.evaluate_tick(context)
        assert len(told.run_requests or []) <= 1
        return told.run_requests[0] if told.run_requests else told.skip_message

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the lakehouse."""
        with open_lakehouse(settings_from_environment()) as lake:
            return lake.connection.execute(query).fetchall()

    def change(self, *statements: str) -> None:
        """Change the lakehouse by hand, as nobody should."""
        with open_lakehouse(settings_from_environment()) as lake:
            for statement in statements:
                lake.connection.execute(statement)


def make_shop(folder: Path, instance: dg.DagsterInstance) -> Shop:
    """Three orders and two products, a pallet, and nothing loaded yet. The package's name is this shop's own."""
    shop = Shop(folder, f"shop_{uuid.uuid4().hex[:8]}", instance)
    source = shop.package / "defs" / "shop"
    depot = shop.package / "defs" / "depot"
    for path in (source, depot):
        path.mkdir(parents=True)
        (path / "__init__.py").touch()
    (shop.package / "__init__.py").touch()
    (shop.package / "defs" / "__init__.py").touch()
    (source / "contracts.py").write_text(CONTRACTS)
    (source / "staging.py").write_text(STAGING)
    (source / "defs.yaml").write_text(SHOP.format(name=shop.name))
    (depot / "defs.yaml").write_text(DEPOT.format(name=shop.name, folder=shop.depot))
    shop.execute(
        "create table orders (order_id integer primary key, buyer text, email text, price real, quantity integer, "
        "changed_at text)"
    )
    shop.execute("create table products (sku text primary key, price real)")
    shop.order(
        (1, "Ada", "ada@example.org", 2.5, 2, "2020-01-01T00:00:00Z"),
        (2, "Bob", "bob@example.org", 1.0, 3, "2020-01-02T00:00:00Z"),
        (3, "Cyd", "cyd@example.org", 4.0, 1, "2020-01-03T00:00:00Z"),
    )
    shop.execute("insert into products values (?, ?)", [("tea", 2.5), ("mug", 4.0)])
    shop.deliver("pallets-1.csv", "7,tea")
    return shop


ORDERS = ("raw/shop/orders", "staged/shop/orders")
PRODUCTS = ("raw/shop/products", "staged/shop/products")


def names_of(keys: Sequence[dg.AssetKey] | None) -> list[str]:
    return ["/".join(key.path) for key in keys or []]


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, Mapping[str, Any]]:
    """The assets that were materialised, with their metadata as plain values."""
    return {
        "/".join(event.materialization.asset_key.path): {
            name: value if isinstance(value, dg.TableMetadataValue) else value.value
            for name, value in event.materialization.metadata.items()
        }
        for event in (e.step_materialization_data for e in result.get_asset_materialization_events())
    }


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    """Whether each asset's contract check passed, and what it says."""
    return {
        "/".join(one.asset_key.path): (one.passed, one.description or "")
        for one in result.get_asset_check_evaluations()
        if one.check_name == CHECK
    }


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Why each step that failed did, as people are told."""
    found = {}
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            assert data.user_failure_data is not None, data.error
            found[str(event.step_key)] = str(data.user_failure_data.description)
    return found


def sample_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(record.data) for record in metadata["sample"].records]
