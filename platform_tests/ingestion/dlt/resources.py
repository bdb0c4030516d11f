"""Sources and resources of dlt as a user writes them: with an incremental, with a state of their own, of Arrow tables,
of whole tables, with parents, and with mistakes."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import dlt
import pyarrow as pa

ORDERS: list[dict[str, Any]] = []
"""What the system has that the resources read; tests put it there."""

RELEASED = threading.Event()
"""Set by a test when resources that wait may go on."""


@dlt.resource(primary_key="order_id", write_disposition="merge")
def orders(changed: Any = dlt.sources.incremental("changed_at", initial_value=0)) -> Iterator[Any]:  # noqa: B008 - as dlt has it
    """Orders since the last one, in pages of two."""
    rows = [row for row in ORDERS if row["changed_at"] >= changed.last_value]
    for at in range(0, len(rows), 2):
        yield rows[at : at + 2]


@dlt.resource(write_disposition="replace")
def currencies() -> Iterator[Any]:
    """A whole table, row by row."""
    yield {"code": "USD", "rate": Decimal("1.50"), "at": datetime(2026, 1, 2, tzinfo=UTC), "tags": ["a", {"b": 1}]}
    yield {"code": "EUR", "rate": None, "name": "Euro"}


@dlt.resource
def numbers() -> Iterator[Any]:
    """Neither an incremental nor a disposition: whatever there is."""
    yield [{"n": number} for number in range(int(os.environ.get("NUMBERS", "3")))]


@dlt.resource
def pages() -> Iterator[Any]:
    """A state of its own."""
    state = dlt.current.resource_state()
    after = state.get("after", 0)
    rows = [row for row in ORDERS if row["order_id"] > after]
    yield [{"order_id": row["order_id"]} for row in rows]
    state["after"] = max((row["order_id"] for row in rows), default=after)


@dlt.resource
def readings(since: Any = dlt.sources.incremental("ts", initial_value=-1)) -> Iterator[Any]:  # noqa: B008
    """Arrow tables, whose types stay."""
    yield pa.table({"ts": pa.array(range(len(ORDERS)), pa.int64()), "value": pa.array([0.5] * len(ORDERS))})


@dlt.transformer(data_from=orders)
def lines(items: Any) -> Iterator[Any]:
    """What is made of each page of another resource."""
    for item in items:
        yield {"order_id": item["order_id"], "line": 1}


@dlt.resource
def broken() -> Iterator[Any]:
    """Fails after its first rows."""
    yield [{"id": 1}]
    raise ValueError(f"the token {os.environ.get('SHOP_TOKEN')} of Jane Doe is not valid")


@dlt.resource
def odd() -> Iterator[Any]:
    """Items that are no objects."""
    yield [1, 2]


@dlt.resource
def silent() -> Iterator[Any]:
    """Waits for ever after its first rows, for something that a test may let come."""
    yield [{"id": 1}]
    RELEASED.wait()
    yield [{"id": 2}]


@dlt.resource
def deferred() -> Iterator[Any]:
    """Waits for ever in a thread of dlt's."""

    @dlt.defer
    def later() -> dict[str, int]:
        RELEASED.wait()
        return {"id": 1}

    yield later()


@dlt.resource
def slow() -> Iterator[Any]:
    """Gives a row now and then, and takes long for all of them."""
    for number in range(6):
        time.sleep(0.2)
        yield {"id": number}


@dlt.resource
def endless() -> Iterator[Any]:
    """Never waits, and never ends."""
    while True:
        yield pa.table({"id": pa.array(range(10_000), pa.int64())})


@dlt.source
def shop(token: str = dlt.secrets.value) -> Any:
    """All of them."""
    assert token
    return orders, currencies, numbers, pages, readings, lines, broken, odd, silent, deferred, slow, endless


def no_source() -> int:
    """A mistake."""
    return 7
