"""A source held in memory and the contract of its table, for tests of what happens to rows after they were read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from data_platform.contracts import Contract, Field, Instant
from data_platform.ingestion.source import REJECTS_SCHEMA, Batch, Overlap, Position, TableOptions
from data_platform.staging.recipe import Recipe


class Order(Contract):
    """An order of the shop."""

    order_id: int = Field(description="number of the order")
    amount: float = Field(ge=0, le=1000, unit="USD", description="what was paid")
    status: str = Field(isin=["open", "paid"], description="where it stands")
    changed_at: Instant = Field(nullable=True, description="last change")


TABLE = TableOptions(key=["order_id"], contract="platform_tests.tables.Order")
RECIPE = Recipe("shop", "orders", ("order_id",), Order, newest_by="changed_at")


def orders(*rows: tuple[object, object, object, object]) -> pa.Table:
    """Raw orders, all text, as a file would give them."""
    names = ["order_id", "amount", "status", "changed_at"]
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table(
        {
            name: pa.array([None if value is None else str(value) for value in column], pa.string())
            for name, column in zip(names, columns, strict=True)
        }
    )


def rejects(*rows: tuple[str, int, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(REJECTS_SCHEMA.names, row, strict=True)) for row in rows], REJECTS_SCHEMA)


@dataclass
class MemorySource:
    """Delivers batches that a test gave it, each with its position; `fails` is raised after the last one."""

    batches: Iterable[Batch] = ()
    whole: bool = False
    again: Overlap | None = None
    fails: BaseException | None = None
    asked: list[Position] = field(default_factory=list)

    def full_refresh(self, table: str) -> bool:
        return self.whole

    def position(self, table: str) -> Position | None:
        return None

    def overlap(self, table: str, after: Position) -> Overlap | None:
        return self.again

    def read(self, table: str, after: Position) -> Iterator[Batch]:
        self.asked.append(after)
        yield from self.batches
        if self.fails is not None:
            raise self.fails


def frame(lake_connection: object, query: str) -> pl.DataFrame:
    return lake_connection.execute(query).pl()  # type: ignore[attr-defined,no-any-return]
