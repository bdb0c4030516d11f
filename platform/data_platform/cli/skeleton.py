"""The files of a new platform: a code location, one example source with contract, staging and tests, and one model of
it. Where they go is `init`'s business; what a whole project has besides is in `project_skeleton`."""

import re

EXAMPLE = "orders"

DATA = """\
order_id,ordered_at,customer,status,amount
1001,2026-01-05T08:12:00Z,customer-17,paid,"1,249.00"
1002,2026-01-05T08:40:00Z,customer-04,open,18.5
1003,2026-01-05T09:05:00Z,customer-17,Paid,$ 42
1004,2026-01-05T10:31:00Z,customer-09,cancelled,0
1005,2026-01-05T11:02:00Z,customer-22,payed,75.25
1006,2026-01-05T13:47:00Z,customer-04,open,NA
1007,2026-01-05T15:20:00Z,customer-31,paid,-12
1008,2026-01-05T16:59:00Z,customer-09,open,310
"""
"""One row is wrong: the amount of order 1007 is negative."""

DEFINITIONS = '''\
"""The code location that Dagster loads: everything below `defs/`, and nothing else."""

from pathlib import Path

import dagster as dg

from data_platform.components import platform_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, sensors and schedules of this platform."""
    return platform_definitions(Path(__file__).parent)
'''

DEFS = """\
# yaml-language-server: $schema=../../../defs.schema.json
type: data_platform.components.FileSource
attributes:
  description: "An example: orders, one file a day."
  folder: {source}
  every: 5s
  tables:
    orders:
      key: [order_id]
      path: orders-*.csv
      format: {{type: csv}}
      contract: {name}.defs.{source}.contracts.Order
      stage: {name}.defs.{source}.staging.orders
      refuse_above: 20%
      description: One row an order, as the shop wrote it.
"""

CONTRACTS = '''\
"""What the staged orders promise. How raw rows get there is `staging`'s business."""

from data_platform.contracts import Contract, Field, Instant

STATUSES = ["open", "paid", "cancelled"]


class Order(Contract):
    """One order of the shop."""

    order_id: int = Field(unique=True, ge=1, description="Number of the order.")
    ordered_at: Instant = Field(description="When it was ordered.")
    customer: str = Field(description="Who ordered.")
    status: str = Field(isin=STATUSES, description="Where the order stands.")
    amount_usd: float = Field(nullable=True, ge=0, unit="USD", description="What is to be paid; null while not known.")
'''

STAGING = '''\
"""How raw orders are repaired: spellings of the status, amounts in several notations.
The rules that staged orders keep are in `contracts`; what cannot be read is left as it is, for them to refuse."""

import polars as pl

from data_platform.cleaning import null_labels, number_text, relabel

STATUS_SPELLINGS = {{"open": [], "paid": ["payed"], "cancelled": ["canceled"]}}


def orders(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw orders to staged ones."""
    return raw.with_columns(
        status=relabel("status", STATUS_SPELLINGS),
        amount_usd=number_text(null_labels("amount"), units=["$"]),
    )
'''

TEST = '''\
"""Staged orders: what is repaired, and what the contract refuses."""

import polars as pl

{imports}


def staged(**values: str) -> Audited:
    """One raw order, staged and audited."""
    good = {{"order_id": "1", "ordered_at": "2026-01-05T08:12:00Z", "customer": "x", "status": "paid", "amount": "1"}}
    raw = pl.LazyFrame({{name: [value] for name, value in {{**good, **values}}.items()}})
    return audit_rows(orders(raw), Order, ["order_id"])


def test_an_amount_with_a_sign_and_thousands_is_read() -> None:
    assert staged(amount="$ 1,249.00").good["amount_usd"].to_list() == [1249.0]


def test_an_amount_that_is_not_known_is_null() -> None:
    assert staged(amount="NA").good["amount_usd"].to_list() == [None]


def test_a_misspelt_status_is_repaired() -> None:
    assert staged(status="Payed").good["status"].to_list() == ["paid"]


def test_a_negative_amount_is_refused_with_its_reason() -> None:
    assert staged(amount="-12").bad["reasons"].to_list() == [
        [{{"column": "amount_usd", "check": "at least 0", "value": "-12.0"}}]
    ]


def test_an_unknown_status_is_refused() -> None:
    assert len(staged(status="lost").bad) == 1
'''


MODELLED_DEFS = """\
# yaml-language-server: $schema=../../../defs.schema.json
type: data_platform.components.DbtModels
attributes:
  project: ../../../../{folder}
  contracts: {name}.defs.modelled.contracts
"""

