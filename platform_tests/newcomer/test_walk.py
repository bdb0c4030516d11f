"""A newcomer's first hour: from the built wheel in an empty folder, without the repository, to a model of their own
over a CSV, a PostgreSQL and an API, with a broken delivery found, mended and replayed.
Prints the seconds of each step."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from platform_tests.drawing import ROOT
from platform_tests.ingestion.http.server import Answer, Asked, running_api

pytestmark = [pytest.mark.newcomer, pytest.mark.timeout(600)]

OWN = ("DATA_PLATFORM_", "LAKEHOUSE_", "DAGSTER_", "DBT_", "PYTEST_", "PYTHON", "VIRTUAL_ENV")
"""How variables begin that a newcomer does not have."""

SOURCES = """\
version: 2

sources:
  - {name: warehouse, schema: staged_warehouse, database: lake, tables: [{name: stock}]}
  - {name: shop, schema: staged_shop, database: lake, tables: [{name: orders}]}
  - {name: prices, schema: staged_prices, database: lake, tables: [{name: prices}]}
"""

MODEL = """\
select
    stock.sku,
    stock.pieces,
    coalesce(sum(orders.quantity), 0)::bigint as ordered,
    any_value(prices.price) as price
from {{ source('warehouse', 'stock') }} as stock
left join {{ source('shop', 'orders') }} as orders on orders.sku = stock.sku
left join {{ source('prices', 'prices') }} as prices on prices.sku = stock.sku
group by all
"""

CONTRACT = """

class MartStock(Contract):
    \"\"\"What is in stock, what was ordered, and what it costs.\"\"\"

    sku: str = Field(unique=True, description="Number of the article.")
    pieces: int = Field(ge=0, description="Pieces in stock.")
    ordered: int = Field(ge=0, description="Pieces that were ordered.")
    price: float = Field(gt=0, description="Price of a piece.")
"""

STAGING = """\
\"\"\"How raw stock is repaired: some deliveries write the unit behind the number.\"\"\"

import polars as pl

from data_platform.cleaning import number_text


def stock(raw: pl.LazyFrame) -> pl.LazyFrame:
    \"\"\"Raw stock to staged stock.\"\"\"
    return raw.with_columns(pieces=number_text("pieces", units=["pcs"]))
