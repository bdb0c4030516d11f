"""Makes `release_1.tar.gz`, a small lakehouse as release 0.1.0 left it, for the tests of the ledger's
migrations.

It ran once, with the code of release 0.1.0 (git commit 39d36b5), whose loads and sources it uses; today's code does not
run it. From the root of this checkout, with the environment of a checkout of that commit:

    <checkout of 39d36b5>/.venv/bin/python -m platform_tests.lakehouse.ledger.make_release_1
"""

# mypy: ignore-errors

import os
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from platform_tests.lakehouse.ledger.shop import GenerousOrder, Order, Pallet, Product

from data_platform.components.audits import AuditedTable, audit_table, record_verdicts
from data_platform.contracts.quarantine import Selection, close_entries
from data_platform.errors import PlatformError
from data_platform.ingestion.files import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import REJECTS_SCHEMA, Batch, Table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.publish import publish
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import commit
from data_platform.modelling.build import ModelResult, _record
from data_platform.observability.views import ensure_views
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import StagingRefusedError, replay, stage_table

ARCHIVE = Path(__file__).with_name("release_1.tar.gz")
CONTRACTS = "platform_tests.lakehouse.ledger.shop"
DAY = "2020-01-0{}T00:00:00Z"
RUN = "release-1"

ORDERS = Recipe("shop", "orders", ("order_id",), Order, newest_by="changed_at", refuse_above=0.5)
PRODUCTS = Recipe("shop", "products", ("sku",), Product, refuse_above=0.5)
PRICES = Recipe("shop", "prices", ("sku",), Product)
EMPTY = Recipe("shop", "empty", ("sku",), Product)
PALLETS = Recipe("depot", "pallets", ("pallet",), Pallet, refuse_above=0.5)
STOCK = Recipe("depot", "stock", ("pallet",), Pallet)


class Memory:
    """One batch of rows, by a cursor or as the whole table."""

    def __init__(self, rows: pa.Table, position: str, *, whole: bool, rejects: int = 0) -> None:
        lines = [{"_file": "f.csv", "_line": n, "record": "?", "reason": "no record"} for n in range(rejects)]
        self.batch = Batch(rows, {"cursor": position}, pa.Table.from_pylist(lines, REJECTS_SCHEMA))
        self.whole = whole

    def full_refresh(self, table):
        return self.whole

    def position(self, table):
        return None

    def overlap(self, table, after):
        return None

    def read(self, table, after):
        yield self.batch


def text(names: str, *rows: tuple[object, ...]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in names.split())
    return pa.table({n: pa.array(map(str, c), pa.string()) for n, c in zip(names.split(), columns, strict=True)})


def load(lake: Lakehouse, recipe: Recipe, rows: pa.Table, *, whole: bool = False, rejects: int = 0, **how) -> None:
    options = Table(key=list(recipe.key), contract=f"{CONTRACTS}.{recipe.contract.__name__}", refuse_above=0.5)
    number = ledger.head(lake, "raw", recipe.source, recipe.table).number + 1
    source = Memory(rows, str(number), whole=whole, rejects=rejects)
    load_table(lake, recipe.source, source, recipe.table, options, run_id=RUN, **how)


def refused(work, *arguments, **options) -> None:
    try:
        work(*arguments, **options)
    except PlatformError:
        return
    raise AssertionError("it was to be refused")


def play_orders(lake: Lakehouse) -> None:
    """Rows by a cursor: loads 1 to 5 and 7 to 9 landed, 6 was refused; 8 and 9 await staging, which refused 8.
    Open are 2:0 (not a number), 8:0 and the rejects of load 6; 3:0 is superseded, 5:0 replayed, 8:1 discarded."""

    def orders(*rows: tuple[object, object, int]) -> pa.Table:
        return text("order_id amount changed_at", *((one, amount, DAY.format(day)) for one, amount, day in rows))

    load(lake, ORDERS, orders((1, 1, 1), (2, 2, 1), (3, 3, 1)))
    stage_table(lake, ORDERS, run_id=RUN)
    load(lake, ORDERS, orders((4, "abc", 2), (5, 5, 2)))
    stage_table(lake, ORDERS, run_id=RUN)
    load(lake, ORDERS, orders((6, -5, 3), (7, 7, 3)))
    stage_table(lake, ORDERS, run_id=RUN)
    load(lake, ORDERS, orders((6, 6, 4), (1, 1.5, 4)))
    stage_table(lake, ORDERS, run_id=RUN)
    load(lake, ORDERS, orders((8, 2000, 5), (9, 9, 5)))
    stage_table(lake, ORDERS, run_id=RUN)
    generous = Recipe(**{**vars(ORDERS), "contract": GenerousOrder})
    replay(lake, generous, Selection(ids=["5:0"]), run_id=RUN)
    refused(load, lake, ORDERS, orders((10, 10, 6)), rejects=9)
    load(lake, ORDERS, orders((10, 10, 6), (11, 11, 6)), rejects=1)
    stage_table(lake, ORDERS, run_id=RUN)
    load(lake, ORDERS, orders((12, "x", 7), (13, "y", 7)))
    try:
        stage_table(lake, ORDERS, run_id=RUN)
    except StagingRefusedError:
        load(lake, ORDERS, orders((14, 14, 8), (15, 15, 8)))


