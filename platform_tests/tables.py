"""A source held in memory and the contract of its table, for tests of what happens to rows after they were read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import polars as pl
import pyarrow as pa

from data_platform.contracts import Contract, Field, Instant
from data_platform.ingestion.source import (
    REJECTS_SCHEMA,
    UNKNOWN,
    Batch,
    Kind,
    Overlap,
    Position,
    Probe,
    TableOptions,
)
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
    """Records that could not be read: file, line, text, reason."""
    names = ("_file", "_line", "record", "reason")
    places = [{"place": f"{row[0]}:{row[1]}" if row[0] else None} for row in rows]
    records = [dict(zip(names, row, strict=True)) | place for row, place in zip(rows, places, strict=True)]
    return pa.Table.from_pylist(records, REJECTS_SCHEMA)


def batch_of(
    rows: pa.Table,
    position: Position | None,
    bad: pa.Table | None = None,
    *,
    kind: Kind = "rows",
    table: str = "orders",
) -> Batch:
    """A batch of orders."""
    return Batch(table, rows, kind, position, REJECTS_SCHEMA.empty_table() if bad is None else bad)


@dataclass
class MemorySource:
    """Delivers batches that a test gave it, each with its position, as those of whatever table is read; `fails` is
    raised after the last one. It keeps the positions that it was `asked` to read after, and those `acknowledged`."""

    batches: Iterable[Batch] = ()
    whole: bool = False
    again: Overlap | None = None
    fails: BaseException | None = None
    asked: list[Position] = field(default_factory=list)
    acknowledged: list[Position] = field(default_factory=list)

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        return dict.fromkeys(tables, UNKNOWN)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["MemoryReading"]:
        yield MemoryReading(self, tables, after)


@dataclass
class MemoryReading:
    source: MemorySource
    tables: Sequence[str]
    after: Position

    def overlap(self, table: str) -> Overlap | None:
        return self.source.again

    def __iter__(self) -> Iterator[Batch]:
        self.source.asked.append(self.after)
        for batch in self.source.batches:
            table = batch.table if len(self.tables) > 1 else self.tables[0]
            yield replace(batch, table=table, kind="whole" if self.source.whole else batch.kind)
        if self.source.fails is not None:
            raise self.source.fails

    def committed(self, position: Position) -> None:
        self.source.acknowledged.append(position)


def frame(lake_connection: object, query: str) -> pl.DataFrame:
    return lake_connection.execute(query).pl()  # type: ignore[attr-defined,no-any-return]