"""


@dataclass(frozen=True)
class Newcomer:
    """Somebody in an empty folder, with the variables of this machine and none of the project's."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        # As the Makefile has it: uv trusts the certificates that the machine does.
        return {**theirs, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}

    def run(self, *command: str | Path, fails: bool = False) -> str:
        """Run a command in the folder; what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )
        printed = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{' '.join(map(str, command))}\n{printed}"
        assert "Traceback" not in printed
        return printed if fails else done.stdout

    def dp(self, *arguments: str, fails: bool = False) -> str:
        return self.run(self.folder / ".venv" / "bin" / "dp", *arguments, fails=fails)

    def rows(self, query: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.dp("sql", query, "-f", "json"))
        return found

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)


@contextmanager
def step(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)


def stock(*rows: tuple[str, str]) -> str:
    return "".join(["sku,pieces\n", *(f"{sku},{pieces}\n" for sku, pieces in rows)])


def test_from_the_wheel_in_an_empty_folder_to_a_model_mended_and_published(tmp_path: Path, postgres_url: str) -> None:
    print()
    began = time.monotonic()
    newcomer = Newcomer(tmp_path / "company")
    newcomer.folder.mkdir()
    python = newcomer.folder / ".venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]

    with step("the wheel is built, from the source distribution"):
        subprocess.run([*uv, "build", "--quiet", "--out-dir", str(tmp_path / "dist"), str(ROOT)], check=True)
        (wheel,) = (tmp_path / "dist").glob("*.whl")
    with step("and installed in an empty environment"):
        newcomer.run(*uv, "venv", "--quiet", "--python", sys.executable, ".venv")
        newcomer.run(*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, wheel)
        code = "import sys, data_platform; print(data_platform.__file__, *sys.path)"
        places = newcomer.run(python, "-c", code).split()
        assert Path(places[0]).is_relative_to(newcomer.folder / ".venv")
        assert not [place for place in places if Path(place).is_relative_to(ROOT)]
    with step("dp without a project says what to do"):
        assert "dp init NAME" in newcomer.dp("status", fails=True)
        assert "nyc_flights" not in newcomer.run(*uv, "pip", "list", "--quiet", "--python", python)
        assert "2013" not in newcomer.dp("--help")
    with step("dp init my_company"):
        assert "dp run" in newcomer.dp("init", "my_company")
    with step("make demo: the example is loaded, staged, modelled and shown"):
        assert "cancelled" in newcomer.run("make", "demo")
        assert len(newcomer.rows("from modelled.mart_my_company_orders")) == 3
    with step("make test lint"):
        assert "6 passed" in newcomer.run("make", "test", "lint")

    with running_api(prices) as api, step("a folder of CSV, a PostgreSQL and an API become sources"):
        newcomer.write("deliveries/stock-1.csv", stock(*((f"sku-{number}", str(number)) for number in range(1, 31))))
        with psycopg.connect(postgres_url, autocommit=True) as shop:
            shop.execute(
                "create table orders (order_id bigint primary key, sku text not null, quantity integer not null, "
                "updated_at timestamptz not null default now())"
            )
            shop.execute("insert into orders select n, 'sku-' || (1 + n % 30), 2, now() from generate_series(1, 90) n")
        newcomer.dp("add", "source", "warehouse", "--folder", str(newcomer.folder / "deliveries"), "--key", "sku")
        newcomer.dp("add", "source", "shop", "--url", postgres_url, "--table", "orders")
        newcomer.dp("add", "source", "prices", "--url", f"{api.url}/prices")
        newcomer.dp("run", "warehouse", "shop", "prices")
        assert "my_company" in newcomer.dp("doctor")

        counts = "select count(*) as rows from staged_{}"
        assert [
            newcomer.rows(counts.format(table))[0]["rows"]
            for table in ("warehouse.stock", "shop.orders", "prices.prices")
        ] == [30, 90, 30]

    with step("a model over the three, with its contract"):
        newcomer.write("dbt_project/models/sources/own.yml", SOURCES)
        newcomer.write("dbt_project/models/marts/mart_stock.sql", MODEL)
        contracts = newcomer.folder / "platform/my_company/defs/modelled/contracts.py"
        contracts.write_text(contracts.read_text() + CONTRACT)
        newcomer.dp("run", "modelled/mart_stock")
        published = "select pieces, ordered, price from modelled.mart_stock where sku = 'sku-{}'"
        assert newcomer.rows(published.format(7)) == [{"pieces": 7, "ordered": 6, "price": 7.5}]

    with step("a delivery is broken, and a file altogether"):
        newcomer.write(
            "deliveries/stock-2.csv",
            stock(*((f"sku-{number}", str(number + 100)) for number in range(1, 30)), ("sku-30", "130 pcs")),
        )
        newcomer.dp("run", "warehouse", "modelled/mart_stock")
        assert "130 pcs" in newcomer.dp("quarantine", "show", "warehouse/stock")
        newcomer.write("deliveries/stock-3.csv", stock(*((f"sku-{number}", "many") for number in range(1, 31))))
        refused = newcomer.dp("run", "warehouse", fails=True)
        assert "pieces" in refused
        assert newcomer.rows(published.format(30))[0]["pieces"] == 30
        assert newcomer.rows(published.format(29))[0]["pieces"] == 129
    with step("it is found"):
        assert "warehouse" in newcomer.dp("quarantine", "list")
        assert "not a whole number" in newcomer.dp("quarantine", "show", "warehouse/stock")
    with step("mended, replayed, and published"):
        newcomer.write("platform/my_company/defs/warehouse/staging.py", STAGING)
        defs = newcomer.folder / "platform/my_company/defs/warehouse/defs.yaml"
        stage = "my_company.defs.warehouse.staging.stock"
        if stage not in defs.read_text():
            lines = defs.read_text().splitlines()
            (place,) = (number for number, line in enumerate(lines) if line.lstrip().startswith("contract:"))
            indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            lines.insert(place + 1, f"{indent}stage: {stage}")
            defs.write_text("\n".join(lines) + "\n")
        newcomer.dp("quarantine", "replay", "warehouse/stock")
        newcomer.write("deliveries/stock-3.csv", stock(*((f"sku-{number}", "5") for number in range(1, 11))))
        newcomer.dp("run", "warehouse", "--full-refresh")
        newcomer.dp("run", "modelled/mart_stock")
        assert newcomer.rows(published.format(30)) == [{"pieces": 130, "ordered": 6, "price": 30.5}]
        assert newcomer.rows(published.format(7))[0]["pieces"] == 5
        assert newcomer.rows("select count(*) as open from quarantine_warehouse.stock where status = 'open'") == [
            {"open": 0}
        ]
    with step("dp migrate has nothing to do; the platform is as its tests say"):
        assert "nothing to do" in newcomer.dp("migrate")
        assert "6 passed" in newcomer.run("make", "test")
    took = time.monotonic() - began
    print(f"{took:6.1f} s  in all")
    assert took < 600


def prices(asked: Asked) -> Answer:
    return Answer([{"sku": f"sku-{number}", "price": number + 0.5} for number in range(1, 31)])
