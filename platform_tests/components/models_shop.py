"""dbt models for the shop of `shop`: a fact that grows, a mart of it, and a dimension of another source."""

import shutil
from pathlib import Path

from platform_tests.components.shop import Shop

from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.modelling import dbt

DBT_PROJECT = Path(__file__).parents[2] / "dbt_project"

PROJECT = """
name: nyc_flights
version: "1.0.0"
profile: nyc_flights
macro-paths: [macros, platform_macros]
models:
  +materialized: table
"""

SOURCES = """
version: 2
sources:
  - {name: staged_shop, database: lake, schema: staged_shop, tables: [{name: orders}]}
  - {name: staged_depot, database: lake, schema: staged_depot, tables: [{name: pallets}]}
"""

MODELS = {
    "fct_order": """
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='order_id') }}
select order_id, total, _staging_id from {{ source('staged_shop', 'orders') }}
{% if is_incremental() %} where _staging_id > (select coalesce(max(_staging_id), 0) from {{ this }}) {% endif %}
""",
    "counted": """
{{ config(materialized='ephemeral') }}
select count(*) as orders, sum(total)::double as revenue from {{ ref('fct_order') }}
""",
    "mart_sales": "select * from {{ ref('counted') }}",
    "dim_pallet": "select pallet, sku from {{ source('staged_depot', 'pallets') }}",
}

CONTRACTS = """
from data_platform.contracts import Contract, Field


class FctOrder(Contract):
    order_id: int = Field(unique=True, description="number of the order")
    total: float = Field(le=50, description="what is to be paid")


class MartSales(Contract):
    orders: int = Field(ge=0, description="orders")
    revenue: float = Field(ge=0, description="what they come to")
"""

DEFS = """
type: data_platform.components.DbtModels
attributes:
  project: {project}
  contracts: {name}.defs.modelled.contracts
"""

FCT, MART, PALLET = "modelled/fct_order", "modelled/mart_sales", "modelled/dim_pallet"
SOURCE_ASSETS = ("raw/shop/orders", "staged/shop/orders", "raw/depot/pallets", "staged/depot/pallets")


def copy_needed(project: Path) -> None:
    """Give a dbt project the profile."""
    project.mkdir(parents=True, exist_ok=True)
    shutil.copy(DBT_PROJECT / "profiles.yml", project / "profiles.yml")


_parsed = dict[str, bytes]()


def begin_from_parsed(folder: Path, settings: Settings) -> None:
    """Let the first parse of a new project begin from that of an earlier one of the same definition, as every later
    parse of a project does from the one before: what dbt has to read of its own macros takes seconds."""
    definition = (folder / "dbt_project.yml").read_text()
    project = dbt.project_at(folder, settings)
    partial = project.target / "parse" / dbt.PARTIAL_PARSE
    if definition not in _parsed:
        dbt.manifest(project, settings)
        _parsed[definition] = partial.read_bytes()
    else:
        partial.parent.mkdir(parents=True)
        partial.write_bytes(_parsed[definition])


def add_models(shop: Shop) -> Path:
    """Give a shop its models; the folder of the dbt project."""
    project = shop.folder / "dbt_project"
    for folder in ("models", "tests"):
        (project / folder).mkdir(parents=True)
    copy_needed(project)
    (project / "dbt_project.yml").write_text(PROJECT)
    (project / "models" / "sources.yml").write_text(SOURCES)
    for model, query in MODELS.items():
        (project / "models" / f"{model}.sql").write_text(query)
    (project / "tests" / "no_order_is_above_100.sql").write_text(
        "select * from {{ ref('fct_order') }} where total > 100"
    )
    begin_from_parsed(project, settings_from_environment())
    defs = shop.package / "defs" / "modelled"
    defs.mkdir()
    (defs / "__init__.py").touch()
    (defs / "contracts.py").write_text(CONTRACTS)
    (defs / "defs.yaml").write_text(DEFS.format(project=project, name=shop.name))
    return project