def play_products(lake: Lakehouse) -> None:
    """The whole table each time: loads 1, 2 and 4 landed and were staged, 3 was refused because the table shrank."""
    load(lake, PRODUCTS, text("sku price", ("tea", 1), ("mug", 2), ("pot", 3)), whole=True)
    stage_table(lake, PRODUCTS, run_id=RUN)
    load(lake, PRODUCTS, text("sku price", ("tea", 1), ("mug", 2), ("pot", -3)), whole=True, rejects=1)
    stage_table(lake, PRODUCTS, run_id=RUN)
    refused(load, lake, PRODUCTS, text("sku price", ("tea", 1)), whole=True)
    load(lake, PRODUCTS, text("sku price", ("tea", 2), ("mug", 3), ("cup", 0), ("jug", 4)), whole=True)
    stage_table(lake, PRODUCTS, run_id=RUN)
    # A whole table that became empty, and awaits staging; additions that never came, and were staged.
    load(lake, PRICES, text("sku price", ("tea", 1), ("mug", 2)), whole=True)
    stage_table(lake, PRICES, run_id=RUN)
    load(lake, PRICES, text("sku price"), whole=True, full_refresh=True)
    load(lake, EMPTY, text("sku price"))
    stage_table(lake, EMPTY, run_id=RUN)


def deliver(folder: Path, name: str, *lines: str) -> None:
    """A file of a time that an archive can hold: whole seconds."""
    path = folder / name
    path.write_text("\n".join(["pallet,sku", *lines]) + "\n")
    seconds = 1_577_836_800 + len(list(folder.iterdir()))
    os.utime(path, (seconds, seconds))


def play_depot(lake: Lakehouse, folder: Path) -> None:
    """Files: each adds rows (one of them has the content of another), or is the whole table."""
    folder.mkdir()
    tables = {
        "pallets": FileTable(
            key=["pallet"], contract=f"{CONTRACTS}.Pallet", path="pallets-*.csv", format={"type": "csv"}, refuse_above=1
        ),
        "stock": FileTable(
            key=["pallet"],
            contract=f"{CONTRACTS}.Pallet",
            path="stock-*.csv",
            format={"type": "csv"},
            deliveries="snapshot",
        ),
    }

    def deliveries() -> None:
        for recipe in (PALLETS, STOCK):
            load_table(lake, "depot", Files(folder, tables), recipe.table, tables[recipe.table], run_id=RUN)
            stage_table(lake, recipe, run_id=RUN)

    deliver(folder, "pallets-1.csv", "1,tea", "2,mug")
    deliver(folder, "pallets-2.csv", "3,pot", "too,many,fields")
    deliver(folder, "stock-1.csv", "1,tea", "2,mug")
    deliveries()
    deliver(folder, "pallets-3.csv", "1,tea", "2,mug")
    deliver(folder, "stock-2.csv", "1,tea", "3,pot")
    deliveries()


def play_models(lake: Lakehouse) -> None:
    """A model that was published twice, verdicts of a build and of the nightly audit, a pin."""
    for publication in (1, 2):

        def build(connection, last=3 * publication) -> None:
            connection.execute("CREATE SCHEMA IF NOT EXISTS build")
            connection.execute(
                "CREATE OR REPLACE TABLE build.totals AS SELECT count(*) AS orders, sum(amount) AS amount "
                f"FROM staged_shop.orders WHERE _staging_id <= {last}"
            )

        commit(lake, build)
        violation = {"column": "amount", "check": "at least 0", "rows": 1, "value": "-1", "fatal": False}
        result = ModelResult("totals", passed=True, verdict="", rows_audited=1, violations=[violation])
        _record(lake, [result], {}, RUN)
        publish(lake, {"totals": {"shop/orders": 3 * publication}}, current_snapshot(lake.connection), run_id=RUN)
    audited = AuditedTable("staged", "shop", "orders", f"{CONTRACTS}.Order", ("order_id",))
    record_verdicts(lake, [audit_table(lake, audited)], RUN)
    pin = [current_snapshot(lake.connection), datetime.now(UTC)]
    commit(lake, lambda c: c.execute(f"INSERT INTO {ledger.name('pins')} VALUES ('training', ?, 'model 1', ?)", pin))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "release_1"
        settings = Settings(Path(name) / "home", str(folder / "catalog.sqlite"), str(folder / "data"))
        with open_lakehouse(settings) as lake:
            ledger.ensure_ledger(lake)
            ensure_views(lake)
            play_orders(lake)
            play_products(lake)
            maintain(lake)
            play_depot(lake, folder / "depot")
            play_models(lake)
            given_up = Selection(ids=["8:1"])
            commit(lake, lambda c: close_entries(c, ORDERS.quarantine, "discarded", datetime.now(UTC), given_up))
        with tarfile.open(ARCHIVE, "w:gz") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.name.endswith((".lock", "-wal", "-shm")):
                    archive.add(path, path.relative_to(folder.parent))


if __name__ == "__main__":
    main()