MODELLED_CONTRACTS = '''\
"""What the modelled tables promise: `{contract}` is the contract of {model}."""

from data_platform.contracts import Contract, Field


class {contract}(Contract):
    """Orders by status."""

    status: str = Field(unique=True, description="Where the orders stand.")
    orders: int = Field(ge=1, description="How many there are.")
    amount_usd: float = Field(nullable=True, ge=0, unit="USD", description="What they come to, as far as it is known.")
'''

DBT_PROJECT = """\
# The modelled layer of {name}. Models are built and published by the platform: `dp run modelled`. In a terminal, `dbt
# build` in this folder tries them out and publishes nothing.
name: {name}
version: "1.0.0"
profile: {name}
require-dbt-version: [">=1.11.0", "<1.12.0"]

model-paths: [models]
# platform_macros is a link to the macros and tests that come with data_platform; `dp` makes it.
macro-paths: [macros, platform_macros]
test-paths: [tests]
target-path: target
clean-targets: [target, logs]

flags:
  send_anonymous_usage_stats: false
  use_colors: false

models:
  {name}:
    # Tables or incremental models: a view would show what was never audited.
    +materialized: table
    +on_schema_change: fail
"""

PROFILES = """\
# Where dbt computes: an in-memory DuckDB, in which the lakehouse is attached, read-only. The plugin takes everything
# else from the environment: no address and no password belongs here.
{name}:
  target: lake
  outputs:
    lake:
      type: duckdb
      path: ":memory:"
      schema: modelled
      threads: 1
      plugins:
        - module: data_platform.modelling.plugin
          alias: lakehouse
          config:
            # Set by the platform while it builds.
            build: "{{{{ env_var('DBT_BUILD', '') }}}}"
"""

DBT_SOURCE = """\
# The staged tables of {source}, as models read them.
version: 2

sources:
  - name: {source}
    schema: staged_{source}
    database: lake
    tables:
      - name: orders
"""

MODEL = """\
-- One row a status.
select
    status,
    count(*) as orders,
    sum(amount_usd) as amount_usd
from {{{{ source('{source}', 'orders') }}}}
group by status
"""


def source_name(name: str) -> str:
    """The example's source. Sources of all platforms share one lakehouse, so it bears the platform's name."""
    return f"{name}_example"


def model_name(name: str) -> str:
    """The example's model. Models of all platforms share one schema, so it bears the platform's name."""
    return f"mart_{name}_orders"


def contract_name(model: str) -> str:
    """The name of a model's contract: `MartSales` for mart_sales."""
    return re.sub("_([a-z])", lambda letter: letter[1].upper(), f"_{model}")


def package_files(name: str, dbt_folder: str) -> dict[str, str]:
    """The files of the package, by their path below it. `dbt_folder` is where its dbt project is, in the project."""
    source = source_name(name)
    folder = f"defs/{source}"
    return {
        "__init__.py": f'"""The platform {name}: its sources and its models."""\n',
        "py.typed": "",
        "definitions.py": DEFINITIONS,
        "defs/__init__.py": f'"""The sources and models of {name}, a folder each."""\n',
        f"{folder}/__init__.py": '"""The example source: its contract and how its raw rows are staged."""\n',
        f"{folder}/defs.yaml": DEFS.format(name=name, source=source),
        f"{folder}/contracts.py": CONTRACTS,
        f"{folder}/staging.py": STAGING.format(),
        "defs/modelled/__init__.py": '"""The modelled tables: their contracts."""\n',
        "defs/modelled/defs.yaml": MODELLED_DEFS.format(name=name, folder=dbt_folder),
        "defs/modelled/contracts.py": MODELLED_CONTRACTS.format(
            model=model_name(name), contract=contract_name(model_name(name))
        ),
    }


def dbt_files(name: str) -> dict[str, str]:
    """The files of the dbt project, by their path below it."""
    source = source_name(name)
    return {
        "dbt_project.yml": DBT_PROJECT.format(name=name),
        "profiles.yml": PROFILES.format(name=name),
        f"models/sources/{source}.yml": DBT_SOURCE.format(source=source),
        f"models/marts/{model_name(name)}.sql": MODEL.format(source=source),
    }


def test_files(name: str) -> dict[str, str]:
    """The files of the package's tests, by their path below the folder of all tests."""
    source = source_name(name)
    imports = sorted(
        [
            "from data_platform.contracts import Audited, audit_rows",
            f"from {name}.defs.{source}.contracts import Order",
            f"from {name}.defs.{source}.staging import orders",
        ]
    )
    return {f"{name}/defs/{source}/test_staging.py": TEST.format(imports="\n".join(imports))}
