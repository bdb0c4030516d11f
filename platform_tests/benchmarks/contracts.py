"""Contracts and a staging function of the benchmarks' tables: an ordinary shop's orders."""

import polars as pl

from data_platform.contracts import Contract, Field, Instant


class Order(Contract):
    """An order, from a source with types."""

    id: int = Field(description="number of the order")
    customer_id: int = Field(ge=1, description="who ordered")
    amount: float = Field(ge=0, le=100_000, unit="USD", description="what was paid")
    quantity: int = Field(ge=1, description="pieces")
    status: str = Field(isin=["open", "paid", "sent"], description="where it stands")
    note: str = Field(nullable=True, description="what the customer wrote")
    changed_at: Instant = Field(description="last change")


class TextOrder(Contract):
    """An order, from a file: all text on arrival."""

    id: int = Field(description="number of the order")
    customer_id: int = Field(ge=1, description="who ordered")
    amount: float = Field(ge=0, le=100_000, unit="USD", description="what was paid")
    discount: float = Field(nullable=True, ge=0, le=1, description="share of the price")
    quantity: int = Field(ge=1, le=1_000, description="pieces")
    status: str = Field(isin=["open", "paid", "sent"], description="where it stands")
    country: str = Field(str_length={"min_value": 2, "max_value": 2}, description="ISO 3166 code")
    gift: bool = Field(description="whether it is wrapped")
    ordered_on: pl.Date = Field(description="day of the order")
    changed_at: Instant = Field(description="last change")


def orders(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Repair what is known to come in several spellings."""
    return raw.with_columns(pl.col("status").str.strip_chars().str.to_lowercase(), pl.col("country").str.to_uppercase())
