"""Revenue by day and country: a script on the shop's database, a CSV file of what it gives, another one reshaped and
sorted, and a table of the warehouse that it is copied into. Each file has its name only once it is whole, and the table
has the old rows or the new ones: a step that failed or was killed is simply run again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg

from data_platform.lakehouse.settings import settings_from_environment

SCRIPT = Path(__file__).parent / "lines.sql"
TABLE = "create table if not exists revenue (day date, country text, orders bigint, amount numeric(18, 2))"


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A draft of a file, which takes the file's place at the end of the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    yield draft
    draft.replace(file)


def file_of(name: str) -> Path:
    return settings_from_environment().home / "report" / f"{name}.csv"


@dg.asset(key=["report", "lines"], group_name="report", kinds={"postgresql", "csv"})
def lines() -> dg.MaterializeResult[None]:
    """The lines of all orders, as the script on the shop's database gives them."""
    script = SCRIPT.read_text(encoding="utf-8")
    with (
        psycopg.connect(os.environ["SHOP_URL"]) as shop,
        shop.cursor() as cursor,
        whole(file_of("lines")) as draft,
        draft.open("wb") as out,
    ):
        with cursor.copy(f"copy ({script}) to stdout (format csv, header)".encode()) as rows:
            for part in rows:
                out.write(part)
        count = cursor.rowcount
    return dg.MaterializeResult(metadata={"dagster/row_count": count})


@dg.asset(key=["report", "revenue_by_day"], deps=[lines], group_name="report", kinds={"polars", "csv"})
def revenue_by_day() -> dg.MaterializeResult[None]:
    """Orders and revenue by day and country, sorted."""
    found = pl.scan_csv(file_of("lines"), schema_overrides={"amount": pl.Decimal(18, 2), "country": pl.String})
    day = pl.col("ordered_at").str.to_datetime(time_zone="UTC").dt.date().alias("day")
    revenue = (
        found.group_by(day, "country")
        .agg(pl.col("order_id").n_unique().alias("orders"), pl.col("amount").sum())
        .sort("day", "country", nulls_last=True)
        .collect()
    )
    with whole(file_of("revenue_by_day")) as draft:
        revenue.write_csv(draft)
    return dg.MaterializeResult(metadata={"dagster/row_count": revenue.height})


@dg.asset(
    key=["report", "revenue"],
    deps=[revenue_by_day],
    group_name="report",
    kinds={"postgresql"},
    check_specs=[dg.AssetCheckSpec("rows", asset=["report", "revenue"])],
)
def revenue() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """The table of the warehouse, replaced by COPY in one transaction."""
    file = file_of("revenue_by_day")
    with psycopg.connect(os.environ["WAREHOUSE_URL"]) as warehouse, warehouse.cursor() as cursor:
        cursor.execute(TABLE)
        # Readers see the old rows until the commit, which TRUNCATE would not let them.
        cursor.execute("delete from revenue")
        with cursor.copy("copy revenue from stdin (format csv, header match)") as copy, file.open("rb") as rows:
            while part := rows.read(1 << 20):
                copy.write(part)
        cursor.execute("select count(*) from revenue")
        (count,) = cursor.fetchone() or (0,)
    expected = pl.scan_csv(file).select(pl.len()).collect().item()
    yield dg.MaterializeResult(metadata={"dagster/row_count": count})
    yield dg.AssetCheckResult(passed=count == expected, check_name="rows", metadata={"rows in the file": expected})
